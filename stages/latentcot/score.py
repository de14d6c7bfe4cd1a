"""Score every arm on held-out scenes. Run: python -m stages.latentcot.score --data ... --trained ... --metrics ..."""

import click


@click.command()
@click.option("--data", required=True, help="What the stage latentcot-data wrote.")
@click.option("--trained", required=True, help="Folder of stage1_1, stage1_2, stage1_3 and control.")
@click.option("--metrics", required=True, help="Folder for <arm>.json and <arm>.csv.")
def main(data: str, trained: str, metrics: str) -> None:
    from qwenlab.latentcot.judge_all import run

    run(data, trained, metrics)


if __name__ == "__main__":
    main()
