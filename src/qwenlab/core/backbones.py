"""Real pretrained vision networks from the fetched assets: SqueezeNet 1.1, VGG16, and the HED edge detector.

They come from Caffe (BGR, 0..255, mean subtracted). The preprocessing is folded into the first convolution, which
is exact for SqueezeNet (its conv1 has no padding) and differs only at the border for VGG16; after that each takes
ImageNet-normalised RGB like any torchvision model. `lpips_vgg` puts the trunk into the LPIPS architecture.

On a machine with torchvision's own VGG16 weights cached, `vgg16_trunk("torchvision")` reads those instead.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from qwenlab.core.assets import load_numpy_pickle
from qwenlab.core.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# BGR means the two Caffe networks were trained with.
_SQUEEZENET_MEAN = (103.939, 116.779, 123.68)
_HED_MEAN = (104.00699, 116.66877, 122.67892)

# Seed 001, 4.3: index of the ReLU after which each named layer is read in `vgg16().features`.
VGG_LAYERS = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}
Module = TypeVar("Module", bound=nn.Module)
_VGG_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """ImageNet normalisation in float32. `[B, 3, H, W]` in [0, 1] -> `[B, 3, H, W]`."""
    images = images.float()
    mean, std = images.new_tensor(IMAGENET_MEAN), images.new_tensor(IMAGENET_STD)
    return (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


def _oihw(kernel: np.ndarray) -> torch.Tensor:
    """TensorFlow's HWIO convolution kernel as torch's OIHW."""
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))).float()


def _fold_caffe(conv: Any, bgr_mean: tuple[float, float, float]) -> None:
    """Make a first convolution that expects BGR minus mean (0..255) take ImageNet-normalised RGB."""
    weight = conv.weight.data.flip(1)  # BGR -> RGB
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    shift = 255 * mean - torch.tensor(bgr_mean).flip(0)
    conv.bias.data += (weight * shift.view(1, 3, 1, 1)).sum((1, 2, 3))
    conv.weight.data = weight * (255 * std).view(1, 3, 1, 1)


def _frozen(model: Module) -> Module:
    return model.eval().requires_grad_(False)


@lru_cache(maxsize=2)
def squeezenet(path: str | Path) -> nn.Module:
    """`torchvision` SqueezeNet 1.1 (1000 ImageNet classes) with the fetched weights, frozen."""
    from torchvision.models import squeezenet1_1

    weights = load_numpy_pickle(path)
    model = squeezenet1_1(weights=None)
    fires = [module for module in model.features if type(module).__name__ == "Fire"]
    layers = [(model.features[0], weights["conv1"]), (model.classifier[1], weights["conv10"])]
    for number, fire in enumerate(fires, start=2):
        block = {name: weights[f"fire{number}/{name}"] for name in ("squeeze1x1", "expand1x1", "expand3x3")}
        layers.append((fire.squeeze, block["squeeze1x1"]))
        layers += [(fire.expand1x1, block["expand1x1"]), (fire.expand3x3, block["expand3x3"])]
    for conv, (kernel, bias) in layers:
        conv.weight.data, conv.bias.data = _oihw(kernel), torch.from_numpy(bias).float()
    _fold_caffe(model.features[0], _SQUEEZENET_MEAN)
    return _frozen(model)


@lru_cache(maxsize=2)
def vgg16_trunk(source: str | Path) -> nn.Sequential:
    """The 13 convolutions of VGG16 as `torchvision.models.vgg16().features`, frozen.

    Args:
        source: the HED weights file (a VGG16 fine-tuned at lr 1e-6, so features are VGG16's), or "torchvision"
            for torchvision's own ImageNet weights, which must be in its cache.

    Raises:
        UserError: when torchvision or the weights are missing.
    """
    try:
        from torchvision.models import VGG16_Weights, vgg16
    except ImportError as error:
        raise UserError(
            "torchvision is not installed, but the Gram loss needs its VGG16: pip install torchvision, "
            "or set --ttlg_gram_scale 0."
        ) from error
    if str(source) == "torchvision":
        try:
            return _frozen(vgg16(weights=VGG16_Weights.IMAGENET1K_V1).features)
        except OSError as error:
            raise UserError(
                f"torchvision's VGG16 weights could not be downloaded ({error}): connect, or name a weights file "
                "(--vgg_weights data/assets/hed_bsds500.h5 after `dvc repro assets-fetch`)."
            ) from error
    features = vgg16(weights=None).features
    for index, (kernel, bias) in zip(_VGG_CONVS, _hed_file(source)["trunk"], strict=True):
        features[index].weight.data, features[index].bias.data = _oihw(kernel), torch.from_numpy(bias).float()
    _fold_caffe(features[0], _HED_MEAN)
    return _frozen(features)


@lru_cache(maxsize=2)
def _hed_file(path: str | Path) -> dict[str, list]:
    """Kernels and biases of the HED file: `trunk` (13 layers), `heads` (5 side outputs and the fusion)."""
    import h5py

    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; run `dvc repro assets-fetch` to fetch the VGG16 / HED weights.")
    with h5py.File(path) as file:

        def read(name: str) -> tuple[np.ndarray, np.ndarray]:
            return np.asarray(file[f"{name}/vars/0"]), np.asarray(file[f"{name}/vars/1"])

        trunk = [
            read(f"block{block}/layers/conv2d{'' if k == 0 else f'_{k}'}")
            for block, convs in enumerate((2, 2, 3, 3, 3), start=1)
            for k in range(convs)
        ]
        return {"trunk": trunk, "heads": [read(f"dsn{k}") for k in range(1, 6)] + [read("fuse")]}


class HED(nn.Module):
    """Holistically-nested edge detection (Xie and Tu, 2015): five side outputs of VGG16, fused.

    A learned edge detector that the guidance never sees: its edges cannot be won by gaming Sobel.
    """

    def __init__(self, path: str | Path):
        super().__init__()
        self.trunk = vgg16_trunk(path)
        self.heads = nn.ModuleList()
        for kernel, bias in _hed_file(path)["heads"]:
            conv = nn.Conv2d(kernel.shape[2], 1, 1)
            conv.load_state_dict({"weight": _oihw(kernel), "bias": torch.from_numpy(bias).float()})
            self.heads.append(conv)
        _frozen(self)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Edge probability. `[B, 3, H, W]` in [0, 1] -> `[B, 1, H, W]` in [0, 1]."""
        hidden = normalise(images)
        sides: list[torch.Tensor] = []
        for index, layer in enumerate(self.trunk):
            hidden = layer(hidden)
            if index in VGG_LAYERS.values():
                side = self.heads[len(sides)](hidden)
                sides.append(F.interpolate(side, images.shape[-2:], mode="bilinear", align_corners=False))
        return self.heads[5](torch.cat(sides, 1)).sigmoid()


def lpips_vgg(source: str | Path) -> nn.Module:
    """LPIPS on the VGG16 trunk, without the learned heads: an uncalibrated sum over layers.

    The `lpips` package ships only its linear heads, fitted to other weights than ours; so the distances here are
    about 15x larger than published LPIPS values. Orderings and ratios hold, absolute thresholds do not transfer.

    Raises:
        ImportError: when `lpips` is not installed.
    """
    import contextlib
    import io

    import lpips

    with contextlib.redirect_stdout(io.StringIO()):  # it announces itself
        model = lpips.LPIPS(net="vgg", pnet_rand=True, lpips=False, verbose=False)
    trunk = vgg16_trunk(source)
    for number in range(1, 6):
        for name, layer in getattr(model.net, f"slice{number}").named_children():
            if isinstance(layer, nn.Conv2d):
                layer.load_state_dict(trunk[int(name)].state_dict())
    return _frozen(model)
