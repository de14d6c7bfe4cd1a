"""The one evaluator: the rules of a claim (`rules`) against the metrics of its arms, one verdict a system.

Numbers come from metrics/<system>/<arm>.json and, a row an item, <arm>.csv. What cannot be computed, because a
number is missing or not finite, fails. It serves the verdict stages (`write_verdict`), the gate (`gate`, which
`python -m stages.accept` and `qwenlab accept` call), and the comparison of two revisions (`accept_revs`).
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenlab.core import params
from qwenlab.core.errors import UserError
from qwenlab.core.io import read_csv, read_json, write_bytes, write_json
from qwenlab.core.rules import LIMITS, RATIOS, RESERVED, WINS, Rule, arm_name, finite, load_claim, systems

KEYS = ("seed", "item", "frame", "forcing", "id")  # the CSV columns that say which item a row is


@dataclass(frozen=True)
class Arm:
    """What one arm measured: its JSON, flat and dotted, and the rows of its CSV."""

    metrics: Mapping[str, Any]
    rows: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Result(Rule):
    """A judged rule; None where a number is missing. The value of a win rate is the share of items won."""

    value: float | None
    control: float | None
    passed: bool


def _cell(text: str | None) -> float | None:
    """A finite number from a CSV cell; None for anything else."""
    try:
        return finite(float(text or ""))
    except ValueError:
        return None


def _items(rows: Sequence[Mapping[str, str]], metric: str) -> dict[tuple, float | None]:
    """Item -> value of `metric`. "rollout.edge_loss" is column edge_loss of the rows that have "rollout" as a key."""
    *filters, column = metric.split(".")
    items: dict[tuple, float | None] = {}
    for row in rows:
        item = tuple((key, row[key]) for key in KEYS if key in row)
        words = [value for _, value in item if _cell(value) is None]
        counts = _cell(row.get("in_rule", "1")) == 1  # the producer marks the rows that its rules read
        if column not in row or not counts or any(part not in words for part in filters):
            continue
        if item in items:
            raise UserError(f"metrics: two rows are {dict(item)}; the columns {', '.join(KEYS)} must tell items apart.")
        items[item] = _cell(row[column])
    return items


def win_rate(
    control_rows: Sequence[Mapping[str, str]],
    treatment_rows: Sequence[Mapping[str, str]],
    metric: str,
    wins: Callable[[float, float], bool] = operator.le,
) -> float | None:
    """Share of items in which the treatment is at least as good as the control; None without any item.

    Rows are joined on those of `KEYS` that they have. An item that one side lacks, or has no finite number for,
    is lost: an arm must not win by dropping what it does badly.
    """
    control, treatment = _items(control_rows, metric), _items(treatment_rows, metric)
    pairs = [(treatment.get(item), control.get(item)) for item in control.keys() | treatment.keys()]
    won = sum(new is not None and old is not None and wins(new, old) for new, old in pairs)
    return won / len(pairs) if pairs else None


def judge(rules: Sequence[Rule], arms: Mapping[str, Arm]) -> list[Result]:
    """Every rule against the numbers of the arms; an arm that is not there has no numbers."""
    results, nothing = [], Arm({}, [])
    for rule in rules:
        new, old = arms.get(rule.arm, nothing), arms.get(rule.control_arm, nothing)
        value, control = finite(new.metrics.get(rule.key)), finite(old.metrics.get(rule.key))
        if rule.kind in WINS:
            value, control = win_rate(old.rows, new.rows, rule.key, WINS[rule.kind]), None
            passed = value is not None and value >= rule.limit
        elif rule.kind in RATIOS:
            passed = value is not None and control is not None and RATIOS[rule.kind](value, control, rule.limit)
        else:
            passed = value is not None and LIMITS[rule.kind](value, rule.limit)
        results.append(Result(**vars(rule), value=value, control=control, passed=passed))
    return results


def accepted(results: Sequence[Result]) -> bool:
    """Whether every gating rule passed, and there is one."""
    gates = [result.passed for result in results if result.gate]
    return bool(gates) and all(gates)


def verdict_json(results: Sequence[Result]) -> dict[str, Any]:
    """The verdict as nested finite numbers, for DVC; a number that is missing is left out."""
    groups: dict[bool, dict[str, dict[str, dict[str, float]]]] = {True: {}, False: {}}
    for one in results:
        numbers = {"value": one.value, "control": one.control, "limit": one.limit, "pass": int(one.passed)}
        entry = {name: number for name, number in numbers.items() if number is not None}
        groups[one.gate].setdefault(one.metric, {})[one.rule] = entry
    missed = sum(not one.passed for one in results if not one.gate)
    return {"accepted": int(accepted(results)), "missed": missed, "rules": groups[True], "aims": groups[False]}


def print_table(results: Sequence[Result]) -> None:
    """The results as a table on the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)  # a log has no window to fit into
    table = Table()
    for name in ("system", "metric", "rule", "control", "value", "limit", "verdict"):
        table.add_column(name, justify="right" if name in ("control", "value", "limit") else "left")
    for before, one in zip([None, *results], results, strict=False):
        words = ("pass", "FAIL") if one.gate else ("aim met", "missed")
        style = ("green", "bold red") if one.gate else ("green", "yellow")
        verdict = Text(words[not one.passed], style[not one.passed])
        rule = one.kind if one.kind in LIMITS else f"{one.kind} ({one.control_arm})"
        if before and before.system != one.system:
            table.add_section()
        numbers = ["" if n is None else f"{n:.4g}" for n in (one.control, one.value, one.limit)]
        numbers[1] = numbers[1] or "missing"
        table.add_row(*map(Text, (one.system, one.metric, rule, *numbers)), verdict)
    console.print(table)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots, as DVC shows them."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def metrics_dir(system: str, root: Path | None = None) -> Path:
    """Where the arms of a system leave their metrics."""
    return (root or Path()) / "metrics" / system


