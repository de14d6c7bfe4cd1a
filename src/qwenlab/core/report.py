"""The report: one static page with every verdict, picture and parameter, readable without a network.

A system appears by having a claim in the parameters (`rules.systems`). The page shows what lies in its folders:
metrics/<system>/verdict.json, the JSON of its arms, the pictures there, and src/qwenlab/<system>/captions.yaml:

    title: Video editing with test-time loss guidance
    claim: One paragraph in plain words.
    pictures:                     # in the order of the page; others follow by name
      frames.png: {caption: What one sees., alt: What it shows, for those who cannot see it.}

All text is escaped: some of it was written by a model or a user. No dates and no absolute paths: two runs on the
same files write the same bytes.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from qwenlab.core.accept import flatten
from qwenlab.core.errors import UserError
from qwenlab.core.io import read_json, safe_name, write_bytes
from qwenlab.core.media import natural_key
from qwenlab.core.params import Params
from qwenlab.core.rules import RATIOS, RESERVED, WINS

PICTURES = (".png", ".gif", ".webp", ".mp4")
TEMPLATE = Path(__file__).parent / "templates" / "report.html.j2"
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


class Caption(Params):
    caption: str = ""
    alt: str = ""


class Captions(Params):
    """src/qwenlab/<system>/captions.yaml."""

    title: str = ""
    claim: str = ""
    pictures: dict[str, Caption] = {}


class Arms(Params):
    """The section `verdict` of a system."""

    control: str
    treatment: str


@dataclass(frozen=True)
class RuleRow:
    """A line of the rule table, in words. `limit` is in the metric's own unit: a ratio is multiplied out."""

    metric: str
    rule: str
    control: str
    value: str
    limit: str
    passed: bool


@dataclass(frozen=True)
class Picture:
    """A picture or film on the page; paths are relative to the page. `still` stands in for a GIF that must not move."""

    path: str
    caption: str
    alt: str
    width: int = 0
    height: int = 0
    still: str = ""

    @property
    def wide(self) -> bool:
        """Wider than a phone could show: it scrolls in its box."""
        return self.width > 1.8 * self.height

    @property
    def film(self) -> bool:
        return self.path.endswith(".mp4")


@dataclass(frozen=True)
class System:
    """What the page says about one system."""

    name: str
    title: str
    claim: str
    arms: Arms
    verdict: Verdict | None  # None: not run
    parameters: str  # YAML
    seeds: str
    rules: list[RuleRow] = field(default_factory=list)
    aims: list[RuleRow] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)  # arms that were measured
    table: list[tuple[str, list[str]]] = field(default_factory=list)  # metric, its value on every arm
    pictures: list[Picture] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # pictures with a caption and without a file


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
    """One entry of a verdict in words: "max_ratio" 0.5 becomes "at most 0.5 × off"."""
    kind, _, named = rule.partition("@")
    against, limit = named or control, entry.limit
    side, sign = ("at most", "≤") if kind.startswith("max") else ("at least", "≥")
    if kind in WINS:
        order = "at most" if kind == "win_rate" else "at least"
        words = f"{order} {against}, in {percent(limit)} of the items or more"
        return RuleRow(metric, words, "", percent(entry.value), f"≥ {percent(limit)}", bool(entry.passed))
    bound: float | None = limit
    words = f"{side} {number(limit)}"
    if kind == "min_gain":
        words = f"at least {against}"
        if limit:
            words += f" {'+' if limit > 0 else '−'} {number(abs(limit))}"
        bound = None if entry.control is None else entry.control + limit
    elif kind in RATIOS:
        words = f"{side} {against}" if limit == 1 else f"{side} {number(limit)} × {against}"
        bound = None if entry.control is None else entry.control * limit
    at = number(bound) if bound is None else f"{sign} {number(bound)}"
    shown = number(entry.control) if kind in RATIOS or entry.control is not None else ""
    return RuleRow(metric, words, shown, number(entry.value), at, bool(entry.passed))


def rule_rows(entries: dict[str, dict[str, Entry]], control: str) -> list[RuleRow]:
    return [
        rule_row(metric, rule, entry, control) for metric, rules in entries.items() for rule, entry in rules.items()
    ]


M = TypeVar("M", bound=BaseModel)


def _checked(model: type[M], value: Any, path: Path) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        one = error.errors()[0]
        raise UserError(
            f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg'][:1].lower()}{one['msg'][1:]}."
        ) from error


def read_captions(path: Path) -> Captions:
    """The words of a system; empty without a file.

    Raises:
        UserError: when the file is no YAML of that form.
    """
    if not path.exists():
        return Captions()
    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from error
    return _checked(Captions, value, path)


def arm_table(folder: Path, arms: Arms) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Arms (control, treatment, others by name) and their numbers: the medians, without the ones of single seeds."""
    found = [path.stem for path in sorted(folder.glob("*.json")) if path.stem not in RESERVED]
    names = [name for name in dict.fromkeys([arms.control, arms.treatment, *found]) if name in found]
    numbers = []
    for name in names:
        values = read_json(folder / f"{name}.json")
        values.pop("seeds", None)
        numbers.append(flatten(values))
    metrics = list(dict.fromkeys(key for values in numbers for key in values))
    return names, [(key, [number(values[key]) if key in values else "" for values in numbers]) for key in metrics]


def copy_pictures(system: str, folder: Path, captions: Captions, out: Path) -> list[Picture]:
    """Copy every picture of a metrics folder to <out>/<system>/, those with a caption first.

    Raises:
        UserError: when a file is no picture, or its name cannot be part of an address.
    """
    files = {path.name: path for path in sorted(folder.glob("*"), key=natural_key) if path.suffix in PICTURES}
    pictures = []
    for name in dict.fromkeys([*(name for name in captions.pictures if name in files), *files]):
        safe_name(name, f"{folder}: the picture")
        data = files[name].read_bytes()
        write_bytes(out / system / name, data)
        words = captions.pictures.get(name, Caption())
        size, still = (0, 0), ""
        if files[name].suffix != ".mp4":
            size, still = _look_into(files[name], data, out / system)
        pictures.append(
            Picture(f"{system}/{name}", words.caption or name, words.alt or f"{name} of {system}", *size, still)
        )
        if still:
            pictures[-1] = Picture(**{**vars(pictures[-1]), "still": f"{system}/{still}"})
    return pictures
