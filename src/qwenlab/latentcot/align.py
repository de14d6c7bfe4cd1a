"""How well states are aligned, on held-out samples: what stage 1-2 and 1-3 were trained for.

- observation.before, .after: cosine between the teacher's states at observations (stage 1-1 model, auxiliary image
  visible) and those of the stage 1-1 and the stage 1-2 model that see it through latents only; layers >= first_layer
- latent.cosine: between the latents of the stage 1-3 model and its teacher's, which saw the auxiliary image
- latent.pairwise: between the latents of different samples at the same step, last layer: near 1 they have collapsed
- latent.pairwise_centred: the same without their mean, which all hidden states of a model share
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from qwenlab.core.io import write_json
from qwenlab.core.seeding import seed_everything
from qwenlab.core.summary import medians, rounded
from qwenlab.latentcot.checkpoint import Runtime
from qwenlab.latentcot.method import Method
from qwenlab.latentcot.precompute import states
from qwenlab.latentcot.ready import Ready, encode, prepare


@dataclass(frozen=True)
class Job:
    seed: int
    checkpoints: tuple[str, str, str]  # of stages 1-1, 1-2, 1-3
    data: str
    count: int
    runtime: Runtime
    method: Method


def cosine(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], first: int) -> float:
    """Mean cosine over tokens, layers from `first` on, and samples."""
    pairs = [torch.nn.functional.cosine_similarity(one[n][first:], other[n][first:], dim=-1).mean(0) for n in one]
    return float(torch.cat(pairs).mean())


def pairwise(latents: torch.Tensor, centred: bool = False) -> float:
    """Mean cosine between different samples at the same step, of `[N, K, H]`."""
    if centred:
        latents = latents - latents.mean(0, keepdim=True)
    unit = torch.nn.functional.normalize(latents, dim=-1).transpose(0, 1)  # [K, N, H]
    count = unit.shape[1]
    total = (unit.sum(1) ** 2).sum(-1) - count  # all ordered pairs of different samples
    return float((total / (count * (count - 1))).mean())


def spread(samples: list, count: int) -> list:
    """`count` samples from all over the file."""
    step = max(1, len(samples) // count)
    return samples[::step][:count]


def run_job(job: Job) -> dict:
    """The numbers of one seed."""
    torch.set_num_threads(1)
    seed_everything(job.seed)
    first, second, third = job.checkpoints
    method = job.method

    def at(checkpoint: str, form: str) -> Ready:
        ready = prepare(checkpoint, job.runtime, job.data, form, method)
        ready.encoded = spread(ready.encoded, job.count)
        return ready

    ready = at(first, "stage1-1")
    teacher = states(ready, "rep", method)
    again = encode(
        ready.model,
        ready.processor,
        ready.special,
        ready.features,
        spread(ready.samples, job.count),
        "stage1-2",
        method,
    )
    before = states(again, "rep", method, stage="stage1-2")
    ready = at(second, "stage1-2")
    after = states(ready, "rep", method, stage="stage1-2")
    wanted = states(ready, "latent", method)
    got = states(at(third, "stage1-3"), "latent", method, stage="stage1-3")
    last = torch.stack([value[-1] for value in got.values()])
    layer = method.first_layer
    return {
        "observation": {"before": cosine(teacher, before, layer), "after": cosine(teacher, after, layer)},
        "latent": {
            "cosine": cosine(wanted, got, layer), "pairwise": pairwise(last), "pairwise_centred": pairwise(last, True),
        },
    }  # fmt: skip


def write(found: dict[int, dict], metrics: str | Path) -> None:
    """Write alignment.json: medians over seeds, and every seed."""
    for one in found.values():
        one["observation"]["gain"] = one["observation"]["after"] - one["observation"]["before"]
    numbers = {str(seed): rounded(one) for seed, one in found.items()}
    print(f"alignment: {medians(numbers)}", flush=True)
    write_json(Path(metrics) / "alignment.json", {**medians(numbers), "seeds": numbers})
