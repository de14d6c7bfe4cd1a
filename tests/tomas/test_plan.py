"""Plans under limits: masks, what they are held against, and the nearest miss when there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from qwenlab.core.errors import UserError
from qwenlab.tomas.decoder import Prediction
from qwenlab.tomas.encoder import ResourceEncoderForPretraining
from qwenlab.tomas.plan import Request, Teller, extend, limits_of, plan
from qwenlab.tomas.planner import LoadedPlanner, load_planner
from qwenlab.tomas.profiling import RESOURCES, Profile

NAMES = (Path("row.csv"), Path("encoder"))
ALL = {"cpu_cores": 16.0, "memory_gb": 32.0, "gpu_sm": 120.0, "gpu_memory_gb": 16.0}


@pytest.fixture(scope="module")
def loaded(planner_dir, runtime, memory) -> LoadedPlanner:
    return load_planner(planner_dir, runtime, memory)


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    """[200, 32, 4], each resource at a level of its own."""
    rng = np.random.default_rng(3)
    return np.repeat(rng.uniform(0, 0.9, (200, 1, 4)), 32, 1).astype(np.float32)


def busy(share: float) -> np.ndarray:
    return np.full((32, 4), share, np.float32)


def ask(loaded, memory, capacity, *, task="Caption this photo, small.", state=None, top_k=1, **limits) -> dict:
    request = Request("TASK", task, busy(0.5) if state is None else state, **limits)
    return plan(loaded, memory, [request], capacity, top_k)[0]


def chosen(tool: int, *configs: int) -> Prediction:
    """What the decoder says for one task."""
    return Prediction(
        torch.tensor([tool]), torch.tensor([configs]), torch.full((1, len(configs)), 0.5), torch.tensor([0.9])
    )


def test_an_answer_is_the_row_of_the_table(loaded, memory, capacity):
    answer = ask(loaded, memory, capacity)
    row = memory.profile.row(answer["config_id"])
    assert {**answer["resources"], "latency_ms": answer["latency_ms"]} == {
        n: row[n] for n in (*RESOURCES, "latency_ms")
    }
    assert (answer["tool"], answer["input_size"]) == (row["tool"], row["input_size"])


def test_alternatives_are_the_next_best_of_the_same_tool(loaded, memory, capacity):
    answer = ask(loaded, memory, capacity, top_k=4)
    plans = [answer, *answer["alternatives"]]
    assert len({one["config_id"] for one in plans}) == 4 and len({one["tool"] for one in plans}) == 1
    assert sorted((one["probability"] for one in plans), reverse=True) == [one["probability"] for one in plans]


def test_more_alternatives_than_configurations_are_all_there_are(loaded, memory, capacity):
    answer = ask(loaded, memory, capacity, top_k=10_000)
    assert len(answer["alternatives"]) == 242
    assert sum(one["probability"] for one in [answer, *answer["alternatives"]]) == pytest.approx(1, abs=1e-3)


def test_no_plan_under_limits_breaks_them(loaded, memory, capacity, states):
    """Every number that is reported, against every limit that is reported."""
    rng = np.random.default_rng(0)
    requests = [
        Request("TASK", "Translate the text.", state, {}, float(rng.choice([400, 2000, 9000, 60000])))
        for state in states
    ]
    answers = plan(loaded, memory, requests, capacity, top_k=3)
    good = [one for one in answers if one["status"] == "ok"]
    assert 20 < len(good) < 200
    for answer in good:
        for one in [answer, *answer["alternatives"]]:
            assert all(one["resources"][name] <= answer["free"][name] for name in RESOURCES)
            assert one["latency_ms"] <= answer["deadline_ms"]
            assert one["feasible"] == {"fits_free": True, "meets_deadline": True}


def test_no_plan_means_that_nothing_of_the_tool_keeps_the_limits(loaded, memory, capacity, states):
    requests = [Request("TASK", "Translate the text.", state, {}, 4000.0) for state in states]
    answers = plan(loaded, memory, requests, capacity)
    none = [one for one in answers if one["status"] == "no_feasible_config"]
    assert none and len(none) < len(answers)
    profile = memory.profile
    for answer in none:
        rows = profile.tool_ids == profile.registry.names.index(answer["tool"])
        free = [answer["free"][name] for name in RESOURCES]
        assert not (rows & (profile.requests <= free).all(1) & (profile.latency <= 4000)).any()


def test_without_limits_only_the_tool_is_masked_and_feasibility_is_reported(loaded, memory, capacity):
    task = "Caption this photo, small, within 5 ms."
    idle, full = (ask(loaded, memory, capacity, task=task, state=busy(share)) for share in (0, 1))
    assert full["status"] == "ok" and full["feasible"] == {"fits_free": False, "meets_deadline": False}
    assert idle["feasible"] == {"fits_free": True, "meets_deadline": False}
    assert "without_limits" not in full


def test_a_deadline_alone_masks_the_slow_ones_only(loaded, memory, capacity):
    open_plan = ask(loaded, memory, capacity, state=busy(1))
    faster = ask(loaded, memory, capacity, state=busy(1), deadline_ms=open_plan["latency_ms"] - 1.0)
    assert faster["status"] == "ok" and faster["latency_ms"] < open_plan["latency_ms"]
    assert faster["feasible"] == {"fits_free": False, "meets_deadline": True}


def test_limits_that_exclude_the_planners_own_choice_show_it(loaded, memory, capacity):
    own = ask(loaded, memory, capacity)
    under = ask(loaded, memory, capacity, deadline_ms=own["latency_ms"] - 1.0)
    assert under["without_limits"]["config_id"] == own["config_id"] != under["config_id"]
    assert under["without_limits"]["feasible"]["meets_deadline"] is False


def test_what_is_not_given_comes_from_the_state_and_the_sentence(capacity):
    limits = limits_of(Request("TASK", "Caption it within 5 s.", busy(0.75), {"gpu_sm": 7.5}), capacity)
    assert limits.free.tolist() == [4, 8, 7.5, 4] and limits.free_from == ["state", "state", "given", "state"]
    assert (limits.deadline_ms, limits.deadline_from) == (5000, "task")


def test_a_deadline_as_a_number_wins_over_the_sentence(capacity):
    limits = limits_of(Request("TASK", "Caption it within 5 s.", busy(0), None, 70.0), capacity)
    assert (limits.deadline_ms, limits.deadline_from) == (70, "given")


def test_several_durations_in_a_sentence_are_no_deadline(capacity):
    limits = limits_of(Request("TASK", "Cut the 30 s clip within 5 s.", busy(0)), capacity)
    assert (limits.deadline_ms, limits.deadline_from) == (None, None)


def test_binary_rounding_takes_nothing_away(capacity):
    # 120 * (1 - 0.8) is 23.999999999999996.
    assert limits_of(Request("TASK", "x", busy(0.8)), capacity).free[2] == 24


def test_a_plan_without_room_says_so_and_names_the_nearest_miss(loaded, memory, capacity):
    answer = ask(loaded, memory, capacity, state=busy(0), free={"gpu_sm": 18.0, "cpu_cores": 1.0})
    assert answer["status"] == "no_feasible_config" and "config_id" not in answer
    # A core of 16 is more of the machine than 2 SMs of 120, and no configuration takes less than 2 cores and 20 SMs.
    assert answer["nearest_miss"]["lacks"] == {"cpu_cores": 1, "gpu_sm": 2}


def test_the_nearest_miss_lacks_the_least_share_of_the_machine(loaded, memory, capacity):
    free = np.array([1.0, 32, 18, 16])
    miss = ask(loaded, memory, capacity, free=dict(zip(RESOURCES, free.tolist(), strict=True)))["nearest_miss"]
    profile = memory.profile
    rows = np.flatnonzero(profile.tool_ids == profile.registry.names.index(miss["tool"]))
    worst = ((profile.requests[rows] - free) / capacity.array()).max(1)
    mine = ((np.array(list(miss["resources"].values())) - free) / capacity.array()).max()
    assert mine == worst.min()
    assert miss["latency_ms"] == profile.latency[rows[worst == worst.min()]].min()


def test_where_something_fits_but_is_late_the_nearest_miss_is_the_fastest_that_fits(loaded, memory, capacity):
    answer = ask(loaded, memory, capacity, free={**ALL, "gpu_sm": 20.0}, deadline_ms=1.5)
    miss, profile = answer["nearest_miss"], memory.profile
    rows = (profile.tool_ids == profile.registry.names.index(answer["tool"])) & (profile.requests[:, 2] <= 20)
    assert miss["latency_ms"] == profile.latency[rows].min()
    assert miss["late_by_ms"] == miss["latency_ms"] - 1.5 and "lacks" not in miss


def test_a_tool_without_configurations_has_no_nearest_miss(memory, capacity):
    profile = memory.profile
    others = profile.tool_ids != 0
    teller = Teller(
        Profile(profile.registry, profile.tool_ids[others], profile.resources[others]), capacity.array(), 10_000
    )
    answer = teller.answer(chosen(0, -1, -1), 0, limits_of(Request("TASK", "x", busy(0)), capacity))
    assert answer["status"] == "no_feasible_config" and answer["nearest_miss"] is None


def test_a_limit_that_is_just_reached_is_kept(memory, capacity):
    row = memory.profile.row(100)
    free = {name: float(row[name]) for name in RESOURCES}
    limits = limits_of(Request("TASK", "x", busy(0), free, float(row["latency_ms"])), capacity)
    tool = int(memory.profile.tool_ids[100])
    answer = Teller(memory.profile, capacity.array(), len(memory.profile)).answer(chosen(tool, 100), 0, limits)
    assert answer["feasible"] == {"fits_free": True, "meets_deadline": True}


def test_a_batch_plans_each_task_as_if_it_were_alone(loaded, memory, capacity, states):
    mixed: list[tuple[dict | None, float | None]] = [(None, None), ({}, None), (None, 3000.0), ({}, 9000.0)]
    requests = [
        Request("TASK", f"Caption photo {index}" + " please" * (index % 5), states[index], limits, deadline)
        for index, (limits, deadline) in enumerate(mixed * 34)
    ]
    together = plan(loaded, memory, requests, capacity)
    assert len(together) == 136  # more than one part
    for index in (0, 1, 2, 3, 127, 128, 135):
        alone = plan(loaded, memory, [requests[index]], capacity)[0]
        assert alone.get("config_id") == together[index].get("config_id")
        assert alone["free"] == together[index]["free"] and alone["deadline_ms"] == together[index]["deadline_ms"]


def test_a_task_longer_than_the_model_can_read_is_refused(loaded, memory, capacity):
    with pytest.raises(UserError, match=r"TASK: the task has \d+ tokens; expected at most 255"):
        ask(loaded, memory, capacity, task="caption this photo and " * 200)


def row_of(profile: Profile, index: int, **changes: float) -> Profile:
    """One configuration with other numbers."""
    resources = profile.resources[[index]].copy()
    for name, value in changes.items():
        resources[0, 1 + [*RESOURCES, "latency_ms"].index(name)] = value
    return Profile(profile.registry, profile.tool_ids[[index]], resources)


def test_an_added_configuration_can_be_chosen_at_once_and_is_marked(planner_dir, runtime, memory, encoder, capacity):
    """It is the only one that fits one core, so it must be the plan."""
    names = memory.profile.registry.names
    tools = [int(np.flatnonzero(memory.profile.tool_ids == tool)[0]) for tool in range(len(names))]
    extra = row_of(memory.profile, tools[0], cpu_cores=1)
    for index in tools[1:]:
        extra = extra.extended(row_of(memory.profile, index, cpu_cores=1))
    larger = extend(memory, extra, encoder, NAMES)
    loaded = load_planner(planner_dir, runtime, larger)
    request = Request("TASK", "Caption this photo.", busy(0), {"cpu_cores": 1.0})
    answer = plan(loaded, larger, [request], capacity, 5, added=len(extra))[0]
    assert answer["status"] == "ok" and answer["added"] is True and answer["resources"]["cpu_cores"] == 1
    assert answer["config_id"] == len(memory.profile) + names.index(answer["tool"])
    assert answer["alternatives"] == [] and "added" not in answer["without_limits"]


def test_adding_leaves_the_other_rows_and_their_ids_as_they_were(memory, encoder):
    larger = extend(memory, row_of(memory.profile, 5, gpu_sm=33), encoder, NAMES)
    assert torch.equal(larger.weights[:-1], memory.weights) and larger.new[-1]
    assert larger.profile.row(5) == memory.profile.row(5)
    assert larger.profile.row(len(memory.profile))["gpu_sm"] == 33


def test_a_configuration_that_is_in_the_memory_is_not_added_again(memory, encoder):
    with pytest.raises(UserError, match=r"row\.csv, line 2: .* is in the memory already, as config_id 5"):
        extend(memory, row_of(memory.profile, 5, latency_ms=1), encoder, NAMES)


def test_the_encoder_of_another_memory_is_refused(memory, encoder):
    torch.manual_seed(9)
    buffers = encoder.get_buffer("tool_embeddings"), encoder.mlp.low, encoder.mlp.high
    other = ResourceEncoderForPretraining(encoder.config, *buffers).eval()
    with pytest.raises(UserError, match="this encoder did not write the memory"):
        extend(memory, row_of(memory.profile, 5, gpu_sm=33), other, NAMES)
