"""Small real parts: the committed registry, its profile, a tiny random Qwen2, an export, an untrained planner."""

from pathlib import Path

import numpy as np
import pytest
import torch

from qwenlab.core.params import load_raw
from qwenlab.tomas.export import export, read_memory
from qwenlab.tomas.prepare import ProfileParams, new_ids
from qwenlab.tomas.profiling import Profile, read_latency_model, simulate
from qwenlab.tomas.registry import read_registry
from qwenlab.tomas.solver import Objective
from qwenlab.tomas.tasks import Capacity


@pytest.fixture(scope="session")
def registry(root: Path):
    return read_registry(root / "src/qwenlab/tomas/tools.json")


@pytest.fixture(scope="session")
def profile(root: Path, registry) -> Profile:
    """The 1,701 rows of the pipeline."""
    return simulate(read_latency_model(root / "src/qwenlab/tomas/latency.json", registry), registry, 0)


@pytest.fixture(scope="session")
def new(profile: Profile) -> np.ndarray:
    """[N] bool: configurations that no training knows."""
    mask = np.zeros(len(profile), bool)
    mask[new_ids(profile, ProfileParams(seed=0, new_share=0.1))] = True
    return mask


@pytest.fixture(scope="session")
def capacity(root: Path) -> Capacity:
    return Capacity.model_validate(load_raw("tomas.capacity", root))


@pytest.fixture(scope="session")
def objective(root: Path) -> Objective:
    return Objective.model_validate(load_raw("tomas.objective", root))


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory, registry) -> Path:
    """A random two-layer Qwen2 with its tokenizer, saved as any checkpoint is."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from qwenlab.standins.lm import build_tokenizer

    folder = tmp_path_factory.mktemp("lm")
    tokenizer = build_tokenizer(registry, 400)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None, pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def runtime(tiny_lm: Path):
    from qwenlab.tomas.model import Runtime

    return Runtime(model=str(tiny_lm), device="cpu", dtype="float32", processes=1, seeds_at_once=1)


@pytest.fixture(scope="session")
def encoder(profile: Profile, runtime):
    """An untrained resource encoder."""
    from qwenlab.tomas.encoder import EncoderConfig, ResourceEncoderForPretraining, bounds, tool_name_embeddings
    from qwenlab.tomas.model import load_backbone

    torch.manual_seed(0)
    names = tool_name_embeddings(*load_backbone(runtime.model, "float32", "cpu"), profile.registry.names)
    config = EncoderConfig(hidden_size=32, mlp_size=32, heads=2, fourier=4)
    return ResourceEncoderForPretraining(config, names, *bounds(torch.tensor(profile.resources))).eval()


@pytest.fixture(scope="session")
def memory_dir(tmp_path_factory, encoder, profile: Profile, new: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("memory") / "export"
    export(encoder, profile, new, folder)
    return folder


@pytest.fixture(scope="session")
def memory(memory_dir: Path):
    return read_memory(memory_dir)


@pytest.fixture(scope="session")
def goal(capacity, objective):
    from qwenlab.tomas.train import Goal

    return Goal(capacity, objective)


@pytest.fixture(scope="session")
def train_params():
    from qwenlab.tomas.model import Lora
    from qwenlab.tomas.targets import SoftTargets
    from qwenlab.tomas.train import Train

    lora = Lora(r=4, alpha=8, dropout=0.0, target_modules=["q_proj", "v_proj"])
    return Train(
        steps=4, batch=8, lr=1e-3, head_lr=1e-3, memory_lr=1e-3, weight_decay=0.01, warmup_steps=1,
        config_weight=1.0, lora=lora, queries=2, soft_targets=SoftTargets(share=0.3, temperature=0.05), save_steps=0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def planner_dir(tmp_path_factory, train_params, runtime, memory) -> Path:
    """An untrained planner, saved as training saves it."""
    from qwenlab.tomas.decoder import HeadConfig
    from qwenlab.tomas.train import build_planner, known_memory, save_planner

    folder = tmp_path_factory.mktemp("planner")
    torch.manual_seed(1)
    head = HeadConfig(init="memory", train_memory=True, key_map=False, kind="cosine", mlp_size=0)
    planner, _ = build_planner(train_params, runtime, head, known_memory(memory)[0])
    save_planner(planner, folder, {"seed": 0, "backbone": runtime.model})
    return folder
