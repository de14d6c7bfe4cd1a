"""The unified record of a question about a video, whatever data set it comes from, and JSON lines of such rows."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from qwenlab.core.errors import UserError
from qwenlab.core.io import write_text


class Record(BaseModel):
    """One question about one video."""

    model_config = ConfigDict(extra="forbid")

    id: str  # of the video: safe in file names
    source: str
    video: str  # path, relative to where commands run (the root of the repository)
    question: str
    options: list[str] = []
    answer: str = ""
    problem_type: str = "multiple choice"
    split: Literal["label", "test"] = "label"  # label: for teacher and student; test: held out from both


class Thinking(BaseModel):
    """What a thinker said about a record."""

    model_config = ConfigDict(extra="forbid")

    id: str
    source: str
    split: Literal["label", "test"]
    thinker: str  # "scripted" where it was made from facts, not from pixels
    question: str
    text: str  # all that it wrote
    context: str = ""
    thinking: str = ""
    answer: str = ""
    problem: str = ""  # why it is not used: format or length; empty when it is fine

    @property
    def material(self) -> str:
        """What is summarised: context and thinking, for appearance stands mostly in the context."""
        return f"<context>{self.context}</context><think>{self.thinking}</think>"


M = TypeVar("M", bound=BaseModel)


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """JSON objects, one a line.

    Raises:
        UserError: when the file is missing or a line is no JSON object.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason}).") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error}).") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object, found a {type(row).__name__}.")
        rows.append(row)
    return rows


def read_models(path: str | Path, model: type[M]) -> list[M]:
    """Rows of a JSON lines file as checked models.

    Raises:
        UserError: see `read_rows`, and on a row that lacks a key or has one too many.
    """
    found = []
    for number, row in enumerate(read_rows(path), 1):
        try:
            found.append(model.model_validate(row))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            at = ".".join(map(str, first["loc"]))
            raise UserError(f"{path}, line {number}: {at}: {first['msg'].lower()}.") from error
    return found


def read_records(path: str | Path) -> list[Record]:
    """What the stage thinkseg-sample wrote."""
    return read_models(path, Record)


def write_rows(path: str | Path, rows: Iterable[BaseModel | dict]) -> None:
    """Write rows atomically, one JSON object a line."""
    plain = (row.model_dump() if isinstance(row, BaseModel) else row for row in rows)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in plain))
