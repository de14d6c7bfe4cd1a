"""The whole chain for videos of one's own: thinking, summary, segmentation, mask video (seed 004, stage six).

Each model is loaded once, and freed before the next where memory is short: all thinkings, then all summaries, then all
masks. What is done is written as it is done.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenlab.core.errors import UserError
from qwenlab.core.io import make_dir, write_json
from qwenlab.thinkseg.omni import Thinker, load_thinker
from qwenlab.thinkseg.records import Record, Thinking
from qwenlab.thinkseg.sam3 import Sam3Params
from qwenlab.thinkseg.segment import Segmenter, write_outputs
from qwenlab.thinkseg.student import StudentRuntime
from qwenlab.thinkseg.summarize import Decode, Summariser
from qwenlab.thinkseg.summary import Summary, parse_summary
from qwenlab.thinkseg.thinkers import script
from qwenlab.thinkseg.thinking import Checks, checked

RESULTS = "full_pipeline_results.json"  # the seed's name


@dataclass(frozen=True)
class Chain:
    """All settings of the chain."""

    thinker: Thinker
    checks: Checks
    runtime: StudentRuntime
    decode: Decode
    adapter: Path | None
    sam3: Sam3Params
    scripted: bool = False  # facts beside procedural clips in the place of the thinker
    max_frames: int | None = None
    overlay_frames: bool = False


def run(
    chain: Chain,
    records: Sequence[Record],
    out: str | Path,
    advance: Callable[[], object] = lambda: None,
    warn: Callable[[str], object] = print,
) -> list[dict[str, Any]]:
    """Every record through the chain; writes `<out>/<id>/` and one results file, and returns what is in it.

    A thinking without its tags, or a summary that breaks the schema, is reported in its result; nothing is segmented
    then. A video that cannot be read is reported, and the others go on.
    """
    out = make_dir(out)
    results: dict[str, dict[str, Any]] = {}
    fine: list[Record] = []
    for record in records:
        results[record.id] = {"id": record.id, "video": record.video, "question": record.question,
                              "options": record.options}  # fmt: skip
        if Path(record.video).is_file():
            fine.append(record)
        else:
            results[record.id]["error"] = f"{record.video}: no such video."
    thinkings = _watch(chain, fine, results, advance) if fine else {}
    _summarise(chain, thinkings, results)
    gc.collect()
    todo = [record for record in records if results[record.id].get("summary")]
    if todo:
        segmenter = Segmenter.load(chain.sam3)
        for record in todo:
            result = results[record.id]
            try:
                found = segmenter.segment(record.video, result["summary"]["sam3_phrases"], chain.max_frames)
                result["segmentation"] = write_outputs(found, out / record.id, chain.overlay_frames)
                result["mask_video"] = (out / record.id / "mask_video.mp4").as_posix()
            except UserError as error:
                result["error"] = error.format_message()
            write_json(out / record.id / "result.json", result)
            advance()
    for result in results.values():
        if "error" in result:
            warn(f"{result['id']}: {result['error']}")
    rows = list(results.values())
    write_json(out / RESULTS, {"results": rows})
    return rows


def _watch(chain: Chain, records: Sequence[Record], results: dict, advance: Callable[[], object]) -> dict:
    """Thinkings by id, one by one, so that a bad video harms no other; the model is freed afterwards."""
    name, think = ("scripted", script) if chain.scripted else ("omni", load_thinker(chain.thinker))
    found: dict[str, Thinking] = {}
    for record in records:
        try:
            found[record.id] = checked(record, name, think([record])[0], chain.checks)  # type: ignore[operator]
        except UserError as error:
            results[record.id]["error"] = error.format_message()
        advance()
    return found


def _summarise(chain: Chain, thinkings: dict[str, Thinking], results: dict[str, dict[str, Any]]) -> None:
    """Put thinking, answer and summary into the results."""
    usable = []
    for name, one in thinkings.items():
        results[name] |= {"thinker": one.thinker, "context": one.context, "thinking": one.thinking,
                          "answer": one.answer}  # fmt: skip
        if one.context or one.thinking:
            usable.append(one)
        else:
            results[name]["error"] = f"the thinking cannot be used: {one.problem or 'it is empty'}."
    if not usable:
        return
    summariser = Summariser(chain.runtime, chain.decode, chain.adapter)
    for start in range(0, len(usable), chain.decode.batch):
        group = usable[start : start + chain.decode.batch]
        for one, text in zip(group, summariser.write([one.material for one in group]), strict=True):
            try:
                summary: Summary = parse_summary(text)
            except ValueError as error:
                results[one.id]["error"] = f"the summary cannot be used: {error}."
                continue
            results[one.id] |= {"summary": summary.model_dump(), "sam3_instruction": summary.instruction(),
                                "summary_text": summary.markdown()}  # fmt: skip
