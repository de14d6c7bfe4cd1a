"""Whether a killed training may go on: only when parameters, inputs and code are what they were.

stamp = fingerprint(params, [tasks, weights], code=[train.py, ...])
if stamped(folder) != stamp: start over
"""

import hashlib
import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from qwenlab.core.io import read_json, write_json

STAMP = "stamp.json"
PACKAGES = ("torch", "transformers", "peft", "accelerate")


def fingerprint(params: Any, inputs: Iterable[str | Path], code: Iterable[str | Path]) -> str:
    """A sha256 over parameters (anything JSON can write), the contents of files and folders, and package versions."""
    digest = hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode())
    for path in (Path(path) for path in (*inputs, *code)):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(
                    f"{file.relative_to(path.parent)}\0".encode() + hashlib.sha256(file.read_bytes()).digest()
                )
    for name in PACKAGES:
        digest.update(f"{name}=={metadata.version(name)}".encode())
    return digest.hexdigest()


def stamped(folder: str | Path) -> str | None:
    """The fingerprint that a folder was made with; None when it has none."""
    path = Path(folder) / STAMP
    return read_json(path).get("fingerprint") if path.is_file() else None


def stamp(folder: str | Path, value: str) -> None:
    """Mark a folder as made with a fingerprint."""
    write_json(Path(folder) / STAMP, {"fingerprint": value})
