"""The two tests of the seed (003, 2.1), as it words them. Run: python tests/hsa/test_hsa_feedback_migration.py"""

import sys

import pytest
import torch

from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.hsa.attention import PRESETS, attach
from qwenlab.hsa.collator import HSACollator
from qwenlab.hsa.conversations import conversation
from qwenlab.hsa.encoding import encode
from qwenlab.hsa.feedback import Feedback, add_feedback_token
from qwenlab.hsa.semantics import GLOBAL, IGNORE_INDEX, LANDMARK, NOISE

RECORD = {
    "conversations": [
        {"from": "system", "value": "Put the cup on the shelf.", "semantic_type": "GLOBAL_CONDITION"},
        {"from": "human", "value": "You see a table.", "semantic_type": "PROCESS_NOISE"},
        {"from": "gpt", "value": "I pick up the cup.", "semantic_type": "KEY_EVENT"},
        {"from": "human", "value": "<|feedback|>The cup fell."},
        {"from": "gpt", "value": "I pick it up again."},
    ]
}
SHORT = {"conversations": [{"from": "human", "value": "<|feedback|>Stop."}, {"from": "gpt", "value": "I stop."}]}


@pytest.fixture(scope="module")
def tokenizer():
    made = train_tokenizer([turn["value"] for turn in RECORD["conversations"]], 300)
    add_feedback_token(made)
    return made


@pytest.fixture
def features(tokenizer):
    return [encode(tokenizer, conversation(record), 512) for record in (RECORD, SHORT)]


def test_labels_up_to_the_feedback_token_are_ignored_and_those_behind_it_unchanged(tokenizer, features):
    """测试用例 1: `<|feedback|>` 及其左侧的数值应全为 -100, 右侧的 labels 应保留原值。"""
    feedback_id = tokenizer.convert_tokens_to_ids("<|feedback|>")
    batch = HSACollator(tokenizer, feedback=Feedback())(features)
    for labels, feature in zip(batch["labels"], features, strict=True):
        at = feature["input_ids"].index(feedback_id)
        length = len(feature["labels"])
        assert (labels[: at + 1] == IGNORE_INDEX).all()
        assert labels[at + 1 : length].tolist() == feature["labels"][at + 1 :]
        assert (labels[at + 1 : length] != IGNORE_INDEX).any()
    # Before, the mistake had labels: the test would otherwise show nothing.
    at = features[0]["input_ids"].index(feedback_id)
    assert any(label != IGNORE_INDEX for label in features[0]["labels"][:at])


@pytest.mark.parametrize("side", ["left", "right"])
def test_semantic_ids_have_the_shape_of_input_ids_and_a_forward_has_a_loss(tokenizer, features, side):
    """测试用例 2: `semantic_ids` 的形状与 `input_ids` 一致; 运行一次模型 Forward 不应报错, 且 Loss 正常计算。"""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes))
    attach(model, PRESETS["published"])
    tokenizer.padding_side = side
    batch = HSACollator(tokenizer, feedback=Feedback())(features)
    assert batch["semantic_ids"].shape == batch["input_ids"].shape
    assert set(batch["semantic_ids"][0].tolist()) == {GLOBAL, LANDMARK, NOISE}
    loss = model(**batch).loss
    assert loss.isfinite()
    loss.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-v"]))
