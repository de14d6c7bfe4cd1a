"""A trained reflector: pictures and goals in, observations out; batched, with latents.

reflector = load_reflector("data/latentcot/stage1_3/seed0", runtime, method)     # or `from_parameters(folder)`
reflector.reflect([image], ["red circle, no shape, blue square, green triangle"])
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenlab.core.errors import UserError
from qwenlab.latentcot.checkpoint import Runtime, load
from qwenlab.latentcot.decode import generate, observations
from qwenlab.latentcot.encode import Encoder
from qwenlab.latentcot.features import Features, encode_images, picture_key
from qwenlab.latentcot.method import Method
from qwenlab.latentcot.prompts import prompts
from qwenlab.latentcot.samples import LARGEST_ASPECT, Sample
from qwenlab.latentcot.scene_data import question
from qwenlab.latentcot.tokens import OBSERVATION_END, OBSERVATION_START, PLACEHOLDER, token_ids
from qwenlab.standins.vl_data import SYSTEM


@dataclass
class Reflector:
    """A model of stage 1-3 (with latents), or of the text control (`latents=False`)."""

    model: Any
    processor: Any
    special: dict[str, int]
    method: Method
    latents: bool = True
    longest: int = 48

    def reflect(self, images: list, goals: list[str], batch: int = 128) -> list[str]:
        """What stands between the observation tags for each picture and goal; "" when the model closed no observation
        (the draft is then to be kept).

        Args:
            images: PIL images or `[H, W, 3]` uint8 arrays.

        Raises:
            UserError: on a picture smaller than one vision token, or too narrow.
        """
        if len(images) != len(goals):
            raise ValueError(f"{len(images)} pictures, but {len(goals)} goals.")
        merge = self.processor.image_processor.patch_size * self.processor.image_processor.merge_size
        for image in images:
            height, width = (image.size[1], image.size[0]) if hasattr(image, "getbands") else image.shape[:2]
            if min(height, width) < merge or max(height, width) > LARGEST_ASPECT * min(height, width):
                raise UserError(
                    f"a draft has {width}x{height} pixels; expected sides of {merge} or more, an aspect of 200 or less."
                )
        found: list[str] = []
        for start in range(0, len(images), batch):
            found += self._batch(images[start : start + batch], goals[start : start + batch])
        return found

    def _batch(self, images: list, goals: list[str]) -> list[str]:
        form = "stage1-3" if self.latents else "text"
        names = [str(number) for number in range(len(images))]
        index = {picture_key(name): number for number, name in enumerate(names)}
        features = Features(*encode_images(self.model, self.processor, images), index)
        encoder = Encoder(self.model, self.processor, self.special, form, self.method.latents, 1.0)
        answer = f"{PLACEHOLDER}{OBSERVATION_START}?{OBSERVATION_END}"
        samples = [
            Sample("draft", name, SYSTEM, (("image", name), ("text", question(goal))), answer, ())
            for name, goal in zip(names, goals, strict=True)
        ]
        encoded = [encoder(sample, features) for sample in samples]
        prompt = prompts(encoded, features, self.special["<|endoftext|>"], self.model.device)
        done = generate(
            self.model, self.processor.tokenizer, self.special, prompt, self.method.latents,
            self.method.latent_norm, "on", None, self.longest,
        )  # fmt: skip
        return [observations(text) or "" for text in done.texts]


def load_reflector(folder: str | Path, runtime: Runtime, method: Method, latents: bool = True) -> Reflector:
    """A reflector from a checkpoint folder.

    Raises:
        UserError: when it cannot be loaded, or its tokenizer lacks the latent tokens.
    """
    model, processor = load(folder, runtime)
    model.eval()
    return Reflector(model, processor, token_ids(processor.tokenizer), method, latents)


def from_parameters(folder: str | Path, device: str | None = None, latents: bool = True) -> Reflector:
    """A reflector with the runtime and method of the parameters; `device` takes the place of the profile's."""
    from qwenlab.core.params import load as read

    runtime, method = read("latentcot.runtime", Runtime), read("latentcot.method", Method)
    if device:
        runtime = runtime.model_copy(update={"device": device})
    return load_reflector(folder, runtime, method, latents)
