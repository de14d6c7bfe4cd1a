"""Train the student, every seed. Run: python -m stages.thinkseg.student --trainset ... --out ..."""

import sys

import click


@click.command()
@click.option("--trainset", required=True, help="What the stage thinkseg-trainset wrote.")
@click.option("--out", required=True)
def main(trainset: str, out: str) -> None:
    from qwenlab.core.launch import relaunch
    from qwenlab.core.params import load, load_raw
    from qwenlab.thinkseg.student import Student, StudentRuntime, run

    runtime = load("thinkseg.runtime", StudentRuntime)
    if not relaunch(runtime.processes, runtime.device, "stages.thinkseg.student", sys.argv[1:]):
        run(load("thinkseg.student", Student), runtime, load_raw("thinkseg")["seeds"], trainset, out)


if __name__ == "__main__":
    main()
