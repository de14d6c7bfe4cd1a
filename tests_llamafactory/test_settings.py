"""The command line: bad blocks, missing names, and the example."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from qwenlab.core.errors import UserError
from qwenlab.hsa.llamafactory import check_names, installed, main
from qwenlab.hsa.llamafactory_settings import parse

EXAMPLE = Path(__file__).parents[1] / "examples" / "llamafactory" / "hsa_feedback.yaml"
BAD = {
    "hsa.wndow=[1,2,3]": "hsa.wndow is unknown; known there: preset, impl",
    "hsa.preset=best": 'hsa.preset is "best"; expected one of published, noop',
    "hsa.impl=flash_attention_2": 'hsa.impl is "flash_attention_2"; expected one of sdpa, eager',
    "hsa.slope=[0,-1,0]": "hsa.slope.1 is -1",
    "hsa.window=5": "hsa.window is 5",
    "hsa=true": "hsa is true; expected a block of keys, or false",
    "hsa.folder=saves": "hsa.folder has settings of its own",
    "feedback.missing=ignore": 'feedback.missing is "ignore"',
    "feedback.token=x": "feedback.token",
    "stage=dpo": 'stage is "dpo"; expected sft',
    "flash_attn=fa2": 'flash_attn is "fa2"',
    "predict_with_generate=true": "predict_with_generate is true",
}


@pytest.mark.parametrize("override", BAD)
def test_a_bad_value_ends_with_one_sentence_and_exit_code_2(override):
    done = CliRunner().invoke(main, ["train", str(EXAMPLE), override])
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ") and BAD[override] in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["a: [", "- a\n- b"])
def test_a_file_that_is_no_mapping_is_refused(text, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    for path in (file, tmp_path / "none.yaml"):
        done = CliRunner().invoke(main, ["train", str(path)])
        assert done.exit_code == 2 and str(path) in done.stderr


def test_settings_need_a_preset_or_slope_and_window():
    with pytest.raises(UserError, match=r"hsa\.slope is missing.*published, noop.*hsa\.window"):
        parse({"hsa": None})
    assert parse({"hsa": {"preset": "noop", "window": [None, None, 7]}})[0].config.window == (None, None, 7)


def test_without_blocks_nothing_changes():
    args = {"stage": "dpo", "flash_attn": "fa2"}
    settings, left = parse(args | {"hsa": False})
    assert left == args and settings.block is settings.config is settings.feedback is None


def test_feedback_adds_its_token_once_and_beside_others():
    assert parse({"feedback": {}})[1]["add_special_tokens"] == "<|feedback|>"
    for before, after in {"<a>": "<a>,<|feedback|>", "<|feedback|>,<a>": "<|feedback|>,<a>"}.items():
        assert parse({"feedback": {}, "add_special_tokens": before})[1]["add_special_tokens"] == after


def test_a_learned_bias_turns_reentrant_checkpoints_off_and_refuses_them():
    learns = {"hsa": {"preset": "noop", "learn_pair": True}}
    assert parse(learns)[1]["use_reentrant_gc"] is False
    with pytest.raises(UserError, match="use_reentrant_gc is true"):
        parse(learns | {"use_reentrant_gc": True})
    assert "use_reentrant_gc" not in parse({"hsa": {"preset": "published"}})[1]


@pytest.mark.parametrize(
    "module, name",
    [
        ("data.loader", "SupervisedDatasetProcessor"),
        ("data.converter", "register_dataset_converter"),
        ("train.sft.workflow", "load_model"),
        ("train.sft.workflow", "SFTDataCollatorWith4DAttentionMask"),
    ],
)
def test_a_name_that_is_gone_is_named(module, name, monkeypatch):
    monkeypatch.delattr(f"llamafactory.{module}.{name}")
    with pytest.raises(UserError, match=rf"no {module}\.{name}; expected version 0\.9\.5"):
        check_names()
    assert CliRunner().invoke(main, ["train", str(EXAMPLE)]).exit_code == 2


def test_a_method_that_is_gone_is_named(monkeypatch):
    from llamafactory.data.template import Template

    monkeypatch.delattr(Template, "encode_multiturn")
    with pytest.raises(UserError, match=r"no data\.template\.Template\.encode_multiturn"):
        check_names()


def test_llamafactory_is_as_before_when_a_run_is_over():
    from llamafactory.data import converter, loader
    from llamafactory.train.sft import workflow

    before = [dict(vars(module)) for module in (converter, loader, workflow)], dict(converter.DATASET_CONVERTERS)
    with pytest.raises(RuntimeError), installed(parse({"hsa": {"preset": "noop"}, "feedback": None})[0]):
        assert vars(workflow) != before[0][2] and "sharegpt_hsa" in converter.DATASET_CONVERTERS
        raise RuntimeError
    after = [dict(vars(module)) for module in (converter, loader, workflow)], dict(converter.DATASET_CONVERTERS)
    assert after == before


def test_the_example_trains(models, tmp_path, monkeypatch):
    monkeypatch.chdir(EXAMPLE.parents[2])
    own = [f"model_name_or_path={models / 'qwen2'}", f"output_dir={tmp_path}", "bf16=false", "use_cpu=true"]
    done = CliRunner().invoke(main, ["train", str(EXAMPLE), *own, "max_steps=2", "logging_steps=1"])
    assert done.exit_code == 0, done.output[-2000:]
    assert json.loads((tmp_path / "hsa.json").read_text(encoding="utf-8"))["window"] == [None, None, 256]
