"""Masks as COCO run-length encoding, readable by pycocotools: {"size": [height, width], "counts": "..."}.

Runs go down the columns and begin with one of zeros; the text is COCO's own base-32 code of their differences.
"""

from collections.abc import Mapping

import numpy as np

from qwenlab.core.errors import UserError


def _runs(mask: np.ndarray) -> list[int]:
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def encode(mask: np.ndarray) -> dict:
    """A boolean mask `[H, W]` as compressed RLE."""
    runs, text = _runs(mask), []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text.append(chr(48 + (bits | 32 if more else bits)))
    return {"size": [int(side) for side in mask.shape], "counts": "".join(text)}


def decode(rle: Mapping) -> np.ndarray:
    """The mask, bool `[H, W]`.

    Raises:
        UserError: when the runs are no code or do not fill the mask.
    """
    try:
        (height, width), text = rle["size"], rle["counts"]
        codes = [ord(letter) - 48 for letter in text]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("RLE: expected a mapping with size [height, width] and counts, a text.") from error
    if any(not 0 <= code < 64 for code in codes) or (codes and codes[-1] & 32):
        raise UserError(f"RLE: counts {text[:40]!r} are no COCO code.")
    runs: list[int] = []
    at = 0
    while at < len(codes):
        value = shift = 0
        while True:
            code = codes[at]
            value |= (code & 31) << shift
            at, shift = at + 1, shift + 5
            if not code & 32:
                break
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise UserError(f"RLE: the runs fill {sum(runs)} pixels, the mask has {height} x {width}.")
    bits = np.arange(len(runs)) % 2 == 1
    return np.repeat(bits, runs).reshape((height, width), order="F")
