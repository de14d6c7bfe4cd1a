"""What a stage is made of: its form, its teacher, what is aligned; and the parameters that all stages share."""

from dataclasses import dataclass

from pydantic import Field, model_validator

from qwenlab.core.params import Params
from qwenlab.latentcot.teacher import Kind, Layer


class Method(Params):
    """The method, the same for every stage and for both precomputations."""

    latents: int = Field(ge=1, description="K, latent steps of a block")
    alignment_layer: Layer
    first_layer: int = Field(ge=0, description="lowest layer that an alignment counts; 0 is the input")
    latent_norm: str = Field(pattern="^(none|rms)$", description="rms: latents as large as embeddings when fed back")
    detach: bool = Field(description="a latent step's input is a leaf (Monet); else gradients flow through all steps")
    only_through_latents: bool = Field(description="stage 1-2: the alignment reaches the weights through latents only")
    hide_auxiliary: bool = Field(description="stage 1-2: only latents see the auxiliary image")

    @model_validator(mode="after")
    def _one_way(self) -> "Method":
        # The alignment's share is told apart at the detached inputs; without them there is nothing to tell it by.
        if self.only_through_latents and not self.detach:
            raise ValueError("only_through_latents needs detach: true; expected one of the two to be changed")
        return self


class Loss(Params):
    """Weights of one stage's loss."""

    emphasize: float = Field(gt=0, description="weight of observation tokens in the cross-entropy")
    align: float = Field(ge=0, description="weight of 1 - cosine; 0 for none")


@dataclass(frozen=True)
class Step:
    """What is particular about a training stage or arm."""

    form: str
    teacher: Kind | None = None
    latent: bool = False  # hidden states are fed back


STEPS = {
    "stage1-1": Step("stage1-1"),
    "stage1-2": Step("stage1-2", "rep", True),
    "stage1-3": Step("stage1-3", "latent", True),
    "text": Step("text"),
    "pause": Step("pause"),
}


def direct(stage: str, method: Method) -> bool:
    """Whether the alignment also reaches the weights directly: always in stage 1-3, whose latents are the student."""
    return stage != "stage1-2" or not method.only_through_latents
