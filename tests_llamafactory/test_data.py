"""Converter and processors: LLaMA-Factory's own rows, and a type for every token."""

import pytest

from qwenlab.core.errors import UserError
from qwenlab.hsa.attention import PRESETS
from qwenlab.hsa.feedback import FEEDBACK_TOKEN, Feedback, add_feedback_token
from qwenlab.hsa.llamafactory import installed
from qwenlab.hsa.llamafactory_settings import Block, Settings

GLOBAL, LANDMARK, NOISE = 0, 1, 2
HSA = Settings(block=Block(), config=PRESETS["published"])


def feedback(**options):
    return Settings(feedback=Feedback(**options))


@pytest.fixture
def rows(models):
    """Rows of LLaMA-Factory for ShareGPT records: its converter, then its processor."""
    from llamafactory.data import converter, get_template_and_fix_tokenizer, loader
    from llamafactory.data.parser import DatasetAttr
    from llamafactory.hparams import DataArguments
    from transformers import AutoProcessor, AutoTokenizer

    def make(records, settings, template="qwen", formatting="sharegpt_hsa", packing=False, images=None, **options):
        tokenizer = AutoTokenizer.from_pretrained(models / "qwen2")
        if settings.feedback is not None:
            add_feedback_token(tokenizer)
        data_args = DataArguments(template=template, neat_packing=packing, packing=packing, **options)
        processor = AutoProcessor.from_pretrained(models / "qwen2.5-vl") if images else None
        if processor is not None:
            processor.image_max_pixels, processor.image_min_pixels = 768 * 768, 32 * 32
        attr = DatasetAttr("file", "tidy", formatting=formatting, images=images)
        with installed(settings):
            kind = loader.PackedSupervisedDatasetProcessor if packing else loader.SupervisedDatasetProcessor
            chosen = get_template_and_fix_tokenizer(tokenizer, data_args)
            made = kind(template=chosen, tokenizer=tokenizer, processor=processor, data_args=data_args)
            aligned = [converter.get_dataset_converter(formatting, attr, data_args)(record) for record in records]
            found = made.preprocess_dataset({key: [one[key] for one in aligned] for key in aligned[0]})
        return dict(found), tokenizer

    return make


def texts(rows, tokenizer):
    """All tokens of each type as one text."""
    pairs = [
        (token, kind)
        for ids, kinds in zip(rows["input_ids"], rows["semantic_ids"], strict=True)
        for token, kind in zip(ids, kinds, strict=True)
    ]
    return [tokenizer.decode([token for token, own in pairs if own == kind]) for kind in (GLOBAL, LANDMARK, NOISE)]


