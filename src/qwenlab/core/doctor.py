"""What the active profile needs and this machine lacks, before anything runs: `qwenlab doctor`.

Each check is one line: ok, warning (it runs, or it will be fetched) or missing (it cannot run), with what to do.
"""

import os
import platform
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from qwenlab.core import params
from qwenlab.core.errors import UserError

GIB = 2**30
DISK_GIB, MEMORY_GIB = 5, 4  # what the tiny profile wants free: assets, caches and outputs; one training
HUB_GB = {"Qwen/Qwen-Image-Edit-2509": 58, "Qwen/Qwen2.5-7B-Instruct": 15}  # files in bf16


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    state: Literal["ok", "warning", "missing"]
    text: str


def check_versions(root: Path) -> list[Check]:
    """Python and the packages that pyproject.toml asks for, against requires-python and the lock."""
    import tomllib

    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lock = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        return [
            Check("packages", "warning", f"{error.filename} is not here: run this from the root of the repository.")
        ]
    version, wanted = platform.python_version(), project["requires-python"]
    if SpecifierSet(wanted).contains(version):
        checks = [Check("python", "ok", version)]
    else:
        checks = [
            Check("python", "missing", f"{version} is not {wanted}: make PYTHON=python3.11 install in a fresh .venv.")
        ]
    pins: dict[str, str] = {}
    for line in lock:
        if (text := line.partition("#")[0].strip()) and not text.startswith("-"):
            locked = Requirement(text)
            if locked.marker is None or locked.marker.evaluate():
                pins[canonicalize_name(locked.name)] = str(locked.specifier).removeprefix("==")
    absent, other = [], []
    for name in [Requirement(text).name for text in project["dependencies"]]:
        pin = pins.get(canonicalize_name(name), "")
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(name)
            continue
        if pin and Version(found).public != Version(pin).public:  # "2.14.1+cu130" is 2.14.1
            other.append(f"{name} {found} (pinned: {pin})")
    if absent:
        checks.append(Check("packages", "missing", f"not installed: {', '.join(absent)}; run `make install`."))
    if other:
        checks.append(Check("packages", "warning", f"not as pinned: {', '.join(other)}; run `make install`."))
    if not absent and not other:
        checks.append(Check("packages", "ok", "every dependency has the version that requirements.lock pins"))
    return checks


def check_torch(device: str, dtype: str, section: str) -> list[Check]:
    """The device and the number format of a section of the profile, and the threads."""
    import torch

    kind, _, index = device.partition(":")
    there = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in there:
        return [Check("device", "missing", f"{section}.device is {device!r}; expected one of: {', '.join(there)}.")]
    if not there[kind] or (kind == "cuda" and index.isdigit() and int(index) >= torch.cuda.device_count()):
        text = f"the profile asks for {device}, and PyTorch finds none: use another profile or another machine."
        return [Check("device", "missing", text)]
    on_gpu = there["cuda"] and kind in ("cuda", "auto")
    if on_gpu:
        chosen = torch.device(device if kind == "cuda" else "cuda")
        free, total = (size / GIB for size in torch.cuda.mem_get_info(chosen))
        checks = [Check("device", "ok", f"{torch.cuda.get_device_name(chosen)}, {free:.0f} of {total:.0f} GiB free")]
    else:
        checks = [Check("device", "ok", f"{device} ({platform.processor() or platform.machine()})")]
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(dtype, dtype)
    if dtype == "float16" and not on_gpu:
        checks.append(Check("dtype", "warning", "float16 on a CPU is slow and inaccurate: use float32."))
    elif dtype == "bfloat16" and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        checks.append(Check("dtype", "missing", "this GPU has no bfloat16: use float16 or float32."))
    elif not isinstance(getattr(torch, dtype, None), torch.dtype):
        checks.append(Check("dtype", "missing", f"{section}.dtype is {dtype!r}; expected a dtype of PyTorch."))
    else:
        checks.append(Check("dtype", "ok", dtype))
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    few = threads < cores // 2
    hint = "; unset OMP_NUM_THREADS to use more" if few and not on_gpu else ""
    checks.append(Check("threads", "warning" if hint else "ok", f"PyTorch uses {threads} on {cores} cores{hint}"))
    return checks


def check_codec() -> Check:
    """The encoder of every mp4."""
    import av

    try:
        av.codec.Codec("libx264", "w")
    except ValueError:  # av.codec.codec.UnknownCodecError is one
        return Check("H.264", "missing", "PyAV has no libx264 encoder: reinstall the `av` wheel with `make install`.")
    return Check("H.264", "ok", "PyAV encodes with libx264")


def _amount(name: str, folder: str, free: float, wanted: float) -> Check:
    if free < wanted:
        return Check(name, "warning", f"{free:.1f} GiB free {folder}; {wanted:g} GiB are wanted: make room.")
    return Check(name, "ok", f"{free:.1f} GiB free {folder}")


def check_machine(root: Path) -> list[Check]:
    """Free disk and memory."""
    import psutil

    disk = _amount("disk", "here", shutil.disk_usage(root).free / GIB, DISK_GIB)
    return [disk, _amount("memory", "now", psutil.virtual_memory().available / GIB, MEMORY_GIB)]


