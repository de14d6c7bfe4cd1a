"""The structured summary of a thinking, and what makes one good: the seed's V2 rules as a pydantic schema.

Three key points; primary things (what the question is about) before secondary ones, at most four in all, each a
category in a plain noun and what it looks like; emotions; one SAM3 phrase a thing, made from a listed thing, none
twice. The schema is what the teacher is asked for, what the student's grammar is made from, and what every answer is
checked by.
"""

import json
import re

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from qwenlab.thinkseg.categories import SYNONYMS, normalise

MAX_THINGS = 4  # seed 004: three or four, or SAM3 is swamped
MAX_PHRASE_TOKENS = 32  # SAM3's text encoder raises beyond it
# Strings without brackets (placeholders), quotes and control characters, so that the student's grammar has them too.
TEXT = r"^[^\[\]<>{}\"\\\s\u0000-\u001f][^\[\]<>{}\"\\\u0000-\u001f]+$"
PLACEHOLDER = re.compile(r"\[[^\]]*\]|<[^>]*>|\{[^}]*\}|\bn/?a\b|\bunknown\b|\bnone\b|\.\.\.|…|\bxxx\b", re.IGNORECASE)


FILLERS = ("the", "a", "an", "in", "with", "of", "的")


def has_placeholder(text: str) -> bool:
    """Whether a text has a hole where a fact should be: "[color]", "<clothing>", "N/A", "..."."""
    return bool(PLACEHOLDER.search(text))


