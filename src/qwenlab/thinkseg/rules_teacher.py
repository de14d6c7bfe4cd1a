"""A teacher made of rules, for profiles without a large model: it reads the thinkings of procedural clips.

It sees the text of the request and nothing else. The sentences it knows are those of `scripted`; what they rule out,
and what is no thing, it leaves out. `local_server` puts it behind the protocol of the large ones.
"""

import re

from qwenlab.thinkseg.prompt import BEGIN, END
from qwenlab.thinkseg.questions import EMOTIONS, MOVES, MOVING, PLACES
from qwenlab.thinkseg.scripted import ABOUT, THINGS
from qwenlab.thinkseg.summary import Entity, Summary
from qwenlab.thinkseg.vocabulary import COLORS, SHAPES, SIZES, TONES

_GROUPS = {
    "size": SIZES, "color": COLORS, "category": SHAPES, "place": tuple(PLACES.values()), "moves": tuple(MOVES.values()),
    "phrase": tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES),
}  # fmt: skip


def _pattern(frame: str) -> re.Pattern[str]:
    text = re.escape(frame).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(re.sub(r"\{(\w+)\}", lambda m: f"(?P<{m[1]}>{'|'.join(_GROUPS[m[1]])})", text))


_THINGS = [_pattern(frame) for frame in THINGS]
_ABOUT = [_pattern(frame) for frame in ABOUT]
_MOVING = {MOVES[motion]: MOVING[motion] for motion in MOVES}


def described(context: str) -> list[dict[str, str]]:
    """The things that a context says are there, in their order: size, color, category, place, moving."""
    matches = [m for frame in _THINGS for m in frame.finditer(context)]
    found = [m.groupdict() for m in sorted(matches, key=lambda m: m.start())]
    return [{**words, "moving": _MOVING[words["moves"]]} for words in found]


def summarise(text: str) -> Summary:
    """The summary of a thinking of a procedural clip.

    Raises:
        ValueError: when it names no thing, or none that the question could be about.
    """
    things = described(text.partition("</context>")[0])
    about = next((m["phrase"] for frame in _ABOUT for m in [frame.search(text)] if m), None)
    if not things or about is None:
        raise ValueError("the thinking names no thing, or not what the question is about")
    entities = [
        (f"{w['color']} {w['category']}",
         Entity(category=w["category"], appearance=f"{w['color']}, {w['size']}, {w['place']}, {w['moving']}"))
        for w in things[:4]
    ]  # fmt: skip
    primary = [entity for phrase, entity in entities if phrase == about][:3] or [entities[0][1]]
    secondary = [entity for _, entity in entities if not any(entity is one for one in primary)][:3]
    phrases = [about, *(phrase for phrase, _ in entities)]
    present = {phrase for phrase, _ in entities}
    reason = text.partition("<think>")[2].partition("</think>")[0]
    sentences = [part.strip() for part in re.split(r"(?<=[.])\s+", reason) if part.strip()]
    evidence = next((s for s in sentences if re.match(r"The .*(moves|stays|starts|is (small|large)\b)", s)), None)
    mood = next((e for t, e in EMOTIONS.items() if re.search(rf"\b{t} tone", text)), None)
    if evidence is None:
        tone = next((t for t in TONES if re.search(rf"\b{t} tone", text)), "low")
        evidence = f"The {tone} tone feels {EMOTIONS[tone]}."
    answer = re.search(r"(?:answer is|This means) ([\w ]+?)\.", reason)
    return Summary(
        key_points=[f"The question is about the {about}", evidence.rstrip("."),
                    f"The answer is {answer[1] if answer else 'open'}"],
        primary=primary,
        secondary=secondary,
        emotion=[mood] if mood else [],
        sam3_phrases=[phrase for phrase in dict.fromkeys(phrases) if phrase in present][:4],
    )  # fmt: skip


def answer(chat: list[dict[str, str]]) -> str:
    """The text of an answer to a request of ours."""
    user = chat[-1]["content"]
    return summarise(user.partition(BEGIN)[2].partition(END)[0]).compact()
