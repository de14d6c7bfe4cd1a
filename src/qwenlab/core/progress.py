"""The progress bar that long computations share."""

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress(**kwargs) -> Progress:
    """A bar with count, elapsed and remaining time; keyword arguments go to `rich.progress.Progress`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        **kwargs,
    )