def phrase_tokens(phrase: str) -> int:
    """An upper estimate of a phrase's CLIP tokens with start and end: a word has one for every three bytes."""
    words = re.findall(r"\w+|[^\w\s]", phrase)
    return 2 + sum(-(-len(word.encode()) // 3) for word in words)


class Entity(BaseModel):
    """One thing that can be segmented. Looks come first, as they do in sentences: that is easier to write."""

    model_config = ConfigDict(extra="forbid")

    appearance: str = Field(
        min_length=6, max_length=60, pattern=TEXT, description="colour, clothing, size, place: more than five letters"
    )
    category: str = Field(min_length=2, max_length=24, pattern=TEXT, description="plain noun: person, car, table")

    def phrases(self) -> list[str]:
        """The SAM3 phrases that this thing allows: its category behind none, one, two, ... of its leading words.

        Leading words are those before the first comma of the appearance.
        """
        words = re.sub(r"[^\w\s-]", " ", self.appearance.split(",")[0].split("，")[0]).split()[:6]
        found = [self.category, *(f"{word} {self.category}" for word in words)]
        found += [f"{' '.join(words[:count])} {self.category}" for count in range(2, len(words) + 1)]
        return list(dict.fromkeys(found))


class Summary(BaseModel):
    """What SAM3 and a reader need of a thinking."""

    model_config = ConfigDict(extra="forbid")

    key_points: list[str] = Field(min_length=3, max_length=3)
    primary: list[Entity] = Field(min_length=1, max_length=3)
    secondary: list[Entity] = Field(min_length=0, max_length=3)
    emotion: list[str] = Field(min_length=0, max_length=3)
    sam3_phrases: list[str] = Field(min_length=1, max_length=MAX_THINGS)

    @property
    def things(self) -> list[Entity]:
        """Primary things, then secondary ones."""
        return [*self.primary, *self.secondary]

    @field_validator("key_points", "emotion")
    @classmethod
    def _texts(cls, values: list[str]) -> list[str]:
        for value in values:
            if not 2 < len(value.strip()) <= 160:
                raise ValueError(f"{value!r} has {len(value.strip())} characters; expected 3 to 160")
        return values

    @model_validator(mode="after")
    def _semantics(self) -> "Summary":
        texts = [*self.key_points, *self.emotion, *self.sam3_phrases]
        texts += [text for thing in self.things for text in (thing.category, thing.appearance)]
        if holes := [text for text in texts if has_placeholder(text)]:
            raise ValueError(f"{holes[0]!r} is a placeholder")
        if len(self.things) > MAX_THINGS:
            raise ValueError(f"{len(self.things)} things; expected at most {MAX_THINGS}")
        said = [" ".join(phrase.lower().split()) for phrase in self.sam3_phrases]
        if twice := [phrase for phrase in said if said.count(phrase) > 1]:
            raise ValueError(f"SAM3 phrase {twice[0]!r} stands there twice; it finds all its things at once")
        for phrase in self.sam3_phrases:
            if not phrase.strip():
                raise ValueError("an empty SAM3 phrase")
            if (count := phrase_tokens(phrase)) > MAX_PHRASE_TOKENS:
                raise ValueError(f"SAM3 phrase {phrase!r} may take {count} tokens; expected at most 32")
            if not any(made_from(phrase, thing) for thing in self.things):
                raise ValueError(f"SAM3 phrase {phrase!r} is not made from a listed thing")
        return self

    def instruction(self) -> str:
        """The sentence for SAM3 that the seed shows, derived from the phrases."""
        return f"Segment in the video: {', '.join(self.sam3_phrases)}."

    def markdown(self) -> str:
        """The seed's layout for readers."""
        lines = ["## Key points", *(f"{number}. {point}" for number, point in enumerate(self.key_points, 1))]
        for title, things in (("Primary objects", self.primary), ("Secondary objects", self.secondary)):
            lines += [f"## {title}", *(f"- {thing.category}: {thing.appearance}" for thing in things)]
        return "\n".join([*lines, "## Emotion", ", ".join(self.emotion) or "-", "## SAM3", self.instruction()])

    def compact(self) -> str:
        """JSON without blanks, keys in the order of the schema: what the student writes."""
        return json.dumps(self.model_dump(), ensure_ascii=False, separators=(",", ":"))


def made_from(phrase: str, thing: Entity) -> bool:
    """Whether a phrase names the thing's category (or a synonym of it), and otherwise only words of its appearance.

    Chinese, which has no blanks, is compared letter by letter.
    """
    text, appearance = phrase.lower(), thing.appearance.lower()
    category = thing.category.lower()
    for name in (category, *SYNONYMS.get(normalise(category), ())):
        head = re.search(rf"(?<![a-z]){re.escape(name)}(?![a-z])", text)
        if head:
            rest = f"{text[: head.start()]} {text[head.end() :]}"
            words = [word for word in re.findall(r"[a-z0-9'-]+|[^\x00-\x7f]", rest) if word not in FILLERS]
            if all(word in appearance for word in words):
                return True
    return False


def parse_summary(text: str) -> Summary:
    """A summary from the text of an answer, which may stand in a code fence.

    Raises:
        ValueError: in one sentence, when it is no JSON or breaks a rule of the schema.
    """
    body = re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", text)
    try:
        value = json.loads(body)
    except ValueError as error:
        raise ValueError(f"no JSON ({error})") from error
    try:
        return Summary.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"])) or "summary"
        raise ValueError(f"{at}: {first['msg'].removeprefix('Value error, ')}") from error


def json_schema(things: int = MAX_THINGS) -> dict:
    """The JSON schema of a summary, with the limit on the number of things, which pydantic's own cannot say.

    One alternative for each number of primary things; strings are bounded, and have no brackets.
    """
    entity = {
        "type": "object", "additionalProperties": False, "required": ["appearance", "category"],
        "properties": {
            "appearance": {"type": "string", "minLength": 6, "maxLength": 60, "pattern": TEXT},
            "category": {"type": "string", "minLength": 2, "maxLength": 24, "pattern": TEXT},
        },
    }  # fmt: skip
    point = {"type": "string", "minLength": 3, "maxLength": 70, "pattern": TEXT}
    emotion = {"type": "string", "minLength": 3, "maxLength": 24, "pattern": TEXT}
    phrase = {"type": "string", "minLength": 2, "maxLength": 40, "pattern": TEXT}

    def several(items: dict, low: int, high: int) -> dict:
        return {"type": "array", "items": items, "minItems": low, "maxItems": high}

    def summary(primary: int) -> dict:
        properties = {
            "key_points": several(point, 3, 3),
            "primary": several(entity, primary, primary),
            "secondary": several(entity, 0, min(3, things - primary)),
            "emotion": several(emotion, 0, 2),
            "sam3_phrases": several(phrase, 1, things),
        }
        return {
            "type": "object", "additionalProperties": False, "required": list(properties), "properties": properties,
        }  # fmt: skip

    return {"anyOf": [summary(primary) for primary in range(1, min(3, things) + 1)]}
