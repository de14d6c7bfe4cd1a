"""The pictures of the planners: the same bytes from the same data, and clear words when data are missing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from qwenlab.core.errors import UserError
from qwenlab.core.io import write_csv, write_json
from qwenlab.core.report import read_captions
from qwenlab.tomas import plots
from qwenlab.tomas.export import Memory
from qwenlab.tomas.plots import by_seed, directions, draw, two_components
from qwenlab.tomas.profiling import Profile
from qwenlab.tomas.score import COLUMNS

ARMS = ["random", "memory", "frozen"]
PICTURES = ("accuracy.png", "regret.png", "reliability.png", "memory.png")
TASKS = 20
HEAD = ",".join(COLUMNS) + "\n"


def rows(number, seeds=(0, 1), **fixed):
    """Rows of an arm: later arms are exact less often; every third plan is not valid."""
    return [
        {name: 1 for name in COLUMNS}
        | {"seed": seed, "id": task, "new": int(task % 5 == 0), "probability": task / TASKS}
        | {"exact": int(task % (number + 2) != 0), "valid": int(task % 3 != 0)}
        | {"regret": "" if task % 3 == 0 else 0.05 * task}
        | fixed
        for seed in seeds
        for task in range(TASKS)
    ]


@pytest.fixture
def metrics(tmp_path):
    """What the stages before write to metrics/tomas."""
    for number, arm in enumerate(ARMS):
        write_csv(tmp_path / f"{arm}.csv", rows(number), COLUMNS)
    write_json(tmp_path / "heuristic.json", {"exact": {"all": 0.3}, "informed": {"exact": {"all": 0.4}}, "by_rule": {}})
    return tmp_path


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, by the name of their file."""
    found = {}

    def savefig(figure, path, **_):
        found[path.name.split(".")[1]] = figure
        path.touch()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    return found


def test_two_runs_write_the_same_bytes(metrics, memory):
    draw(memory, metrics, ARMS)
    first = [(metrics / name).read_bytes() for name in PICTURES]
    draw(memory, metrics, ARMS)
    assert [(metrics / name).read_bytes() for name in PICTURES] == first
    for name in PICTURES:
        with Image.open(metrics / name) as image:
            assert image.width >= 800
            assert not {"Software", "Creation Time", "date"} & set(image.info)


def test_every_picture_has_a_caption_and_an_alternative_text(root):
    words = read_captions(root / "src" / "qwenlab" / "tomas" / "captions.yaml")
    assert sorted(words.pictures) == sorted(PICTURES)
    assert words.title and words.claim and all(one.caption and one.alt for one in words.pictures.values())


def test_the_mean_of_every_seed_counts_once():
    table = [{"seed": 0.0, "new": 0.0, "exact": 1.0}] * 3 + [{"seed": 1.0, "new": 1.0, "exact": 0.0}]
    assert by_seed(table, "exact") == [1, 0]
    assert by_seed(table, "exact", new=1) == [0]
    assert by_seed(table[:3], "exact", new=1) == []


def test_plans_that_are_not_valid_never_reach_the_top_of_the_regret(metrics, figures):
    table = plots.read_rows(metrics / "random.csv")
    plots.draw_regret(metrics / "regret.png", {"random": table})
    share = figures["regret"].axes[0].lines[0].get_ydata()
    assert (np.diff(share) >= 0).all()
    assert share[-1] == np.mean([row["valid"] for row in table]) < 1


def test_a_curve_of_regret_begins_at_the_plans_without_any(metrics, figures):
    write_csv(metrics / "random.csv", rows(0, seeds=[0], regret=0) + rows(0, seeds=[1], regret=0.5), COLUMNS)
    plots.draw_regret(metrics / "regret.png", {"random": plots.read_rows(metrics / "random.csv")})
    line = figures["regret"].axes[0].lines[0]
    assert (line.get_xdata()[0], line.get_ydata()[0]) == (0, 0.5)


def test_an_arm_without_valid_plans_stays_at_zero(metrics, figures):
    write_csv(metrics / "random.csv", rows(0, valid=0, exact=0, regret="", masked_regret=""), COLUMNS)
    tables = {arm: plots.read_rows(metrics / f"{arm}.csv") for arm in ARMS}
    plots.draw_regret(metrics / "regret.png", tables)
    plots.draw_accuracy(metrics / "accuracy.png", tables, [0.3, 0.4])
    assert not figures["regret"].axes[0].lines[0].get_ydata().any()
    # A bar of no height says so, or it would look as if there had been no such tasks.
    assert [text.get_text() for text in figures["accuracy"].axes[0].texts].count("0") == 2


def test_only_arms_without_valid_plans_and_new_tasks_can_be_drawn(metrics, memory):
    write_csv(metrics / "random.csv", rows(0, [0], new=0, valid=0, exact=0, top3=0, regret="", probability=""), COLUMNS)
    draw(memory, metrics, ["random"])


