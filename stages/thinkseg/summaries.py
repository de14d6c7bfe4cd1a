"""Have thinkings summarised by the teacher. Run: python -m stages.thinkseg.summaries --thinkings ... --out ..."""

from pathlib import Path

import click


@click.command()
@click.option("--thinkings", required=True, type=click.Path(path_type=Path), help="Folder of <thinker>/thinking.jsonl.")
@click.option("--out", required=True)
@click.option("--metrics", required=True, help="JSON with the account: valid rows, tokens, cost.")
def main(thinkings: Path, out: str, metrics: str) -> None:
    from qwenlab.core.params import load, load_raw
    from qwenlab.thinkseg.label import run
    from qwenlab.thinkseg.local_server import Faults
    from qwenlab.thinkseg.teacher import Teacher

    file = thinkings / load_raw("thinkseg.feed")["thinker"] / "thinking.jsonl"
    run(load("thinkseg.teacher", Teacher), load("thinkseg.faults", Faults), file, out, metrics)


if __name__ == "__main__":
    main()
