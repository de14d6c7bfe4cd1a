"""Train the language stand-in. Run: python -m stages.standins.lm --registry ... --out ... --metrics ..."""

import click


@click.command()
@click.option("--registry", required=True, help="Tools, and how people ask for them.")
@click.option("--out", required=True)
@click.option("--metrics", required=True, help="JSON with the quality.")
def main(registry: str, out: str, metrics: str) -> None:
    from qwenlab.core.io import write_json
    from qwenlab.core.params import load
    from qwenlab.standins.lm import Recipe, train

    write_json(metrics, train(load("standins.lm", Recipe), registry, out))


if __name__ == "__main__":
    main()
