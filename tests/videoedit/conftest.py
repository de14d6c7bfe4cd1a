"""A small job on disk."""

from pathlib import Path

import pytest

from tests.pictures import picture


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder with init.png and edges/ (three edge pictures)."""
    from qwenlab.videoedit.source import edge_picture

    picture(0).save(tmp_path / "init.png")
    (tmp_path / "edges").mkdir()
    for index in (1, 2, 10):  # natural order: 10 comes last
        edge_picture(picture(index)).save(tmp_path / "edges" / f"edge_{index}.png")
    return tmp_path
