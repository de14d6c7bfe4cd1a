"""The text encoder of the scene stand-in: a tiny Qwen2.5-VL that understands prompts and instructions about scenes.

The published pipelines condition on hidden states of a pretrained language model. This one is pretrained here: the
last tokens of the template, which see the whole prompt, must tell what each cell of the picture shall hold (or, for
an instruction, that the cell stays). The image tower keeps its random weights; the language model learns beside it.
"""

import numpy as np
import torch
import torch.nn.functional as F

from qwenlab.core.scene_prompts import KINDS, random_prompt
from qwenlab.core.scenes import EMPTY, WORLD, Repair, Scene, held_out, random_scenes, repair_text
from qwenlab.standins.loop import fit

PICTURE = "Picture 1: <|vision_start|><|image_pad|><|vision_end|>"  # as QwenImageEditPlusPipeline writes it
PATCH, MERGE = 16, 2  # one image token for 32 px


def training_prompts(count: int, rng: np.random.Generator, unseen: bool = False) -> tuple[list[str], np.ndarray]:
    """Prompts of every kind and their scenes `[count, cells]`; `unseen` draws held-out scenes instead.

    Some training prompts say once more what one cell shall hold ("...; change the top left shape to a red circle"):
    that is how a redraw is told what went wrong.
    """
    texts: list[str] = []
    scenes: list[Scene] = []
    while len(texts) < count:
        prompt = random_prompt(KINDS[rng.integers(len(KINDS))], rng)
        if held_out(prompt.target) == unseen:
            text, cell = prompt.text, int(rng.integers(WORLD.cells))
            if not unseen and rng.random() < 0.15:
                text += "; " + repair_text(Repair(cell, prompt.target[cell], EMPTY if rng.random() < 0.3 else None))
            texts.append(text)
            scenes.append(prompt.target)
    return texts, np.array(scenes)


def training_edits(
    count: int, rng: np.random.Generator, unseen: bool = False
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Instructions, drawn scenes, right scenes `[count, cells]` and the cell that differs `[count]`.

    A tenth of the instructions name the wrong verb ("add" where something stands): reflectors err so.
    """
    scenes = random_scenes(count * (8 if unseen else 2), rng)
    scenes = scenes[[held_out(scene) == unseen for scene in scenes]]
    while len(scenes) < count:
        scenes = np.concatenate([scenes, training_edits(count - len(scenes), rng, unseen)[2]])
    target = scenes[:count]
    cell = rng.integers(WORLD.cells, size=count)
    want = target[np.arange(count), cell]
    other = (want + rng.integers(1, WORLD.items, count)) % WORLD.items  # any other item
    other = np.where((rng.random(count) < 0.2) & (want != EMPTY), EMPTY, other)
    drawn = target.copy()
    drawn[np.arange(count), cell] = other
    flip = rng.random(count) < 0.1
    seen = np.where(flip, np.where(other == EMPTY, 1, EMPTY), other)
    texts = [repair_text(Repair(int(c), int(w), int(s))) for c, w, s in zip(cell, want, seen, strict=True)]
    return texts, drawn, target, cell


def pixel_values(images: np.ndarray) -> torch.Tensor:
    """What the image processor makes of pictures `[N, 32, 32, 3]` uint8, without its loop: `[N * 4, 1536]`."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(OPENAI_CLIP_MEAN).view(3, 1, 1)) / torch.tensor(OPENAI_CLIP_STD).view(3, 1, 1)
    n, rows, columns = len(x), x.shape[2] // PATCH, x.shape[3] // PATCH
    patches = x.view(n, 3, rows, PATCH, columns, PATCH).permute(0, 2, 4, 1, 3, 5)  # [N, rows, columns, 3, p, p]
    return patches.unsqueeze(4).expand(-1, -1, -1, -1, 2, -1, -1).reshape(n * rows * columns, -1)


def encode(pipe, texts: list[str], images: np.ndarray | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and mask of whole templates, right-padded: `[N, L, D]`, `[N, L]`.

    Args:
        pipe: the pipeline whose template and text encoder are meant.
        images: `[N, 32, 32, 3]` uint8 for an editing pipeline.
    """
    head = PICTURE if images is not None else ""
    filled = [pipe.prompt_template_encode.format(head + text) for text in texts]
    tokens = pipe.tokenizer(filled, padding=True, padding_side="right", return_tensors="pt")
    extra = {}
    if images is not None:
        grid = torch.tensor([[1, images.shape[1] // PATCH, images.shape[2] // PATCH]]).expand(len(images), -1)
        extra = {"pixel_values": pixel_values(images), "image_grid_thw": grid}
    out = pipe.text_encoder(
        input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True, **extra
    )
    return out.hidden_states[-1], tokens.attention_mask.bool()


@torch.no_grad()
def embed(pipe, texts: list[str], images: np.ndarray | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt embeddings as the pipeline makes them, batched: `[N, L, D]` and mask `[N, L]`."""
    hidden, mask = encode(pipe, texts, images)
    drop = pipe.prompt_template_encode_start_idx
    return hidden[:, drop:] * mask[:, drop:, None], mask[:, drop:]


class CellHeads(torch.nn.Module):
    """Reads the last tokens of the template, one a cell: which item, or (the last class) that the cell stays."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, WORLD.items + 1) for _ in range(WORLD.cells))

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`[N, L, D]`, `[N, L]` -> logits `[N, cells, items + 1]`."""
        rows, last = torch.arange(len(hidden)), mask.sum(1) - 1
        parts = [head(hidden[rows, last - WORLD.cells + 1 + c]) for c, head in enumerate(self.heads)]
        return torch.stack(parts, 1)


def labels_of_edits(target: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """ "Stays" (the last class) everywhere but in the cell to change."""
    labels = np.full(target.shape, WORLD.items)
    labels[np.arange(len(cell)), cell] = target[np.arange(len(cell)), cell]
    return labels


def pretrain(draw_pipe, edit_pipe, pictures, steps: int, batch: int, lr: float, rng: np.random.Generator) -> dict:
    """Train the language model that both pipelines share; returns held-out accuracies.

    Args:
        pictures: scenes `[N, cells]` -> pictures `[N, 32, 32, 3]` uint8, for the image token of an instruction.
    """
    encoder = draw_pipe.text_encoder
    encoder.requires_grad_(True)
    encoder.model.visual.requires_grad_(False)
    heads = CellHeads(encoder.config.text_config.hidden_size)

    def logits(unseen: bool, edits: bool, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        if edits:
            texts, drawn, target, cell = training_edits(count, rng, unseen)
            labels = labels_of_edits(target, cell)
            hidden = encode(edit_pipe, texts, pictures(drawn))
        else:
            texts, labels = training_prompts(count, rng, unseen)
            hidden = encode(draw_pipe, texts)
        return heads(*hidden), torch.from_numpy(labels)

    def step_loss(step: int) -> torch.Tensor:
        out, labels = logits(False, step % 4 == 3, batch)
        return F.cross_entropy(out.flatten(0, 1), labels.flatten())

    encoder.train()
    fit([*encoder.parameters(), *heads.parameters()], step_loss, steps, lr, "text encoder", warmup=50)
    encoder.eval().requires_grad_(False)
    quality = {}
    with torch.no_grad():
        for name, edits in (("prompt", False), ("instruction", True)):
            out, labels = logits(True, edits, 500)
            quality[f"{name}_understood"] = (out.argmax(-1) == labels).all(1).float().mean().item()
    return quality
