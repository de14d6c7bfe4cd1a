"""Tool registry and profiling data. Run: python -m stages.tomas.profile --registry ... --source ... --out ..."""

from pathlib import Path

import click


@click.command()
@click.option("--registry", required=True, help="JSON with input sizes, tools, and how people ask for them.")
@click.option("--source", required=True, help="A profiling CSV, or the JSON of an analytic latency model.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(registry: str, source: str, out: Path) -> None:
    from qwenlab.core.params import load
    from qwenlab.tomas.prepare import ProfileParams, prepare_profile

    prepare_profile(load("tomas.profile", ProfileParams), registry, source, out)


if __name__ == "__main__":
    main()
