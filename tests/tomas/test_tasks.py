"""Tasks: labels are the solver's, the data does not give them away to rules of thumb, states and CSVs are checked."""

import itertools
import json
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.core.errors import UserError
from qwenlab.core.io import read_json
from qwenlab.core.params import load_raw
from qwenlab.tomas.heuristics import score_heuristics
from qwenlab.tomas.language import duration_in
from qwenlab.tomas.prepare import ProfileParams, prepare_profile, read_prepared
from qwenlab.tomas.profiling import COLUMNS, RESOURCES, Profile
from qwenlab.tomas.registry import SPLITS, Registry
from qwenlab.tomas.solver import HEURISTICS, INFORMED, fitting, solve
from qwenlab.tomas.tasks import (
    MARGIN,
    RECENT,
    SAMPLES,
    Capacity,
    Tasks,
    clear_states,
    free_resources,
    needs_of,
    random_states,
    read_state,
    read_tasks,
    write_tasks,
)

HEADER = ",".join(RESOURCES)
FEW = Tasks(seed=0, train=60, validation=20, test=40, no_deadline=0.1, unattainable=0.05)
OWN = Registry.model_validate({"input_sizes": ["S", "XL"], "tools": [{"name": "speech"}, {"name": "code.search"}]})


@pytest.fixture(scope="module")
def settings(root) -> Tasks:
    """The pipeline's, but for the numbers of tasks."""
    own = Tasks.model_validate(load_raw("tomas.tasks", root))
    return own.model_copy(update={"train": 2000, "validation": 1000, "test": 1000})


@pytest.fixture(scope="module")
def prepared(root, tmp_path_factory) -> tuple[Profile, np.ndarray]:
    """The pipeline's own profile, by its own settings."""
    own, out = load_raw("tomas", root), tmp_path_factory.mktemp("profile") / "out"
    prepare_profile(ProfileParams.model_validate(own["profile"]), root / own["registry"], root / own["source"], out)
    return read_prepared(out)


@pytest.fixture(scope="module")
def made(tmp_path_factory, prepared, capacity, objective, settings):
    """The folder of the tasks."""
    out = tmp_path_factory.mktemp("tasks") / "out"
    write_tasks(*prepared, capacity, objective, settings, out)
    return out


