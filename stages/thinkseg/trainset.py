"""Build the student's training set. Run: python -m stages.thinkseg.trainset --thinkings ... --out ..."""

from pathlib import Path

import click


@click.command()
@click.option("--thinkings", required=True, type=click.Path(path_type=Path), help="Folder of <thinker>/thinking.jsonl.")
@click.option("--summaries", required=True, help="What the stage thinkseg-summaries wrote.")
@click.option("--out", required=True)
def main(thinkings: Path, summaries: str, out: str) -> None:
    from qwenlab.core.params import load, load_raw
    from qwenlab.thinkseg.trainset import Trainset, run

    file = thinkings / load_raw("thinkseg.feed")["thinker"] / "thinking.jsonl"
    run(load("thinkseg.trainset", Trainset), file, Path(summaries) / "summaries.jsonl", out)


if __name__ == "__main__":
    main()
