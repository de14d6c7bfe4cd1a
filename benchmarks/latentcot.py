"""What the one-pass latent forward saves, side by side in one process. Run: make bench

On the stand-in (tiny profile), with teacher states and samples of the pipeline's own kind:

- forward and backward of a stage 1-2 batch in one pass, against two passes for one sample after the other, as published
  code does it; first in float64, where both must have the same gradients
- decoding with latents in a batch, against one by one
- a training step with the vision tower's features from the cache, and with the tower run again

Times are medians of interleaved runs, shown as ratios. Writes benchmarks/latentcot.md; `--smoke` runs the same code
once, on a few samples, and writes nothing.
"""

import copy
import tempfile
from pathlib import Path

import click
import torch
from _latentcot_plain import in_double, two_pass
from _timing import interleaved

from qwenlab.core.params import load
from qwenlab.latentcot import latents as L
from qwenlab.latentcot.checkpoint import Runtime
from qwenlab.latentcot.decode import generate
from qwenlab.latentcot.features import Features, encode_images, picture_key
from qwenlab.latentcot.method import Method, direct
from qwenlab.latentcot.precompute import states
from qwenlab.latentcot.prompts import prompts
from qwenlab.latentcot.ready import Ready, collator, encode, prepare
from qwenlab.latentcot.samples import open_image
from qwenlab.latentcot.scene_data import Data, make

HERE = Path(__file__).parent


def one_pass(ready: Ready, batch: dict, method: Method, weight: float) -> None:
    """Forward and backward of a stage 1-2 batch."""
    done = L.run(ready.model, batch, method.latents, method.latent_norm, layers=True)
    ce = L.cross_entropy(ready.model, done.hidden, batch["ids"], batch["weight"])
    align = L.alignment(done.layers, batch["observed"], batch["teacher"], method.first_layer)
    L.surrogate(ce, align, weight, done, direct("stage1-2", method)).backward()


def plain_way(ready: Ready, teacher: dict, method: Method, weight: float) -> None:
    """The same by two passes for one sample after the other."""
    two_pass(
        ready.model, ready, "stage1-2", method, teacher, weight, direct("stage1-2", method), method.latent_norm
    )  # fmt: skip


def gradient_gap(ready: Ready, teacher: dict, method: Method, weight: float) -> float:
    """Largest difference of a gradient between the two ways in float64, relative to the largest gradient."""
    double = copy.copy(ready)
    double.model = in_double(copy.deepcopy(ready.model))
    found = []
    for way in (one_pass, None):
        double.model.zero_grad()
        if way:
            way(double, collator(double, "stage1-2", method, teacher)(double.encoded), method, weight)
        else:
            plain_way(double, teacher, method, weight)
        found.append({n: p.grad.clone() for n, p in double.model.named_parameters() if p.grad is not None})
    largest = max(float(value.abs().max()) for value in found[0].values())
    return max(float((value - found[1][name]).abs().max()) for name, value in found[0].items()) / largest


def samples_file(folder: Path, count: int) -> Path:
    """Scene samples as the pipeline makes them."""
    import json

    params = Data(seed=7, train=count, test=1, right=0.3, chained=0.5, named=0.4, auxiliary="repair")
    path = folder / "samples.jsonl"
    rows = make(params, count, params.chained, params.seed, False)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def measure(count: int, repeats: int) -> tuple[list[str], float]:
    """The lines of the table, and the gap between the gradients."""
    runtime, method, weight = load("latentcot.runtime", Runtime), load("latentcot.method", Method), 4.0
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        data = samples_file(Path(folder), count)
        first = prepare(runtime.model, runtime, data, "stage1-1", method, 2.0, new_tokens=True)
        pictures = {
            ref: open_image(ref, Path(folder), 16) for s in first.samples for ref in (*s.pictures, *s.auxiliary)
        }

    def form(name: str, emphasize: float = 4.0) -> Ready:
        return encode(
            first.model, first.processor, first.special, first.features, first.samples, name, method, emphasize
        )

    teacher, second, third = states(first, "rep", method), form("stage1-2"), form("stage1-3")
    batch = collator(second, "stage1-2", method, teacher)(second.encoded)
    gap = gradient_gap(second, teacher, method, weight)

    def vision() -> None:
        made = encode_images(first.model, first.processor, list(pictures.values()))
        fresh = Features(*made, {picture_key(ref): i for i, ref in enumerate(pictures)})
        again = copy.copy(second)
        again.features = fresh
        one_pass(again, collator(again, "stage1-2", method, teacher)(again.encoded), method, weight)

    def collated() -> None:
        one_pass(second, collator(second, "stage1-2", method, teacher)(second.encoded), method, weight)

    def decode(size: int) -> None:
        for start in range(0, count, size):
            part = prompts(third.encoded[start : start + size], third.features, third.pad)
            # 16 tokens for everyone: an untrained format would end at other places
            generate(third.model, third.processor.tokenizer, stubborn, part, method.latents, longest=16)

    # The base does not know the tokens yet, so its first token is made to begin a block, and no token ends a turn.
    stubborn = {**third.special, "<|im_end|>": -1}
    lines = []
    third.model.eval()
    for what, fast, slow, aim in (
        (
            f"forward and backward of a stage 1-2 batch of {count}, one pass, against two passes a sample",
            lambda: one_pass(second, batch, method, weight),
            lambda: plain_way(second, teacher, method, weight),
            8.0,
        ),
        (f"decoding {count} samples in a batch, against one by one", lambda: decode(count), lambda: decode(1), 8.0),
        (f"a training step of {count} with cached vision features, against running the tower", collated, vision, 0.0),
    ):
        seconds = interleaved({"fast": fast, "slow": slow}, repeats)
        ratio = seconds["slow"] / seconds["fast"]
        met = "-" if not aim else "met" if ratio >= aim else "**missed**"
        named = f">= {aim:g}x" if aim else "-"
        milliseconds = f"{seconds['fast'] * 1e3:.3g} ms / {seconds['slow'] * 1e3:.3g} ms"
        lines.append(f"| {what} | **{ratio:.2f}x** | {named} | {met} | {milliseconds} |")
    return lines, gap


@click.command()
@click.option("--smoke", is_flag=True, help="Run once on a few samples and write nothing.")
def main(smoke: bool) -> None:
    torch.set_num_threads(1)
    lines, gap = measure(4 if smoke else 32, 1 if smoke else 9)
    met = "met" if gap <= 1e-12 else "**missed**"
    text = "\n".join(
        [
            "# latentcot: one pass against two",
            "",
            f"`make bench` on one CPU thread, torch {torch.__version__}, the vision-language stand-in. Ratios are"
            " medians of interleaved runs; milliseconds are side information (first the one that is divided by).",
            "",
            "| measurement | ratio | aim | met | time |",
            "| --- | --- | --- | --- | --- |",
            *lines,
            "",
            f"Gradients of the two ways in float64: {gap:.1e} of the largest gradient apart; aim <= 1e-12: {met}.",
            "",
        ]
    )
    print(text)
    if not smoke:
        (HERE / "latentcot.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
