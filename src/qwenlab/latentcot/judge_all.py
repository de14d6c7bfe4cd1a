"""All that is measured on held-out scenes, in one pool of processes: every arm and seed, and the alignments."""

from qwenlab.core.params import load, load_raw
from qwenlab.latentcot import align, score
from qwenlab.latentcot.checkpoint import Runtime
from qwenlab.latentcot.method import Method
from qwenlab.latentcot.seeds import side_by_side

ARMS = {"text": "control/text", "pause": "control/pause", "latent": "stage1_3"}  # where an arm's models are


def one(job: score.Job | align.Job) -> list[dict] | dict:
    """A job of either kind, in a process of its own."""
    return score.run_job(job) if isinstance(job, score.Job) else align.run_job(job)


def run(data: str, trained: str, metrics: str) -> None:
    """Write <arm>.json and <arm>.csv of base, text, pause and latent, and alignment.json."""
    runtime, method = load("latentcot.runtime", Runtime), load("latentcot.method", Method)
    params, seeds = load("latentcot.score", score.Score), load_raw("latentcot")["seeds"]
    test = f"{data}/test.jsonl"
    jobs: list[score.Job | align.Job] = [
        score.Job(arm, f"{trained}/{where}/seed{seed}", seed, runtime, method, params, test)
        for arm, where in reversed(ARMS.items())  # the longest first
        for seed in seeds
    ]
    jobs.append(score.Job("base", runtime.model, 0, runtime, method, params, test))
    for seed in seeds:
        stages = tuple(f"{trained}/{name}/seed{seed}" for name in ("stage1_1", "stage1_2", "stage1_3"))
        jobs.append(align.Job(seed, stages, test, params.aligned, runtime, method))  # type: ignore[arg-type]
    found = side_by_side(one, jobs, min(2, runtime.seeds_at_once))
    for arm in ("base", *ARMS):
        rows = {j.seed: r for j, r in zip(jobs, found, strict=True) if isinstance(j, score.Job) and j.arm == arm}
        score.write_arm(arm, rows, metrics)
    align.write({j.seed: r for j, r in zip(jobs, found, strict=True) if isinstance(j, align.Job)}, metrics)
