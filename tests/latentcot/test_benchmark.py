"""benchmarks/latentcot.py runs from end to end, and its two ways have the same gradients."""

import importlib


def test_the_benchmark_runs_and_writes_nothing_when_it_only_smokes(monkeypatch, root):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    module = importlib.import_module("benchmarks.latentcot")
    lines, gap = module.measure(3, 1)
    assert len(lines) == 3 and gap < 1e-12
