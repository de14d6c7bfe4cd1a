"""Train the student: a small language model with LoRA learns to summarise thinkings (seed 004, stage five).

`transformers.Trainer` on instruction-input-output rows; only the output has labels. Cosine with warm-up; after each
epoch the validation loss; the best checkpoint is kept, and training stops after `patience` epochs without a better
one. Saved as a PEFT adapter with its tokenizer left to the base model.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_dir, write_json
from qwenlab.core.launch import main_process
from qwenlab.core.params import Params
from qwenlab.core.resume import fingerprint, stamp
from qwenlab.core.seed_runs import SeedRuns, last_checkpoint
from qwenlab.core.seeding import seed_everything
from qwenlab.thinkseg.records import read_rows
from qwenlab.thinkseg.trainset import INSTRUCTION


class Lora(Params):
    """The adapter (seed 004: r 64, alpha 128, dropout 0.05, q/k/v/o)."""

    r: int = Field(ge=1)
    alpha: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    target_modules: list[str]


class Student(Params):
    """Training."""

    epochs: float = Field(gt=0, description="at most")
    batch: int = Field(ge=1, description="rows a step and process")
    accumulation: int = Field(ge=1, description="steps whose gradients are added up")
    lr: float = Field(gt=0)
    warmup_share: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    patience: int = Field(ge=1, description="epochs without a lower validation loss before it stops")
    max_length: int = Field(ge=64, description="tokens of a row; a longer one is an error")
    lora: Lora


class StudentRuntime(Params):
    """The base model, and where it runs."""

    model: str = Field(description="folder or hub id")
    device: str
    dtype: str = Field(description="float32 or bfloat16")
    processes: int = Field(ge=1, description="training processes of one seed, started by accelerate")
    seeds_at_once: int = Field(ge=1, description="seeds trained side by side, on a thread each")


def load_base(runtime: StudentRuntime):
    """(model, tokenizer) of the base.

    Raises:
        UserError: when it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(runtime.model)
        model = AutoModelForCausalLM.from_pretrained(runtime.model, dtype=getattr(torch, runtime.dtype))
    except (OSError, ValueError) as error:
        raise UserError(f"{runtime.model}: cannot be loaded as the base of the student ({error}).") from error
    return model.to(runtime.device), tokenizer


def add_lora(model, lora: Lora):
    """The model with an adapter to train."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return get_peft_model(model, config)


def prompt_of(tokenizer, material: str) -> list[int]:
    """Token ids of the chat up to where the answer begins."""
    chat = [{"role": "user", "content": f"{INSTRUCTION}\n{material}"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer(text)["input_ids"]


def encode(tokenizer, rows: list[dict], max_length: int) -> list[dict[str, list[int]]]:
    """Rows as ids and labels; the prompt's labels are -100.

    Raises:
        UserError: when a row is longer than `max_length`: cut off, it would teach answers without an end.
    """
    encoded = []
    for row in rows:
        before = prompt_of(tokenizer, row["input"])
        after = [*tokenizer(row["output"])["input_ids"], tokenizer.eos_token_id]
        if len(before) + len(after) > max_length:
            raise UserError(f"{row['id']}: {len(before) + len(after)} tokens; max_length is {max_length}.")
        encoded.append({"input_ids": before + after, "labels": [-100] * len(before) + after})
    return encoded


def collate(pad: int):
    """A collator that pads on the right."""

    def batch(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        length = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), length), pad)
        labels = torch.full((len(rows), length), -100)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for index, row in enumerate(rows):
            size = len(row["input_ids"])
            ids[index, :size] = torch.tensor(row["input_ids"])
            labels[index, :size] = torch.tensor(row["labels"])
            mask[index, :size] = 1
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}

    return batch


def make_trainer(params: Student, runtime: StudentRuntime, model, tokenizer, train: list, validation: list, seed: int,
                 out: Path):  # fmt: skip
    """The `Trainer` of one seed."""
    from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

    steps = max(1, len(train) // (params.batch * params.accumulation * runtime.processes)) * params.epochs
    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=params.epochs,
        per_device_train_batch_size=params.batch,
        per_device_eval_batch_size=params.batch,
        gradient_accumulation_steps=params.accumulation,
        learning_rate=params.lr,
        weight_decay=params.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=round(params.warmup_share * steps),
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        bf16=runtime.dtype == "bfloat16" and runtime.device != "cpu",
        use_cpu=runtime.device == "cpu",
        seed=seed,
        data_seed=seed,
        logging_strategy="epoch",
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        label_names=["labels"],
        disable_tqdm=not sys.stderr.isatty(),
    )
    return Trainer(
        model=model, args=arguments, train_dataset=train, eval_dataset=validation,
        data_collator=collate(tokenizer.pad_token_id),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=params.patience)],
    )  # fmt: skip


def train_seed(params: Student, runtime: StudentRuntime, train: list[dict], validation: list[dict], seed: int,
               work: Path) -> tuple[object, dict[str, float]]:  # fmt: skip
    """(the model with the best adapter, its losses). A checkpoint in `work` is continued."""
    seed_everything(seed)
    model, tokenizer = load_base(runtime)
    model = add_lora(model, params.lora)
    data = [encode(tokenizer, rows, params.max_length) for rows in (train, validation)]
    trainer = make_trainer(params, runtime, model, tokenizer, data[0], data[1], seed, work)
    last = last_checkpoint(work)
    if last:
        print(f"seed {seed}: continues at {last.name}", flush=True)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    losses = [one["eval_loss"] for one in trainer.state.log_history if "eval_loss" in one]
    trained = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    facts = {
        "best_eval_loss": min(losses), "epochs": float(len(losses)), "last_train_loss": trained[-1],
        "trained_parameters": float(sum(p.numel() for p in model.parameters() if p.requires_grad)),
    }  # fmt: skip
    return model, facts


@dataclass(frozen=True)
class Job:
    """One seed; it may run in a process of its own."""

    params: Student
    runtime: StudentRuntime
    seed: int
    trainset: str
    folder: Path
    work: Path
    threads: int | None
    fingerprint: str


def run_job(job: Job) -> None:
    """Train one seed into its folder."""
    if job.threads:
        torch.set_num_threads(job.threads)
    rows = [read_rows(Path(job.trainset) / f"{split}.jsonl") for split in ("train", "validation")]
    model, facts = train_seed(job.params, job.runtime, rows[0], rows[1], job.seed, job.work)
    if main_process():
        with atomic_dir(job.folder) as folder:
            model.save_pretrained(folder)  # type: ignore[attr-defined]
            write_json(folder / "training.json", facts)
            stamp(folder, job.fingerprint)
        print(f"student seed {job.seed}: {facts}", flush=True)


def run(params: Student, runtime: StudentRuntime, seeds: list[int], trainset: str | Path, out: str | Path) -> None:
    """Train every seed. What an earlier run finished is kept if nothing changed since."""
    code = [Path(__file__), Path(__file__).with_name("trainset.py")]
    inputs = [trainset, *([runtime.model] if Path(runtime.model).exists() else [])]
    now = fingerprint([params.model_dump(), runtime.model_dump()], inputs, code)

    def job(seed: int, folder: Path, work: Path, threads: int | None) -> Job:
        return Job(params, runtime, seed, str(trainset), folder, work, threads, now)

    SeedRuns(Path(out), now, runtime.seeds_at_once).start(seeds, job, run_job)
