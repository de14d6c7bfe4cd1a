"""Thinkings of one thinker. Run: python -m stages.thinkseg.thinking omni --records ... --out ... [--shard-id 0]

Without --shard-id everything is thought and merged. Shards write into one folder; the last call, without --shard-id,
finds what they have done and merges it.
"""

import sys

import click


@click.command()
@click.argument("thinker", type=click.Choice(["scripted", "omni"]))
@click.option("--records", required=True, help="What the stage thinkseg-sample wrote.")
@click.option("--out", required=True)
@click.option("--shard-id", type=int, help="Do this shard only, and do not merge.")
@click.option("--num-shards", type=int, help="Number of shards (seed 004: one a GPU).")
def main(thinker: str, records: str, out: str, shard_id: int | None, num_shards: int | None) -> None:
    from qwenlab.core.launch import relaunch
    from qwenlab.core.params import load
    from qwenlab.thinkseg.omni import Thinker
    from qwenlab.thinkseg.thinkers import run
    from qwenlab.thinkseg.thinking import Checks

    runtime, checks = load("thinkseg.thinker", Thinker), load("thinkseg.checks", Checks)
    alone = shard_id is None
    several = thinker == "omni" and runtime.processes > 1 and alone
    if several and relaunch(runtime.processes, runtime.device, "stages.thinkseg.thinking", sys.argv[1:]):
        shard_id, num_shards = 0, 1  # what the processes have done is found, and merged
    run(thinker, runtime, checks, records, out, shard_id, num_shards)


if __name__ == "__main__":
    main()
