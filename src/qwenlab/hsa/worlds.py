"""The trajectories that hsa learns from and is judged on, as ShareGPT files (seed 003, 1.2).

    expert.jsonl                     phase 1: every answer right
    test_1x, test_2x, test_4x.jsonl  held-out worlds, and longer ones with twice and four times the noise
    validation_*.jsonl               the same from worlds that no test uses, to choose settings by

Phases 2 and 3 need somebody who makes mistakes: `explore` writes their files.
"""

import json
import random
from pathlib import Path

from pydantic import Field, model_validator

from qwenlab.core.io import atomic_dir, write_text
from qwenlab.core.params import Params
from qwenlab.hsa.conversations import read_conversations
from qwenlab.hsa.world import Sizes, make_world, record

LENGTHS = {"1x": 1, "2x": 2, "4x": 4}  # of the noise


class Worlds(Params):
    """How many trajectories, and how long."""

    seed: int
    expert: int = Field(ge=1, description="trajectories of phase 1")
    validation: int = Field(ge=1)
    test: int = Field(ge=1, description="held-out worlds a length")
    sizes: Sizes


class Files(Params):
    """ShareGPT files of your own, all or none: trajectories of the three phases and held-out ones."""

    expert: str | None
    mixed: str | None
    reflective: str | None
    test: str | None
    test_reflective: str | None

    @model_validator(mode="after")
    def _all_or_none(self):
        given = [name for name, value in self if value is not None]
        if given and len(given) < len(Files.model_fields):
            raise ValueError(f"only {', '.join(given)} given; expected all of {', '.join(Files.model_fields)} or none")
        return self

    @property
    def own(self) -> bool:
        """Whether they replace the procedural world."""
        return self.expert is not None


def write_records(path: Path, records: list[dict]) -> None:
    """One record a line."""
    write_text(path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records))


def copy_checked(source: str, target: Path) -> None:
    """A user's file, read and checked as a whole before it is taken."""
    read_conversations(source)
    write_text(target, Path(source).read_text(encoding="utf-8-sig"))


def longer(sizes: Sizes, times: int) -> Sizes:
    """The same with so many times the noise."""
    return sizes.model_copy(update={"noise": sizes.noise * times})


def worlds_of(seed: int, split: str, count: int, sizes: Sizes) -> list:
    """The worlds of a split, each from a random stream of its own."""
    test = split.startswith("test")
    return [make_world(random.Random(f"{seed} {split} {n}"), sizes, test) for n in range(count)]


def write_worlds(params: Worlds, files: Files, out: str | Path) -> None:
    """Write the files into the folder `out`.

    Raises:
        UserError: on a file of the user's that cannot be read or holds a bad record.
    """
    with atomic_dir(out) as folder:
        if files.own:
            copy_checked(str(files.expert), folder / "expert.jsonl")
            copy_checked(str(files.test), folder / "test_1x.jsonl")
            return
        splits = {"expert": (params.expert, 1)}
        for name, times in LENGTHS.items():
            splits |= {f"validation_{name}": (params.validation, times), f"test_{name}": (params.test, times)}
        for split, (count, times) in splits.items():
            worlds = worlds_of(params.seed, split, count, longer(params.sizes, times))
            write_records(folder / f"{split}.jsonl", [record(world) for world in worlds])
