"""The rules of every claim, as the parameters write them. `accept` judges them.

    videoedit:
      verdict: {control: off, treatment: on}
      accept:                                    # rules that gate
        edge_loss: {max_ratio: 0.5, win_rate: 0.9}
        psnr: {min_gain: {off: 0, seedrule: 0}}  # against several named controls
        seedrule:edge_loss: {max: 1}             # of another arm than the treatment
      aim:                                       # judged and shown in the same way, never gating
        edge_loss: {max_ratio: 0.3}

A metric is a key of metrics/<system>/<arm>.json, nested keys joined by dots; for a win rate it is a column of
<arm>.csv. A rule is one of `RULES`.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenlab.core import params
from qwenlab.core.errors import UserError
from qwenlab.core.io import safe_name

RESERVED = ("selected", "verdict")  # files that stand beside the arms'

# The value against the limit.
LIMITS: dict[str, Callable[[float, float], bool]] = {"min": operator.ge, "max": operator.le}
# (value, control, limit) -> passed. A ratio to a negative number says nothing, so it fails.
RATIOS: dict[str, Callable[[float, float, float], bool]] = {
    "max_ratio": lambda value, control, limit: control >= 0 and value <= limit * control,
    "min_ratio": lambda value, control, limit: control >= 0 and value >= limit * control,
    "min_gain": lambda value, control, limit: value - control >= limit,
}
# The treatment's item against the control's; the share of items won must reach the limit.
WINS: dict[str, Callable[[float, float], bool]] = {"win_rate": operator.le, "win_rate_high": operator.ge}
RULES = (*LIMITS, *RATIOS, *WINS)


@dataclass(frozen=True)
class Rule:
    """One rule with one limit. `rule` is its name, with "@<control>" where the limit names its control."""

    system: str
    metric: str  # as written, with the "<arm>:" prefix if there is one
    rule: str
    arm: str
    control_arm: str
    limit: float
    gate: bool

    @property
    def kind(self) -> str:
        """One of `RULES`."""
        return self.rule.partition("@")[0]

    @property
    def key(self) -> str:
        """The metric's name within its arm."""
        return self.metric.partition(":")[2] or self.metric


@dataclass(frozen=True)
class Claim:
    """What a system claims: its two arms, and every rule."""

    system: str
    control: str
    treatment: str
    rules: list[Rule]

    @property
    def arms(self) -> list[str]:
        """Every arm that is compared, each once, the control and the treatment first."""
        others = [arm for rule in self.rules for arm in (rule.control_arm, rule.arm)]
        return list(dict.fromkeys([self.control, self.treatment, *others]))


def finite(value: Any) -> float | None:
    """A finite number as float; None for anything else."""
    try:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if number and math.isfinite(value) else None
    except OverflowError:  # an integer beyond the floats
        return None


def systems(root: Path | None = None) -> list[str]:
    """Systems with a claim: the top-level sections that have a `verdict`.

    Raises:
        UserError: when there is none, for then nothing would ever be refused.
    """
    everything = params.load_raw("", root)
    found = [name for name, value in everything.items() if isinstance(value, dict) and "verdict" in value]
    if not found:
        raise UserError(f"{params.where(root)}: no system has a section `verdict`; there is nothing to judge.")
    return found


def arm_name(name: Any, what: str) -> str:
    """`name` if it can name an arm and so its files.

    Raises:
        UserError: when it is no string, unsafe in a path, or the name of another file in that folder.
    """
    if not isinstance(name, str) or name in RESERVED:
        raise UserError(f"{what} is {params.shown(name)}; expected the name of an arm.")
    return safe_name(name, what)


def load_claim(system: str, root: Path | None = None) -> Claim:
    """The claim of a system from the parameters, checked.

    Raises:
        UserError: on an unknown system or rule, a limit that is no number, or a system without accept rules.
    """
    if system not in (known := systems(root)):
        raise UserError(f"{params.where(root)}: no system {system!r} has a verdict; known: {', '.join(known)}.")
    section, at = params.load_raw(system, root), f"{params.where(root)}: {system}"
    arms = section["verdict"]
    if not isinstance(arms, dict) or set(arms) != {"control", "treatment"}:
        raise UserError(f"{at}.verdict is {params.shown(arms)}; expected the keys control and treatment.")
    control, treatment = (arm_name(arms[key], f"{at}.verdict.{key}") for key in ("control", "treatment"))
    if not section.get("accept"):
        raise UserError(f"{at}.accept is missing or empty; a claim without a rule cannot be judged.")
    rules = []
    for group in ("accept", "aim"):
        for metric, named in _mapping(section.get(group) or {}, f"{at}.{group}", "metric to rules").items():
            prefix, colon, _ = str(metric).partition(":")
            arm = arm_name(prefix, f"{at}.{group}.{metric}: the arm") if colon else treatment
            for kind, limit in _mapping(named, f"{at}.{group}.{metric}", "rule to limit").items():
                name = f"{at}.{group}.{metric}.{kind}"
                rules += [
                    Rule(system, str(metric), rule, arm, against, number, group == "accept")
                    for rule, against, number in _limits(kind, limit, control, name)
                ]
    return Claim(system, control, treatment, rules)


def _mapping(value: Any, at: str, kind: str) -> dict:
    if not isinstance(value, dict):
        raise UserError(f"{at} is {params.shown(value)}; expected a mapping from {kind}.")
    return value


def _limits(kind: Any, limit: Any, control: str, at: str) -> list[tuple[str, str, float]]:
    """(rule, control arm, limit) of one rule: one, or one for each control that it names."""
    if kind not in RULES:
        raise UserError(f"{at}: there is no rule {kind!r}; expected one of: {', '.join(RULES)}.")
    if isinstance(limit, dict) and limit and kind not in LIMITS:
        found = [(f"{kind}@{arm}", arm_name(arm, f"{at}: the control"), finite(value)) for arm, value in limit.items()]
    else:
        found = [(kind, control, finite(limit))]
    if any(number is None for _, _, number in found):
        several = "" if kind in LIMITS else ", or a mapping from control arm to number"
        raise UserError(f"{at} is {params.shown(limit)}; expected a number{several}.")
    return [(rule, arm, number) for rule, arm, number in found if number is not None]
