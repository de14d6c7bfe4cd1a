"""Judge the loop on held-out prompts. Run: python -m stages.latentcot.loop --reflectors ... --metrics ..."""

from pathlib import Path

import click


@click.command()
@click.option("--reflectors", required=True, type=click.Path(path_type=Path), help="Folder with one seed<N> a seed.")
@click.option("--metrics", required=True, help="Folder for loop.json, loop.csv, loop_heuristic.json and strips.png.")
def main(reflectors: Path, metrics: str) -> None:
    from qwenlab.core.params import load, load_raw
    from qwenlab.latentcot.drawing import Images
    from qwenlab.latentcot.loop_metrics import Loop
    from qwenlab.latentcot.loop_run import run
    from qwenlab.latentcot.reflect import load_reflector

    images, seeds = load("latentcot.images", Images), load_raw("latentcot")["seeds"]
    models = {seed: load_reflector(str(reflectors / f"seed{seed}"), images.device) for seed in seeds}
    run(images, load("latentcot.loop", Loop), seeds, models, metrics)


if __name__ == "__main__":
    main()
