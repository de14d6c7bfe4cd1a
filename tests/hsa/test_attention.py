"""Semantic attention in real (tiny) models: nothing leaks, nothing is lost, and off is off."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from qwenlab.core.errors import UserError
from qwenlab.hsa.attention import PRESETS, HSAConfig, attach, detach, load_hsa, save_hsa, session
from qwenlab.hsa.cache import CALL
from qwenlab.hsa.exactness import build
from qwenlab.hsa.semantics import GLOBAL, LANDMARK, NOISE

# The published settings in small: a landmark fades slowly, noise fast, and beyond 5 tokens it is gone.
HERE = HSAConfig(slope=(0.0, 0.05, 0.3), window=(None, None, 5))
LEARNED = HERE.model_copy(update={"learn_pair": True, "learn_scale": True, "type_embeddings": True})
IMPLS = ["sdpa", "eager", "gather"]


def logits(model, ids, types=None, **more) -> torch.Tensor:
    if types is not None:
        more["semantic_ids"] = types
    with torch.no_grad():
        return model(input_ids=ids, **more).logits


def learned(model, impl: str = "sdpa"):
    """Attach with parameters that are no longer 0."""
    hsa = attach(model, LEARNED, impl)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in hsa.parameters():
            value.copy_(0.5 * torch.randn(value.shape, generator=generator))
    return hsa


def close(one: torch.Tensor, other: torch.Tensor, limit: float = 1e-5) -> None:
    assert (one - other).abs().max().item() <= limit


def padded(ids, types, left: int, right: int = 0):
    """Both with padding around, and the attention mask."""
    mask = torch.nn.functional.pad(torch.ones_like(ids), (left, right))
    return *(torch.nn.functional.pad(x, (left, right)) for x in (ids, types)), mask


def test_the_noop_preset_is_stock_sdpa_to_the_last_bit(model, ids, types):
    stock = logits(model, ids)
    short = torch.ones_like(ids)
    short[0, :4] = 0
    with_padding = logits(model, ids, attention_mask=short)
    attach(model, PRESETS["noop"])
    assert torch.equal(logits(model, ids, types), stock)
    assert torch.equal(logits(model, ids, types, attention_mask=short), with_padding)


def test_the_noop_preset_is_stock_eager(model, ids, types):
    model.set_attn_implementation("eager")
    stock = logits(model, ids)
    attach(model, PRESETS["noop"], "eager")
    close(logits(model, ids, types), stock, 1e-6)


def test_a_new_learned_bias_changes_nothing_yet(model, ids, types):
    stock = logits(model, ids)
    zero = PRESETS["noop"].model_copy(update={"learn_pair": True, "learn_scale": True, "type_embeddings": True})
    attach(model, zero)
    close(logits(model, ids, types), stock)


def test_types_do_change_something(model, ids, types):
    stock = logits(model, ids)
    attach(model, HERE)
    assert (logits(model, ids, types) - stock).abs().max() > 1e-3


def test_without_types_everything_is_global(model, ids):
    stock = logits(model, ids)
    attach(model, HERE)
    assert torch.equal(logits(model, ids), stock)
    close(logits(model, ids, torch.full_like(ids, GLOBAL)), stock)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_later_token_or_its_type_moves_no_earlier_logits(model, ids, types, impl):
    learned(model, impl)
    base = logits(model, ids, types)
    others, kinds = ids.clone(), types.clone()
    others[:, 12:], kinds[:, 12:] = ids[:, 12:].flip(1), (types[:, 12:] + 1) % 3
    assert torch.equal(logits(model, others, kinds)[:, :12], base[:, :12])


@pytest.mark.parametrize("impl", IMPLS)
def test_noise_beyond_its_window_gets_no_attention_at_all(ids, impl):
    for family in ("llama", "qwen2", "qwen3"):
        model = build(family, layers=1)  # over several layers what was seen travels on
        attach(model, HERE, impl)
        types = torch.full_like(ids, LANDMARK)
        types[:, 4] = NOISE
        base = logits(model, ids, types)
        other = ids.clone()
        other[:, 4] = (ids[:, 4] - 1) % 50 + 2
        changed = (logits(model, other, types) - base).abs().amax((0, 2))
        assert changed[9] > 0 and not changed[10:].any()  # the window of 5 ends at 4 + 5


def test_the_bias_is_the_formula(qwen2, ids, types):
    hsa = learned(qwen2)
    query, key = torch.tensor(7), torch.tensor(4)
    mask = hsa.mask(torch.ones(1, 1, 20, 20, dtype=torch.bool), types, torch.arange(20), torch.arange(20),
                    torch.float32, True)  # fmt: skip
    for b in range(2):
        for h in range(4):
            kinds = types[b, query], types[b, key]
            fading = HERE.slope[kinds[1]] * hsa.log_scale[h].exp() * (query - key)
            torch.testing.assert_close(mask[b, h, query, key], hsa.pair[h, kinds[0], kinds[1]] - fading)


@pytest.mark.parametrize("impl", IMPLS)
def test_left_padding_changes_nothing(model, ids, types, impl):
    learned(model, impl)
    base = logits(model, ids, types)
    more, kinds, mask = padded(ids, types, left=5)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    if "vl" in model.config.model_type:
        positions = positions.expand(3, -1, -1)
    close(logits(model, more, kinds, attention_mask=mask, position_ids=positions)[:, 5:], base)


@pytest.mark.parametrize("impl", IMPLS)
def test_right_padding_changes_nothing(model, ids, types, impl):
    learned(model, impl)
    more, kinds, mask = padded(ids, types, left=0, right=5)
    close(logits(model, more, kinds, attention_mask=mask)[:, :20], logits(model, ids, types), 1e-6)


@pytest.mark.parametrize("impl", IMPLS)
def test_steps_with_a_cache_are_one_forward(model, ids, types, impl):
    learned(model, impl)
    base = logits(model, ids, types)
    with torch.no_grad(), session(model, types[:, :12]):
        first = model(input_ids=ids[:, :12], use_cache=True)
        steps, cache = [first.logits], first.past_key_values
        for i in range(12, 20):
            new = {"semantic_ids": types[:, i : i + 1]}  # remembered by the session
            steps.append(model(input_ids=ids[:, i : i + 1], past_key_values=cache, **new).logits)
    close(torch.cat(steps, 1), base)


def test_outside_a_session_a_step_takes_the_types_of_all_tokens(qwen2, ids, types):
    learned(qwen2)
    base = logits(qwen2, ids, types)
    with torch.no_grad():
        cache = qwen2(input_ids=ids[:, :15], semantic_ids=types[:, :15], use_cache=True).past_key_values
        close(qwen2(input_ids=ids[:, 15:], semantic_ids=types, past_key_values=cache).logits, base[:, 15:])
        with pytest.raises(UserError, match="20 tokens are cached: use session"):
            qwen2(input_ids=ids[:, :1], semantic_ids=types[:, :1], past_key_values=cache)


@pytest.mark.parametrize("impl", IMPLS)
def test_packed_documents_are_separate_documents(model, ids, types, impl):
    learned(model, impl)
    apart = [logits(model, ids[:, part], types[:, part]) for part in (slice(0, 8), slice(8, 20))]
    positions = torch.cat([torch.arange(8), torch.arange(12)]).expand(2, -1)
    if "vl" in model.config.model_type:
        positions = positions.expand(4, -1, -1)  # the first of them is the text's
    packed = logits(model, ids, types, position_ids=positions, attention_mask=None, use_cache=False)
    close(packed, torch.cat(apart, 1))


@pytest.mark.parametrize("generated", [GLOBAL, NOISE])
def test_static_and_dynamic_caches_generate_what_no_cache_does(model, ids, types, generated):
    learned(model)
    outputs = []
    for how in ({"use_cache": False}, {}, {"cache_implementation": "static"}):
        with session(model, types, generated=generated):
            outputs.append(
                model.generate(
                    ids,
                    max_new_tokens=8,
                    do_sample=False,
                    output_logits=True,
                    return_dict_in_generate=True,
                    disable_compile=True,
                    **how,
                )
            )
    for other in outputs[1:]:
        assert torch.equal(other.sequences, outputs[0].sequences)
        close(torch.stack(other.logits), torch.stack(outputs[0].logits))


def test_a_static_cache_without_a_session_is_all_global(qwen2, ids):
    hsa = learned(qwen2)
    with torch.no_grad():
        hsa.type_table.zero_()
    how = {"max_new_tokens": 6, "do_sample": False, "disable_compile": True}
    assert torch.equal(
        qwen2.generate(ids, cache_implementation="static", **how), qwen2.generate(ids, use_cache=False, **how)
    )


def test_generation_sees_the_types(qwen2, ids, types):
    learned(qwen2)
    how = {"max_new_tokens": 8, "do_sample": False}
    with session(qwen2, types):
        one = qwen2.generate(ids, **how)
    with session(qwen2, (types + 1) % 3):
        other = qwen2.generate(ids, **how)
    assert not torch.equal(one, other)


def test_beams_of_a_noop_are_the_librarys(model, ids, types):
    how = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False, "num_return_sequences": 2}
    stock = model.generate(ids, **how)
    attach(model, PRESETS["noop"])
    with session(model, types):
        assert torch.equal(model.generate(ids, **how), stock)


def test_beams_keep_the_types_of_their_own_prompt(qwen2, ids, types):
    learned(qwen2)
    how = dict(max_new_tokens=6, num_beams=3, do_sample=False, output_scores=True, return_dict_in_generate=True)
    with session(qwen2, types):
        both = qwen2.generate(ids, **how)
    for row in range(2):
        with session(qwen2, types[row : row + 1]):
            alone = qwen2.generate(ids[row : row + 1], **how)
        assert torch.equal(alone.sequences[0], both.sequences[row])
        close(alone.sequences_scores[0], both.sequences_scores[row])


@pytest.mark.parametrize("impl", ["sdpa", "gather"])
def test_gradient_checkpointing_gives_the_same_gradients(model, ids, types, impl):
    hsa = learned(model, impl)
    found = []
    for checkpointing in (False, True):
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        model(input_ids=ids, labels=ids, semantic_ids=types, use_cache=False).loss.backward()
        found.append({name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert len([name for name in found[0] if ".hsa." in name]) == 3
    assert all(value.grad.abs().max() > 0 for value in hsa.parameters())


@pytest.mark.parametrize("boolean", [True, False])
def test_a_mask_of_the_users_own_is_honoured(model, ids, types, boolean):
    learned(model)
    base = logits(model, ids, types)
    causal = torch.ones(20, 20, dtype=torch.bool).tril().expand(2, 1, -1, -1).clone()

    def given(mask):
        own = mask if boolean else torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
        return logits(model, ids, types, attention_mask=own)

    if not getattr(model.config, "use_sliding_window", False):  # the mask takes its place too, as in the library
        close(given(causal), base)
    causal[:, :, 1:, 0] = False
    assert (given(causal) - base)[:, 1:].abs().max() > 1e-3


def test_detaching_restores_the_stock_model(model, ids, types):
    stock, names = logits(model, ids), set(model.state_dict())
    learned(model)
    assert (logits(model, ids, types) - stock).abs().max() > 1e-3
    assert len(set(model.state_dict()) - names) == 3
    detach(model)
    assert torch.equal(logits(model, ids), stock) and set(model.state_dict()) == names
    learned(model)  # and it can be attached again
    assert (logits(model, ids, types) - stock).abs().max() > 1e-3


def test_what_was_saved_comes_back_the_same(model, ids, types, tmp_path: Path):
    other = copy.deepcopy(model)
    learned(model)
    save_hsa(model, tmp_path)
    assert load_hsa(other, tmp_path).config == LEARNED
    assert torch.equal(logits(other, ids, types), logits(model, ids, types))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hsa.json", "hsa.safetensors"]


@pytest.mark.parametrize("config", [HERE, LEARNED, HSAConfig(slope=(0, 0, 0), window=(None, 9, 3))])
def test_the_implementations_agree(model, ids, types, config):
    outputs = []
    for impl in IMPLS:
        hsa = attach(model, config, impl)
        with torch.no_grad():
            for value in hsa.parameters():
                value.copy_(0.1 * torch.arange(value.numel()).reshape(value.shape).cos())
        outputs.append(logits(model, ids, types))
        detach(model)
    close(outputs[1], outputs[0])
    close(outputs[2], outputs[0])


def test_a_copy_of_an_attached_model_is_a_model_of_its_own(qwen2, ids, types):
    learned(qwen2)
    base = logits(qwen2, ids, types)
    other = copy.deepcopy(qwen2)
    detach(qwen2)
    assert torch.equal(logits(other, ids, types), base)
    detach(other)
    assert torch.equal(logits(other, ids), logits(qwen2, ids))


def test_a_failed_forward_leaves_nothing_behind(qwen2, ids, types):
    attach(qwen2, HERE)
    base = logits(qwen2, ids, types)
    with pytest.raises(IndexError):
        logits(qwen2, ids + 1000, (types + 1) % 3)
    assert CALL.get() is None
    assert torch.equal(logits(qwen2, ids, types), base)


def test_peft_trains_and_saves_the_parameters(qwen2, ids, types, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    fresh = copy.deepcopy(qwen2)
    learned(qwen2)
    base = logits(qwen2, ids, types)
    tuned = get_peft_model(qwen2, LoraConfig(target_modules=["q_proj"], modules_to_save=["hsa"]))
    close(logits(tuned, ids, types), base)
    tuned(input_ids=ids, labels=ids, semantic_ids=types).loss.backward()
    live = [value for name, value in tuned.named_parameters() if "hsa.modules_to_save" in name]
    assert len(live) == 3 and all(value.grad.abs().max() > 0 for value in live)
    with torch.no_grad():
        for value in live:
            value.sub_(value.grad)
    save_hsa(tuned, tmp_path)
    load_hsa(fresh, tmp_path)
    close(logits(fresh, ids, types), logits(tuned, ids, types))


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_a_prompt_with_an_image_works_and_its_vision_tower_is_stock(models, family):
    model = copy.deepcopy(models[family])
    grid = torch.tensor([[1, 4, 4]])
    pixels = torch.randn(16, 3 * 2 * 4 * 4, generator=torch.Generator().manual_seed(4))
    ids = torch.tensor([[5, 62, 60, 60, 60, 60, 63, 7, 8, 9]])
    image = {"pixel_values": pixels, "image_grid_thw": grid, "mm_token_type_ids": (ids == 60).int()}
    stock = logits(model, ids, **image)
    attach(model, PRESETS["noop"])
    types = torch.where(ids == 60, NOISE, GLOBAL)
    assert torch.equal(logits(model, ids, types, **image), stock)
    detach(model)
    attach(model, HERE)
    assert (logits(model, ids, types, **image) - stock)[:, 8:].abs().max() > 1e-5
    assert "hsa" not in model.model.visual.config._attn_implementation
    with session(model, types, generated=NOISE):
        out = model.generate(ids, max_new_tokens=3, do_sample=False, **image)
    assert out.shape == (1, 13)


@pytest.mark.parametrize("beams", [1, 2])
def test_eviction_makes_the_cache_smaller_and_nothing_else(model, ids, types, beams):
    learned(model)
    types = types.clone()
    types[:, 3:14] = NOISE
    more, kinds, mask = padded(ids, types, left=3)
    mask[1, :3] = 1  # rows of different lengths
    kinds[1, :3] = NOISE
    outputs = []
    for evict in (False, True):
        with session(model, kinds, generated=NOISE, evict=evict):
            outputs.append(
                model.generate(
                    more,
                    attention_mask=mask,
                    max_new_tokens=12,
                    do_sample=False,
                    num_beams=beams,
                    output_logits=True,
                    return_dict_in_generate=True,
                )
            )
    full, small = outputs
    assert torch.equal(small.sequences, full.sequences)
    close(torch.stack(small.logits), torch.stack(full.logits))
    # Before its last step, the 34th token, the cache was reduced to what that token sees in any row.
    distance = 33 - torch.arange(33)
    kinds = torch.nn.functional.pad(kinds, (0, 10), value=NOISE)
    seen = ((kinds != NOISE) | (distance <= 5)) & torch.nn.functional.pad(mask, (0, 10), value=1).bool()
    lengths = [one.past_key_values.layers[0].keys.shape[-2] for one in outputs]
    assert lengths == [34, int(seen.any(0).sum()) + 1] and lengths[1] < 25
    assert small.past_key_values.get_seq_length() == 34


@pytest.mark.parametrize("own_mask", [False, True])
def test_several_tokens_after_an_eviction_are_the_full_forward(model, ids, types, own_mask):
    learned(model)
    types = types.clone()
    types[:, 2:11] = NOISE
    base = logits(model, ids, types)
    causal = torch.ones(20, 20, dtype=torch.bool).tril()[16:].expand(2, 1, -1, -1)
    if own_mask and getattr(model.config, "use_sliding_window", False):
        pytest.skip("the mask would take the place of the sliding window")
    with torch.no_grad(), session(model, types[:, :16], evict=True):
        cache = model(input_ids=ids[:, :16], past_key_values=DynamicCache(config=model.config)).past_key_values
        more = {"attention_mask": causal} if own_mask else {}
        last = model(input_ids=ids[:, 16:], semantic_ids=types[:, 16:], past_key_values=cache, **more)
        close(last.logits, base[:, 16:])
        assert cache.layers[0].keys.shape[-2] < 18
        with pytest.raises(UserError, match="cannot be rolled back"):
            cache.layers[0].crop(-1)


def test_bad_types_are_one_sentence(qwen2, ids, types):
    attach(qwen2, HERE)
    for wrong, words in (
        (types + 1, "hold 3; expected 0"),
        (types[:, :-1], r"shape \(2, 19\); expected \(2, 20\)"),
        (types[:1], r"shape \(1, 20\)"),
        (types.float(), "float32; expected integers"),
    ):
        with pytest.raises(UserError, match=words):
            logits(qwen2, ids, wrong)
    with pytest.raises(UserError, match=r"shape \(2, 20\); the input is \(2, 19\)"), session(qwen2, types):
        logits(qwen2, ids[:, 1:])
    with session(qwen2, types):
        logits(qwen2, ids)
        with pytest.raises(UserError, match=r"the input is \(2, 12\)"):
            logits(qwen2, ids[:, :12])
    with pytest.raises(UserError, match="generated is 3"), session(qwen2, types, generated=3):
        pass
    with pytest.raises(UserError, match="needs a DynamicCache"), session(qwen2, types, evict=True):
        qwen2.generate(ids, cache_implementation="static", max_new_tokens=2)


def test_a_bad_attach_is_one_sentence(qwen2):
    for impl, words in (
        ("flash_attention_2", "FlashAttention takes no additive mask"),
        ("fast", "expected one of sdpa, eager, gather, flex"),
        ("flex", "FlexAttention needs a GPU"),
    ):
        with pytest.raises(UserError, match=words):
            attach(qwen2, HERE, impl)
    with pytest.raises(UserError, match="No semantic attention"):
        detach(qwen2)
    attach(qwen2, HERE)
    with pytest.raises(UserError, match="already"):
        attach(qwen2, HERE)


def test_a_model_without_a_text_decoder_is_refused():
    from transformers import BertConfig, BertModel

    size = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=10)
    for model in (torch.nn.Linear(2, 2), BertModel(BertConfig(**size))):
        with pytest.raises(UserError, match="has no text decoders"):
            attach(model, HERE)


def test_broken_files_are_one_sentence(qwen2, tmp_path: Path):
    with pytest.raises(UserError, match="no such file"):
        load_hsa(qwen2, tmp_path)
    attach(qwen2, LEARNED)
    save_hsa(qwen2, tmp_path)
    with pytest.raises(UserError, match="of another model"):
        load_hsa(build("qwen2", num_attention_heads=2), tmp_path)
    (tmp_path / "hsa.json").write_text('{"slope": [0, 0, -1], "window": [null, null, 5]}')
    with pytest.raises(UserError, match=r"slope\.2"):
        load_hsa(qwen2, tmp_path)
