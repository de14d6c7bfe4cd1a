"""`qwenlab latentcot train|precompute-rep|precompute-latent`: the seed's commands, on any data in its format.

What is not on the command line comes from `latentcot` in params.yaml and the active profile, so that precomputation
and training cannot disagree about layers or K.
"""

import sys
from pathlib import Path
from typing import Any

import click

from qwenlab.latentcot.tokens import STAGES

FOLDER = click.Path(path_type=Path)


@click.group(context_settings={"max_content_width": 110})
def latentcot() -> None:
    """Train latent reasoning: stages 1-1, 1-2 and 1-3, and the teacher states between them.

    \b
    qwenlab latentcot train --stage stage1-1 --model-path BASE --data-path train.jsonl --output-dir ckpt/stage1_1
    qwenlab latentcot precompute-rep --model-path ckpt/stage1_1 --data-path train.jsonl --output-dir teacher/reps
    qwenlab latentcot train --stage stage1-2 --model-path ckpt/stage1_1 --data-path train.jsonl \\
        --teacher-reps-dir teacher/reps --output-dir ckpt/stage1_2
    qwenlab latentcot precompute-latent --model-path ckpt/stage1_2 --data-path train.jsonl --output-dir teacher/latents
    qwenlab latentcot train --stage stage1-3 --model-path ckpt/stage1_2 --data-path train.jsonl \\
        --teacher-latent-dir teacher/latents --output-dir ckpt/stage1_3
    """


def common(command):
    """Options that all three share."""
    for option in (
        click.option(
            "--alignment-layer", type=click.Choice(["all_layers", "last_layer"]), help="Default: the profile's."
        ),
        click.option("--latents", type=click.IntRange(1), help="K, latent steps of a block. Default: the profile's."),
        click.option("--device", help="cpu, cuda, ... Default: the profile's."),
        click.option("--output-dir", required=True, type=FOLDER),
        click.option("--data-path", required=True, type=FOLDER, help="JSONL in the seed's format."),
        click.option("--model-path", required=True, help="Checkpoint folder, or a name of the hub."),
    ):
        command = option(command)
    return command


def settings(device: str | None, latents: int | None, alignment_layer: str | None):
    """Runtime and method of the profile, with what the command line changes."""
    from qwenlab.core.params import load
    from qwenlab.latentcot.checkpoint import Runtime
    from qwenlab.latentcot.method import Method

    runtime, method = load("latentcot.runtime", Runtime), load("latentcot.method", Method)
    changes: dict[str, Any] = {"latents": latents, "alignment_layer": alignment_layer}
    method = method.model_copy(update={key: value for key, value in changes.items() if value is not None})
    return runtime.model_copy(update={"device": device} if device else {}), method


@latentcot.command()
@click.option(
    "--stage", required=True, type=click.Choice([*STAGES, "text", "pause"]), help="text, pause: the controls."
)
@common
@click.option("--teacher-reps-dir", type=FOLDER, help="For stage1-2: what precompute-rep wrote.")
@click.option("--teacher-latent-dir", type=FOLDER, help="For stage1-3: what precompute-latent wrote.")
@click.option("--teacher-model-path", help="Checkpoint that made the teacher states.  [default: --model-path]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--steps", type=click.IntRange(1), help="Of this stage. Default: the profile's.")
@click.option("--batch", type=click.IntRange(1), help="Samples a step. Default: the profile's.")
@click.option("--lr", type=float, help="Peak learning rate. Default: the profile's.")
def train(stage: str, model_path: str, data_path: Path, output_dir: Path, device: str | None, latents: int | None,
          alignment_layer: str | None, teacher_reps_dir: Path | None, teacher_latent_dir: Path | None,
          teacher_model_path: str | None, seed: int, steps: int | None, batch: int | None, lr: float | None,
          ) -> None:  # fmt: skip
    """Train one stage from a checkpoint; a run that was killed goes on if nothing changed."""
    import shutil

    from qwenlab.core.launch import relaunch
    from qwenlab.core.resume import stamped
    from qwenlab.latentcot.method import STEPS
    from qwenlab.latentcot.seeds import code_stamp
    from qwenlab.latentcot.stage import load_train
    from qwenlab.latentcot.train import Job, run_job

    runtime, method = settings(device, latents, alignment_layer)
    if relaunch(runtime.processes, runtime.device, "qwenlab.cli", sys.argv[1:]):
        return
    params = load_train()
    changes: dict[str, Any] = {"batch": batch, "lr": lr}
    if steps and stage in STAGES:
        changes["steps"] = {**params.steps, stage: steps}
    elif steps:  # a control takes as many as all stages together
        changes["steps"] = {**dict.fromkeys(STAGES, 0), STAGES[0]: steps}
    params = params.model_copy(update={key: value for key, value in changes.items() if value is not None})
    kind = STEPS[stage].teacher
    teacher = {"rep": teacher_reps_dir, "latent": teacher_latent_dir, None: None}[kind]
    work = output_dir.with_name(f"{output_dir.name}.work")
    inputs = [path for path in (data_path, model_path, teacher) if path and Path(path).exists()]
    now = code_stamp([stage, seed, runtime.model_dump(), method.model_dump(), params.model_dump()], inputs)
    if work.exists() and stamped(work) != now:
        click.echo(f"{work}: made with other parameters, inputs or code; starts over.", err=True)
        shutil.rmtree(work)
    facts = run_job(
        Job(stage, params, runtime, method, seed, model_path, teacher_model_path or model_path, str(data_path),
            str(teacher) if teacher else None, str(output_dir), str(work), now)
    )  # fmt: skip
    click.echo(f"{output_dir}: {stage}, mean training loss {facts['training_loss']:.4f}", err=True)


def _precompute(kind, model_path, data_path, output_dir, device, latents, alignment_layer) -> None:
    from qwenlab.latentcot.precompute import run

    runtime, method = settings(device, latents, alignment_layer)
    count = run(kind, model_path, data_path, output_dir, runtime, method, packed=False)
    click.echo(f"{output_dir}: {count} files {kind}_{method.alignment_layer}_*.pt", err=True)


@latentcot.command("precompute-rep")
@common
@click.option("--output-hidden-states", is_flag=True, help="Accepted as in the seed; they are always written.")
def precompute_rep(output_hidden_states: bool, **options) -> None:
    """Write the teacher states at observations, one file a sample, for stage 1-2."""
    _precompute("rep", **options)


@latentcot.command("precompute-latent")
@common
@click.option(
    "--output-latent-embeds", is_flag=True, help="Accepted as in the seed; the layers are --alignment-layer's."
)
def precompute_latent(output_latent_embeds: bool, **options) -> None:
    """Write the teacher latents, one file a sample, for stage 1-3."""
    _precompute("latent", **options)
