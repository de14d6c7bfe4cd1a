"""Train the agent stand-in. Run: python -m stages.standins.agent --out ... --metrics ..."""

import click


@click.command()
@click.option("--out", required=True)
@click.option("--metrics", required=True, help="JSON with the quality.")
def main(out: str, metrics: str) -> None:
    from qwenlab.core.io import write_json
    from qwenlab.core.params import load
    from qwenlab.standins.agent import Recipe, train

    write_json(metrics, train(load("standins.agent", Recipe), out))


if __name__ == "__main__":
    main()
