"""Writing without half-written files: temporary file beside the target, fsync, rename."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from qwenlab.core.errors import UserError

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def safe_name(name: str, what: str = "name") -> str:
    """Return `name` if it can be part of a path (dataset, sample and video ids), else raise UserError."""
    if not _SAFE_NAME.fullmatch(name):
        raise UserError(f"{what} {name!r} cannot be part of a file name: use letters, digits, '.', '_' and '-'.")
    return name


def make_dir(path: str | Path) -> Path:
    """Create a folder and prove that it can be written to.

    Raises:
        UserError: when it cannot be created or written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"{path}: the output folder cannot be written ({error.strerror or error}).") from error
    return path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync and rename it, on failure remove it.

    The suffix is kept, because writers such as PIL and PyAV choose the format by it.

    Raises:
        UserError: when the disk is full or the folder cannot be written; the old file, if any, is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        # PyAV's own errors are OSErrors too: this is the one place that says what happened to the file.
        raise _not_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_dir(path: str | Path) -> Iterator[Path]:
    """Like `atomic_path` for a whole folder: it appears complete or not at all.

    Raises:
        UserError: when the disk is full or the folder cannot be written; the old folder, if any, is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    make_dir(temporary)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        if path.exists():
            os.replace(path, old)  # a rename, so that there is no moment with half a folder
        os.replace(temporary, path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _sync(file: Path) -> None:
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())


def _not_written(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: could not be written ({error.strerror or error}); nothing was left there.")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` atomically as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: object) -> None:
    """Write `value` atomically as indented JSON with sorted keys (stable diffs)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict:
    """Read a JSON object.

    Raises:
        UserError: when the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found a {type(value).__name__}.")
    return value


def csv_text(rows: Iterable[Mapping], columns: Sequence[str]) -> str:
    """Rows as CSV text; floats with 6 significant digits, so that a file compares across runs."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return buffer.getvalue()


def write_csv(path: str | Path, rows: Iterable[Mapping], columns: Sequence[str]) -> None:
    """Write rows atomically (see `csv_text`)."""
    write_text(path, csv_text(rows, columns))


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """Read a CSV file (UTF-8, with or without a byte order mark) into one dict a row.

    Raises:
        UserError: when the file is missing or cannot be read, a column stands there twice, or a row has more cells
            than there are columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), list(reader.fieldnames or [])
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}).") from error
    if again := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path}: column {again[0]!r} stands there twice; expected each once.")
    for line, row in enumerate(rows, start=2):
        if None in row:
            raise UserError(f"{path}, line {line}: more cells than the {len(names)} columns of the first line.")
    return rows
