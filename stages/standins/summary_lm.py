"""Train the base of thinkseg's student. Run: python -m stages.standins.summary_lm --out ... --metrics ..."""

import click


@click.command()
@click.option("--out", required=True)
@click.option("--metrics", required=True, help="JSON with the quality.")
def main(out: str, metrics: str) -> None:
    from qwenlab.core.io import write_json
    from qwenlab.core.params import load
    from qwenlab.standins.summary_lm import Recipe, train

    write_json(metrics, train(load("standins.summary_lm", Recipe), out))


if __name__ == "__main__":
    main()