def test_the_best_rules_of_thumb_are_lines_on_exact_plans_only(metrics, figures):
    tables = {arm: plots.read_rows(metrics / f"{arm}.csv") for arm in ARMS}
    plots.draw_accuracy(metrics / "accuracy.png", tables, plots.read_rules(metrics / "heuristic.json"))
    heights = [
        [line.get_ydata()[0] for line in panel.lines if line.get_linestyle() in plots.RULES.values()]
        for panel in figures["accuracy"].axes
    ]
    assert heights == [[0.3, 0.4], [], []]
    assert set(plots.RULES) < {text.get_text() for text in figures["accuracy"].legends[0].get_texts()}


def test_the_area_of_a_marker_is_the_number_of_plans(metrics, figures):
    table = rows(0, [0], probability=0.05, exact=0) + rows(0, [1, 2], probability=0.95, exact=1)
    write_csv(metrics / "random.csv", table, COLUMNS)
    plots.draw_reliability(metrics / "reliability.png", {"random": plots.read_rows(metrics / "random.csv")})
    (markers,) = figures["reliability"].axes[0].collections
    assert markers.get_sizes() == pytest.approx([plots.LARGEST / 2, plots.LARGEST])
    assert np.asarray(markers.get_offsets()) == pytest.approx(np.array([[0.05, 0], [0.95, 1]]))


def test_every_row_of_the_memory_is_drawn_and_every_new_one_ringed(memory, metrics, figures):
    plots.draw_memory(metrics / "memory.png", memory)
    left, right = figures["memory"].axes[:2]
    for panel, shown in ((left, memory.new), (right, memory.new[memory.profile.tool_ids == 0])):
        counts = {ringed: 0 for ringed in (False, True)}
        for dots in panel.collections:
            counts[len(dots.get_edgecolors()) > 0] += len(dots.get_offsets())
        assert counts == {False: (~shown).sum(), True: shown.sum()}


def test_new_rows_do_not_move_the_components(memory):
    known = ~memory.new
    moved = memory.weights.clone()
    moved[torch.tensor(memory.new)] *= -3
    before, after = (directions(one) for one in (memory, replace(memory, weights=moved)))
    np.testing.assert_array_equal(before[known], after[known])
    np.testing.assert_array_equal(two_components(before, known)[0][known], two_components(after, known)[0][known])


def test_components_are_those_of_the_covariance_with_a_fixed_sign():
    generator = np.random.default_rng(0)
    data = generator.normal(size=(50, 4)) * [1, 5, 3, 0.1]
    known = np.ones(50, bool)
    places, shares = two_components(data, known)
    values = np.linalg.eigvalsh(np.cov(data.T))[::-1]
    assert shares == pytest.approx(values[:2] / values.sum())
    assert places.var(0, ddof=1) == pytest.approx(values[:2])
    assert (places * data[:, [1, 2]]).sum(0).min() > 0  # along the columns that vary most


def test_a_tool_with_a_single_configuration_can_be_drawn(memory, metrics):
    kept = np.flatnonzero((memory.profile.tool_ids != 0) & ~memory.new)[:5]
    rows = np.append(np.flatnonzero((memory.profile.tool_ids == 0) & ~memory.new)[:1], kept)
    profile = Profile(memory.profile.registry, memory.profile.tool_ids[rows], memory.profile.resources[rows])
    plots.draw_memory(metrics / "memory.png", Memory(memory.weights[torch.tensor(rows)], profile, memory.new[rows]))


@pytest.mark.parametrize("missing", ["memory.csv", "heuristic.json"])
def test_a_missing_file_ends_in_one_sentence_and_no_picture(metrics, memory, missing):
    (metrics / missing).unlink()
    with pytest.raises(UserError, match=f"{metrics / missing}: no such file"):
        draw(memory, metrics, ARMS)
    assert not list(metrics.glob("*.png"))


@pytest.mark.parametrize("text", ["", "seed,id\n0,0\n", HEAD, f"{HEAD}0,0\n", HEAD + "x," * (len(COLUMNS) - 1) + "x\n"])
def test_a_table_that_is_not_one_of_scores_is_refused(metrics, memory, text):
    (metrics / "memory.csv").write_text(text)
    with pytest.raises(UserError, match=r"memory\.csv: .*run tomas-score again"):
        draw(memory, metrics, ARMS)


def test_rules_of_thumb_without_their_best_are_refused(metrics, memory):
    (metrics / "heuristic.json").write_text(json.dumps({"exact": {"all": 0.3}}))
    with pytest.raises(UserError, match="run tomas-heuristic again"):
        draw(memory, metrics, ARMS)
