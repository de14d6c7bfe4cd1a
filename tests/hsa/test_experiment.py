"""Exploring, the three phases, scoring and drawing, on a base of a few thousand random weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qwenlab.core.errors import UserError
from qwenlab.core.io import read_json
from qwenlab.core.params import load, load_raw
from qwenlab.hsa.conversations import read_conversations
from qwenlab.hsa.encoding import encode
from qwenlab.hsa.exactness import measure_family
from qwenlab.hsa.explore import Explore, explore, requested
from qwenlab.hsa.feedback import feedback_token_id
from qwenlab.hsa.model import Arm, HSAConfig, Lora, Runtime, load_model, new_model, save_model
from qwenlab.hsa.plots import Shown, draw_attention, draw_recall, looked_at
from qwenlab.hsa.score import Score, score_arm, spans
from qwenlab.hsa.semantics import IGNORE_INDEX
from qwenlab.hsa.train import Phases, examples_of, run, shuffled
from qwenlab.hsa.worlds import Files, Worlds, write_worlds
from qwenlab.standins.agent import Recipe, build_model, build_tokenizer

ON = Arm(attention=HSAConfig(slope=(0, 0.001, 0.5), window=(None, None, 24), type_embeddings=True), shuffle=False,
         feedback=True)  # fmt: skip
PHASES = Phases(steps={"expert": 3, "mixed": 2, "reflective": 2}, batch=4, lr=0.01, warmup_steps=1, weight_decay=0.0,
                cutoff=2000, save_steps=0)  # fmt: skip
WORLDS = Worlds(seed=0, expert=8, validation=2, test=3, sizes={"puts": 2, "noise": 2, "asks": 2})
SCORE = Score(batch=4, cutoff=2000, answers="fetch")
WHOLE = Lora(r=0, alpha=1, dropout=0.0, target_modules=[])
NONE = Files(**dict.fromkeys(Files.model_fields))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """An untrained stand-in."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    recipe = Recipe(seed=0, hidden=16, layers=2, heads=2, mlp=16, vocab=600, short_steps=0, long_steps=0,
                    chat_steps=0, far_steps=0, change=0, lr=0.1)  # fmt: skip
    tokenizer = build_tokenizer(recipe.vocab)
    build_model(recipe, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runtime(base: Path) -> Runtime:
    return Runtime(model=str(base), device="cpu", dtype="float32", impl="sdpa", gradient_checkpointing=False,
                   lora=WHOLE, processes=1, seeds_at_once=1)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory, runtime) -> Path:
    """worlds/, explore/, and the models of `on` after phases 1 and 2 (train/on) and 3 (reflect/on)."""
    folder = tmp_path_factory.mktemp("made")
    write_worlds(WORLDS, NONE, folder / "worlds")
    # An untrained model never succeeds: its trajectories are written by hand here.
    (folder / "explore").mkdir()
    wrong = [{**json.loads(line)} for line in (folder / "worlds" / "expert.jsonl").read_text().splitlines()]
    for one in wrong:
        turns = one["conversations"]
        turns += [{"from": "human", "value": "<|feedback|> no key there", "semantic_type": "LANDMARK"}, turns[-1]]
    text = "".join(json.dumps(one) + "\n" for one in wrong)
    for name in ("mixed", "reflective", "test_reflective"):
        (folder / "explore" / f"{name}.jsonl").write_text(text)
    files = {"expert": folder / "worlds/expert.jsonl", "mixed": folder / "explore/mixed.jsonl"}
    run(PHASES, runtime, ON, [0, 1], files, None, folder / "train")
    run(PHASES, runtime, ON, [0, 1], {"reflective": folder / "explore/reflective.jsonl"}, folder / "train",
        folder / "reflect" / "on")  # fmt: skip
    score_arm("on", SCORE, runtime, ON, folder / "worlds", folder / "explore", folder / "train",
              folder / "reflect/on", folder)  # fmt: skip
    return folder


def test_only_what_follows_feedback_is_learnt_in_phase_3(made: Path, base: Path):
    from transformers import AutoTokenizer

    tokenizer = load_model(Runtime(model=str(base), device="cpu", dtype="float32", impl="sdpa", lora=WHOLE,
                                   gradient_checkpointing=False, processes=1, seeds_at_once=1),
                           made / "reflect/on/seed0")[1]  # fmt: skip
    assert AutoTokenizer.from_pretrained(made / "reflect/on/seed0").get_vocab() == tokenizer.get_vocab()
    file = made / "explore" / "reflective.jsonl"
    for one in examples_of(file, tokenizer, 2000, shuffle=False, feedback=True):
        spot = one["input_ids"].index(feedback_token_id(tokenizer))
        assert set(one["labels"][: spot + 1]) == {IGNORE_INDEX} and max(one["labels"][spot:]) >= 0


