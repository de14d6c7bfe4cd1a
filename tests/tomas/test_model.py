"""The planner: state and words in, tool and configuration out; trained, saved, loaded, grown."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from qwenlab.core.errors import UserError
from qwenlab.core.io import write_json
from qwenlab.core.seeding import seed_everything
from qwenlab.tomas.decoder import HeadConfig
from qwenlab.tomas.model import Planner, TemporalEncoder, build_decoder, load_backbone, prompts, with_lora
from qwenlab.tomas.planner import load_planner
from qwenlab.tomas.task_set import TaskSet, task_set
from qwenlab.tomas.train import build_planner, known_memory, run, train_seed

HEAD = HeadConfig(init="memory", train_memory=True, key_map=False, kind="cosine", mlp_size=0)
TASKS = ["Translate this letter into English, small, within 5 s.", "Find all objects in the image. It is huge."]


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (2, 32, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def planner(train_params, runtime, memory) -> tuple[Planner, object]:
    torch.manual_seed(0)
    built, tokenizer = build_planner(train_params, runtime, HEAD, known_memory(memory)[0])
    return built.eval(), tokenizer


@pytest.fixture(scope="module")
def tasks_dir(tmp_path_factory, memory) -> Path:
    """Eight tasks for training: one batch, so that the order of an epoch does not matter."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("tasks")
    known = np.flatnonzero(~memory.new)[::190][:8]
    rows = [
        {"text": f"Task {i} within 5 s", "tool_id": int(memory.profile.tool_ids[c]), "size": 0, "deadline_ms": 5000.0,
         "config_id": int(c)}
        for i, c in enumerate(known)
    ]  # fmt: skip
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_file({"train": np.zeros((len(rows), 32, 4), np.float32)}, folder / "states.safetensors")
    return folder


def test_the_state_becomes_256_features_and_one_embedding(planner, states):
    one, _ = planner
    assert one.temporal(torch.tensor(states)).shape == (2, 256)
    assert one.temporal_proj(one.temporal(torch.tensor(states))).shape == (2, 32)


def test_the_end_of_the_series_is_told_from_older_spikes():
    torch.manual_seed(0)
    series = torch.full((2, 32, 4), 0.2)
    series[0, 3], series[1, 30] = 0.9, 0.9
    old, recent = TemporalEncoder()(series)
    assert (old - recent).norm() > 0.1 * old.norm()


def test_padding_changes_nothing(planner, states):
    one, tokenizer = planner
    both = prompts(tokenizer, TASKS)
    together = one.hidden(**both, states=torch.tensor(states))
    for index, task in enumerate(TASKS):
        alone = one.hidden(**prompts(tokenizer, [task]), states=torch.tensor(states[index : index + 1]))
        torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-5)


def test_words_and_state_both_reach_the_hidden_state(planner, states):
    one, tokenizer = planner
    inputs = prompts(tokenizer, TASKS[:1])
    base = one.hidden(**inputs, states=torch.tensor(states[:1]))
    assert not torch.allclose(one.hidden(**inputs, states=torch.tensor(states[1:])), base)
    assert not torch.allclose(one.hidden(**prompts(tokenizer, TASKS[1:]), states=torch.tensor(states[:1])), base)


def test_durations_of_the_same_length_are_the_same_prompt(planner):
    ids = [prompts(planner[1], [f"Do it within {text}."])["input_ids"].tolist() for text in ("5 s", "5000 ms", "5.0 s")]
    assert ids[0] == ids[1] == ids[2]


def test_the_loss_is_the_tools_plus_lambda_times_the_configurations(planner, states, memory):
    one, tokenizer = planner
    inputs = {**prompts(tokenizer, TASKS), "states": torch.tensor(states)}
    labels = torch.tensor([4, 3]), torch.tensor([1000, 800])
    output = one(**inputs, tool_labels=labels[0], config_labels=labels[1])
    parts = [
        torch.nn.functional.cross_entropy(output[name], label)
        for name, label in zip(("tool_logits", "config_logits"), labels, strict=True)
    ]
    torch.testing.assert_close(output["loss"], parts[0] + one.config_weight * parts[1])
    assert output["config_logits"].shape == (2, int((~memory.new).sum()))


def test_only_lora_temporal_parts_pooling_and_heads_are_trained(planner):
    names = {name for name, p in planner[0].named_parameters() if p.requires_grad}
    backbone = {name for name in names if name.startswith("backbone.")}
    assert backbone and all("lora_" in name and ("q_proj" in name or "v_proj" in name) for name in backbone)
    assert {name.split(".")[0] for name in names - backbone} == {
        "decoder", "temporal", "temporal_proj", "temporal_scale", "pool"
    }  # fmt: skip


