"""SAM3 on a stream of frames: phrases in, tracked objects a frame out, memory independent of the length.

`Sam3VideoModel` (published checkpoint: detector and tracker) or `Sam3Model` (detector) with our association; the
folder's config says which. Each phrase is a prompt of its own: joined into one string ("cat, dog"), SAM3 looks for
one concept of that name and finds nothing. All prompts share the vision pass of a frame.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params
from qwenlab.thinkseg.association import Detection, Track, Tracker
from qwenlab.thinkseg.masks import install, mask_iou, nms, tidy

MAX_TOKENS = 32  # SAM3's text encoder; the processor pads to it and does not cut
MEMORY = 16  # frames whose memory the tracker may still read (it attends to the last 7, and 16 object pointers)


class Sam3Params(Params):
    """Where SAM3 is and how its output is used."""

    model: str = Field(description="folder or hub id of a Sam3Model or Sam3VideoModel")
    device: str
    dtype: Literal["float32", "bfloat16", "float16"]
    score: float = Field(gt=0, lt=1, description="least score of a detection that begins a track")
    keep_score: float = Field(gt=0, lt=1, description="least score of a detection that continues one")
    nms_iou: float = Field(gt=0, le=1, description="two detections of one phrase that overlap more are one")
    tidy_area: int = Field(ge=0, description="holes and specks up to so many pixels go")
    match_iou: float = Field(gt=0, lt=1, description="least overlap of a detection with a track")
    keep_alive: int = Field(ge=0, description="frames a track survives unseen")
    min_hits: int = Field(ge=1, description="sightings before a track counts; output waits for them")
    max_objects: int = Field(ge=1, description="most tracks of a phrase at a time")
    frames_at_once: int = Field(ge=1, description="frames in one vision pass; Sam3VideoModel takes one")


@dataclass(frozen=True, eq=False)
class Seen:
    """One object in one frame: mask bool `[H, W]`, box x0, y0, x1, y1 in pixels."""

    object_id: int
    phrase: str
    score: float
    box: tuple[int, int, int, int]
    mask: np.ndarray


def clean_phrases(phrases: Sequence[str], tokenizer=None) -> list[str]:
    """Phrases without blanks around them and without repetitions.

    Raises:
        UserError: without a phrase, on an empty one, or on one that the text encoder cannot take.
    """
    cleaned = list(dict.fromkeys(" ".join(phrase.split()) for phrase in phrases))
    if not cleaned:
        raise UserError("No phrase to segment; expected one or more, such as --phrase 'red circle'.")
    if "" in cleaned:
        raise UserError(f"Phrase {phrases[[*map(str.strip, phrases)].index('')]!r} is empty; expected words.")
    for phrase in cleaned if tokenizer is not None else []:
        count = len(tokenizer(phrase)["input_ids"])
        if count > MAX_TOKENS:
            raise UserError(f"Phrase {phrase!r} has {count} tokens; SAM3 takes {MAX_TOKENS}, with the two at its ends.")
    return cleaned


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box round the true pixels: x0, y0, x1, y1, the last two beyond them."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


class ImageSegmenter:
    """`Sam3Model`, tracked by association."""

    def __init__(self, params: Sam3Params, model, processor):
        self.params, self.model, self.processor = params, model, processor

    def detect(self, frames: Sequence[np.ndarray], phrases: Sequence[str]) -> list[list[list[Detection]]]:
        """Detections by frame and phrase, the best first; one vision pass, whatever the number of phrases.

        Args:
            frames: uint8 `[H, W, 3]`, of one size.
        """
        import torch

        device, dtype = self.model.device, self.model.dtype
        with torch.inference_mode():
            pictures = self.processor(images=list(frames), return_tensors="pt").to(device)
            words = self.processor(text=list(phrases), return_tensors="pt").to(device)
            vision = self.model.get_vision_features(pictures.pixel_values.to(dtype))
            text = self.model.get_text_features(**words)
            for name in ("fpn_hidden_states", "fpn_position_encoding"):
                vision[name] = tuple(level.repeat_interleave(len(phrases), 0) for level in vision[name])
            text.pooler_output = text.pooler_output.repeat(len(frames), 1, 1)
            mask = words.attention_mask.repeat(len(frames), 1)
            output = self.model(vision_embeds=vision, text_embeds=text, attention_mask=mask)
            results = self.processor.image_processor.post_process_instance_segmentation(
                output, self.params.keep_score, target_sizes=[frames[0].shape[:2]] * (len(frames) * len(phrases))
            )
        found = [self._kept(one["scores"].float().cpu().numpy(), one["masks"].bool().cpu().numpy()) for one in results]
        return [found[k * len(phrases) : (k + 1) * len(phrases)] for k in range(len(frames))]

    def _kept(self, scores: np.ndarray, masks: np.ndarray) -> list[Detection]:
        """What of one prompt's output remains: no doubles, no holes, no specks, nothing empty."""
        tidied = [tidy(mask, self.params.tidy_area) for mask in masks]
        some = [index for index, mask in enumerate(tidied) if mask.any()]
        if not some:
            return []
        chosen = np.stack([tidied[index] for index in some])
        keep = nms(mask_iou(chosen, chosen), scores[some], self.params.nms_iou)
        return [Detection(float(scores[some[index]]), chosen[index]) for index in keep]

    def stream(self, frames: Iterable[np.ndarray], phrases: Sequence[str]) -> Iterator[list[Seen]]:
        """The objects of each frame. Output comes a few frames late, so that a track that turns out to be a flicker
        is never shown."""
        params = self.params
        phrases = clean_phrases(phrases, self.processor.tokenizer)
        trackers = [Tracker(params.match_iou, params.keep_alive, params.max_objects, params.score) for _ in phrases]
        numbers: dict[tuple[int, int], int] = {}  # phrase and its track -> number of the object
        waiting: deque[list[tuple[int, Track, Detection]]] = deque()

        def oldest() -> list[Seen]:
            seen = []
            for k, track, found in waiting.popleft():
                if track.hits >= params.min_hits:
                    number = numbers.setdefault((k, track.object_id), len(numbers))
                    seen.append(Seen(number, phrases[k], found.score, box_of(found.mask), found.mask))
            return seen

        source = iter(frames)
        while chunk := list(islice(source, params.frames_at_once)):
            for by_phrase in self.detect(chunk, phrases):
                row = []
                for k, detections in enumerate(by_phrase):
                    tracks = trackers[k].step(detections)
                    row += [(k, track, own) for track, own in zip(tracks, detections, strict=True) if track]
                waiting.append(row)
                if len(waiting) > params.min_hits + params.keep_alive:
                    yield oldest()
        while waiting:
            yield oldest()


