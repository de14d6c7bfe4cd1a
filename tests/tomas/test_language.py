"""Tasks in words: durations mean the same however they are written, and test phrasings are never trained on."""

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.tomas.language import (
    DEADLINES,
    FRAMES,
    NO_DEADLINES,
    SIZES,
    duration_in,
    normalise_durations,
    size_words,
    write_task,
)
from qwenlab.tomas.numbers import number_word, round_significant
from qwenlab.tomas.registry import SPLITS, Registry

UNITS = {
    "ms": 1, " ms": 1, " msec": 1, " milliseconds": 1, " Milliseconds": 1, "s": 1000, " s": 1000, " sec": 1000,
    " seconds": 1000, " SECONDS": 1000, " min": 60_000, " mins": 60_000, " minute": 60_000, " minutes": 60_000,
}  # fmt: skip
deadlines = st.builds(lambda digits, zeros: float(digits * 10**zeros), st.integers(10, 99), st.integers(0, 5))


def words(phrase: str) -> str:
    """A phrase without its punctuation, for comparison."""
    return " ".join(phrase.lower().translate(str.maketrans("", "", ".,:?")).split())


# ---------------------------------------------------------------- durations


@pytest.mark.parametrize("text", ["5 s", "5s", "5.0s", "5000 ms", "5,000 ms", "5 seconds", "5 SEC", "0.08333 min"])
def test_five_seconds_are_the_same_in_every_spelling(text):
    assert normalise_durations(f"Within {text}, please.") == "Within 5000 ms, please."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("within 5 seconds", "within 5000 ms"),
        ("5 s", "5000 ms"),
        ("5000 ms", "5000 ms"),
        ("5.0s", "5000 ms"),
        ("0.5 min", "30000 ms"),
        ("1 minute", "60000 ms"),
        ("5,000 ms", "5000 ms"),
        ("1,234,567.8 milliseconds", "1200000 ms"),
        ("5.84 s", "5800 ms"),
        ("0 s", "0 ms"),
        ("0.000001 ms", "0 ms"),
        ("Done in 3s.", "Done in 3000 ms."),
        ("(2 mins)", "(120000 ms)"),
        ("2 photos in 2 secs", "2 photos in 2000 ms"),
        ("first 5 s, then 10 s", "first 5000 ms, then 10000 ms"),
    ],
)
def test_a_duration_is_rewritten_to_milliseconds_with_two_digits(text, expected):
    assert normalise_durations(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2 photos", "mp4", "v2.5", "v2.5 s", "10x", "3 small files", "4 sm", "a4s", "1.2.3 s", "page 7", "8 GB",
        "5 messages", "3 minds", "2 sections", "1,5 s", "1e3 ms", "x_5 s", "9" * 400 + " s", "no deadline", "ms", "",
    ],
)  # fmt: skip
def test_what_is_no_duration_stays(text):
    assert normalise_durations(text) == text
    assert duration_in(text) is None


@given(st.decimals("0.01", "99999", places=2), st.sampled_from(sorted(UNITS)))
def test_a_duration_keeps_its_size_whatever_its_unit(number, unit):
    value = float(number) * UNITS[unit]
    assert duration_in(f"within {number}{unit}.") == pytest.approx(value)
    assert normalise_durations(f"within {number}{unit}.") == f"within {number_word(round_significant(value, 2))} ms."


@given(st.text() | st.text("0123456789.,- \nmsinec") | st.text("059., ms", max_size=12))
def test_rewriting_twice_is_rewriting_once(text):
    once = normalise_durations(text)
    assert normalise_durations(once) == once


@given(st.text(st.characters(exclude_categories=["Nd"])))
def test_a_text_without_digits_stays(text):
    assert normalise_durations(text) == text


