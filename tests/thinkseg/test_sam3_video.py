"""The real video path, `Sam3VideoModel` with random weights: streaming, prompts apart, constant memory, our kernels."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks._sam3_video import build
from qwenlab.core.errors import UserError
from qwenlab.thinkseg.clips import make_clip
from qwenlab.thinkseg.sam3 import MEMORY, Sam3Params, VideoSegmenter, load_segmenter

PHRASES = ["red circle", "blue square"]


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> VideoSegmenter:
    folder = build(tmp_path_factory.mktemp("sam3_video"))
    # Random scores are low, and a mask of noise has nothing but specks.
    params = Sam3Params(
        model=str(folder), device="cpu", dtype="float32", score=0.05, keep_score=0.05, nms_iou=0.5, tidy_area=0,
        match_iou=0.1,
        keep_alive=6, min_hits=3, max_objects=3, frames_at_once=1,
    )  # fmt: skip
    return load_segmenter(params)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return list(make_clip("crossing", 0, 0).frames)


@pytest.fixture(scope="module")
def streamed(segmenter: VideoSegmenter, frames):
    return list(segmenter.stream(frames, PHRASES))


def test_a_folder_of_a_video_model_gets_the_video_segmenter(segmenter: VideoSegmenter):
    assert isinstance(segmenter, VideoSegmenter) and segmenter.model.max_num_objects == 3


def test_every_frame_comes_out_once_and_objects_have_masks_of_the_frames_size(streamed, frames):
    assert len(streamed) == len(frames)
    seen = [one for frame in streamed for one in frame]
    assert seen and all(one.mask.shape == (64, 64) and one.mask.any() and one.phrase in PHRASES for one in seen)
    assert len({one.object_id for one in seen}) <= 3


def test_outputs_are_those_of_a_session_that_forgets_nothing(segmenter: VideoSegmenter, frames, streamed):
    session, outputs = segmenter.session(PHRASES), []
    for index, pixels in enumerate(frames):
        inputs = segmenter.processor(images=pixels, return_tensors="pt")
        output = segmenter.model(inference_session=session, frame=inputs.pixel_values[0], frame_idx=index)
        session.hotstart_removed_obj_ids.update(output.removed_obj_ids)
        outputs.append((output, inputs.original_sizes))
    for stock, ours in zip((segmenter._seen(session, *one) for one in outputs), streamed, strict=True):
        assert [one.object_id for one in stock] == [one.object_id for one in ours]
        assert all(np.array_equal(a.mask, b.mask) and a.box == b.box for a, b in zip(stock, ours, strict=True))


def test_a_session_keeps_no_pixels_and_no_old_memories(segmenter: VideoSegmenter, frames):
    session = segmenter.session(PHRASES)
    for index, pixels in enumerate(frames):
        inputs = segmenter.processor(images=pixels, return_tensors="pt")
        segmenter.model(inference_session=session, frame=inputs.pixel_values[0], frame_idx=index)
        segmenter.forget(session, index)
        assert session.num_frames == index + 1  # the library counts frames by their keys
    assert sum(frame.numel() for frame in session.processed_frames.values()) == 0
    assert session.output_dict_per_obj
    for outputs in session.output_dict_per_obj.values():
        assert len(outputs["non_cond_frame_outputs"]) <= MEMORY + 1


def test_each_phrase_is_a_prompt_of_its_own(segmenter: VideoSegmenter):
    session = segmenter.session([" red  circle", "blue square", "red circle"])
    assert session.prompts == {0: "red circle", 1: "blue square"}


def test_one_vision_pass_a_frame_serves_all_phrases(segmenter: VideoSegmenter, frames, monkeypatch):
    calls, detector = [], segmenter.model.detector_model
    original = detector.get_vision_features
    monkeypatch.setattr(detector, "get_vision_features", lambda **kwargs: calls.append(1) or original(**kwargs))
    list(segmenter.stream(frames[:3], [*PHRASES, "green triangle"]))
    assert len(calls) == 3


def test_frames_of_odd_size_keep_their_size(segmenter: VideoSegmenter):
    out = list(segmenter.stream([np.full((37, 51, 3), 90, np.uint8)] * 2, PHRASES))
    assert len(out) == 2 and all(one.mask.shape == (37, 51) for frame in out for one in frame)


def test_the_detector_of_a_video_checkpoint_loads_into_the_image_model(segmenter: VideoSegmenter):
    from transformers import Sam3Model

    loaded, info = Sam3Model.from_pretrained(segmenter.params.model, output_loading_info=True)
    assert not info["missing_keys"]
    own = segmenter.model.detector_model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("phrases", "words"),
    [
        ([], "No phrase"),
        (["red circle", "  "], "is empty"),
        (["a very long phrase " * 12], r"tokens; SAM3 takes 32"),
    ],
)
def test_bad_phrases_are_refused_before_a_frame_is_read(segmenter: VideoSegmenter, phrases, words):
    def never():
        raise AssertionError("a frame was read")
        yield

    with pytest.raises(UserError, match=words):
        list(segmenter.stream(never(), phrases))


def test_a_missing_checkpoint_and_a_missing_gpu_are_one_sentence(segmenter: VideoSegmenter, tmp_path: Path):
    with pytest.raises(UserError, match="SAM3 cannot be loaded"):
        load_segmenter(segmenter.params.model_copy(update={"model": str(tmp_path)}))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no GPU"):
            load_segmenter(segmenter.params.model_copy(update={"device": "cuda"}))
