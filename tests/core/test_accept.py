"""The evaluator: what passes, what fails, and what is refused."""

import json
import operator
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.core import accept
from qwenlab.core.accept import Arm, judge, verdict_json, win_rate
from qwenlab.core.errors import UserError
from qwenlab.core.io import read_json, write_csv, write_json
from qwenlab.core.rules import load_claim

HEAD = "profile: tiny\ns:\n  arm: off\n  verdict: {control: off, treatment: on}\n"


def claim(tmp_path, accept_yaml, aim_yaml="{}"):
    """The claim of system `s` with these rules."""
    (tmp_path / "profiles").mkdir(exist_ok=True)
    (tmp_path / "profiles" / "tiny.yaml").write_text(f"s:\n  aim: {aim_yaml}\n")
    (tmp_path / "params.yaml").write_text(f"{HEAD}  accept: {accept_yaml}\n")
    return load_claim("s", tmp_path)


def passes(tmp_path, rule, limit, value, control=1.0):
    """Whether one rule on metric m passes for these numbers."""
    [result] = judge(
        claim(tmp_path, f"{{m: {{{rule}: {limit}}}}}").rules,
        {"off": Arm({"m": control}, []), "on": Arm({"m": value}, [])},
    )
    return result.passed


def rows(*values, forcing="rollout", **more):
    """One row a frame."""
    return [{"seed": "0", "frame": str(i), "forcing": forcing, "m": str(v), **more} for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("rule", "limit", "good", "bad"),
    [
        ("min", 3, 3.0, 2.9),
        ("max", 3, 3.0, 3.1),
        ("max_ratio", 0.5, 1.0, 1.01),
        ("min_ratio", 1.5, 3.0, 2.9),
        ("min_gain", 0, 2.0, 1.9),
        ("min_gain", 0.5, 2.5, 2.4),
        ("min_gain", -0.5, 1.5, 1.4),
    ],
)
def test_a_rule_passes_at_its_limit_and_fails_beyond(tmp_path, rule, limit, good, bad):
    assert passes(tmp_path, rule, limit, good, control=2.0)
    assert not passes(tmp_path, rule, limit, bad, control=2.0)


NO_NUMBERS = [None, float("nan"), float("inf"), -float("inf"), "1", True]


@pytest.mark.parametrize(("rule", "value"), [*product(accept.RATIOS | accept.LIMITS, NO_NUMBERS)])
def test_a_missing_or_non_finite_number_fails_the_rule(tmp_path, rule, value):
    assert not passes(tmp_path, rule, -1, value)


@pytest.mark.parametrize(("rule", "control"), [*product(accept.RATIOS, NO_NUMBERS)])
def test_a_missing_or_non_finite_control_fails_the_rule(tmp_path, rule, control):
    assert not passes(tmp_path, rule, 0, 1.0, control)


def test_a_fixed_limit_needs_no_control(tmp_path):
    assert passes(tmp_path, "min", 0, 1.0, control=None)


def test_a_ratio_to_a_negative_control_fails(tmp_path):
    assert not passes(tmp_path, "max_ratio", 0.5, -8.0, control=-10.0)


def test_an_arm_that_is_not_there_fails_its_rules(tmp_path):
    results = judge(claim(tmp_path, "{m: {min: 0, win_rate: 0}, other:m: {min: 0}}").rules, {})
    assert [result.passed for result in results] == [False, False, False]
    assert all(result.value is None for result in results)


def test_a_limit_may_name_several_controls(tmp_path):
    rules = claim(tmp_path, "{m: {min_gain: {off: 0, rule: 2}}}").rules
    results = judge(rules, {"off": Arm({"m": 1}, []), "rule": Arm({"m": 2}, []), "on": Arm({"m": 3}, [])})
    assert [(r.rule, r.control, r.passed) for r in results] == [("min_gain@off", 1, True), ("min_gain@rule", 2, False)]


def test_a_metric_may_name_another_arm_and_hold_dots(tmp_path):
    rules = claim(tmp_path, "{text:a.b: {max: 1}}").rules
    [result] = judge(rules, {"on": Arm({"a.b": 5}, []), "text": Arm({"a.b": 1}, [])})
    assert (result.metric, result.arm, result.passed) == ("text:a.b", "text", True)


def test_nested_metrics_are_flat_as_dvc_shows_them():
    assert accept.flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


def test_a_win_is_a_value_not_above_the_controls():
    assert win_rate(rows(1, 1, 1, 1), rows(0, 1, 2, 0), "m") == 0.75


def test_for_higher_is_better_a_win_is_a_value_not_below_the_controls(tmp_path):
    arms = {"off": Arm({}, rows(1, 1, 1, 1)), "on": Arm({}, rows(0, 1, 2, 0))}
    [result] = judge(claim(tmp_path, "{m: {win_rate_high: 0.5}}").rules, arms)
    assert (result.value, result.passed) == (0.5, True)


def test_rows_are_joined_on_their_keys_and_not_on_their_order():
    assert win_rate(rows(1, 2, 3), list(reversed(rows(1, 2, 3))), "m") == 1


