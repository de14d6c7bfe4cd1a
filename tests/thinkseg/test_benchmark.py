"""benchmarks/thinkseg.py runs from end to end."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from qwenlab.thinkseg.clips import make_clip
from qwenlab.thinkseg.questions import ask
from qwenlab.thinkseg.records import Record, write_rows
from qwenlab.thinkseg.scripted import think
from qwenlab.thinkseg.student import Lora, StudentRuntime, add_lora, load_base
from qwenlab.thinkseg.thinking import Checks, checked


def test_smoke_compares_everything_and_writes_nothing(root: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    from thinkseg import main

    model = str(root / "data/standins/summary_lm")
    runtime = StudentRuntime(model=model, device="cpu", dtype="float32", processes=1, seeds_at_once=1)
    lora = Lora(r=2, alpha=2, dropout=0.0, target_modules=["q_proj"])
    add_lora(load_base(runtime)[0], lora).save_pretrained(tmp_path / "student")
    rows = []
    for index in range(4):
        clip, rng = make_clip("drift", 4, index), np.random.default_rng(index)
        question, asked = ask(clip.things, clip.tone, rng)
        record = Record(id=clip.clip_id, source="drift", video="x.mp4", question=question.text, split="test")
        text = think(clip.things, clip.tone, question, asked, rng)
        rows.append(checked(record, "scripted", text, Checks(min_length=0, max_length=9999)))
    write_rows(tmp_path / "thinking.jsonl", rows)
    page = root / "benchmarks/thinkseg.md"
    before = page.exists() and page.stat().st_mtime_ns
    result = CliRunner().invoke(
        main, ["--smoke", "--thinkings", str(tmp_path), "--student", str(tmp_path / "student"), "--model", model]
    )
    assert result.exit_code == 0, result.output
    assert len([row for row in result.output.splitlines() if "x** |" in row]) == 2 + 3 + 2
    assert "| student | grammar | 1.000 |" in result.output
    assert (page.exists() and page.stat().st_mtime_ns) == before


def test_without_a_student_it_says_what_makes_one(root: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    from thinkseg import main

    result = CliRunner().invoke(main, ["--thinkings", str(tmp_path / "none")])
    assert result.exit_code == 2 and "`dvc repro thinkseg-thinking` makes it" in result.output
