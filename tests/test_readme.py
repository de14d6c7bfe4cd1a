"""The READMEs say what the committed metrics say."""

import json
import re

import pytest

from tests.pipeline_facts import ROOT

# System -> the arms that are the columns of its table, and how many rows it has.
TABLES = {
    "videoedit": (("off", "on", "seedrule", "truth"), 7),
    "tomas": (("random", "memory", "frozen", "heuristic"), 9),
    "hsa": (("off", "on", "placebo", "feedback_off", "off_long"), 7),
    "latentcot": (("base", "text", "pause", "latent"), 7),
    "thinkseg": (("teacher", "student", "base"), 6),
}


def number(metrics: dict, key: str) -> float | None:
    """A nested metric by its dotted name."""
    value: object = metrics
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else None


@pytest.mark.parametrize("system", TABLES)
@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_every_number_of_the_results_table_is_a_committed_metric(name: str, system: str):
    arms, count = TABLES[system]
    metrics = {arm: json.loads((ROOT / f"metrics/{system}/{arm}.json").read_text()) for arm in arms}
    text = (ROOT / name).read_text(encoding="utf-8")
    section = next(part for part in text.split("\n## ") if part.startswith(system))
    rows = re.findall(r"^\| `([\w.]+)` \|(.*)\|$", section, re.M)
    assert len(rows) == count
    for key, cells in rows:
        for arm, cell in zip(arms, cells.split("|"), strict=False):
            text = cell.strip(" *")
            assert text == "-" or text == f"{number(metrics[arm], key):.4g}", f"{name}: {key} of {arm}"


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md"])
def test_every_link_and_picture_leads_to_a_file_of_the_repository(name: str):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), f"{name}: {target}"


def test_the_costs_in_the_readme_are_those_of_the_benchmark():
    bench = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "benchmarks").glob("*.md")))
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for figure in re.findall(r"\b(\d\.\d\d)(?:x| 倍)", text):
            assert f"{figure}x" in bench, f"{name}: {figure}"


def test_every_command_of_the_readme_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    from qwenlab.cli import COMMANDS

    assert set(re.findall(r"\bqwenlab (\w+)", text)) <= {*COMMANDS, "report"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake (\w+)", text):
        assert f"\n{target}:" in makefile
