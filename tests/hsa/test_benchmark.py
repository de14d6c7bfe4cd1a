"""benchmarks/hsa.py runs from end to end."""

from pathlib import Path

from click.testing import CliRunner


def test_smoke_measures_everything_and_writes_nothing(root: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    from hsa import main

    page = root / "benchmarks/hsa.md"
    before = page.exists() and page.stat().st_mtime_ns
    result = CliRunner().invoke(main, ["--smoke"])
    assert result.exit_code == 0, result.output
    rows = [row for row in result.output.splitlines() if row.startswith("| 256")]
    assert len(rows) == 6 + 1 + 1 and rows[-1].endswith("| yes |")  # eviction changes no text
    assert (page.exists() and page.stat().st_mtime_ns) == before
