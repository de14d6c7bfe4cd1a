"""A whole run on disk: both input modes, resuming, and everything that can be wrong with the input."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qwenlab.core.errors import UserError
from qwenlab.core.io import read_csv
from qwenlab.core.media import read_image, write_video
from qwenlab.videoedit import edit as module
from qwenlab.videoedit.config import LossGuidanceConfig, LossSizes
from qwenlab.videoedit.edit import Job, run
from qwenlab.videoedit.source import Source
from tests.pictures import picture

ON = LossGuidanceConfig(edge_scale=1.0, lr=0.1)


@pytest.fixture
def job(clip: Path, runtime, drawing) -> Job:
    source = Source(init_frame=clip / "init.png", edge_frames_dir=clip / "edges")
    return Job(source, drawing, ON, LossSizes(), runtime, 0, clip / "out")


def pixels(folder: Path) -> list[bytes]:
    return [read_image(path).tobytes() for path in sorted(folder.glob("*.png"))]


def test_a_run_writes_every_frame_and_copies_the_first(job, pipe):
    report = run(job, lambda _: pipe)
    frames = sorted(job.frames_dir.glob("*.png"))
    assert [f.name for f in frames] == [f"{k:06d}.png" for k in range(4)]
    assert read_image(frames[0]).tobytes() == read_image(job.source.init_frame).tobytes()
    assert (report.frames, report.guided_steps, report.skipped_nonfinite) == (4, 6, 0)


def test_a_killed_run_resumes_to_the_identical_result(job, pipe, tmp_path):
    job = replace(job, metrics_out=tmp_path / "m.csv")
    run(job, lambda _: pipe)
    whole, rows = pixels(job.frames_dir), job.metrics_out.read_text()

    class Killed(Exception):
        pass

    def kill(done, total):
        if done == 3:
            raise Killed

    again = replace(job, frames_dir=tmp_path / "again", metrics_out=tmp_path / "again.csv")
    with pytest.raises(Killed):
        run(again, lambda _: pipe, on_frame=kill)
    report = run(replace(again, resume=True), lambda _: pipe)
    assert report.resumed_at == 3
    assert pixels(again.frames_dir) == whole
    assert again.metrics_out.read_text() == rows


def test_frames_of_another_run_are_neither_overwritten_nor_continued(job, pipe):
    run(job, lambda _: pipe)
    before = pixels(job.frames_dir)
    with pytest.raises(UserError, match="already holds 4 frames"):
        run(job, lambda _: pipe)
    with pytest.raises(UserError, match="other inputs or settings"):
        run(replace(job, seed=1, resume=True), lambda _: pipe)
    assert pixels(job.frames_dir) == before


def test_a_run_is_not_continued_after_an_edge_picture_changed(job, pipe, clip):
    run(job, lambda _: pipe)
    picture(7).save(clip / "edges" / "edge_2.png")
    with pytest.raises(UserError, match="other inputs or settings"):
        run(replace(job, resume=True), no_pipeline)


def test_metrics_and_debug_pictures_are_written_for_every_frame(job, pipe, tmp_path):
    job = replace(job, metrics_out=tmp_path / "deep" / "m.csv", debug_dir=tmp_path / "debug")
    run(job, lambda _: pipe)
    rows = read_csv(job.metrics_out)
    assert [row["frame"] for row in rows] == ["1", "2", "3"]
    for name in ("edge_loss", "gram_loss", "lpips_to_prev", "lpips_to_init"):
        assert all(np.isfinite(float(row[name])) for row in rows)
    assert len(list(job.debug_dir.glob("*_edges.png"))) == len(list(job.debug_dir.glob("*_estimates.png"))) == 3


def test_only_two_frames_are_in_memory_because_edges_are_read_one_at_a_time(job, pipe, monkeypatch):
    read = []
    monkeypatch.setattr("qwenlab.videoedit.source.read_image", lambda p: read.append(p.name) or read_image(p))
    seen = []
    run(job, lambda _: pipe, on_frame=lambda done, total: seen.append(len([n for n in read if "edge" in n]) - 3))
    assert seen == [0, 1, 2, 3]  # three reads check the sizes first


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    write_video(tmp_path / "rgb.mp4", [picture(k) for k in range(4)], crf=0)
    write_video(tmp_path / "edge.mp4", [picture(k) for k in range(3)], crf=0)
    write_video(tmp_path / "long.mp4", [picture(k) for k in range(5)], crf=0)
    return tmp_path


@pytest.mark.parametrize("edge_video", [None, "edge.mp4"])
def test_videos_are_edited_with_given_or_derived_edges(job, pipe, videos, edge_video):
    source = Source(rgb_video=videos / "rgb.mp4", edge_video=edge_video and videos / edge_video, max_frames=3)
    job = replace(job, source=source, frames_dir=videos / "v", out_video=videos / "out.mp4", guidance=ON)
    run(job, lambda _: pipe)
    assert len(pixels(job.frames_dir)) == 3
    assert job.out_video.stat().st_size > 0


def test_a_size_the_model_does_not_know_comes_back_at_its_own_size(job, pipe, tmp_path):
    picture(0, 50, 41).save(tmp_path / "odd.png")
    job = replace(job, source=replace(job.source, init_frame=tmp_path / "odd.png", max_frames=2))
    run(job, lambda _: pipe)
    assert {read_image(p).size for p in job.frames_dir.glob("*.png")} == {(50, 41)}


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_grey_transparent_and_deep_pictures_are_taken(job, pipe, tmp_path, mode):
    image = picture(0)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    image.save(tmp_path / "first.png")
    for path in (tmp_path / "edges").glob("*.png"):
        read_image(path).convert("L").save(path)
    job = replace(job, source=replace(job.source, init_frame=tmp_path / "first.png", max_frames=2))
    run(job, lambda _: pipe)
    assert len(pixels(job.frames_dir)) == 2


def no_pipeline(_):
    pytest.fail("the model was loaded before the input was checked")


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


BAD = {
    "empty edges": (lambda c: empty(c / "edges"), {}, "holds no image"),
    "too few edges": (lambda c: None, {"max_frames": 9}, "holds 3 edge frames, but --max_frames 9 needs 8"),
    "one frame": (lambda c: None, {"max_frames": 1}, "at least 2"),
    "mixed sizes": (lambda c: picture(1, 32, 32).save(c / "edges/edge_2.png"), {}, "edge_2.png: is 32x32"),
    "unreadable edge": (lambda c: (c / "edges/edge_2.png").write_text("x"), {}, "edge_2.png: cannot be read"),
    "unreadable first": (lambda c: (c / "init.png").write_text("x"), {}, "init.png: cannot be read"),
    "no first": (lambda c: (c / "init.png").unlink(), {}, "init.png: no such image"),
    "no folder": (lambda c: None, {"edge_frames_dir": Path("nowhere")}, "nowhere: no such folder"),
    "both modes": (lambda c: None, {"rgb_video": Path("x.mp4")}, "not both"),
    "neither mode": (lambda c: None, {"init_frame": None, "edge_frames_dir": None}, "give either"),
    "half a mode": (lambda c: None, {"edge_frames_dir": None}, "belong together"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_before_any_model_is_loaded(job, clip, name):
    break_it, changes, message = BAD[name]
    break_it(clip)
    with pytest.raises(UserError, match=message):
        run(replace(job, source=replace(job.source, **changes)), no_pipeline)


def test_edges_longer_than_the_video_are_refused(job, videos):
    source = Source(rgb_video=videos / "rgb.mp4", edge_video=videos / "long.mp4")
    with pytest.raises(UserError, match="has 5 frames, more than the 3"):
        run(replace(job, source=source), no_pipeline)


def test_a_video_that_is_none_is_named(job, tmp_path):
    (tmp_path / "x.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"x\.mp4: cannot be read as a video"):
        run(replace(job, source=Source(rgb_video=tmp_path / "x.mp4")), no_pipeline)


def test_a_first_frame_below_one_latent_cell_is_refused(job, pipe, tmp_path):
    picture(0, 7, 5).save(tmp_path / "init.png")
    with pytest.raises(UserError, match="7x5 pixels; at least 8x8"):
        run(job, lambda _: pipe)


def test_an_output_folder_that_cannot_be_written_is_named(job, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run(replace(job, frames_dir=tmp_path / "file" / "out"), no_pipeline)


def test_a_full_disk_leaves_whole_frames_only_and_the_run_can_go_on(job, pipe, monkeypatch):
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 4:  # run.json, frames 0 and 1, then frame 2
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        run(job, lambda _: pipe)
    assert sorted(p.name for p in job.frames_dir.iterdir()) == ["000000.png", "000001.png", "run.json"]
    monkeypatch.setattr(os, "fsync", real)
    assert run(replace(job, resume=True), lambda _: pipe).resumed_at == 2


def test_without_lpips_the_run_goes_on_and_says_so(job, pipe, tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "lpips", None)
    job = replace(job, metrics_out=tmp_path / "m.csv", source=replace(job.source, max_frames=2))
    run(job, lambda _: pipe)
    assert "lpips_to_prev" not in read_csv(job.metrics_out)[0]
    assert "left out" in capsys.readouterr().err


def test_the_edge_target_can_be_the_edges_of_the_edge_picture(job):
    edge = read_image(next(job.source.edge_frames_dir.iterdir()))
    picture_target = module.edge_target_of(edge, job)
    assert not np.allclose(picture_target, module.edge_target_of(edge, replace(job, edge_target="sobel")))
