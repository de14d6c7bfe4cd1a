"""Two-stage decoding: the tool, then one of its configurations, under masks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenlab.tomas.decoder import HeadConfig, HierarchicalDecoder

N, H, T = 12, 8, 3


def head(**changes) -> HeadConfig:
    values = {"init": "memory", "train_memory": True, "key_map": False, "kind": "cosine", "mlp_size": 0}
    return HeadConfig(**{**values, **changes})


def decoder(seed: int = 0, **changes) -> HierarchicalDecoder:
    torch.manual_seed(seed)
    tools = torch.arange(N) % T
    requests = torch.arange(N * 4).reshape(N, 4).float()
    return HierarchicalDecoder(head(**changes), torch.randn(N, H), tools, requests, torch.arange(N) * 100.0 + 100, T)


@settings(deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.booleans())
def test_a_plan_belongs_to_its_tool_and_keeps_every_limit_or_is_none(seed: int, with_free: bool, with_deadline: bool):
    one = decoder(seed % 7)
    torch.manual_seed(seed)
    hidden, free, deadline = torch.randn(5, H), torch.rand(5, 4) * 50, torch.rand(5) * 1500
    found = one.predict(hidden, None, free if with_free else None, deadline if with_deadline else None, k=4)
    for item, tool in enumerate(found.tool_ids):
        allowed = one.tool_ids == tool
        if with_free:
            allowed &= (one.requests <= free[item]).all(1)
        if with_deadline:
            allowed &= one.latency <= deadline[item]
        chosen = [int(c) for c in found.config_ids[item] if c >= 0]
        assert len(chosen) == min(4, int(allowed.sum())) and all(allowed[c] for c in chosen)
        assert len(set(chosen)) == len(chosen)
        assert found.probabilities[item, len(chosen) :].eq(0).all()
        if allowed.sum() <= 4:
            assert math.isclose(float(found.probabilities[item].sum()), 1.0 if chosen else 0.0, abs_tol=1e-5)


def test_nothing_that_fits_is_no_plan_and_not_row_0():
    found = decoder().predict(torch.randn(2, H), free=torch.full((2, 4), -1.0))
    assert found.config_ids.tolist() == [[-1], [-1]] and found.probabilities.eq(0).all()


def test_a_given_mask_replaces_the_decoders_own():
    mask = torch.zeros(T, N, dtype=torch.bool)
    mask[:, 7] = True
    assert decoder().predict(torch.randn(3, H), mask).config_ids.eq(7).all()


def test_a_tie_goes_to_the_faster_configuration():
    one = decoder()
    with torch.no_grad():
        one.memory.copy_(one.memory[:1].expand(N, H))
        one.latency.copy_(torch.arange(N).flip(0) * 100.0 + 100)
    found = one.predict(torch.randn(4, H), k=N)
    for row in found.config_ids:
        plans = [int(c) for c in row if c >= 0]
        assert plans == sorted(plans, key=lambda c: float(one.latency[c]))


def test_no_deadline_is_written_as_nan_or_infinity():
    one, hidden = decoder(), torch.randn(2, H)
    limits = torch.tensor([math.nan, math.inf])
    assert torch.equal(one.predict(hidden, deadline=limits).config_ids, one.predict(hidden).config_ids)


def test_the_linear_head_is_the_plain_layer_of_the_specification():
    one, hidden = decoder(kind="linear"), torch.randn(3, H)
    torch.testing.assert_close(one(hidden)[1], torch.nn.functional.linear(hidden, one.memory, one.bias))


def test_the_cosine_head_ignores_how_long_a_row_or_a_hidden_state_is():
    one, hidden = decoder(), torch.randn(3, H)
    before = one(hidden)[1]
    torch.testing.assert_close(one(5 * hidden)[1], before)
    with torch.no_grad():
        one.memory.copy_(one.centre + 3 * (one.memory - one.centre))
    torch.testing.assert_close(one(hidden)[1], before)


def test_the_memory_arm_starts_from_the_export_and_the_random_arm_does_not():
    torch.manual_seed(0)
    rows = torch.randn(N, H)
    table = (torch.arange(N) % T, torch.zeros(N, 4), torch.ones(N), T)
    assert torch.equal(HierarchicalDecoder(head(), rows, *table).memory, rows)
    other = HierarchicalDecoder(head(init="random"), rows, *table).memory
    assert not torch.allclose(other, rows) and 0.7 < other.std() / rows.std() < 1.3


def test_a_frozen_memory_is_not_trained_but_its_key_map_is():
    names = {name for name, p in decoder(train_memory=False, key_map=True).named_parameters() if p.requires_grad}
    assert "memory" not in names and "key_map.weight" in names


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_appended_rows_leave_the_logits_of_the_others_alone(kind: str):
    one, hidden = decoder(kind=kind), torch.randn(3, H)
    before = one(hidden)[1]
    one.append(torch.randn(2, H), torch.tensor([0, 2]), torch.zeros(2, 4), torch.tensor([5.0, 6.0]))
    after = one(hidden)[1]
    assert after.shape == (3, N + 2) and torch.equal(after[:, :N], before)
    assert one.tool_mask[:, N:].tolist() == [[True, False], [False, False], [False, True]]


def test_tables_of_another_length_than_the_memory_are_refused():
    with pytest.raises(ValueError, match="12 rows"):
        HierarchicalDecoder(head(), torch.randn(N, H), torch.zeros(3), torch.zeros(N, 4), torch.ones(N), T)
