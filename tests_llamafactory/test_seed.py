"""The two test cases of seed 003, 2.1, through LLaMA-Factory's own collator classes with the plugin inside."""

import copy

import pytest
import torch

from qwenlab.core.errors import UserError
from qwenlab.hsa.attention import PRESETS, attach
from qwenlab.hsa.feedback import FEEDBACK_TOKEN, Feedback, add_feedback_token
from qwenlab.hsa.llamafactory import installed
from qwenlab.hsa.llamafactory_settings import Block, Settings

IGNORE_INDEX = -100
BOTH = Settings(block=Block(), config=PRESETS["published"], feedback=Feedback())
SIDES = pytest.mark.parametrize("side", ["left", "right"])


@pytest.fixture
def own_tokenizer(tokenizer):
    """One with the feedback token, and with a padding side that a test may change."""
    own = copy.deepcopy(tokenizer)
    add_feedback_token(own)
    return own


@pytest.fixture
def load(models, own_tokenizer):
    """A model with the published HSA, and its collator made as LLaMA-Factory's workflow makes it."""
    from llamafactory.data import MultiModalDataCollatorForSeq2Seq, get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments
    from llamafactory.train.sft import workflow
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

    def make(name, template, side, settings=BOTH, **options):
        classes = {"qwen2.5-vl": AutoModelForImageTextToText}
        model = classes.get(name, AutoModelForCausalLM).from_pretrained(models / name)
        processor = None
        if name == "qwen2.5-vl":
            processor = AutoProcessor.from_pretrained(models / name)
            # What LLaMA-Factory's patch_processor sets.
            for key, value in {"image_max_pixels": 768 * 768, "image_min_pixels": 32 * 32}.items():
                setattr(processor, key, value)
        add_feedback_token(own_tokenizer, model)
        if settings.config is not None:
            attach(model, settings.config)
        own_tokenizer.padding_side = side
        with installed(settings):
            collator = workflow.SFTDataCollatorWith4DAttentionMask(
                template=get_template_and_fix_tokenizer(own_tokenizer, DataArguments(template=template)),
                model=model,
                tokenizer=own_tokenizer,
                processor=processor,
                pad_to_multiple_of=8,
                attn_implementation=model.config._attn_implementation,
                **options,
            )
        assert isinstance(collator, MultiModalDataCollatorForSeq2Seq)
        return model, collator

    return make


def feature(tokenizer, before, after, kinds=(0, 1, 2)):
    """Tokens of `before`, the feedback token, tokens of `after`, all with labels; types by turns."""
    ids = tokenizer.encode(f"{before}{FEEDBACK_TOKEN}{after}", add_special_tokens=False)
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": list(ids),
        "semantic_ids": [kinds[n % len(kinds)] for n in range(len(ids))],
    }


@SIDES
def test_case_1_labels_count_only_behind_the_feedback_token(side, load, own_tokenizer):
    _, collator = load("qwen2", "qwen", side)
    features = [
        feature(own_tokenizer, "I pass the hall.", "The key is in the attic."),
        feature(own_tokenizer, "It is in the cellar. I pass the hall.", "No."),
    ]
    given = copy.deepcopy(features)
    batch = collator(features)
    assert features == given
    feedback_id = own_tokenizer.convert_tokens_to_ids(FEEDBACK_TOKEN)
    for row, labels, one in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), features, strict=True):
        spot = row.index(feedback_id)
        assert set(labels[: spot + 1]) == {IGNORE_INDEX}
        own = one["labels"][one["input_ids"].index(feedback_id) + 1 :]
        assert labels[spot + 1 : spot + 1 + len(own)] == own
        assert set(labels[spot + 1 + len(own) :]) <= {IGNORE_INDEX}  # padding


@SIDES
@pytest.mark.parametrize("name, template", [("qwen2", "qwen"), ("qwen3", "qwen3"), ("qwen2.5-vl", "qwen2_vl")])
def test_case_2_semantic_ids_lie_on_their_tokens_and_the_model_has_a_loss(name, template, side, load, own_tokenizer):
    model, collator = load(name, template, side)
    features = [
        feature(own_tokenizer, "I pass the hall.", "The key is in the attic."),
        feature(own_tokenizer, "It is in the cellar. I pass the hall. I pass the study.", "No."),
    ]
    batch = collator(features)
    assert batch["semantic_ids"].shape == batch["input_ids"].shape and batch["semantic_ids"].dtype == torch.int64
    assert batch["input_ids"].shape[1] % 8 == 0
    # With images in its template, LLaMA-Factory hides a dummy one in the padding of the first row.
    assert ("pixel_values" in batch) == (name == "qwen2.5-vl")
    for row, types, mask, one in zip(
        batch["input_ids"].tolist(), batch["semantic_ids"].tolist(), batch["attention_mask"], features, strict=True
    ):
        start = int(mask.argmax())
        end = start + len(one["input_ids"])
        assert row[start:end] == one["input_ids"] and types[start:end] == one["semantic_ids"]
        assert set(types[:start] + types[end:]) <= {0}
    loss = model(**batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    without = model(**{key: value for key, value in batch.items() if key != "semantic_ids"}).loss
    assert not torch.equal(without, loss)


@SIDES
def test_packed_rows_of_unequal_length_keep_documents_apart(side, load, own_tokenizer):
    model, collator = load("qwen2", "qwen", side, neat_packing=True, block_diag_attn=True)
    model.eval()
    one, two, three = (
        feature(own_tokenizer, before, "The key is in the attic.")
        for before in ("I pass the hall.", "It is in the cellar. I pass it.", "No.")
    )

    def packed(*documents):
        row = {
            key: [value for one in documents for value in one[key]] for key in ("input_ids", "labels", "semantic_ids")
        }
        row["attention_mask"] = [n for n, one in enumerate(documents, start=1) for _ in one["input_ids"]]
        row["position_ids"] = [n for one in documents for n in range(len(one["input_ids"]))]
        return row

    batch = collator([packed(one, two), packed(three)])
    assert batch["attention_mask"].shape == (2, 1, *[batch["input_ids"].shape[1]] * 2)
    logits = model(**batch).logits[0]
    start = (batch["input_ids"].shape[1] - len(one["input_ids"] + two["input_ids"])) if side == "left" else 0
    start += len(one["input_ids"])
    ids, types = torch.tensor([two["input_ids"]]), torch.tensor([two["semantic_ids"]])
    alone = model(input_ids=ids, semantic_ids=types).logits[0]
    torch.testing.assert_close(logits[start : start + len(two["input_ids"])], alone, atol=1e-5, rtol=0)
    # Packed rows were masked example by example; here, the first token would silence all documents before it.
    assert int((batch["labels"] != IGNORE_INDEX).sum()) == sum(len(x["labels"]) for x in (one, two, three))


def test_the_collator_is_loud(load, own_tokenizer):
    _, collator = load("qwen2", "qwen", "right")
    good = feature(own_tokenizer, "I pass.", "No.")
    bad = {
        "feature 0: no <|feedback|>": good | {"input_ids": [5] * len(good["input_ids"])},
        "without a single label": good | {"labels": [IGNORE_INDEX] * len(good["labels"])},
        "no semantic_ids for": {key: value for key, value in good.items() if key != "semantic_ids"},
        "3 semantic_ids for": good | {"semantic_ids": [0, 1, 2]},
        "semantic_ids hold 3": good | {"semantic_ids": [3] * len(good["input_ids"])},
    }
    for words, one in bad.items():
        with pytest.raises(UserError, match=words.replace("|", r"\|")):
            collator([one])
