"""Semantic attention and feedback masking inside LLaMA-Factory 0.9.5, which stays unmodified (seed 003).

    qwenlab-llamafactory train examples/llamafactory/hsa_feedback.yaml     like `llamafactory-cli train`
    qwenlab-llamafactory train some.yaml hsa.preset=noop max_steps=10      values of the file, overridden
    FORCE_TORCHRUN=1 NPROC_PER_NODE=2 qwenlab-llamafactory train some.yaml
    torchrun ... -m qwenlab.hsa.llamafactory train some.yaml               or any other launcher

The YAML is LLaMA-Factory's own, with two more blocks, `hsa` and `feedback` (see `llamafactory_settings`). Without a
block, or with `false`, that half is off. A dataset with types says `"formatting": "sharegpt_hsa"` in dataset_info.json.

While a run goes on, some names of LLaMA-Factory stand for the classes of `llamafactory_data` and
`llamafactory_collator`; one that is gone is an error, because a plugin that nobody calls trains something else.
LLaMA-Factory wants older packages than this project: see requirements-llamafactory.txt and `make test-llamafactory`.
"""

import importlib
import operator
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from qwenlab.core.errors import UserError
from qwenlab.core.launch import launched
from qwenlab.hsa.attention import HSA, attach, load_hsa, save_hsa
from qwenlab.hsa.llamafactory_settings import Settings, parse

# What this plugin replaces, extends or calls, by module of LLaMA-Factory.
NAMES = {
    "data.converter": (
        "DATASET_CONVERTERS", "register_dataset_converter", "SharegptDatasetConverter.__call__",
    ),
    "data.loader": ("PackedSupervisedDatasetProcessor", "SupervisedDatasetProcessor"),
    "data.processor": (
        "PackedSupervisedDatasetProcessor.preprocess_dataset", "SupervisedDatasetProcessor.preprocess_dataset",
        "SupervisedDatasetProcessor._encode_data_example",
    ),
    "data.template": ("Template._convert_elements_to_ids", "Template._encode", "Template.encode_multiturn"),
    "extras.misc": ("find_available_port", "get_device_count", "is_env_enabled"),
    "train.sft.workflow": ("SFTDataCollatorWith4DAttentionMask", "load_model"),
    "train.tuner": ("run_exp",),
}  # fmt: skip


def check_names() -> None:
    """That LLaMA-Factory has all names that this plugin needs.

    Raises:
        UserError: naming the first one that is gone.
    """
    _check_installed()
    for module, names in NAMES.items():
        try:
            found = importlib.import_module(f"llamafactory.{module}")
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("llamafactory."):
                raise
            raise UserError(f"this LLaMA-Factory has no module {error.name}; expected version 0.9.5.") from error
        for name in names:
            try:
                operator.attrgetter(name)(found)
            except AttributeError as error:
                raise UserError(f"this LLaMA-Factory has no {module}.{name}; expected version 0.9.5.") from error


def _check_installed() -> None:
    if find_spec("llamafactory") is None:
        raise UserError("llamafactory is not installed here; see requirements-llamafactory.txt.")


@contextmanager
def installed(settings: Settings) -> Iterator[None]:
    """LLaMA-Factory with the plugin inside; afterwards it is as before.

    Raises:
        UserError: see `check_names`.
    """
    check_names()
    from llamafactory.data import converter, loader
    from llamafactory.train.sft import workflow

    from qwenlab.hsa import llamafactory_data as ours
    from qwenlab.hsa.llamafactory_collator import TypedCollator

    hsa, feedback = settings.block, settings.feedback
    options: dict[str, Any] = {"hsa": hsa is not None, "feedback": feedback}
    new: dict[tuple[Any, str], Any] = {}
    if hsa is not None or feedback is not None:
        new[loader, "SupervisedDatasetProcessor"] = partial(ours.TypedSupervised, **options)
        new[loader, "PackedSupervisedDatasetProcessor"] = partial(ours.TypedPacked, **options)
        new[workflow, "SFTDataCollatorWith4DAttentionMask"] = partial(TypedCollator, **options)
    typed_converter: Any = converter.SharegptDatasetConverter  # the off arm trains on the same files
    if hsa is not None:
        new[workflow, "load_model"] = partial(_load_model, workflow.load_model, settings)
        typed_converter = partial(ours.TypedSharegptConverter, semantic_tag=hsa.semantic_tag)
    old = {place: getattr(*place) for place in new}
    converter.register_dataset_converter(ours.FORMATTING, typed_converter)
    try:
        for (module, name), value in new.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in old.items():
            setattr(module, name, value)
        del converter.DATASET_CONVERTERS[ours.FORMATTING]


