"""Summaries of held-out thinkings by one arm. Run: python -m stages.thinkseg.summarize student --thinkings ... etc."""

from pathlib import Path

import click


@click.command()
@click.argument("arm")
@click.option("--thinkings", required=True, type=click.Path(path_type=Path), help="Folder of <thinker>/thinking.jsonl.")
@click.option("--students", help="What the stage thinkseg-student wrote; not needed for the base.")
@click.option("--out", required=True)
def main(arm: str, thinkings: Path, students: str | None, out: str) -> None:
    from qwenlab.core.params import load, load_raw
    from qwenlab.thinkseg.student import StudentRuntime
    from qwenlab.thinkseg.summarize import Decode, run

    files = {file.parent.name: file for file in sorted(thinkings.glob("*/thinking.jsonl"))}
    adapter = load_raw(f"thinkseg.arms.{arm}")["writer"] == "adapter"
    if not adapter:  # the base is compared on one thinker only
        feed = load_raw("thinkseg.feed")["thinker"]
        files = {feed: files[feed]}
    runtime, decode = load("thinkseg.runtime", StudentRuntime), load("thinkseg.decode", Decode)
    run(arm, runtime, decode, files, load_raw("thinkseg")["seeds"], students if adapter else None, out)


if __name__ == "__main__":
    main()
