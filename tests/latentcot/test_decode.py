"""Decoding a batch is decoding one by one, and equals the pass that training makes."""

import pytest
import torch

from qwenlab.latentcot import latents as L
from qwenlab.latentcot.decode import generate, observations
from qwenlab.latentcot.prompts import prompts
from qwenlab.latentcot.ready import collator, encode, prepare
from tests.latentcot import vl

K = vl.METHOD.latents


@pytest.fixture(scope="module")
def ready(base, data):
    torch.manual_seed(2)
    made = prepare(base, vl.runtime(str(base)), data, "stage1-3", vl.METHOD, new_tokens=True)
    made.model.eval()
    # An untrained model would hardly ever begin to think; this one always does.
    hook = made.model.lm_head.register_forward_hook(begin_with(made.special["<abs_vis_token>"]))
    yield made
    hook.remove()


class begin_with:
    """Raises the first token's logit at the first call after `reset`."""

    def __init__(self, token):
        self.token, self.left = token, True

    def __call__(self, module, inputs, output):
        if output.ndim == 2 and BEGIN.pop("now", False):
            output[:, self.token] += 1000
        return output


def always(token):
    """Raises a token's logit at every call."""

    def hook(module, inputs, output):
        if output.ndim == 2:
            output[:, token] += 1000
        return output

    return hook


BEGIN: dict = {}


def decode(ready, encoded, **more):
    BEGIN["now"] = True
    prompt = prompts(encoded, ready.features, ready.pad)
    return generate(ready.model, ready.processor.tokenizer, ready.special, prompt, K, longest=12, **more)


def test_a_batch_writes_what_its_samples_write_alone(ready):
    together = decode(ready, ready.encoded)
    alone = [decode(ready, [one]) for one in ready.encoded]
    assert together.texts == [one.texts[0] for one in alone]
    assert torch.allclose(together.latents, torch.cat([one.latents for one in alone]), atol=1e-4)


def test_latents_in_decoding_are_those_of_the_training_pass(ready):
    found = decode(ready, ready.encoded)
    batch = collator(ready, "stage1-3", vl.METHOD)(ready.encoded)
    with torch.no_grad():
        done = L.run(ready.model, batch, K)
    assert torch.allclose(found.latents[:, 0], torch.stack(done.latents, 1), atol=1e-4)


def test_the_end_of_a_block_is_forced_after_k_latents(ready):
    for text in decode(ready, ready.encoded).texts:
        assert text.startswith("<abs_vis_token>" + "<abs_vis_token_pad>" * K + "</abs_vis_token>")


def test_latents_of_others_can_be_put_in_and_zeros_too(ready):
    own = decode(ready, ready.encoded)
    put = decode(ready, ready.encoded, inject=own.latents.roll(1, 0))
    assert torch.equal(put.latents, own.latents.roll(1, 0))
    assert not decode(ready, ready.encoded, mode="zero").latents.any()
    same = decode(ready, ready.encoded, inject=own.latents)
    assert same.texts == own.texts


def test_every_block_has_latents_of_its_own(ready):
    """A sample may think more than once; what was fed in each block is kept, and can be put in again."""
    hook = ready.model.lm_head.register_forward_hook(always(ready.special["<abs_vis_token>"]))
    try:
        own = decode(ready, ready.encoded)  # 12 tokens: blocks of 1 + K + 1, two of them whole
        put = decode(ready, ready.encoded, inject=own.latents.roll(1, 0))
    finally:
        hook.remove()
    assert own.latents.shape[1] == -(-12 // (K + 2))
    assert own.latents[:, :2].abs().amax(-1).all() and not torch.equal(own.latents[:, 0], own.latents[:, 1])
    assert torch.equal(put.latents[:, :2], own.latents[:, :2].roll(1, 0))


def test_an_observation_without_its_end_is_none():
    assert observations("<observation> all right </observation>rest") == "all right"
    assert observations("<observation>all right") is None  # cut at the largest length
    assert observations("all right") is None


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_either_attention_gives_the_same_states(base, data, ready, attention):
    torch.manual_seed(2)
    other = prepare(base, vl.runtime(str(base), attention=attention), data, "stage1-2", vl.METHOD, new_tokens=True)
    mine = encode(ready.model, ready.processor, ready.special, ready.features, ready.samples, "stage1-2", vl.METHOD)
    outs = []
    for one in (other, mine):
        batch = collator(one, "stage1-2", vl.METHOD)(one.encoded)
        with torch.no_grad():
            outs.append(L.run(one.model.eval(), batch, K).hidden[batch["observed"]])
    assert torch.allclose(outs[0], outs[1], atol=1e-4)


def test_segments_equal_the_stock_forward_on_ids_and_pixels(base, data):
    """Without latents, the pass is what transformers computes from ids and pixels."""
    from qwenlab.latentcot.samples import open_image

    ready = prepare(base, vl.runtime(str(base)), data, "stage1-1", vl.METHOD, new_tokens=True)
    one, sample = ready.encoded[0], ready.samples[0]
    pictures = [open_image(ref, data.parent, 16) for ref in (*sample.pictures, *sample.auxiliary)]
    pixels = ready.processor.image_processor(pictures, return_tensors="pt")
    kinds = (one.ids == ready.special["<|image_pad|>"]).long()[None]
    with torch.no_grad():
        stock = ready.model(input_ids=one.ids[None], mm_token_type_ids=kinds, **pixels, output_hidden_states=True)
        ours = L.run(ready.model, collator(ready, "stage1-1", vl.METHOD)([one]), 0)
    assert torch.allclose(stock.hidden_states[-1], ours.hidden, atol=1e-4)
