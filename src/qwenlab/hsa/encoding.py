"""Conversations as tokens, labels and semantic ids (seed 003, 1.2: the supervised processor).

    examples, dropped = encode_all(tokenizer, conversations, cutoff=2048)
    rows = pack(examples, cutoff=2048)

Every token gets its type where it gets its id, so both go through truncation, packing and expansion as one thing.
The order matters: encode (feedback, then truncation), expand placeholders, pack, collate.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qwenlab.core.errors import UserError
from qwenlab.hsa.conversations import Conversation, Message
from qwenlab.hsa.feedback import Feedback, NothingToLearn, feedback_labels, feedback_token_id, single_token
from qwenlab.hsa.semantics import IGNORE_INDEX

Example = dict[str, list[int]]
START, END = "<|im_start|>", "<|im_end|>"
ALIGNED = ("input_ids", "labels", "semantic_ids", "attention_mask")


def encode(
    tokenizer,
    conversation: Conversation,
    cutoff: int,
    mask_history: bool = False,
    train_on_prompt: bool = False,
    feedback: Feedback | None = None,
) -> Example:
    """One conversation in ChatML, `<|im_start|>role\\n...<|im_end|>\\n` a message, and nothing before or behind.

    No system message is invented. A tool's message is a user's with <tool_response> round it, as in Qwen's own
    template. The marks of a message have its type. Labels stand on what the assistant writes: content and <|im_end|>.

    Args:
        tokenizer: with the ChatML marks, and the feedback token if that is asked for, as single tokens.
        conversation: see `conversations.conversation`.
        cutoff: at most so many tokens; the first ones remain, whatever is to the right of them is lost.
        mask_history: labels on the last assistant turn only.
        train_on_prompt: labels on every token.
        feedback: mask labels up to the feedback token of the whole conversation, before it is cut.

    Returns:
        input_ids, labels, semantic_ids, attention_mask: lists `[L]`, L <= cutoff.

    Raises:
        NothingToLearn: (a UserError) when the feedback token is missing, or the cutoff leaves no label or cuts the
            feedback token away.
        UserError: on ChatML's marks inside a message or unknown to the tokenizer, and options that make no sense.
    """
    at = conversation.at
    if cutoff < 1:
        raise UserError(f"cutoff is {cutoff}; expected at least 1 token.")
    if mask_history and train_on_prompt:
        raise UserError("mask_history and train_on_prompt exclude each other; expected one of them.")
    ids: list[int] = []
    labels: list[int] = []
    types: list[int] = []
    answers = [n for n, message in enumerate(conversation.messages) if message.role == "assistant"]
    learnt = answers[-1:] if mask_history else answers
    for n, message in enumerate(conversation.messages):
        for text, written in _pieces(message):
            tokens = tokenizer.encode(text, add_special_tokens=False)
            live = train_on_prompt or (written and n in learnt)
            ids += tokens
            labels += tokens if live else [IGNORE_INDEX] * len(tokens)
            types += [message.semantic_id] * len(tokens)
    for mark in (START, END):
        known = single_token(tokenizer, mark, "Use a tokenizer for ChatML, such as Qwen's.")
        if ids.count(known) != len(conversation.messages):
            raise UserError(f"{at}: a message holds {mark}; expected text without the marks of ChatML.")
    if feedback is not None:
        feedback_id = feedback_token_id(tokenizer)
        try:
            labels = feedback_labels(ids, labels, feedback_id, feedback.occurrence, feedback.missing)
        except NothingToLearn as error:
            raise NothingToLearn(f"{at}: {error.message}", error.reason) from error
        # Looked for before the cut: the last one that remains need not be the last one that there was.
        found = [n for n, token in enumerate(ids) if token == feedback_id]
        if found and (spot := found[0 if feedback.occurrence == "first" else -1]) >= cutoff:
            raise NothingToLearn(
                f"{at}: <|feedback|> is token {spot + 1} of {len(ids)}, cut away by the cutoff of {cutoff}.",
                "with the feedback token cut away",
            )
    example = dict(zip(ALIGNED, (ids, labels, types, [1] * len(ids)), strict=True))
    return _cut(example, cutoff, at)


def encode_all(
    tokenizer, conversations: Iterable[Conversation], cutoff: int, drop: bool = False, **options: Any
) -> tuple[list[Example], Counter[str]]:
    """`encode` for a data set, with its `options`.

    Args:
        drop: leave out and count the conversations that teach nothing, instead of stopping at the first one.

    Returns:
        the examples, and how many conversations were dropped, by reason.

    Raises:
        UserError: see `encode`; and when nothing is left.
    """
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    for conversation in conversations:
        try:
            examples.append(encode(tokenizer, conversation, cutoff, **options))
        except NothingToLearn as error:
            if not drop:
                raise
            dropped[error.reason] += 1
    if not examples:
        reasons = "; ".join(f"{count} {reason}" for reason, count in dropped.items()) or "there was none"
        raise UserError(f"no conversation is left to learn from ({reasons}).")
    return examples, dropped


def _cut(example: Example, cutoff: int, at: str) -> Example:
    """The first `cutoff` tokens; an error if that takes the last label away."""
    live = [n for n, label in enumerate(example["labels"]) if label != IGNORE_INDEX and n > 0]  # none predicts token 0
    if live and live[0] >= cutoff:
        raise NothingToLearn(
            f"{at}: its first label is token {live[0] + 1} of {len(example['labels'])}, cut away by the cutoff of "
            f"{cutoff}; expected a cutoff that leaves something to learn.",
            "with all labels cut away",
        )
    return {key: values[:cutoff] for key, values in example.items()}


def _pieces(message: Message) -> list[tuple[str, bool]]:
    """A message as texts that are tokenized each by itself, and whether a model writes it.

    The prompt ends where generation begins, so "\\n" behind `assistant` never merges with an answer's first token.
    Elsewhere a mark and a text are one piece, as they are when a whole prompt is tokenized.
    """
    if message.role == "assistant":
        return [(f"{START}assistant\n", False), (message.content + END, True), ("\n", False)]
    if message.role == "tool":
        return [(f"{START}user\n<tool_response>\n{message.content}\n</tool_response>{END}\n", False)]
    return [(f"{START}{message.role}\n{message.content}{END}\n", False)]


def check_aligned(example: Mapping[str, Any], at: str) -> None:
    """That input_ids and labels are there, and all that counts by token has their length.

    Raises:
        UserError: otherwise, naming `at`, the key and the lengths.
    """
    for key in ("input_ids", "labels"):
        if key not in example:
            raise UserError(f"{at}: {key} is missing; found {', '.join(example) or 'nothing'}.")
    length = len(example["input_ids"])
    for key in (*ALIGNED, "position_ids", "mm_token_type_ids"):
        if key in example and len(example[key]) != length:
            raise UserError(f"{at}: {len(example[key])} {key} for {length} input_ids; expected as many.")


def _check_plain(example: Example, at: str) -> None:
    check_aligned(example, at)
    strange = sorted(example.keys() - set(ALIGNED))
    if strange or 0 in example.get("attention_mask", ()):
        raise UserError(
            f"{at}: it has {', '.join(strange) or 'padding'}; expected one of encode, not packed or padded."
        )


def expand_placeholders(
    example: Example, token_id: int, counts: Sequence[int], cutoff: int | None = None, at: str = "the example"
) -> Example:
    """Every placeholder of an image becomes as many tokens as the vision tower gives for it.

    Args:
        example: of `encode`; left as it is.
        token_id: the placeholder's, such as <|image_pad|>'s.
        counts: tokens an image, in the order of the placeholders.
        cutoff: cut the longer example on the right again; an image is never cut.

    Returns:
        the longer example; new tokens have the placeholder's semantic type and no label.

    Raises:
        UserError: when there are more or fewer images than placeholders (a cutoff may have taken them), a count below
            1, an image beyond the cutoff, a packed example, or (NothingToLearn) no label left by the cutoff.
    """
    _check_plain(example, at)
    places = [n for n, token in enumerate(example["input_ids"]) if token == token_id]
    if len(places) != len(counts):
        raise UserError(
            f"{at}: {len(counts)} images for {len(places)} placeholders among {len(example['input_ids'])} tokens; "
            "expected as many (the cutoff may have taken some)."
        )
    if low := [count for count in counts if count < 1]:
        raise UserError(f"{at}: an image of {low[0]} tokens; expected at least 1.")
    repeats = [1] * len(example["input_ids"])
    for place, count in zip(places, counts, strict=True):
        repeats[place] = count
    expanded = {
        key: [value for value, repeat in zip(values, repeats, strict=True) for _ in range(repeat)]
        for key, values in example.items()
    }
    silent = [token == token_id for token in expanded["input_ids"]]
    expanded["labels"] = [IGNORE_INDEX if s else label for s, label in zip(silent, expanded["labels"], strict=True)]
    if cutoff is None:
        return expanded
    if any(silent[cutoff:]):
        raise UserError(f"{at}: its images reach beyond the cutoff of {cutoff}; expected them to end before it.")
    return _cut(expanded, cutoff, at)


def pack(examples: Sequence[Example], cutoff: int) -> list[Example]:
    """Several examples a row, each in the first row with room for it (greedy first fit, in the given order).

    There is no attention mask: transformers tells documents apart by position_ids that start again, and only
    without an attention mask and without a cache (`use_cache=False`, as Trainer has it).

    Args:
        examples: of `encode`, not packed and not padded; left as they are.
        cutoff: tokens a row, at most.

    Returns:
        rows of input_ids, labels, position_ids, and semantic_ids if the examples have them.

    Raises:
        UserError: on an example longer than the cutoff, packed or padded before, or with other keys than the first.
    """
    rows: list[Example] = []
    roomy: list[Example] = []
    shortest = min((len(example["input_ids"]) for example in examples), default=0)
    for n, example in enumerate(examples, start=1):
        at = f"example {n} of {len(examples)}"
        _check_plain(example, at)
        length = len(example["input_ids"])
        if length > cutoff:
            raise UserError(f"{at}: {length} tokens; expected at most the cutoff of {cutoff}.")
        if ("semantic_ids" in example) != ("semantic_ids" in examples[0]):
            raise UserError(f"{at}: semantic_ids only in it or only in example 1; expected them in all or none.")
        row = next((row for row in roomy if len(row["input_ids"]) + length <= cutoff), None)
        if row is None:
            row = {key: [] for key in (*ALIGNED[:3], "position_ids") if key in example or key == "position_ids"}
            rows.append(row)
            roomy.append(row)
        for key in row.keys() - {"position_ids"}:
            row[key] += example[key]
        # Or the end of one document would learn to predict the start of the next.
        row["labels"][-length] = IGNORE_INDEX
        row["position_ids"] += range(length)
        roomy = [row for row in roomy if len(row["input_ids"]) + shortest <= cutoff]
    return rows
