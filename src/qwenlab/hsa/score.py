"""Score one arm on held-out worlds, by what it says with all that came before as it was (teacher forcing).

After phase 2:
- recall.1x, .2x, .4x: answers that are right, word for word, with one, two and four times the noise
- length_ratio.2x, .4x: recall there / recall at 1x
- loss.1x ...: mean cross-entropy of all that the assistant writes

After phase 3, which learns nothing but the reflective part:
- recovery: wrong answers of the explorer that are put right after `<|feedback|>`
- reflected.recall: recall at 1x once more; what phase 3 made it forget
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch.nn import functional

from qwenlab.core.errors import UserError
from qwenlab.core.io import write_csv, write_json
from qwenlab.core.params import Params
from qwenlab.core.seeding import seed_everything
from qwenlab.core.summary import medians, rounded
from qwenlab.hsa.collator import HSACollator
from qwenlab.hsa.encoding import Example
from qwenlab.hsa.feedback import feedback_token_id
from qwenlab.hsa.model import Arm, Runtime, load_model
from qwenlab.hsa.semantics import IGNORE_INDEX
from qwenlab.hsa.train import examples_of

COLUMNS = ("seed", "item", "set", "right", "loss")


class Score(Params):
    """What counts as an answer."""

    batch: int = Field(ge=1, description="trajectories at once")
    cutoff: int = Field(ge=8, description="tokens of a trajectory, at most")
    answers: str | None = Field(description="the word that opens an answer that counts; null: every assistant turn")


def spans(labels: torch.Tensor) -> list[tuple[int, int]]:
    """Runs of labels of one row `[L]` as (first, last + 1): a run is what the assistant writes in one turn."""
    live = torch.cat([torch.zeros(1), (labels != IGNORE_INDEX).float(), torch.zeros(1)]).diff()
    starts, ends = ((live == sign).nonzero().flatten().tolist() for sign in (1, -1))
    return list(zip(starts, ends, strict=True))


@torch.no_grad()
def judged(
    model: Any, tokenizer: Any, examples: list[Example], batch: int
) -> Iterator[tuple[int, int, int, bool, float]]:
    """(example, first token, its id, all right, summed loss) of every assistant turn."""
    collator = HSACollator(tokenizer)
    tokenizer.padding_side = "right"
    for first in range(0, len(examples), batch):
        rows = collator(examples[first : first + batch])
        rows = {name: value.to(model.device) for name, value in rows.items()}
        labels = rows.pop("labels")
        logits = model(**rows, use_cache=False).logits[:, :-1].float()
        losses = functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
        right = logits.argmax(-1) == labels[:, 1:]
        for row in range(len(labels)):
            for start, end in spans(labels[row].cpu()):
                part = slice(max(start, 1) - 1, end - 1)
                yield (
                    first + row, start, int(labels[row, start]), bool(right[row, part].all()),
                    losses[row, part].sum().item(),
                )  # fmt: skip


def opening(tokenizer: Any, word: str | None) -> int | None:
    """The first token of an answer that counts."""
    return None if word is None else tokenizer.encode(word, add_special_tokens=False)[0]


def score_file(params: Score, arm: Arm, loaded: tuple[Any, Any], name: str, file: Path, seed: int):
    """Share of right answers, mean loss of all that the assistant writes, and a row for every answer that counts."""
    model, tokenizer = loaded
    examples = examples_of(file, tokenizer, params.cutoff, arm.shuffle, False, seed)
    wanted, feedback = opening(tokenizer, params.answers), feedback_token_id(tokenizer)
    rows: list[dict[str, Any]] = []
    summed = 0.0
    for item, start, token, right, loss in judged(model, tokenizer, examples, params.batch):
        summed += loss
        told = feedback in examples[item]["input_ids"][:start]
        if (wanted is None or token == wanted) and (name != "reflective" or told):
            rows.append({
                "seed": seed, "item": f"{name}-{item}-{start}", "set": name, "right": int(right),
                "loss": float(f"{loss:.6g}"),
            })  # fmt: skip
    if not rows:
        raise UserError(f"{file}: no answer opens with {params.answers!r} (hsa.score.answers).")
    tokens = sum(label != IGNORE_INDEX for one in examples for label in one["labels"])
    return sum(row["right"] for row in rows) / len(rows), summed / tokens, rows


def score_seed(params: Score, arm: Arm, runtime: Runtime, models: Path, reflected: Path, files: dict[str, Path],
               errors: Path, seed: int):  # fmt: skip
    """Numbers of one seed, and a row for every answer."""
    results: dict[str, Any] = {"recall": {}, "loss": {}, "reflected": {}}
    loaded = load_model(runtime, models)
    rows: list[dict[str, Any]] = []
    for name, file in files.items():
        results["recall"][name], results["loss"][name], here = score_file(params, arm, loaded, name, file, seed)
        rows += here
    base = results["recall"]["1x"]
    results["length_ratio"] = {
        name: value / base if base else 0.0 for name, value in results["recall"].items() if name != "1x"
    }
    loaded = load_model(runtime, reflected)
    results["recovery"], _, here = score_file(params, arm, loaded, "reflective", errors, seed)
    results["reflected"]["recall"], _, _ = score_file(params, arm, loaded, "1x", files["1x"], seed)
    return results, rows + here


def score_arm(name: str, params: Score, runtime: Runtime, arm: Arm, worlds: str | Path, explored: str | Path,
              models: str | Path, reflected: str | Path, metrics: str | Path, split: str = "test") -> None:  # fmt: skip
    """Write `<arm>.csv` (a row an answer and seed) and `<arm>.json` (medians over seeds, and every seed).

    Args:
        models: what hsa-train wrote, after phase 2; reflected: what hsa-reflect wrote, after phase 3.

    Raises:
        UserError: on missing models, and files without an answer that counts.
    """
    seed_everything(0)
    files = {path.stem.split("_")[1]: path for path in sorted(Path(worlds).glob(f"{split}_*.jsonl"))}
    errors = Path(explored) / "test_reflective.jsonl"
    rows: list[dict] = []
    by_seed: dict[str, dict] = {}
    for folder in sorted(Path(models).glob("seed*"), key=lambda path: int(path.name[4:])):
        seed = int(folder.name[4:])
        after = Path(reflected) / folder.name
        results, here = score_seed(params, arm, runtime, folder, after, files, errors, seed)
        rows, by_seed[str(seed)] = rows + here, rounded(results)
        print(f"{name} seed {seed}: {by_seed[str(seed)]}", flush=True)
    if not by_seed:
        raise UserError(f"{models}: no model of any seed in it; run hsa-train again.")
    write_csv(Path(metrics) / f"{name}.csv", rows, COLUMNS)
    write_json(Path(metrics) / f"{name}.json", {**medians(by_seed), "seeds": by_seed})
