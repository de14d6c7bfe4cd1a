"""Decoding under a grammar made from the schema, so that every answer is a good summary (llguidance).

A JSON schema cannot say that a SAM3 phrase is made from a listed thing. So a row changes its grammar once, when its
things are written: what stands is fixed from then on, and a phrase is one of those that its things allow.
"""

import json
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from qwenlab.thinkseg.summary import MAX_PHRASE_TOKENS, Entity, json_schema, phrase_tokens

OPTIONS: Any = {"whitespace_flexible": False}  # free blanks would let a weak model write nothing else
TURN = ',"emotion":'  # once this is written, the things are known


@lru_cache(maxsize=4096)
def _compiled(schema: str) -> str:
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(schema, defaults=OPTIONS)


def grammar_tokenizer(tokenizer, vocab: int):
    """The tokenizer as llguidance knows it; `vocab` is the width of the logits, which may be padded."""
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer, n_vocab=vocab, eos_token=tokenizer.eos_token_id)


def rest_schema(head: str) -> dict:
    """The schema of a whole summary whose beginning, up to the things, is written.

    Args:
        head: JSON text up to `TURN`, without it.
    """
    said = json.loads(f"{head}}}")
    things = [Entity.model_construct(**thing) for part in ("primary", "secondary") for thing in said[part]]
    phrases = list(dict.fromkeys(phrase for thing in things for phrase in thing.phrases()))
    short = [phrase for phrase in phrases if phrase_tokens(phrase) <= MAX_PHRASE_TOKENS]
    whole = json_schema()["anyOf"][0]["properties"]
    properties = {key: {"const": said[key]} for key in ("key_points", "primary", "secondary")}
    properties |= {
        "emotion": whole["emotion"],
        "sam3_phrases": {"type": "array", "minItems": 1, "maxItems": len(things), "items": {"enum": short or phrases}},
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
        self.turned = False

    def take(self, token: int) -> None:
        """Go on by one token."""
        if self.matcher.is_stopped():
            return
        self.matcher.consume_token(token)
        self.tokens.append(token)
        if not self.turned:
            text = self.decode(self.tokens).decode("utf-8", errors="replace")
            if TURN in text:
                self.turned = True
                self.matcher = self.make(rest_schema(text.partition(TURN)[0]))
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
