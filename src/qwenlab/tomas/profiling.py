"""Profiling data: what every tool takes in every resource configuration (seed 002, 1.1).

A row is a tool and six numbers: input size (index), CPU cores, memory in GB, GPU SMs, GPU memory in GB, and the
latency in ms. `simulate` makes the 1,701 rows (7 tools x 3^5) from an analytic model; `read_profile` reads any CSV.

The model adds fixed overhead, CPU work that scales by Amdahl's law, and GPU work that scales with sm^0.9; too little
host or GPU memory multiplies the part that needs it by (needed / given)^2.5, which stands for swapping and offloading:

    overhead + cpu * ((1 - p) + p / cores) * spill(host_gb / memory) + gpu / sm^0.9 * spill(vram_gb / gpu_memory)
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, ValidationError

from qwenlab.core.errors import UserError
from qwenlab.core.io import read_csv, read_json, write_csv
from qwenlab.core.params import Params
from qwenlab.tomas.numbers import round_significant
from qwenlab.tomas.registry import Registry, mistake

RESOURCES = ("cpu_cores", "memory_gb", "gpu_sm", "gpu_memory_gb")
FIELDS = ("input_size", *RESOURCES, "latency_ms")  # the six numbers, in this order
COLUMNS = ("tool", *FIELDS)
OTHER_NAMES = {  # what people call these columns, with the unit that is then wrong or unclear
    "latency": "latency_ms", "latency_s": "latency_ms", "memory_mb": "memory_gb", "mem": "memory_gb",
    "gpu_mem": "gpu_memory_gb", "gpu_memory_mb": "gpu_memory_gb", "cpu": "cpu_cores",
}  # fmt: skip
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class ToolLatency(Params):
    """Constants of one tool; lists hold one value an input size."""

    overhead_ms: float = Field(gt=0)
    parallel: float = Field(ge=0, le=1)
    cpu_ms: list[NotNegative]
    gpu_ms: list[NotNegative]
    host_gb: list[NotNegative]
    vram_gb: list[NotNegative]


class LatencyModel(Params):
    """The analytic model: a grid of configurations, and the constants of every tool."""

    grid: dict[str, list[Positive]]
    spill: float = Field(ge=0, description="exponent of needed / given memory")
    noise: float = Field(ge=0, description="standard deviation of the lognormal noise")
    significant_digits: int = Field(ge=1)
    tools: dict[str, ToolLatency]


@dataclass(frozen=True)
class Profile:
    """N profiled configurations. `tool_ids` [N], `resources` [N, 6] in the order of `FIELDS`."""

    registry: Registry
    tool_ids: np.ndarray
    resources: np.ndarray

    def __len__(self) -> int:
        return len(self.tool_ids)

    @property
    def latency(self) -> np.ndarray:
        """[N] ms."""
        return self.resources[:, 5]

    @property
    def requests(self) -> np.ndarray:
        """[N, 4] cores, GB, SMs, GB."""
        return self.resources[:, 1:5]

    def row(self, index: int) -> dict:
        """One configuration as a line of the CSV."""
        size, *numbers = self.resources[index]
        named = {name: _plain(value) for name, value in zip(FIELDS[1:], numbers, strict=True)}
        names = self.registry
        return {"tool": names.names[self.tool_ids[index]], "input_size": names.input_sizes[int(size)], **named}

    def extended(self, other: "Profile") -> "Profile":
        """This profile with the rows of another one behind its own."""
        return Profile(
            self.registry,
            np.concatenate([self.tool_ids, other.tool_ids]),
            np.concatenate([self.resources, other.resources]),
        )


def _plain(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


def read_latency_model(path: str | Path, registry: Registry) -> LatencyModel:
    """Read the constants, and check that they fit the registry.

    Raises:
        UserError: on a missing or mistyped key, an unknown tool, or a list without one value an input size.
    """
    try:
        model = LatencyModel.model_validate(read_json(path))
    except ValidationError as error:
        raise mistake(path, error) from error
    if set(model.grid) != set(RESOURCES):
        raise UserError(f"{path}: grid has the keys {', '.join(model.grid)}; expected {', '.join(RESOURCES)}.")
    for name, values in model.grid.items():
        if not values or len(set(values)) != len(values):
            raise UserError(f"{path}: grid.{name} is {values}; expected at least one number, each once.")
    if odd := set(model.tools) ^ set(registry.names):
        raise UserError(f"{path}: tool {sorted(odd)[0]!r} stands in it or in the registry, not in both.")
    for name, tool in model.tools.items():
        for key in ("cpu_ms", "gpu_ms", "host_gb", "vram_gb"):
            if len(getattr(tool, key)) != len(registry.input_sizes):
                raise UserError(f"{path}: tools.{name}.{key}: expected one number an input size of the registry.")
    return model


def expected_latency(tool: ToolLatency, spill: float, size: int, given: tuple[float, ...]) -> float:
    """The model's latency in ms, without noise; `given` as `RESOURCES` (see the module's docstring)."""
    cores, memory, sm, gpu_memory = given
    host, vram = (
        max(1.0, needed / there) ** spill
        for needed, there in ((tool.host_gb[size], memory), (tool.vram_gb[size], gpu_memory))
    )
    cpu = tool.cpu_ms[size] * ((1 - tool.parallel) + tool.parallel / cores)
    return tool.overhead_ms + cpu * host + tool.gpu_ms[size] / sm**0.9 * vram


def simulate(model: LatencyModel, registry: Registry, seed: int) -> Profile:
    """Every configuration of the grid for every tool, tool by tool; the same rows for the same seed."""
    rng = np.random.default_rng(seed)
    tool_ids, rows = [], []
    for tool_id, name in enumerate(registry.names):
        sizes, grid = range(len(registry.input_sizes)), [model.grid[name] for name in RESOURCES]
        for size, given in itertools.product(sizes, itertools.product(*grid)):
            latency = expected_latency(model.tools[name], model.spill, size, given)
            latency *= math.exp(model.noise * rng.standard_normal())
            tool_ids.append(tool_id)
            rows.append([size, *given, round_significant(latency, model.significant_digits)])
    return Profile(registry, np.array(tool_ids), np.array(rows, dtype=np.float64))


def write_profile(path: str | Path, profile: Profile) -> None:
    """Write a profile as CSV, one row a configuration, in the order of the config ids."""
    write_csv(path, [profile.row(index) for index in range(len(profile))], COLUMNS)


def read_profile(path: str | Path, registry: Registry) -> Profile:
    """Read a profiling CSV of any tools and grid.

    Raises:
        UserError: naming file, line and value, on wrong columns or units, an unknown tool or input size, a number
            that is missing, not finite or not positive, or a configuration that stands there twice.
    """
    rows = read_csv(path)
    if not rows:
        raise UserError(f"{path}: no rows; expected a line {','.join(COLUMNS)} and one line a configuration.")
    found = [name for name in rows[0] if name is not None]
    if set(found) != set(COLUMNS):
        odd = [name for name in found if name not in COLUMNS]
        hint = "".join(f"; {name} looks like {OTHER_NAMES[name]}, mind the unit" for name in odd if name in OTHER_NAMES)
        raise UserError(f"{path}: columns {', '.join(found)}; expected {', '.join(COLUMNS)}{hint}.")
    tool_ids, numbers = [], []
    seen: dict[tuple, int] = {}
    for line, row in enumerate(rows, start=2):
        at = f"{path}, line {line}"
        if row["tool"] not in registry.names:
            raise UserError(f"{at}: tool {row['tool']!r} is unknown; known: {', '.join(registry.names)}.")
        if row["input_size"] not in registry.input_sizes:
            raise UserError(
                f"{at}: input_size {row['input_size']!r} is unknown; known: {', '.join(registry.input_sizes)}."
            )
        values = [positive(row[name], f"{at}: {name}") for name in FIELDS[1:]]
        key = (row["tool"], row["input_size"], *values[:-1])
        if key in seen:
            raise UserError(f"{at}: the same configuration as in line {seen[key]}; expected each once.")
        seen[key] = line
        tool_ids.append(registry.names.index(row["tool"]))
        numbers.append([registry.input_sizes.index(row["input_size"]), *values])
    return Profile(registry, np.array(tool_ids), np.array(numbers, dtype=np.float64))


def positive(text: object, at: str) -> float:
    """A finite positive number.

    Raises:
        UserError: for anything else, naming `at` and the value.
    """
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise UserError(f"{at} is {text!r}; expected a positive number.")
    return value
