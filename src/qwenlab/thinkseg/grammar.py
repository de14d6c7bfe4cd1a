"""Decoding under a grammar made from the schema, so that every answer is a good summary (llguidance).

A JSON schema cannot say that a SAM3 phrase is made from a listed thing, and that no thing is named again. So a row
changes its grammar when its things are written, and with every phrase: what stands is fixed from then on, and a phrase
is one of those that the things not yet named allow. When all are named, the list has to end. How many things are named,
and which, is up to the model.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from qwenlab.thinkseg.summary import MAX_PHRASE_TOKENS, Entity, json_schema, phrase_tokens

OPTIONS: Any = {"whitespace_flexible": False}  # free blanks would let a weak model write nothing else
TURN = ',"emotion":'  # once this is written, the things are known
PHRASES = '"sam3_phrases":["'


@lru_cache(maxsize=4096)
def _compiled(schema: str) -> str:
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(schema, defaults=OPTIONS)


def grammar_tokenizer(tokenizer, vocab: int):
    """The tokenizer as llguidance knows it; `vocab` is the width of the logits, which may be padded."""
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer, n_vocab=vocab, eos_token=tokenizer.eos_token_id)


def written(text: str) -> list[str]:
    """The SAM3 phrases of an unfinished answer behind which another one begins."""
    return text.partition(PHRASES)[2].split('","')[:-1]


def unnamed(things: list[Entity], phrases: list[str]) -> list[Entity]:
    """The things that none of the phrases names. One phrase names all things that allow it."""
    return [thing for thing in things if not set(thing.phrases()) & set(phrases)]


def choices(things: list[Entity], phrases: list[str]) -> list[str]:
    """The phrases that may come next: of things that are not named yet, and short enough for SAM3."""
    found = list(dict.fromkeys(phrase for thing in unnamed(things, phrases) for phrase in thing.phrases()))
    return [phrase for phrase in found if phrase_tokens(phrase) <= MAX_PHRASE_TOKENS] or found


def rest_schema(head: str, phrases: Sequence[str] = ()) -> dict:
    """The schema of a whole summary whose beginning is written: its things, and perhaps SAM3 phrases.

    Args:
        head: JSON text up to `TURN`, without it.
        phrases: those that `written` finds; another one begins behind them.
    """
    said = json.loads(f"{head}}}")
    things = [Entity.model_construct(**thing) for part in ("primary", "secondary") for thing in said[part]]

    def with_next(phrase: str) -> dict:
        """A list that has this phrase next: it goes on only if a thing is left."""
        known = [*phrases, phrase]
        more = choices(things, known)
        array: dict[str, Any] = {"type": "array", "prefixItems": [{"const": one} for one in known]}
        most = len(known) + len(unnamed(things, known))
        return {**array, "items": {"enum": more} if more else False, "minItems": len(known), "maxItems": most}

    whole = json_schema()["anyOf"][0]["properties"]
    properties = {key: {"const": said[key]} for key in ("key_points", "primary", "secondary")}
    properties |= {
        "emotion": whole["emotion"],
        "sam3_phrases": {"anyOf": [with_next(phrase) for phrase in choices(things, list(phrases))]},
    }
    return {
        "type": "object", "additionalProperties": False, "required": list(properties), "properties": properties,
    }  # fmt: skip


class _Row:
    """The matcher of one answer."""

    def __init__(self, ll_tokenizer):
        from llguidance import LLMatcher

        self.make = lambda schema: LLMatcher(ll_tokenizer, _compiled(json.dumps(schema, sort_keys=False)))
        self.decode = ll_tokenizer.decode_bytes
        self.matcher = self.make(json_schema())
        self.tokens: list[int] = []
        self.stands: tuple[str, ...] | None = None  # phrases that the grammar knows of; None before the turn

    def take(self, token: int) -> None:
        """Go on by one token."""
        if self.matcher.is_stopped():
            return
        self.matcher.consume_token(token)
        self.tokens.append(token)
        text = self.decode(self.tokens).decode("utf-8", errors="replace")
        head, turned, rest = text.partition(TURN)
        if turned and (phrases := tuple(written(rest))) != self.stands:
            self.stands = phrases
            self.matcher = self.make(rest_schema(head, phrases))
            self.matcher.consume_tokens(self.tokens)


class SummaryGrammar(LogitsProcessor):
    """Lets only tokens pass that continue a summary; for `generate`, one matcher a row.

    Args:
        ll_tokenizer: see `grammar_tokenizer`.
        rows: of the batch.
        prompt_length: of the padded prompt; what is behind it was generated.
    """

    def __init__(self, ll_tokenizer, rows: int, prompt_length: int, eos: int):
        self.rows = [_Row(ll_tokenizer) for _ in range(rows)]
        self.seen, self.eos, self.width = prompt_length, eos, ll_tokenizer.vocab_size

    def allowed(self, row: _Row) -> np.ndarray:
        """bool `[V]`: the tokens that may come next."""
        if row.matcher.is_stopped():
            return np.arange(self.width) == self.eos
        # llguidance's own torch kernel does the same under torch.compile, which takes half a minute to warm up.
        bits = np.frombuffer(row.matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little")[: self.width].astype(bool)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """ids `[B, L]`, scores `[B, V]` -> scores with -inf where the grammar forbids."""
        for column in input_ids[:, self.seen :].T.tolist():
            for row, token in zip(self.rows, column, strict=True):
                row.take(token)
        self.seen = input_ids.shape[1]
        masks = torch.from_numpy(np.stack([self.allowed(row) for row in self.rows])).to(scores.device)
        return scores.masked_fill(~masks, float("-inf"))
