"""The READMEs say what the committed metrics say."""

import json
import re

import pytest

from tests.pipeline_facts import ROOT

ARMS = ("off", "on", "seedrule", "truth")


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_every_number_of_the_results_table_is_a_committed_metric(name: str):
    metrics = {arm: json.loads((ROOT / f"metrics/videoedit/{arm}.json").read_text()) for arm in ARMS}
    rows = re.findall(r"^\| `((?:rollout|teacher)\.\w+)` \|(.*)\|$", (ROOT / name).read_text(encoding="utf-8"), re.M)
    assert len(rows) == 7
    for key, cells in rows:
        forcing, metric = key.split(".")
        for arm, cell in zip(ARMS, cells.split("|"), strict=False):
            text = cell.strip(" *")
            assert text == "-" or text == f"{metrics[arm][forcing][metric]:.4g}", f"{name}: {key} of {arm}"


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md"])
def test_every_link_and_picture_leads_to_a_file_of_the_repository(name: str):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), f"{name}: {target}"


def test_the_costs_in_the_readme_are_those_of_the_benchmark():
    bench = (ROOT / "benchmarks/videoedit.md").read_text(encoding="utf-8")
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
