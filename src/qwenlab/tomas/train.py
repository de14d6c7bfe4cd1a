"""Train the planner on one arm (seed 002, 4), every seed, with `transformers.Trainer`.

Trained: LoRA, the temporal encoder and its projection, the tool head, the configuration head (unless it is frozen).
The memory holds the configurations that are known in training; new ones are appended when the planner is loaded.
"""

import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from qwenlab.core.io import atomic_dir, make_dir, write_json
from qwenlab.core.launch import launched, main_process
from qwenlab.core.params import Params
from qwenlab.core.resume import fingerprint, stamp, stamped
from qwenlab.core.seeding import seed_everything
from qwenlab.tomas.decoder import HeadConfig
from qwenlab.tomas.export import Memory, read_memory
from qwenlab.tomas.model import FILES, Lora, Planner, Runtime, build_decoder, load_backbone, with_lora
from qwenlab.tomas.solver import Objective
from qwenlab.tomas.targets import PlanTargets, SoftTargets
from qwenlab.tomas.task_set import TaskSet, collator, task_set
from qwenlab.tomas.tasks import Capacity, needs_of, read_tasks


class Train(Params):
    """Training, the same for every arm."""

    steps: int = Field(ge=1)
    batch: int = Field(ge=1, description="tasks a step, all processes together")
    lr: float = Field(gt=0, description="learning rate of LoRA")
    head_lr: float = Field(gt=0, description="learning rate of everything that is trained from scratch")
    memory_lr: float = Field(gt=0, description="learning rate of the memory rows")
    weight_decay: float = Field(ge=0)
    warmup_steps: int = Field(ge=0)
    config_weight: float = Field(ge=0, description="lambda of the joint loss (seed 002, 4)")
    lora: Lora
    queries: int = Field(ge=0, description="learned queries over all hidden states; 0 reads the last token only")
    soft_targets: SoftTargets
    save_steps: int = Field(ge=0, description="steps between checkpoints; 0 for none")


def known_memory(memory: Memory) -> tuple[Memory, np.ndarray]:
    """The part of a memory that training knows, and the ids of its rows in the whole."""
    ids = np.flatnonzero(~memory.new)
    profile = memory.profile
    part = type(profile)(profile.registry, profile.tool_ids[ids], profile.resources[ids])
    return Memory(memory.weights[ids], part, np.zeros(len(ids), bool)), ids


def make_trainer(params: Train, runtime: Runtime, planner: Planner, data: TaskSet, tokenizer, seed: int, out: Path):
    """A `Trainer` with learning rates of their own for LoRA, the memory, and the rest."""
    from transformers import Trainer, TrainingArguments

    class PlannerTrainer(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            output = model(**inputs)
            return (output["loss"], output) if return_outputs else output["loss"]

        def _save(self, output_dir=None, state_dict=None):
            # Of a plain module Trainer would save tied embeddings twice, which safetensors refuses.
            from safetensors.torch import save_model

            save_model(self.model, str(make_dir(output_dir) / "model.safetensors"))

        def create_optimizer(self, model=None):
            rates = {"backbone": params.lr, "decoder.memory": params.memory_lr}
            groups: dict[float, list] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    rate = next((r for start, r in rates.items() if name.startswith(start)), params.head_lr)
                    groups.setdefault(rate, []).append(parameter)
            grouped = [{"params": part, "lr": rate} for rate, part in groups.items()]
            self.optimizer = torch.optim.AdamW(grouped, lr=params.lr, weight_decay=params.weight_decay)
            return self.optimizer

    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=params.steps,
        per_device_train_batch_size=params.batch // runtime.processes,
        learning_rate=params.lr,
        warmup_steps=params.warmup_steps,
        lr_scheduler_type="cosine",
        seed=seed,
        data_seed=seed,
        bf16=runtime.dtype == "bfloat16" and runtime.device != "cpu",
        use_cpu=runtime.device == "cpu",
        save_strategy="steps" if params.save_steps else "no",
        save_steps=params.save_steps or 500,
        save_total_limit=1,
        logging_steps=100,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=not sys.stderr.isatty(),
    )
    return PlannerTrainer(model=planner, args=arguments, train_dataset=data, data_collator=collator(data, tokenizer))


def build_planner(params: Train, runtime: Runtime, head: HeadConfig, memory: Memory) -> tuple[Planner, object]:
    """A planner to train and its tokenizer; `memory` is what training knows."""
    backbone, tokenizer = load_backbone(runtime.model, runtime.dtype, runtime.device)
    planner = Planner(
        with_lora(backbone, params.lora), build_decoder(head, memory), params.config_weight, params.queries
    )
    return planner.to(backbone.device), tokenizer


