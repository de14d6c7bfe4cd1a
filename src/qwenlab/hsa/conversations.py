"""Conversations with a semantic type a message, read from ShareGPT files (seed 003, 1.2: the converter).

    for conversation in read_conversations("train.jsonl"):
        conversation.messages[0].role, conversation.messages[0].content, conversation.messages[0].semantic_id

A file holds a JSON list of records, or one record a line. Columns that are not named in `Tags` are left alone.
"""

import json
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params, shown
from qwenlab.hsa.semantics import DEFAULT_TYPE, type_id

ASKING, ANSWERING = ("user", "tool"), ("assistant",)


class Tags(Params):
    """What a file calls things, by LLaMA-Factory's names; the first of several that a record has is meant."""

    messages: tuple[str, ...] = ("conversations", "messages")
    system: tuple[str, ...] = ("system",)  # a column beside the messages
    role_tag: tuple[str, ...] = ("from", "role")
    content_tag: tuple[str, ...] = ("value", "content")
    semantic_tag: tuple[str, ...] = ("semantic_type",)
    user_tag: tuple[str, ...] = ("human", "user")
    assistant_tag: tuple[str, ...] = ("gpt", "assistant")
    observation_tag: tuple[str, ...] = ("observation", "tool")
    system_tag: tuple[str, ...] = ("system",)

    def roles(self) -> dict[str, str]:
        """The name of a role in the file -> system, user, assistant or tool.

        Raises:
            UserError: when one name stands for two roles.
        """
        pairs = [(tag, "system") for tag in self.system_tag] + [(tag, "user") for tag in self.user_tag]
        pairs += [(tag, "assistant") for tag in self.assistant_tag] + [(tag, "tool") for tag in self.observation_tag]
        if len(dict(pairs)) < len(pairs):
            raise UserError(f"tags: one name for two roles among {', '.join(tag for tag, _ in pairs)}.")
        return dict(pairs)


@dataclass(frozen=True)
class Message:
    """One turn: role system, user, assistant or tool; semantic_id 0 GLOBAL, 1 LANDMARK or 2 NOISE."""

    role: str
    content: str
    semantic_id: int


@dataclass(frozen=True)
class Conversation:
    """Turns as `conversation` checks them; `at` says in errors where they came from."""

    messages: tuple[Message, ...]
    at: str = "the conversation"


def read_conversations(path: str | Path, tags: Tags | None = None) -> list[Conversation]:
    """All records of a JSON or JSONL file.

    Raises:
        UserError: on a file that cannot be read, has no record or is not JSON, and on the first bad record (see
            `conversation`); the message names the file, the record's number, the value and what is expected.
    """
    path, tags = Path(path), tags or Tags()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(f"{path}: cannot be read ({reason}); expected a JSON or JSONL file.") from error
    records: list[tuple[str, Any]]
    if text.lstrip().startswith("["):
        # The suffix says little: many a .json holds one record a line.
        found = _parsed(text, str(path), "a JSON list of records, or one JSON object a line")
        records = [(f"{path}, record {n}", record) for n, record in enumerate(found, start=1)]
    else:
        # Not splitlines: U+2028 and its like are no line ends in JSON.
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        places = [f"{path}, record {n} (line {number})" for n, (number, _) in enumerate(lines, start=1)]
        expected = "one JSON object a line, or a JSON list of records"
        records = [(at, _parsed(line, at, expected)) for at, (_, line) in zip(places, lines, strict=True)]
    if not records:
        raise UserError(f"{path}: no records; expected at least one conversation.")
    return [conversation(record, tags, at) for at, record in records]


def conversation(record: Any, tags: Tags | None = None, at: str = "the record") -> Conversation:
    """A record as a checked conversation.

    An optional system turn, then turns of user (or tool) and assistant by turns, ending with the assistant. A message
    without a semantic type, or with null as exports write it, is GLOBAL_CONDITION (the seed's default); so a record
    that names none at all is GLOBAL throughout, whatever its neighbours in the file have.

    Args:
        record: {"conversations": [{"from": "human", "value": ..., "semantic_type": ...}, ...], "system": ...}
        tags: what the keys and roles are called.
        at: where the record stands, for errors.

    Raises:
        UserError: on anything else, naming `at`, the value and what is expected.
    """
    tags = tags or Tags()
    turns = _value(record, tags.messages, at)
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{at}: the messages are {shown(turns)}; expected a list with at least one.")
    messages = [_message(turn, tags, f"{at}, message {n}") for n, turn in enumerate(turns, start=1)]
    _check_order([message.role for message in messages], at)
    if system := _value(record, tags.system, at, optional=True):
        if messages[0].role == "system":
            raise UserError(f"{at}: system is {shown(system)} and message 1 is one too; expected one of them.")
        messages = [Message("system", _text(system, f"{at}: system"), type_id(DEFAULT_TYPE)), *messages]
    return Conversation(tuple(messages), at)


def _parsed(text: str, at: str, expected: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, at))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{at}: not JSON ({error}); expected {expected}.") from error


def _unique(pairs: list[tuple[str, Any]], at: str) -> dict[str, Any]:
    # Python's json would keep the last of two equal keys and say nothing.
    names = [name for name, _ in pairs]
    if again := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{at}: key {again[0]!r} stands there twice in one object; expected each once.")
    return dict(pairs)


def _value(record: Any, keys: tuple[str, ...], at: str, optional: bool = False) -> Any:
    """The value under the one of `keys` that the record has."""
    if not isinstance(record, dict):
        raise UserError(f"{at} is {shown(record)}; expected an object with {' or '.join(keys)}.")
    found = [key for key in keys if key in record]
    if len(found) > 1:
        raise UserError(f"{at}: both of {found[0]} and {found[1]} are there; expected one of them.")
    if not found and not optional:
        raise UserError(f"{at}: key {' or '.join(keys)} is missing; found {shown(list(record))}.")
    return record[found[0]] if found else None


def _message(turn: Any, tags: Tags, at: str) -> Message:
    name = _value(turn, tags.role_tag, at)
    roles = tags.roles()
    if not isinstance(name, str) or name not in roles:
        raise UserError(f"{at}: role is {shown(name)}; expected one of {', '.join(roles)}.")
    content = _text(_value(turn, tags.content_tag, at), f"{at}: content")
    kind = _value(turn, tags.semantic_tag, at, optional=True)
    if kind is None:
        # A mistyped key would turn the message into a GLOBAL one without a word.
        for key in sorted(turn.keys() - set(tags.semantic_tag)):
            if get_close_matches(key.lower(), tags.semantic_tag, cutoff=0.75):
                raise UserError(f"{at}: key {key!r} is unknown; did you mean {tags.semantic_tag[0]}?")
        kind = DEFAULT_TYPE
    return Message(
        roles[name], content, type_id(kind if isinstance(kind, str) else shown(kind), f"{at}: semantic_type")
    )


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{at} is {shown(value)}; expected text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{at} has {value[error.start]!r}, half a character; expected readable text.") from error
    return value


def _check_order(roles: list[str], at: str) -> None:
    turns = roles[1:] if roles[0] == "system" else roles
    for n, role in enumerate(turns):
        expected = ANSWERING if n % 2 else ASKING
        if role not in expected:
            number = n + 1 + len(roles) - len(turns)
            raise UserError(f"{at}: message {number} is {role}; expected {' or '.join(expected)} (roles take turns).")
    if "assistant" not in turns:
        raise UserError(f"{at}: no assistant turn among {', '.join(roles)}; expected one to learn from.")
    if len(turns) % 2:
        raise UserError(f"{at}: the last message is {turns[-1]}; expected the assistant's answer at the end.")
