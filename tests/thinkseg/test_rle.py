"""COCO RLE: what pycocotools writes, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qwenlab.core.errors import UserError
from qwenlab.thinkseg import rle

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(MASKS)
def test_decoding_gives_back_every_mask(mask: np.ndarray):
    coded = rle.encode(mask)
    assert coded["size"] == list(mask.shape) and coded["counts"].isascii()
    assert np.array_equal(rle.decode(coded), mask)


def test_the_code_is_that_of_pycocotools():
    mask = np.zeros((5, 4), bool)
    mask[1:3, 1:3] = True  # down the columns 6, 2, 3, 2, 7; from the fourth on, differences to the run two before
    assert rle.encode(mask) == {"size": [5, 4], "counts": "62304"}
    assert rle.encode(np.ones((3, 3), bool))["counts"] == "09"
    assert rle.encode(np.zeros((3, 3), bool))["counts"] == "9"
    # 100 is 3 * 32 + 4: low five bits first, 32 added to all but the last
    assert rle.encode(np.zeros((10, 10), bool))["counts"] == chr(48 + 4 + 32) + chr(48 + 3)


@pytest.mark.parametrize(
    "bad",
    [
        {"size": [2, 2], "counts": "9"},
        {"size": [2, 2], "counts": "\x7f"},
        {"size": [2, 2], "counts": "P"},
        {"counts": "4"},
        {"size": [2], "counts": "4"},
        {"size": [2, 2], "counts": [4]},
    ],
)
def test_what_is_no_code_of_its_size_is_refused(bad: dict):
    with pytest.raises(UserError, match="RLE"):
        rle.decode(bad)
