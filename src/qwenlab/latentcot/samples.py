"""Training data in the seed's format (seed 000), read and checked: JSONL, one sample a line.

    {"metadata": {"dataset_name": "scenes", "sample_id": "0"},
     "data": [{"role": "system", "content": [{"type": "text", "text": "..."}]},
              {"role": "user", "content": [{"type": "image", "image": "draft.png"}, {"type": "text", "text": "..."}]},
              {"role": "assistant", "content": [{"type": "text", "text": "<abs_vis_token></abs_vis_token>"},
                                                {"type": "image", "image": "target.png"},
                                                {"type": "text", "text": "<observation>...</observation>"}]}]}

Images are paths from the file's folder or `data:image/...;base64,` text. A sample that cannot be trained on is
rejected by name with its reason and counted; a file without a usable sample is an error.
"""

import base64
import binascii
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwenlab.core.errors import UserError
from qwenlab.core.io import safe_name
from qwenlab.latentcot.tokens import OBSERVATION_END, OBSERVATION_START, PLACEHOLDER

ROLES = ("system", "user", "assistant")
LARGEST_ASPECT = 200  # of the image processor


class Rejected(ValueError):
    """Why a sample cannot be used."""


@dataclass(frozen=True)
class Sample:
    """One sample. `system` and `user` as the chat template takes them; images in the order of their places."""

    dataset: str
    id: str
    system: str
    user: tuple[tuple[str, str], ...]  # (type, text or image)
    assistant: str  # with placeholders
    auxiliary: tuple[str, ...]  # images of the placeholders
    extra: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)  # other metadata

    @property
    def name(self) -> str:
        """Unique, and safe in a file name."""
        return f"{self.dataset}_{self.id}"

    @property
    def pictures(self) -> list[str]:
        """The user's images."""
        return [value for kind, value in self.user if kind == "image"]


def _parts(content: Any, role: str) -> list[tuple[str, str]]:
    """Content as (type, value) pairs."""
    if isinstance(content, str):
        return [("text", content)]
    if not isinstance(content, list):
        raise Rejected(f"the content of {role} is no text and no list of parts")
    found = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind) if kind in ("text", "image") else None
        if not isinstance(value, str):
            raise Rejected(f'a part of {role} is neither {{"type": "text", "text": ...}} nor an image')
        found.append((str(kind), value))
    return found


def _identity(metadata: Any) -> tuple[str, str]:
    if not isinstance(metadata, dict):
        raise Rejected("it has no metadata")
    names = []
    for key in ("dataset_name", "sample_id"):
        value = metadata.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value:
            raise Rejected(f"metadata.{key} is missing")
        try:
            names.append(safe_name(value, f"metadata.{key}"))
        except UserError as error:
            raise Rejected(error.message.rstrip(".")) from error
    return names[0], names[1]


def check_observation(text: str) -> None:
    """One or more closed observations with something in each.

    Raises:
        Rejected: on none, an unclosed, nested or empty one.
    """
    tags = re.findall(f"{re.escape(OBSERVATION_START)}|{re.escape(OBSERVATION_END)}", text)
    if not tags:
        raise Rejected("it has no <observation>")
    if tags != [OBSERVATION_START, OBSERVATION_END] * (len(tags) // 2):
        raise Rejected("an <observation> is not closed")
    inside = re.findall(f"{re.escape(OBSERVATION_START)}(.*?){re.escape(OBSERVATION_END)}", text, re.S)
    if not all(part.strip() for part in inside):
        raise Rejected("an <observation> is empty")


def parse(record: Any) -> Sample:
    """One JSON object as a sample.

    Raises:
        Rejected: naming what is wrong with it.
    """
    if not isinstance(record, dict):
        raise Rejected("it is no JSON object")
    dataset, identity = _identity(record.get("metadata"))
    turns = record.get("data")
    roles = [turn.get("role") if isinstance(turn, dict) else None for turn in turns] if isinstance(turns, list) else []
    if not isinstance(turns, list) or roles not in (list(ROLES), list(ROLES[1:])):
        raise Rejected(f"data has the roles {roles}; expected system, user, assistant")
    contents = {turn["role"]: _parts(turn.get("content"), turn["role"]) for turn in turns}
    system = "".join(value for kind, value in contents.get("system", []) if kind == "text")
    text, images, seen = "", [], 0
    for kind, value in contents["assistant"]:
        if kind == "text":
            text += value
            seen += value.count(PLACEHOLDER)
        else:
            images.append(value)
            if seen < len(images):
                raise Rejected("an assistant image has no <abs_vis_token></abs_vis_token> in the text before it")
    if seen != len(images):
        raise Rejected(f"{len(images)} assistant images, but {seen} placeholders")
    if not images:
        raise Rejected("the assistant shows no image, so there is nothing to think about")
    check_observation(text)
    extra = {key: value for key, value in record["metadata"].items() if key not in ("dataset_name", "sample_id")}
    return Sample(dataset, identity, system, tuple(contents["user"]), text, tuple(images), extra)


def read_samples(path: str | Path, limit: int | None = None) -> tuple[list[Sample], list[str]]:
    """All samples of a file, and a sentence for each that was rejected.

    Raises:
        UserError: when the file is missing, a line is no JSON, or nothing usable is left.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    samples: list[Sample] = []
    rejected: list[str] = []
    names: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error}).") from error
        try:
            sample = parse(record)
            if sample.name in names:
                raise Rejected(f"{sample.name} stands in line {names[sample.name]} already")
        except Rejected as error:
            metadata = record.get("metadata") if isinstance(record, dict) else None
            who = metadata.get("sample_id", "?") if isinstance(metadata, dict) else "?"
            rejected.append(f"{path}, line {number} (sample {who}): {error}.")
            continue
        names[sample.name] = number
        samples.append(sample)
        if limit and len(samples) == limit:
            break
    if not samples:
        first = f" The first: {rejected[0]}" if rejected else ""
        raise UserError(f"{path}: no usable sample ({len(rejected)} rejected).{first}")
    return samples, rejected


def open_image(reference: str, folder: Path, merge: int):
    """One picture of a sample as RGB.

    Args:
        folder: where relative paths begin.
        merge: pixels of one merged vision token; a side must have at least that many.

    Raises:
        Rejected: when it cannot be read, is too small or too narrow.
    """
    from PIL import Image

    from qwenlab.core.media import read_image, to_rgb

    if reference.startswith("data:"):
        try:
            data = base64.b64decode(reference.partition(",")[2], validate=True)
            with Image.open(io.BytesIO(data)) as opened:
                image = to_rgb(opened)
        except (OSError, ValueError, SyntaxError, binascii.Error) as error:
            raise Rejected(f"an image is no readable data URI ({error})") from error
    else:
        try:
            image = read_image(folder / reference)
        except UserError as error:
            raise Rejected(error.message.rstrip(".")) from error
    if min(image.size) < merge:
        raise Rejected(f"an image has {image.width}x{image.height} pixels; expected at least {merge} a side")
    if max(image.size) > LARGEST_ASPECT * min(image.size):
        raise Rejected(f"an image has {image.width}x{image.height} pixels; expected an aspect of 200 at most")
    return image
