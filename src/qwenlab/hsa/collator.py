"""Examples of unequal length as one batch: feedback masking and semantic ids together (seed 003, 1.3).

    collator = HSACollator(tokenizer, feedback=Feedback())
    batch = collator(examples)          # input_ids, labels, semantic_ids, attention_mask  [B, L]

With `transformers.Trainer`, set `remove_unused_columns=False`: `semantic_ids` are no argument of a model's `forward`,
and Trainer would take them away before they get here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qwenlab.core.errors import UserError
from qwenlab.hsa.encoding import check_aligned
from qwenlab.hsa.feedback import Feedback, feedback_labels, feedback_token_id
from qwenlab.hsa.semantics import GLOBAL, IGNORE_INDEX, check_semantic_ids

TOKENWISE = ("input_ids", "labels", "semantic_ids", "attention_mask", "position_ids", "mm_token_type_ids")
PIXELS = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")


@dataclass
class HSACollator:
    """Pads what counts by token on the tokenizer's `padding_side`, and joins the images of a batch, if any.

    Attributes:
        tokenizer: its `padding_side` and `pad_token_id` are read at every call, because Trainer and generation
            change the side.
        feedback: mask labels up to the feedback token here, as the seed has it. `encode(feedback=...)` is the better
            place: it also sees what truncation takes away.
    """

    tokenizer: Any
    feedback: Feedback | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch; the features are left as they are.

        Args:
            features: input_ids and labels `[L_i]`, lists or tensors; semantic_ids, attention_mask and position_ids in
                all of them or in none; images as Qwen's processors give them.

        Returns:
            the same keys `[B, L]`, L the longest. Padding has labels IGNORE_INDEX, attention 0, positions that start
            again, and the type GLOBAL: its bias is 0, so padding rows are what the stock model makes of them,
            whereas a NOISE row might see no key at all and become NaN. If a feature is packed (its position_ids start
            again) there is no attention_mask: with one, transformers would no longer tell documents apart. Padding
            is then a document of its own.

        Raises:
            UserError: on lengths that differ within a feature, keys that only some features have or nobody knows, bad
                semantic ids, a batch without a single label, and with `feedback` on a missing token or a packed row.
        """
        rows = [_tensors(feature, f"feature {n}") for n, feature in enumerate(features)]
        if not rows:
            raise UserError("an empty batch; expected at least one feature.")
        packed = any(_restarts(row) for row in rows)
        if self.feedback is not None:
            rows = [self._behind_feedback(row, f"feature {n}") for n, row in enumerate(rows)]
        keys = _shared_keys(rows)
        if packed:
            keys = [key for key in keys if key != "attention_mask"]
        elif "attention_mask" not in keys:
            keys.append("attention_mask")
            rows = [{**row, "attention_mask": torch.ones_like(row["input_ids"])} for row in rows]
        batch = {key: self._padded([row[key] for row in rows], key) for key in keys}
        batch |= {key: torch.cat(found) for key in PIXELS if (found := [row[key] for row in rows if key in row])}
        if "semantic_ids" in batch:
            batch["semantic_ids"] = check_semantic_ids(batch["semantic_ids"], batch["input_ids"].shape).long()
        # The first label of a row is never predicted. A batch without any other has the loss 0/0.
        if not (batch["labels"][:, 1:] != IGNORE_INDEX).any():
            raise UserError(f"a batch of {len(rows)} features without a single label; expected something to learn.")
        return batch

    def _behind_feedback(self, row: dict[str, torch.Tensor], at: str) -> dict[str, torch.Tensor]:
        if _restarts(row):
            # One token's mask would reach over all documents to its left.
            raise UserError(f"{at}: it is packed; expected feedback masking before packing, by encode(feedback=...).")
        assert self.feedback is not None
        options = self.feedback.occurrence, self.feedback.missing
        try:
            labels = feedback_labels(row["input_ids"], row["labels"], feedback_token_id(self.tokenizer), *options)
        except UserError as error:
            raise UserError(f"{at}: {error.message}") from error
        return {**row, "labels": labels}

    def _padded(self, rows: list[torch.Tensor], key: str) -> torch.Tensor:
        """[B, L] of B rows `[L_i]`."""
        side = self.tokenizer.padding_side
        if side not in ("left", "right") or self.tokenizer.pad_token_id is None:
            raise UserError(
                f"the tokenizer's padding_side is {side!r}, its pad_token_id {self.tokenizer.pad_token_id}; "
                "expected left or right, and a token."
            )
        length = max(len(row) for row in rows)
        values = {"input_ids": self.tokenizer.pad_token_id, "labels": IGNORE_INDEX, "semantic_ids": GLOBAL}
        batch = []
        for row in rows:
            padding = row.new_full((length - len(row),), values.get(key, 0))
            if key == "position_ids":
                padding = torch.arange(len(padding), dtype=row.dtype)
            batch.append(torch.cat([padding, row] if side == "left" else [row, padding]))
        return torch.stack(batch)


def _tensors(feature: Mapping[str, Any], at: str) -> dict[str, torch.Tensor]:
    """A feature as tensors, aligned."""
    if unknown := [key for key in feature if key not in TOKENWISE + PIXELS]:
        raise UserError(f"{at}: key {unknown[0]!r} is unknown; expected some of {', '.join(TOKENWISE + PIXELS)}.")
    row = {}
    for key, value in feature.items():
        try:
            row[key] = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{at}: {key} cannot be made a tensor ({error}).") from error
        if key in TOKENWISE and row[key].ndim != 1:
            raise UserError(f"{at}: {key} has the shape {list(row[key].shape)}; expected [L], one example.")
    check_aligned(row, at)
    return row


def _restarts(row: dict[str, torch.Tensor]) -> bool:
    """Whether position_ids start again: several documents in one row."""
    return "position_ids" in row and bool((row["position_ids"].diff() != 1).any())


def _shared_keys(rows: list[dict[str, torch.Tensor]]) -> list[str]:
    """What counts by token and stands in every feature."""
    for key in TOKENWISE:
        without = [n for n, row in enumerate(rows) if key not in row]
        if 0 < len(without) < len(rows):
            raise UserError(
                f"feature {without[0]} has no {key}, others have; expected them in all of a batch or in none."
            )
    return [key for key in TOKENWISE if key in rows[0]]
