"""How good a summary or a thinking is, against the facts of a clip, or against another summary where none are known."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from scipy.optimize import linear_sum_assignment

from qwenlab.thinkseg.categories import normalise
from qwenlab.thinkseg.clips import Thing
from qwenlab.thinkseg.questions import EMOTIONS, MOVING, PLACES, Question, evidence
from qwenlab.thinkseg.rules_teacher import described
from qwenlab.thinkseg.summary import Entity, Summary, made_from
from qwenlab.thinkseg.vocabulary import TONES


def reference(things: Sequence[Thing], tone: str, question: Question) -> Summary:
    """The summary that is right for a clip."""
    entities = [
        Entity(category=t.category, appearance=f"{t.size} {t.color}, {PLACES[t.position]}, {MOVING[t.motion]}")
        for t in things
    ]
    is_asked = [thing.phrase == question.phrase for thing in things]
    asked = things[is_asked.index(True)]
    fact = evidence(question.kind, asked, tone)
    return Summary(
        key_points=[f"The question is about the {question.phrase}", f"{fact[:1].upper()}{fact[1:]}",
                    f"The answer is {question.answer_text}"],
        primary=[entity for entity, mine in zip(entities, is_asked, strict=True) if mine],
        secondary=[entity for entity, mine in zip(entities, is_asked, strict=True) if not mine],
        emotion=[EMOTIONS[tone]],
        sam3_phrases=list(dict.fromkeys([question.phrase, *(thing.phrase for thing in things)])),
    )  # fmt: skip


def attributes(entity: Entity) -> list[str]:
    """What an appearance says, piece by piece: its leading words, then the parts behind commas."""
    lead, *rest = re.split(r"[,，]", entity.appearance.lower())
    return [*lead.split(), *(" ".join(part.split()) for part in rest if part.strip())]


def is_same(entity: Entity, wanted: Entity, phrases: Sequence[str]) -> bool:
    """Whether two entities are one thing: the same category, and all words of the phrase made from the wanted one."""
    if normalise(entity.category) != normalise(wanted.category):
        return False
    phrase = next((one for one in phrases if made_from(one, wanted)), wanted.category)
    return made_from(phrase, entity)


def compare(found: Summary | None, wanted: Summary) -> dict[str, float]:
    """Numbers of one summary against the right one; all are 0 where there is none.

    object_f1 pairs things off one to one, so that the attributes recalled are most; attribute_recall is over all
    attributes of all wanted things, matched or not.
    """
    names = ("object_f1", "attribute_recall", "key_points", "emotion", "primary", "phrase_f1")
    if found is None:
        return dict.fromkeys(names, 0.0)
    gain = [
        [
            1 + len(set(attributes(mine)) & set(attributes(one))) if is_same(mine, one, wanted.sam3_phrases) else 0
            for one in wanted.things
        ]
        for mine in found.things
    ]
    rows, columns = linear_sum_assignment(gain, maximize=True)
    pairs = [(found.things[i], wanted.things[j]) for i, j in zip(rows, columns, strict=True) if gain[i][j]]
    recalled = sum(sum(word in attributes(mine) for word in attributes(one)) for mine, one in pairs)
    right = sum(a.strip(" .").lower() == b.lower() for a, b in zip(found.key_points, wanted.key_points, strict=True))
    primary = [i for i, mine in enumerate(found.primary) for one in wanted.primary
               if is_same(mine, one, wanted.sam3_phrases)]  # fmt: skip
    return {
        "object_f1": 2 * len(pairs) / (len(found.things) + len(wanted.things)),
        "attribute_recall": recalled / sum(len(attributes(one)) for one in wanted.things),
        "key_points": right / 3,
        "emotion": float({e.lower() for e in found.emotion} == {e.lower() for e in wanted.emotion}),
        "primary": float(len(set(primary)) == len(found.primary) == len(wanted.primary)),
        "phrase_f1": f1(found.sam3_phrases, wanted.sam3_phrases),
    }


def f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 of two lists in which an item may stand more than once."""
    common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted)) if found or wanted else 1.0


def judge_thinking(context: str, things: Sequence[Thing], tone: str) -> dict[str, float]:
    """What a thinker saw and heard, by the sentences of its context.

    color_recall: of the things' colours; object_recall: of things as colour and category; attribute_recall: of size,
    place and motion too, where the thing was seen; object_precision: of what it says is there.
    """
    said = described(context)
    wanted, seen = Counter(t.phrase for t in things), Counter(f"{w['color']} {w['category']}" for w in said)
    colors = Counter(t.color for t in things) & Counter(w["color"] for w in said)
    right, total = 0, 3 * len(things)
    left = list(said)
    for thing in things:
        same = [w for w in left if f"{w['color']} {w['category']}" == thing.phrase]
        if same:
            facts = {"size": thing.size, "place": PLACES[thing.position], "moving": MOVING[thing.motion]}
            best = max(same, key=lambda w: sum(w[key] == value for key, value in facts.items()))
            right += sum(best[key] == value for key, value in facts.items())
            left.remove(best)
    heard = re.search(rf"\b({'|'.join(TONES)}) tone", context)
    return {
        "tone": float(bool(heard) and heard[1] == tone) if heard else 0.0,
        "color_recall": colors.total() / len(things),
        "object_recall": (wanted & seen).total() / len(things),
        "object_precision": (wanted & seen).total() / len(said) if said else math.nan,
        "attribute_recall": right / total,
    }