SHAPES = {
    "plain": {},
    "cut": {"cutoff_len": 50},
    "last turn only": {"mask_history": True},
    "last turn only, cut": {"mask_history": True, "cutoff_len": 60},
    "prompts too": {"train_on_prompt": True},
    "thoughts": {"template": "qwen3"},
    "thoughts of the last turn": {"template": "qwen3", "mask_history": True},
    "packed": {"packing": True, "cutoff_len": 320},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_those_of_llamafactory_and_each_type_lies_on_its_texts(shape, records, rows):
    off, _ = rows(records, Settings(), **SHAPES[shape])
    on, tokenizer = rows(records, HSA, **SHAPES[shape])
    assert {key: column for key, column in on.items() if key != "semantic_ids"} == off
    assert all(type(token) is int for row in on["input_ids"] + on["labels"] for token in row)
    common, events, walks = texts(on, tokenizer)
    assert walks and "You see" not in walks and "Try again" not in walks
    assert "I pass" not in events and "I pass" not in common and "You see" not in common
    if "cut" not in shape:
        assert "I pass" in walks and "You see" in events and "Try again." in events and "You tidy a house." in common


def test_the_system_prompt_has_its_own_type(records, rows):
    record = {"conversations": [{**records[0]["conversations"][0], "semantic_type": "LANDMARK"}]}
    record["conversations"] += records[0]["conversations"][1:]
    found, tokenizer = rows([record], HSA)
    assert "You tidy a house." in texts(found, tokenizer)[LANDMARK]
    assert "Where is" in texts(found, tokenizer)[GLOBAL]
    with pytest.raises(UserError, match="joins the system prompt with the first message"):
        rows([record], HSA, template="llama2")


def test_empty_thoughts_belong_to_the_answer(records, rows):
    found, tokenizer = rows(records[:1], HSA, template="qwen3")
    # Answers 1 and 2 are NOISE, answer 3 is GLOBAL.
    assert [text.count("<think>") for text in texts(found, tokenizer)] == [1, 0, 2]


def test_tokens_of_an_image_have_the_type_of_its_message(image_data, records, rows):
    message = {**records[1]["conversations"][3], "value": "<image>You see it."}
    record = {"conversations": [*records[1]["conversations"][:3], message, *records[1]["conversations"][4:]]}
    record["images"] = [str(image_data / "1.png")]
    found, tokenizer = rows([record], HSA, template="qwen2_vl", images="images")
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    kinds = [k for token, k in zip(found["input_ids"][0], found["semantic_ids"][0], strict=True) if token == image]
    assert len(kinds) == 9 and set(kinds) == {LANDMARK}  # 84 x 84 pixels, a token for 28 x 28


def test_feedback_is_masked_example_by_example_before_packing(records, rows):
    alone, _ = rows(records, feedback())
    packed, tokenizer = rows(records, feedback(), packing=True, cutoff_len=320)
    assert len(packed["labels"]) < len(alone["labels"])
    learnt = [[label for label in row if label != -100] for row in alone["labels"]]
    labels = [label for row in packed["labels"] for label in row if label != -100]
    assert sorted(label for row in learnt for label in row) == sorted(labels)
    for row in learnt:
        assert tokenizer.decode(row).startswith("The ") and "I pass" not in tokenizer.decode(row)


def test_an_example_without_feedback_is_an_error_or_left_out_or_kept(records, rows):
    silent = [
        {**message, "value": message["value"].replace(FEEDBACK_TOKEN, "")} for message in records[0]["conversations"]
    ]
    mixed = [records[1], {"conversations": silent}]
    with pytest.raises(UserError, match=r'the example that starts with "Where is the \w+\?": no <\|feedback'):
        rows(mixed, feedback())
    assert len(rows(mixed, feedback(missing="mask"))[0]["labels"]) == 1
    kept, tokenizer = rows(mixed, feedback(missing="keep"))
    assert "I pass" in tokenizer.decode([label for label in kept["labels"][1] if label != -100])


def test_a_cutoff_that_takes_feedback_or_answer_is_an_error(records, rows):
    record = {"conversations": [dict(message) for message in records[0]["conversations"]]}
    record["conversations"][5]["value"] = "That was wrong."
    record["conversations"][6]["value"] = FEEDBACK_TOKEN + record["conversations"][6]["value"]
    found = set()
    for cutoff in range(70, 130, 3):
        masked, _ = rows([record], feedback(missing="mask"), cutoff_len=cutoff)
        try:
            learnt, _ = rows([record], feedback(), cutoff_len=cutoff)
        except UserError as error:
            found.add(error.message.split(": ", 1)[1])
            assert masked["labels"] == []
        else:
            found.add("learnt")
            assert learnt == masked
    assert found == {
        "<|feedback|> is cut away by cutoff_len; expected a longer one.",
        "no label is left behind <|feedback|>; expected an answer within cutoff_len.",
        "learnt",
    }


def test_the_last_of_several_counts_when_asked_for(records, rows):
    twice = {"conversations": [dict(message) for message in records[0]["conversations"]]}
    twice["conversations"][1]["value"] = FEEDBACK_TOKEN + twice["conversations"][1]["value"]
    first, last = (rows([twice], feedback(occurrence=one))[0]["labels"][0] for one in ("first", "last"))
    assert sum(label != -100 for label in first) > sum(label != -100 for label in last) > 0


def test_data_without_types_or_with_bad_ones_are_refused(records, rows):
    plain = [{"conversations": [{k: m[k] for k in ("from", "value")} for m in records[0]["conversations"]]}]
    with pytest.raises(UserError, match="dataset tidy: no message has semantic_type; found from, value"):
        rows(plain, HSA)
    with pytest.raises(UserError, match='set "formatting": "sharegpt_hsa"'):
        rows(plain, HSA, formatting="sharegpt")
    wrong = [{"conversations": [{**message, "semantic_type": "LOUD"} for message in records[0]["conversations"]]}]
    with pytest.raises(UserError, match="dataset tidy, message 1: semantic_type is 'LOUD'"):
        rows(wrong, HSA)