@given(st.text() | st.text("0123456789., ms"))
def test_a_text_names_a_finite_duration_or_none(text):
    found = duration_in(text)
    assert found is None or 0 <= found < 1e18


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("translate this", None),
        ("2 photos", None),
        ("within 5 s", 5000),
        ("within 1,500 ms", 1500),
        ("5 s or 10 s", None),
        ("5 s, that is 5000 ms", 5000),
        ("0.5 min for 3 files", 30_000),
    ],
)
def test_the_duration_of_a_task_is_the_only_one_that_it_names(text, expected):
    assert duration_in(text) == expected


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_no_held_out_frame_is_a_training_frame(held_out):
    assert not {words(frame) for frame in FRAMES[held_out]} & {words(frame) for frame in FRAMES["train"]}


@pytest.mark.parametrize("held_out", ["validation", "test"])
@pytest.mark.parametrize("phrases", [DEADLINES, NO_DEADLINES])
def test_no_held_out_deadline_is_part_of_a_training_one_or_the_other_way_round(phrases, held_out):
    for phrase in phrases[held_out]:
        assert not any(phrase in one or one in phrase for one in phrases["train"]), phrase


def test_the_validation_and_test_phrasings_differ():
    for phrases in (FRAMES, DEADLINES, NO_DEADLINES):
        assert not {words(one) for one in phrases["validation"]} & {words(one) for one in phrases["test"]}


def test_every_frame_says_request_size_and_deadline_once():
    fields = [[name for _, name, _, _ in string.Formatter().parse(f) if name] for fs in FRAMES.values() for f in fs]
    assert all(sorted(found) == ["deadline", "request", "size"] for found in fields)


def test_every_word_for_a_size_means_one_size():
    every = [word for size, others in SIZES.items() for word in {size, *others}]
    assert len(set(every)) == len(every)


def test_a_size_that_has_no_other_words_is_called_by_its_name():
    assert size_words("4K", "train") == size_words("4K", "test") == ["4K"]


# ---------------------------------------------------------------- tasks


@given(st.sampled_from(SPLITS), st.integers(0, 6), st.integers(0, 2), deadlines, st.integers(0, 2**32))
def test_a_task_says_its_request_size_and_deadline_in_phrases_of_its_split(registry, split, tool, size, deadline, seed):
    text = write_task(registry, tool, size, deadline, split, np.random.default_rng(seed))
    lower = text.lower()
    assert any(request.lower() in lower for request in registry.tools[tool].asked(split))
    assert any(word in lower for word in size_words(registry.input_sizes[size], split))
    assert any(phrase.format(ms=number_word(deadline)) in lower for phrase in DEADLINES[split])
    assert text[0].isupper() and "{" not in text


@given(st.sampled_from(SPLITS), st.integers(0, 6), deadlines, st.integers(0, 2**32))
def test_a_task_names_its_deadline_and_nothing_else_as_a_duration(registry, split, tool, deadline, seed):
    text = write_task(registry, tool, 0, deadline, split, np.random.default_rng(seed))
    assert duration_in(text) == deadline
    assert normalise_durations(text) == text


@given(st.sampled_from(SPLITS), st.integers(0, 6), st.integers(0, 2**32))
def test_a_task_without_a_deadline_names_no_duration(registry, split, tool, seed):
    assert duration_in(write_task(registry, tool, 1, None, split, np.random.default_rng(seed))) is None


def test_a_seed_writes_the_same_task_again(registry):
    one, again = (
        [write_task(registry, tool, 1, 500.0, "test", np.random.default_rng(7)) for tool in range(7)] for _ in range(2)
    )
    assert one == again


def test_a_request_with_braces_is_written_as_it_stands():
    requests = {split: ["fill {size} in {0}"] for split in SPLITS}
    own = Registry.model_validate({"input_sizes": ["{x}"], "tools": [{"name": "fill", "requests": requests}]})
    text = write_task(own, 0, 0, 500.0, "train", np.random.default_rng(0)).lower()
    assert "fill {size} in {0}" in text and "{x}" in text
