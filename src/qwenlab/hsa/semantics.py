"""The three kinds of tokens (seed 003, 1.2), and what a bad one is told.

GLOBAL     goals, rules, instructions: seen from everywhere alike
LANDMARK   events that have to be remembered: seen from afar, a little weaker
NOISE      the process in between: seen from near only
"""

from collections.abc import Iterable

import torch

from qwenlab.core.errors import UserError

GLOBAL, LANDMARK, NOISE = 0, 1, 2
TYPES = 3
IGNORE_INDEX = -100  # labels that count for nothing
DEFAULT_TYPE = "GLOBAL_CONDITION"  # of a message that names none (seed 003, 1.2)
# The names of the public code beside ours.
TYPE_IDS = {
    "GLOBAL": GLOBAL, "GLOBAL_CONDITION": GLOBAL,
    "LANDMARK": LANDMARK, "KEY_EVENT": LANDMARK,
    "NOISE": NOISE, "PROCESS_NOISE": NOISE,
}  # fmt: skip


def type_id(name: object, at: str = "semantic_type") -> int:
    """The id of a type's name; `at` says in an error where the name stood.

    Raises:
        UserError: on a name that no type has.
    """
    if name not in TYPE_IDS:
        raise UserError(f"{at} is {name!r}; expected one of {', '.join(TYPE_IDS)}.")
    return TYPE_IDS[str(name)]


def check_semantic_ids(semantic_ids: torch.Tensor, shape: Iterable[int]) -> torch.Tensor:
    """`semantic_ids` `[B, L]` as they are, if they are integers in 0 to 2 of that shape.

    Raises:
        UserError: otherwise, naming shape, dtype or value.
    """
    wanted = tuple(shape)
    if tuple(semantic_ids.shape) != wanted:
        raise UserError(f"semantic_ids have the shape {tuple(semantic_ids.shape)}; expected {wanted}, as input_ids.")
    if semantic_ids.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8):
        raise UserError(f"semantic_ids are {semantic_ids.dtype}; expected integers.")
    if semantic_ids.numel() and not 0 <= int(semantic_ids.min()) <= int(semantic_ids.max()) < TYPES:
        bad = semantic_ids[(semantic_ids < 0) | (semantic_ids >= TYPES)][0].item()
        raise UserError(f"semantic_ids hold {bad}; expected 0 (GLOBAL), 1 (LANDMARK) or 2 (NOISE).")
    return semantic_ids
