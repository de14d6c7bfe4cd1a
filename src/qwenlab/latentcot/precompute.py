"""Teacher states of every training sample: what later stages are aligned with (seed 000, precompute).

    rep     stage1-1 model, auxiliary image visible: hidden states at observations      -> stage 1-2
    latent  stage1-2 model, latent mode and its mask:  hidden states at latents         -> stage 1-3

Both really use the pictures and the mask of their stage. In published code the latent precompute built its 4-D mask
and never passed it, or replaced the pictures by noise.
"""

from pathlib import Path

import torch

from qwenlab.core.io import atomic_dir, make_dir
from qwenlab.latentcot.checkpoint import Runtime, checkpoint_hash
from qwenlab.latentcot.encode import Encoded
from qwenlab.latentcot.latents import run as forward
from qwenlab.latentcot.method import STEPS, Method
from qwenlab.latentcot.ready import Ready, collator, prepare
from qwenlab.latentcot.teacher import Kind, write

FROM = {"rep": "stage1-1", "latent": "stage1-2"}  # the stage whose form and model a kind of state comes from


@torch.no_grad()
def states(
    ready: Ready, kind: Kind, method: Method, batch: int = 64, stage: str | None = None
) -> dict[str, torch.Tensor]:
    """Name -> `[L + 1, tokens, H]` at observations (rep) or latents (latent).

    Args:
        stage: the form to run in, if it is not the one that the kind comes from (`FROM`).
    """
    stage = stage or FROM[kind]
    model, collate = ready.model, collator(ready, stage, method)
    model.eval()
    found: dict[str, torch.Tensor] = {}
    steps = method.latents if STEPS[stage].latent else 0
    for start in range(0, len(ready.encoded), batch):
        part: list[Encoded] = ready.encoded[start : start + batch]
        inputs = {name: value.to(model.device) for name, value in collate(part).items()}
        done = forward(model, inputs, steps, method.latent_norm, layers=True)
        where = inputs["observed" if kind == "rep" else "latent"]
        layers = torch.stack(done.layers)
        for row, sample in enumerate(part):
            found[sample.name] = layers[:, row, where[row]]
    return found


def run(kind: Kind, checkpoint: str | Path, data: str | Path, out: str | Path, runtime: Runtime, method: Method,
        packed: bool, batch: int = 64) -> int:  # fmt: skip
    """Write the teacher states of a data file to the folder `out`; returns how many samples there are."""
    ready = prepare(checkpoint, runtime, data, FROM[kind], method)
    found = states(ready, kind, method, batch)
    make_dir(Path(out).parent)
    with atomic_dir(out) as folder:
        write(folder, kind, method.alignment_layer, found, checkpoint_hash(checkpoint), method.latents, packed)
    return len(found)