def _load_model(load_model: Callable, settings: Settings, *args: Any, **kwargs: Any) -> Any:
    model = load_model(*args, **kwargs)
    assert settings.block is not None
    if settings.config is None:
        hsa = load_hsa(model, str(settings.block.folder), settings.block.impl)
    else:
        hsa = attach(model, settings.config, settings.block.impl)
    hsa.requires_grad_(model.training)  # attached behind LLaMA-Factory's own freezing
    return model


def _keeper() -> Any:
    """A callback that keeps settings and learned parameters beside every checkpoint, and takes them up again.

    LLaMA-Factory saves adapters alone when it trains adapters.
    """
    from safetensors.torch import load_model as load_tensors
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            saved = Path(args.resume_from_checkpoint or "") / "hsa.safetensors"
            if args.resume_from_checkpoint and saved.is_file():
                load_tensors(next(part for part in model.modules() if isinstance(part, HSA)), saved)

        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                save_hsa(model, Path(args.output_dir) / f"checkpoint-{state.global_step}")

        def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                save_hsa(model, args.output_dir)

    return Keeper()


def run(args: dict[str, Any]) -> None:
    """LLaMA-Factory's `run_exp` with its own arguments and the two blocks.

    Raises:
        UserError: see `parse` and `check_names`; and from inside on bad data (see `llamafactory_data`).
    """
    settings, args = parse(args)
    with installed(settings):
        from llamafactory.train.tuner import run_exp

        run_exp(args, callbacks=[] if settings.block is None else [_keeper()])


@click.group()
def main() -> None:
    """LLaMA-Factory with semantic attention and feedback masking."""


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("overrides", nargs=-1)
def train(file: Path, overrides: tuple[str, ...]) -> None:
    """Train as an ordinary YAML FILE of LLaMA-Factory says, with OVERRIDES such as hsa.preset=noop."""
    _check_installed()
    args = _read(file, overrides)
    parse(args)  # now, and not in every process after the half minute that imports may take
    check_names()
    if not _relaunched(["train", str(file), *overrides]):
        run(args)


def _read(file: Path, overrides: Sequence[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf  # as LLaMA-Factory does, so that a value means the same here and there
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        args = OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_cli(list(overrides))))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from error
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException, TypeError) as error:
        raise UserError(f"{file}: not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(args, dict):
        raise UserError(f"{file}: expected a mapping of LLaMA-Factory's arguments.")
    return {str(key): value for key, value in args.items()}


def _relaunched(arguments: Sequence[str]) -> bool:
    """Start several processes when and as `llamafactory-cli` does: that would start them without the plugin."""
    from llamafactory.extras.misc import find_available_port, get_device_count, is_env_enabled

    devices = get_device_count()
    if launched() or (devices <= 1 and not is_env_enabled("FORCE_TORCHRUN")):
        return False
    options = {
        "nnodes": "1", "node_rank": "0", "nproc_per_node": str(max(devices, 1)),
        "master_addr": "127.0.0.1", "master_port": "",
    }  # fmt: skip
    chosen = {name: os.environ.get(name.upper(), usual) for name, usual in options.items()}
    chosen["master_port"] = chosen["master_port"] or str(find_available_port())
    command = [sys.executable, "-m", "torch.distributed.run", *(f"--{name}={value}" for name, value in chosen.items())]
    done = subprocess.run([*command, "-m", "qwenlab.hsa.llamafactory", *arguments], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return True


if __name__ == "__main__":
    main()
