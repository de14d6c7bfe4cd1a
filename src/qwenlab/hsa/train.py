"""The three phases of iterative training (seed 003, background 2), with `transformers.Trainer`.

1 expert trajectories; 2 expert ones mixed with explored ones that went well; 3 explored ones that went wrong, of which
only the part behind `<|feedback|>` is learnt. Phases 1 and 2 are the stage hsa-train, phase 3 is hsa-reflect, so that
two ways of phase 3 start from the same weights.
"""

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from qwenlab.core.io import atomic_dir, write_json
from qwenlab.core.launch import main_process
from qwenlab.core.params import Params
from qwenlab.core.resume import fingerprint, stamp
from qwenlab.core.seed_runs import SeedRuns, last_checkpoint
from qwenlab.core.seeding import seed_everything
from qwenlab.hsa.conversations import Conversation, read_conversations
from qwenlab.hsa.encoding import Example, encode_all
from qwenlab.hsa.feedback import Feedback
from qwenlab.hsa.model import Arm, Runtime, load_model, new_model, save_model

CODE = ("train", "model", "attention", "bias", "cache", "sparse", "encoding", "conversations", "feedback", "collator")


class Phases(Params):
    """Training, the same for every arm."""

    steps: dict[str, int] = Field(description="optimiser steps of the phases expert, mixed and reflective")
    batch: int = Field(ge=1, description="trajectories a step, all processes together")
    lr: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    cutoff: int = Field(ge=8, description="tokens of a trajectory, at most")
    save_steps: int = Field(ge=0, description="steps between checkpoints; 0 for none")


def shuffled(conversations: list[Conversation], seed: int) -> list[Conversation]:
    """Every trajectory with its types dealt out anew among its messages."""
    result = []
    for n, one in enumerate(conversations):
        types = [message.semantic_id for message in one.messages]
        random.Random(f"{seed} {n}").shuffle(types)
        dealt = tuple(replace(message, semantic_id=kind) for message, kind in zip(one.messages, types, strict=True))
        result.append(replace(one, messages=dealt))
    return result


def examples_of(path: str | Path, tokenizer, cutoff: int, shuffle: bool, feedback: bool = False,
                seed: int = 0) -> list[Example]:  # fmt: skip
    """The trajectories of a file as token lists; those that teach nothing (cut off, or without feedback) are told."""
    conversations = read_conversations(path)
    if shuffle:
        conversations = shuffled(conversations, seed)
    found, dropped = encode_all(tokenizer, conversations, cutoff, drop=True, feedback=Feedback() if feedback else None)
    for reason, count in dropped.items():
        print(f"{path}: {count} trajectories {reason}, left out.", flush=True)
    return found


def fit(model: Any, tokenizer: Any, examples: list[Example], params: Phases, runtime: Runtime, phase: str, seed: int,
        work: Path) -> float:  # fmt: skip
    """Train on the examples for the steps of a phase; returns the mean loss. A checkpoint in `work` is continued."""
    from transformers import Trainer, TrainingArguments

    from qwenlab.hsa.collator import HSACollator

    tokenizer.padding_side = "right"
    arguments = TrainingArguments(
        output_dir=str(work / phase),
        max_steps=params.steps[phase],
        per_device_train_batch_size=params.batch // runtime.processes,
        learning_rate=params.lr,
        warmup_steps=params.warmup_steps,
        weight_decay=params.weight_decay,
        lr_scheduler_type="cosine",
        adam_beta2=0.98,
        seed=seed,
        data_seed=seed,
        bf16=runtime.dtype == "bfloat16" and runtime.device != "cpu",
        use_cpu=runtime.device == "cpu",
        gradient_checkpointing=runtime.gradient_checkpointing,
        # Learned parameters in a mask get no gradient through reentrant checkpointing.
        gradient_checkpointing_kwargs={"use_reentrant": False} if runtime.gradient_checkpointing else None,
        save_strategy="steps" if params.save_steps else "no",
        save_steps=params.save_steps or 500,
        save_total_limit=1,
        logging_steps=20,
        report_to="none",
        remove_unused_columns=False,  # semantic_ids are no argument of forward, and would be dropped without a word
        dataloader_pin_memory=False,
        disable_tqdm=not sys.stderr.isatty(),
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=examples, data_collator=HSACollator(tokenizer))
    last = last_checkpoint(work / phase)
    if last:
        print(f"seed {seed}, {phase}: continues at {last.name}", flush=True)
    return trainer.train(resume_from_checkpoint=str(last) if last else None).training_loss


@dataclass(frozen=True)
class Job:
    """One seed of one arm, with all that it needs: it may run in a process of its own."""

    params: Phases
    runtime: Runtime
    arm: Arm
    files: dict[str, str]  # phase -> file of trajectories
    start: str | None  # folder of the stage before, with a model for each seed
    seed: int
    folder: Path
    work: Path
    threads: int | None
    fingerprint: str


def run_job(job: Job) -> None:
    """Train the phases of a job, one after the other, into its folder."""
    import torch

    if job.threads:
        torch.set_num_threads(job.threads)
    seed_everything(job.seed)
    if job.start is None:
        model, tokenizer = new_model(job.runtime, job.arm)
    else:
        model, tokenizer = load_model(job.runtime, Path(job.start) / f"seed{job.seed}", trainable=True)
    model.train()
    losses = {}
    times = {phase: 1 if phase == "reflective" else job.arm.times_steps for phase in job.params.steps}
    steps = {phase: count * times[phase] for phase, count in job.params.steps.items()}
    params = job.params.model_copy(update={"steps": steps})
    for phase, file in job.files.items():
        masked = phase == "reflective" and job.arm.feedback
        examples = examples_of(file, tokenizer, job.params.cutoff, job.arm.shuffle, masked, job.seed)
        losses[phase] = fit(model, tokenizer, examples, params, job.runtime, phase, job.seed, job.work)
        print(f"seed {job.seed}, {phase}: mean loss {losses[phase]:.4f}", flush=True)
    if main_process():
        with atomic_dir(job.folder) as folder:
            save_model(model, tokenizer, folder)
            write_json(folder / "training.json", {"seed": job.seed, "loss": losses, "base": job.runtime.model})
            stamp(folder, job.fingerprint)


def run(params: Phases, runtime: Runtime, arm: Arm, seeds: list[int], files: Mapping[str, str | Path],
        start: str | Path | None, out: str | Path) -> None:  # fmt: skip
    """Train every seed into `<out>/seed<k>/`. What an earlier run finished is kept if nothing changed since.

    Args:
        files: phase (expert, mixed, reflective) -> its trajectories, in this order.
        start: what an earlier call wrote; None: the base.
    """
    settings = [part.model_dump() for part in (params, runtime, arm)]
    inputs = [*files.values(), *([start] if start else [])]
    now = fingerprint(settings, inputs, [Path(__file__).with_name(f"{name}.py") for name in CODE])
    texts = {phase: str(path) for phase, path in files.items()}
    first = None if start is None else str(start)

    def job(seed: int, folder: Path, work: Path, threads: int | None) -> Job:
        return Job(params, runtime, arm, texts, first, seed, folder, work, threads, now)

    runner: Callable[[Any], None] = run_job
    SeedRuns(Path(out), now, runtime.seeds_at_once).start(seeds, job, runner)
