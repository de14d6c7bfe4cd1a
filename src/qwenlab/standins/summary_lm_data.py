"""What the base model of the student reads: thinkings, questions about them, sequences to repeat, lists as JSON.

All made on the fly from a seed. None of it is the student's task: no thinking stands beside a summary of it. The words
that a summary has for keys occur as keys of lists, with any words behind them, so that their embeddings, which LoRA
does not train, mean something.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qwenlab.thinkseg.questions import EMOTIONS, MOVING, PLACES, ask
from qwenlab.thinkseg.scripted import describe, plain, think
from qwenlab.thinkseg.vocabulary import COLORS, MOTIONS, POSITIONS, SHAPES, SIZES, TONES, phrase

KEYS = ("name", "note", "item", "list", "kind", "text", "first", "second", "other", "rows", "key", "value", "category",
        "appearance", "primary", "secondary", "emotion", "key_points", "sam3_phrases")  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """A thing in words, as those of clips are."""

    category: str
    color: str
    size: str
    motion: str
    position: str

    @property
    def phrase(self) -> str:
        return phrase(self.color, self.category)


FACTS: dict[str, Callable[[Thing], str]] = {
    "size": lambda thing: thing.size, "color": lambda thing: thing.color, "kind": lambda thing: thing.category,
    "place": lambda thing: PLACES[thing.position], "motion": lambda thing: MOVING[thing.motion],
}  # fmt: skip
# What stands between the facts of a thing, and between things.
LAYOUTS = ((", ", "; "), (" / ", "; "), (" ", ", "), (": ", ". "), ('","', '"],["'), ('":"', '","'), (", ", '","'))


def random_things(rng: np.random.Generator) -> tuple[tuple[Thing, ...], str]:
    """One to four things and a tone, as words; no clip need look like that."""

    def one(words: Sequence[str]) -> str:
        return str(words[int(rng.integers(len(words)))])

    count = int(rng.choice([1, 2, 3, 4], p=[0.15, 0.3, 0.35, 0.2]))
    things = []
    for _ in range(count):
        things.append(Thing(one(SHAPES), one(COLORS), one(SIZES), one(MOTIONS), one(POSITIONS)))
    return tuple(things), one(TONES)


class Samples:
    """(prompt, answer) pairs; the same ones for the same seed. The prompt may be empty."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def one(self, words: Sequence[str]) -> str:
        """Any of some words."""
        return str(words[int(self.rng.integers(len(words)))])

    def words(self, count: int) -> list[str]:
        """Words of the language in any order."""
        language = (*SHAPES, *COLORS, *SIZES, *MOTIONS, *POSITIONS, *TONES, *EMOTIONS.values(), *KEYS, "moving", "on",
                    "at", "the", "tone", "feels", "starts", "answer", "question", "staying", "in")  # fmt: skip
        return [self.one(language) for _ in range(count)]

    def scene(self) -> tuple[tuple[Thing, ...], str, str, Thing]:
        """(things, tone, a thinking about them, what it is about)."""
        things, tone = random_things(self.rng)
        question, asked = ask(things, tone, self.rng)
        if self.rng.random() < 0.25:
            return things, tone, plain(things, tone, question, asked), things[asked]
        return things, tone, think(things, tone, question, asked, self.rng), things[asked]

    def repeat(self) -> tuple[str, str]:
        """A sequence to repeat: words in any order, or sentences about things."""
        if self.rng.random() < 0.7:
            text = " ".join(self.words(int(self.rng.integers(4, 40))))
        else:
            text = " ".join(describe(thing, int(self.rng.integers(5))) for thing in random_things(self.rng)[0])
        return f"Repeat: {text}", text

    def thinking(self) -> tuple[str, str]:
        """A thinking by itself."""
        return "", self.scene()[2]

    def as_json(self) -> tuple[str, str]:
        """Lines of words, and the same as JSON: lists of objects and of words, with keys of any name."""
        value: dict[str, list] = {}
        lines = []
        for _ in range(int(self.rng.integers(1, 4))):
            key, rows = self.one(KEYS), []
            flat = self.rng.random() < 0.4
            keys = [self.one(KEYS), self.one(KEYS)]
            for _ in range(int(self.rng.integers(1, 4))):
                texts = [" ".join(self.words(int(self.rng.integers(1, 6)))) for _ in range(1 if flat else 2)]
                rows.append(texts[0] if flat else dict(zip(keys, texts, strict=True)))
                lines.append(f"{key}: {' / '.join(texts)}")
            value[key] = value.get(key, []) + rows
        return f"As JSON, {'; '.join(lines)}", json.dumps(value, separators=(",", ":"))

    def reading(self) -> tuple[str, str]:
        """A thinking, and short questions about it with their answers."""
        things, tone, text, _ = self.scene()
        asked = []
        for _ in range(5):
            thing = things[self.rng.integers(len(things))]
            about = f"{thing.size} {thing.color} {thing.category}"
            asked.append(
                (
                    (f"Where is the {about}?", PLACES[thing.position]),
                    (f"What is the {about} doing?", MOVING[thing.motion]),
                    (f"What size is the {thing.phrase}?", thing.size),
                    (f"What color is the {thing.size} {thing.category}?", thing.color),
                    ("Which tone?", tone),
                    ("Which mood?", EMOTIONS[tone]),
                    ("List what is there.", ", ".join(one.phrase for one in things)),
                    (f"What is there besides the {thing.phrase}?",
                     ", ".join(one.phrase for one in things if one.phrase != thing.phrase) or "nothing"),
                )[self.rng.integers(8)]
            )  # fmt: skip
        return f"{text}\n{' '.join(q for q, _ in asked)}", "; ".join(a for _, a in asked)

    def listing(self) -> tuple[str, str]:
        """A thinking, and lists of some facts about its things, laid out as asked for.

        Never more than three of a thing's five facts: which belong together has to be found out, a whole thing in a
        summary's words does not occur.
        """
        things, _, text, _ = self.scene()
        asks, answers = [], []
        for _ in range(int(self.rng.integers(2, 5))):
            about = things[self.rng.integers(len(things))].phrase
            others = [one for one in things if one.phrase != about]
            first = [one for one in things if one.phrase == about]
            whom, rows = (
                ("each thing", list(things)), (f"the {about} and then the others", first + others),
                (f"all but the {about}", others), (f"the {about}", first),
            )[self.rng.choice(4, p=[0.3, 0.35, 0.25, 0.1])]  # fmt: skip
            names = [str(name) for name in self.rng.permutation(list(FACTS))][: int(self.rng.integers(2, 4))]
            between, behind = LAYOUTS[self.rng.integers(len(LAYOUTS))]
            asks.append(f"Of {whom} list {between.join(names)}{behind}")
            lines = [between.join(FACTS[name](one) for name in names) for one in rows]
            answers.append(behind.join(lines) or "nothing")
        ask = " ".join(asks)
        return (f"{ask}\n{text}" if self.rng.random() < 0.7 else f"{text}\n{ask}"), "\n".join(answers)

    def telling(self) -> tuple[str, str]:
        """As `listing`, but what tells things apart mostly comes first: "small red, on the left; large blue, ..."."""
        things, _, text, asked = self.scene()
        first = [one for one in things if one.phrase == asked.phrase]
        others = [one for one in things if one.phrase != asked.phrase]
        between, behind = LAYOUTS[self.rng.integers(len(LAYOUTS))]
        asks, answers = [], []
        for _ in range(int(self.rng.integers(2, 5))):
            whom, rows = ("what is asked about and then the others", first + others)
            if self.rng.random() < 0.3:
                whom, rows = "each thing", list(things)
            names = ["size", "color"] if self.rng.random() < 0.75 else ["color", "kind"]
            names.append(self.one([name for name in FACTS if name not in names]))
            asks.append(f"Of {whom} list {between.join(names)}{behind}")
            answers.append(behind.join(between.join(FACTS[name](one) for name in names) for one in rows))
        ask = " ".join(asks)
        return (f"{ask}\n{text}" if self.rng.random() < 0.7 else f"{text}\n{ask}"), "\n".join(answers)

    def batch(self, count: int) -> list[tuple[str, str]]:
        """`count` pairs of all kinds, lists most often."""
        kinds = (self.listing, self.thinking, self.as_json, self.reading, self.repeat)
        return [kinds[kind]() for kind in self.rng.choice(5, count, p=[0.63, 0.02, 0.12, 0.15, 0.08])]

    def later_batch(self, count: int) -> list[tuple[str, str]]:
        """`count` pairs for the last part of training: `telling` most often."""
        kinds = (self.telling, self.as_json, self.reading, self.repeat)
        return [kinds[kind]() for kind in self.rng.choice(4, count, p=[0.8, 0.08, 0.06, 0.06])]
