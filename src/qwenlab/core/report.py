"""The report: one static page with every verdict, picture and parameter, readable without a network.

A system appears by having a claim in the parameters (`rules.systems`). The page shows what lies in its folders:
metrics/<system>/verdict.json, the JSON of its arms, the pictures there, and src/qwenlab/<system>/captions.yaml:

    title: Video editing with test-time loss guidance
    claim: One paragraph in plain words.
    pictures:                     # in the order of the page; others follow by name
      frames.png: {caption: What one sees., alt: What it shows, to those who cannot see it.}

All text is escaped: some of it was written by a model or a user. No dates and no absolute paths: two runs on the
same files write the same bytes.
"""

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from qwenlab.core import params
from qwenlab.core.accept import flatten, metrics_dir
from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_dir, read_json, safe_name, write_bytes, write_text
from qwenlab.core.media import natural_key
from qwenlab.core.params import Params
from qwenlab.core.rules import RESERVED, systems
from qwenlab.core.wording import RuleRow, Verdict, number, rule_rows

STILLS = (".png", ".gif", ".webp")
FILMS = (".mp4",)
TEMPLATES = Path(__file__).parent / "templates"


class Caption(Params):
    """The words to one picture."""

    caption: str = ""
    alt: str = ""


class Captions(Params):
    """src/qwenlab/<system>/captions.yaml."""

    title: str = ""
    claim: str = ""
    pictures: dict[str, Caption] = Field(default_factory=dict)


class Arms(Params):
    """The section `verdict` of a system."""

    control: str
    treatment: str


@dataclass(frozen=True)
class Picture:
    """A picture or film; paths are relative to the page. `still` stands in for a GIF where nothing shall move."""

    path: str
    caption: str
    alt: str
    width: int = 0
    height: int = 0
    still: str = ""

    @property
    def wide(self) -> bool:
        """Too wide for a phone to show whole: it scrolls in its box."""
        return self.width > 1.8 * self.height

    @property
    def film(self) -> bool:
        return self.path.endswith(FILMS)


@dataclass(frozen=True)
class System:
    """What the page says about one system; without a verdict it was not run."""

    name: str
    words: Captions
    arms: Arms
    seeds: str
    parameters: str  # YAML
    verdict: Verdict | None = None
    rules: list[RuleRow] = field(default_factory=list)
    aims: list[RuleRow] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)  # arms, the columns of `table`
    table: list[tuple[str, list[str]]] = field(default_factory=list)  # metric, its value on every arm
    pictures: list[Picture] = field(default_factory=list)

    @property
    def absent(self) -> list[str]:
        """Pictures that have a caption and were not drawn."""
        drawn = [picture.path for picture in self.pictures]
        return [name for name in self.words.pictures if f"{self.name}/{name}" not in drawn]


M = TypeVar("M", bound=BaseModel)


def _checked(model: type[M], value: Any, path: Path) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors())
        raise UserError(f"{path}: not of the expected form ({found}).") from error


def read_captions(path: Path) -> Captions:
    """The words of a system; empty without a file.

    Raises:
        UserError: when the file is no YAML of that form.
    """
    if not path.exists():
        return Captions()
    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from error
    return _checked(Captions, value, path)


def arm_table(folder: Path, arms: Arms) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The arms (control, treatment, others by name) and their numbers: medians, without those of single seeds."""
    found = [path.stem for path in sorted(folder.glob("*.json")) if path.stem not in RESERVED]
    names = [name for name in dict.fromkeys([arms.control, arms.treatment, *found]) if name in found]
    numbers = [flatten(read_json(folder / f"{name}.json") | {"seeds": {}}) for name in names]
    metrics = dict.fromkeys(key for values in numbers for key in values)
    return names, [(key, [number(values[key]) if key in values else "" for values in numbers]) for key in metrics]


def copy_pictures(system: str, folder: Path, words: Captions, out: Path) -> list[Picture]:
    """Copy every picture of a metrics folder to <out>/<system>/; those with a caption come first.

    Raises:
        UserError: when a file is no picture, or its name cannot be part of an address.
    """
    files = {path.name: path for path in sorted(folder.glob("*"), key=natural_key) if path.suffix in STILLS + FILMS}
    pictures = []
    for name in dict.fromkeys([*(name for name in words.pictures if name in files), *files]):
        path = f"{system}/{safe_name(name, f'{folder}: the picture')}"
        data = files[name].read_bytes()
        write_bytes(out / path, data)
        width, height, still = _measure(files[name], data) if name.endswith(STILLS) else (0, 0, b"")
        if still:
            write_bytes(out / f"{path}.still.png", still)
        text = words.pictures.get(name, Caption())
        alt, moved = text.alt or f"{name} of {system}", f"{path}.still.png" if still else ""
        pictures.append(Picture(path, text.caption or name, alt, width, height, moved))
    return pictures


def _measure(path: Path, data: bytes) -> tuple[int, int, bytes]:
    """Width, height, and for a picture that moves its last frame as PNG."""
    still = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data)) as image:
            frames = getattr(image, "n_frames", 1)
            image.seek(frames - 1)
            image.load()
            if frames > 1:
                image.convert("RGB").save(still, "PNG")
            return image.width, image.height, still.getvalue()
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); draw it again.") from error


def read_system(name: str, root: Path, out: Path) -> System:
    """Everything about one system; its pictures are copied to `out`."""
    folder, section = metrics_dir(safe_name(name, "the system"), root), params.load_raw(name, root)
    seeds = section.get("seeds")
    system = System(
        name=name,
        words=read_captions(root / "src" / "qwenlab" / name / "captions.yaml"),
        arms=_checked(Arms, section["verdict"], root / f"params.yaml: {name}.verdict"),
        seeds=", ".join(map(str, seeds)) if isinstance(seeds, list) else "",
        parameters=_yaml({"profile": params.profile(root), name: section}),
    )
    if not (folder / "verdict.json").exists():
        return system
    verdict = _checked(Verdict, read_json(folder / "verdict.json"), folder / "verdict.json")
    measured, table = arm_table(folder, system.arms)
    return replace(
        system,
        verdict=verdict,
        rules=rule_rows(verdict.rules, system.arms.control),
        aims=rule_rows(verdict.aims, system.arms.control),
        measured=measured,
        table=table,
        pictures=copy_pictures(name, folder, system.words, out),
    )


def _yaml(value: dict[str, Any]) -> str:
    """As YAML 1.2, keys in their order."""
    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel declares None only
    yaml.allow_unicode, yaml.width = True, 100
    yaml.dump(value, text)
    return text.getvalue()


def build(out: Path, root: Path | None = None) -> Path:
    """Write <out>/index.html and the pictures beside it; returns the page.

    Args:
        out: a folder of its own, for it is replaced as a whole.
        root: folder of params.yaml; the current one if not given.

    Raises:
        UserError: on bad parameters, captions, verdicts or pictures, or when `out` holds something else.
    """
    root = root or Path()
    if out.exists() and not (out / "index.html").is_file() and any(out.iterdir()):
        raise UserError(f"{out}: holds something else than a report; name an empty or a new folder.")
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    with atomic_dir(out) as folder:
        found = [read_system(name, root, folder) for name in systems(root)]
        page = environment.get_template("report.html.j2").render(systems=found, profile=params.profile(root))
        write_text(folder / "index.html", page)
    return out / "index.html"
