"""Judge the loop on held-out prompts. Run: python -m stages.latentcot.loop --latent ... --text ... --metrics ..."""

from pathlib import Path

import click


@click.command()
@click.option("--latent", required=True, type=click.Path(path_type=Path), help="Reflectors with latents, seed<N> each.")
@click.option("--text", required=True, type=click.Path(path_type=Path), help="Reflectors of the control, seed<N> each.")
@click.option("--metrics", required=True, help="Folder for loop*.json, loop.csv and strips.png.")
def main(latent: Path, text: Path, metrics: str) -> None:
    import torch

    from qwenlab.core.params import load, load_raw
    from qwenlab.latentcot.drawing import Images
    from qwenlab.latentcot.loop_metrics import Loop
    from qwenlab.latentcot.loop_run import run
    from qwenlab.latentcot.reflect import from_parameters

    torch.set_num_threads(1)  # small layers: a second thread costs more than it brings, and sums in another order

    def reflector(arm: str, seed: int):
        folder = {"latent": latent, "text": text}[arm] / f"seed{seed}"
        return from_parameters(folder, latents=arm == "latent")

    run(
        load("latentcot.images", Images),
        load("latentcot.loop", Loop),
        load_raw("latentcot")["seeds"],
        reflector,
        metrics,
    )


if __name__ == "__main__":
    main()
