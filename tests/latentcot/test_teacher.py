"""Teacher states are used only if they are there, of this checkpoint, and of the right shape."""

import pytest
import torch

from qwenlab.core.errors import UserError
from qwenlab.latentcot.teacher import Teacher, file_name, write

STATES = {"scenes_0": torch.randn(3, 5, 8), "scenes_1": torch.randn(3, 4, 8)}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("layer", ["all_layers", "last_layer"])
@pytest.mark.parametrize("kind", ["rep", "latent"])
def test_what_is_written_is_read_back(tmp_path, packed, layer, kind):
    write(tmp_path, kind, layer, STATES, "abc", 4, packed)
    teacher = Teacher(tmp_path, kind, layer, "abc", 4)
    for name, value in STATES.items():
        wanted = value if layer == "all_layers" else value[-1:]
        assert torch.allclose(teacher[name].float(), wanted, atol=2e-3)
        teacher.check_shape(name, value.shape[1], 3, 8)


def test_files_have_the_names_and_payloads_of_the_seed(tmp_path):
    write(tmp_path, "rep", "all_layers", STATES, "abc", 4, False)
    write(tmp_path, "latent", "last_layer", STATES, "abc", 4, False)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "latent_last_layer_scenes_0.pt", "latent_last_layer_scenes_1.pt",
        "rep_all_layers_scenes_0.pt", "rep_all_layers_scenes_1.pt",
    ]  # fmt: skip
    payload = torch.load(tmp_path / "latent_last_layer_scenes_0.pt", weights_only=True)
    assert set(payload) == {"metadata_info", "latent"} and payload["latent"].shape == (5, 8)
    assert payload["metadata_info"]["checkpoint"] == "abc"


@pytest.mark.parametrize("packed", [True, False])
def test_missing_stale_or_misshapen_states_stop_with_the_files_name(tmp_path, packed):
    write(tmp_path, "latent", "all_layers", STATES, "abc", 4, packed)
    good = Teacher(tmp_path, "latent", "all_layers", "abc", 4)
    with pytest.raises(UserError, match=r"latent_all_layers_scenes_7.pt"):
        good["scenes_7"]
    with pytest.raises(
        UserError, match=r"latent_all_layers_scenes_0.pt: its states are \[3, 5, 8\]; expected \[3, 6, 8\]"
    ):
        good.check_shape("scenes_0", 6, 3, 8)
    with pytest.raises(UserError, match=r"stale.*'abc'; expected 'def'"):
        Teacher(tmp_path, "latent", "all_layers", "def", 4)["scenes_0"]
    with pytest.raises(UserError, match=r"latents is 4; expected 8"):
        Teacher(tmp_path, "latent", "all_layers", "abc", 8)["scenes_0"]
    with pytest.raises(UserError, match=r"last_layer|no such teacher file|holds no"):
        Teacher(tmp_path, "latent", "last_layer", "abc", 4)["scenes_0"]
    with pytest.raises(UserError, match="no such folder"):
        Teacher(tmp_path / "none", "latent", "all_layers", "abc", 4)


def test_a_foreign_or_broken_file_is_refused(tmp_path):
    torch.save({"latent": [1, 2]}, tmp_path / "rep_all_layers_scenes_0.pt")
    (tmp_path / "rep_all_layers_scenes_1.pt").write_bytes(b"no tensor")
    teacher = Teacher(tmp_path, "rep", "all_layers", "abc", 4)
    for name in STATES:
        with pytest.raises(UserError, match=f"{name}.pt"):
            teacher[name]


def test_nan_states_are_refused(tmp_path):
    write(tmp_path, "rep", "all_layers", {"s_0": torch.full((3, 2, 8), float("nan"))}, "abc", 4, False)
    with pytest.raises(UserError, match="NaN"):
        Teacher(tmp_path, "rep", "all_layers", "abc", 4).check_shape("s_0", 2, 3, 8)


def test_a_name_that_is_no_file_name_is_refused():
    with pytest.raises(UserError, match="teacher file"):
        file_name("rep", "all_layers", "a/../b")
