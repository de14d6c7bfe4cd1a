"""Train one stage or control arm with `transformers.Trainer` (seed 000, Stage 1-1, 1-2, 1-3).

Every arm has the same number of steps in all, the same batch, and one learning-rate schedule: a stage goes on where
the one before it left the rate, instead of warming up again.
"""

import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_dir, make_dir, write_json
from qwenlab.core.launch import main_process
from qwenlab.core.params import Params
from qwenlab.core.resume import stamp
from qwenlab.core.seeding import seed_everything
from qwenlab.latentcot import latents
from qwenlab.latentcot.checkpoint import Runtime, checkpoint_hash
from qwenlab.latentcot.method import STEPS, Loss, Method, direct
from qwenlab.latentcot.ready import Ready, collator, prepare
from qwenlab.latentcot.teacher import Teacher
from qwenlab.latentcot.tokens import STAGES


class Train(Params):
    """Training, the same for all arms; `steps` and `losses` by stage."""

    steps: dict[str, int] = Field(description="of each of the three stages; the controls take as many as all together")
    batch: int = Field(ge=1, description="samples a step, all processes together")
    lr: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    floor: float = Field(ge=0, le=1, description="share of the learning rate that is left at the very end")
    weight_decay: float = Field(ge=0)
    losses: dict[str, Loss] = Field(description="by stage; the controls too")
    save_steps: int = Field(ge=0, description="steps between checkpoints; 0 for none")
    packed: bool = Field(description="teacher states in one file, not one a sample")

    def span(self, stage: str) -> tuple[int, int, int]:
        """First step, number of steps, and steps in all of the shared schedule."""
        total = sum(self.steps[name] for name in STAGES)
        if stage not in STAGES:
            return 0, total, total
        return sum(self.steps[name] for name in STAGES[: STAGES.index(stage)]), self.steps[stage], total


def rate(step: int, total: int, warmup: int, floor: float) -> float:
    """The shared schedule: a linear warm-up, then half a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


class Student(torch.nn.Module):
    """A model with a stage's loss; what `Trainer` trains."""

    _keys_to_ignore_on_save = None

    def __init__(self, model, stage: str, method: Method, loss: Loss):
        super().__init__()
        self.model, self.stage, self.method, self.loss = model, stage, method, loss

    @property
    def config(self):
        return self.model.config

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """loss (with the gradient of `latents.surrogate`), ce, align."""
        step, method = STEPS[self.stage], self.method
        teacher = batch.get("teacher")
        done = latents.run(
            self.model, batch, method.latents if step.latent else 0, method.latent_norm, method.detach,
            layers=teacher is not None,
        )  # fmt: skip
        ce = latents.cross_entropy(self.model, done.hidden, batch["ids"], batch["weight"])
        align = None
        if teacher is not None and self.loss.align:
            where = batch["latent" if step.teacher == "latent" else "observed"]
            align = latents.alignment(done.layers, where, teacher, method.first_layer)
        loss = latents.surrogate(ce, align, self.loss.align, done, direct(self.stage, method))
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{self.stage}: the loss is {loss.item()}.")
        found = {"loss": loss, "ce": ce.detach()}
        return found if align is None else found | {"align": align.detach()}


