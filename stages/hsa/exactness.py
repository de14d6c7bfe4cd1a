"""Measure what has to be exact. Run: python -m stages.hsa.exactness --metrics metrics/hsa/exactness.json"""

import click


@click.command()
@click.option("--metrics", required=True)
def main(metrics: str) -> None:
    from qwenlab.core.io import write_json
    from qwenlab.hsa.exactness import measure

    found = measure()
    write_json(metrics, found)
    click.echo(f"exactness: {found['worst']}")


if __name__ == "__main__":
    main()
