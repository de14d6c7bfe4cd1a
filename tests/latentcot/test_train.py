"""The five commands in their order, and what stops them."""

import json
import shutil

import pytest
import torch
from click.testing import CliRunner

from qwenlab.core.errors import UserError
from qwenlab.latentcot import latents as L
from qwenlab.latentcot import precompute
from qwenlab.latentcot.checkpoint import load
from qwenlab.latentcot.method import Loss
from qwenlab.latentcot.ready import collator, prepare
from qwenlab.latentcot.tokens import STAGES
from qwenlab.latentcot.train import Job, Student, rate, run_job
from tests.latentcot import vl


def job(stage, base, data, out, start=None, teacher=None, **more):
    values = {
        "stage": stage, "params": vl.TRAIN, "runtime": vl.runtime(str(base)), "method": vl.METHOD, "seed": 0,
        "start": str(start or base), "source": str(start or base), "data": str(data),
        "teacher": teacher and str(teacher), "out": str(out), "work": f"{out}.work",
    }  # fmt: skip
    return Job(**{**values, **more})


@pytest.fixture(scope="module")
def chain(base, data, tmp_path_factory):
    """All three stages and both precomputations, two steps each."""
    root, runtime = tmp_path_factory.mktemp("chain"), vl.runtime(str(base))
    run_job(job("stage1-1", base, data, root / "s11"))
    precompute.run("rep", root / "s11", data, root / "reps", runtime, vl.METHOD, packed=False)
    run_job(job("stage1-2", base, data, root / "s12", root / "s11", root / "reps"))
    precompute.run("latent", root / "s12", data, root / "latents", runtime, vl.METHOD, packed=False)
    run_job(job("stage1-3", base, data, root / "s13", root / "s12", root / "latents"))
    return root


def test_three_stages_run_and_save_checkpoints_that_transformers_reads(chain, base):
    names = sorted(path.name for path in (chain / "reps").iterdir())
    assert names[0] == "rep_all_layers_scenes_0.pt" and len(names) == 8
    state = torch.load(chain / "latents" / "latent_all_layers_scenes_0.pt", weights_only=True)["latent"]
    assert state.shape == (3, vl.METHOD.latents, 32)
    _, processor = load(chain / "s13", vl.runtime(str(base)))
    assert "<abs_vis_token>" in processor.tokenizer.get_vocab()
    assert json.loads((chain / "s13" / "latentcot.json").read_text())["stage"] == "stage1-3"


