"""Stage 1-1: the auxiliary image is seen. Run: python -m stages.latentcot.stage1_1 --data ... --out ..."""

import sys

import click


@click.command()
@click.option("--data", required=True, help="What the stage latentcot-data wrote.")
@click.option("--out", required=True)
def main(data: str, out: str) -> None:
    from qwenlab.core.launch import relaunch
    from qwenlab.core.params import load
    from qwenlab.latentcot.checkpoint import Runtime
    from qwenlab.latentcot.stage import train

    runtime = load("latentcot.runtime", Runtime)
    if not relaunch(runtime.processes, runtime.device, "stages.latentcot.stage1_1", sys.argv[1:]):
        train("stage1-1", data, out)


if __name__ == "__main__":
    main()
