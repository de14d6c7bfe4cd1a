"""Gathered attention against dense attention with the float mask, and FlexAttention's functions on a CPU."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from qwenlab.core.errors import UserError
from qwenlab.hsa.attention import HSAConfig, attach, detach
from qwenlab.hsa.bias import HSA
from qwenlab.hsa.sparse import flex_plan, gather_attention, gather_plan

HEADS, DIM = 4, 8
PLAIN = HSAConfig(slope=(0.0, 0.01, 0.2), window=(None, None, 9))
LEARNED = PLAIN.model_copy(update={"learn_pair": True, "learn_scale": True})
CONFIGS = {
    "published": PLAIN,
    "learned": LEARNED,
    "no windows": HSAConfig(slope=(0.0, 0.1, 0.2), window=(None, None, None), learn_pair=True),
    "windows alone": HSAConfig(slope=(0, 0, 0), window=(None, 20, 4)),
    "windows everywhere": HSAConfig(slope=(0.1, 0, 0), window=(30, 0, 7)),
    "windows beyond the end": HSAConfig(slope=(0, 0, 0.1), window=(None, 500, 3)),
}


def build(config: HSAConfig, dtype=torch.float32) -> HSA:
    hsa = HSA(config, HEADS, 1).to(dtype)
    with torch.no_grad():
        for value in hsa.parameters():
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(5)))
    return hsa


def inputs(batch: int, length: int, key_heads: int = HEADS, dtype=torch.float32, seed: int = 0, kept: float = 0.2):
    """Query, key, value `[B, heads, S, D]`, and types `[B, S]` of which a share has no window."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [
        torch.randn(batch, heads, length, DIM, generator=generator, dtype=dtype).requires_grad_()
        for heads in (HEADS, key_heads, key_heads)
    ]
    types = torch.where(
        torch.rand(batch, length, generator=generator) < kept,
        torch.randint(0, 2, (batch, length), generator=generator), 2,
    )  # fmt: skip
    return *tensors, types


def dense(query, key, value, types, hsa: HSA, real=None, documents=None) -> torch.Tensor:
    """The reference: one float mask `[B, heads, S, S]`."""
    length = query.shape[2]
    seen = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    if real is not None:
        seen = seen & real.bool()[:, None, None, :]
    if documents is not None:
        seen = seen & (documents[:, None, :, None] == documents[:, None, None, :])
    where = torch.arange(length)
    mask = hsa.add_to(seen, types, types, where, where, query.dtype)
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    return scaled_dot_product_attention(query, key, value, mask)


def gradients(output: torch.Tensor, *leaves: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(9), dtype=output.dtype)
    return list(torch.autograd.grad((output * weights).sum(), leaves))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_gathered_is_dense_forward_and_backward(name, key_heads):
    hsa = build(CONFIGS[name], torch.float64)
    *tensors, types = inputs(2, 75, key_heads, torch.float64)
    results = [dense(*tensors, types, hsa), gather_attention(*tensors, types, hsa, chunk=16)]
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-10)
    for one, other in zip(*(gradients(result, *tensors, *hsa.parameters()) for result in results), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-9)


def test_in_single_precision_it_is_dense_within_one_hundred_thousandth():
    hsa = build(PLAIN)
    *tensors, types = inputs(2, 700)
    assert (gather_attention(*tensors, types, hsa) - dense(*tensors, types, hsa)).abs().max() <= 1e-5


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 60), chunk=st.integers(1, 70), kept=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    windows=st.tuples(*[st.none() | st.integers(0, 70)] * 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_length_chunk_and_windows_are_dense(length, chunk, kept, windows, seed):
    hsa = build(HSAConfig(slope=(0.0, 0.05, 0.3), window=windows))
    *tensors, types = inputs(2, length, seed=seed, kept=kept)
    with torch.no_grad():
        found, wanted = gather_attention(*tensors, types, hsa, chunk=chunk), dense(*tensors, types, hsa)
    assert (found - wanted).abs().max() <= 1e-5


@pytest.mark.parametrize("left", [True, False])
def test_padding_is_never_seen(left):
    hsa = build(LEARNED)
    *tensors, types = inputs(2, 60)
    real = torch.ones(2, 60, dtype=torch.long)
    real[1, slice(0, 13) if left else slice(47, 60)] = 0
    types = types.masked_fill(real == 0, 0)  # padding is GLOBAL as a rule, and would be seen from everywhere
    found = gather_attention(*tensors, types, hsa, attention_mask=real, chunk=16)
    wanted = dense(*tensors, types, hsa, real=real)
    rows = real.bool()
    assert (found - wanted).abs().amax((1, 3))[rows].max() <= 1e-5
    assert found.isfinite().all()


def test_packed_documents_do_not_see_each_other():
    hsa = build(LEARNED)
    *tensors, types = inputs(2, 64, kept=0.5)
    positions = torch.cat([torch.arange(23), torch.arange(30), torch.arange(11)]).expand(2, -1)
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor([23, 30, 11])).expand(2, -1)
    found = gather_attention(*tensors, types, hsa, position_ids=positions, chunk=16)
    assert (found - dense(*tensors, types, hsa, documents=documents)).abs().max() <= 1e-5


