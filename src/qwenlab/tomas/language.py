"""Tasks in words: frames, requests, sizes and deadlines, each split so that test phrasings are never trained on.

Durations in a task are rewritten to milliseconds with two significant digits before anything reads them ("5.84 s" ->
"5800 ms"), so that "within 5 seconds", "5000 ms" and "5 s" are one and the same to a planner.
"""

import re

import numpy as np

from qwenlab.tomas.numbers import number_word, round_significant
from qwenlab.tomas.registry import Registry

FRAMES = {
    "train": [
        "{request}, {size}, {deadline}.", "Please {request}. The input is {size}. {deadline}.",
        "I need you to {request} {deadline}. It is {size}.", "{deadline}: {request}. Input: {size}.",
        "Could you {request}? {size}. {deadline}.", "The file is {size}, {deadline}. {request}.",
        "For our customer: {request}, input {size}, {deadline}.", "Task: {request}. Size: {size}. Limit: {deadline}.",
    ],
    "validation": [
        "Your next job, {deadline}: {request}. Size of the input: {size}.", "We want to {request}. {size}, {deadline}.",
    ],
    "test": [
        "Hello, can you {request} {deadline}? The input is {size}.", "{request} for me. Size {size}, limit {deadline}.",
        "New job. Input of size {size}. {request}, {deadline}.",
    ],
}  # fmt: skip
SIZES = {
    "small": ["small", "tiny", "little", "short"],
    "medium": ["medium", "average", "normal", "of medium size"],
    "large": ["large", "huge", "big", "very large"],
}
DEADLINES = {
    "train": ["within {ms} ms", "in at most {ms} ms", "deadline {ms} ms", "done in {ms} ms", "not later than {ms} ms"],
    "validation": ["under {ms} ms"],
    "test": ["in {ms} ms at most", "by a deadline of {ms} ms"],
}
NO_DEADLINES = {"train": ["no deadline", "no hurry"], "validation": ["without hurry"], "test": ["without a deadline"]}

# "5,000" is five thousand; "1,5", which is one and a half to some and two numbers to others, is left alone.
_NUMBER = r"(?<![\w.])(?<!\d,)((?:\d{1,3}(?:,\d{3}){1,3}|\d{1,12})(?:\.\d{1,6})?)"
_UNIT = r"(milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|min)(?![\w])"
_DURATION = re.compile(rf"{_NUMBER}\s*{_UNIT}", re.IGNORECASE)


def _milliseconds(number: str, unit: str) -> float:
    value, unit = float(number.replace(",", "")), unit.lower()
    return value * (1 if unit.startswith(("ms", "milli")) else 60_000 if unit.startswith("m") else 1000)


def normalise_durations(text: str) -> str:
    """Every duration in ms with two significant digits; what is no thousandth of one is 0."""

    def rewrite(found: re.Match) -> str:
        value = _milliseconds(found[1], found[2])
        return f"{number_word(round_significant(value, 2) if value >= 0.001 else 0)} ms"

    return _DURATION.sub(rewrite, text)


def duration_in(text: str) -> float | None:
    """The one duration (ms) that a task names; None when it names none or several."""
    found = {_milliseconds(number, unit) for number, unit in _DURATION.findall(text)}
    return found.pop() if len(found) == 1 else None


def size_words(size: str, split: str) -> list[str]:
    """How people say an input size: by its name alone, when we know no other words for it."""
    words = SIZES.get(size, [size])
    return words if split == "train" else words[:3]


def write_task(
    registry: Registry, tool_id: int, size: int, deadline_ms: float | None, split: str, rng: np.random.Generator
) -> str:
    """A task in words, phrased as its split allows."""

    def pick(choices: list[str]) -> str:
        return choices[rng.integers(len(choices))]

    deadline = pick(NO_DEADLINES[split]) if deadline_ms is None else pick(DEADLINES[split])
    text = pick(FRAMES[split]).format(
        request=pick(registry.tools[tool_id].asked(split)),
        size=pick(size_words(registry.input_sizes[size], split)),
        deadline=deadline.format(ms="" if deadline_ms is None else number_word(deadline_ms)),
    )
    return text[0].upper() + text[1:]
