"""Times of alternatives, side by side in one process."""

import statistics
import time
from collections.abc import Callable


def interleaved(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each callable, run in turns so that drift of the machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for call in runs.values():
        call()  # warm-up
    for _ in range(repeats):
        for name, call in runs.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
