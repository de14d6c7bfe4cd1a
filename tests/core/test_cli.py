"""The command line: exit codes, what is printed, and two revisions of a real DVC project."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from qwenlab.cli import COMMANDS, main
from qwenlab.core import doctor
from qwenlab.core.io import write_csv, write_json
from stages.accept import main as accept_stage
from stages.videoedit.select import main as select_stage
from stages.videoedit.verdict import main as verdict_stage

PARAMS = """
profile: tiny
videoedit:
  arm: "{arm}"
  runtime: {{device: cpu, dtype: float32, model: data/standins/image}}
  verdict: {{control: off, treatment: on}}
  accept:
    edge_loss: {{max_ratio: {limit}, win_rate: 1}}
    seedrule:edge_loss: {{max: 9}}
  aim:
    edge_loss: {{max_ratio: {{off: 0.1, seedrule: 0.2}}}}
"""
ARMS = {"off": 2.0, "on": 1.0, "seedrule": 1.5}


def project(folder, limit=0.5, arm="on", arms=ARMS):
    """Parameters, profile and metrics of three arms in `folder`."""
    (folder / "profiles").mkdir(exist_ok=True)
    (folder / "profiles" / "tiny.yaml").write_text("{}\n")
    (folder / "params.yaml").write_text(PARAMS.format(limit=limit, arm=arm))
    for name, value in arms.items():
        write_json(folder / "metrics" / "videoedit" / f"{name}.json", {"edge_loss": value})
        rows = [{"seed": 0, "frame": i, "edge_loss": value + i} for i in range(3)]
        write_csv(folder / "metrics" / "videoedit" / f"{name}.csv", rows, ["seed", "frame", "edge_loss"])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments, command=main):
    result = CliRunner().invoke(command, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_help_imports_no_command():
    code = "import sys; from qwenlab.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(name in output for name in COMMANDS)
    assert not {"torch", "qwenlab.core.commands", "pydantic"} & set(output.split())


def test_an_unknown_command_is_bad_input():
    assert run("fly")[0] == 2


def test_the_table_shows_every_rule_in_words(here):
    project(here)
    code, output = run("accept")
    assert code == 0
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    assert lines == [
        ["videoedit", "edge_loss", "max_ratio (off)", "2", "1", "0.5", "pass"],
        ["videoedit", "edge_loss", "win_rate (off)", "", "1", "1", "pass"],
        ["videoedit", "seedrule:edge_loss", "max", "2", "1.5", "9", "pass"],
        ["videoedit", "edge_loss", "max_ratio (off)", "2", "1", "0.1", "missed"],
        ["videoedit", "edge_loss", "max_ratio (seedrule)", "1.5", "1", "0.2", "missed"],
    ]


@pytest.mark.parametrize("arguments", [["accept"], ["accept", "videoedit"]])
def test_a_failed_rule_exits_1(here, arguments):
    project(here, limit=0.4)
    code, output = run(*arguments)
    assert code == 1 and output.count("FAIL") == 1


def test_a_system_without_metrics_exits_1_and_says_what_to_do(here):
    project(here, arms={"off": 2.0})
    code, output = run("accept")
    assert code == 1
    assert "videoedit: no verdict yet, metrics/videoedit/on.json is missing; `make repro` computes it." in output


def test_an_unknown_system_is_bad_input(here):
    project(here)
    code, output = run("accept", "walking")
    assert code == 2 and "'walking'" in output and "known: videoedit" in output


def test_without_parameters_nothing_is_accepted(here):
    assert run("accept")[0] == 2
    project(here)
    (here / "params.yaml").write_text("profile: tiny\n")
    code, output = run("accept")
    assert code == 2 and "nothing to judge" in output


def test_the_verdict_stage_writes_a_failure_and_exits_0(here):
    project(here, limit=0.1)
    assert run("--metrics", "metrics/videoedit", command=verdict_stage)[0] == 0
    assert '"accepted": 0' in Path("metrics/videoedit/verdict.json").read_text()


def test_the_accept_stage_is_the_gate(here):
    project(here)
    assert run(command=accept_stage)[0] == 0
    project(here, limit=0.1)
    assert run(command=accept_stage)[0] == 1


def test_the_select_stage_copies_the_chosen_arm(here):
    project(here, arm="seedrule")
    assert run("--metrics", "metrics/videoedit", command=select_stage) == (0, "selected: seedrule\n")
    assert Path("metrics/videoedit/selected.json").read_text() == Path("metrics/videoedit/seedrule.json").read_text()


@pytest.fixture(scope="module")
def revisions(tmp_path_factory):
    """A DVC project with a commit tagged `off` and one tagged `on`, each with that arm selected."""
    folder = tmp_path_factory.mktemp("revisions")

    def call(*command):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    git = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")
    call(*git, "init", "-q")
    call(sys.executable, "-m", "dvc", "init", "-q")
    (folder / "dvc.yaml").write_text("metrics:\n- metrics/videoedit/selected.json\n")
    for arm in ("off", "on"):
        project(folder, arm=arm)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert run("--metrics", "metrics/videoedit", command=select_stage)[0] == 0
        call(*git, "add", "-A")
        call(*git, "commit", "-qm", arm)
        call(*git, "tag", arm)
    return folder


def test_two_revisions_are_judged_by_what_they_selected(revisions, monkeypatch):
    monkeypatch.chdir(revisions)
    code, output = run("accept", "videoedit", "--revs", "off", "on")
    assert code == 0 and output.count("pass") == 2 and output.count("missed") == 1
    code, output = run("accept", "videoedit", "--revs", "on", "off")
    assert code == 1 and output.count("FAIL") == 2


def test_a_rule_that_two_revisions_cannot_answer_is_named(revisions, monkeypatch):
    monkeypatch.chdir(revisions)
    _, output = run("accept", "videoedit", "--revs", "off", "on")
    assert "seedrule:edge_loss max: not judged; it asks for seedrule against off." in output
    assert "edge_loss max_ratio@seedrule: not judged; it asks for on against seedrule." in output


def test_an_unknown_revision_is_bad_input(revisions, monkeypatch):
    monkeypatch.chdir(revisions)
    code, output = run("accept", "videoedit", "--revs", "off", "of")
    assert code == 2 and "unknown Git revision 'of'" in output and "dvc exp list" in output


def test_a_flag_is_no_revision(revisions, monkeypatch):
    monkeypatch.chdir(revisions)
    code, output = run("accept", "videoedit", "--revs", "off", "--help")
    assert code == 2 and "expected a Git revision" in output


def test_revisions_need_a_system(here):
    project(here)
    code, output = run("accept", "--revs", "a", "b")
    assert code == 2 and "name it" in output


def test_outside_a_dvc_project_revisions_are_bad_input(here):
    project(here)
    code, output = run("accept", "videoedit", "--revs", "a", "b")
    assert code == 2 and "not the root of a DVC repository" in output


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setattr(
        doctor, "check_torch", lambda device, dtype, section: [doctor.Check("device", "ok", f"{device} {dtype}")]
    )


def test_doctor_exits_1_and_names_what_is_missing(here, no_torch):
    project(here)
    code, output = run("doctor")
    words = " ".join(output.replace("│", " ").split())
    assert code == 1
    assert "cpu float32" in words and "data/standins/image is not here" in words and "dvc init" in words


def test_doctor_exits_0_with_warnings(here, no_torch):
    project(here)
    (here / "data" / "standins" / "image").mkdir(parents=True)
    (here / "data" / "standins" / "image" / "model_index.json").write_text("{}")
    (here / ".dvc").mkdir()
    (here / ".dvc" / "config").write_text("")
    code, output = run("doctor")
    assert code == 0 and "warning" in output and "missing" not in output


def test_doctor_goes_on_without_parameters(here, no_torch):
    code, output = run("doctor")
    assert code == 1 and "params.yaml: no such file" in output and "libx264" in output


def test_doctor_tells_a_hub_name_from_a_folder(here, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here / "cache"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    assert [check.state for check in doctor.check_model(here, "./folder")] == ["missing"]
    assert "will be downloaded" in doctor.check_model(here, "Qwen/Qwen-Image-Edit-2509")[0].text
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in doctor.check_model(here, "Qwen/Qwen-Image-Edit-2509")[0].text
