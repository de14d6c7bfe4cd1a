"""The `hsa` and `feedback` blocks of a LLaMA-Factory YAML: read, checked, and taken out of it.

    settings, args = parse({"model_name_or_path": ..., "hsa": {"preset": "published"}, "feedback": {}})

An empty block has the usual values; `hsa` has none, and needs a preset, slope and window, or a folder.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params, shown
from qwenlab.hsa.attention import IMPLEMENTATIONS, PRESETS, HSAConfig
from qwenlab.hsa.feedback import FEEDBACK_TOKEN, Feedback

# Arguments of LLaMA-Factory that would take the attention away, or that nobody tried with it.
REFUSED = {
    "flash_attn": ("fa2", "fa3"),
    "predict_with_generate": (True,),
    "shift_attn": (True,),
    "use_asft_loss": (True,),
    "use_mca": (True,),
    "use_ray": (True,),
    "use_unsloth": (True,),
    "use_unsloth_gc": (True,),
}


class Block(Params):
    """What the `hsa` block holds beside the keys of `HSAConfig`."""

    preset: str | None = None  # published or noop; keys of HSAConfig override its values
    impl: str = "sdpa"  # sdpa, eager, gather or flex
    semantic_tag: str = "semantic_type"  # the key of a message that names its type
    folder: str | None = None  # settings and learned parameters of an earlier run: its output_dir


@dataclass(frozen=True)
class Settings:
    """Both blocks, checked. `config` is None where the settings come from `block.folder`."""

    block: Block | None = None
    config: HSAConfig | None = None
    feedback: Feedback | None = None


M = TypeVar("M", bound=BaseModel)


def _checked(name: str, model: type[M], values: dict[str, Any], known: Sequence[str] = ()) -> M:
    try:
        # Strict, and by way of JSON, as core.params reads parameters.
        return model.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        found = []
        for one in error.errors(include_url=False):
            key = ".".join([name, *map(str, one["loc"])])
            if one["type"] == "extra_forbidden":
                found.append(f"key {key} is unknown; known there: {', '.join([*known, *model.model_fields])}")
            elif one["type"] == "missing":
                presets = f", or hsa.preset ({', '.join(PRESETS)})" if model is HSAConfig else ""
                found.append(f"key {key} is missing; expected it{presets}")
            else:
                found.append(f"{key} is {shown(one['input'])}: {one['msg'][:1].lower()}{one['msg'][1:]}")
        raise UserError("; ".join(found) + ".") from error


def parse(args: dict[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """The two blocks, and LLaMA-Factory's own arguments with what the blocks ask of them.

    Raises:
        UserError: on an unknown key, preset or implementation, a bad value, or arguments that exclude each other.
    """
    args = dict(args)
    blocks = {name: args.pop(name, False) for name in ("hsa", "feedback")}
    for name, value in blocks.items():
        if value is not False and not isinstance(value, dict | None):
            raise UserError(f"{name} is {shown(value)}; expected a block of keys, or false.")
    if blocks["hsa"] is False and blocks["feedback"] is False:
        return Settings(), args
    if (stage := args.get("stage", "sft")) != "sft":
        raise UserError(f"stage is {shown(stage)}; expected sft with hsa or feedback.")
    for key, values in REFUSED.items():
        if args.get(key) in values:
            raise UserError(f"{key} is {shown(args[key])}, which does not go together with hsa or feedback.")
    block = config = feedback = None
    if blocks["hsa"] is not False:
        block, config = _parse_hsa(blocks["hsa"] or {})
        if config is None or config.learn_pair or config.learn_scale:
            # Reentrant checkpoints take gradients of layer inputs only; the mask of a learned bias comes another way.
            if args.get("use_reentrant_gc"):
                raise UserError("use_reentrant_gc is true; expected false where hsa learns a bias or loads a folder.")
            args["use_reentrant_gc"] = False
    if blocks["feedback"] is not False:
        feedback = _checked("feedback", Feedback, blocks["feedback"] or {})
        if args.get("new_special_tokens_config") is None:  # which would hide add_special_tokens
            tokens = [args["add_special_tokens"]] if args.get("add_special_tokens") else []
            if FEEDBACK_TOKEN not in ",".join(tokens):
                args["add_special_tokens"] = ",".join([*tokens, FEEDBACK_TOKEN])
    return Settings(block, config, feedback), args


def _parse_hsa(values: dict[str, Any]) -> tuple[Block, HSAConfig | None]:
    own = {key: value for key, value in values.items() if key in Block.model_fields}
    rest = {key: value for key, value in values.items() if key not in own}
    block = _checked("hsa", Block, own)
    if block.impl not in IMPLEMENTATIONS:
        raise UserError(f"hsa.impl is {shown(block.impl)}; expected one of {', '.join(IMPLEMENTATIONS)}.")
    if block.preset is not None and block.preset not in PRESETS:
        raise UserError(f"hsa.preset is {shown(block.preset)}; expected one of {', '.join(PRESETS)}.")
    if block.folder is not None:
        if rest or block.preset is not None:
            raise UserError(f"hsa.folder has settings of its own; {shown(list(rest) or block.preset)} is too much.")
        if not (Path(block.folder) / "hsa.json").is_file():
            raise UserError(f"hsa.folder is {block.folder}; expected a folder with hsa.json, as a run with hsa writes.")
        return block, None
    preset = PRESETS[block.preset].model_dump() if block.preset is not None else {}
    return block, _checked("hsa", HSAConfig, {**preset, **rest}, known=tuple(Block.model_fields))