def contents(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# ---------------------------------------------------------------- the data


def test_no_rule_of_thumb_solves_the_tasks(tmp_path, prepared, made, capacity, objective):
    score_heuristics(prepared[0], made, capacity, objective, tmp_path / "scores.json")
    scores = read_json(tmp_path / "scores.json")["by_rule"]
    assert max(scores[name]["exact"] for name in HEURISTICS) <= 0.35
    assert max(scores[name]["exact"] for name in INFORMED) < 0.55  # they are told the operator's prices


def test_the_solver_finds_every_label_from_what_is_stored(prepared, made, capacity, objective):
    profile, new = prepared
    values = objective.values(profile, capacity.array())
    for split in SPLITS:
        tasks, states = read_tasks(made, split)
        needs = needs_of(tasks[:300], states[:300], capacity)
        known = ~new if split == "train" else None
        labels = [task["config_id"] for task in tasks[:300]]
        assert [solve(profile, need, values, known) for need in needs] == labels


def test_a_training_label_is_never_a_new_configuration(prepared, made):
    tasks, _ = read_tasks(made, "train")
    assert not prepared[1][[task["config_id"] for task in tasks]].any()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_about_a_tenth_of_the_held_out_labels_are_new_configurations(prepared, made, split):
    tasks, _ = read_tasks(made, split)
    assert prepared[1][[task["config_id"] for task in tasks]].mean() == pytest.approx(0.1, abs=0.08)


def test_a_label_is_of_the_tool_and_size_of_its_task(prepared, made):
    profile = prepared[0]
    for task in itertools.chain(*(read_tasks(made, split)[0] for split in SPLITS)):
        row = profile.row(task["config_id"])
        assert row["tool"] == profile.registry.names[task["tool_id"]]
        assert row["input_size"] == profile.registry.input_sizes[task["size"]]


def test_every_tool_and_size_is_asked_for(made):
    tasks, _ = read_tasks(made, "test")
    assert {(task["tool_id"], task["size"]) for task in tasks} == set(itertools.product(range(7), range(3)))


def test_about_the_configured_share_of_tasks_has_no_deadline(made, settings):
    tasks, _ = read_tasks(made, "train")
    share = statistics.fmean(task["deadline_ms"] is None for task in tasks)
    assert share == pytest.approx(settings.no_deadline, abs=0.02)


def test_about_the_configured_share_of_tasks_has_a_deadline_that_nothing_meets(prepared, made, capacity, settings):
    profile, new = prepared
    tasks, states = read_tasks(made, "train")
    late = [
        need.deadline_ms is not None and profile.latency[fitting(profile, need, ~new)].min() > need.deadline_ms
        for need in needs_of(tasks, states, capacity)
    ]
    assert statistics.fmean(late) == pytest.approx(settings.unattainable, abs=0.015)


def test_the_sentence_names_the_deadline_that_the_label_was_solved_for(made):
    for task in itertools.chain(*(read_tasks(made, split)[0] for split in SPLITS)):
        assert duration_in(task["text"]) == task["deadline_ms"]


def test_no_held_out_text_occurs_in_training(made):
    texts = {split: {task["text"] for task in read_tasks(made, split)[0]} for split in SPLITS}
    assert not texts["train"] & (texts["validation"] | texts["test"])


def test_the_deadline_and_the_state_change_the_plan(prepared, made, capacity, objective):
    profile, values = prepared[0], objective.values(prepared[0], capacity.array())
    tasks, states = read_tasks(made, "test")
    needs, labels = needs_of(tasks, states, capacity), [task["config_id"] for task in tasks]
    free = [solve(profile, type(n)(n.tool_id, n.size, capacity.array(), n.deadline_ms), values) for n in needs]
    easy = [solve(profile, type(n)(n.tool_id, n.size, n.free, None), values) for n in needs]
    for blind in (free, easy):
        assert statistics.fmean(one == label for one, label in zip(blind, labels, strict=True)) < 0.75


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("split", SPLITS)
def test_every_task_has_a_series_of_utilisations(made, settings, split):
    tasks, states = read_tasks(made, split)
    assert len(tasks) == getattr(settings, split)
    assert states.shape == (len(tasks), SAMPLES, len(RESOURCES)) and states.dtype == np.float32
    assert (states >= 0).all() and (states <= 1).all()


def test_a_seed_gives_the_same_files_to_the_byte_and_another_seed_others(tmp_path, prepared, capacity, objective):
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        write_tasks(*prepared, capacity, objective, FEW.model_copy(update={"seed": seed}), tmp_path / name)
    one, again, other = (contents(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again and set(one) == {"train.jsonl", "validation.jsonl", "test.jsonl", "states.safetensors"}
    assert not any(one[name] == other[name] for name in one)


def test_more_test_tasks_leave_the_others_as_they_were(tmp_path, prepared, capacity, objective):
    for name, count in (("few", 10), ("more", 30)):
        write_tasks(*prepared, capacity, objective, FEW.model_copy(update={"test": count}), tmp_path / name)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    assert few["train.jsonl"] == more["train.jsonl"] and more["test.jsonl"].startswith(few["test.jsonl"])


def test_no_share_of_special_tasks_gives_every_task_a_deadline_that_can_be_met(tmp_path, prepared, capacity, objective):
    params = FEW.model_copy(update={"no_deadline": 0.0, "unattainable": 0.0})
    write_tasks(*prepared, capacity, objective, params, tmp_path / "out")
    tasks, _ = read_tasks(tmp_path / "out", "test")
    assert all(prepared[0].latency[task["config_id"]] <= task["deadline_ms"] for task in tasks)


def test_on_a_machine_that_is_too_small_nothing_is_written(tmp_path, prepared, objective):
    small = Capacity(cpu_cores=1, memory_gb=1, gpu_sm=1, gpu_memory_gb=1)
    with pytest.raises(UserError, match=r"nothing fitted; expected a larger tomas\.capacity"):
        write_tasks(*prepared, small, objective, FEW, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"train": 0}, {"no_deadline": 1.5}, {"unattainable": -0.1}, {"seed": -1}, {"x": 1}])
def test_settings_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Tasks.model_validate(FEW.model_dump() | change)


# ---------------------------------------------------------------- anybody's profile


def own_tasks(tmp_path, lines, capacity, objective, params=FEW):
    """(profile, new, folder) of the tasks of another CSV."""
    (tmp_path / "tools.json").write_text(OWN.model_dump_json())
    (tmp_path / "own.csv").write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    prepare_profile(
        ProfileParams(seed=0, new_share=0.2), tmp_path / "tools.json", tmp_path / "own.csv", tmp_path / "profile"
    )
    profile, new = read_prepared(tmp_path / "profile")
    write_tasks(profile, new, capacity, objective, params, tmp_path / "tasks")
    return profile, new, tmp_path / "tasks"


def checked(made, capacity, objective):
    profile, new, folder = made
    values = objective.values(profile, capacity.array())
    for split in SPLITS:
        tasks, states = read_tasks(folder, split)
        for task, need in zip(tasks, needs_of(tasks, states, capacity), strict=True):
            assert solve(profile, need, values, ~new if split == "train" else None) == task["config_id"]
            assert duration_in(task["text"]) == task["deadline_ms"]
    return profile, read_tasks(folder, "test")[0]


def test_tasks_can_be_made_of_a_few_uneven_rows_of_own_tools(tmp_path, objective):
    lines = [
        *(f"speech,S,{cpu},{2 * cpu},5,1,{900 / cpu:.3f}" for cpu in (1, 2, 3, 5)),
        "speech,XL,4,8,5,1,2600.77", "speech,XL,8,8,5,1,1333.1", "code.search,S,2,2,30,2,150.5",
    ]  # fmt: skip
    capacity = Capacity(cpu_cores=20, memory_gb=40, gpu_sm=100, gpu_memory_gb=10)
    _, tasks = checked(own_tasks(tmp_path, lines, capacity, objective), capacity, objective)
    assert {(task["tool_id"], task["size"]) for task in tasks} == {(0, 0), (0, 1), (1, 0)}


def test_tasks_can_be_made_of_a_grid_in_single_steps(tmp_path, objective):
    grid = itertools.product(range(1, 17), range(5, 105, 5))
    lines = [f"speech,{size},{cpu},8,{sm},4,{9000 / cpu + 9e4 / sm:.2f}" for cpu, sm in grid for size in ("S", "XL")]
    capacity = Capacity(cpu_cores=16, memory_gb=32, gpu_sm=100, gpu_memory_gb=16)
    _, tasks = checked(own_tasks(tmp_path, lines, capacity, objective), capacity, objective)
    assert len({task["config_id"] for task in tasks}) > 10


@pytest.mark.parametrize("scale", [0.005, 1.0, 5e7])
def test_deadlines_matter_whether_a_tool_takes_milliseconds_or_days(tmp_path, objective, scale):
    lines = [f"speech,{size},{cpu},4,20,2,{scale * 800 / cpu}" for cpu in (1, 2, 4, 8) for size in ("S", "XL")]
    capacity = Capacity(cpu_cores=16, memory_gb=32, gpu_sm=100, gpu_memory_gb=16)
    profile, tasks = checked(own_tasks(tmp_path, lines, capacity, objective), capacity, objective)
    inside = [
        task["deadline_ms"] is not None and profile.latency.min() <= task["deadline_ms"] < profile.latency.max()
        for task in tasks
    ]
    assert statistics.fmean(inside) > 0.4


# ---------------------------------------------------------------- states


@given(st.lists(st.integers(0, 1000), min_size=RECENT * 4, max_size=RECENT * 4))
def test_what_is_free_is_what_the_busiest_of_the_last_eight_samples_leaves(recent):
    capacity = np.array([16.0, 32.0, 120.0, 16.0])
    states = np.ones((SAMPLES, 4))
    states[-RECENT:] = np.reshape(recent, (RECENT, 4)) / 1000
    busiest = [max(recent[resource::4]) / 1000 for resource in range(4)]
    assert free_resources(states, capacity) == pytest.approx(capacity * (1 - np.array(busiest)))


@given(st.integers(0, SAMPLES - 1), st.integers(0, 3), st.integers(0, 99))
def test_only_a_spike_in_the_last_eight_samples_changes_what_is_free(at, resource, seed):
    states = random_states(1, np.random.default_rng(seed))[0] * 0.9
    spiked = states.copy()
    spiked[at, resource] = 1.0
    before, after = (free_resources(s, np.ones(4)) for s in (states, spiked))
    changed = (before != after).nonzero()[0].tolist()
    assert changed == ([resource] if at >= SAMPLES - RECENT else [])


def test_what_is_free_is_the_same_for_a_batch_as_for_each():
    states = random_states(5, np.random.default_rng(0))
    together = free_resources(states, np.ones(4))
    assert (together == np.stack([free_resources(one, np.ones(4)) for one in states])).all()


def test_many_states_have_a_higher_spike_before_the_part_that_counts():
    states = random_states(500, np.random.default_rng(0))
    decoyed = states[:, :-RECENT].max(1) > states[:, -RECENT:].max(1) + 0.15
    assert decoyed.mean() > 0.25


def test_in_no_state_is_a_free_resource_within_noise_of_a_request(prepared, made, capacity):
    profile = prepared[0]
    for split in SPLITS:
        free = free_resources(read_tasks(made, split)[1].astype(np.float64), capacity.array())
        for resource, most in enumerate(capacity.array()):
            distance = np.abs(free[:, resource, None] - np.unique(profile.requests[:, resource]))
            assert distance.min() > 0.99 * MARGIN * most


def test_states_never_run_out(prepared, capacity):
    rng = np.random.default_rng(0)
    pool = clear_states(np.full((1, 4), 0.99) * capacity.array(), capacity.array(), rng)
    assert sum(1 for _ in itertools.islice(pool, 300_000)) == 300_000


# ---------------------------------------------------------------- a CSV of states


def state_csv(folder, header=HEADER, rows=SAMPLES, **lines):
    """A CSV of states in which some lines are replaced: `l5="..."`."""
    path = folder / "state.csv"
    body = [lines.get(f"l{number}", "0.1,0.25,0.5,1") for number in range(2, rows + 2)]
    path.write_text("\n".join([header, *body]) + "\n")
    return path


def refused(path) -> str:
    with pytest.raises(UserError) as caught:
        read_state(path)
    assert caught.value.message.startswith(str(path)) and "\n" not in caught.value.message
    return caught.value.message.removeprefix(str(path))


def test_a_state_is_read_oldest_first(tmp_path):
    states = read_state(state_csv(tmp_path, l2="0,0,0,0", l33="1,1,1,1"))
    assert states.shape == (SAMPLES, 4) and states.dtype == np.float32
    assert states[0].max() == 0 and states[-1].min() == 1
    assert states[5].tolist() == pytest.approx([0.1, 0.25, 0.5, 1])


def test_the_columns_of_a_state_may_stand_in_any_order(tmp_path):
    states = read_state(state_csv(tmp_path, ",".join(reversed(RESOURCES))))
    assert states[0].tolist() == pytest.approx([1, 0.5, 0.25, 0.1])


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("cpu,memory_gb,gpu_sm,gpu_memory_gb", ": columns cpu, memory_gb, gpu_sm, gpu_memory_gb; expected cpu_cores,"),
        ("0.1;0.2;0.3;0.4", "expected cpu_cores, memory_gb, gpu_sm, gpu_memory_gb."),
        ("time,cpu_cores,memory_gb,gpu_sm", ": columns time, cpu_cores"),
        ("cpu_cores,memory_gb,gpu_sm,gpu_memory_gb,time", ": columns cpu_cores, memory_gb, gpu_sm, gpu_memory_gb, ti"),
    ],
)
def test_wrong_columns_of_a_state_are_named(tmp_path, header, words):
    path = state_csv(tmp_path, header)
    if ";" in header:
        path.write_text(path.read_text().replace(",", ";"))
    assert words in refused(path)


