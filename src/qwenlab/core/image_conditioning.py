"""Prompt encoding as the Qwen-Image pipelines do it, correct for any tokenizer and working size.

Two constants of diffusers hold for the published checkpoints only: the number of template tokens that are dropped
from the prompt embedding (64, hard-coded), and the areas that input images are resized to (module globals).
"""

from collections.abc import Iterator
from contextlib import contextmanager


def template_length(pipe) -> int:
    """Tokens of the pipeline's prompt template before the user's text (64 with the published tokenizer)."""
    head = pipe.prompt_template_encode.split("{}")[0]
    return len(pipe.tokenizer(head)["input_ids"])


@contextmanager
def working_areas(vae_area: int, condition_area: int) -> Iterator[None]:
    """Let the edit pipeline resize its input images to these areas (pixels) while the block runs.

    diffusers keeps them as module globals (1024^2 for the autoencoder, 384^2 for the text encoder).
    """
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

    saved = module.VAE_IMAGE_SIZE, module.CONDITION_IMAGE_SIZE
    module.VAE_IMAGE_SIZE, module.CONDITION_IMAGE_SIZE = vae_area, condition_area
    try:
        yield
    finally:
        module.VAE_IMAGE_SIZE, module.CONDITION_IMAGE_SIZE = saved


def working_size(width: int, height: int, area: int) -> tuple[int, int]:
    """`(width, height)` near `area` pixels with the image's aspect, in multiples of 32 and at least 32.

    The pipeline's own rounding (`calculate_dimensions`), kept from rounding a side down to zero.
    """
    ratio = width / height
    return max(32, round((area * ratio) ** 0.5 / 32) * 32), max(32, round((area / ratio) ** 0.5 / 32) * 32)
