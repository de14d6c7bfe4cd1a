"""The two thinkers behind one function: `omni` watches the videos, `scripted` reads the facts beside them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from qwenlab.core.launch import launched
from qwenlab.thinkseg import scripted
from qwenlab.thinkseg.omni import OmniThinker, Thinker, load_thinker
from qwenlab.thinkseg.records import Record, read_records
from qwenlab.thinkseg.sources import facts, question_of
from qwenlab.thinkseg.thinking import Checks, merge, prepare, run_shard, shard_of


def script(records: list[Record]) -> list[str]:
    """Thinkings from the facts of procedural clips; they follow from the ids."""
    texts = []
    for record in records:
        things, tone = facts(record)
        question, asked = question_of(record, things)
        texts.append(scripted.think(things, tone, question, asked, np.random.default_rng([7, *record.id.encode()])))
    return texts


def run(
    name: str,
    thinker: Thinker,
    checks: Checks,
    records_dir: str | Path,
    out: str | Path,
    shard_id: int | None = None,
    num_shards: int | None = None,
) -> None:
    """Think about the records of the sample; merge when this is not one of several shards.

    `scripted` has nothing to say about videos without facts beside them (those of published data sets) and leaves them
    out.
    """
    file = Path(records_dir) / "records.jsonl"
    records = read_records(file)
    think: Callable[[list[Record]], list[str]]
    settings: list[object]
    inputs: list[str | Path]
    if name == "scripted":
        records = [record for record in records if Path(record.video).with_suffix(".json").is_file()]
        batch, settings, inputs, think = 100, ["scripted"], [file, Path(scripted.__file__)], script
    else:
        records = [record for record in records if record.split in thinker.splits]
        batch, settings = thinker.batch, [thinker.model_dump()]
        inputs = [file, *([thinker.model] if Path(thinker.model).exists() else [])]
        think = Lazy(thinker)
    folder = prepare(out, [name, *settings, checks.model_dump()], inputs)
    shard, shards = shard_of(shard_id, num_shards)
    run_shard(think, records, name, checks, batch, folder, shard, shards)
    if not launched() and (shard_id is None or shards == 1):
        print(f"{name}: {merge(records, folder, Path(out))}", flush=True)


class Lazy:
    """The omni thinker, loaded when the first batch is to be thought about: a finished run loads nothing."""

    def __init__(self, thinker: Thinker):
        self.thinker = thinker
        self.loaded: OmniThinker | None = None

    def __call__(self, records: list[Record]) -> list[str]:
        if self.loaded is None:
            self.loaded = load_thinker(self.thinker)
        return self.loaded(records)
