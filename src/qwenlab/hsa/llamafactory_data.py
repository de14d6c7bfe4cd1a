"""What takes the place of LLaMA-Factory's converter and processors (seed 003, 1.2).

Types stay aligned by construction: a token id is an `int` that knows its type. So LLaMA-Factory's own truncation, its
reversal for mask_history and its packing move both as one thing, and nothing of that code is copied here. Images are
expanded before LLaMA-Factory tokenizes, so their placeholders have the type of their message. The header of an answer
(`<|im_start|>assistant`) has the type of the message before it, of which LLaMA-Factory's templates make it a part.

Imported by `qwenlab.hsa.llamafactory` alone, because these classes need LLaMA-Factory when they are defined.
"""

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamafactory.data.converter import SharegptDatasetConverter
from llamafactory.data.processor import PackedSupervisedDatasetProcessor, SupervisedDatasetProcessor
from llamafactory.extras import logging

from qwenlab.core.errors import UserError
from qwenlab.core.params import shown
from qwenlab.hsa.feedback import FEEDBACK_TOKEN, Feedback, feedback_labels, feedback_token_id
from qwenlab.hsa.semantics import DEFAULT_TYPE, GLOBAL, IGNORE_INDEX, type_id

FORMATTING = "sharegpt_hsa"
TYPES_COLUMN = "_semantic_types"  # of an aligned dataset: the system's type, then one a message

logger = logging.get_logger(__name__)


class Token(int):
    """A token id and its type."""

    kind: int


def typed(ids: Sequence[int], kind: int) -> list[int]:
    """`ids` with a type; those that have one keep it. Every token is an object of its own."""
    tokens: list[int] = []
    for token in ids:
        if not isinstance(token, Token):
            token = Token(token)
            token.kind = kind
        tokens.append(token)
    return tokens


@dataclass
class TypedSharegptConverter(SharegptDatasetConverter):
    """ShareGPT messages with a semantic type each; `"formatting": "sharegpt_hsa"` in dataset_info.json."""

    semantic_tag: str = "semantic_type"

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        """The aligned example of LLaMA-Factory, and the column `_semantic_types`.

        Raises:
            UserError: on an unknown type, or when no message of the file has one.
        """
        output = super().__call__(example)
        names, messages = self.dataset_attr, example[self.dataset_attr.messages]
        kinds = [self._kind(message, n) for n, message in enumerate(messages, start=1)]
        if not (names.system_tag and messages and messages[0][names.role_tag] == names.system_tag):
            kinds = [type_id(DEFAULT_TYPE), *kinds]
        # A record that LLaMA-Factory calls abnormal has no prompt; it is skipped later.
        output[TYPES_COLUMN] = kinds if output["_prompt"] else []
        return output

    def _kind(self, message: Mapping[str, Any], number: int) -> int:
        # datasets fills in null where a message lacks a key that another one of the file has.
        if self.semantic_tag not in message:
            raise UserError(
                f"dataset {self.dataset_attr}: no message has {self.semantic_tag}; found {', '.join(message)}. "
                'Name the key in hsa.semantic_tag, or use "formatting": "sharegpt".'
            )
        name = message[self.semantic_tag]
        at = f"dataset {self.dataset_attr}, message {number}: {self.semantic_tag}"
        return type_id(DEFAULT_TYPE if name is None else name, at)


class _TypedTemplate:
    """Before one of LLaMA-Factory's template classes: gives every token its type."""

    kinds: list[int]  # of the system prompt, then of every message
    feedback_id: int | None
    occurrence: str
    feedback_token: int | None = None  # the very token at which labels are masked, wherever it goes from here

    def _encode(self, tokenizer: Any, messages: list, system: str | None, tools: str | None) -> list[list[int]]:
        encoded = super()._encode(tokenizer, messages, system, tools)  # type: ignore[misc]
        if len(encoded) != len(self.kinds) - 1:
            raise UserError(f"{len(encoded)} messages for {len(self.kinds) - 1} semantic types; expected as many.")
        first = self._system_ids(tokenizer, system, tools)
        together = encoded[0][: len(first)] != first
        if together and self.kinds[0] != self.kinds[1]:
            raise UserError(
                "this template joins the system prompt with the first message, which has another semantic type; "
                "expected the same one."
            )
        encoded = [typed(ids, kind) for ids, kind in zip(encoded, self.kinds[1:], strict=True)]
        if not together:
            encoded[0][: len(first)] = typed(first, self.kinds[0])
        return encoded

    def _system_ids(self: Any, tokenizer: Any, system: str | None, tools: str | None) -> list[int]:
        """What stands before the first message."""
        elements = [*self.format_prefix.apply()]
        if (system := system or self.default_system) or tools:
            tool_text = self.format_tools.apply(content=tools)[0] if tools else ""
            elements += self.format_system.apply(content=system + tool_text)
        return self._convert_elements_to_ids(tokenizer, elements)

    def encode_multiturn(self, *args: Any, **kwargs: Any) -> list[tuple[list[int], list[int]]]:
        # Some templates add empty thoughts after _encode: they belong to the answer.
        pairs = [
            (typed(source, kind), typed(target, kind))
            for (source, target), kind in zip(
                super().encode_multiturn(*args, **kwargs),  # type: ignore[misc]
                self.kinds[2::2],
                strict=True,
            )
        ]
        found = [token for pair in pairs for ids in pair for token in ids if token == self.feedback_id]
        if found:
            self.feedback_token = found[0 if self.occurrence == "first" else -1]
        return pairs


