"""Stage 1-2: latents carry the auxiliary image. Run: python -m stages.latentcot.stage1_2 --data ... --out ..."""

import sys

import click


@click.command()
@click.option("--data", required=True, help="What the stage latentcot-data wrote.")
@click.option("--start", required=True, help="Checkpoints of the stage before.")
@click.option("--teacher", required=True, help="Teacher states, made with those checkpoints.")
@click.option("--out", required=True)
def main(data: str, start: str, teacher: str, out: str) -> None:
    from qwenlab.core.launch import relaunch
    from qwenlab.core.params import load
    from qwenlab.latentcot.checkpoint import Runtime
    from qwenlab.latentcot.stage import train

    runtime = load("latentcot.runtime", Runtime)
    if not relaunch(runtime.processes, runtime.device, "stages.latentcot.stage1_2", sys.argv[1:]):
        train("stage1-2", data, out, start, teacher)


if __name__ == "__main__":
    main()
