"""What takes the place of LLaMA-Factory's collator: feedback and semantic ids together (seed 003, 1.3).

Imported by `qwenlab.hsa.llamafactory` alone, because the class needs LLaMA-Factory when it is defined.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from llamafactory.data.collator import SFTDataCollatorWith4DAttentionMask

from qwenlab.core.errors import UserError
from qwenlab.hsa.feedback import Feedback, feedback_labels, feedback_token_id
from qwenlab.hsa.semantics import IGNORE_INDEX, check_semantic_ids


@dataclass
class TypedCollator(SFTDataCollatorWith4DAttentionMask):
    """Pads semantic ids as LLaMA-Factory pads input ids, and masks labels up to the feedback token (seed 003, 1.3)."""

    hsa: bool = False
    feedback: Feedback | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """LLaMA-Factory's batch and `semantic_ids` `[B, L]`; padding is GLOBAL. The features are left as they are.

        Raises:
            UserError: on features without semantic ids or with bad ones, see `feedback_labels`, and on a batch without
                a single label.
        """
        rows = [dict(feature) for feature in features]
        types = [row.pop("semantic_ids", None) for row in rows]
        # LLaMA-Factory pads the rows to a multiple of 8, but not these, and fails where that differs.
        positions = [row.pop("position_ids", None) for row in rows]
        for n, row in enumerate(rows):
            length, own = len(row["input_ids"]), types[n]
            if self.hsa and (own is None or len(own) != length):
                found = "no" if own is None else len(own)
                raise UserError(f"feature {n}: {found} semantic_ids for {length} input_ids; was hsa on for them?")
            # Packed rows have position_ids, and were masked example by example: here, a mask would reach too far.
            if self.feedback is not None and positions[n] is None:
                token = feedback_token_id(self.tokenizer)
                options = self.feedback.occurrence, self.feedback.missing
                try:
                    row["labels"] = feedback_labels(list(row["input_ids"]), list(row["labels"]), token, *options)
                except UserError as error:
                    raise UserError(f"feature {n}: {error.message}") from error
        batch = super().__call__(rows)
        if not (batch["labels"][:, 1:] != IGNORE_INDEX).any():
            raise UserError(f"a batch of {len(rows)} rows without a single label: cutoff_len or feedback takes all.")
        if self.hsa:
            padded = self._padded(types, batch["input_ids"])
            batch["semantic_ids"] = check_semantic_ids(padded, batch["input_ids"].shape)
        # Models with images have got theirs, which count rows and columns, from LLaMA-Factory.
        if "position_ids" not in batch and None not in positions:
            batch["position_ids"] = self._padded(positions, batch["input_ids"])
        return batch

    def _padded(self, rows: Sequence[Any], input_ids: torch.Tensor) -> torch.Tensor:
        """Rows as a batch of the shape of `input_ids`, 0 (GLOBAL) where those have padding or a dummy image."""
        batch = torch.zeros_like(input_ids)
        for target, row in zip(batch, rows, strict=True):
            where = slice(-len(row), None) if self.tokenizer.padding_side == "left" else slice(len(row))
            target[where] = torch.as_tensor(row)
        return batch
