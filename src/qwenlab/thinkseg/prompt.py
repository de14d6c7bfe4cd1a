"""What the teacher is asked (seed 004, V2 rules), and the identity of a request."""

import hashlib
import json

from qwenlab.thinkseg.records import Thinking
from qwenlab.thinkseg.summary import json_schema

BEGIN, END = "THINKING:\n", "\nEND OF THINKING"
QUESTION = "QUESTION: "

SYSTEM = """You turn the long thinking of a video model into a short structured summary that drives the segmentation \
model SAM3. Answer with one JSON object and nothing else:
{"key_points": [three sentences], "primary": [{"appearance": "...", "category": "..."}], "secondary": [...], \
"emotion": [...], "sam3_phrases": [...]}

Rules:
1. Categories are standard plain nouns: person, car, table, sofa, lamp; never "the man" or "someone".
2. Every appearance says what can be seen, set off by commas: color first, then size, clothing, place and movement. \
It is concrete and longer than five letters.
3. primary holds what the question is about, people with their looks, and what they use; secondary holds the scene and \
the background.
4. One to three primary things, at most three secondary ones, at most four in all. Only things that the thinking says \
are there: not those it rules out.
5. key_points: what the question is about; the evidence for the answer; the answer.
6. emotion: the moods that the thinking names, single words; an empty list if there are none.
7. sam3_phrases: one short noun phrase a thing, its color and category, such as "red car"; primary things first.
8. Never leave placeholders such as [color], [clothing], <place>, N/A or "...": leave out what is not known."""


def messages(thinking: Thinking) -> list[dict[str, str]]:
    """The chat of one request."""
    user = f"{QUESTION}{thinking.question}\n\n{BEGIN}{thinking.material}{END}"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


def response_format(mode: str) -> dict | None:
    """What providers call structured output: json_schema, json_object, or nothing at all ("text").

    Some providers degrade json_schema to json_object in silence, so that answers are checked in every mode.
    """
    if mode == "text":
        return None
    if mode == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "summary", "strict": True, "schema": json_schema()}}


def prompt_hash(model: str, mode: str, temperature: float, chat: list[dict[str, str]]) -> str:
    """Identity of a request: the same id and hash are never paid for twice."""
    whole = json.dumps([model, mode, temperature, chat], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]
