"""The stage of the loop writes what the report reads, twice the same, with the real classes."""

import json

import pytest
from PIL import Image

from qwenlab.core.params import load
from qwenlab.latentcot.drawing import Images, QwenImagePainter
from qwenlab.latentcot.loop import HeuristicReflector
from qwenlab.latentcot.loop_metrics import Loop
from qwenlab.latentcot.loop_run import run


@pytest.fixture(scope="module")
def images(root, tmp_path_factory) -> Images:
    """An untrained pipeline of the stand-in's classes, two steps a picture."""
    import torch

    from qwenlab.standins import scenes_image

    torch.manual_seed(0)
    recipe = load("standins.scenes_image", scenes_image.Recipe, root)
    _, edit = scenes_image.build_pipelines(recipe.model_copy(update={"layers": 1, "text_layers": 1, "text_dim": 32}))
    folder = str(tmp_path_factory.mktemp("scenes"))
    edit.save_pretrained(folder)
    changes = {"draw_model": folder, "edit_model": folder, "steps": 2, "batch": 4}
    return load("latentcot.images", Images, root).model_copy(update=changes)


class Always:
    """Says the same of every picture."""

    def __init__(self, text):
        self.text = text

    def reflect(self, images, goals):
        return [self.text] * len(images)


def test_two_runs_write_the_same_bytes(images, tmp_path):
    loop = Loop(prompts=6, kinds=["two", "full"], prompt_seed=3, resamples=100, strips=4, checked=5)
    for name in ("a", "b"):
        run(images, loop, [0, 1], lambda arm, seed: Always("top left missing : draw red circle"), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["loop.csv", "loop.json", "loop_heuristic.json", "loop_text.json", "strips.png"]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    found = json.loads((tmp_path / "a" / "loop.json").read_text())
    assert {"all_correct", "detection", "refined_minus_draft", "refined_minus_best_of_2", "checker"} <= set(found)
    assert "reprompted" in found["all_correct"]
    assert len((tmp_path / "a" / "loop.csv").read_text().splitlines()) == 1 + 2 * 6
    assert Image.open(tmp_path / "a" / "strips.png").width > 500


def test_a_folder_without_a_pipeline_is_named(images, tmp_path):
    from qwenlab.core.errors import UserError

    with pytest.raises(UserError, match="is missing"):
        QwenImagePainter(images.model_copy(update={"edit_model": str(tmp_path)}))


def test_a_broken_pipeline_is_named(images, tmp_path):
    from qwenlab.core.errors import UserError

    (tmp_path / "model_index.json").write_text("{}")
    settings = images.model_copy(update={"draw_model": str(tmp_path), "edit_model": str(tmp_path)})
    with pytest.raises(UserError, match="cannot be loaded"):
        QwenImagePainter(settings).draw(["a red circle at the top left"], [0])


def test_offload_without_a_gpu_is_refused(images):
    from qwenlab.core.errors import UserError

    with pytest.raises(UserError, match="the device is cpu"):
        QwenImagePainter(images.model_copy(update={"offload": "model"})).draw(["a red circle at the top left"], [0])


def test_two_checkpoints_are_loaded_one_after_the_other(images, tmp_path):
    import shutil

    shutil.copytree(images.edit_model, tmp_path / "edit")
    painter = QwenImagePainter(images.model_copy(update={"edit_model": str(tmp_path / "edit")}))
    draft = painter.draw(["a red circle at the top left"], [0])[0]
    assert set(painter._pipes) == {"draw"}
    painter.edit(draft, "remove the top left shape", 0)
    assert set(painter._pipes) == {"edit"}


def test_a_batch_changes_no_picture(images):
    import numpy as np

    painter = QwenImagePainter(images)
    words = ["a red circle at the top left", "three blue squares, none at the top left"]
    alone = [painter.draw([word], [seed])[0] for word, seed in zip(words, (5, 6), strict=True)]
    for one, other in zip(alone, painter.draw(words, [5, 6]), strict=True):
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def test_the_heuristic_reflector_is_the_ceiling_in_the_metrics(images, tmp_path):
    loop = Loop(prompts=6, kinds=["two", "full"], prompt_seed=3, resamples=100, strips=1, checked=5)
    results = run(images, loop, [0], lambda arm, seed: HeuristicReflector(), tmp_path)
    assert results["loop_heuristic"]["detection"]["wrong_found"] == 1.0