def test_kept_keys_of_finished_documents_are_not_even_computed():
    types = torch.zeros(1, 64, dtype=torch.long)
    documents = torch.arange(64) // 32

    def causal(b, h, q, k):
        return (k <= q) & (documents[q] == documents[k])

    plan = gather_plan(build(PLAIN), types, causal, None, torch.float32, chunk=16)
    assert [block.sections for block in plan.blocks] == [[], [1], [], [3]]


def test_gradients_pass_gradcheck():
    hsa = build(LEARNED, torch.float64)
    *tensors, types = inputs(1, 9, key_heads=2, dtype=torch.float64, kept=0.4)

    def attend(query, key, value, pair, log_scale):
        other = copy.copy(hsa)
        other._parameters = {"pair": pair, "log_scale": log_scale, "type_table": None}
        return gather_attention(query, key, value, types, other, chunk=4)

    assert torch.autograd.gradcheck(attend, (*tensors, hsa.pair, hsa.log_scale), fast_mode=True)


def test_no_tensor_is_as_large_as_the_square(monkeypatch):
    length = 2048
    hsa = build(PLAIN)
    *tensors, types = inputs(1, length, kept=0.05)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, kinds, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for one in result if isinstance(result, tuple | list) else [result]:
                if isinstance(one, torch.Tensor):
                    largest = max(largest, one.untyped_storage().nbytes() // one.element_size())
            return result

    with Watch():
        gather_attention(*tensors, types, hsa)
    assert largest < length * length / 8


def test_bad_ids_are_one_sentence():
    *tensors, types = inputs(1, 8)
    with pytest.raises(UserError, match=r"shape \(1, 7\); expected \(1, 8\)"):
        gather_attention(*tensors, types[:, 1:], build(PLAIN))


def test_a_model_trains_the_same_with_gather(qwen2, monkeypatch):
    """Over several chunks, which the tests of attention are too short for."""
    from qwenlab.hsa import sparse

    monkeypatch.setattr(sparse.gather_plan, "__defaults__", (16,))
    ids = torch.randint(2, 60, (2, 70), generator=torch.Generator().manual_seed(6))
    types = torch.where(ids < 12, 1, 2)
    found = []
    for impl in ("sdpa", "gather"):
        hsa = attach(qwen2, LEARNED.model_copy(update={"window": (None, None, 9)}), impl)
        qwen2.zero_grad()
        output = qwen2(input_ids=ids, semantic_ids=types, labels=ids, use_cache=False)
        output.loss.backward()
        found.append([output.logits.detach(), *(value.grad.clone() for value in qwen2.parameters())])
        assert all(value.grad.abs().max() > 0 for value in hsa.parameters())
        detach(qwen2)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_functions_of_flex_are_dense(name):
    """Uncompiled on a CPU, forward only: its backward needs a GPU."""
    hsa = build(CONFIGS[name])
    *tensors, types = inputs(2, 40, key_heads=2)
    tensors = [one.detach() for one in tensors]
    real = torch.ones(2, 40, dtype=torch.long)
    real[0, 33:] = 0

    def causal(b, h, q, k):
        return k <= q

    with torch.no_grad():
        found = flex_plan(hsa, types, causal, real, torch.float32).attend(*tensors)
        assert (found - dense(*tensors, types, hsa, real=real)).abs().max() <= 1e-5


def test_a_model_runs_with_flex(qwen2, ids, types, monkeypatch):
    attach(qwen2, LEARNED)
    with torch.no_grad():
        base = qwen2(input_ids=ids, semantic_ids=types).logits
        qwen2.model.config._attn_implementation = "hsa_flex"  # attach would ask for a GPU
        assert (qwen2(input_ids=ids, semantic_ids=types).logits - base).abs().max() <= 1e-5
