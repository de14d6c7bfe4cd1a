"""A training stage or a precomputation of the experiment, for every seed: what the stage scripts run."""

from pathlib import Path

from qwenlab.core.params import load, load_raw
from qwenlab.latentcot.checkpoint import Runtime
from qwenlab.latentcot.method import Method
from qwenlab.latentcot.precompute import run as precompute_one
from qwenlab.latentcot.seeds import code_stamp, side_by_side, unfinished
from qwenlab.latentcot.teacher import Kind
from qwenlab.latentcot.train import Job, Train, run_job


def train(stage: str, data: str, out: str, start: str | None = None, teacher: str | None = None) -> None:
    """Train a stage or control arm for every seed into `<out>/seed<k>`.

    Args:
        start: folder of the stage before, with a checkpoint a seed; without it the base that the profile names.
        teacher: folder with teacher states a seed, made by the checkpoint that this stage starts from.
    """
    runtime, method, params = load("latentcot.runtime", Runtime), load("latentcot.method", Method), load_train()
    seeds = load_raw("latentcot")["seeds"]
    inputs = [data, *(path for path in (start, teacher) if path), *([] if start else [runtime.model])]
    settings = [stage, runtime.model_dump(exclude={"seeds_at_once"}), method.model_dump(), params.model_dump()]
    now = code_stamp(settings, [path for path in inputs if Path(path).exists()])
    threads = 1 if runtime.seeds_at_once > 1 else None
    jobs = []
    for seed in unfinished(Path(out), seeds, now):
        begin = f"{start}/seed{seed}" if start else runtime.model
        states = f"{teacher}/seed{seed}" if teacher else None
        jobs.append(
            Job(stage, params, runtime, method, seed, begin, begin, f"{data}/train.jsonl", states,
                f"{out}/seed{seed}", f"{out}/work{seed}", now, threads)
        )  # fmt: skip
    side_by_side(run_job, jobs, runtime.seeds_at_once)


def load_train() -> Train:
    """`latentcot.train` of the parameters."""
    return load("latentcot.train", Train)


def precompute(kind: Kind, data: str, checkpoints: str, out: str) -> None:
    """Teacher states of every seed into `<out>/seed<k>`."""
    runtime, method, params = load("latentcot.runtime", Runtime), load("latentcot.method", Method), load_train()
    jobs = [
        (kind, f"{checkpoints}/seed{seed}", f"{data}/train.jsonl", f"{out}/seed{seed}", runtime, method, params.packed)
        for seed in load_raw("latentcot")["seeds"]
    ]
    side_by_side(one_precompute, jobs, runtime.seeds_at_once)


def one_precompute(job: tuple) -> int:
    """In a process of its own."""
    import torch

    torch.set_num_threads(1)
    return precompute_one(*job)
