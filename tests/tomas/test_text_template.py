"""A configuration in words: exactly the sentence of the specification."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.tomas.text_template import PHRASES, ConfigTextTemplate

SENTENCE = (
    "Tool super_resolution configuration: input size small, requires 4 CPU cores, 4 GB memory, 50 GPU SMs, "
    "2 GB GPU memory, and latency is 5800 ms."
)
VECTOR = [0, 4, 4, 50, 2, 5800]
number = st.integers(1, 99_000_000) | st.floats(0.001, 99_999)


@pytest.fixture(scope="module")
def template(registry):
    return ConfigTextTemplate(registry.input_sizes)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda v: torch.tensor(v, dtype=torch.float32)])
def test_a_configuration_is_the_sentence_of_the_specification(template, kind):
    assert template.format_single("super_resolution", kind(VECTOR)) == SENTENCE


def test_a_batch_is_the_sentences_of_its_pairs_in_order(template):
    other = [2, 8, 16, 60, 8, 87000]
    texts = template.format_batch([("super_resolution", VECTOR), ("object_detection", other)])
    assert texts == [SENTENCE, template.format_single("object_detection", other)]
    assert "input size large, requires 8 CPU cores, 16 GB memory, 60 GPU SMs, 8 GB GPU memory" in texts[1]


def test_an_empty_batch_is_no_sentence(template):
    assert template.format_batch([]) == []


def test_a_batch_may_be_a_generator(template):
    assert template.format_batch(("super_resolution", VECTOR) for _ in range(2)) == [SENTENCE] * 2


def test_fractions_are_written_as_short_as_they_are(template):
    assert "requires 0.5 CPU cores, 1.25 GB" in template.format_single("x", [0, 0.5, 1.25, 50, 2, 5800])


@given(st.integers(0, 2), st.lists(number, min_size=5, max_size=5))
def test_every_number_can_be_read_back_from_the_sentence(template, size, numbers):
    text = template.format_single("tool", [size, *numbers])
    assert f"input size {template.input_sizes[size]}," in text
    found = re.findall(r"(?:requires|cores,|memory,|SMs,|latency is) ([\d.]+)", text)
    assert list(map(float, found)) == pytest.approx(list(map(float, numbers)), rel=1e-5)


def test_the_phrases_are_what_stands_between_the_values():
    values = ["super_resolution", " small", " 4", " 4", " 50", " 2", " 5800"]
    assert "Tool " + "".join(value + phrase for value, phrase in zip(values, PHRASES, strict=True)) == SENTENCE


@pytest.mark.parametrize("vector", [[], VECTOR[:5], [*VECTOR, 1]])
def test_a_vector_of_another_length_is_refused(template, vector):
    with pytest.raises(ValueError, match=f"resource_vector has {len(vector)} numbers; expected 6"):
        template.format_single("x", vector)


@pytest.mark.parametrize("size", [-1, 3, 0.5, float("nan"), float("inf")])
def test_a_size_that_is_no_index_is_refused(template, size):
    with pytest.raises(ValueError, match=r"is no index of \['small', 'medium', 'large'\]"):
        template.format_single("x", [size, *VECTOR[1:]])


def test_a_vector_of_words_is_refused(template):
    with pytest.raises(ValueError, match="could not convert"):
        template.format_single("x", [0, 4, 4, "many", 2, 5800])


def test_one_wrong_vector_refuses_the_batch(template):
    with pytest.raises(ValueError, match="input size 9 is no index"):
        template.format_batch([("x", VECTOR), ("x", [9, *VECTOR[1:]])])