@functools.cache
def _typed_class(template: type) -> type:
    return type(f"Typed{template.__name__}", (_TypedTemplate, template), {})


@dataclass
class _TypedProcessor:
    """Before one of LLaMA-Factory's processors: semantic ids, and feedback masking before packing."""

    hsa: bool = False
    feedback: Feedback | None = None

    def preprocess_dataset(self, examples: Mapping[str, list]) -> dict[str, list]:
        """Rows of LLaMA-Factory with `semantic_ids`, as long as `input_ids`.

        With feedback.missing "mask", rows without a label are left out: they teach nothing, and a batch of them would
        have the loss 0/0.

        Raises:
            UserError: on data without types, and see `feedback_labels`.
        """
        columns = {key: examples[key] for key in examples}
        if self.hsa and TYPES_COLUMN not in columns:
            raise UserError(f'hsa is on, but the dataset has no types; set "formatting": "{FORMATTING}" in its info.')
        kinds = columns.get(TYPES_COLUMN) or [None] * len(columns["_prompt"])
        columns["_prompt"] = [
            # Untyped examples stand beside typed ones where several datasets are mixed.
            [{**message, TYPES_COLUMN: types} for message in prompt]
            for prompt, types in zip(columns["_prompt"], kinds, strict=True)
        ]
        rows = super().preprocess_dataset(columns)  # type: ignore[misc]
        if self.hsa:
            rows["semantic_ids"] = [[getattr(token, "kind", GLOBAL) for token in row] for row in rows["input_ids"]]
        for key in ("input_ids", "labels"):
            rows[key] = [[int(token) for token in row] for row in rows[key]]
        if self.feedback is not None and self.feedback.missing == "mask":
            live = [any(label != IGNORE_INDEX for label in row[1:]) for row in rows["labels"]]
            if not all(live):
                logger.warning_rank0(f"{live.count(False)} of {len(live)} rows have nothing to learn; left out.")
            rows = {key: [row for row, keep in zip(column, live, strict=True) if keep] for key, column in rows.items()}
        return rows

    def _encode_data_example(self, prompt: list, response: list, **kwargs: Any) -> tuple[list[int], list[int]]:
        kinds = prompt[0][TYPES_COLUMN] or [GLOBAL] * (1 + len(prompt) + len(response))
        prompt = [{key: value for key, value in message.items() if key != TYPES_COLUMN} for message in prompt]
        processor: Any = self
        plain, template = processor.template, copy.copy(processor.template)
        template.__class__ = _typed_class(plain.__class__)
        template.kinds, template.feedback_id, template.occurrence = kinds, None, "first"
        if self.feedback is not None:
            template.feedback_id, template.occurrence = feedback_token_id(processor.tokenizer), self.feedback.occurrence
        processor.template = template
        try:
            input_ids, labels = super()._encode_data_example(prompt, response, **kwargs)  # type: ignore[misc]
        finally:
            processor.template = plain
        if not any(isinstance(token, Token) for token in input_ids):
            raise UserError("LLaMA-Factory made tokens without Template.encode_multiturn; expected version 0.9.5.")
        input_ids = typed(input_ids, kinds[-1])  # what is left is the end token of some templates
        if self.feedback is not None:
            labels = self._behind_feedback(template, input_ids, labels, shown(prompt[0]["content"]))
        return input_ids, labels

    def _behind_feedback(self, template: Any, input_ids: list[int], labels: list[int], text: str) -> list[int]:
        assert self.feedback is not None
        occurrence, missing = self.feedback.occurrence, self.feedback.missing
        mark, silent = template.feedback_token, [IGNORE_INDEX] * len(labels)
        at = f"the example that starts with {text}"
        if mark is not None and not any(token is mark for token in input_ids):
            if missing == "mask":
                return silent
            raise UserError(f"{at}: {FEEDBACK_TOKEN} is cut away by cutoff_len; expected a longer one.")
        try:
            plain = [int(token) for token in input_ids], [int(label) for label in labels]
            masked = feedback_labels(*plain, template.feedback_id, occurrence, missing)
        except UserError as error:
            # Not the error itself: `datasets` sends it from its own processes, so it must survive pickle.
            raise UserError(f"{at}: {error.message}") from error
        if masked[1:] == silent[1:] and missing != "mask":
            raise UserError(f"{at}: no label is left behind {FEEDBACK_TOKEN}; expected an answer within cutoff_len.")
        return masked


@dataclass
class TypedSupervised(_TypedProcessor, SupervisedDatasetProcessor):
    """One example a row."""


@dataclass
class TypedPacked(_TypedProcessor, PackedSupervisedDatasetProcessor):
    """Several examples a row."""
