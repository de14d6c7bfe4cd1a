"""Parameters of a stage: params.yaml and the active profile, merged at one section and checked against a model.

    class Train(Params):
        steps: int
        lr: float

    train = load("tomas.train", Train)

A value lives either in params.yaml or in every profile, never in both places. Bad input of any kind ends as one
`UserError` that names the file, the key, the value and what is expected.
"""

import json
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from qwenlab.core.errors import UserError
from qwenlab.core.io import safe_name


class Params(BaseModel):
    """Base of all parameter models: unknown keys, NaN and infinity are errors, and nobody changes a value later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


P = TypeVar("P", bound=BaseModel)


def _read_yaml(path: Path) -> dict[str, Any]:
    # The pure loader reads YAML 1.2, as DVC does: `off` and `on` are strings. libyaml would make them booleans.
    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the command from the root of the repository.") from error
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not valid YAML ({' '.join(str(error.problem).split())}).") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a mapping of sections, found {shown(value)}.")
    return value


def shown(value: Any) -> str:
    """A value as YAML readers know it, cut when long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _checked(name: Any, root: Path, at: str) -> str:
    """`name` if profiles/<name>.yaml exists."""
    found = sorted(path.stem for path in (root / "profiles").glob("*.yaml"))
    if not isinstance(name, str) or safe_name(name, at) not in found:
        files = f"the files in {root / 'profiles'}: {', '.join(found) or 'there are none'}"
        raise UserError(f"{at} is {shown(name)}; expected one of {files}.")
    return name


def _profile(root: Path, shared: dict[str, Any]) -> str:
    if "profile" not in shared:
        raise UserError(f"{root / 'params.yaml'}: key profile is missing; expected the name of a file in profiles/.")
    return _checked(shared["profile"], root, f"{root / 'params.yaml'}: profile")


def profile(root: Path | None = None) -> str:
    """Name of the active profile; its file exists.

    Raises:
        UserError: when params.yaml names none, or one without a file; the message lists those there are.
    """
    root = root or Path()
    return _profile(root, _read_yaml(root / "params.yaml"))


def load_profile(name: str, root: Path | None = None) -> dict[str, Any]:
    """Everything in profiles/<name>.yaml, whichever profile is active, as plain Python values.

    Raises:
        UserError: on an unknown profile, with the list of those there are, or bad YAML.
    """
    root = root or Path()
    return _read_yaml(root / "profiles" / f"{_checked(name, root, 'profile')}.yaml")


def _merge(shared: dict[str, Any], own: dict[str, Any], files: tuple[Path, Path], at: str = "") -> dict[str, Any]:
    """Both mappings as one; an empty section (`edit:` with nothing below) adds nothing."""
    merged = dict(shared)
    for key, value in own.items():
        first = merged.get(key)
        if key not in merged or (first is None and isinstance(value, dict)):
            merged[key] = value
        elif isinstance(first, dict) and (value is None or isinstance(value, dict)):
            merged[key] = _merge(first, value or {}, files, f"{at}{key}.")
        else:
            raise UserError(
                f"{files[0]} and {files[1]}: key {at}{key} stands in both ({shown(first)} and {shown(value)}); "
                "a value lives either in params.yaml or in the profiles."
            )
    return merged


def where(root: Path | None = None) -> str:
    """Both files in words, for the start of an error message."""
    root = root or Path()
    return f"{root / 'params.yaml'} and {root / 'profiles' / (profile(root) + '.yaml')}"


def load_raw(section: str = "", root: Path | None = None) -> dict[str, Any]:
    """One section of both files as plain Python values; the empty name means everything.

    Args:
        section: dotted name, such as "videoedit.edit".
        root: folder of params.yaml; the current one if not given.

    Raises:
        UserError: on a missing file, bad YAML, a key in both files, or a section that is missing or no mapping.
    """
    root = root or Path()
    shared = _read_yaml(root / "params.yaml")
    files = (root / "params.yaml", root / "profiles" / f"{_profile(root, shared)}.yaml")
    value: Any = _merge(shared, _read_yaml(files[1]), files)
    for depth, part in enumerate(parts := section.split(".") if section else []):
        name = ".".join(parts[: depth + 1])
        if part not in value:
            raise UserError(f"{files[0]} and {files[1]}: section {name} is missing from both.")
        value = value[part] if value[part] is not None else {}
        if not isinstance(value, dict):
            raise UserError(f"{files[0]} and {files[1]}: {name} is {shown(value)}; expected a section with keys.")
    return value


def _model_at(model: type[BaseModel], path: tuple) -> type[BaseModel] | None:
    """The model that describes the mapping at `path`, if it is one of ours and not a dict or a union."""
    for part in path:
        field = model.model_fields.get(str(part))
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        models = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if len(models) != 1:
            return None
        model = models[0]
    return model


def _sentence(error: Any, section: str, model: type[BaseModel]) -> str:
    """One of pydantic's findings in words."""
    path = error["loc"]
    key = ".".join([section, *map(str, path)])
    owner = _model_at(model, path[:-1]) if path else None
    fields = owner.model_fields if owner else {}
    if error["type"] == "missing":
        kind = getattr(fields.get(str(path[-1])), "annotation", None)
        expected = f"; expected {getattr(kind, '__name__', kind)}" if kind is not None else ""
        return f"key {key} is missing{expected}"
    if error["type"] == "extra_forbidden":
        known = f"; known there: {', '.join(fields)}" if fields else ""
        return f"key {key} (value {shown(error['input'])}) is unknown{known}"
    return f"{key} is {shown(error['input'])}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def load(section: str, model: type[P], root: Path | None = None) -> P:
    """One section of both files as a checked `model`.

    Args:
        section: dotted name, such as "videoedit.edit".
        model: a `Params` class; every key must be one of its fields, and of its type.
        root: folder of params.yaml; the current one if not given.

    Raises:
        UserError: see `load_raw`, and on a missing, unknown or mistyped key.
    """
    raw = load_raw(section, root)
    try:
        # Strict, so that "3" is no integer and 1 is no boolean. By way of JSON, because strict Python input would
        # refuse what YAML cannot write: tuples, paths, enums.
        return model.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        found = "; ".join(_sentence(one, section, model) for one in error.errors(include_url=False))
        raise UserError(f"{where(root)}: {found}.") from error
