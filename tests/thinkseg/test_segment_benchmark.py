"""benchmarks/thinkseg_segment.py runs from end to end."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner


def test_the_benchmark_runs_and_writes_nothing_when_smoked(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import thinkseg_segment

    page = root / "benchmarks/thinkseg_segment.md"
    before = page.read_text() if page.exists() else None
    monkeypatch.setattr(thinkseg_segment, "published_operations", lambda: (2.8, 0.2))
    done = CliRunner().invoke(thinkseg_segment.main, ["--smoke"])
    assert done.exit_code == 0, done.output
    assert "four sessions / one session" in done.output and "stock session" in done.output
    assert (page.read_text() if page.exists() else None) == before


def test_bytes_held_by_a_session_count_each_storage_once(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    from thinkseg_segment import held

    tensor = torch.zeros(10)

    class Session:
        def __init__(self):
            self.frames = {0: tensor, 1: [tensor[:5], torch.zeros(3)]}

    assert held(Session(), set()) == 40 + 12