class VideoSegmenter:
    """`Sam3VideoModel`, streamed; what it does not need any more is forgotten."""

    def __init__(self, params: Sam3Params, model, processor):
        self.params, self.model, self.processor = params, model, processor
        model.score_threshold_detection, model.new_det_thresh = params.keep_score, params.score
        model.max_num_objects = params.max_objects
        # A scene with more than that says so every frame.
        logging.getLogger(type(model).__module__).setLevel(logging.ERROR)
        install()

    def session(self, phrases: Sequence[str]):
        """A streaming session with one prompt a phrase; frames are kept on the CPU until they are forgotten."""
        phrases = clean_phrases(phrases, self.processor.tokenizer)
        session = self.processor.init_video_session(
            inference_device=self.model.device, video_storage_device="cpu", dtype=self.model.dtype
        )
        return self.processor.add_text_prompt(session, phrases)

    def forget(self, session, frame: int) -> None:
        """Drop what grows with the video: pixels of frames that are done, and memories too old to be read.

        The key of a frame stays, because the library counts frames by them. Of an old conditioning frame (every 16th
        may become one) the small object pointer stays, because all of them are read. Outputs are bit for bit those of
        a session that keeps everything.
        """
        import torch

        session.processed_frames[frame] = torch.empty(0)
        old, closest = frame - MEMORY, self.model.tracker_model.config.max_cond_frame_num
        for outputs in session.output_dict_per_obj.values():
            for index in [index for index in outputs["non_cond_frame_outputs"] if index < old]:
                del outputs["non_cond_frame_outputs"][index]
            for index in sorted(outputs["cond_frame_outputs"])[:-closest]:
                own = outputs["cond_frame_outputs"][index]
                if index < old and len(own) > 1:
                    outputs["cond_frame_outputs"][index] = {"object_pointer": own["object_pointer"]}
        for by_frame in (*session.frames_tracked_per_obj.values(), *session.mask_inputs_per_obj.values()):
            for index in [index for index in by_frame if index < old]:
                del by_frame[index]
        session.suppressed_obj_ids.pop(old, None)
        session.obj_id_to_tracker_score_frame_wise.pop(old, None)

    def stream(self, frames: Iterable[np.ndarray], phrases: Sequence[str]) -> Iterator[list[Seen]]:
        """The objects of each frame, `hotstart_delay` frames late: tracks that SAM3 takes back are never shown."""
        session = self.session(phrases)
        waiting: deque = deque()
        for index, pixels in enumerate(frames):
            inputs = self.processor(images=pixels, return_tensors="pt")
            output = self.model(
                inference_session=session, frame=inputs.pixel_values[0].to(self.model.dtype), frame_idx=index
            )
            session.hotstart_removed_obj_ids.update(output.removed_obj_ids)
            waiting.append((output, inputs.original_sizes))
            self.forget(session, index)
            if len(waiting) > self.model.hotstart_delay:
                yield self._seen(session, *waiting.popleft())
        while waiting:
            yield self._seen(session, *waiting.popleft())

    def _seen(self, session, output, sizes) -> list[Seen]:
        found = self.processor.postprocess_outputs(session, output, original_sizes=sizes)
        phrase_of = {number: text for text, numbers in found["prompt_to_obj_ids"].items() for number in numbers}
        seen, names = [], ("object_ids", "scores")
        for number, score, mask in zip(*(found[name].tolist() for name in names), found["masks"], strict=True):
            pixels = tidy(mask.cpu().numpy(), self.params.tidy_area)
            if pixels.any():
                seen.append(Seen(number, phrase_of[number], score, box_of(pixels), pixels))
        return seen


