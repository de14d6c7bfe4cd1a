"""Summaries by the student or by its base, for held-out thinkings, in batches, under the grammar."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from qwenlab.core.params import Params
from qwenlab.core.progress import progress
from qwenlab.core.seeding import seed_everything
from qwenlab.thinkseg.records import Thinking, read_models, write_rows
from qwenlab.thinkseg.student import StudentRuntime, load_base, prompt_of
from qwenlab.thinkseg.summary import parse_summary


class Decode(Params):
    """How summaries are written."""

    batch: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    constrained: bool = Field(description="under the grammar; without it an answer may not parse")


class Summariser:
    """A base model, with an adapter or without; loaded once for any number of thinkings."""

    def __init__(self, runtime: StudentRuntime, decode: Decode, adapter: str | Path | None = None):
        self.decode = decode
        self.model, self.tokenizer = load_base(runtime)
        if adapter is not None:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, adapter)
        self.model.eval()
        self.grammar = None
        if decode.constrained:
            from qwenlab.thinkseg.grammar import grammar_tokenizer

            self.grammar = grammar_tokenizer(self.tokenizer, self.model.get_output_embeddings().weight.shape[0])

    @torch.no_grad()
    def write(self, materials: Sequence[str]) -> list[str]:
        """One answer a thinking, greedy."""
        from transformers import LogitsProcessorList

        prompts = [prompt_of(self.tokenizer, material) for material in materials]
        length = max(map(len, prompts))
        ids = torch.full((len(prompts), length), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):  # padded on the left: generation goes on at the right
            ids[row, length - len(prompt) :], mask[row, length - len(prompt) :] = torch.tensor(prompt), 1
        processors = LogitsProcessorList()
        if self.grammar is not None:
            from qwenlab.thinkseg.grammar import SummaryGrammar

            processors.append(SummaryGrammar(self.grammar, len(prompts), length, self.tokenizer.eos_token_id))
        out = self.model.generate(
            input_ids=ids.to(self.model.device), attention_mask=mask.to(self.model.device),
            max_new_tokens=self.decode.max_new_tokens, do_sample=False, logits_processor=processors,
            pad_token_id=self.tokenizer.pad_token_id, eos_token_id=self.tokenizer.eos_token_id,
            temperature=None, top_p=None, top_k=None,
        )  # fmt: skip
        return self.tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)

    def summaries(self, thinkings: Sequence[Thinking], arm: str, seed: int) -> list[dict[str, Any]]:
        """A row a thinking; one that breaks the schema has no summary and says why."""
        rows = []
        with progress() as bar:
            task = bar.add_task(f"{arm} seed {seed}", total=len(thinkings))
            for start in range(0, len(thinkings), self.decode.batch):
                group = thinkings[start : start + self.decode.batch]
                for one, text in zip(group, self.write([one.material for one in group]), strict=True):
                    rows.append(row_of(one, text, arm, seed))
                bar.advance(task, len(group))
        return rows


def row_of(thinking: Thinking, text: str, arm: str, seed: int) -> dict[str, Any]:
    """An answer as a row of the stage's files."""
    try:
        summary, problem = parse_summary(text).model_dump(), ""
    except ValueError as error:
        summary, problem = None, str(error)
    return {
        "id": thinking.id, "source": thinking.source, "thinker": thinking.thinker, "arm": arm, "seed": seed,
        "valid": summary is not None, "problem": problem, "text": text, "summary": summary,
        "sam3_phrases": summary["sam3_phrases"] if summary else [],
    }  # fmt: skip


def run(
    arm: str,
    runtime: StudentRuntime,
    decode: Decode,
    thinkings: Mapping[str, str | Path],
    seeds: Sequence[int],
    students: str | Path | None,
    out: str | Path,
) -> None:
    """Write `<thinker>.jsonl` for every thinker: test split, all seeds. The base has no adapter and one seed.

    Args:
        thinkings: thinker -> its thinking.jsonl.
        students: folder of seed<k>; None for the base.
    """
    seed_everything(0)
    rows: dict[str, list[dict]] = {name: [] for name in thinkings}
    for seed in seeds if students is not None else seeds[:1]:
        summariser = Summariser(runtime, decode, None if students is None else Path(students) / f"seed{seed}")
        for name, file in thinkings.items():
            # A thinking without its tags is summarised all the same: what it holds is all there is.
            held_out = [one for one in read_models(file, Thinking) if one.split == "test"]
            rows[name] += summariser.summaries(held_out, arm, seed)
    for name, found in rows.items():
        write_rows(Path(out) / f"{name}.jsonl", found)
