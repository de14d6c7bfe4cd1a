"""What is asked of `qwenlab plan`, read and checked: options of the command line, or lines of a batch file."""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params, shown
from qwenlab.tomas.language import duration_in, normalise_durations
from qwenlab.tomas.plan import Request
from qwenlab.tomas.profiling import OTHER_NAMES
from qwenlab.tomas.tasks import SAMPLES, read_state

MISSING = (AttributeError, AssertionError)  # how torch names a dtype or a device that it lacks
P = TypeVar("P", bound=Params)
Share = Annotated[float, Field(ge=0, le=1)]
Sample = Annotated[list[Share], Field(min_length=4, max_length=4)]


class Free(Params):
    """Free resources that are given; the others come from the state."""

    cpu_cores: float | None = Field(default=None, ge=0)
    memory_gb: float | None = Field(default=None, ge=0)
    gpu_sm: float | None = Field(default=None, ge=0)
    gpu_memory_gb: float | None = Field(default=None, ge=0)


class Line(Params):
    """A line of a batch file."""

    id: str | int | None = None
    task: str
    state: Annotated[list[Sample], Field(min_length=SAMPLES, max_length=SAMPLES)] | None = None
    state_csv: str | None = None
    free: Free | None = None
    deadline_ms: float | None = Field(default=None, gt=0)


@contextmanager
def readable(path: Path, what: str = "read") -> Iterator[None]:
    """Whatever a damaged, foreign or forbidden file raises ends as one sentence that names it."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, csv.Error, SafetensorError, ValueError, LookupError, RuntimeError, *MISSING) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path}: cannot be {what} ({reason[:200]}).") from error


def read_requests(task: str | None, batch: Path | None, out: Path | None, options: Mapping) -> list[Request]:
    """The request of the command line, or those of the batch file.

    Raises:
        UserError: when options are missing or contradict each other, and on everything that `read_batch` refuses.
    """
    if (task is None) == (batch is None):
        got = "neither" if batch is None else "both"
        raise UserError(f"{got} of TASK and --batch; expected a sentence or a file of tasks.")
    if batch is not None:
        if alone := [f"--{name}" for name in ("state", "free", "deadline") if options[name] is not None]:
            raise UserError(f"{', '.join(alone)}: stands in each line of the file when --batch is given.")
        return read_batch(batch)
    if out is not None:
        raise UserError(f"--out {out}: belongs to --batch; the plan for one TASK is printed.")
    if options["state"] is None:
        raise UserError(f"--state is missing: expected a CSV of the last {SAMPLES} utilisations of the machine.")
    free = None if options["free"] is None else free_in(options["free"])
    deadline = None if options["deadline"] is None else deadline_in(options["deadline"])
    return [Request("TASK", checked_task(str(task), "TASK"), state_in(options["state"]), free, deadline)]


def checked_task(text: str, at: str) -> str:
    """A task that can be planned.

    Raises:
        UserError: when it is blank, no valid text, or names a duration beyond all numbers.
    """
    if not text.strip():
        raise UserError(f"{at} is {text!r}; expected a task in words.")
    try:
        text.encode()
        normalise_durations(text)
    except (UnicodeEncodeError, OverflowError) as error:
        raise UserError(f"{at} is {shown(text)}; expected readable text and durations that are numbers.") from error
    return text


def free_in(text: str) -> dict[str, float]:
    """ "cpu_cores=8,gpu_sm=60" as numbers by name."""
    pairs = [(name.strip(), number.strip()) for name, _, number in (part.partition("=") for part in text.split(","))]
    if len(dict(pairs)) < len(pairs):
        raise UserError(f"--free {text!r}: a name stands there twice; expected each once.")
    return checked(Free, json.dumps(dict(pairs)), f"--free {text!r}", strict=False).model_dump(exclude_none=True)


def checked(model: type[P], text: str, at: str, strict: bool = True) -> P:
    """A JSON object as a model.

    Raises:
        UserError: on its first fault, naming `at`, the key and the value.
    """
    try:
        return model.model_validate_json(text, strict=strict)
    except ValidationError as error:
        one = error.errors(include_url=False)[0]
    *_, last = path = [str(part) for part in one["loc"]] or ["it"]
    expected = one["msg"]
    if one["type"] == "extra_forbidden":
        fields = Free if len(path) > 1 else model
        expected = f"this name is unknown; known: {', '.join(fields.model_fields)}"
        expected += f"; {last} looks like {OTHER_NAMES[last]}, mind the unit" if last in OTHER_NAMES else ""
    raise UserError(f"{at}: {'.'.join(path)} is {shown(one['input'])}: {expected}.")


def deadline_in(text: str) -> float:
    """ "5 s", "800ms", "2 min" or a number, in ms."""
    try:
        value = float(text)
    except ValueError:
        value = (re.fullmatch(r"[\d.]+\s*[A-Za-z]+", text.strip()) and duration_in(text)) or math.nan
    if not 0 < value < math.inf:
        raise UserError(f"--deadline is {text!r}; expected a positive time such as 5s, 800ms, '2 min', or 5000 (ms).")
    return value


def state_in(path: Path) -> np.ndarray:
    """[32, 4] of a CSV, see `read_state`."""
    with readable(path):
        return read_state(path)


def read_batch(path: Path) -> list[Request]:
    """Every task of a JSONL file; `state_csv` counts from its folder. The id of a line without one is its number.

    Raises:
        UserError: naming file, line and value, on the first line that is not as `Line` describes it.
    """
    with readable(path):
        lines = path.read_text(encoding="utf-8").split("\n")
    requests = [_request(line, number, path) for number, line in enumerate(lines, start=1) if line.strip()]
    if not requests:
        raise UserError(f"{path}: no lines; expected one JSON object a task.")
    return requests


def _request(text: str, number: int, path: Path) -> Request:
    at = f"{path}, line {number}"
    line = checked(Line, text, at)
    if (line.state is None) == (line.state_csv is None):
        raise UserError(f"{at}: {'both' if line.state else 'neither'} of state and state_csv; expected one of them.")
    task = checked_task(line.task, f"{at}: task")
    try:
        state = np.array(line.state, np.float32) if line.state_csv is None else state_in(path.parent / line.state_csv)
    except UserError as error:
        raise UserError(f"{at}: state_csv: {error.message}") from error
    free = None if line.free is None else line.free.model_dump(exclude_none=True)
    return Request(at, task, state, free, line.deadline_ms, number if line.id is None else line.id)
