"""One training a seed, into `<out>/seed<k>/`: side by side or one after the other, resumed if nothing changed.

runs = SeedRuns(out, fingerprint(...), at_once=3)
runs.start([0, 1, 2], job, run_job)           # run_job(job(seed, folder, work, threads)) in processes of their own
"""

import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from qwenlab.core.io import make_dir
from qwenlab.core.launch import launched, main_process
from qwenlab.core.resume import stamp, stamped


@dataclass(frozen=True)
class SeedRuns:
    """Where runs go, what they were made with, and how many at a time."""

    out: Path
    fingerprint: str
    at_once: int

    def start(self, seeds: list[int], job: Callable[[int, Path, Path, int | None], Any],
              run_job: Callable[[Any], None]) -> None:  # fmt: skip
        """Run what is not there yet.

        Args:
            job: (seed, folder to fill, folder for checkpoints, CPU threads or None) -> what `run_job` takes; picklable.
            run_job: fills `folder` at once (`io.atomic_dir`), with a stamp in it; a module-level function. With
                several processes a seed it is called in each of them.
        """
        make_dir(self.out)
        if main_process():
            wanted = {f"{kind}{seed}" for seed in seeds for kind in ("seed", "work")}
            for path in self.out.iterdir():
                if path.name not in wanted or stamped(path) != self.fingerprint:
                    print(f"{path}: made with other parameters, inputs or code; starts over.", flush=True)
                    shutil.rmtree(path)
        todo = [seed for seed in seeds if not (self.out / f"seed{seed}").exists()]
        # Tiny models gain nothing from a second thread: a thread each, and several seeds.
        several = min(self.at_once, len(todo)) > 1 and not launched()
        jobs = []
        for seed in todo:
            work = make_dir(self.out / f"work{seed}")
            if main_process():
                stamp(work, self.fingerprint)
            jobs.append(job(seed, self.out / f"seed{seed}", work, 1 if several else None))
        if several:
            with ProcessPoolExecutor(min(self.at_once, len(jobs)), mp_context=get_context("spawn")) as pool:
                list(pool.map(run_job, jobs))
        else:
            for one in jobs:
                run_job(one)
        if main_process():
            for seed in todo:
                shutil.rmtree(self.out / f"work{seed}", ignore_errors=True)


def last_checkpoint(work: Path) -> Path | None:
    """The newest `checkpoint-<step>` of a killed run, or None."""
    found = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return found[-1] if found else None
