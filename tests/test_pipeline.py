"""The pipeline keeps its word: stages parse, parameters exist, dependencies and outs are all declared."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from qwenlab.core.params import load_profile, load_raw
from tests.pipeline_facts import ROOT, STANDIN_PLUMBING, closure, covered, relative, script, stages

PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


def flat_keys(value: object, prefix: str = "") -> set[str]:
    if not isinstance(value, dict) or not value:
        return {prefix}
    return {key for name, child in value.items() for key in flat_keys(child, f"{prefix}.{name}".lstrip("."))}


def lookup(values: dict, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def test_every_stage_parses_and_has_a_description_and_a_script():
    assert len(stages()) >= 10
    for stage in stages():
        assert stage.desc, stage.addressing
        assert (ROOT / script(stage)).is_file(), stage.addressing


def test_a_stage_is_named_after_its_script():
    for stage in stages():
        path = script(stage).removeprefix("stages/").removesuffix(".py").split("/")
        name = stage.name.split("@")[0]
        expected = {"-".join(path), "-".join(path).replace("standins-", "standin-")}
        # The real clip is scored by the script that scores the arms.
        assert name in expected or (name, path) == ("videoedit-truth", ["videoedit", "score"]), stage.addressing


def test_every_parameter_a_stage_declares_exists_in_the_shared_file_or_in_every_profile():
    shared = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for stage in stages():
        for deps in stage.params:
            for key in deps.params:
                if Path(deps.fs_path).name == "params.yaml":
                    assert lookup(shared, key), f"{stage.addressing}: {key}"
                else:
                    assert all(lookup(load_profile(p, ROOT), key) for p in PROFILES), f"{stage.addressing}: {key}"


def test_profiles_have_the_same_sections_and_share_no_key_with_the_shared_file():
    shared = flat_keys({k: v for k, v in YAML(typ="safe", pure=True).load((ROOT / "params.yaml").open()).items()})
    # The rules are the one section whose keys may differ: full keeps the seed's, tiny has more.
    ruled = re.compile(r"^\w+\.(accept|aim)\b")
    own = [{k for k in flat_keys(load_profile(name, ROOT)) if not ruled.match(k)} for name in PROFILES]
    assert all(keys == own[0] for keys in own)
    assert not shared & own[0]


def test_every_import_of_a_stage_is_a_declared_dependency():
    for stage in stages():
        declared = {relative(dep) for dep in stage.deps}
        needed = closure(script(stage))
        if stage.name.startswith("standin-"):
            needed -= STANDIN_PLUMBING | {script(stage)}
        missing = sorted(path for path in needed if not covered(path, declared))
        assert not missing, f"{stage.addressing} imports but does not declare {missing}"


def test_no_stage_declares_code_it_does_not_import():
    for stage in stages():
        code = {relative(dep) for dep in stage.deps if relative(dep).endswith(".py")}
        assert code <= closure(script(stage)), f"{stage.addressing}: {sorted(code - closure(script(stage)))}"


def test_every_path_on_a_command_line_is_declared():
    for stage in stages():
        declared = {relative(item) for item in (*stage.deps, *stage.outs)}
        for word in stage.cmd.split():
            if re.match(r"(data|metrics|report)/", word):
                inside = any(d.startswith(f"{word}/") for d in declared)  # a folder that holds declared files
                assert covered(word, declared) or inside, f"{stage.addressing}: {word}"


def test_paths_in_a_profile_are_dependencies_of_the_stages_that_read_them():
    for stage in stages():
        declared = {relative(dep) for dep in stage.deps}
        for deps in stage.params:
            for key in deps.params:
                if Path(deps.fs_path).stem != "tiny":
                    continue
                value = load_profile("tiny", ROOT)
                for part in key.split("."):
                    value = value[part]
                paths = {v for v in value.values() if isinstance(v, str) and v.startswith("data/")}
                if stage.name.startswith(("videoedit-truth", "videoedit-score")):
                    paths.discard("data/standins/image")  # the runtime section names it; scoring loads no pipeline
                assert all(covered(p, declared) for p in paths), f"{stage.addressing}: {paths}"


def test_no_code_hides_a_path_of_data_or_metrics():
    allowed = {"src/qwenlab/core/doctor.py", "src/qwenlab/core/backbones.py"}  # name files in messages only
    for path in [*ROOT.glob("src/qwenlab/**/*.py"), *ROOT.glob("stages/**/*.py")]:
        name = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        strings = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docs]
        hidden = [s for s in strings if isinstance(s, str) and re.match(r"(data|metrics)/\w", s)]
        assert not hidden or name in allowed, f"{name}: {hidden}"


def test_package_files_that_stages_do_not_declare_hold_no_code():
    for path in ROOT.glob("src/qwenlab/**/__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert all(isinstance(n, ast.Expr | ast.Assign) for n in body), path


AUDIT = """
import runpy, sys
root = sys.argv[1]
def hook(event, args):
    if event == "open" and isinstance(args[0], str):
        print("OPENED", "w" if isinstance(args[1], str) and set(args[1]) & set("wxa+") else "r", args[0])
sys.argv = sys.argv[2:]
module = sys.argv[0]
sys.addaudithook(hook)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "name",
    [
        "videoedit-prepare",
        "videoedit-select",
        "videoedit-verdict",
        "tomas-profile",
        "tomas-select",
        "tomas-verdict",
        "hsa-worlds",
        "hsa-select",
        "hsa-verdict",
    ],
)
def test_a_stage_opens_no_undeclared_path(name: str, tmp_path: Path, assets: Path):
    """Run cheap stages on a copy, with every `open` recorded."""
    stage = next(s for s in stages() if s.name == name)
    for folder in ("src", "stages", "profiles", "metrics"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "assets").symlink_to(assets)
    words = stage.cmd.split()[2:]
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, str(tmp_path), *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    declared = {relative(item) for item in (*stage.deps, *stage.outs)}
    declared |= {Path(d.fs_path).relative_to(ROOT).as_posix() for d in stage.params}
    for line in done.stdout.splitlines():
        if line.startswith("OPENED"):
            path = Path(line.split(" ", 2)[2])
            absolute = path if path.is_absolute() else tmp_path / path
            if tmp_path not in absolute.parents or "__pycache__" in path.parts or path.suffix == ".py":
                continue
            opened = absolute.relative_to(tmp_path).as_posix()
            # Temporary files stand beside their target and are renamed to it.
            target = re.sub(r"(^|/)\.([^/]+?)\.\d+\.tmp", r"\1\2", opened)
            # params.yaml says which profile is meant, also to a stage that has no parameters there.
            assert covered(target, declared | {"profiles", "params.yaml"}), f"{name} opened {opened}"


def test_the_systems_judged_are_the_systems_in_the_pipeline():
    from qwenlab.core.rules import load_claim, systems

    names = {stage.name for stage in stages()}
    for system in systems(ROOT):
        assert f"{system}-verdict" in names
        claim = load_claim(system, ROOT)
        assert {claim.control, claim.treatment} <= set(load_raw(system, ROOT)["arms"])
