"""`qwenlab infer`: what it writes, what it says, and how it refuses bad input."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from qwenlab.cli import main

PROMPT = "a red circle at the top left and a blue square at the bottom right"


def infer(out: Path, *words: str):
    given = [
        "infer",
        "--prompt",
        PROMPT,
        "--output-dir",
        str(out),
        "--backend",
        "procedural",
        "--reflector",
        "heuristic",
    ]
    return CliRunner().invoke(main, [*given, *words])


def test_the_procedural_backend_writes_two_pictures_and_a_result_and_says_that_no_model_ran(tmp_path):
    done = infer(tmp_path / "out", "--seed", "3")
    assert done.exit_code == 0, done.output
    assert "no model weights were used" in done.output
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert any("no model weights" in note for note in result["notes"])
    assert {"reflection", "refine_prompt", "scores", "seed", "timings", "prompt"} <= set(result)
    for name in ("draft", "refined"):
        assert Image.open(tmp_path / "out" / f"{name}.png").mode == "RGB"
        assert result["scores"][name]["score"] <= 1


def test_the_same_seed_gives_the_same_files_but_for_the_timings(tmp_path):
    results = []
    for name in ("a", "b"):
        infer(tmp_path / name, "--seed", "1")
        result = json.loads((tmp_path / name / "result.json").read_text())
        del result["timings"]
        results.append((result, (tmp_path / name / "draft.png").read_bytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("seed", range(6))
def test_a_wrong_draft_is_mended_and_a_right_one_is_kept(tmp_path, seed):
    infer(tmp_path, "--seed", str(seed))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["scores"]["refined"]["all_correct"]
    assert (result["refine_prompt"] is None) == result["scores"]["draft"]["all_correct"]
    if result["refine_prompt"] is None:
        assert (tmp_path / "draft.png").read_bytes() == (tmp_path / "refined.png").read_bytes()


def test_redraw_puts_the_repair_into_the_prompt(tmp_path):
    assert infer(tmp_path, "--refine", "redraw").exit_code == 0
    assert json.loads((tmp_path / "result.json").read_text())["refine"] == "redraw"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", "  "], "--prompt is empty"),
        (["--prompt", "a cat on a mat"], "draws scenes only"),
        (["--backend", "local", "--qwen-image-model", "./nowhere/model"], "model_index.json is missing"),
        (["--backend", "local", "--device", "cuda:7"], "finds no CUDA GPU"),
        (["--backend", "local", "--device", "toaster"], "is unknown"),
        (["--backend", "mock"], "is not one of"),
        (["--seed", "-1"], "-1"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(tmp_path, root, monkeypatch, words, message):
    monkeypatch.chdir(root)
    if "cuda:7" in words:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    out = tmp_path / "out"
    done = infer(out, *words)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert not out.exists() or not any(out.iterdir())


def test_without_the_parameter_files_the_local_backend_says_where_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = infer(tmp_path / "out", "--backend", "local")
    assert done.exit_code == 2
    assert "run the command from the root of the repository" in done.output


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    assert infer(tmp_path / "out").exit_code == 2
