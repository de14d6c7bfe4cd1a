"""Score reflectors on held-out scenes: does the observation name a right repair?

- fix: the observation names a repair that is right (of a drawing with two defects, either), or says "all right" of a
  drawing that is
- exact: it is the reference observation, word for word
- detect: it says that something is wrong exactly where something is; repair: share fixed among the wrong drawings
- by goal: direct, chained, and all; `depth3`: chained goals whose answer hangs on a chain of three links

For the latent arm every sample is decoded three times: with its own latents, with zeros in their place, and with the
latents of another sample (`shuffled`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field

from qwenlab.core.io import write_csv, write_json
from qwenlab.core.params import Params
from qwenlab.core.scenes import repairs
from qwenlab.core.seeding import seed_everything
from qwenlab.core.summary import medians, rounded
from qwenlab.latentcot.checkpoint import Runtime
from qwenlab.latentcot.decode import Mode, generate, observations
from qwenlab.latentcot.method import Method
from qwenlab.latentcot.observations import parse_observation
from qwenlab.latentcot.prompts import prompts
from qwenlab.latentcot.ready import Ready, prepare
from qwenlab.latentcot.samples import Sample
from qwenlab.latentcot.tokens import OBSERVATION_END, OBSERVATION_START

COLUMNS = ["seed", "id", "goal", "depth", "wrong", "fix", "exact", "detect", "parsed", "fix_zero", "fix_shuffled"]


class Score(Params):
    """How samples are decoded."""

    batch: int = Field(ge=1)
    longest: int = Field(ge=1, description="most tokens of an answer")
    aligned: int = Field(ge=2, description="samples that alignments are measured on")


def judge(text: str | None, sample: Sample) -> dict[str, int]:
    """0 or 1 for fix, exact, detect and parsed of one observation."""
    seen = None if text is None else parse_observation(text)
    wanted = {(one.cell, one.item) for one in repairs(tuple(sample.extra["target"]), sample.extra["drawn"])}
    reference = sample.assistant.partition(OBSERVATION_START)[2].partition(OBSERVATION_END)[0]
    if seen is None:
        return {"fix": 0, "exact": 0, "detect": 0, "parsed": 0}
    named = None if seen.repair is None else (seen.repair.cell, seen.repair.item)
    fix = named in wanted if wanted else named is None
    return {"fix": int(fix), "exact": int(text == reference), "detect": int((named is not None) == bool(wanted)),
            "parsed": 1}  # fmt: skip


def decode(ready: Ready, method: Method, params: Score, form: str, mode: Mode = "on",
           others: torch.Tensor | None = None) -> tuple[list[str | None], torch.Tensor]:  # fmt: skip
    """Observations of all samples, and the latents that were fed back `[N, blocks, K, H]`.

    Args:
        others: `[N, blocks, K, H]` to be fed in place of a sample's own latents.
    """
    texts: list[str | None] = []
    fed = []
    ready.model.eval()
    for start in range(0, len(ready.encoded), params.batch):
        part = ready.encoded[start : start + params.batch]
        inject = None if others is None else others[start : start + params.batch]
        prompt = prompts(part, ready.features, ready.pad, ready.model.device)
        done = generate(
            ready.model, ready.processor.tokenizer, ready.special, prompt, method.latents, method.latent_norm,
            mode, inject, params.longest,
        )  # fmt: skip
        if form == "plain":
            texts += [text.replace("<|im_end|>", "").strip() for text in done.texts]
        else:
            texts += [observations(text) for text in done.texts]
        fed.append(done.latents)
    most = max(part.shape[1] for part in fed)
    return texts, torch.cat([torch.nn.functional.pad(part, (0, 0, 0, 0, 0, most - part.shape[1])) for part in fed])


def rows_of(ready: Ready, method: Method, params: Score, arm: str, seed: int) -> list[dict]:
    """One row a sample, with the columns of `COLUMNS`."""
    form = {"base": "plain", "latent": "stage1-3"}.get(arm, arm)
    texts, fed = decode(ready, method, params, form, "pause" if arm == "pause" else "on")
    found = [
        {"seed": seed, "id": s.id, "goal": s.extra["goal"], "depth": s.extra["depth"],
         "wrong": int(s.extra["target"] != s.extra["drawn"]), **judge(text, s), "fix_zero": "", "fix_shuffled": ""}
        for s, text in zip(ready.samples, texts, strict=True)
    ]  # fmt: skip
    if arm == "latent":
        # Of another sample with the same kind of goal: the file has all of one kind, then all of the other.
        half = len(fed) // 2
        order = torch.cat([torch.arange(half).roll(1), half + torch.arange(len(fed) - half).roll(1)])
        zero, _ = decode(ready, method, params, form, "zero")
        other, _ = decode(ready, method, params, form, "on", fed[order])
        for row, sample, a, b in zip(found, ready.samples, zero, other, strict=True):
            row["fix_zero"], row["fix_shuffled"] = judge(a, sample)["fix"], judge(b, sample)["fix"]
    return found


def share(rows: list[dict], column: str, keep: Callable[[dict], bool] = lambda row: True) -> float | None:
    """Mean of a column over the rows that count; None without any."""
    values = [row[column] for row in rows if keep(row)]
    return sum(values) / len(values) if values else None


def summary(rows: list[dict]) -> dict:
    """The numbers of one seed."""
    keep: dict[str, Callable[[dict], bool]] = {
        "all": lambda row: True,
        "direct": lambda row: row["goal"] == "direct",
        "chained": lambda row: row["goal"] == "chained",
    }
    found: dict = {
        column: {name: share(rows, column, test) for name, test in keep.items()}
        for column in ("fix", "exact", "detect", "parsed")
    }
    found["fix"]["depth3"] = share(rows, "fix", lambda row: row["depth"] >= 3)
    found["repair"] = {name: share([r for r in rows if r["wrong"]], "fix", test) for name, test in keep.items()}
    if rows[0]["fix_zero"] != "":
        for column in ("fix_zero", "fix_shuffled"):
            found[column] = {name: share(rows, column, test) for name, test in keep.items()}
    return found


@dataclass(frozen=True)
class Job:
    arm: str
    checkpoint: str
    seed: int
    runtime: Runtime
    method: Method
    params: Score
    data: str


def run_job(job: Job) -> list[dict]:
    """The rows of one seed."""
    torch.set_num_threads(1)
    seed_everything(job.seed)
    form = {"base": "plain", "latent": "stage1-3"}.get(job.arm, job.arm)
    ready = prepare(job.checkpoint, job.runtime, job.data, form, job.method, new_tokens=job.arm == "base")
    return rows_of(ready, job.method, job.params, job.arm, job.seed)


def write_arm(arm: str, by_seed: dict[int, list[dict]], metrics: str | Path) -> None:
    """Write `<arm>.csv` (a row a sample and seed) and `<arm>.json` (medians over seeds, and every seed)."""
    numbers = {str(seed): rounded(summary(rows)) for seed, rows in by_seed.items()}
    print(f"{arm}: {medians(numbers)}", flush=True)
    write_csv(Path(metrics) / f"{arm}.csv", [row for rows in by_seed.values() for row in rows], COLUMNS)
    write_json(Path(metrics) / f"{arm}.json", {**medians(numbers), "seeds": numbers})
