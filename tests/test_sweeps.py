"""The README's experiments, run by DVC on a copy of the repository.

Drawing and scoring are replaced by a few lines of arithmetic in the copy, for they are not the point here: the
pipeline file, the parameters, the rules, the selection and the verdict are the real ones.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qwenlab.core.params import load_raw
from tests.pipeline_facts import ROOT

STUB = """
import json, sys
from pathlib import Path
sys.path.insert(0, "src")
from qwenlab.core.params import load_raw

def option(name):
    return Path(sys.argv[sys.argv.index(name) + 1])

def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(path))
"""
FETCH = """
for name in %r:
    touch(option("--out") / name)
"""
PREPARE = """
touch(option("--out") / "frames")
"""
EDIT = """
arm = load_raw("videoedit.arms")[sys.argv[1]]
# The best step is the committed one; far from it the edges get worse, as with the real one.
touch(option("--out") / "x")
loss = 0.1 if not arm.get("enabled", True) else 0.02 + 2 * abs(arm["lr"] - BEST)
(option("--out") / "loss.json").write_text(json.dumps(loss))
"""
SCORE = """
arm = sys.argv[1]
loss = 0.0 if arm == "truth" else json.loads((option("--frames") / "loss.json").read_text())
scores = {"edge_loss": loss, "gram_loss": loss, "lpips_to_prev": 0.5, "lpips_to_init": 1.0, "lpips_prev_to_init": 0.5,
          "psnr": 20 - loss, "hed_edge_loss": loss}
folder = option("--metrics")
folder.mkdir(parents=True, exist_ok=True)
(folder / f"{arm}.json").write_text(json.dumps({"rollout": scores, "teacher": scores, "first_frame_identical": 1}))
rows = "".join(f"0,{k},rollout,1,{loss}\\n" for k in range(4))
(folder / f"{arm}.csv").write_text("seed,frame,forcing,in_rule,edge_loss\\n" + rows)
"""


class Copy:
    """A copy of the repository with its own git and DVC."""

    def __init__(self, path: Path):
        self.path = path
        bin_dir = str(Path(sys.executable).parent)
        self.env = {
            **os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(path / "src"),
            "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
            "GIT_CONFIG_GLOBAL": os.devnull, "OMP_NUM_THREADS": "1", "COLUMNS": "200",
        }  # fmt: skip

    def __call__(self, *command: str, code: int = 0) -> str:
        if command[0] in ("dvc", "qwenlab"):
            command = (sys.executable, "-m", {"dvc": "dvc", "qwenlab": "qwenlab.cli"}[command[0]], *command[1:])
        done = subprocess.run(command, cwd=self.path, env=self.env, capture_output=True, text=True, timeout=250)
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Copy:
    from qwenlab.core.assets import ARCHIVES

    path = tmp_path_factory.mktemp("repo")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "metrics/", "data/", "report/", "dvc.lock")):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path / name)
    names = [name for archive in ARCHIVES for name, _ in archive.members.values()]
    best = load_raw("videoedit.arms", ROOT)["on"]["lr"]
    edit = f"BEST = {best}\n{EDIT}"
    stubs = {"assets/fetch": FETCH % names, "videoedit/prepare": PREPARE, "videoedit/edit": edit}
    for name, body in {**stubs, "videoedit/score": SCORE}.items():
        (path / "stages" / f"{name}.py").write_text(STUB + body)
    # The stand-in is in place, as in a fresh clone; here a marker is enough, and its stage is told so.
    (path / "stages/standins/image.py").write_text(
        STUB + 'touch(option("--out") / "x")\noption("--metrics").parent.mkdir(parents=True, exist_ok=True)\n'
        'option("--metrics").write_text("{}")\n'
    )
    run = Copy(path)
    run("git", "init", "-q")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "start")
    run("dvc", "repro", "videoedit-verdict", "videoedit-select")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "results")
    return run


def test_off_against_on_copies_metrics_and_draws_nothing_again(copy: Copy):
    for arm in ("off", "on"):
        said = copy("dvc", "exp", "run", "-n", arm, "-S", f"videoedit.arm={arm}", "videoedit-select")
        assert "Running stage 'videoedit-edit" not in said
    diff = json.loads(copy("dvc", "metrics", "diff", "off", "on", "--json"))
    change = diff["metrics/videoedit/selected.json"]["rollout.edge_loss"]
    assert (change["old"], change["new"]) == (0.1, 0.02)
    assert "pass" in copy("qwenlab", "accept", "videoedit", "--revs", "off", "on")
    assert "FAIL" in copy("qwenlab", "accept", "videoedit", "--revs", "on", "off", code=1)
    assert "nowhere" in subprocess.run(
        [sys.executable, "-m", "qwenlab.cli", "accept", "videoedit", "--revs", "off", "nowhere"],
        cwd=copy.path, env=copy.env, capture_output=True, text=True,
    ).stderr  # fmt: skip


def test_a_queued_sweep_over_the_step_size_keeps_the_trials_that_fail_the_rules(copy: Copy):
    best = load_raw("videoedit.arms", ROOT)["on"]["lr"]
    near, far = round(best + 0.001, 4), round(best + 0.5, 4)
    copy("dvc", "exp", "run", "--queue", "-S", f"videoedit.arms.on.lr={near},{far}", "videoedit-verdict")
    copy("dvc", "exp", "run", "--run-all")
    rows = json.loads(copy("dvc", "exp", "show", "--json"))
    trials = {}
    for branch in rows:
        for experiment in branch.get("experiments") or []:
            data = experiment["revs"][0]["data"]
            lr = data["params"]["params.yaml"]["data"]["videoedit"]["arms"]["on"]["lr"]
            verdict = data["metrics"].get("metrics/videoedit/verdict.json", {}).get("data", {})
            trials[lr] = verdict.get("accepted")
    assert (trials[near], trials[far]) == (1, 0)
