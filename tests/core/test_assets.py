"""Pinned assets, and that the networks in them are real."""

import pickle
from pathlib import Path

import pytest
import torch

from qwenlab.core import assets as module
from qwenlab.core.backbones import HED, lpips_vgg, normalise, squeezenet, vgg16_trunk
from qwenlab.core.errors import UserError
from qwenlab.core.media import center_crop, read_image, to_tensor
from qwenlab.videoedit.losses import VGGStyleExtractor, gram_loss


def photo(assets: Path, name: str, width: int = 224, height: int = 224) -> torch.Tensor:
    return to_tensor(center_crop(read_image(assets / name), width, height))


def test_a_second_fetch_needs_no_network(assets: Path, monkeypatch):
    monkeypatch.setattr(module, "_download", lambda *_: pytest.fail("downloaded again"))
    assert module.fetch(assets) == []


def test_a_member_with_another_hash_is_refused_and_not_written(assets: Path, tmp_path: Path):
    archive = module.Archive("x==1", "0" * 64, {"a.txt": ("a.txt", "1" * 64)})
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("a.txt", "tampered")
    with pytest.raises(UserError, match="expected 1111"):
        module.extract(archive, buffer.getvalue(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    archive = module.Archive("no-such-package==1.0", "0" * 64, {"a": ("a", "0" * 64)})
    with pytest.raises(UserError, match=r"no-such-package==1\.0: could not be fetched"):
        module.fetch(tmp_path / "out", (archive,))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return (print, ("owned",))

    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"w": Evil()}))
    with pytest.raises(UserError, match="only NumPy arrays"):
        module.load_numpy_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize(("name", "label"), [("chelsea.png", 285), ("coffee.png", 967)])
def test_squeezenet_knows_the_egyptian_cat_and_the_espresso(assets: Path, name: str, label: int):
    probabilities = squeezenet(assets / "squeezenet.pkl")(normalise(photo(assets, name))).softmax(-1)
    assert probabilities.argmax().item() == label
    assert probabilities.max() > 0.4


def blur_and_shift_at_equal_error(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A blurred copy, and one made brighter by as much squared error."""
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(image, (2, 2, 2, 2), mode="replicate"), 5, 1)
    return blurred, image + (blurred - image).square().mean().sqrt()


def test_the_real_vgg_minds_a_blur_far_more_than_a_brighter_picture_and_a_random_one_does_not(vgg, assets):
    image = photo(assets, "china.jpg", 128, 96) * 0.8
    blurred, brighter = blur_and_shift_at_equal_error(image)

    def ratio(model) -> float:
        with torch.no_grad():
            far, near = (model(image * 2 - 1, other * 2 - 1).item() for other in (blurred, brighter))
        return far / near

    torch.manual_seed(0)
    import lpips

    assert ratio(lpips_vgg(vgg)) > 10
    assert ratio(lpips.LPIPS(net="vgg", pnet_rand=True, lpips=False, verbose=False)) < 5


def test_gram_matrices_find_the_nearest_texture(vgg, assets):
    style = VGGStyleExtractor(vgg)
    crops = {name: photo(assets, name, 192, 96) for name in ("chelsea.png", "china.jpg", "flower.jpg", "coffee.png")}
    with torch.no_grad():
        grams = {n: (style(c[..., :96]), style(c[..., 96:])) for n, c in crops.items()}
    for name, (left, _) in grams.items():
        nearest = min(grams, key=lambda other: gram_loss(left, grams[other][1]).item())
        assert nearest == name


def test_hed_draws_the_outline_of_a_disc_and_leaves_its_inside_empty(vgg):
    ys, xs = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    radius = ((ys - 48) ** 2 + (xs - 48) ** 2).sqrt()
    image = torch.where(radius < 30, 0.9, 0.2).expand(1, 3, -1, -1)
    found = HED(vgg)(image)[0, 0]
    assert found[(radius - 30).abs() < 2].mean() > 3 * found[radius < 18].mean()


def test_a_missing_weights_file_says_how_to_get_it(tmp_path: Path):
    with pytest.raises(UserError, match="assets-fetch"):
        vgg16_trunk(tmp_path / "none.h5")


def test_without_a_connection_torchvisions_weights_are_a_clear_error(monkeypatch):
    from urllib.error import URLError

    import torchvision.models

    def offline(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models, "vgg16", offline)
    vgg16_trunk.cache_clear()
    with pytest.raises(UserError, match="could not be downloaded"):
        vgg16_trunk("torchvision")


def test_an_archive_with_another_hash_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch):
    import zipfile

    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "toy-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        wheel.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("toy-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    archive = module.Archive("toy==1.0", "0" * 64, {"a": ("a", "0" * 64)})
    with pytest.raises(UserError, match="does not have the pinned sha256"):
        module.fetch(tmp_path / "out", (archive,))
    assert list((tmp_path / "out").iterdir()) == []


def test_without_torchvision_the_gram_loss_says_what_to_install(vgg, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    vgg16_trunk.cache_clear()
    with pytest.raises(UserError, match="torchvision is not installed"):
        VGGStyleExtractor(vgg)
