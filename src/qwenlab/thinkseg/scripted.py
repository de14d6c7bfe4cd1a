"""The scripted thinker: long thinkings in words, made from the facts of a procedural clip, not from its pixels.

It stands in where a thinking is needed that is right by construction: as training data for teacher and student while
no published thinker is at hand. Whatever it writes is labelled "scripted" in files and metrics.

A thinking has what makes summaries hard: sentences in any order and several phrasings, things that are not there,
facts that do not matter, second thoughts.
"""

from collections.abc import Sequence

import numpy as np

from qwenlab.thinkseg.questions import EMOTIONS, MOVES, PLACES, Question, evidence
from qwenlab.thinkseg.vocabulary import PHRASES

THINGS = (
    "A {size} {color} {category} starts {place} and {moves}.",
    "There is a {size} {color} {category} {place}; it {moves}.",
    "I see a {size} {color} {category}. It begins {place} and {moves}.",
    "Next, a {size} {color} {category} {place}, which {moves}.",
    "The clip shows a {size} {color} {category} {place} that {moves}.",
)
TONES = (
    "A {tone} tone plays.", "The sound is a {tone} tone.", "I hear a {tone} tone.",
)  # fmt: skip
ABSENT = (
    "No {phrase} is visible.", "One might expect a {phrase}, but there is none.", "There is no {phrase} here.",
)  # fmt: skip
ASIDES = (
    "The background has a fine texture.", "The clip lasts three seconds.", "The picture is small.",
    "The camera does not move.", "Nothing is written on the screen.",
)  # fmt: skip
ABOUT = (
    "The question is about the {phrase}.", "I am asked about the {phrase}.", "So the {phrase} is what matters.",
)  # fmt: skip
DOUBTS = ("Let me check this again.", "I looked twice.", "Let me compare the options.")
FEELS = ("The {tone} tone feels {emotion}.", "With its {tone} tone the clip feels {emotion}.")
SO = ("Therefore the answer is {answer}.", "So the answer is {answer}.", "This means {answer}.")


def describe(thing, frame: int) -> str:
    """One thing in one of the phrasings of `THINGS`."""
    words = {
        "size": thing.size, "color": thing.color, "category": thing.category,
        "place": PLACES[thing.position], "moves": MOVES[thing.motion],
    }  # fmt: skip
    return THINGS[frame].format(**words)


def write(context: Sequence[str], thinking: Sequence[str], letter: str) -> str:
    """The output format of HumanOmniV2."""
    return f"<context>{' '.join(context)}</context><think>{' '.join(thinking)}</think><answer>{letter}</answer>"


def think(things: Sequence, tone: str, question: Question, asked: int, rng: np.random.Generator) -> str:
    """A thinking about a clip.

    Args:
        things: anything with size, color, category, position, motion and phrase, most striking first.
        asked: index of the thing that the question is about.
    """

    def one(frames: Sequence[str]) -> str:
        return frames[int(rng.integers(len(frames)))]

    context = [describe(thing, int(rng.integers(len(THINGS)))) for thing in things]
    shown = {thing.phrase for thing in things}
    if rng.random() < 0.5:
        missing = [phrase for phrase in PHRASES if phrase not in shown]
        context.insert(int(rng.integers(len(context) + 1)), one(ABSENT).format(phrase=one(missing)))
    context.insert(int(rng.integers(len(context) + 1)), one(ASIDES))
    context.insert(int(rng.integers(len(context) + 1)), one(TONES).format(tone=tone))
    fact = evidence(question.kind, things[asked], tone)
    thinking = [one(ABOUT).format(phrase=question.phrase)]
    if question.kind == "mood":
        thinking.append(f"{fact[:1].upper()}{fact[1:]}.")
    else:
        thinking += [one(FEELS).format(tone=tone, emotion=EMOTIONS[tone]), f"{fact[:1].upper()}{fact[1:]}."]
    if rng.random() < 0.5:
        thinking.insert(int(rng.integers(1, len(thinking) + 1)), one(DOUBTS))
    thinking.append(one(SO).format(answer=question.answer_text))
    return write(context, thinking, question.answer)


def plain(things: Sequence, tone: str, question: Question, asked: int) -> str:
    """The same facts in one fixed phrasing, in the order of the things: what the small thinker is taught to say."""
    fact = evidence(question.kind, things[asked], tone)
    context = [*(describe(thing, 0) for thing in things), TONES[0].format(tone=tone)]
    thinking = [ABOUT[0].format(phrase=question.phrase)]
    if question.kind != "mood":
        thinking.append(FEELS[0].format(tone=tone, emotion=EMOTIONS[tone]))
    thinking += [f"{fact[:1].upper()}{fact[1:]}.", SO[0].format(answer=question.answer_text)]
    return write(context, thinking, question.answer)
