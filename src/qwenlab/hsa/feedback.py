"""Feedback masking: only what follows `<|feedback|>` is learnt (seed 003, background 2 and 1.3).

A trajectory that went wrong, was told so and was put right holds that token where the telling begins. In the third
stage of training (Embodied-Reasoner) only the part behind it counts, so all labels up to and including it become -100.

The seed's sketch does this inside `try: ... except: pass`: a tokenizer without the token, or a sample without it,
then silently trains on everything. Here both are errors unless somebody asks for something else.
"""

from collections.abc import Sequence
from typing import Literal, overload

import torch

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params
from qwenlab.hsa.semantics import IGNORE_INDEX

FEEDBACK_TOKEN = "<|feedback|>"
Occurrence = Literal["first", "last"]
Missing = Literal["error", "mask", "keep"]


class Feedback(Params):
    """How labels are masked at the feedback token."""

    occurrence: Occurrence = "first"  # which one counts where a trajectory was told more than once
    missing: Missing = "error"  # an example without one: refuse it, learn nothing from it, or learn all of it


class NothingToLearn(UserError):
    """An example without a label to learn from; `reason` groups such examples when they are counted."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def single_token(tokenizer, token: str, hint: str) -> int:
    """The id of `token`, if the tokenizer reads it as that one token.

    `encode(token)[0]` alone is a trap: a tokenizer that lacks it gives the id of "<".

    Raises:
        UserError: when the text becomes several tokens or the unknown one; `hint` says what to do then.
    """
    ids = tokenizer.encode(token, add_special_tokens=False)
    if ids != [tokenizer.convert_tokens_to_ids(token)] or ids[0] == tokenizer.unk_token_id:
        raise UserError(f"the tokenizer reads {token} as {len(ids)} tokens {ids[:8]}; expected one of its own. {hint}")
    return ids[0]


def feedback_token_id(tokenizer) -> int:
    """The id of `<|feedback|>`.

    Raises:
        UserError: when the tokenizer lacks it as one token.
    """
    return single_token(tokenizer, FEEDBACK_TOKEN, "Add it with add_feedback_token.")


def add_feedback_token(tokenizer, model=None) -> int:
    """Teach the tokenizer, and the model if given, the feedback token; a second call changes nothing.

    New rows of the input and output embeddings start at the mean of the tokens that were there before. Qwen's
    matrices have more rows than its tokenizer has tokens, so a row is often there already: the matrix is never cut.

    Args:
        tokenizer: changed in place; save it with the model.
        model: a causal model; changed in place.

    Returns:
        the id of the token.
    """
    before = len(tokenizer)
    # add_special_tokens would by default replace the list of the other special tokens.
    added = tokenizer.add_tokens([FEEDBACK_TOKEN], special_tokens=True)
    if model is not None:
        rows = model.get_input_embeddings().weight.shape[0]
        if rows < len(tokenizer):
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        # A row that exists although the token is old may be trained: it stays.
        start = min(before, rows) if added else rows
        with torch.no_grad():
            for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
                if layer is not None and start < len(tokenizer):
                    layer.weight[start : len(tokenizer)] = layer.weight[:start].float().mean(0).to(layer.weight.dtype)
    return feedback_token_id(tokenizer)


@overload
def feedback_labels(
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    feedback_id: int,
    occurrence: Occurrence = ...,
    missing: Missing = ...,
) -> torch.Tensor: ...
@overload
def feedback_labels(
    input_ids: Sequence[int],
    labels: Sequence[int],
    feedback_id: int,
    occurrence: Occurrence = ...,
    missing: Missing = ...,
) -> list[int]: ...
def feedback_labels(input_ids, labels, feedback_id, occurrence="first", missing="error"):
    """Labels that count only behind the feedback token, of one example, before packing.

    Args:
        input_ids: `[L]`, a list or a tensor; left as it is.
        labels: `[L]`; left as they are.
        feedback_id: see `feedback_token_id`.
        occurrence: which token counts when there are several.
        missing: what becomes of an example without one: an error, no labels at all, or all of them.

    Returns:
        labels `[L]`, IGNORE_INDEX up to and including that token; a tensor if `labels` are one, else a list.

    Raises:
        UserError: on a missing token, on shapes other than `[L]` twice, on an unknown `occurrence` or `missing`.
    """
    if occurrence not in ("first", "last") or missing not in ("error", "mask", "keep"):
        raise UserError(f"occurrence {occurrence!r}, missing {missing!r}; expected first, last and error, mask, keep.")
    ids, masked = torch.as_tensor(input_ids), torch.as_tensor(labels).clone()
    if ids.ndim != 1 or ids.shape != masked.shape:
        raise UserError(
            f"input_ids {list(ids.shape)}, labels {list(masked.shape)}; expected one example, both of the same length."
        )
    found = (ids == feedback_id).nonzero().flatten()
    if len(found):
        masked[: int(found[0 if occurrence == "first" else -1]) + 1] = IGNORE_INDEX
    elif missing == "mask":
        masked[:] = IGNORE_INDEX
    elif missing == "error":
        raise NothingToLearn(
            f"no {FEEDBACK_TOKEN} (id {feedback_id}) among {len(ids)} tokens.", "without the feedback token"
        )
    return masked if isinstance(labels, torch.Tensor) else masked.tolist()
