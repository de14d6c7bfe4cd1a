"""What a thinker saw and heard. Run: python -m stages.thinkseg.thinker_score omni --records ... --metrics ..."""

from pathlib import Path

import click


@click.command()
@click.argument("thinker")
@click.option("--records", required=True, help="What the stage thinkseg-sample wrote.")
@click.option("--thinkings", required=True, help="Folder of the thinker's thinking.jsonl.")
@click.option("--summaries", required=True, help="Folder of the student's <thinker>.jsonl.")
@click.option("--labels", required=True, help="The teacher's summaries, for videos without facts.")
@click.option("--metrics", required=True, help="JSON to write; a CSV goes beside it.")
def main(thinker: str, records: str, thinkings: str, summaries: str, labels: str, metrics: str) -> None:
    from qwenlab.thinkseg.score import score_thinker

    score_thinker(
        thinker,
        Path(records) / "records.jsonl",
        Path(thinkings) / "thinking.jsonl",
        Path(summaries) / f"{thinker}.jsonl",
        Path(labels) / "summaries.jsonl",
        Path(metrics),
    )


if __name__ == "__main__":
    main()
