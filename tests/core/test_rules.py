"""The rules as the parameters write them: what is understood, and what is refused."""

import pytest

from qwenlab.core.errors import UserError
from qwenlab.core.rules import finite, load_claim, systems


def claim(tmp_path, accept_yaml, aim_yaml="{}"):
    """The claim of system `s`; accept rules in params.yaml, aims in the profile."""
    (tmp_path / "profiles").mkdir(exist_ok=True)
    (tmp_path / "profiles" / "tiny.yaml").write_text(f"s:\n  aim: {aim_yaml}\n")
    shared = "profile: tiny\ns:\n  verdict: {control: off, treatment: on}\nother: {a: 1}\n"
    (tmp_path / "params.yaml").write_text(shared.replace("other:", f"  accept: {accept_yaml}\nother:"))
    return load_claim("s", tmp_path)


def test_a_rule_is_read_with_its_arms(tmp_path):
    [first, second] = claim(tmp_path, "{a.b: {max_ratio: 0.5}}", "{text:c: {win_rate: {x: 0.9}}}").rules
    assert (first.metric, first.key, first.rule, first.kind) == ("a.b", "a.b", "max_ratio", "max_ratio")
    assert (first.arm, first.control_arm, first.limit, first.gate) == ("on", "off", 0.5, True)
    assert (second.metric, second.key, second.rule, second.kind) == ("text:c", "c", "win_rate@x", "win_rate")
    assert (second.arm, second.control_arm, second.limit, second.gate) == ("text", "x", 0.9, False)


def test_a_system_is_a_section_with_a_verdict(tmp_path):
    claim(tmp_path, "{m: {min: 0}}")
    assert systems(tmp_path) == ["s"]


@pytest.mark.parametrize("value", [None, True, "1", [1], float("nan"), float("inf"), 10**400])
def test_what_is_no_finite_number_is_none(value):
    assert finite(value) is None


def test_the_claim_lists_every_arm_once(tmp_path):
    assert claim(tmp_path, "{m: {max_ratio: {off: 1, rule: 1}}, text:m: {max: 1}}").arms == [
        "off",
        "on",
        "rule",
        "text",
    ]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("{m: {max_ratoi: 1}}", "there is no rule 'max_ratoi'; expected one of: min, max, max_ratio"),
        ("{m: {max: high}}", r's.accept.m.max is "high"; expected a number\.'),
        ("{m: {max: true}}", "s.accept.m.max is true; expected a number"),
        ("{m: {max: .inf}}", "s.accept.m.max is Infinity; expected a number"),
        ("{m: {max: {off: 1}}}", 's.accept.m.max is {"off": 1}; expected a number'),
        ("{m: {max_ratio: {}}}", "expected a number, or a mapping from control arm to number"),
        ("{m: {max_ratio: {off: x}}}", "expected a number, or a mapping from control arm to number"),
        ("{m: {max_ratio: {../x: 1}}}", "cannot be part of a file name"),
        ("{../x:m: {max: 1}}", "cannot be part of a file name"),
        ("{selected:m: {max: 1}}", 'is "selected"; expected the name of an arm'),
        ("{m: 3}", "s.accept.m is 3; expected a mapping from rule to limit"),
        ("[m]", r's.accept is \["m"\]; expected a mapping'),
        ("{}", "s.accept is missing or empty"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(tmp_path, rules, words):
    with pytest.raises(UserError, match=words):
        claim(tmp_path, rules)


def test_a_verdict_must_name_two_arms(tmp_path):
    claim(tmp_path, "{m: {min: 0}}")
    (tmp_path / "params.yaml").write_text("profile: tiny\ns: {verdict: {control: off}, accept: {m: {min: 0}}}\n")
    with pytest.raises(UserError, match="expected the keys control and treatment"):
        load_claim("s", tmp_path)


def test_an_unknown_system_is_named_with_the_known_ones(tmp_path):
    claim(tmp_path, "{m: {min: 0}}")
    with pytest.raises(UserError, match="no system 'x' has a verdict; known: s"):
        load_claim("x", tmp_path)
