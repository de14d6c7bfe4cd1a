"""The picture says in words what its intervals say."""

import pytest

from qwenlab.latentcot.plots import in_words


def found(text: tuple[float, float], pause: tuple[float, float], own: tuple[float, float]) -> dict:
    pairs = {"text": text, "pause": pause, "shuffled": own}
    return {name: {"all": {"diff": sum(two) / 2, "low": two[0], "high": two[1]}} for name, two in pairs.items()}


@pytest.mark.parametrize(
    ("text", "pause", "own", "words"),
    [
        ((0.01, 0.03), (-0.02, -0.01), (0.01, 0.02), ["more than text (+0.020)", "less than pause", "latents matter"]),
        ((-0.01, 0.03), (0.01, 0.02), (0.0, 0.02), ["about as much as text", "more than pause", "hardly matter"]),
    ],
)
def test_the_words_follow_the_intervals(text, pause, own, words):
    said = in_words(found(text, pause, own))
    assert all(part in said for part in words)
