"""A sample as the tokens of a training stage, with everything a mask or a loss needs to know about each token."""

from dataclasses import dataclass

import torch

from qwenlab.latentcot.features import Features, picture_key
from qwenlab.latentcot.samples import Rejected, Sample
from qwenlab.latentcot.tokens import ASSISTANT, FORMS, LATENT_END, LATENT_PAD, OBSERVATION_END, OBSERVATION_START
from qwenlab.latentcot.tokens import rewrite as rewrite_text


@dataclass(frozen=True)
class Encoded:
    """One sample, `S` tokens.

    ids `[S]`; positions `[3, S]`; latent, auxiliary, observed `[S]` bool: latent pads, tokens of auxiliary images, and
    observation tokens (the open tag is one, the close tag is not); weight `[S]`: how much the cross-entropy of
    predicting this token counts; pictures: keys of the images, in the order of their tokens.
    """

    name: str
    ids: torch.Tensor
    positions: torch.Tensor
    latent: torch.Tensor
    auxiliary: torch.Tensor
    observed: torch.Tensor
    weight: torch.Tensor
    pictures: tuple[str, ...]
    prompt: int  # tokens before the answer
    asked: int  # pictures before the answer


class Encoder:
    """Encodes samples for one form (`tokens.FORMS`).

    Args:
        ids: `tokens.token_ids`.
        latents: K, pads of a block.
        emphasize: weight of observation tokens in the cross-entropy (seed: ce_emphasize_factor).
    """

    def __init__(self, model, processor, ids: dict[str, int], form: str, latents: int, emphasize: float):
        if form not in FORMS:
            raise ValueError(f"there is no form {form!r}; expected one of {FORMS}.")
        self.model, self.tokenizer, self.special = model, processor.tokenizer, ids
        self.template = processor.chat_template or processor.tokenizer.chat_template
        self.form, self.latents, self.emphasize = form, latents, emphasize
        self.known: dict[bytes, torch.Tensor] = {}

    def text(self, sample: Sample) -> tuple[str, str]:
        """What the chat template makes of it: up to the assistant's header, and the answer."""
        user = [{"type": kind, kind: value if kind == "text" else ""} for kind, value in sample.user]
        messages: list[dict] = [{"role": "system", "content": sample.system}] if sample.system else []
        messages.append({"role": "user", "content": user})
        head = self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=False, add_generation_prompt=True
        )
        if not head.endswith(ASSISTANT):
            raise Rejected(f"the chat template ends with {head[-30:]!r}; expected {ASSISTANT!r}")
        return head, rewrite_text(sample.assistant, self.form, self.latents) + "<|im_end|>"

    def __call__(self, sample: Sample, features: Features) -> Encoded:
        """One sample.

        Raises:
            Rejected: when nothing in it can be learned, or special tokens in its text confuse the images.
        """
        head, answer = self.text(sample)
        shown = list(sample.auxiliary) if self.form in ("stage1-1", "stage1-2") else []
        keys = tuple(picture_key(reference) for reference in (*sample.pictures, *shown))
        image, parts = "<|image_pad|>", (head + "\0" + answer).split("<|image_pad|>")
        if len(parts) != len(keys) + 1:
            raise Rejected(f"its text has places for {len(parts) - 1} images; expected {len(keys)}")
        pads = [image * features.tokens(key) for key in keys]
        whole = "".join(part + pad for part, pad in zip(parts, [*pads, ""], strict=True))
        head, answer = whole.split("\0")
        prompt = self.tokenizer(head, add_special_tokens=False)["input_ids"]
        ids = torch.tensor(prompt + self.tokenizer(answer, add_special_tokens=False)["input_ids"])
        return self._facts(sample, ids, len(prompt), keys, features)

    def _facts(
        self, sample: Sample, ids: torch.Tensor, prompt: int, keys: tuple[str, ...], features: Features
    ) -> Encoded:
        special = self.special
        vision = torch.isin(
            ids, torch.tensor([special[f"<|{n}|>"] for n in ("vision_start", "image_pad", "vision_end")])
        )
        answer = torch.arange(len(ids)) >= prompt
        opened = (ids == special[OBSERVATION_START]).long().cumsum(0)
        closed = (ids == special[OBSERVATION_END]).long().cumsum(0)
        observed = (opened > closed) & answer
        latent = (ids == special[LATENT_PAD]) & answer
        # What the model is not to learn to write: images, pads and, as it is forced, the end of a latent block.
        silent = vision | latent | (ids == special["<|endoftext|>"])
        if self.form != "stage1-1":
            silent |= ids == special[LATENT_END]
        weight = (answer & ~silent).float() * torch.where(observed, self.emphasize, 1.0)
        if not weight.any():
            raise Rejected("every label is ignored, so there is nothing to learn")
        kinds = (ids == special["<|image_pad|>"]).long()
        return Encoded(
            sample.name, ids, self._positions(kinds, keys, features), latent, vision & answer, observed, weight, keys,
            prompt, len(sample.pictures),
        )  # fmt: skip

    def _positions(self, kinds: torch.Tensor, keys: tuple[str, ...], features: Features) -> torch.Tensor:
        """`[3, S]` of Qwen2.5-VL's rotary positions. Without `mm_token_type_ids` a forward of transformers 5 silently
        counts in one dimension, so they are always passed."""
        grids = [features.grids[features.index[key]] for key in keys]
        pattern = kinds.numpy().tobytes() + b"".join(grid.numpy().tobytes() for grid in grids)
        if pattern not in self.known:
            grid = torch.stack(grids) if grids else None
            found, _ = self.model.model.get_rope_index(torch.zeros_like(kinds)[None], kinds[None], image_grid_thw=grid)
            self.known[pattern] = found[:, 0]
        return self.known[pattern]


def encode_all(encoder: Encoder, samples: list[Sample], features: Features) -> tuple[list[Encoded], list[str]]:
    """All samples, and a sentence for each that was rejected."""
    found, rejected = [], []
    for sample in samples:
        try:
            found.append(encoder(sample, features))
        except Rejected as error:
            rejected.append(f"sample {sample.name}: {error}.")
    return found, rejected
