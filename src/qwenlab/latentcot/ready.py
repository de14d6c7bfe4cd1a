"""Everything a stage needs of a checkpoint and a data file: model, encoded samples, vision features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenlab.core.errors import UserError
from qwenlab.latentcot.batch import Collator
from qwenlab.latentcot.checkpoint import Runtime, load
from qwenlab.latentcot.encode import Encoded, Encoder, encode_all
from qwenlab.latentcot.features import Features, cached
from qwenlab.latentcot.method import STEPS, Method
from qwenlab.latentcot.samples import Sample, read_samples
from qwenlab.latentcot.tokens import add_tokens, token_ids


@dataclass
class Ready:
    """A checkpoint with data encoded for one form."""

    model: Any
    processor: Any
    special: dict[str, int]
    features: Features
    samples: list[Sample]  # as encoded, in this order
    encoded: list[Encoded]

    @property
    def pad(self) -> int:
        return self.special["<|endoftext|>"]


def prepare(checkpoint: str | Path, runtime: Runtime, data: str | Path, form: str, method: Method,
            emphasize: float = 1.0, new_tokens: bool = False, limit: int | None = None) -> Ready:  # fmt: skip
    """Load and encode; what is rejected is printed, by name and number.

    Args:
        new_tokens: whether this is where the latent tokens enter the model (stage 1-1 and the controls).
    """
    model, processor = load(checkpoint, runtime)
    if new_tokens:
        add_tokens(model, processor.tokenizer)
    special = token_ids(processor.tokenizer)
    samples, rejected = read_samples(data, limit)
    features, samples, more = cached(model, processor, samples, Path(data))
    return encode(model, processor, special, features, samples, form, method, emphasize, [*rejected, *more])


def encode(model, processor, special, features, samples, form: str, method: Method, emphasize: float = 1.0,
           rejected: list[str] | None = None) -> Ready:  # fmt: skip
    """Encode samples whose features are known."""
    encoder = Encoder(model, processor, special, form, method.latents, emphasize)
    encoded, more = encode_all(encoder, samples, features)
    rejected = [*(rejected or []), *more]
    for sentence in rejected[:10]:
        print(sentence, flush=True)
    if rejected:
        print(f"{len(rejected)} samples rejected, {len(encoded)} left.", flush=True)
    if not encoded:
        raise UserError(f"no sample is left to train on; the first was rejected because: {rejected[0]}")
    names = {one.name for one in encoded}
    return Ready(model, processor, special, features, [s for s in samples if s.name in names], encoded)


def collator(ready: Ready, stage: str, method: Method, teacher=None) -> Collator:
    """The batches of a stage."""
    step = STEPS[stage]
    hide = stage == "stage1-2" and method.hide_auxiliary
    return Collator(ready.features, ready.pad, method.latents if step.latent else 0, hide, teacher)
