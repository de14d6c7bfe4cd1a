"""Score one arm on held-out clips. Run: python -m stages.thinkseg.score student --records ... --summaries ..."""

from pathlib import Path

import click


@click.command()
@click.argument("arm")
@click.option("--records", required=True, help="What the stage thinkseg-sample wrote.")
@click.option("--summaries", required=True, type=click.Path(path_type=Path), help="The arm's file, or its folder.")
@click.option("--labels", required=True, help="The teacher's summaries, right by definition where no facts are known.")
@click.option("--account", required=True, help="The teacher's account.")
@click.option("--metrics", required=True, help="Folder for <arm>.json and <arm>.csv.")
def main(arm: str, records: str, summaries: Path, labels: str, account: str, metrics: str) -> None:
    from qwenlab.core.io import read_json
    from qwenlab.core.params import load_raw
    from qwenlab.thinkseg.score import score_arm

    teacher = load_raw(f"thinkseg.arms.{arm}")["writer"] == "teacher"
    file = summaries if teacher else summaries / f"{load_raw('thinkseg.feed')['thinker']}.jsonl"
    cost = read_json(account)["cost_usd_a_sample"] if teacher else 0.0
    score_arm(arm, Path(records) / "records.jsonl", file, Path(labels) / "summaries.jsonl", cost, metrics)


if __name__ == "__main__":
    main()