def judge_files(system: str, root: Path | None = None, folder: Path | None = None) -> list[Result]:
    """Judge a system from the files of its arms.

    Args:
        root: folder of params.yaml; the current one if not given.
        folder: the metrics, if they are not in metrics/<system>.

    Raises:
        UserError: on bad parameters, or when the JSON file of an arm that a rule reads is missing or unreadable.
    """
    claim, folder = load_claim(system, root), folder or metrics_dir(system, root)
    arms = {}
    for name in claim.arms:
        table = folder / f"{name}.csv"
        arms[name] = Arm(flatten(read_json(folder / f"{name}.json")), read_csv(table) if table.exists() else [])
    return judge(claim.rules, arms)


def write_verdict(system: str, folder: Path, root: Path | None = None) -> list[Result]:
    """The verdict stage of a system: judge, show, write verdict.json. A failed rule is no error: sweeps go on."""
    results = judge_files(system, root, folder)
    write_json(folder / "verdict.json", verdict_json(results))
    print_table(results)
    return results


def write_selected(system: str, folder: Path, root: Path | None = None) -> str:
    """The select stage of a system: copy the metrics of the arm that `<system>.arm` names; returns that name.

    Two revisions that select different arms are then compared by `dvc metrics diff`, without running an arm again.
    """
    at = f"{params.where(root)}: {system}.arm"
    arm = arm_name(params.load_raw(system, root).get("arm"), at)
    files = [folder / f"{arm}{suffix}" for suffix in (".json", ".csv")]
    if absent := [file.name for file in files if not file.is_file()]:
        found = sorted(path.stem for path in folder.glob("*.json") if path.stem not in RESERVED)
        raise UserError(f"{at} is {arm!r}, but {folder} has no {absent[0]}; arms there: {', '.join(found) or 'none'}.")
    for file in files:
        write_bytes(folder / f"selected{file.suffix}", file.read_bytes())
    return arm


def gate(root: Path | None = None, only: str | None = None) -> bool:
    """Print the table of all systems (or of one) and return whether every accept rule passes."""
    from click import echo

    results, good = [], True
    for system in [only] if only else systems(root):
        files = [metrics_dir(system, root) / f"{arm}.json" for arm in load_claim(system, root).arms]
        absent = [file for file in files if not file.exists()]
        judged = [] if absent else judge_files(system, root)
        if absent:
            echo(f"{system}: no verdict yet, {absent[0]} is missing; `make repro` computes it.", err=True)
        results += judged
        good &= accepted(judged)
    if results:
        print_table(results)
    return good
