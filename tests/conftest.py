"""Shared fixtures: the repository root, the fetched assets, the stored stand-in pipeline."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
# Two test processes share two cores: more threads would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The first example pays for imports, and a busy machine for everybody: time is no property to test.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


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


@pytest.fixture(scope="session")
def runtime(root: Path, vgg: str):
    from qwenlab.videoedit.pipeline import Runtime

    return Runtime(
        model=str(root / "data/standins/image"), device="cpu", dtype="fp32", vae_area=6144, condition_area=6144, vgg=vgg
    )


@pytest.fixture(scope="session")
def pipe(runtime):
    from qwenlab.videoedit.pipeline import load_pipeline

    return load_pipeline(runtime)


@pytest.fixture(scope="session")
def drawing():
    from qwenlab.videoedit.pipeline import Drawing

    return Drawing(prompt="保持图 2 不变，原样输出", negative_prompt=" ", num_inference_steps=2, true_cfg_scale=1.0)
