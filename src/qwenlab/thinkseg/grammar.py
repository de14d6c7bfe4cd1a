"""Decoding under a grammar made from the schema, so that every answer is a good summary (llguidance).

A JSON schema cannot say that a SAM3 phrase is made from a listed thing. So a row changes its grammar once, when its
things are written: what stands is fixed from then on, and a phrase is one of those that its things allow.
"""

import json
from functools import lru_cache

import torch
from transformers import LogitsProcessor

from qwenlab.thinkseg.summary import Entity, json_schema

OPTIONS = {"whitespace_flexible": False}  # free blanks would let a weak model write nothing else
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
    whole = json_schema()["anyOf"][0]["properties"]
    properties = {key: {"const": said[key]} for key in ("key_points", "primary", "secondary")}
    properties |= {
        "emotion": whole["emotion"],
        "sam3_phrases": {"type": "array", "minItems": 1, "maxItems": len(things), "items": {"enum": phrases}},
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
        from llguidance.torch import allocate_token_bitmask

        self.rows = [_Row(ll_tokenizer) for _ in range(rows)]
        self.seen, self.eos = prompt_length, eos
        self.bits = allocate_token_bitmask(rows, ll_tokenizer.vocab_size)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """ids `[B, L]`, scores `[B, V]` -> scores with -inf where the grammar forbids."""
        from llguidance.torch import apply_token_bitmask_inplace, fill_next_token_bitmask

        for column in input_ids[:, self.seen :].T.tolist():
            for row, token in zip(self.rows, column, strict=True):
                row.take(token)
        self.seen = input_ids.shape[1]
        for index, row in enumerate(self.rows):
            if row.matcher.is_stopped():
                self.bits[index] = 0
                self.bits[index, self.eos // 32] |= 1 << (self.eos % 32) if self.eos % 32 < 31 else -(1 << 31)
            else:
                fill_next_token_bitmask(row.matcher, self.bits, index)
        scores = scores.clone()
        apply_token_bitmask_inplace(scores, self.bits.to(scores.device))
        return scores