def load_segmenter(params: Sam3Params) -> ImageSegmenter | VideoSegmenter:
    """Model and processor as the folder's config names them.

    Raises:
        UserError: when they cannot be read, are of another kind, or the device is not there.
    """
    import torch
    from transformers import AutoConfig, Sam3Model, Sam3Processor, Sam3VideoModel, Sam3VideoProcessor
    from transformers.utils import logging as library_logging

    if params.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"thinkseg.sam3.device is {params.device!r}, but PyTorch finds no GPU; use tiny, or cpu.")
    library_logging.disable_progress_bar()
    dtype = getattr(torch, params.dtype)
    try:
        kind = AutoConfig.from_pretrained(params.model).model_type
        if kind not in ("sam3", "sam3_video"):
            raise UserError(f"{params.model}: is a {kind}; expected sam3 or sam3_video.")
        video = kind == "sam3_video"
        model = (Sam3VideoModel if video else Sam3Model).from_pretrained(params.model, dtype=dtype)
        processor = (Sam3VideoProcessor if video else Sam3Processor).from_pretrained(params.model)
    except (OSError, ValueError) as error:
        raise UserError(f"{params.model}: SAM3 cannot be loaded ({str(error).splitlines()[0]}).") from error
    model = model.eval().to(params.device)
    return VideoSegmenter(params, model, processor) if video else ImageSegmenter(params, model, processor)
