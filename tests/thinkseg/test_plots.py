"""The pictures of summaries and thinkers: drawn from what was measured, the same bytes each time."""

import json

import pytest
from matplotlib.figure import Figure

from qwenlab.core.errors import UserError
from qwenlab.thinkseg import plots
from qwenlab.thinkseg.plots import SIGHT, SUMMARY, bars, draw


def arm(values: list[float]) -> dict:
    """An arm's JSON: the median over seeds, and each seed."""
    seeds = {str(seed): dict.fromkeys(SUMMARY, value) for seed, value in enumerate(values)}
    return {**dict.fromkeys(SUMMARY, sorted(values)[len(values) // 2]), "seeds": seeds}


@pytest.fixture
def metrics(tmp_path):
    for name, values in {"teacher": [1.0], "student": [0.6, 0.7, 0.9]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(arm(values)))
    seen = {name: 0.5 for name in SIGHT if "." not in name}
    for name in ("scripted", "omni_thinker"):
        (tmp_path / f"{name}.json").write_text(json.dumps({**seen, "summary": {"object_f1": 0.25}}))
    return tmp_path


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved."""
    kept, save = [], Figure.savefig

    def savefig(self, *args, **kwargs):
        kept.append(self)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return kept


def test_both_pictures_are_written_and_nothing_else(metrics):
    before = {file.name for file in metrics.iterdir()}
    draw(metrics, ["teacher", "student"])
    assert {file.name for file in metrics.iterdir()} - before == {"summaries.png", "thinkers.png"}
    assert all((metrics / name).read_bytes().startswith(b"\x89PNG") for name in ("summaries.png", "thinkers.png"))


def test_two_runs_write_the_same_bytes(metrics):
    draw(metrics, ["teacher", "student"])
    first = (metrics / "summaries.png").read_bytes()
    draw(metrics, ["teacher", "student"])
    assert (metrics / "summaries.png").read_bytes() == first


def test_every_metric_and_every_arm_is_labelled(metrics, figures):
    draw(metrics, ["teacher", "student"])
    summaries, thinkers = (figure.axes[0] for figure in figures)
    assert [label.get_text() for label in summaries.get_xticklabels()] == list(SUMMARY.values())
    assert [label.get_text() for label in thinkers.get_xticklabels()] == list(SIGHT.values())
    assert [label.get_text() for label in summaries.get_legend().get_texts()] == ["teacher", "student"]
    assert "scripted" in thinkers.get_legend().get_texts()[0].get_text()
    assert summaries.get_title(loc="left") and thinkers.get_title(loc="left")


def test_bars_are_as_high_as_the_numbers_and_say_them(metrics, figures):
    draw(metrics, ["teacher", "student"])
    panel = figures[0].axes[0]
    heights = [bar.get_height() for bar in panel.patches]
    assert heights == [1.0] * len(SUMMARY) + [0.7] * len(SUMMARY)
    assert [text.get_text() for text in panel.texts] == ["1.00"] * len(SUMMARY) + ["0.70"] * len(SUMMARY)


def test_whiskers_go_from_the_lowest_to_the_highest_seed_and_one_seed_has_none(metrics, figures):
    draw(metrics, ["teacher", "student"])
    whiskers = [tuple(part[:, 1]) for lines in figures[0].axes[0].collections for part in lines.get_segments()]
    assert whiskers == [(0.6, 0.9)] * len(SUMMARY)


def test_a_missing_file_or_number_is_one_sentence_and_leaves_no_picture(metrics):
    with pytest.raises(UserError, match=r"base\.json"):
        draw(metrics, ["teacher", "base"])
    broken = arm([0.5])
    del broken["emotion"]
    (metrics / "student.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match="student have no emotion"):
        draw(metrics, ["teacher", "student"])
    assert not list(metrics.glob("*.png*"))


def test_no_number_at_all_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="have no format"):
        bars(tmp_path / "x.png", "Title", SIGHT, {"omni": {}}, {})
    assert not list(tmp_path.iterdir())


def test_there_is_a_colour_for_every_arm(root):
    from qwenlab.core.params import load_raw

    assert len(load_raw("thinkseg.arms")) <= len(plots.COLOURS)
