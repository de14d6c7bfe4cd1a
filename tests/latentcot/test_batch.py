"""Latent columns align, and a mask lets through what its stage says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenlab.latentcot.batch import attention, columns, pieces
from qwenlab.latentcot.encode import Encoded


def sample(lengths: list[int], k: int) -> Encoded:
    """Pieces of text of these lengths with a block of k latents between them."""
    latent = []
    for index, length in enumerate(lengths):
        latent += [False] * length + ([True] * k if index < len(lengths) - 1 else [])
    flags = torch.tensor(latent)
    none = torch.zeros_like(flags)
    ids = torch.arange(len(flags))
    return Encoded("s", ids, ids.expand(3, -1), flags, none, none, none.float(), (), 1, 0)


LENGTHS = st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=4), min_size=1, max_size=5)


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 4))
def test_every_token_has_a_column_of_its_own_and_latents_stand_in_the_blocks(lengths, k):
    samples = [sample(one, k) for one in lengths]
    placed, width, blocks = columns(samples, k)
    block_columns = {block + step for block in blocks for step in range(k)}
    for one, at in zip(samples, placed, strict=True):
        assert len(at) == len(one.ids) and (at[1:] > at[:-1]).all() and int(at[-1]) < width
        assert set(at[one.latent].tolist()) <= block_columns and not set(at[~one.latent].tolist()) & block_columns
        # The step before a block is this sample's own last token, never padding.
        for start in (b for b in blocks if b in at.tolist()):
            assert start - 1 in at.tolist()


@given(st.data())
@settings(max_examples=60)
def test_observations_see_an_auxiliary_image_through_latents_only(data):
    size = data.draw(st.integers(2, 12))
    flags = lambda: torch.tensor([data.draw(st.lists(st.booleans(), min_size=size, max_size=size))])  # noqa: E731
    there, latent, auxiliary = flags(), flags(), flags()
    latent, auxiliary = latent & there, auxiliary & there & ~latent
    mask = attention(there, latent, auxiliary, hide=True)[0]
    for query in range(size):
        for key in range(size):
            seen = bool(mask[query, key])
            if (
                key > query
                or not there[0, key]
                or (auxiliary[0, key] and not (latent[0, query] or auxiliary[0, query]))
            ):
                assert seen == (key == query)
            else:
                assert seen
    assert mask.any(1).all()


def test_another_number_of_pads_than_k_is_refused():
    with pytest.raises(ValueError, match="sample s: its latent pads come in other numbers than K = 3"):
        pieces(sample([2, 2], 4), 3)
