"""The settings of guidance: one arm's rule (`LossGuidanceConfig`), and where losses are computed (`LossSizes`)."""

from typing import Literal

from pydantic import Field

from qwenlab.core.edges import EdgeKind
from qwenlab.core.errors import UserError
from qwenlab.core.params import Params


class LossGuidanceConfig(Params):
    """One arm of the experiment: which losses guide, when, and how the latents move."""

    enabled: bool = True
    edge_scale: float = Field(0.0, ge=0)
    gram_scale: float = Field(0.0, ge=0)
    temporal_scale: float = Field(0.0, ge=0)
    edge_kind: EdgeKind = "sobel"
    estimate: Literal["x0", "latents", "backprop", "spherical"] = "x0"
    step: Literal["rms", "l2", "adam"] = "rms"
    lr: float = Field(0.05, gt=0)
    every: int = Field(1, ge=1)
    start_step: int | None = Field(None, ge=0)
    end_step: int | None = Field(None, ge=1)
    last_steps: int | None = Field(None, ge=1)
    inner_steps: int = Field(1, ge=1)

    def acts_at(self, step: int, total: int) -> bool:
        """Whether guidance runs after denoising step `step` (0-based) of `total` (seed 001, 4.5)."""
        return (
            self.enabled
            and step % self.every == 0
            and (self.start_step is None or step >= self.start_step)
            and (self.end_step is None or step < self.end_step)
            and (self.last_steps is None or step >= total - self.last_steps)
        )

    def check_it_can_act(self, total: int) -> None:
        """Refuse a configuration that is on but would never change anything.

        Raises:
            UserError: all scales 0, or no step of `total` inside the window.
        """
        if not self.enabled:
            return
        if self.edge_scale == self.gram_scale == self.temporal_scale == 0:
            raise UserError(
                "guidance is on, but edge_scale, gram_scale and temporal_scale are all 0: give one of them a value."
            )
        if not any(self.acts_at(step, total) for step in range(total)):
            raise UserError(
                f"guidance never acts: every={self.every}, start_step={self.start_step}, end_step={self.end_step}, "
                f"last_steps={self.last_steps} select none of the {total} denoising steps (0 to {total - 1})."
            )


class LossSizes(Params):
    """Where the losses are computed; smaller is faster. Long sides in pixels; null means the working size."""

    edge_size: int | None = Field(None, ge=8)
    gram_size: int | None = Field(None, ge=32)
    # The latents are shrunk by this factor before they are decoded for the losses: 2 costs a quarter.
    decode_shrink: int = Field(1, ge=1)