@pytest.mark.parametrize("rows", [1, SAMPLES - 1, SAMPLES + 1])
def test_another_number_of_samples_is_refused(tmp_path, rows):
    assert refused(state_csv(tmp_path, rows=rows)) == f": {rows} samples; expected 32, the oldest first."


@pytest.mark.parametrize("text", ["", "\n", HEADER, HEADER + "\n\n"])
def test_a_state_without_samples_is_refused(tmp_path, text):
    (tmp_path / "state.csv").write_text(text)
    assert refused(tmp_path / "state.csv") == f": no samples; expected a line {HEADER} and 32 samples."


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0.1,nan,0.5,1", ", line 7: memory_gb is 'nan'; expected a utilisation between 0 and 1."),
        ("0.1,0.2,inf,1", ", line 7: gpu_sm is 'inf'"),
        ("-0.1,0.2,0.5,1", ", line 7: cpu_cores is '-0.1'"),
        ("0.1,0.2,0.5,1.01", ", line 7: gpu_memory_gb is '1.01'"),
        ("0.1,0.2,0.5,85%", ", line 7: gpu_memory_gb is '85%'"),
        ("0.1,,0.5,1", ", line 7: memory_gb is ''"),
        ("0.1,0.2,0.5", ", line 7: gpu_memory_gb is None"),
        ("0,1,0,2,0,5,1,0", ", line 7: more cells than the 4 columns"),
    ],
)
def test_a_wrong_sample_is_named_with_its_line_and_value(tmp_path, line, words):
    assert words in refused(state_csv(tmp_path, l7=line))


def test_a_missing_state_is_named(tmp_path):
    assert refused(tmp_path / "state.csv") == ": no such file."


def test_tasks_are_one_json_object_a_line(made):
    lines = (made / "test.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(set(json.loads(line)) == {"text", "tool_id", "size", "deadline_ms", "config_id"} for line in lines)