def check_model(root: Path, model: str) -> list[Check]:
    """The checkpoint of the profile: a folder of ours or of the user, or a name on the hub, which is not contacted."""
    from huggingface_hub import constants, try_to_load_from_cache

    folder, files = root / model, ("model_index.json", "config.json")  # of a diffusers pipeline; of a model
    if folder.is_dir():
        if any((folder / name).is_file() for name in files):
            return [Check("model", "ok", f"{model} is here")]
        text = f"{folder} has no {' or '.join(files)}: name a folder written by save_pretrained."
        return [Check("model", "missing", text)]
    # A hub id is "owner/name"; what starts like a path, or in a folder that is here, was meant as a folder.
    owner, _, name = model.partition("/")
    if not name or "/" in name or owner in ("", ".", "..", "~") or (root / owner).is_dir():
        return [
            Check("model", "missing", f"{folder} is not here: `dvc repro` builds stand-ins; or name another folder.")
        ]
    if any(isinstance(try_to_load_from_cache(model, name), str) for name in files):
        return [Check("model", "ok", f"{model} is in the local hub cache")]
    if constants.HF_HUB_OFFLINE:
        return [Check("model", "missing", f"{model} is not in the hub cache, and HF_HUB_OFFLINE is set: unset it.")]
    cache = Path(constants.HF_HUB_CACHE)
    there = next(path for path in (cache, *cache.parents) if path.exists())
    size = HUB_GB.get(model, 0)
    text = f"{model} will be downloaded from the hub{f' (about {size} GB)' if size else ''} on the first run"
    space = _amount("hub cache", f"in {cache}", shutil.disk_usage(there).free / GIB, 1.2 * size)
    return [Check("model", "warning", text), space]


def check_assets(root: Path) -> Check:
    """Clips, photos and backbones that the pipeline fetches."""
    from qwenlab.core.assets import ARCHIVES, missing

    absent = [name for archive in ARCHIVES for name in missing(archive, root / "data" / "assets")]
    if absent:
        return Check("assets", "warning", f"`dvc repro assets-fetch` will fetch: {', '.join(absent)}")
    return Check("assets", "ok", "every file is here and has its pinned sha256")


def check_dvc(root: Path) -> Check:
    """The pipeline needs a DVC repository within a Git one."""
    if not (root / ".dvc" / "config").is_file():
        return Check("dvc", "missing", "there is no .dvc/config here: run `dvc init` in the root of the repository.")
    if not (root / ".git").exists():
        return Check(
            "dvc", "warning", "this is no Git checkout: `dvc exp` and revisions need one (`git init`, commit)."
        )
    return Check("dvc", "ok", "initialised, with Git")


def models_of(sections: dict[str, Any]) -> list[str]:
    """Checkpoints that the systems load: `model` and `..._model` of their sections (those of `infer` are made here)."""
    return [
        value
        for system in sections.values()
        if isinstance(system, dict)
        for name, section in system.items()
        if isinstance(section, dict) and name != "infer"
        for key, value in section.items()
        if (key == "model" or key.endswith("_model")) and isinstance(value, str)
    ]


def check_keys(sections: dict[str, Any]) -> list[Check]:
    """Keys of servers that are asked, from the environment; what a key is, nobody is told."""
    teachers = [
        (f"{name}.teacher", system["teacher"])
        for name, system in sections.items()
        if isinstance(system, dict) and isinstance(system.get("teacher"), dict)
    ]
    checks = []
    for at, teacher in teachers:
        variable = teacher.get("key_variable")
        if teacher.get("base_url") == "local" or not isinstance(variable, str):
            continue
        there = bool(os.environ.get(variable))
        text = f"{variable} is set" if there else f"{at} asks a server: export {variable}=... with its key."
        checks.append(Check("key", "ok" if there else "missing", text))
    return checks


def diagnose(root: Path | None = None) -> list[Check]:
    """All checks for the active profile; whatever can be checked without it is checked even when it is broken."""
    root = root or Path()
    runtimes: dict[str, dict[str, Any]] = {}
    sections: dict[str, Any] = {}
    try:
        checks = [Check("profile", "ok", params.profile(root))]
        sections = params.load_raw("", root)
        runtimes = {
            name: value["runtime"]
            for name, value in sections.items()
            if isinstance(value, dict) and isinstance(value.get("runtime"), dict)
        }
    except UserError as error:
        checks = [Check("profile", "missing", error.format_message())]
    checks += check_versions(root)
    wanted = [
        (f"{name}.runtime", one.get("device", "cpu"), one.get("dtype", "float32")) for name, one in runtimes.items()
    ]
    for section, device, dtype in wanted or [("runtime", "cpu", "float32")]:
        checks += [one for one in check_torch(str(device), str(dtype), section) if one not in checks]
    checks += [check_codec(), *check_machine(root)]
    for model in dict.fromkeys(models_of(sections)):
        checks += check_model(root, model)
    return [*checks, *check_keys(sections), check_assets(root), check_dvc(root)]


def print_checks(checks: Iterable[Check]) -> None:
    """The checks as a table on the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table, style = Table("check", "state", "what"), {"ok": "green", "warning": "yellow", "missing": "bold red"}
    for check in checks:
        table.add_row(check.name, Text(check.state, style[check.state]), Text(check.text))
    Console().print(table)
