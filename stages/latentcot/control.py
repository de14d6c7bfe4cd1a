"""A control arm: text, or pause. Run: python -m stages.latentcot.control text --data ... --out ..."""

import sys

import click


@click.command()
@click.option("--data", required=True, help="What the stage latentcot-data wrote.")
@click.argument("arm")
@click.option("--out", required=True)
def main(data: str, arm: str, out: str) -> None:
    from qwenlab.core.launch import relaunch
    from qwenlab.core.params import load
    from qwenlab.latentcot.checkpoint import Runtime
    from qwenlab.latentcot.stage import train

    runtime = load("latentcot.runtime", Runtime)
    if not relaunch(runtime.processes, runtime.device, "stages.latentcot.control", sys.argv[1:]):
        train(arm, data, out)


if __name__ == "__main__":
    main()
