"""Per-frame metrics of an edited video (seed 001, 2.2 and 6.3). They share the Sobel and the VGG with the guidance;
`hed_edge_loss` does not: it reads edges with a learned detector that the guidance never sees."""

import sys
from pathlib import Path

import torch
from PIL import Image

from qwenlab.core.backbones import HED, lpips_vgg
from qwenlab.core.edges import EdgeKind, edge_loss
from qwenlab.core.media import to_tensor
from qwenlab.videoedit.losses import VGGStyleExtractor, gram_loss

COLUMNS = ("edge_loss", "gram_loss", "lpips_to_prev", "lpips_to_init", "psnr", "hed_edge_loss")


class Scorer:
    """Scores frames of one video.

    Args:
        vgg: VGG16 weights (file or "torchvision"); without torchvision gram and LPIPS are left out with a notice.
        first: the first frame, the reference of style and of `lpips_to_init`.
        hed: HED weights file, or None to leave `hed_edge_loss` out.
    """

    def __init__(self, vgg: str, first: Image.Image, device: str = "cpu", hed: str | Path | None = None):
        self.device = device
        self.first = self._tensor(first)
        self.lpips = self.style = None
        try:
            self.style = VGGStyleExtractor(vgg).to(device)
            self.reference = self.style(self.first)
        except Exception as error:  # any missing piece: metrics must not stop a run
            print(f"notice: gram_loss is left out ({error}).", file=sys.stderr)
        try:
            self.lpips = lpips_vgg(vgg).to(device)
        except Exception as error:
            print(f"notice: lpips_to_prev and lpips_to_init are left out ({error}).", file=sys.stderr)
        self.hed = HED(hed).to(device) if hed else None

    def _tensor(self, image: Image.Image) -> torch.Tensor:
        return to_tensor(image).to(self.device)

    def _distance(self, a: torch.Tensor, b: torch.Tensor) -> float:
        assert self.lpips is not None
        return self.lpips(a * 2 - 1, b * 2 - 1).item()

    @torch.no_grad()
    def score(
        self,
        frame: Image.Image,
        previous: Image.Image,
        edge_target: torch.Tensor,
        kind: EdgeKind = "sobel",
        truth: Image.Image | None = None,
    ) -> dict[str, float]:
        """Metrics of one frame.

        Args:
            edge_target: `[1, 1, H, W]` in [0, 1].
            truth: the real frame, for `psnr` (dB) and `hed_edge_loss`.
        """
        image, scores = self._tensor(frame), {}
        scores["edge_loss"] = edge_loss(image, edge_target.to(self.device), kind).item()
        if self.style is not None:
            scores["gram_loss"] = gram_loss(self.style(image), self.reference).item()
        if self.lpips is not None:
            scores["lpips_to_prev"] = self._distance(image, self._tensor(previous))
            scores["lpips_to_init"] = self._distance(image, self.first)
        if truth is not None:
            real = self._tensor(truth)
            scores["psnr"] = -10 * (image - real).square().mean().clamp_min(1e-10).log10().item()
            if self.hed is not None:
                scores["hed_edge_loss"] = (self.hed(image) - self.hed(real)).abs().mean().item()
        return scores
