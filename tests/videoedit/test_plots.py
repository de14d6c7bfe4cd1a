"""The pictures of the experiment: the same bytes from the same data, and clear words when data are missing."""

import shutil

import numpy as np
import pytest
from PIL import Image

from qwenlab.core.errors import UserError
from qwenlab.core.io import write_csv
from qwenlab.core.media import read_image, write_image
from qwenlab.videoedit import plots
from qwenlab.videoedit.plots import Compared, draw

FRAMES = 3
PICTURES = ("frames.png", "per_frame.png", "comparison.gif")


def picture(seed):
    """32x32 pixels of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def experiment(root, arms=("off", "on", "seedrule"), metrics=tuple(plots.METRICS)):
    """A small run of every stage before: the clip, a roll-out an arm, and the CSV files. Returns draw's arguments."""
    for index in range(FRAMES):
        write_image(root / "clip" / "frames" / f"{index:06d}.png", picture(index))
        if index:
            write_image(root / "clip" / "edges" / f"{index:06d}.png", picture(100 + index))
    for number, arm in enumerate((*arms, "truth")):
        rows = [
            {"seed": seed, "frame": frame, "forcing": forcing, "in_rule": 1}
            | {name: 0.1 * (number + frame + seed) for name in metrics}
            for seed in (0, 1)
            for forcing in ("rollout", "teacher")
            for frame in range(1, FRAMES)
        ]
        write_csv(root / "metrics" / f"{arm}.csv", rows, list(rows[0]))
        for index in range(FRAMES):
            for seed in (2, 10):
                write_image(root / "edits" / arm / f"rollout_seed{seed}" / f"{index:06d}.png", picture(seed + index))
    shutil.rmtree(root / "edits" / "truth")
    return Compared(control="off", treatment="on"), root / "clip", root / "edits", root / "metrics"


def test_two_runs_write_the_same_bytes(tmp_path):
    arguments = experiment(tmp_path)
    draw(*arguments)
    first = [(tmp_path / "metrics" / name).read_bytes() for name in PICTURES]
    draw(*arguments)
    assert [(tmp_path / "metrics" / name).read_bytes() for name in PICTURES] == first


def test_a_png_names_neither_a_date_nor_a_version(tmp_path):
    draw(*experiment(tmp_path))
    with Image.open(tmp_path / "metrics" / "per_frame.png") as image:
        assert not {"Software", "Creation Time", "date"} & set(image.info)


def test_the_control_comes_first_and_the_treatment_second(tmp_path):
    _, _, edits, _ = experiment(tmp_path, arms=("a", "off", "on"))
    assert plots.list_arms(edits, Compared(control="on", treatment="off")) == ["on", "off", "a"]


def test_the_roll_out_is_that_of_the_lowest_seed(tmp_path):
    _, _, edits, _ = experiment(tmp_path)
    assert plots.first_roll_out(edits / "on", FRAMES)[0].tobytes() == picture(2).tobytes()  # seed 2, not 10


def test_a_small_frame_grows_pixel_by_pixel(tmp_path):
    draw(*experiment(tmp_path))
    size = plots.shown_size(picture(0), plots.STRIP_CELL)
    assert size == (192, 192)
    strip = np.asarray(read_image(tmp_path / "metrics" / "frames.png"))
    enlarged = np.asarray(picture(0)).repeat(6, 0).repeat(6, 1)
    found = [top for top in range(len(strip) - 191) if (strip[top : top + 192, 6:198] == enlarged).all()]
    assert len(found) == 1  # the true frame's row


def test_a_large_frame_shrinks_to_the_cell():
    assert plots.shown_size(Image.new("RGB", (1184, 800)), 296) == (296, 200)


def test_the_comparison_shows_every_frame_four_times_a_second(tmp_path):
    draw(*experiment(tmp_path))
    with Image.open(tmp_path / "metrics" / "comparison.gif") as film:
        assert (film.n_frames, film.info["duration"], film.info["loop"]) == (FRAMES, 250, 0)


def test_a_metric_that_an_arm_lacks_gets_no_panel(tmp_path):
    arguments = experiment(tmp_path, metrics=("edge_loss", "psnr"))
    draw(*arguments)
    assert read_image(tmp_path / "metrics" / "per_frame.png").height < 1200  # two lines of panels instead of three


def test_a_number_that_is_missing_leaves_a_gap(tmp_path):
    arguments = experiment(tmp_path)
    table = tmp_path / "metrics" / "on.csv"
    table.write_text(table.read_text().replace("0.2,", ","))
    draw(*arguments)


def test_the_real_clip_is_not_needed(tmp_path):
    arguments = experiment(tmp_path)
    (tmp_path / "metrics" / "truth.csv").unlink()
    draw(*arguments)


@pytest.mark.parametrize("missing", ["edits/on", "metrics/on.csv", "clip/frames", "clip/edges/000001.png"])
def test_missing_data_end_in_one_sentence_that_names_the_place(tmp_path, missing):
    arguments = experiment(tmp_path)
    path = tmp_path / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=str(tmp_path / missing.split("/0")[0].removesuffix("/edges"))):
        draw(*arguments)


def test_an_arm_with_another_number_of_frames_is_refused(tmp_path):
    arguments = experiment(tmp_path)
    (tmp_path / "edits" / "on" / "rollout_seed2" / "000002.png").unlink()
    with pytest.raises(UserError, match="holds 2 frames, the clip has 3"):
        draw(*arguments)


def test_tables_without_any_known_metric_are_refused(tmp_path):
    with pytest.raises(UserError, match="none of the metrics"):
        draw(*experiment(tmp_path, metrics=("other",)))