def make_trainer(params: Train, runtime: Runtime, student: Student, ready: Ready, teacher, seed: int, work: Path):
    """A `Trainer` on the shared schedule."""
    from transformers import Trainer, TrainingArguments

    first, steps, total = params.span(student.stage)

    class StageTrainer(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            output = model(**inputs)
            return (output["loss"], output) if return_outputs else output["loss"]

        def create_scheduler(self, num_training_steps, optimizer=None):
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda s: rate(first + s, total, params.warmup_steps, params.floor)
            )
            return self.lr_scheduler

        def _save(self, output_dir=None, state_dict=None):
            # Of a plain module Trainer would save tied embeddings twice, which safetensors refuses.
            from safetensors.torch import save_model

            save_model(self.model, str(make_dir(output_dir) / "model.safetensors"))

    # A stage whose passes need the KV cache cannot recompute activations.
    checkpointing = runtime.gradient_checkpointing and not STEPS[student.stage].latent
    if checkpointing:
        student.model.gradient_checkpointing_enable()
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=max(1, params.batch // runtime.processes),
        learning_rate=params.lr,
        weight_decay=params.weight_decay,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        seed=seed,
        data_seed=seed + 1000 * (STAGES.index(student.stage) if student.stage in STAGES else 0),
        bf16=runtime.dtype == "bfloat16" and runtime.device != "cpu",
        use_cpu=runtime.device == "cpu",
        fsdp=runtime.fsdp or None,
        ddp_find_unused_parameters=True,  # the frozen tower, and the table of a batch without a token
        save_strategy="steps" if params.save_steps else "no",
        save_steps=params.save_steps or 500,
        save_total_limit=1,
        logging_steps=20,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=not sys.stderr.isatty(),
    )
    collate = collator(ready, student.stage, student.method, teacher)
    return StageTrainer(model=student, args=arguments, train_dataset=ready.encoded, data_collator=collate)


def read_teacher(stage: str, folder: str | Path | None, source: str | Path, ready: Ready, method: Method):
    """The teacher of a stage with every sample's states checked; None for a stage without one.

    Raises:
        UserError: naming the file, when states are missing, stale, malformed, or no folder was given.
    """
    kind = STEPS[stage].teacher
    if kind is None:
        return None
    if folder is None:
        flag = "--teacher-reps-dir" if kind == "rep" else "--teacher-latent-dir"
        raise UserError(f"{stage} is aligned with teacher states; name their folder with {flag}.")
    teacher = Teacher(folder, kind, method.alignment_layer, checkpoint_hash(source), method.latents)
    config = ready.model.config.text_config
    for sample in ready.encoded:
        tokens = int((sample.observed if kind == "rep" else sample.latent).sum())
        teacher.check_shape(sample.name, tokens, config.num_hidden_layers + 1, config.hidden_size)
    return teacher


@dataclass(frozen=True)
class Job:
    """One seed of one stage, with all that it needs: it may run in a process of its own.

    start: the checkpoint it begins with; source: the checkpoint that made the teacher states.
    """

    stage: str
    params: Train
    runtime: Runtime
    method: Method
    seed: int
    start: str
    source: str
    data: str
    teacher: str | None
    out: str
    work: str
    fingerprint: str = ""
    threads: int | None = None


def run_job(job: Job) -> dict[str, Any]:
    """Train and save to `job.out`; a checkpoint in `job.work` is continued."""
    if job.threads:
        torch.set_num_threads(job.threads)
    first = job.params.span(job.stage)[0]
    seed_everything(job.seed)  # before new tokens are drawn
    loss = job.params.losses[job.stage]
    ready = prepare(job.start, job.runtime, job.data, STEPS[job.stage].form, job.method, loss.emphasize, first == 0)
    teacher = read_teacher(job.stage, job.teacher, job.source, ready, job.method) if loss.align else None
    work = Path(job.work)
    if main_process():
        stamp(make_dir(work), job.fingerprint)
    student = Student(ready.model, job.stage, job.method, loss)
    trainer = make_trainer(job.params, job.runtime, student, ready, teacher, job.seed, work)
    found = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    if found:
        print(f"{job.stage}, seed {job.seed}: continues at {found[-1].name}", flush=True)
    done = trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
    facts = {
        "stage": job.stage, "seed": job.seed, "training_loss": done.training_loss, "latents": job.method.latents,
        "start": checkpoint_hash(job.start),
    }  # fmt: skip
    if main_process():
        with atomic_dir(job.out) as folder:
            student.model.save_pretrained(folder)
            ready.processor.save_pretrained(folder)
            write_json(folder / "latentcot.json", facts)
            stamp(folder, job.fingerprint)
        shutil.rmtree(work)
    return facts
