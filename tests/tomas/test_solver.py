"""The reference solver against a loop over all rows, and the objectives it minimises."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from qwenlab.tomas.profiling import Profile
from qwenlab.tomas.registry import Registry
from qwenlab.tomas.solver import (
    HEURISTICS,
    INFORMED,
    Need,
    Objective,
    best,
    fitting,
    heuristic_values,
    in_time,
    plan_by,
    solve,
)

OWN = Registry.model_validate({"input_sizes": ["s", "l"], "tools": [{"name": "a"}, {"name": "b"}]})
PRICES = {"cpu_cores": 1.0, "memory_gb": 2.0, "gpu_sm": 0.0, "gpu_memory_gb": 4.0}
few = st.integers(1, 4).map(float)  # few values, so that ties and bare fits are frequent


def rows(*resources, tool=0, size=0) -> Profile:
    """A profile of one tool; a row is four resources and a latency."""
    numbers = np.array([[size, *row] for row in resources], np.float64)
    return Profile(OWN, np.full(len(resources), tool), numbers)


@st.composite
def problems(draw):
    """(profile, need, values, known) on a handful of rows."""
    count = draw(st.integers(1, 12))
    column = lambda values: draw(st.lists(values, min_size=count, max_size=count))  # noqa: E731
    mostly = st.sampled_from([0, 0, 0, 1])
    numbers = [column(mostly.map(float)), *(column(few) for _ in range(5))]
    profile = Profile(OWN, np.array(column(mostly)), np.array(numbers).T)
    free = np.array(draw(st.lists(st.integers(2, 4).map(float), min_size=4, max_size=4)))
    need = Need(draw(mostly), draw(mostly), free, draw(st.none() | st.floats(0.5, 4.5)))
    known = draw(st.none() | st.just(np.array(column(st.booleans()))))
    return profile, need, np.array(column(few)), known


def by_hand(profile: Profile, need: Need, values, known) -> int | None:
    """The specification as a loop."""
    fits = []
    for index in range(len(profile)):
        size, *given, latency = profile.resources[index]
        same = profile.tool_ids[index] == need.tool_id and size == need.size
        if same and all(g <= f for g, f in zip(given, need.free, strict=True)) and (known is None or known[index]):
            fits.append((latency, index))
    if not fits:
        return None
    good = [one for one in fits if need.deadline_ms is None or one[0] <= need.deadline_ms]
    good = good or [one for one in fits if one[0] == min(fits)[0]]
    return min((values[index], latency, index) for latency, index in good)[2]


@settings(max_examples=300)
@given(problems())
def test_the_plan_is_that_of_a_loop_over_all_rows(problem):
    assert solve(*problem) == by_hand(*problem)


@given(problems())
def test_no_heuristic_beats_the_solver(problem):
    profile, need, values, _ = problem
    plan = solve(profile, need, values)
    for wanted in (profile.latency, values, None):
        other = plan_by(wanted, profile, need, np.random.default_rng(0))
        assert (other == -1) == (plan is None)
        assert plan is None or values[plan] <= values[other]


@given(problems())
def test_the_order_of_the_rows_does_not_change_how_good_the_plan_is(problem):
    profile, need, values, known = problem
    turned = Profile(OWN, profile.tool_ids[::-1], profile.resources[::-1])
    plan, other = solve(*problem), solve(turned, need, values[::-1], None if known is None else known[::-1])
    assert (plan is None) == (other is None)
    if plan is not None:
        assert (values[plan], profile.latency[plan]) == (values[::-1][other], turned.latency[other])


@given(problems(), st.integers(0, 3))
def test_more_free_resources_never_make_the_plan_worse_without_a_deadline(problem, resource):
    profile, need, values, known = problem
    less, more = (Need(need.tool_id, need.size, free, None) for free in (need.free, need.free + np.eye(4)[resource]))
    plan = solve(profile, less, values, known)
    assert plan is None or values[solve(profile, more, values, known)] <= values[plan]


def test_on_the_real_profile_the_plan_is_that_of_a_loop(profile, objective, capacity):
    rng, values = np.random.default_rng(0), objective.values(profile, capacity.array())
    for _ in range(20):
        deadline = None if rng.random() < 0.2 else float(np.exp(rng.uniform(5, 11)))
        free = capacity.array() * rng.uniform(0, 1, 4)
        need = Need(int(rng.integers(7)), int(rng.integers(3)), free, deadline)
        assert solve(profile, need, values) == by_hand(profile, need, values, None)


# ---------------------------------------------------------------- what fits, what is in time


def test_without_a_row_that_fits_there_is_no_plan():
    profile = rows([2, 2, 2, 2, 100])
    assert solve(profile, Need(0, 0, np.array([2, 2, 1.99, 2]), None), np.ones(1)) is None


def test_a_row_that_takes_all_there_is_fits():
    assert solve(rows([2, 2, 2, 2, 100]), Need(0, 0, np.full(4, 2.0), None), np.ones(1)) == 0


def test_a_tool_or_size_without_rows_has_no_plan():
    profile, free = rows([1, 1, 1, 1, 100]), np.full(4, 9.0)
    assert solve(profile, Need(1, 0, free, None), np.ones(1)) is None
    assert solve(profile, Need(0, 1, free, None), np.ones(1)) is None


def test_where_nothing_that_fits_is_known_there_is_no_plan():
    profile = rows([1, 1, 1, 1, 100])
    assert solve(profile, Need(0, 0, np.full(4, 9.0), None), np.ones(1), np.array([False])) is None


def test_a_deadline_is_met_to_the_millisecond():
    profile, values = rows([1, 1, 1, 1, 500], [1, 1, 1, 2, 400]), np.array([1.0, 2.0])
    assert solve(profile, Need(0, 0, np.full(4, 9.0), 500.0), values) == 0
    assert solve(profile, Need(0, 0, np.full(4, 9.0), 499.0), values) == 1


def test_an_unattainable_deadline_gives_the_fastest_that_fits_whatever_it_costs():
    profile = rows([1, 1, 1, 1, 500], [4, 1, 1, 1, 300], [9, 9, 9, 9, 100])
    assert solve(profile, Need(0, 0, np.full(4, 4.0), 50.0), np.array([1.0, 9.0, 1.0])) == 1


def test_of_several_fastest_under_an_unattainable_deadline_the_best_value_wins():
    profile = rows([1, 1, 1, 1, 300], [2, 1, 1, 1, 300], [1, 1, 1, 2, 400])
    assert in_time(profile, np.arange(3), 50.0).tolist() == [0, 1]
    assert solve(profile, Need(0, 0, np.full(4, 4.0), 50.0), np.array([2.0, 1.0, 0.0])) == 1


def test_of_equal_values_the_faster_one_wins():
    profile = rows([1, 1, 1, 1, 500], [2, 1, 1, 1, 300], [3, 1, 1, 1, 400])
    assert best(profile, np.arange(3), np.ones(3)) == 1


def test_of_equal_values_and_latencies_the_lower_id_wins():
    profile = rows([1, 1, 1, 1, 500], [2, 1, 1, 1, 300], [3, 1, 1, 1, 300])
    assert best(profile, np.array([2, 1, 0]), np.ones(3)) == 1


@given(problems())
def test_what_fits_comes_in_rising_order_and_only_of_the_known(problem):
    profile, need, _, known = problem
    ids = fitting(profile, need, known)
    assert (np.diff(ids) > 0).all()
    assert known is None or known[ids].all()
    assert set(ids) <= set(fitting(profile, need))


# ---------------------------------------------------------------- objectives


def objective_of(**change) -> Objective:
    value = {"kind": "weighted", "share_weight": 1.0, "latency_weight": 0.5, "prices": PRICES} | change
    return Objective.model_validate(value)


CAPACITY = np.array([10.0, 20.0, 100.0, 8.0])
TWO = rows([5, 4, 60, 2, 400], [1, 1, 20, 1, 900])
SHARES = [5 / 10 + 2 * 4 / 20 + 4 * 2 / 8, 1 / 10 + 2 * 1 / 20 + 4 * 1 / 8]


def test_a_share_is_the_priced_part_of_the_machine():
    assert objective_of().share(TWO, CAPACITY) == pytest.approx(SHARES)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cost", [SHARES[0] * 400, SHARES[1] * 900]),
        ("speed", [400, 900]),
        ("weighted", [SHARES[0] * 20, SHARES[1] * 30]),
    ],
)
def test_every_kind_of_objective_is_what_it_says(kind, expected):
    assert objective_of(kind=kind).values(TWO, CAPACITY) == pytest.approx(expected)


def test_weights_of_one_are_the_cost():
    weighted = objective_of(share_weight=1, latency_weight=1).values(TWO, CAPACITY)
    assert weighted == pytest.approx(objective_of(kind="cost").values(TWO, CAPACITY))


def test_cost_and_speed_choose_different_plans():
    need = Need(0, 0, CAPACITY, None)
    plans = [solve(TWO, need, objective_of(kind=kind).values(TWO, CAPACITY)) for kind in ("speed", "weighted")]
    assert plans == [0, 1]


def test_speed_needs_no_prices():
    free = dict.fromkeys(PRICES, 0.0)
    assert objective_of(kind="speed", prices=free).values(TWO, CAPACITY).tolist() == [400, 900]


@pytest.mark.parametrize(
    "change",
    [
        {"share_weight": 0, "latency_weight": 0},
        {"kind": "weighted", "prices": dict.fromkeys(PRICES, 0.0)},
        {"kind": "cost", "prices": dict.fromkeys(PRICES, 0.0)},
        {"prices": PRICES | {"gpu_sm": -1}},
        {"prices": {"cpu_cores": 1}},
        {"prices": PRICES | {"disk": 1}},
        {"share_weight": -1},
        {"latency_weight": math.nan},
        {"kind": "cheap"},
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(change):
    with pytest.raises(ValidationError):
        objective_of(**change)


# ---------------------------------------------------------------- heuristics


def test_every_heuristic_has_its_values(profile, objective, capacity):
    assert set(heuristic_values(profile, objective, capacity.array())) == {*HEURISTICS, *INFORMED}


def test_only_the_informed_heuristics_change_with_the_prices():
    one, other = (heuristic_values(TWO, objective_of(prices=p), CAPACITY) for p in (PRICES, PRICES | {"gpu_sm": 9.0}))
    changed = {name for name, values in one.items() if values is not None and (values != other[name]).any()}
    assert changed == set(INFORMED)


def test_guessing_chooses_among_all_that_is_feasible():
    profile, need = rows(*([1, 1, 1, k, 100 * k] for k in range(1, 6))), Need(0, 0, np.full(4, 4.0), 300.0)
    rng = np.random.default_rng(0)
    assert {plan_by(None, profile, need, rng) for _ in range(100)} == {0, 1, 2}
