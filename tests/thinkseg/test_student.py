"""The student: labels on the answer only, LoRA of the stated size, a grammar that lets only good summaries pass."""

import json

import pytest
import torch

from qwenlab.core.errors import UserError
from qwenlab.thinkseg.student import Lora, Student, StudentRuntime, add_lora, collate, encode, prompt_of, run
from qwenlab.thinkseg.summarize import Decode, Summariser
from qwenlab.thinkseg.summary import parse_summary

LORA = Lora(r=64, alpha=128, dropout=0.05, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
ROW = {
    "id": "a", "source": "s", "instruction": "x", "input": "<context>A large red circle.</context><think>t</think>",
    "output": '{"key_points":["one point","two points","three points"],"primary":[{"category":"circle","appearance":'
              '"large red, left"}],"secondary":[],"emotion":[],"sam3_phrases":["red circle"]}',
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base with random weights and a tokenizer for a few sentences."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from qwenlab.core.tokenizer import train_tokenizer

    path = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer([ROW["input"], ROW["output"], "user assistant system"], 300)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def runtime(folder) -> StudentRuntime:
    return StudentRuntime(model=str(folder), device="cpu", dtype="float32", processes=1, seeds_at_once=1)


@pytest.fixture(scope="module")
def summariser(runtime) -> Summariser:
    return Summariser(runtime, Decode(batch=4, max_new_tokens=1200, constrained=True))


def test_only_the_output_has_labels(summariser):
    tokenizer = summariser.tokenizer
    row = encode(tokenizer, [ROW], 4096)[0]
    learned = [label for label in row["labels"] if label != -100]
    assert tokenizer.decode(learned) == ROW["output"] + "<|im_end|>"
    assert row["input_ids"][: len(row["input_ids"]) - len(learned)] == prompt_of(tokenizer, ROW["input"])


def test_a_row_that_is_too_long_is_an_error_not_a_cut(summariser):
    with pytest.raises(UserError, match="max_length is 64"):
        encode(summariser.tokenizer, [ROW], 64)


def test_padding_has_neither_labels_nor_attention():
    batch = collate(9)([{"input_ids": [1, 2], "labels": [-100, 2]}, {"input_ids": [1], "labels": [1]}])
    assert batch["input_ids"].tolist() == [[1, 2], [1, 9]]
    assert batch["labels"].tolist() == [[-100, 2], [1, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_a_model_with_random_weights_writes_nothing_but_good_summaries(summariser, seed: int):
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in summariser.model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.4)
    for text in summariser.write([ROW["input"], "其他 thinking", ""]):
        json.loads(text)
        summary = parse_summary(text)
        assert 1 <= len(summary.things) <= 4


def test_a_batch_writes_what_single_calls_write(summariser):
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in summariser.model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.2)
    inputs = [ROW["input"], "a much longer thinking about a circle " * 4]
    assert summariser.write(inputs) == [summariser.write([one])[0] for one in inputs]


def test_training_saves_a_peft_adapter_and_a_finished_seed_is_kept(runtime, tmp_path):
    from peft import PeftModel

    from qwenlab.core.io import read_json
    from qwenlab.thinkseg.records import write_rows
    from qwenlab.thinkseg.student import load_base

    for split in ("train", "validation"):
        write_rows(tmp_path / "set" / f"{split}.jsonl", [ROW] * 4)
    params = Student(
        epochs=2, batch=4, accumulation=1, lr=0.01, warmup_share=0.1, weight_decay=0.0, patience=3, max_length=4096,
        lora=LORA.model_copy(update={"r": 4}),
    )  # fmt: skip
    run(params, runtime, [0], tmp_path / "set", tmp_path / "out")
    file = tmp_path / "out" / "seed0" / "adapter_model.safetensors"
    assert read_json(file.with_name("training.json"))["best_eval_loss"] > 0
    PeftModel.from_pretrained(load_base(runtime)[0], file.parent)
    before = file.stat().st_mtime_ns
    run(params, runtime, [0], tmp_path / "set", tmp_path / "out")
    assert file.stat().st_mtime_ns == before


def test_the_lora_of_the_full_model_has_29_5_million_parameters():
    """The seed says 15 M, 0.5%: r = 64 on q/k/v/o of Qwen2.5-3B is twice that, 0.95%."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=151936, hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        model = add_lora(Qwen2ForCausalLM(config), LORA)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in model.parameters())
    assert trained == 29_491_200
    assert trained / whole == pytest.approx(0.0095, abs=0.0002)
