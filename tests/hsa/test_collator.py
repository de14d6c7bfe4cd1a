"""A batch holds what its features hold, padded on the right side, or ends with one sentence."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenlab.core.errors import UserError
from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.hsa.collator import HSACollator
from qwenlab.hsa.encoding import pack
from qwenlab.hsa.feedback import Feedback, add_feedback_token
from qwenlab.hsa.semantics import IGNORE_INDEX


@pytest.fixture(scope="module")
def tokenizer():
    made = train_tokenizer(["The cup is on the shelf."], 280)
    add_feedback_token(made)
    return made


@pytest.fixture
def sided(tokenizer):
    """The tokenizer, whose side a test may change."""
    yield tokenizer
    tokenizer.padding_side = "right"


@pytest.fixture(scope="module")
def model(tokenizer):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes)).eval()


def feature(length: int, seed: int = 0, **more):
    ids = torch.randint(200, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return {"input_ids": ids, "labels": list(ids), "semantic_ids": [n % 3 for n in ids], **more}


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(2, 12), min_size=1, max_size=4),
    side=st.sampled_from(["left", "right"]),
    typed=st.booleans(),
    tensors=st.booleans(),
)
def test_what_is_no_padding_is_the_features_and_they_stay_as_they_are(tokenizer, lengths, side, typed, tensors):
    features = [feature(length, n) for n, length in enumerate(lengths)]
    for one in features:
        if not typed:
            del one["semantic_ids"]
        if tensors:
            one.update({key: torch.tensor(value) for key, value in one.items()})
    before = copy.deepcopy(features)
    tokenizer.padding_side = side
    batch = HSACollator(tokenizer)(features)
    tokenizer.padding_side = "right"
    assert str(features) == str(before)
    assert ("semantic_ids" in batch) == typed
    assert {tuple(value.shape) for value in batch.values()} == {(len(lengths), max(lengths))}
    assert {value.dtype for value in batch.values()} == {torch.int64}
    padding = {"input_ids": tokenizer.pad_token_id, "labels": IGNORE_INDEX, "semantic_ids": 0, "attention_mask": 0}
    for row, (one, length) in enumerate(zip(before, lengths, strict=True)):
        ours = slice(max(lengths) - length, None) if side == "left" else slice(0, length)
        for key, values in batch.items():
            expected = torch.as_tensor(one.get(key, [1] * length))
            assert torch.equal(values[row, ours], expected), key
            rest = torch.ones(max(lengths), dtype=torch.bool)
            rest[ours] = False
            assert (values[row, rest] == padding[key]).all(), key


def test_the_padding_side_is_read_at_every_call(sided):
    collator = HSACollator(sided)
    features = [feature(2), feature(4)]
    assert collator(features)["attention_mask"][0].tolist() == [1, 1, 0, 0]
    sided.padding_side = "left"
    assert collator(features)["attention_mask"][0].tolist() == [0, 0, 1, 1]


def test_a_features_own_attention_mask_is_kept(tokenizer):
    batch = HSACollator(tokenizer)([feature(3, attention_mask=[0, 1, 1]), feature(4, attention_mask=[1] * 4)])
    assert batch["attention_mask"].tolist() == [[0, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_packed_rows_of_unequal_length_give_each_document_its_own_logits(sided, model, side):
    """No attention mask, so that transformers sees the documents; the padding is one more document."""
    sided.padding_side = side
    documents = [feature(length, length) for length in (5, 3, 4)]
    rows = pack(documents, 8)
    batch = HSACollator(sided)(rows)
    assert [len(row["input_ids"]) for row in rows] == [8, 4] and "attention_mask" not in batch
    assert batch["position_ids"][1].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    batch.pop("semantic_ids")
    with torch.no_grad():
        logits = model(**batch, use_cache=False).logits
        alone = [model(input_ids=torch.tensor([one["input_ids"]])).logits[0] for one in documents]
    places = [(0, 0), (0, 5), (1, 4 if side == "left" else 0)]
    for (row, start), expected in zip(places, alone, strict=True):
        torch.testing.assert_close(logits[row, start : start + len(expected)], expected, atol=1e-5, rtol=0)


def test_a_row_of_one_document_keeps_its_attention_mask(tokenizer):
    batch = HSACollator(tokenizer)(pack([feature(5), feature(4)], 5))
    assert batch["attention_mask"].tolist() == [[1] * 5, [1] * 4 + [0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 0]]


def test_feedback_masks_each_feature_by_itself(tokenizer):
    token = tokenizer.convert_tokens_to_ids("<|feedback|>")
    features = [feature(6), feature(4, 1)]
    features[0]["input_ids"][3] = features[1]["input_ids"][0] = features[1]["input_ids"][2] = token
    first = HSACollator(tokenizer, Feedback())(features)["labels"]
    last = HSACollator(tokenizer, Feedback(occurrence="last"))(features)["labels"]
    a, b = features[0]["labels"], features[1]["labels"]
    assert first.tolist() == [[-100] * 4 + a[4:], [-100, *b[1:], -100, -100]]
    assert last.tolist() == [[-100] * 4 + a[4:], [-100] * 3 + b[3:] + [-100, -100]]


def test_images_are_joined_and_their_token_types_padded(tokenizer):
    image = {"pixel_values": torch.ones(4, 6), "image_grid_thw": torch.tensor([[1, 2, 2]])}
    features = [
        feature(3, mm_token_type_ids=[0, 1, 0], **image),
        feature(2, mm_token_type_ids=[0, 0]),
        feature(2, mm_token_type_ids=[0, 1], **image),
    ]
    batch = HSACollator(tokenizer)(features)
    assert batch["pixel_values"].shape == (8, 6) and batch["image_grid_thw"].tolist() == [[1, 2, 2]] * 2
    assert batch["mm_token_type_ids"].tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 0]]


GOOD = feature(4)
DEAD = {**feature(4), "labels": [5, -100, -100, -100]}  # the first label of a row is never predicted
PACKED = pack([feature(2), feature(3)], 5)[0]
BAD: dict[str, tuple[list, Feedback | None, str]] = {
    "no feature": ([], None, "an empty batch"),
    "no label": ([DEAD, DEAD], None, "a batch of 2 features without a single label"),
    "types in some": (
        [GOOD, {"input_ids": [1], "labels": [1]}],
        None,
        "feature 1 has no semantic_ids, others have; expected them in all of a batch or in none",
    ),
    "positions in some": ([GOOD, PACKED], None, "feature 0 has no position_ids"),
    "a mask in some": ([{**GOOD, "attention_mask": [1] * 4}, GOOD], None, "feature 1 has no attention_mask"),
    "too few labels": ([GOOD, {**GOOD, "labels": [1]}], None, "feature 1: 1 labels for 4 input_ids"),
    "too many types": ([{**GOOD, "semantic_ids": [0] * 5}], None, "feature 0: 5 semantic_ids for 4 input_ids"),
    "labels missing": ([{"input_ids": [1]}], None, "feature 0: labels is missing"),
    "an unknown type": ([{**GOOD, "semantic_ids": [0, 1, 2, 3]}], None, "semantic_ids hold 3"),
    "types that are no integers": ([{**GOOD, "semantic_ids": [0.5] * 4}], None, "expected integers"),
    "an unknown key": ([{**GOOD, "id": 3}], None, "feature 0: key 'id' is unknown"),
    "a batch in a feature": ([{"input_ids": [[1]], "labels": [[1]]}], None, r"shape \[1, 1\]; expected \[L\]"),
    "text": ([{**GOOD, "labels": "abcd"}], None, "feature 0: labels cannot be made a tensor"),
    "feedback in a packed row": ([PACKED], Feedback(), "feature 0: it is packed; expected feedback masking before"),
    "no feedback": ([GOOD], Feedback(), r"feature 0: no <\|feedback\|>"),
    "nothing kept": ([GOOD], Feedback(missing="mask"), "a batch of 1 features without a single label"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_batch_ends_with_one_sentence(tokenizer, name):
    features, feedback, message = BAD[name]
    with pytest.raises(UserError, match=message):
        HSACollator(tokenizer, feedback)(features)


def test_a_tokenizer_that_cannot_pad_or_lacks_the_token_is_refused():
    plain = train_tokenizer(["The cup"], 260)
    with pytest.raises(UserError, match="expected one of its own"):
        HSACollator(plain, Feedback(missing="keep"))([GOOD])
    plain.pad_token = None
    with pytest.raises(UserError, match="its pad_token_id None"):
        HSACollator(plain)([GOOD])
