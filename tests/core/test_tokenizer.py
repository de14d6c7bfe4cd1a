"""The small tokenizer of the stand-ins behaves like Qwen's."""

import pytest

from qwenlab.core.tokenizer import SPECIAL_TOKENS, train_tokenizer

TEXTS = ["Keep picture 2 unchanged.", "保持图 2 不变"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 300).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_it_is_read_back_as_a_qwen2_tokenizer(tokenizer):
    assert type(tokenizer).__name__.startswith("Qwen2Tokenizer")


def test_special_tokens_follow_the_vocabulary_in_qwens_order(tokenizer):
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert ids == list(range(len(tokenizer) - len(SPECIAL_TOKENS), len(tokenizer)))


def test_every_special_token_is_one_token(tokenizer):
    for token in SPECIAL_TOKENS:
        assert len(tokenizer(token)["input_ids"]) == 1


@pytest.mark.parametrize("text", [*TEXTS, "unseen Ünïcode 🐰 \n\ttabs", "数字 123.45", ""])
def test_any_text_survives_a_round_trip(tokenizer, text: str):
    assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text


def test_the_chat_template_writes_qwens_format(tokenizer):
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_end_and_padding_tokens_are_qwens(tokenizer):
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
