"""The stored stand-in pipeline and small pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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


def picture(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder with init.png and edges/ (three edge pictures)."""
    from qwenlab.videoedit.source import edge_picture

    picture(0).save(tmp_path / "init.png")
    (tmp_path / "edges").mkdir()
    for index in (1, 2, 10):  # natural order: 10 comes last
        edge_picture(picture(index)).save(tmp_path / "edges" / f"edge_{index}.png")
    return tmp_path