def test_a_saved_planner_comes_back_the_same_with_new_rows_behind(planner_dir, runtime, memory, states):
    from peft import PeftModel

    first, second = (load_planner(planner_dir, runtime, memory) for _ in range(2))
    hidden = first.hidden(TASKS, states)
    assert torch.equal(hidden, second.hidden(TASKS, states))
    known = int((~memory.new).sum())
    assert len(first.rows) == 1701 and not memory.new[first.rows[:known]].any() and memory.new[first.rows[known:]].all()
    torch.testing.assert_close(first.planner.decoder.memory[known:], memory.weights[memory.new])
    # The adapter is an ordinary PEFT folder.
    PeftModel.from_pretrained(load_backbone(runtime.model, "float32", "cpu")[0], planner_dir / "adapter")


def test_plans_name_configurations_of_the_memory(planner_dir, runtime, memory, states):
    loaded = load_planner(planner_dir, runtime, memory)
    found = loaded.predict(loaded.hidden(TASKS, states), k=5)
    tools = memory.profile.tool_ids[found.config_ids.numpy()]
    assert (tools == found.tool_ids[:, None].numpy()).all()


def test_a_planner_for_another_memory_or_backbone_is_refused(planner_dir, runtime, memory, tmp_path: Path):
    other = type(memory)(memory.weights, memory.profile, np.zeros_like(memory.new))
    with pytest.raises(UserError, match="trained with 1533 configurations; this memory has 1701"):
        load_planner(planner_dir, runtime, other)
    with pytest.raises(UserError, match="trained on the backbone"):
        load_planner(planner_dir, runtime.model_copy(update={"model": "Qwen/Qwen2.5-7B"}), memory)
    with pytest.raises(UserError, match="dvc repro tomas-train"):
        load_planner(tmp_path, runtime, memory)


def test_a_backbone_that_is_not_there_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be loaded as a language model"):
        load_backbone(str(tmp_path / "nothing"), "float32", "cpu")


def test_training_lowers_the_loss_and_is_the_same_twice(train_params, runtime, memory, tasks_dir, tmp_path: Path):
    from qwenlab.tomas.tasks import read_tasks

    known, rows = known_memory(memory)
    data = task_set(*read_tasks(tasks_dir, "train"), rows)
    short, long = (train_params.model_copy(update={"steps": steps, "lr": 0.01}) for steps in (2, 25))
    losses = [train_seed(p, runtime, HEAD, known, data, 0, tmp_path / "w")[1] for p in (short, short, long)]
    assert losses[0] == losses[1] and losses[2] < 0.9 * losses[0]


def test_two_processes_train_as_one(train_params, runtime, goal, memory, memory_dir, tasks_dir, tmp_path, root):
    """accelerate with gloo: the same global batch, the same weights afterwards."""
    import os
    import subprocess
    import sys

    code = f"""
import sys
from pathlib import Path
from qwenlab.core.io import read_json
from qwenlab.tomas.decoder import HeadConfig
from qwenlab.tomas.model import Runtime
from qwenlab.tomas.solver import Objective
from qwenlab.tomas.tasks import Capacity
from qwenlab.tomas.train import Goal, Train, run
said = read_json({str(tmp_path / "said.json")!r})
run(Train(**said["train"]), Runtime(**{{**said["runtime"], "processes": int(sys.argv[1])}}), HeadConfig(**said["head"]),
    Goal(Capacity(**said["capacity"]), Objective(**said["objective"])), [0],
    {str(memory_dir)!r}, {str(tasks_dir)!r}, {str(tmp_path)!r} + "/out" + sys.argv[1])
"""
    (tmp_path / "both.py").write_text(code)
    parts = {
        "train": train_params,
        "runtime": runtime,
        "head": HEAD,
        "capacity": goal.capacity,
        "objective": goal.objective,
    }
    said = {name: part.model_dump() for name, part in parts.items()}
    write_json(tmp_path / "said.json", said)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]  # as core.launch has it
    env = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    for start, count in (([], "1"), (launcher, "2")):
        subprocess.run(
            [sys.executable, *start, str(tmp_path / "both.py"), count],
            env=env,
            check=True,
            capture_output=True,
            timeout=200,
        )
    # Trainer's own loss at the end is that of the first process, so the weights are compared: how far apart the two
    # runs are, against how far they went. (Adam turns the sign of a gradient near 0 into a whole step.)
    seed_everything(0)
    start, _ = build_planner(train_params, runtime, HEAD, known_memory(memory)[0])
    one, two = (load_file(tmp_path / f"out{n}" / "seed0" / "planner.safetensors") for n in (1, 2))
    begin = start.state_dict()
    apart = sum((two[name] - one[name]).square().sum() for name in one) ** 0.5
    went = sum((one[name] - begin[name]).square().sum() for name in one) ** 0.5
    assert went > 0 and apart < 0.5 * went  # two runs that have nothing to do with each other: 1.4


