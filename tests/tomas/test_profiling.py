"""Profiling data: the analytic model, its CSV, anybody else's CSV, and every way in which one can be wrong."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenlab.core.errors import UserError
from qwenlab.core.params import load_raw
from qwenlab.tomas.numbers import round_significant
from qwenlab.tomas.prepare import ProfileParams, new_ids, prepare_profile, read_prepared
from qwenlab.tomas.profiling import (
    COLUMNS,
    RESOURCES,
    Profile,
    expected_latency,
    read_latency_model,
    read_profile,
    simulate,
    write_profile,
)
from qwenlab.tomas.registry import Registry

OWN = Registry.model_validate({"input_sizes": ["S", "XL"], "tools": [{"name": "speech"}, {"name": "code.search"}]})
HEADER = ",".join(COLUMNS)
LINES = ["speech,S,1,0.5,10,3,1234.5", "speech,XL,1,0.5,10,3,99", "code.search,S,6,12,7.5,1,100000"]


@pytest.fixture(scope="module")
def model(root, registry):
    return read_latency_model(root / "src/qwenlab/tomas/latency.json", registry)


@pytest.fixture(scope="module")
def constants(root) -> dict:
    return json.loads((root / "src/qwenlab/tomas/latency.json").read_text())


def csv_of(folder, lines, header=HEADER):
    path = folder / "own.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def refused(folder, lines, header=HEADER) -> str:
    path = csv_of(folder, lines, header)
    with pytest.raises(UserError) as caught:
        read_profile(path, OWN)
    assert caught.value.message.startswith(str(path)) and "\n" not in caught.value.message
    return caught.value.message.removeprefix(str(path))


def latency(profile: Profile) -> np.ndarray:
    """[tool, size, cpu, memory, sm, gpu memory] of the committed grid."""
    return profile.latency.reshape(7, 3, 3, 3, 3, 3)


# ---------------------------------------------------------------- the simulated rows


def test_every_tool_has_every_configuration_of_the_grid_once(profile):
    assert len(profile) == 7 * 243 == len(np.unique(np.c_[profile.tool_ids, profile.resources[:, :5]], axis=0))
    assert np.bincount(profile.tool_ids).tolist() == [243] * 7


def test_every_number_of_the_profile_is_positive_but_the_index_of_the_size(profile):
    assert (profile.resources[:, 1:] > 0).all() and np.isfinite(profile.resources).all()
    assert set(profile.resources[:, 0]) == {0, 1, 2}


def test_latencies_have_two_significant_digits(profile):
    assert all(round_significant(value, 2) == value for value in profile.latency)


def test_a_seed_gives_the_same_csv_to_the_byte_and_another_seed_another(tmp_path, model, registry):
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        write_profile(tmp_path / name, simulate(model, registry, seed))
    one, again, other = ((tmp_path / name).read_bytes() for name in ("one", "again", "other"))
    assert one == again != other


@pytest.mark.parametrize("axis", range(2, 6))
def test_without_noise_more_of_a_resource_is_never_slower(model, registry, axis):
    quiet = latency(simulate(model.model_copy(update={"noise": 0.0}), registry, 0))
    assert (np.diff(quiet, axis=axis) <= 0).all()


@pytest.mark.parametrize("axis", range(2, 6))
def test_every_resource_makes_some_tool_a_tenth_faster(model, registry, axis):
    quiet = latency(simulate(model.model_copy(update={"noise": 0.0}), registry, 0))
    assert (quiet.take(2, axis) < 0.9 * quiet.take(0, axis)).any()


def test_without_noise_a_larger_input_is_always_slower(model, registry):
    assert (np.diff(latency(simulate(model.model_copy(update={"noise": 0.0}), registry, 0)), axis=1) > 0).all()


def test_noise_moves_latencies_by_about_its_standard_deviation(model, registry):
    fine = model.model_copy(update={"significant_digits": 9})
    quiet = simulate(fine.model_copy(update={"noise": 0.0}), registry, 0)
    change = np.log(simulate(fine, registry, 0).latency / quiet.latency)
    assert change.std() == pytest.approx(model.noise, rel=0.1) and abs(change.mean()) < 0.003


def test_a_latency_is_the_formula_of_the_module(model):
    tool = model.tools["super_resolution"]
    cpu, gpu = 1500 * (0.2 + 0.8 / 4), 12000 / 40**0.9
    assert expected_latency(tool, 2.5, 0, (4, 4, 40, 4)) == pytest.approx(80 + cpu + gpu)
    assert expected_latency(tool, 2.5, 0, (4, 2, 40, 1.6)) == pytest.approx(80 + cpu * 2**2.5 + gpu * 2**2.5)


# ---------------------------------------------------------------- the latency model's file


def model_refused(folder, registry, value) -> str:
    path = folder / "latency.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(UserError) as caught:
        read_latency_model(path, registry)
    assert caught.value.message.startswith(f"{path}: ") and "\n" not in caught.value.message
    assert len(caught.value.message) < 250 + len(str(path))
    return caught.value.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spill": -1}, "spill is -1"),
        ({"spill": "much"}, 'spill is "much"'),
        ({"noise": float("nan")}, "noise is NaN"),
        ({"significant_digits": 0}, "significant_digits is 0"),
        ({"spil": 2}, "spil is 2"),
        ({"tools": {}}, "tool 'image_captioning' stands in it or in the registry, not in both"),
        ({"grid": {"cpu_cores": [2]}}, "grid has the keys cpu_cores; expected cpu_cores, memory_gb, gpu_sm"),
    ],
)
def test_a_latency_model_that_makes_no_sense_is_refused(tmp_path, registry, constants, change, words):
    assert words in model_refused(tmp_path, registry, constants | change)


@pytest.mark.parametrize("values", [[], [2, 2], [0, 2], [-2], ["two"], [float("inf")]])
def test_a_grid_needs_distinct_positive_numbers(tmp_path, registry, constants, values):
    grid = constants["grid"] | {"gpu_sm": values}
    assert "grid.gpu_sm" in model_refused(tmp_path, registry, constants | {"grid": grid})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cpu_ms": [500, 2000]}, "tools.object_detection.cpu_ms: expected one number an input size"),
        ({"vram_gb": [1, 2, 3, 4]}, "tools.object_detection.vram_gb: expected one number an input size"),
        ({"gpu_ms": [1, 2, -3]}, "tools.object_detection.gpu_ms.2 is -3"),
        ({"parallel": 1.5}, "tools.object_detection.parallel is 1.5"),
        ({"overhead_ms": 0}, "tools.object_detection.overhead_ms is 0"),
        ({"overhead": 5}, "tools.object_detection.overhead is 5"),
    ],
)
def test_constants_of_a_tool_that_make_no_sense_are_refused(tmp_path, registry, constants, change, words):
    tools = constants["tools"] | {"object_detection": constants["tools"]["object_detection"] | change}
    assert words in model_refused(tmp_path, registry, constants | {"tools": tools})


def test_a_tool_that_the_registry_does_not_know_is_refused(tmp_path, registry, constants):
    tools = constants["tools"] | {"zebra_counting": constants["tools"]["object_detection"]}
    assert "tool 'zebra_counting' stands in it" in model_refused(tmp_path, registry, constants | {"tools": tools})


def test_a_missing_constant_is_named_without_the_whole_file(tmp_path, registry, constants):
    without = {key: value for key, value in constants.items() if key != "spill"}
    assert "key spill is missing" in model_refused(tmp_path, registry, without)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"grid": {"cpu_cores": [1,]}}'])
def test_a_latency_model_that_is_no_json_object_is_refused(tmp_path, registry, text):
    assert "JSON" in model_refused(tmp_path, registry, text)


# ---------------------------------------------------------------- any CSV


def test_the_committed_profile_reads_as_it_was_written(tmp_path, profile, registry):
    write_profile(tmp_path / "p.csv", profile)
    again = read_profile(tmp_path / "p.csv", registry)
    assert (again.tool_ids == profile.tool_ids).all() and (again.resources == profile.resources).all()


def test_any_other_csv_works_whatever_its_tools_grid_and_number_of_rows(tmp_path):
    profile = read_profile(csv_of(tmp_path, LINES), OWN)
    assert profile.tool_ids.tolist() == [0, 0, 1]
    assert profile.resources.tolist() == [[0, 1, 0.5, 10, 3, 1234.5], [1, 1, 0.5, 10, 3, 99], [0, 6, 12, 7.5, 1, 1e5]]
    assert profile.row(2) == dict(zip(COLUMNS, ["code.search", "S", 6, 12, 7.5, 1, 100000], strict=True))


def test_columns_may_stand_in_any_order(tmp_path):
    lines = [",".join(reversed(line.split(","))) for line in LINES]
    profile = read_profile(csv_of(tmp_path, lines, ",".join(reversed(COLUMNS))), OWN)
    assert (profile.resources == read_profile(csv_of(tmp_path, LINES), OWN).resources).all()


numbers = st.integers(1, 10**9) | st.decimals("0.001", 9999, places=2, allow_nan=False).map(float).filter(bool)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 1), numbers, numbers, numbers, numbers, numbers),
        min_size=1, max_size=20, unique_by=lambda row: row[:6],
    )
)  # fmt: skip
def test_every_profile_survives_being_written_and_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("profile") / "p.csv"
    profile = Profile(OWN, np.array([row[0] for row in rows]), np.array([row[1:] for row in rows], np.float64))
    write_profile(path, profile)
    again = read_profile(path, OWN)
    assert (again.tool_ids == profile.tool_ids).all()
    assert again.resources == pytest.approx(profile.resources, rel=1e-5)


# ---------------------------------------------------------------- CSVs that are wrong


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (HEADER.replace(",latency_ms", ""), "expected tool, input_size, cpu_cores"),
        (HEADER + ",note", "columns tool, input_size, cpu_cores, memory_gb, gpu_sm, gpu_memory_gb, latency_ms, note;"),
        (HEADER.replace("latency_ms", "latency_s"), "latency_s looks like latency_ms, mind the unit"),
        (HEADER.replace("memory_gb,gpu_sm", "memory_mb,gpu_sm"), "memory_mb looks like memory_gb, mind the unit"),
        (HEADER.replace("gpu_memory_gb", "gpu_mem"), "gpu_mem looks like gpu_memory_gb, mind the unit"),
        (HEADER.replace("cpu_cores", "cpu"), "cpu looks like cpu_cores"),
        (HEADER.replace(",", ";"), "expected tool, input_size"),
    ],
)
def test_wrong_columns_are_named_with_those_expected(tmp_path, header, words):
    count = len(header.split(","))
    lines = [",".join([*line.split(","), "1"][:count]) for line in LINES]
    assert words in refused(tmp_path, lines, header)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("vision,S,1,1,1,1,1", ", line 3: tool 'vision' is unknown; known: speech, code.search"),
        ("speech,M,1,1,1,1,1", ", line 3: input_size 'M' is unknown; known: S, XL"),
        ("speech,0,1,1,1,1,1", ", line 3: input_size '0' is unknown"),
        ("speech,S,0,1,1,1,1", ", line 3: cpu_cores is '0'; expected a positive number"),
        ("speech,S,1,-2,1,1,1", ", line 3: memory_gb is '-2'"),
        ("speech,S,1,1,nan,1,1", ", line 3: gpu_sm is 'nan'"),
        ("speech,S,1,1,1,inf,1", ", line 3: gpu_memory_gb is 'inf'"),
        ("speech,S,1,1,1,1,1e999", ", line 3: latency_ms is '1e999'"),
        ("speech,S,1,1,1,1,fast", ", line 3: latency_ms is 'fast'"),
        ("speech,S,1,1,1,1,", ", line 3: latency_ms is ''"),
        ("speech,S,1,1,1,1", ", line 3: latency_ms is None"),
        ("speech", ", line 3: input_size None is unknown"),
        ("speech,S,1,1,1,1,1,234", ", line 3: more cells than the 7 columns"),
        ("speech,S,1.0,0.50,10,3,7", ", line 3: the same configuration as in line 2"),
    ],
)
def test_a_wrong_row_is_named_with_its_line_and_value(tmp_path, line, words):
    assert words in refused(tmp_path, [LINES[0], line, LINES[1]])


@pytest.mark.parametrize("text", ["", "\n", HEADER, HEADER + "\n\n"])
def test_a_csv_without_rows_is_refused(tmp_path, text):
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(UserError, match=f"no rows; expected a line {HEADER}"):
        read_profile(tmp_path / "own.csv", OWN)


def test_a_missing_csv_is_named(tmp_path):
    with pytest.raises(UserError, match=r"own\.csv: no such file"):
        read_profile(tmp_path / "own.csv", OWN)


def _positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


@given(st.integers(2, 6), st.text(st.characters(exclude_categories=["C"], exclude_characters=',"'), max_size=9))
def test_a_cell_is_a_positive_number_or_refused_with_its_name(tmp_path_factory, column, text):
    cells = LINES[0].split(",")
    cells[column] = text
    folder = tmp_path_factory.mktemp("cell")
    if _positive(text):
        assert read_profile(csv_of(folder, [",".join(cells)]), OWN).resources[0, column - 1] == float(text)
    else:
        assert f", line 2: {COLUMNS[column]} is {text!r}" in refused(folder, [",".join(cells)])


# ---------------------------------------------------------------- prepared


def test_preparing_the_pipelines_source_gives_the_1701_rows_and_a_tenth_of_each_tool_as_new(root, tmp_path, profile):
    settings = load_raw("tomas", root)
    params = ProfileParams.model_validate(settings["profile"])
    prepare_profile(params, root / settings["registry"], root / settings["source"], tmp_path / "out")
    prepared, new = read_prepared(tmp_path / "out")
    assert (prepared.resources == profile.resources).all()
    assert np.bincount(prepared.tool_ids[new]).tolist() == [round(params.new_share * 243)] * 7


def test_preparing_an_own_csv_keeps_every_row_under_its_id(tmp_path):
    (tmp_path / "tools.json").write_text(OWN.model_dump_json())
    prepare_profile(
        ProfileParams(seed=1, new_share=0.5), tmp_path / "tools.json", csv_of(tmp_path, LINES), tmp_path / "out"
    )
    prepared, new = read_prepared(tmp_path / "out")
    assert prepared.resources.tolist() == read_profile(csv_of(tmp_path, LINES), OWN).resources.tolist()
    assert prepared.registry == OWN
    assert 0 < new.sum() < len(new)


def test_preparing_again_gives_the_same_files_and_another_seed_other_new_rows(root, tmp_path):
    settings = load_raw("tomas", root)
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        params = ProfileParams(seed=seed, new_share=0.1)
        prepare_profile(params, root / settings["registry"], root / settings["source"], tmp_path / name)
    files = {
        name: {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("one", "again", "other")
    }
    assert files["one"] == files["again"] and set(files["one"]) == {"tools.json", "profiling.csv", "new.json"}
    assert files["one"]["new.json"] != files["other"]["new.json"]


def test_without_a_new_share_nothing_is_new(tmp_path):
    (tmp_path / "tools.json").write_text(OWN.model_dump_json())
    prepare_profile(
        ProfileParams(seed=0, new_share=0), tmp_path / "tools.json", csv_of(tmp_path, LINES), tmp_path / "out"
    )
    assert not read_prepared(tmp_path / "out")[1].any()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_every_tool_with_rows_keeps_one_that_training_knows(tmp_path, share):
    profile = read_profile(csv_of(tmp_path, LINES), OWN)
    new = new_ids(profile, ProfileParams(seed=0, new_share=share))
    assert set(np.delete(profile.tool_ids, new)) == {0, 1}


def test_a_refused_csv_leaves_nothing_behind(tmp_path):
    (tmp_path / "tools.json").write_text(OWN.model_dump_json())
    source = csv_of(tmp_path, [LINES[0], "speech,S,1,1,1,1,soon"])
    with pytest.raises(UserError, match="line 3: latency_ms is 'soon'"):
        prepare_profile(ProfileParams(seed=0, new_share=0.1), tmp_path / "tools.json", source, tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["own.csv", "tools.json"]


def test_requests_and_latency_are_columns_of_the_resources(profile):
    assert profile.requests.shape == (len(profile), len(RESOURCES))
    assert (np.c_[profile.resources[:, 0], profile.requests, profile.latency] == profile.resources).all()


def test_an_extended_profile_keeps_the_ids_it_had(profile):
    both = profile.extended(profile)
    assert len(both) == 2 * len(profile)
    assert both.row(5) == profile.row(5) == both.row(5 + len(profile))
