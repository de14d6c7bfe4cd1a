"""benchmarks/tomas.py runs from end to end."""

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner


def write_split(folder: Path, split: str, ids: list[int], profile) -> np.ndarray:
    """Tasks about the configurations `ids`; returns their states."""
    rows = [{"text": f"Task {i} in 5 s", "tool_id": int(profile.tool_ids[i]), "config_id": i} for i in ids]
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return np.full((len(ids), 32, 4), 0.5, np.float32)


def test_smoke_compares_everything_and_writes_nothing(
    root: Path, tiny_lm: Path, memory_dir: Path, planner_dir: Path, profile, tmp_path: Path, monkeypatch
):
    from safetensors.numpy import save_file

    save_file({split: write_split(tmp_path, split, [3, 700, 1500], profile) for split in ("train", "test")},
              tmp_path / "states.safetensors")  # fmt: skip
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    from tomas import main

    page = root / "benchmarks/tomas.md"
    before = page.exists() and page.stat().st_mtime_ns
    folders = {"--model": tiny_lm, "--memory": memory_dir, "--planner": planner_dir, "--tasks": tmp_path}
    result = CliRunner().invoke(main, ["--smoke", *(str(word) for pair in folders.items() for word in pair)])
    assert result.exit_code == 0, result.output
    measured = [row for row in result.output.splitlines() if row.startswith("|") and "x** |" in row]
    assert len(measured) == 3 + 1 + 1 + 2, result.output  # written plans, a batch, a larger memory, phase 0
    assert "| heads | **" in result.output and "| JSON | **" in result.output
    assert (page.exists() and page.stat().st_mtime_ns) == before


def test_without_a_trained_planner_it_says_what_makes_one(root: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    from tomas import main

    result = CliRunner().invoke(main, ["--memory", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert result.output.strip() == f"Error: {tmp_path / 'none'}: no such folder; `dvc repro tomas-train` makes it."
