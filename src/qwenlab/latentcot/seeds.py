"""Seeds side by side: each in a process of its own, on one thread; a tiny model gains nothing from a second one.

The processes are forks of a server that has imported the libraries once: an import of transformers takes longer than
many a job. What an earlier run finished is kept if parameters, inputs and code are what they were.
"""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from qwenlab.core.io import make_dir
from qwenlab.core.launch import launched, main_process
from qwenlab.core.resume import fingerprint, stamped

T = TypeVar("T")
PRELOAD = [
    "qwenlab.latentcot.train",
    "transformers.trainer",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen2_vl.image_processing_qwen2_vl",
]


def side_by_side(work: Callable[[T], object], jobs: Sequence[T], at_once: int) -> list:
    """`work(job)` for every job, `at_once` at a time; in this process where one at a time is asked for."""
    if at_once <= 1 or len(jobs) <= 1 or launched():
        return [work(job) for job in jobs]
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with ProcessPoolExecutor(min(at_once, len(jobs)), mp_context=context) as pool:
        return list(pool.map(work, jobs))


def code_stamp(settings: object, inputs: Sequence[str | Path]) -> str:
    """A fingerprint of parameters, inputs and the code of this system."""
    here = Path(__file__).parent
    names = ("batch", "encode", "features", "latents", "method", "ready", "samples", "teacher", "tokens", "train")
    return fingerprint(settings, inputs, [here / f"{name}.py" for name in names])


def unfinished(out: Path, seeds: Sequence[int], now: str) -> list[int]:
    """Seeds to train; what was made with other parameters, inputs or code is removed first."""
    make_dir(out)
    wanted = {f"{kind}{seed}" for seed in seeds for kind in ("seed", "work")}
    if main_process():
        for path in out.iterdir():
            if path.name not in wanted or stamped(path) != now:
                print(f"{path}: made with other parameters, inputs or code; starts over.", flush=True)
                shutil.rmtree(path)
    return [seed for seed in seeds if not (out / f"seed{seed}").exists()]
