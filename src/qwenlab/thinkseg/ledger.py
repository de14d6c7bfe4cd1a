"""The account of what a teacher was paid for: one JSON line a paid answer, on disk before anything else happens.

A line holds id, prompt hash, tokens, and the summary or what was wrong with it. A run that is killed at any moment
finds every paid answer here when it starts again, and asks only for what is missing. "Save every 50" (seed 004) loses
up to 49 of them. A last line that the kill cut in half is dropped.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwenlab.core.errors import UserError


class Ledger:
    """An append-only JSON lines file."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.entries = list(self._read())
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the ledger is

    def _read(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with open(self.path, "r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserError(f"{self.path}, line {number}: not valid JSON ({error}).") from error

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry and wait until it is on the disk."""
        self.file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.entries.append(entry)

    def done(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(id, prompt hash) -> the entry with a good summary."""
        return {(one["id"], one["prompt"]): one for one in self.entries if one["summary"] is not None}

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_) -> None:
        self.close()
