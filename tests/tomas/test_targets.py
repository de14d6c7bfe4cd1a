"""Soft targets: what the configuration head learns of a task."""

import numpy as np
import pytest
import torch

from qwenlab.tomas.solver import Need, fitting, in_time, solve
from qwenlab.tomas.targets import PlanTargets, SoftTargets


@pytest.fixture(scope="module")
def needs(profile, capacity) -> list[Need]:
    rng, whole = np.random.default_rng(0), capacity.array()
    deadlines = [None, 5000.0, 1.0, 20_000.0]
    return [
        Need(int(rng.integers(7)), int(rng.integers(3)), whole * rng.uniform(0.6, 1, 4), deadlines[i % 4])
        for i in range(40)
    ]


@pytest.fixture(scope="module")
def values(profile, capacity, objective) -> np.ndarray:
    return objective.values(profile, capacity.array())


def targets(profile, values, needs, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    best = torch.tensor([solve(profile, need, values) for need in needs])
    made = PlanTargets(SoftTargets(share=share, temperature=0.05), profile, values, needs)
    return made(list(range(len(needs))), best), best


def test_without_a_share_the_label_is_the_best_plan(profile, values, needs):
    found, best = targets(profile, values, needs, 0.0)
    assert found is best


def test_only_valid_plans_have_a_share_and_shares_add_up_to_one(profile, values, needs):
    found, _ = targets(profile, values, needs, 0.5)
    torch.testing.assert_close(found.sum(1), torch.ones(len(needs)))
    for row, need in zip(found, needs, strict=True):
        assert set(row.nonzero()[:, 0].tolist()) <= set(in_time(profile, fitting(profile, need), need.deadline_ms))


def test_the_plan_of_the_solver_has_the_largest_share(profile, values, needs):
    found, best = targets(profile, values, needs, 0.9)
    assert found.argmax(1).tolist() == best.tolist()


def test_a_plan_that_costs_more_has_a_smaller_share(profile, values, needs):
    found, _ = targets(profile, values, needs, 1.0)
    for row in found:
        order = row.nonzero()[:, 0][row[row > 0].argsort(descending=True, stable=True)]
        assert (np.diff(values[order.numpy()]) >= -1e-9).all()
