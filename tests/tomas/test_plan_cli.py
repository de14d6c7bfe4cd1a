"""`qwenlab plan` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from qwenlab.cli import main
from qwenlab.core.io import write_csv
from qwenlab.tomas.profiling import COLUMNS, RESOURCES

TASK = "Find all objects in the image. It is large, within 30 s."
PARAMS = """
profile: here
tomas:
  arm: memory
  seeds: [4, 5]
  capacity: {cpu_cores: 16, memory_gb: 32, gpu_sm: 120, gpu_memory_gb: 16}
"""
ROW = {"tool": "object_detection", "input_size": "small", **dict.fromkeys(RESOURCES, 3), "latency_ms": 77}


def state_rows(share: object = 0.5, count: int = 32) -> list[dict]:
    return [dict.fromkeys(RESOURCES, share) for _ in range(count)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch, runtime) -> Path:
    """A folder with parameters and a state, to run the command in."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "profiles" / "here.yaml").write_text(json.dumps({"tomas": {"runtime": runtime.model_dump()}}))
    write_csv(tmp_path / "state.csv", state_rows(), RESOURCES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory, encoder) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    encoder.save_pretrained(folder)
    return folder


@pytest.fixture
def qwenlab(here, planner_dir, memory_dir, encoder_dir):
    """Run the command with the test's planner."""
    folders = ["--planner", planner_dir, "--memory", memory_dir, "--encoder", encoder_dir]

    def call(*args: object, folders: list = folders) -> Result:
        result = CliRunner().invoke(main, ["plan", *map(str, folders), *map(str, args)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call


def lines_of(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_one_task_gives_one_json_object_and_nothing_else_on_stdout(qwenlab):
    result = qwenlab(TASK, "--state", "state.csv", "--top-k", 3)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert list(answer) == [
        "status", "tool", "config_id", "input_size", "resources", "latency_ms", "probability", "tool_probability",
        "feasible", "free", "free_from", "deadline_ms", "deadline_from", "alternatives",
    ]  # fmt: skip
    assert answer["free"] == {"cpu_cores": 8, "memory_gb": 16, "gpu_sm": 60, "gpu_memory_gb": 8}
    assert (answer["deadline_ms"], answer["deadline_from"]) == (30000, "task")
    assert len(answer["alternatives"]) == 2 and "resources" in answer["alternatives"][0]


def test_free_and_deadline_are_hard_limits(qwenlab):
    limits = ["--free", "gpu_sm=20, cpu_cores=2", "--deadline", "10 min"]
    answer = json.loads(qwenlab(TASK, "--state", "state.csv", *limits).stdout)
    assert answer["resources"]["gpu_sm"] == 20 and answer["resources"]["cpu_cores"] == 2
    assert answer["free_from"] == dict(zip(RESOURCES, ["given", "state", "given", "state"], strict=True))
    assert (answer["deadline_ms"], answer["deadline_from"]) == (600_000, "given")


def test_no_room_is_an_answer_and_exits_0(qwenlab):
    result = qwenlab(TASK, "--state", "state.csv", "--free", "gpu_sm=1")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["status"] == "no_feasible_config" and answer["nearest_miss"]["lacks"] == {"gpu_sm": 19}


@pytest.mark.parametrize(
    ("text", "value"), [("5s", 5000), ("5 s", 5000), ("800ms", 800), ("2 min", 120_000), ("2.5", 2.5), ("9e9", 9e9)]
)
def test_a_deadline_has_a_unit_or_is_in_ms(text, value):
    from qwenlab.tomas.requests import deadline_in

    assert deadline_in(text) == value


@pytest.mark.parametrize(
    "text", ["0", "-5", "-5s", "0 ms", "nan", "inf", "soon", "", "5 parsecs", "1.2.3 s", "5 s 3 s"]
)
def test_a_deadline_that_is_no_positive_time_is_refused(text):
    from qwenlab.core.errors import UserError
    from qwenlab.tomas.requests import deadline_in

    with pytest.raises(UserError, match="expected a positive time"):
        deadline_in(text)


def test_a_configuration_of_a_csv_can_be_planned_with(qwenlab, here, memory):
    names = memory.profile.registry.names
    write_csv(here / "row.csv", [{**ROW, "tool": name, "cpu_cores": 1} for name in names], COLUMNS)
    result = qwenlab(TASK, "--state", "state.csv", "--free", "cpu_cores=1", "--add-config", "row.csv")
    answer = json.loads(result.stdout)
    assert answer["status"] == "ok" and answer["added"] is True and answer["latency_ms"] == 77
    assert answer["config_id"] >= len(memory.profile)
    assert "7 configurations of row.csv added, from config_id 1701 on." in result.stderr


def test_a_batch_keeps_order_and_ids_and_mixes_limits(qwenlab, here):
    (here / "sub").mkdir()
    write_csv(here / "sub" / "idle.csv", state_rows(0), RESOURCES)
    batch = lines_of(
        here / "sub" / "tasks.jsonl",
        {"id": "z", "task": TASK, "state": [[0.5] * 4] * 32},
        "",
        {"task": "翻译这封信", "state_csv": "idle.csv", "free": {"gpu_sm": 1}},
        {"id": 0, "task": "Caption it.", "state_csv": "idle.csv", "deadline_ms": 5000, "free": None},
    )
    result = qwenlab("--batch", batch, "--out", "plans.jsonl", "--top-k", 2)
    assert result.exit_code == 0 and result.stdout == "", result.output
    answers = [json.loads(line) for line in (here / "plans.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == ["z", 3, 0]
    assert [answer["status"] for answer in answers] == ["ok", "no_feasible_config", "ok"]
    assert answers[0]["deadline_from"] == "task" and answers[2]["latency_ms"] <= 5000
    assert qwenlab("--batch", batch, "--top-k", 2).stdout == (here / "plans.jsonl").read_text()


BAD_LINES: dict[str, tuple[object, str]] = {
    "no json": ("{", "Invalid JSON"),
    "a list": ([1], "should be an object"),
    "a number for a task": ({"task": 3}, "task is 3"),
    "a blank task": ({"task": " "}, "task is ' '"),
    "no task": ({"task": None}, "task is null"),
    "a typing mistake": ({"deadline": 5}, "deadline is 5: this name is unknown; known: id, task, state"),
    "an unknown resource": ({"free": {"memory_mb": 5}}, "free.memory_mb is 5: this name is unknown"),
    "negative free": ({"free": {"gpu_sm": -1}}, "free.gpu_sm is -1"),
    "text for a number": ({"free": {"gpu_sm": "1"}}, 'free.gpu_sm is "1"'),
    "no deadline at all": ({"deadline_ms": 0}, "deadline_ms is 0"),
    "a fraction for an id": ({"id": 1.5}, "id.str is 1.5"),
    "too few samples": ({"state": [[0.5] * 4] * 31}, "at least 32 items"),
    "too few resources": ({"state": [[0.5] * 3] * 32}, "state.0 is [0.5, 0.5, 0.5]"),
    "nan in the state": ({"state": [[0.5] * 4] * 31 + [[0.5, 0.5, 0.5, float("nan")]]}, "state.31.3 is NaN"),
    "percent in the state": ({"state": [[50, 0.5, 0.5, 0.5]] * 32}, "state.0.0 is 50"),
    "no state": ({"state": None}, "neither of state and state_csv"),
    "two states": ({"state_csv": "state.csv"}, "both of state and state_csv"),
    "a state that is not there": ({"state": None, "state_csv": "no.csv"}, "no.csv: no such file"),
    "half a character": ('{"task": "\\ud800", "state_csv": "state.csv"}', "Invalid JSON"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_and_nothing_is_written(qwenlab, here, name):
    bad, message = BAD_LINES[name]
    good = {"task": TASK, "state": [[0.5] * 4] * 32}
    lines_of(here / "tasks.jsonl", good, {**good, **bad} if isinstance(bad, dict) else bad)
    result = qwenlab("--batch", "tasks.jsonl", "--out", "plans.jsonl")
    assert result.exit_code == 2 and not (here / "plans.jsonl").exists()
    assert result.stderr.startswith("Error: tasks.jsonl, line 2: ") and message in result.stderr
    assert result.stderr.count("\n") == 1 and len(result.stderr) < 300


STATE = ("--state", "state.csv")
BAD: dict[str, tuple[list[object], str]] = {
    "nothing to do": ([], "neither of TASK and --batch"),
    "two things to do": ([TASK, "--batch", "x.jsonl"], "both of TASK and --batch"),
    "a blank task": (["  ", *STATE], "TASK is '  '"),
    "an endless duration": ([f"Do it in {'9' * 400} s", *STATE], "TASK: the task has"),
    "no state": ([TASK], "--state is missing"),
    "a state that is not there": ([TASK, "--state", "no.csv"], "no.csv: no such file"),
    "a folder for a state": ([TASK, "--state", "profiles"], "profiles: cannot be read as CSV"),
    "an unknown resource": ([TASK, *STATE, "--free", "gpus=1"], "known: cpu_cores, memory_gb"),
    "another unit": ([TASK, *STATE, "--free", "memory_mb=1"], "looks like memory_gb, mind the unit"),
    "negative free": ([TASK, *STATE, "--free", "gpu_sm=-1"], "gpu_sm is"),
    "free is nan": ([TASK, *STATE, "--free", "gpu_sm=nan"], "finite number"),
    "free is infinite": ([TASK, *STATE, "--free", "gpu_sm=inf"], "finite number"),
    "no number": ([TASK, *STATE, "--free", "gpu_sm"], "valid number"),
    "no free": ([TASK, *STATE, "--free", ""], "--free ''"),
    "free given twice": ([TASK, *STATE, "--free", "gpu_sm=1,gpu_sm=2"], "stands there twice"),
    "no such time": ([TASK, *STATE, "--deadline", "soon"], "--deadline is 'soon'"),
    "no plan at all": ([TASK, *STATE, "--top-k", 0], "--top-k"),
    "a file for one plan": ([TASK, *STATE, "--out", "x"], "belongs to --batch"),
    "one state for a batch": (["--batch", "x.jsonl", *STATE], "--state: stands in each line"),
    "no such batch": (["--batch", "no.jsonl"], "no.jsonl"),
    "no lines": (["--batch", "/dev/null"], "no lines"),
    "no such memory": ([TASK, *STATE, "--memory", "no"], "no/config_weights.safetensors: no such file"),
    "no such planner": ([TASK, *STATE, "--planner", "no"], "no/planner.safetensors: no such file"),
    "no such row": ([TASK, *STATE, "--add-config", "no.csv"], "no.csv: no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_one_sentence_and_exit_code_two(qwenlab, name):
    extra, message = BAD[name]
    result = qwenlab(*extra)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (state_rows(count=31), "31 samples; expected 32"),
        ([*state_rows(count=31), *state_rows("nan", 1)], "state.csv, line 33: cpu_cores is 'nan'"),
        (state_rows(50), "line 2: cpu_cores is '50'; expected a utilisation between 0 and 1"),
    ],
)
def test_a_bad_state_is_named(qwenlab, here, rows, message):
    write_csv(here / "state.csv", rows, RESOURCES)
    result = qwenlab(TASK, *STATE)
    assert result.exit_code == 2 and message in result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tool": "knitting"}, "tool 'knitting' is unknown"),
        ({"latency_ms": -1}, "latency_ms is '-1'"),
        ({"gpu_sm": "nan"}, "gpu_sm is 'nan'"),
        ({"cpu_cores": 2, "memory_gb": 4, "gpu_sm": 20, "gpu_memory_gb": 2}, "is in the memory already"),
    ],
)
def test_a_bad_configuration_is_named_with_its_line(qwenlab, here, change, message):
    write_csv(here / "row.csv", [ROW, {**ROW, "gpu_sm": 5, **change}], COLUMNS)
    result = qwenlab(TASK, *STATE, "--add-config", "row.csv")
    assert result.exit_code == 2 and "row.csv, line 3: " in result.stderr and message in result.stderr


def test_an_encoder_that_is_not_there_or_damaged_is_named(qwenlab, here):
    write_csv(here / "row.csv", [ROW], COLUMNS)
    result = qwenlab(TASK, *STATE, "--add-config", "row.csv", "--encoder", here)
    assert result.exit_code == 2 and "dvc repro tomas-pretrain_encoder" in result.stderr
    (here / "encoder.safetensors").write_bytes(b"\xff" * 20)
    result = qwenlab(TASK, *STATE, "--add-config", "row.csv", "--encoder", here)
    assert result.exit_code == 2 and f"{here}: cannot be read (SafetensorError" in result.stderr


def test_a_damaged_planner_is_named_with_what_it_was_to_run_on(qwenlab, here, planner_dir):
    (here / "broken").mkdir()
    (here / "broken" / "planner.safetensors").write_bytes(b"")
    (here / "broken" / "planner.json").write_bytes((planner_dir / "planner.json").read_bytes())
    result = qwenlab(TASK, *STATE, "--planner", "broken")
    assert result.exit_code == 2 and "broken: cannot be loaded with" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("key", "value"), [("dtype", "float33"), ("device", "toaster"), ("model", "./nowhere")])
def test_a_runtime_that_is_not_there_is_named(qwenlab, here, runtime, key, value):
    other = {"tomas": {"runtime": {**runtime.model_dump(), key: value}}}
    (here / "profiles" / "here.yaml").write_text(json.dumps(other))
    result = qwenlab(TASK, *STATE)
    assert result.exit_code == 2 and value in result.stderr and "Traceback" not in result.stderr


def test_a_planner_trained_with_another_memory_is_refused(qwenlab, here, encoder, profile):
    from qwenlab.tomas.export import export

    export(encoder, profile, np.zeros(len(profile), bool), here / "other")
    result = qwenlab(TASK, *STATE, "--memory", "other")
    assert result.exit_code == 2 and "this memory has 1701 known ones" in result.stderr


def test_the_default_planner_is_the_selected_arms_first_seed(qwenlab, memory_dir):
    result = qwenlab(TASK, *STATE, folders=["--memory", memory_dir])
    assert result.exit_code == 2
    assert "data/tomas/train/memory/seed4/planner.safetensors: no such file" in result.stderr
    assert "dvc repro tomas-train" in result.stderr


def test_outside_the_repository_the_parameters_are_missing(qwenlab, here):
    (here / "params.yaml").unlink()
    result = qwenlab(TASK, *STATE)
    assert result.exit_code == 2 and "run the command from the root of the repository" in result.stderr


def test_help_names_every_option_and_imports_no_torch():
    code = "import sys; from qwenlab.cli import main; main(['plan', '--help'], standalone_mode=False);"
    output = subprocess.run(
        [sys.executable, "-c", code + "print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout
    assert not {"torch", "transformers"} & set(output.split())
    for option in ("--state", "--top-k", "--free", "--deadline", "--add-config", "--batch", "--out", "--planner"):
        assert option in output
