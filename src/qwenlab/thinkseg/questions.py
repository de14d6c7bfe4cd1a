"""Questions about procedural clips, with options and the right one, and what a thinking should bring up for each.

A question names its object by colour and shape ("the red circle"), and asks only about a phrase that one thing has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qwenlab.thinkseg.vocabulary import MOTIONS, POSITIONS, SIZES

# What a tone feels like: the clips' counterpart of the emotions in the seed's videos.
EMOTIONS = {"low": "calm", "high": "tense", "rising": "happy", "falling": "sad"}
MOVES = {motion: f"moves {motion}" for motion in MOTIONS if motion != "still"} | {"still": "stays still"}
MOVING = {motion: f"moving {motion}" for motion in MOTIONS if motion != "still"} | {"still": "staying still"}
PLACES = {position: f"on the {position}" for position in POSITIONS} | {
    "top": "at the top", "bottom": "at the bottom", "center": "in the center",
}  # fmt: skip
KINDS = ("motion", "mood", "place", "size")
ASKED = {
    "motion": ("Which way does the {phrase} move?", "Where does the {phrase} go?", "How does the {phrase} move?"),
    "mood": ("How does the clip with the {phrase} feel?", "What mood has the sound behind the {phrase}?"),
    "place": ("Where is the {phrase} at first?", "Where does the {phrase} start?"),
    "size": ("How large is the {phrase}?", "What size is the {phrase}?"),
}
LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Question:
    """One question with its options ("A. left", ...)."""

    kind: str  # of KINDS
    phrase: str  # of the thing that it is about
    text: str
    options: tuple[str, ...]
    answer: str  # letter

    @property
    def answer_text(self) -> str:
        """The right option without its letter."""
        return self.options[LETTERS.index(self.answer)][3:]


def right_answer(kind: str, thing, tone: str) -> str:
    """What is true of a thing (anything with size, motion, position) and its clip."""
    return {"motion": thing.motion, "mood": EMOTIONS[tone], "place": thing.position, "size": thing.size}[kind]


def evidence(kind: str, thing, tone: str) -> str:
    """The fact that answers the question, as thinkings and key points say it."""
    if kind == "mood":
        return f"the {tone} tone feels {EMOTIONS[tone]}"
    fact = {"motion": MOVES[thing.motion], "place": f"starts {PLACES[thing.position]}", "size": f"is {thing.size}"}
    return f"the {thing.phrase} {fact[kind]}"


def ask(things: Sequence, tone: str, rng: np.random.Generator) -> tuple[Question, int]:
    """A question about one of the things, and the index of that thing.

    Where every thing shares its phrase with another, only the mood of the clip can be asked about.
    """
    phrases = [thing.phrase for thing in things]
    unique = [index for index, phrase in enumerate(phrases) if phrases.count(phrase) == 1]
    index = unique[rng.integers(len(unique))] if unique else 0
    kind = KINDS[rng.integers(len(KINDS))] if unique else "mood"
    right = right_answer(kind, things[index], tone)
    words = {"motion": MOTIONS, "mood": tuple(EMOTIONS.values()), "place": POSITIONS, "size": SIZES}[kind]
    wrong = [str(word) for word in rng.permutation([word for word in words if word != right])][:3]
    shown = [str(word) for word in rng.permutation([right, *wrong])]
    options = tuple(f"{letter}. {word}" for letter, word in zip(LETTERS, shown, strict=False))
    text = ASKED[kind][rng.integers(len(ASKED[kind]))].format(phrase=phrases[index])
    return Question(kind, phrases[index], text, options, LETTERS[shown.index(right)]), index


def kind_of(text: str) -> str | None:
    """The kind of a question by its words; None when it is none of ours."""
    for kind, frames in ASKED.items():
        for frame in frames:
            before, after = frame.split("{phrase}")
            if text.startswith(before) and text.endswith(after):
                return kind
    return None


def phrase_of(text: str) -> str | None:
    """The phrase that a question of ours names."""
    for frames in ASKED.values():
        for frame in frames:
            before, after = frame.split("{phrase}")
            if text.startswith(before) and text.endswith(after):
                return text[len(before) : len(text) - len(after)]
    return None