def test_a_finished_seed_is_kept_until_something_changes(
    train_params, runtime, goal, memory_dir, tasks_dir, tmp_path, capsys
):
    arguments = (runtime, HEAD, goal, [0], memory_dir, tasks_dir, tmp_path / "out")
    run(train_params, *arguments)
    file = tmp_path / "out" / "seed0" / "planner.safetensors"
    first = file.stat().st_mtime_ns
    run(train_params, *arguments)
    assert file.stat().st_mtime_ns == first
    capsys.readouterr()
    run(train_params.model_copy(update={"steps": 5}), *arguments)
    assert file.stat().st_mtime_ns != first and "starts over" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["seed0"]


def test_a_killed_training_goes_on_at_its_checkpoint_and_ends_the_same(
    train_params, runtime, goal, memory, memory_dir, tasks_dir, tmp_path, monkeypatch, capsys
):
    from transformers import Trainer

    params = train_params.model_copy(update={"steps": 6, "save_steps": 3})
    arguments = (params, runtime, HEAD, goal, [0], memory_dir, tasks_dir)
    run(*arguments, tmp_path / "whole")
    step = Trainer.training_step

    def killed(self, *args, **kwargs):
        if self.state.global_step >= 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(*arguments, tmp_path / "cut")
    monkeypatch.undo()
    run(*arguments, tmp_path / "cut")
    assert "continues at checkpoint-3" in capsys.readouterr().out
    whole, cut = (load_planner(tmp_path / name / "seed0", runtime, memory) for name in ("whole", "cut"))
    for name, value in whole.planner.state_dict().items():
        torch.testing.assert_close(cut.planner.state_dict()[name], value)


def test_labels_are_rows_of_what_training_knows(memory):
    known, rows = known_memory(memory)
    task = {"text": "x", "tool_id": 0, "size": 0, "deadline_ms": None, "config_id": int(rows[-1])}
    data: TaskSet = task_set([task], np.zeros((1, 32, 4), np.float32), rows)
    assert data.configs.tolist() == [len(known.weights) - 1] and not known.new.any()


def test_full_size_shapes_hold_on_the_meta_device(profile):
    """Qwen2.5-7B from its real dimensions: [1701, 3584], the prefix, and LoRA on q_proj and v_proj."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from qwenlab.core.params import load_profile
    from qwenlab.tomas.encoder import EncoderConfig, ResourceEncoderForPretraining
    from qwenlab.tomas.export import Memory
    from qwenlab.tomas.model import Lora
    from qwenlab.tomas.pretrain import Pretrain

    full = load_profile("full", Path(__file__).parents[2])["tomas"]
    config = Qwen2Config(
        vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, tie_word_embeddings=False,
    )  # fmt: skip
    settings = Pretrain.model_validate(full["pretrain_encoder"])
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
        sizes = EncoderConfig(
            hidden_size=3584, mlp_size=settings.mlp_size, heads=settings.heads, fourier=settings.fourier
        )
        encoder = ResourceEncoderForPretraining(sizes, torch.zeros(7, 3584), torch.zeros(6), torch.ones(6))
        memory = encoder(torch.zeros(1701, dtype=torch.long), torch.ones(1701, 6))
        assert memory.shape == (1701, 3584)
        tokens = torch.zeros(2, 47, dtype=torch.long)
        assert model.get_input_embeddings()(tokens).shape[-1] == memory.shape[-1]
    # The decoder needs real tables; its memory is the only large part.
    table = Memory(torch.zeros(1701, 3584), profile, np.zeros(1701, bool))
    planner = Planner(with_lora(model, Lora.model_validate(full["train"]["lora"])), build_decoder(HEAD, table))
    lora = [p for name, p in planner.backbone.named_parameters() if "lora_A" in name]
    assert len(lora) == 2 * 28 and all(p.shape == (full["train"]["lora"]["r"], 3584) for p in lora)
    assert planner.decoder.memory.shape == (1701, 3584) and planner.temporal_proj[1].out_features == 3584
