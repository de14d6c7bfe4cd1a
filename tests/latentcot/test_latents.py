"""One pass over a batch is two passes, sample by sample: same losses, same gradients, and the masks hold."""

import pytest
import torch

from qwenlab.latentcot import latents as L
from qwenlab.latentcot.precompute import states
from qwenlab.latentcot.ready import collator, encode, prepare
from tests.latentcot import vl

from benchmarks._latentcot_plain import in_double, two_pass  # isort: skip


@pytest.fixture(scope="module")
def ready(base, data):
    torch.manual_seed(1)
    made = prepare(base, vl.runtime(str(base)), data, "stage1-2", vl.METHOD, 4.0, new_tokens=True)
    in_double(made.model)
    return made


def encoded(ready, form):
    return encode(ready.model, ready.processor, ready.special, ready.features, ready.samples, form, vl.METHOD, 4.0)


def gradients(model):
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("stage", ["stage1-2", "stage1-3"])
@pytest.mark.parametrize("norm", ["none", "rms"])
def test_one_pass_has_the_losses_and_gradients_of_two_passes(ready, stage, norm):
    kind = {"stage1-2": "rep", "stage1-3": "latent"}[stage]
    sources = encoded(ready, {"rep": "stage1-1", "latent": "stage1-2"}[kind])
    teacher = {name: value + 0.1 * torch.randn_like(value) for name, value in states(sources, kind, vl.METHOD).items()}
    here = encoded(ready, stage)
    direct = stage == "stage1-3"
    batch = collator(here, stage, vl.METHOD, teacher)(here.encoded)
    done = L.run(ready.model, batch, vl.METHOD.latents, norm, layers=True)
    ce = L.cross_entropy(ready.model, done.hidden, batch["ids"], batch["weight"])
    where = batch["latent" if stage == "stage1-3" else "observed"]
    align = L.alignment(done.layers, where, batch["teacher"], 1)
    L.surrogate(ce, align, 2.0, done, direct).backward()
    mine = gradients(ready.model)
    other_ce, other_align = two_pass(ready.model, here, stage, vl.METHOD, teacher, 2.0, direct, norm)
    theirs = gradients(ready.model)
    assert abs(float(ce.detach() - other_ce)) < 1e-12 and abs(float(align.detach() - other_align)) < 1e-12
    assert mine.keys() == theirs.keys() and mine
    for name in mine:
        scale = theirs[name].abs().max().clamp_min(1e-9)
        assert float((mine[name] - theirs[name]).abs().max() / scale) < 1e-12, name
