"""The full profile on the meta device: real dimensions, no memory."""

import torch

from qwenlab.core.params import load
from qwenlab.core.rules import load_claim
from qwenlab.hsa.attention import attach
from qwenlab.hsa.model import Arm, Runtime


def test_the_full_profile_is_read(root, tmp_path):
    import shutil

    for name in ("params.yaml", "profiles"):
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, tmp_path / name)
    text = (tmp_path / "params.yaml").read_text().replace("profile: tiny", "profile: full", 1)
    (tmp_path / "params.yaml").write_text(text)
    assert load("hsa.runtime", Runtime, tmp_path).impl == "flex"
    assert {rule.metric for rule in load_claim("hsa", tmp_path).rules} >= {"recall.1x", "recovery"}


def test_attention_lora_and_types_fit_qwen2_5_7b(root):
    """28 heads, 3584 wide; what is trained is LoRA on q, k, v, o of 28 layers and the types' three vectors."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    hsa = attach(model, load("hsa.arms.on", Arm, root).attention)
    assert hsa.type_table is not None and hsa.type_table.shape == (3, 3584)
    lora = LoraConfig(r=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], modules_to_save=["hsa"])
    peft = get_peft_model(model, lora)
    trained = {name: p.numel() for name, p in peft.named_parameters() if p.requires_grad}
    per_layer = 16 * (3584 + 3584) * 2 + 16 * (3584 + 512) * 2  # q and o; k and v
    assert sum(n for name, n in trained.items() if "lora_" in name) == 28 * per_layer
    assert sum(n for name, n in trained.items() if "type_table" in name) == 3 * 3584
