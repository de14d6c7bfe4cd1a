"""From a video and phrases to files: tracks as RLE, statistics, one mask video with the original sound."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from qwenlab.cli import main
from qwenlab.core.errors import UserError
from qwenlab.core.params import load
from qwenlab.thinkseg import rle
from qwenlab.thinkseg.clips import FRAMES, Clip, make_clip, write_clip
from qwenlab.thinkseg.overlay import color_of, overlay, paint
from qwenlab.thinkseg.sam3 import Sam3Params, clean_phrases
from qwenlab.thinkseg.segment import Segmentation, Segmenter, write_outputs
from qwenlab.thinkseg.segment_cli import folder_names
from qwenlab.thinkseg.video import video_info, write_video
from qwenlab.thinkseg.vos_metrics import score_clip


@pytest.fixture(scope="module")
def segmenter(root: Path) -> Segmenter:
    params = load("thinkseg.sam3", Sam3Params, root)
    return Segmenter.load(params.model_copy(update={"model": str(root / "data/standins/sam3"), "device": "cpu"}))


@pytest.fixture(scope="module")
def clip() -> Clip:
    return make_clip("drift", 11, 2)  # two or more things over a texture


@pytest.fixture(scope="module")
def video(clip: Clip, tmp_path_factory) -> Path:
    return write_clip(clip, tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def result(segmenter: Segmenter, video: Path, clip: Clip) -> Segmentation:
    return segmenter.segment(video, [thing.phrase for thing in clip.things])


def test_things_are_found_and_tracked(result: Segmentation, clip: Clip):
    tracks = {o.object_id: (o.phrase, o.dense(FRAMES, (64, 64))) for o in result.objects}
    scores, _ = score_clip(tracks, [(thing.phrase, clip.masks[:, k]) for k, thing in enumerate(clip.things)])
    assert np.mean([score.jf for score in scores]) > 0.5
    assert result.frames == FRAMES


def test_each_phrase_alone_gives_what_it_gives_among_others(segmenter: Segmenter, result: Segmentation, video: Path):
    phrase = result.phrases[-1]
    alone = segmenter.segment(video, [phrase])
    together = [o for o in result.objects if o.phrase == phrase]
    assert [o.frames for o in alone.objects] == [o.frames for o in together]
    for one, other in zip(alone.objects, together, strict=True):
        same = [a == b for a, b in zip(one.masks, other.masks, strict=True)]
        assert np.mean(same) > 0.95  # a pixel at the threshold may fall to either side in a larger batch


def test_one_vision_pass_serves_all_phrases(segmenter: Segmenter, video: Path, monkeypatch):
    backend, passes = segmenter.backend, []
    original = backend.model.get_vision_features
    monkeypatch.setattr(backend.model, "get_vision_features", lambda p: passes.append(len(p)) or original(p))
    segmenter.segment(video, ["red circle", "blue square", "green triangle", "cyan circle"])
    assert sum(passes) == FRAMES


def test_the_number_of_frames_in_a_pass_changes_no_track(segmenter: Segmenter, result: Segmentation, video: Path):
    params = segmenter.backend.params.model_copy(update={"frames_at_once": 5})
    other = Segmenter(type(segmenter.backend)(params, segmenter.backend.model, segmenter.backend.processor))
    again = other.segment(video, result.phrases)
    assert [(o.object_id, o.frames) for o in again.objects] == [(o.object_id, o.frames) for o in result.objects]


def test_output_files_hold_tracks_statistics_and_a_film_with_the_sound(result: Segmentation, tmp_path: Path):
    statistics = write_outputs(result, tmp_path / "out", overlay_frames=True)
    stored = json.loads((tmp_path / "out/segmentation.json").read_text())
    assert stored["statistics"] == statistics and statistics["frames"] == FRAMES
    assert statistics["objects"] == len(stored["objects"]) == len(result.objects)
    first = stored["objects"][0]
    mask = rle.decode(first["masks"][0])
    x0, y0, x1, y1 = first["boxes"][0]
    assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
    film = video_info(tmp_path / "out/mask_video.mp4")
    assert film.frames == FRAMES and film.has_sound and film.width >= 320
    assert len(list((tmp_path / "out/frames").iterdir())) == FRAMES
    assert len({tuple(o["color"]) for o in stored["objects"]}) == len(stored["objects"])


def test_absent_phrases_and_a_video_of_one_frame_give_an_empty_result(segmenter: Segmenter, clip: Clip, tmp_path: Path):
    write_video(tmp_path / "one.mp4", clip.frames[:1], 8)
    found = segmenter.segment(tmp_path / "one.mp4", [clip.things[0].phrase])
    assert found.frames == 1 and found.objects == []  # a track needs four sightings
    statistics = write_outputs(found, tmp_path / "out")
    assert statistics["objects"] == 0 and statistics["mean_area"] == 0
    assert video_info(tmp_path / "out/mask_video.mp4").frames == 1


def test_odd_sizes_keep_their_masks_and_pad_their_film(segmenter: Segmenter, tmp_path: Path):
    frames = [np.full((45, 61, 3), 120, np.uint8)] * 4
    seen = list(segmenter.backend.stream(frames, ["red circle"]))
    assert len(seen) == 4
    write_video(tmp_path / "odd.mkv.mp4", frames, 8)
    found = segmenter.segment(tmp_path / "odd.mkv.mp4", ["red circle"])
    write_outputs(found, tmp_path / "out")
    assert video_info(tmp_path / "out/mask_video.mp4").width % 2 == 0


def test_a_long_video_is_streamed(segmenter: Segmenter, clip: Clip):
    taken = []

    def endless():
        for index in range(10_000):
            taken.append(index)
            yield clip.frames[index % FRAMES]

    stream = segmenter.backend.stream(endless(), [clip.things[0].phrase])
    for _ in range(20):
        next(stream)
    assert len(taken) < 50


@pytest.mark.parametrize(
    ("phrases", "words"),
    [([], "No phrase"), (["  "], "is empty"), (["red " * 40], r"42 tokens; SAM3 takes 32")],
)
def test_bad_phrases_are_refused(segmenter: Segmenter, video: Path, phrases: list[str], words: str):
    with pytest.raises(UserError, match=words):
        segmenter.segment(video, phrases)


def test_repeated_phrases_count_once():
    assert clean_phrases(["red  circle", "red circle ", "Red circle"]) == ["red circle", "Red circle"]


def test_colours_of_twelve_objects_are_distinct():
    colors = np.array([color_of(index) for index in range(12)], float)
    gaps = np.abs(colors[:, None] - colors[None]).sum(-1) + 999 * np.eye(12)
    assert gaps.min() > 60


def test_masks_are_painted_and_the_legend_stands_below():
    pixels, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool)
    mask[10:30, 10:30] = True
    painted = paint(pixels, [((200, 100, 0), mask)])
    assert painted[20, 20].tolist() == [100, 50, 0] and painted[10, 10].tolist() == [200, 100, 0]
    assert not painted[40, 40].any()
    large = overlay(pixels, [((200, 100, 0), mask)], [("red circle 0", (200, 100, 0))])
    assert large.shape[1] == 320 and large.shape[0] > 320 and (large[320:] == (200, 100, 0)).all(-1).any()


def test_the_command_segments_several_videos_and_reports_a_bad_one(video: Path, tmp_path: Path, root, monkeypatch):
    monkeypatch.chdir(root)
    (tmp_path / "bad.mp4").write_text("no video")
    arguments = ["segment", str(video), str(tmp_path / "bad.mp4"), "--phrase", "red circle", "--phrase", "blue square"]
    done = CliRunner().invoke(main, [*arguments, "--max-frames", "5", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "bad.mp4: cannot be read as a video" in done.stderr
    answer = json.loads(done.stdout)
    assert answer[str(video)]["frames"] == 5 and list(answer) == [str(video)]
    assert (tmp_path / "out" / video.stem / "mask_video.mp4").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--phrase", " "], "is empty"),
        (["--phrase", "red circle", "--model", "nowhere/at/all"], "SAM3 cannot be loaded"),
    ],
)
def test_the_command_ends_with_one_sentence_on_bad_input(arguments, words, video: Path, tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    done = CliRunner().invoke(main, ["segment", str(video), *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_names_with_path_characters_become_safe_folders():
    names = folder_names((Path("a/clip 1.mp4"), Path("b/clip 1.mkv"), Path("..%2F..mp4"), Path("影片.mp4")))
    assert len(set(names)) == 4
    assert all("/" not in name and not name.startswith(".") for name in names)
