"""Clips: functions of source, seed and index; masks and words agree with the pictures; files keep everything."""

from pathlib import Path

import numpy as np
import pytest

from qwenlab.core.errors import UserError
from qwenlab.thinkseg.clips import RATE, Clip, make_clip, read_truth, tone_sound, write_clip
from qwenlab.thinkseg.drawing import Shape, draw, inside
from qwenlab.thinkseg.vocabulary import MOTIONS, PHRASES, SHAPES, SOURCES, TONES


def clips(source: str, count: int = 12) -> list[Clip]:
    return [make_clip(source, 7, index) for index in range(count)]


@pytest.mark.parametrize("source", SOURCES)
def test_a_clip_is_a_function_of_its_source_seed_and_index(source: str):
    one, again, other = make_clip(source, 1, 3), make_clip(source, 1, 3), make_clip(source, 1, 4)
    assert np.array_equal(one.frames, again.frames) and np.array_equal(one.sound, again.sound)
    assert one.things == again.things and one.clip_id == f"{source}-00003"
    assert not np.array_equal(one.frames, other.frames)


@pytest.mark.parametrize("source", SOURCES)
def test_every_thing_is_visible_in_the_first_frame_and_stays_on_the_picture(source: str):
    for clip in clips(source):
        assert clip.masks.shape == (24, len(clip.things), 64, 64) and 1 <= len(clip.things) <= 4
        assert clip.masks[0].any((1, 2)).all()
        assert not (clip.masks.sum(1) > 1).any()  # a pixel shows one thing


def test_what_a_clip_says_about_motion_is_what_its_masks_do():
    signs = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0), "still": (0, 0)}
    for clip in [*clips("drift"), *clips("crowd")]:
        for k, thing in enumerate(clip.things):
            first, last = (np.argwhere(clip.masks[t, k]).mean(0) for t in (0, -1))
            moved = last - first
            expected = np.array(signs[thing.motion])
            assert (np.sign(np.where(np.abs(moved) < 4, 0, moved)) == expected).all(), (clip.clip_id, thing, moved)


def test_in_a_crossing_one_of_the_first_two_hides_part_of_the_other():
    hidden = []
    for clip in clips("crossing"):
        areas = clip.masks.sum((2, 3)).astype(float)
        hidden.append((areas.min(0) / areas.max(0)).min())
    assert np.median(hidden) < 0.7


def test_looks_differ_within_a_clip_except_in_some_crossings():
    for source in ("drift", "crowd"):
        for clip in clips(source):
            assert len({thing.phrase for thing in clip.things}) == len(clip.things)
    twins = [len({t.phrase for t in clip.things}) < len(clip.things) for clip in clips("crossing", 120)]
    assert 0.02 < np.mean(twins) < 0.25


def test_tones_have_the_pitch_they_are_named_after():
    def pitch(part: np.ndarray) -> float:
        return np.argmax(np.abs(np.fft.rfft(part))) * RATE / len(part)

    for tone in TONES:
        sound = tone_sound(tone, np.random.default_rng(0))
        start, end = pitch(sound[1000:9000]), pitch(sound[-9000:-1000])
        assert {"low": start < 400 and end < 400, "high": start > 1000 and end > 1000}.get(
            tone, (start < end) == (tone == "rising")
        )


def test_a_mask_is_where_the_picture_has_the_colour_of_the_shape():
    for category in SHAPES:
        shape = Shape(category, 30.0, 33.0, 10.0, 0.2, (250.0, 0.0, 0.0))
        picture, masks = draw(np.zeros((64, 64, 3)), [shape])
        assert np.array_equal(masks[0], picture[..., 0] > 125)
        assert 0.7 * np.pi * 100 < masks[0].sum() < 1.1 * np.pi * 100
        assert (inside(shape) > 0).sum() == masks[0].sum()


def test_the_vocabulary_has_eighteen_phrases_and_five_motions():
    assert len(set(PHRASES)) == 18 and len(MOTIONS) == 5


def test_written_clips_read_back_with_the_truth_and_with_sound(tmp_path: Path):
    from qwenlab.thinkseg.video import read_frames, video_info

    clip = make_clip("crossing", 0, 5)
    path = write_clip(clip, tmp_path)
    truth = read_truth(tmp_path, clip.clip_id)
    assert truth.things == clip.things and truth.tone == clip.tone and np.array_equal(truth.masks, clip.masks)
    frames = np.stack(list(read_frames(path)))
    assert frames.shape == clip.frames.shape
    assert np.abs(frames.astype(int) - clip.frames).mean() < 8
    assert video_info(path).has_sound


def test_an_unknown_source_and_an_id_with_path_characters_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"zoom.*expected one of drift"):
        make_clip("zoom", 0, 0)
    with pytest.raises(UserError, match=r"clip id '\.\./evil'"):
        read_truth(tmp_path, "../evil")


def test_a_file_that_describes_no_clip_is_named(tmp_path: Path):
    (tmp_path / "x.json").write_text('{"things": [{"shape": "circle"}]}')
    with pytest.raises(UserError, match=r"x\.json: does not describe a clip"):
        read_truth(tmp_path, "x")
