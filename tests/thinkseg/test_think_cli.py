"""`qwenlab think`: what is refused before any model is loaded, and the whole chain on the stand-ins."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from qwenlab.cli import main
from qwenlab.thinkseg.clips import make_clip, write_clip
from qwenlab.thinkseg.student import Lora, StudentRuntime, add_lora, load_base


def think(*words: str, root: Path):
    return CliRunner().invoke(main, ["think", *words])


@pytest.fixture(autouse=True)
def _at_root(root: Path, monkeypatch):
    monkeypatch.chdir(root)


@pytest.fixture(scope="module")
def adapter(root: Path, tmp_path_factory) -> Path:
    """An adapter that was not trained: the grammar makes its summaries good ones all the same."""
    path = tmp_path_factory.mktemp("adapter")
    runtime = StudentRuntime(
        model=str(root / "data/standins/summary_lm"), device="cpu", dtype="float32", processes=1, seeds_at_once=1
    )
    lora = Lora(r=4, alpha=8, dropout=0.0, target_modules=["q_proj"])
    add_lora(load_base(runtime)[0], lora).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_clip(make_clip("drift", 12, 3), tmp_path_factory.mktemp("clips"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "either VIDEOS with --question, or --config"),
        (("a.mp4",), "--question is missing"),
        (("a.mp4", "--question", "  "), "--question is missing"),
        (("a.mp4", "--question", "Q?", "--config", "x.json"), "not both"),
        (("--config", "missing.json"), "missing.json: no such demo config"),
        (("a.mp4", "--question", "Q?", "--lora-model", "nowhere"), "nowhere: holds no adapter_config.json"),
    ],
)
def test_bad_command_lines_are_one_sentence(root: Path, words: tuple[str, ...], said: str):
    result = think(*words, root=root)
    assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output


def test_the_whole_chain_writes_results_and_a_mask_video_and_reports_what_is_missing(
    root: Path, video: Path, adapter: Path, tmp_path: Path
):
    question = f"Where is the {make_clip('drift', 12, 3).things[0].phrase} at first?"
    words = (str(video), "missing.mp4", "--question", question, "--options", "A. left", "--options", "B. right")
    result = think(*words, "--lora-model", str(adapter), "--out", str(tmp_path), "--max-frames", "8", root=root)
    assert result.exit_code == 2, result.output  # one of the two is missing
    found = json.loads((tmp_path / "full_pipeline_results.json").read_text())["results"]
    good, bad = found
    assert good["thinker"] == "omni" and "error" in bad and "missing.mp4: no such video" in bad["error"]
    if "error" not in good:
        assert len(good["summary"]["key_points"]) == 3 and good["segmentation"]["frames"] == 8
        assert Path(good["mask_video"]).is_file()
        assert good["sam3_instruction"].startswith("Segment in the video: ")


def test_a_scripted_thinking_is_labelled_as_such(root: Path, adapter: Path, tmp_path: Path):
    import numpy as np

    from qwenlab.thinkseg.questions import ask

    clip = make_clip("drift", 12, 5)
    path = write_clip(clip, tmp_path)
    question, _ = ask(clip.things, clip.tone, np.random.default_rng(0))
    words = (str(path), "--question", question.text, "--scripted", "--lora-model", str(adapter), "--max-frames", "4")
    options = [word for option in question.options for word in ("--options", option)]
    result = think(*words, *options, "--out", str(tmp_path / "out"), root=root)
    found = json.loads((tmp_path / "out" / "full_pipeline_results.json").read_text())["results"][0]
    # An untrained adapter may name what the tiny SAM3 has too few tokens for: that is reported, and no crash.
    assert result.exit_code == (2 if "error" in found else 0), result.output
    assert found["thinker"] == "scripted" and "tone" in found["context"]
