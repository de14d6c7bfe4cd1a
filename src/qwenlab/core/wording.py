"""Numbers and judged rules in words, for the report."""

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from qwenlab.core.params import Params
from qwenlab.core.rules import RATIOS, WINS

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Entry(Params):
    """One judged rule, as `accept.verdict_json` writes it. A number that is missing was left out."""

    value: float | None = None
    control: float | None = None
    limit: float
    passed: int = Field(alias="pass")


class Verdict(Params):
    """metrics/<system>/verdict.json: metric -> rule -> entry, the gating rules and the aims apart."""

    accepted: int
    missed: int
    rules: dict[str, dict[str, Entry]]
    aims: dict[str, dict[str, Entry]]


@dataclass(frozen=True)
class RuleRow:
    """A line of the rule table. `limit` is in the metric's own unit (a ratio is multiplied out), to hold against
    `value`."""

    metric: str
    rule: str
    control: str
    value: str
    limit: str
    passed: bool


def number(value: Any) -> str:
    """A number with four significant digits, a proper minus and a readable exponent; anything else is "missing"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "missing"
    text = str(value) if isinstance(value, int) else f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"
    mantissa, e, exponent = text.partition("e")
    if e:
        mantissa += " × 10" + str(int(exponent)).translate(SUPERSCRIPTS)
    return mantissa.replace("-", "−")


def percent(share: float | None) -> str:
    """A share of items."""
    return "missing" if share is None else f"{number(round(share * 100, 2))}%"


def rule_row(metric: str, rule: str, entry: Entry, control: str) -> RuleRow:
    """One entry of a verdict in words: max_ratio 0.5 becomes "at most 0.5 × off".

    Args:
        rule: its name, with "@<arm>" when it is held against another arm than `control`.
    """
    kind, _, named = rule.partition("@")
    against, limit, old = named or control, entry.limit, entry.control
    if kind in WINS:
        order = "at most" if kind == "win_rate" else "at least"
        words = f"{order} {against}, in {percent(limit)} of the items or more"
        return RuleRow(metric, words, "", percent(entry.value), f"≥ {percent(limit)}", bool(entry.passed))
    side, sign = ("at most", "≤") if kind.startswith("max") else ("at least", "≥")
    bound: float | None = limit
    if kind == "min_gain":
        words = f"at least {against}" + (f" {'+' if limit > 0 else '−'} {number(abs(limit))}" if limit else "")
        bound = None if old is None else old + limit
    elif kind in RATIOS:
        words = f"{side} {against}" if limit == 1 else f"{side} {number(limit)} × {against}"
        bound = None if old is None else old * limit
    else:
        words = f"{side} {number(limit)}"
    shown = "" if old is None and kind not in RATIOS else number(old)
    return RuleRow(metric, words, shown, number(entry.value), f"{sign} {number(bound)}", bool(entry.passed))


def rule_rows(entries: dict[str, dict[str, Entry]], control: str) -> list[RuleRow]:
    """All entries of a group, in the order of the file."""
    return [
        rule_row(metric, rule, entry, control) for metric, rules in entries.items() for rule, entry in rules.items()
    ]