def test_an_item_that_one_side_lacks_is_lost():
    assert win_rate(rows(1, 1), rows(0), "m") == 0.5
    assert win_rate(rows(1), rows(0, 0), "m") == 0.5


def test_an_item_without_a_finite_number_is_lost():
    assert win_rate(rows(1, 1, "nan", 1), rows(0, "", 0, "inf"), "m") == 0.25


def test_without_any_item_there_is_no_win_rate():
    assert win_rate([], [], "m") is None
    assert win_rate(rows(1), rows(1), "unknown") is None


def test_the_first_part_of_a_metric_chooses_rows():
    control = rows(1, 1) + rows(1, 1, forcing="teacher")
    treatment = rows(0, 0) + rows(2, 2, forcing="teacher")
    assert win_rate(control, treatment, "rollout.m") == 1
    assert win_rate(control, treatment, "teacher.m") == 0
    assert win_rate(control, treatment, "m") == 0.5
    assert win_rate(control, treatment, "other.m") is None


def test_a_number_chooses_no_rows():
    assert win_rate(rows(1), rows(0), "0.m") is None


def test_only_rows_in_the_rule_count():
    control, treatment = rows(1, in_rule="1") + rows(9, 9, in_rule="0")[1:], rows(0, in_rule="1")
    assert win_rate(control, treatment, "m") == 1


def test_two_rows_of_one_item_are_refused():
    with pytest.raises(UserError, match=r"two rows are \{'seed': '0', 'frame': '0', 'forcing': 'rollout'\}"):
        win_rate(rows(1) + rows(2), rows(1), "m")


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.randoms())
def test_an_arm_never_loses_against_itself(values, random):
    shuffled = rows(*values)
    random.shuffle(shuffled)
    assert win_rate(rows(*values), shuffled, "m", operator.le) == 1
    assert win_rate(rows(*values), shuffled, "m", operator.ge) == 1


def metrics(tmp_path, **arms):
    """metrics/s with m = the number of each arm, also in its only row."""
    folder = tmp_path / "metrics" / "s"
    for arm, value in arms.items():
        write_json(folder / f"{arm}.json", {"m": value, "n": {"x": 1}})
        write_csv(folder / f"{arm}.csv", rows(value), ["seed", "frame", "forcing", "m"])
    return folder


def test_the_verdict_file_holds_finite_numbers_only(tmp_path):
    claim(tmp_path, "{m: {max_ratio: 0.5, win_rate: 1}, gone: {min: 0}}", "{m: {max_ratio: {off: 0.1}}, n.x: {min: 1}}")
    accept.write_verdict("s", metrics(tmp_path, off=2.0, on=1.0), tmp_path)
    assert read_json(tmp_path / "metrics" / "s" / "verdict.json") == {
        "accepted": 0,
        "missed": 1,
        "rules": {
            "m": {
                "max_ratio": {"control": 2.0, "value": 1.0, "limit": 0.5, "pass": 1},
                "win_rate": {"value": 1.0, "limit": 1.0, "pass": 1},
            },
            "gone": {"min": {"limit": 0.0, "pass": 0}},
        },
        "aims": {
            "m": {"max_ratio@off": {"control": 2.0, "value": 1.0, "limit": 0.1, "pass": 0}},
            "n.x": {"min": {"control": 1.0, "value": 1.0, "limit": 1.0, "pass": 1}},
        },
    }


def test_a_missed_aim_does_not_gate(tmp_path):
    rules = claim(tmp_path, "{m: {min: 0}}", "{m: {min: 9}}").rules
    assert verdict_json(judge(rules, {"on": Arm({"m": 1}, [])}))["accepted"] == 1


def test_aims_alone_are_no_acceptance():
    assert not accept.accepted([])


def test_the_selected_files_are_copies_of_the_arms(tmp_path):
    claim(tmp_path, "{m: {min: 0}}")
    folder = metrics(tmp_path, off=2.0, on=1.0)
    assert accept.write_selected("s", folder, tmp_path) == "off"
    for suffix in ("json", "csv"):
        assert (folder / f"selected.{suffix}").read_bytes() == (folder / f"off.{suffix}").read_bytes()


def test_selecting_an_arm_that_is_not_there_lists_those_that_are(tmp_path):
    claim(tmp_path, "{m: {min: 0}}")
    folder = metrics(tmp_path, on=1.0, extra=1.0)
    with pytest.raises(UserError, match=r"s\.arm is 'off', but .* has no off\.json; arms there: extra, on"):
        accept.write_selected("s", folder, tmp_path)
    assert not (folder / "selected.json").exists()


def test_a_nan_in_a_metrics_file_fails_and_leaves_the_verdict_valid_json(tmp_path):
    claim(tmp_path, "{m: {max: 1}}")
    folder = metrics(tmp_path, off=1.0, on=1.0)
    (folder / "on.json").write_text('{"m": NaN}')
    accept.write_verdict("s", folder, tmp_path)
    verdict = json.loads((folder / "verdict.json").read_text(), parse_constant=pytest.fail)
    assert verdict["rules"]["m"]["max"] == {"control": 1.0, "limit": 1.0, "pass": 0}
