"""What dvc.yaml declares and what the code imports, for the contract tests. Nothing here runs a stage."""

import ast
from functools import cache
from pathlib import Path

from dvc.repo import Repo

ROOT = Path(__file__).parents[1]
# A stored stand-in is not retrained because one of these changed: they move bytes, they are not its recipe.
STANDIN_PLUMBING = {
    f"src/qwenlab/{name}.py"
    for name in (
        "core/assets", "core/backbones", "core/errors", "core/image_conditioning", "core/io", "core/media",
        "core/params", "core/progress", "core/resume", "core/seeding",
    )
}  # fmt: skip


@cache
def stages() -> list:
    """Every stage of dvc.yaml, matrices expanded, as DVC itself parses it."""
    return list(Repo(str(ROOT)).index.stages)


def relative(out) -> str:
    """Path of a dependency or out, relative to the root."""
    return Path(out.fs_path).resolve().relative_to(ROOT).as_posix()


def script(stage) -> str:
    """The file that a stage runs, from `python -m stages.x.y ...`."""
    words = stage.cmd.split()
    return words[words.index("-m") + 1].replace(".", "/") + ".py"


@cache
def imported(path: str) -> frozenset[str]:
    """The project's own files that a file imports directly, anywhere in it (also inside functions)."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] == "qwenlab":
                file = f"src/{name.replace('.', '/')}.py"
                found |= {file} if (ROOT / file).is_file() else set()
    return frozenset(found)


def closure(path: str) -> set[str]:
    """Every file of ours that running `path` may import, itself included."""
    seen, waiting = set(), [path]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += imported(current)
    return seen


def covered(path: str, declared: set[str]) -> bool:
    """Whether `path` is declared, itself or by one of its folders."""
    return any(path == d or path.startswith(f"{d}/") for d in declared)
