"""One pass over a batch is two passes, sample by sample: same losses, same gradients, and the masks hold."""

import pytest
import torch

from qwenlab.core.errors import UserError
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


def test_a_batch_whose_labels_are_all_ignored_is_an_error(ready):
    batch = collator(ready, "stage1-2", vl.METHOD)(ready.encoded)
    hidden = torch.zeros(*batch["ids"].shape, 32, dtype=torch.float64)
    with pytest.raises(UserError, match="every label of a batch is ignored"):
        L.cross_entropy(ready.model, hidden, batch["ids"], torch.zeros_like(batch["weight"]))


def test_flash_attention_is_refused_because_it_takes_no_mask_of_four_dimensions(ready, monkeypatch):
    monkeypatch.setattr(ready.model.config, "_attn_implementation_internal", "flash_attention_2", raising=False)
    if ready.model.config._attn_implementation != "flash_attention_2":
        pytest.skip("this version names its attention elsewhere")
    with pytest.raises(UserError, match="flash_attention_2"):
        L.check(ready.model)


def test_every_latent_gradient_reaches_the_weights_only_as_chosen(ready):
    """With `only through the latents`, an alignment alone leaves no gradient in what stands behind the latents."""
    sources = encoded(ready, "stage1-1")
    teacher = {name: value + 0.1 * torch.randn_like(value) for name, value in states(sources, "rep", vl.METHOD).items()}
    here = encoded(ready, "stage1-2")
    batch = collator(here, "stage1-2", vl.METHOD, teacher)(here.encoded)
    for direct in (False, True):
        done = L.run(ready.model, batch, vl.METHOD.latents, layers=True)
        align = L.alignment(done.layers, batch["observed"], batch["teacher"], 1)
        ce = L.cross_entropy(ready.model, done.hidden, batch["ids"], batch["weight"])
        L.surrogate(0 * ce, align, 1.0, done, direct).backward()
        head = gradients(ready.model)
        # The observation's own embeddings are behind the latents: only a direct alignment moves them.
        token = ready.special["<observation>"]
        moved = float(head["model.language_model.embed_tokens.weight"][token].abs().max())
        assert (moved > 0) == direct
