"""`qwenlab edit` as a user types it."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qwenlab.cli import main
from qwenlab.videoedit.cli import edit

SEED_FLAGS = """
    init_frame edge_frames_dir out_frames_dir rgb_video edge_video out_video model_id prompt negative_prompt
    num_inference_steps true_cfg_scale seed device dtype max_frames ttlg_edge_scale ttlg_gram_scale ttlg_lr
    ttlg_every ttlg_start_step ttlg_end_step ttlg_last_steps ttlg_edge_size ttlg_gram_size ttlg_temporal_scale
    metrics_out save_debug_dir self_test
"""
SEED_DEFAULTS = {
    "model_id": "Qwen/Qwen-Image-Edit-2509",
    "negative_prompt": " ",
    "num_inference_steps": 50,
    "true_cfg_scale": 4.0,
    "seed": 0,
    "device": "cuda",
    "dtype": "bf16",
    "ttlg_edge_scale": 0.0,
    "ttlg_gram_scale": 0.0,
    "ttlg_temporal_scale": 0.0,
    "ttlg_lr": 0.05,
    "ttlg_every": 1,
    "prompt": "将图 2 按图 1 所勾勒出的精致形状进行变形，生成一张图像输出",
}


def qwenlab(*args: object) -> Result:
    return CliRunner().invoke(main, ["edit", *map(str, args)])


def test_every_flag_of_the_seed_exists_with_underscores_and_with_dashes():
    spelled = {name: option.opts for option in edit.params for name in [option.name]}
    for name in SEED_FLAGS.split():
        assert f"--{name}" in spelled[name]
        assert f"--{name.replace('_', '-')}" in spelled[name]


def test_defaults_are_the_seeds():
    defaults = {option.name: option.default for option in edit.params}
    assert {name: defaults[name] for name in SEED_DEFAULTS} == SEED_DEFAULTS


def test_the_self_test_runs_without_a_model():
    result = qwenlab("--self_test")
    assert result.exit_code == 0
    assert "self test passed" in result.output


@pytest.fixture
def tiny(clip: Path, root: Path, vgg: str) -> list[object]:
    return [
        "--init_frame", clip / "init.png", "--edge-frames-dir", clip / "edges", "--out_frames_dir", clip / "out",
        "--model_id", root / "data/standins/image", "--device", "cpu", "--dtype", "fp32", "--vgg_weights", vgg,
        "--num_inference_steps", 2, "--max_frames", 2, "--true_cfg_scale", 1,
    ]  # fmt: skip


def test_the_seeds_example_runs_on_the_stand_in(tiny, clip, monkeypatch, root):
    monkeypatch.chdir(root)
    args = [*tiny, "--profile", "tiny", "--ttlg_edge_scale", 1.0, "--ttlg_gram_scale", 0.2, "--ttlg_lr", 0.05]
    result = qwenlab(*args, "--metrics_out", clip / "m.csv", "--out_video", clip / "out.mp4")
    assert result.exit_code == 0, result.output
    assert "2 frames in" in result.output and "2 guided steps" in result.output
    assert (clip / "out" / "000001.png").is_file() and (clip / "m.csv").is_file() and (clip / "out.mp4").is_file()


BAD: dict[str, tuple[list[object], str]] = {
    "no gpu": (["--device", "cuda"], "finds no CUDA GPU"),
    "unknown device": (["--device", "toaster"], "unknown"),
    "idle guidance": (["--ttlg_last_steps", 1], "can never act"),
    "window past the end": (["--ttlg_edge_scale", 1, "--ttlg_start_step", 7], "never acts"),
    "negative step": (["--ttlg_edge_scale", 1, "--ttlg_lr", -1], "must be above 0"),
    "no such model": (["--model_id", "./nowhere"], "no pipeline there"),
    "no such profile": (["--profile", "huge"], "huge"),
    "offload on cpu": (["--offload", "model"], "offload"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_end_with_one_sentence_and_exit_code_two(tiny, name, monkeypatch, root):
    if name == "no gpu":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(root)
    extra, message = BAD[name]
    result = qwenlab(*tiny, *extra)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_nowhere_to_write_is_an_error(clip):
    result = qwenlab("--init_frame", clip / "init.png", "--edge_frames_dir", clip / "edges")
    assert result.exit_code == 2 and "nothing to write to" in result.output