def save_planner(planner: Planner, folder: Path, facts: dict) -> None:
    """The PEFT adapter, the other trained parts, and what they belong to."""
    from safetensors.torch import save_file

    planner.backbone.save_pretrained(folder / "adapter")
    state = {name: value for name, value in planner.state_dict().items() if not name.startswith("backbone.")}
    save_file({name: value.contiguous() for name, value in state.items()}, folder / FILES[0])
    write_json(
        folder / FILES[1], {"head": planner.decoder.config.model_dump(), "queries": len(planner.pool.queries), **facts}
    )


def train_seed(params: Train, runtime: Runtime, head: HeadConfig, memory: Memory, data: TaskSet, seed: int,
               work: Path) -> tuple[Planner, float]:  # fmt: skip
    """One planner, and the mean loss of the run. Checkpoints go to `work`; one that is there is continued."""
    seed_everything(seed)
    planner, tokenizer = build_planner(params, runtime, head, memory)
    trainer = make_trainer(params, runtime, planner, data, tokenizer, seed, work)
    last = next(
        iter(sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)), None
    )
    if last:
        print(f"seed {seed}: continues at {last.name}", flush=True)
    result = trainer.train(resume_from_checkpoint=str(last) if last else None)
    return planner, result.training_loss


@dataclass(frozen=True)
class Goal:
    """What a plan is good for: the machine, and what is minimised."""

    capacity: Capacity
    objective: Objective


@dataclass(frozen=True)
class Job:
    """One seed of one arm, with all that it needs: it may run in a process of its own."""

    params: Train
    runtime: Runtime
    head: HeadConfig
    goal: Goal
    seed: int
    memory_dir: str
    tasks_dir: str
    out: str
    fingerprint: str
    threads: int | None = None


def run_job(job: Job) -> None:
    """Train one seed into `<out>/seed<k>/`; a checkpoint in `<out>/work<k>/` is continued."""
    if job.threads:
        torch.set_num_threads(job.threads)
    memory, rows = known_memory(read_memory(job.memory_dir))
    tasks, states = read_tasks(job.tasks_dir, "train")
    values = job.goal.objective.values(memory.profile, job.goal.capacity.array())
    needs = needs_of(tasks, states, job.goal.capacity)
    data = task_set(tasks, states, rows, PlanTargets(job.params.soft_targets, memory.profile, values, needs))
    work = Path(job.out) / f"work{job.seed}"
    if main_process():
        stamp(make_dir(work), job.fingerprint)
    planner, loss = train_seed(job.params, job.runtime, job.head, memory, data, job.seed, work)
    if main_process():
        with atomic_dir(Path(job.out) / f"seed{job.seed}") as folder:
            save_planner(planner, folder, {"seed": job.seed, "training_loss": loss, "backbone": job.runtime.model})
            stamp(folder, job.fingerprint)
        shutil.rmtree(work)


def run(
    params: Train,
    runtime: Runtime,
    head: HeadConfig,
    goal: Goal,
    seeds: list[int],
    memory_dir: str | Path,
    tasks_dir: str | Path,
    out: str | Path,
) -> None:
    """Train every seed into `<out>/seed<k>/`. What an earlier run finished is kept if nothing changed since.

    With `runtime.seeds_at_once` above 1, seeds run side by side, each on one CPU thread: tiny models gain nothing from
    a second thread. Several training processes (`runtime.processes`) train one seed together instead.
    """
    out = make_dir(out)
    settings = [part.model_dump() for part in (params, runtime, head, goal.capacity, goal.objective)]
    code = [Path(__file__).with_name(f"{name}.py") for name in ("train", "task_set", "targets", "model", "decoder")]
    now = fingerprint(settings, [memory_dir, tasks_dir], code)
    wanted = {f"{kind}{seed}" for seed in seeds for kind in ("seed", "work")}
    if main_process():
        for path in out.iterdir():
            if path.name not in wanted or stamped(path) != now:
                print(f"{path}: made with other parameters, inputs or code; starts over.", flush=True)
                shutil.rmtree(path)
    todo = [seed for seed in seeds if not (out / f"seed{seed}").exists()]
    at_once = min(runtime.seeds_at_once, len(todo))
    threads = 1 if at_once > 1 else None
    jobs = [
        Job(params, runtime, head, goal, seed, str(memory_dir), str(tasks_dir), str(out), now, threads) for seed in todo
    ]
    if at_once > 1 and not launched():
        with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
            list(pool.map(run_job, jobs))
    else:
        for job in jobs:
            run_job(job)