def test_phase_3_goes_on_from_the_weights_of_phase_2(made: Path, runtime):
    before, after = (load_model(runtime, made / name / "seed0")[0] for name in ("train", "reflect/on"))
    rows = [model.get_input_embeddings().weight for model in (before, after)]
    assert 0 < (rows[0] - rows[1]).abs().max() < 0.1


def test_type_embeddings_are_trained_saved_and_loaded(made: Path, runtime):
    model, _ = load_model(runtime, made / "train" / "seed1")
    assert model.model.hsa.type_table.abs().max() > 0


def test_a_finished_training_is_kept_and_other_parameters_start_over(made: Path, runtime, capsys):
    files = {"expert": made / "worlds/expert.jsonl", "mixed": made / "explore/mixed.jsonl"}
    stamp = (made / "train" / "seed0" / "stamp.json").stat().st_mtime_ns
    run(PHASES, runtime, ON, [0, 1], files, None, made / "train")
    assert (made / "train" / "seed0" / "stamp.json").stat().st_mtime_ns == stamp
    assert "starts over" not in capsys.readouterr().out


def test_a_killed_training_continues_at_its_checkpoint(made: Path, runtime, tmp_path: Path, capsys):
    from transformers import Trainer

    saving = PHASES.model_copy(update={"save_steps": 2, "steps": {"expert": 4}})
    files = {"expert": made / "worlds/expert.jsonl"}
    run(saving, runtime, ON, [0], files, None, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        steps = Trainer.training_step
        done: list[int] = []

        def dies(self, *args, **kwargs):
            done.append(1)
            if len(done) == 4:
                raise KeyboardInterrupt
            return steps(self, *args, **kwargs)

        patch.setattr(Trainer, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            run(saving, runtime, ON, [0], files, None, tmp_path / "killed")
    run(saving, runtime, ON, [0], files, None, tmp_path / "killed")
    assert "continues at checkpoint-2" in capsys.readouterr().out
    whole, killed = (load_model(runtime, tmp_path / name / "seed0")[0].state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_lora_trains_and_saves_an_adapter_with_the_types(made: Path, runtime, tmp_path: Path):
    lora = runtime.model_copy(update={"lora": Lora(r=2, alpha=4, dropout=0.0, target_modules=["q_proj", "v_proj"])})
    run(PHASES, lora, ON, [0], {"expert": made / "worlds/expert.jsonl"}, None, tmp_path / "out")
    assert (tmp_path / "out/seed0/adapter_model.safetensors").is_file()
    model, tokenizer = load_model(lora, tmp_path / "out" / "seed0")
    table = model.base_model.model.model.hsa.modules_to_save.default.type_table
    assert table.abs().max() > 0
    save_model(model, tokenizer, tmp_path / "again")
    assert (tmp_path / "again/hsa.safetensors").is_file()


def test_shuffled_types_are_the_same_types_elsewhere(made: Path):
    found = read_conversations(made / "worlds" / "test_1x.jsonl")
    for before, after in zip(found, shuffled(found, 1), strict=True):
        assert sorted(m.semantic_id for m in before.messages) == sorted(m.semantic_id for m in after.messages)
        assert [m.content for m in before.messages] == [m.content for m in after.messages]
    assert any(a != b for a, b in zip(found, shuffled(found, 1), strict=True))


def test_runs_of_labels_are_the_turns_of_the_assistant():
    assert spans(torch.tensor([-100, 5, 6, -100, 7])) == [(1, 3), (4, 5)]


def test_scores_count_only_answers_and_recovery_only_what_follows_feedback(made: Path):
    found = read_json(made / "on.json")
    assert set(found["recall"]) == {"1x", "2x", "4x"} and 0 <= found["recovery"] <= 1
    lines = (made / "on.csv").read_text().splitlines()[1:]
    per_seed = 3 * WORLDS.test * 2 + WORLDS.expert  # two answers a world and length, one correction a trajectory
    assert len(lines) == 2 * per_seed


def test_teacher_forced_and_written_answers_agree(made: Path, runtime):
    """The first word that scoring calls the model's own is the one that generation writes."""
    from qwenlab.hsa.attention import session

    model, tokenizer = load_model(runtime, made / "reflect/on/seed0")
    one = read_conversations(made / "worlds" / "test_1x.jsonl")[0]
    example = encode(tokenizer, one, cutoff=2000)
    start = spans(torch.tensor(example["labels"]))[-1][0]
    ids, types = (torch.tensor([example[key][:start]]) for key in ("input_ids", "semantic_ids"))
    with torch.no_grad():
        whole = model(torch.tensor([example["input_ids"]]), semantic_ids=torch.tensor([example["semantic_ids"]]))
        with session(model, types, generated=2):
            said = model.generate(ids, max_new_tokens=1, do_sample=False)
    assert said[0, -1] == whole.logits[0, start - 1].argmax()


def test_an_explorer_that_never_succeeds_is_told(made: Path, runtime, tmp_path: Path):
    settings = Explore(seed=0, steps=0, worlds=2, test_worlds=1, mixed=2, temperature=1.0, batch=2)
    with pytest.raises(UserError, match="0 went well and 2 wrong"):
        explore(settings, WORLDS, PHASES, runtime, NONE, made / "worlds", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_request_ends_where_the_answer_begins(base: Path, runtime):
    import random

    from qwenlab.hsa.world import make_world

    _, tokenizer = new_model(runtime, ON)
    world = make_world(random.Random(0), WORLDS.sizes)
    text = tokenizer.decode(requested(world, ["attic"], tokenizer))
    assert text.endswith(f"fetch {world.wanted[1]}<|im_end|>\n<|im_start|>assistant\n")
    assert f"fetch {world.wanted[0]} attic" in text


def test_pictures_are_drawn_and_the_same_twice(made: Path, runtime, tmp_path: Path):
    for name in ("a", "b"):
        draw_attention(tmp_path / f"{name}.png", {"on": made / "reflect/on/seed0"}, made / "worlds/test_1x.jsonl",
                       Shown(trajectory=0, answer=0), runtime)  # fmt: skip
        draw_recall(tmp_path / f"{name}r.png", made, ["on"])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "ar.png").read_bytes() == (tmp_path / "br.png").read_bytes()


def test_attention_to_far_noise_is_nothing_in_the_picture(made: Path, runtime):
    model, tokenizer = load_model(runtime, made / "reflect/on/seed0")
    one = read_conversations(made / "worlds" / "test_4x.jsonl")[0]
    mean, types, _, truth = looked_at(model, tokenizer, one, 0)
    far = [n for n, kind in enumerate(types) if kind == 2 and len(types) - 1 - n > 24]
    assert far and mean[:, far].max() == 0 and types[truth] == 1
    assert mean.sum(1) == pytest.approx(1, abs=1e-5)


def test_two_processes_train_as_one(made: Path, base: Path, runtime, tmp_path: Path, root: Path):
    script = """
import json, sys
from qwenlab.hsa.train import Phases, run
from qwenlab.hsa.model import Arm, Runtime
said = json.load(open(sys.argv[1]))
runtime = Runtime(**{**said["runtime"], "processes": int(sys.argv[2])})
run(Phases(**said["phases"]), runtime, Arm(**said["arm"]), [0], {"expert": said["file"]}, None, sys.argv[3])
"""
    (tmp_path / "train_hsa.py").write_text(script)
    said = {"runtime": runtime.model_dump(), "phases": PHASES.model_dump(), "arm": ON.model_dump(),
            "file": str(made / "worlds/expert.jsonl")}  # fmt: skip
    (tmp_path / "said.json").write_text(json.dumps(said))
    env = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK")}
    env |= {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for count, more in ((1, []), (2, launcher)):
        words = [str(tmp_path / "train_hsa.py"), str(tmp_path / "said.json"), str(count), str(tmp_path / str(count))]
        subprocess.run([sys.executable, *more, *words], env=env, check=True, capture_output=True, timeout=200)
    one, two = (read_json(tmp_path / str(count) / "seed0" / "training.json")["loss"]["expert"] for count in (1, 2))
    assert one == pytest.approx(two, rel=1e-3)


def test_the_arms_in_the_parameters_are_arms(root: Path):
    arms = {name: load(f"hsa.arms.{name}", Arm, root) for name in load_raw("hsa", root)["arms"]}
    assert arms["placebo"].attention == arms["on"].attention and arms["placebo"].shuffle
    assert arms["feedback_off"].attention == arms["on"].attention and not arms["feedback_off"].feedback
    assert arms["off"].attention.type_embeddings  # the control is told the types too


@pytest.mark.parametrize("impl", ["sdpa", "gather"])
def test_exactness_is_measured(impl: str):
    found = measure_family("qwen3", impl)
    assert found["noop"] == found["leak"] == 0 and max(found.values()) < 1e-6