def test_the_vision_tower_is_frozen_and_the_rest_is_not(chain, base):
    before, _ = load(base, vl.runtime(str(base)))
    after, _ = load(chain / "s13", vl.runtime(str(base)))
    assert not any(p.requires_grad for p in after.model.visual.parameters())
    for one, other in zip(before.model.visual.parameters(), after.model.visual.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(before.model.language_model.norm.weight, after.model.language_model.norm.weight)


def test_a_missing_teacher_file_stops_stage_1_2_by_name(chain, base, data, tmp_path):
    shutil.copytree(chain / "reps", tmp_path / "reps")
    (tmp_path / "reps" / "rep_all_layers_scenes_3.pt").unlink()
    with pytest.raises(UserError, match=r"rep_all_layers_scenes_3.pt: no such teacher file"):
        run_job(job("stage1-2", base, data, tmp_path / "out", chain / "s11", tmp_path / "reps"))
    assert not (tmp_path / "out").exists()


def test_teacher_states_of_another_checkpoint_are_stale(chain, base, data, tmp_path):
    with pytest.raises(UserError, match="stale"):
        run_job(job("stage1-2", base, data, tmp_path / "out", chain / "s12", chain / "reps"))


def test_another_k_than_the_teachers_is_refused(chain, base, data, tmp_path):
    other = vl.METHOD.model_copy(update={"latents": 2})
    with pytest.raises(UserError, match="latents is 3; expected 2"):
        run_job(job("stage1-3", base, data, tmp_path / "out", chain / "s12", chain / "latents", method=other))


def test_a_stage_with_a_teacher_asks_for_its_folder(chain, base, data, tmp_path):
    with pytest.raises(UserError, match="--teacher-reps-dir"):
        run_job(job("stage1-2", base, data, tmp_path / "out", chain / "s11"))


def test_a_base_without_latent_tokens_cannot_start_stage_1_2(base, data, tmp_path):
    with pytest.raises(UserError, match="expected a checkpoint of stage1-1"):
        run_job(job("stage1-2", base, data, tmp_path / "out"))


def test_a_killed_training_continues_at_its_last_checkpoint_and_ends_where_an_unbroken_one_does(
    base, data, tmp_path, capfd
):
    params = vl.TRAIN.model_copy(update={"save_steps": 1})
    run_job(job("stage1-1", base, data, tmp_path / "whole", params=params))

    class Killed(Exception):
        pass

    from transformers import Trainer

    original, count = Trainer.training_step, []

    def dies(self, *args, **kwargs):
        count.append(1)
        if len(count) == 2:
            raise Killed
        return original(self, *args, **kwargs)

    Trainer.training_step = dies
    try:
        with pytest.raises(Killed):
            run_job(job("stage1-1", base, data, tmp_path / "again", params=params))
    finally:
        Trainer.training_step = original
    run_job(job("stage1-1", base, data, tmp_path / "again", params=params))
    assert "continues at checkpoint-1" in capfd.readouterr().out
    one, other = ((load(tmp_path / n, vl.runtime(str(base)))[0]).state_dict() for n in ("whole", "again"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_schedule_goes_on_where_the_stage_before_left_it():
    total = sum(vl.TRAIN.steps.values())
    spans = [vl.TRAIN.span(stage) for stage in STAGES]
    assert spans == [(0, 2, total), (2, 2, total), (4, 2, total)]
    assert vl.TRAIN.span("text") == (0, total, total)
    rates = [rate(step, total, 1, 0.1) for step in range(total + 1)]
    assert rates[0] == 1.0 and rates == sorted(rates, reverse=True) and rates[-1] == pytest.approx(0.1)


def test_gradient_checkpointing_is_refused_in_a_latent_pass(base, data):
    ready = prepare(base, vl.runtime(str(base)), data, "stage1-3", vl.METHOD, new_tokens=True)
    ready.model.train()
    ready.model.gradient_checkpointing_enable()
    with pytest.raises(UserError, match="drops the KV cache"):
        L.run(ready.model, collator(ready, "stage1-3", vl.METHOD)(ready.encoded), 3)


def test_a_loss_that_is_no_number_stops_the_training(base, data):
    ready = prepare(base, vl.runtime(str(base)), data, "text", vl.METHOD, new_tokens=True)
    with torch.no_grad():
        ready.model.model.language_model.norm.weight[0] = float("nan")
    student = Student(ready.model, "text", vl.METHOD, Loss(emphasize=1.0, align=0.0))
    with pytest.raises(FloatingPointError, match="text: the loss is nan"):
        student(**collator(ready, "text", vl.METHOD)(ready.encoded))


def test_labels_are_what_a_model_is_to_write(base, data):
    """`<abs_vis_token>` and the observation tags carry a loss; images, pads, the forced end and the question do not."""
    ready = prepare(base, vl.runtime(str(base)), data, "stage1-2", vl.METHOD, 4.0, new_tokens=True)
    one = ready.encoded[0]
    names = ready.processor.tokenizer.convert_ids_to_tokens(one.ids)
    weights = dict(zip(names, one.weight.tolist(), strict=True))
    assert weights["<abs_vis_token>"] == 1 and weights["<observation>"] == 4 and weights["</observation>"] == 1
    for name in ("<|image_pad|>", "<|vision_start|>", "<abs_vis_token_pad>", "</abs_vis_token>"):
        assert weights[name] == 0
    assert not one.weight[: one.prompt].any() and one.weight[-1] == 1  # the end of the turn
    assert int(one.latent.sum()) == 3 and int(one.auxiliary.sum()) == 6


def test_a_teacher_file_of_another_length_stops_the_run(chain, base, data, tmp_path):
    shutil.copytree(chain / "reps", tmp_path / "reps")
    path = tmp_path / "reps" / "rep_all_layers_scenes_0.pt"
    payload = torch.load(path, weights_only=True)
    torch.save({**payload, "latent": payload["latent"][:, :-1]}, path)
    with pytest.raises(UserError, match=r"rep_all_layers_scenes_0.pt: its states are"):
        run_job(job("stage1-2", base, data, tmp_path / "out", chain / "s11", tmp_path / "reps"))


def test_the_commands_take_the_seeds_flags(base, data, tmp_path):
    from qwenlab.cli import main

    def call(*words):
        done = CliRunner().invoke(main, ["latentcot", *map(str, words)])
        assert done.exit_code == 0, (done.output, done.exception)

    common = ("--data-path", data, "--device", "cpu")
    few = ("--steps", 1, "--batch", 4)
    call("train", "--stage", "stage1-1", "--model-path", base, "--output-dir", tmp_path / "a", *common, *few)
    call(
        "precompute-rep",
        "--model-path",
        tmp_path / "a",
        "--output-dir",
        tmp_path / "r",
        "--output-hidden-states",
        *common,
    )
    call("train", "--stage", "stage1-2", "--model-path", tmp_path / "a", "--teacher-reps-dir", tmp_path / "r",
         "--output-dir", tmp_path / "b", *common, *few)  # fmt: skip
    call(
        "precompute-latent",
        "--model-path",
        tmp_path / "b",
        "--output-dir",
        tmp_path / "l",
        "--output-latent-embeds",
        *common,
    )
    call("train", "--stage", "stage1-3", "--model-path", tmp_path / "b", "--teacher-latent-dir", tmp_path / "l",
         "--output-dir", tmp_path / "c", *common, *few)  # fmt: skip
    assert (tmp_path / "c" / "model.safetensors").is_file()


def test_a_bad_flag_ends_in_one_sentence_and_code_2(base, data, tmp_path):
    from qwenlab.cli import main

    words = ["latentcot", "train", "--stage", "stage1-2", "--model-path", str(base), "--data-path", str(data),
             "--output-dir", str(tmp_path / "x"), "--device", "cpu"]  # fmt: skip
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2 and "expected a checkpoint of stage1-1" in done.output
