"""Shared fixtures: the repository root, the fetched assets, the stored stand-in pipeline."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Two test processes share two cores: more threads would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def assets() -> Path:
    """data/assets, fetched when a fresh clone has not run the pipeline yet."""
    from qwenlab.core import assets as module

    folder = ROOT / "data" / "assets"
    module.fetch(folder)
    return folder


@pytest.fixture(scope="session")
def vgg(assets: Path) -> str:
    return str(assets / "hed_bsds500.h5")
