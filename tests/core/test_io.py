"""Writing without half-written files, and reading with clear errors."""

import errno
import os

import pytest

from qwenlab.core import io
from qwenlab.core.errors import UserError


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full when the data has to reach it."""

    def no_space(_file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, full_disk):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(UserError, match=r"a\.json: could not be written \(No space left"):
        io.write_json(tmp_path / "a.json", {"new": 1})
    assert (tmp_path / "a.json").read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_full_disk_leaves_no_new_file(tmp_path, full_disk):
    with pytest.raises(UserError):
        io.write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == []


def test_an_interrupted_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), io.atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_temporary_file_keeps_the_suffix(tmp_path):
    with io.atomic_path(tmp_path / "clip.mp4") as temporary:
        assert temporary.suffix == ".mp4" and temporary.parent == tmp_path
        temporary.write_bytes(b"x")
    assert names(tmp_path) == ["clip.mp4"]


def test_writing_creates_the_folders(tmp_path):
    io.write_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


def test_writing_below_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        io.write_text(tmp_path / "a" / "b.txt", "text")


def test_a_file_in_place_of_the_output_folder_is_a_clear_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match=r"the output folder cannot be written"):
        io.make_dir(tmp_path / "a")


def test_a_folder_appears_complete_or_not_at_all(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("")
    with pytest.raises(ValueError, match="half way"), io.atomic_dir(tmp_path / "out") as temporary:
        (temporary / "new").write_text("")
        raise ValueError("half way")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["old"]
    with io.atomic_dir(tmp_path / "out") as temporary:
        (temporary / "new").write_text("")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["new"]


@pytest.mark.parametrize("name", ["a", "clip-01_b.mp4", "0", "x" * 128])
def test_a_plain_name_is_safe(name):
    assert io.safe_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a b", "a\n", "é", "-x", "x" * 129])
def test_any_other_name_is_refused(name):
    with pytest.raises(UserError, match="cannot be part of a file name"):
        io.safe_name(name, "sample id")


def test_json_is_sorted_and_ends_with_a_newline(tmp_path):
    io.write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n'
    assert io.read_json(tmp_path / "a.json") == {"a": "é", "b": 1}


def test_json_refuses_nan_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        io.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize(("text", "words"), [(None, "no such file"), ("{", "not valid JSON"), ("[1]", "found a list")])
def test_bad_json_is_a_clear_error(tmp_path, text, words):
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=words):
        io.read_json(tmp_path / "a.json")


def test_a_csv_file_comes_back_as_it_was_written(tmp_path):
    rows = [{"seed": 0, "loss": 0.123456789}, {"seed": 1, "loss": 1e-9}]
    io.write_csv(tmp_path / "a.csv", rows, ["seed", "loss"])
    assert (tmp_path / "a.csv").read_text() == "seed,loss\n0,0.123457\n1,1e-09\n"
    assert io.read_csv(tmp_path / "a.csv")[1] == {"seed": "1", "loss": "1e-09"}


def test_a_missing_csv_file_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        io.read_csv(tmp_path / "a.csv")
