"""The tool registry: which tools there are, what they do, and how people ask for them (seed 002, 1.1)."""

from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from qwenlab.core.errors import UserError
from qwenlab.core.io import read_json
from qwenlab.core.params import Params, shown

SPLITS = ("train", "validation", "test")
GENERIC = {"train": ["run", "do", "start", "use"], "validation": ["apply"], "test": ["perform", "please run"]}


class Tool(Params):
    """One tool. Without requests it is asked for by its name."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")
    description: str = ""
    requests: dict[str, list[str]] = Field(default_factory=dict)

    @field_validator("requests")
    @classmethod
    def _every_split_has_one(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        if value and (
            set(value) != set(SPLITS) or not all(ones and all(map(str.strip, ones)) for ones in value.values())
        ):
            raise ValueError(f"expected at least one request for each of: {', '.join(SPLITS)}; none of them empty")
        return value

    def asked(self, split: str) -> list[str]:
        """How people ask for it in a split; "test" phrasings are never trained on."""
        return self.requests.get(split) or [f"{verb} {self.name.replace('_', ' ')}" for verb in GENERIC[split]]


class Registry(Params):
    """Tools in the order of their ids; input sizes in rising order."""

    input_sizes: list[str] = Field(min_length=1)
    tools: list[Tool] = Field(min_length=1)

    @field_validator("input_sizes")
    @classmethod
    def _none_is_empty(cls, value: list[str]) -> list[str]:
        if not all(map(str.strip, value)):
            raise ValueError("expected names, none of them empty")
        return value

    @property
    def names(self) -> list[str]:
        """Tool names; the index is the tool id."""
        return [tool.name for tool in self.tools]


def mistake(path: str | Path, error: ValidationError) -> UserError:
    """The first of pydantic's findings in one sentence."""
    one = error.errors(include_url=False)[0]
    at = ".".join(map(str, one["loc"]))
    if one["type"] == "missing":
        return UserError(f"{path}: key {at} is missing.")
    return UserError(f"{path}: {at} is {shown(one['input'])}: {one['msg']}.")


def read_registry(path: str | Path) -> Registry:
    """Read and check a registry.

    Raises:
        UserError: on a missing file, a mistyped or unknown key, or a name that stands there twice.
    """
    try:
        registry = Registry.model_validate(read_json(path))
    except ValidationError as error:
        raise mistake(path, error) from error
    for what, names in (("tool", registry.names), ("input size", registry.input_sizes)):
        if again := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"{path}: {what} {again[0]!r} stands there twice; expected distinct names.")
    return registry
