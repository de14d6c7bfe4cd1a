"""The exported memory, and the tables that belong to it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from qwenlab.core.errors import UserError
from qwenlab.tomas.export import LOOKUP, MASKS, WEIGHTS, encode, export, read_memory


def test_an_export_holds_a_row_a_configuration_and_what_each_row_means(memory_dir: Path, profile, new, encoder):
    memory = read_memory(memory_dir)
    assert memory.weights.shape == (1701, 32)
    assert np.array_equal(memory.profile.resources, profile.resources)
    assert np.array_equal(memory.profile.tool_ids, profile.tool_ids) and np.array_equal(memory.new, new)
    assert (memory.weights == encode(encoder, profile)).all()
    masks = json.loads((memory_dir / MASKS).read_text())["tools"]
    assert sum(map(len, masks.values())) == 1701 and list(masks["image_classification"]) == list(range(243))


def test_the_same_encoder_exports_the_same_bytes(memory_dir: Path, profile, new, encoder, tmp_path: Path):
    export(encoder, profile, new, tmp_path / "again")
    for name in (WEIGHTS, LOOKUP, MASKS):
        assert (tmp_path / "again" / name).read_bytes() == (memory_dir / name).read_bytes()


@pytest.mark.parametrize("table", [LOOKUP, MASKS])
def test_a_table_of_other_weights_is_refused(memory_dir: Path, tmp_path: Path, table: str):
    shutil.copytree(memory_dir, tmp_path / "m")
    content = json.loads((tmp_path / "m" / table).read_text())
    content["weights_sha256"] = "0" * 64
    (tmp_path / "m" / table).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{table}: it belongs to other weights"):
        read_memory(tmp_path / "m")


def test_rows_that_do_not_match_the_weights_or_the_masks_are_refused(memory_dir: Path, tmp_path: Path):
    shutil.copytree(memory_dir, tmp_path / "m")
    content = json.loads((tmp_path / "m" / LOOKUP).read_text())
    rows = content["configs"]
    (tmp_path / "m" / LOOKUP).write_text(json.dumps({**content, "configs": rows[:-1]}))
    with pytest.raises(UserError, match="1700 rows; expected 1701"):
        read_memory(tmp_path / "m")
    (tmp_path / "m" / LOOKUP).write_text(json.dumps({**content, "configs": [rows[-1], *rows[1:]]}))
    with pytest.raises(UserError, match="its rows are not those"):
        read_memory(tmp_path / "m")


def test_a_missing_export_says_what_writes_it(tmp_path: Path):
    with pytest.raises(UserError, match="tomas-export_weights"):
        read_memory(tmp_path)


def test_weights_are_plain_safetensors(memory_dir: Path):
    assert list(load_file(memory_dir / WEIGHTS)) == ["config_weights"]
