"""Numbers of several seeds as one, for metrics files."""

import statistics


def rounded(value):
    """Six significant digits, all through a nested result; None is left out."""
    if isinstance(value, dict):
        return {key: rounded(child) for key, child in value.items() if child is not None}
    return float(f"{value:.6g}")


def medians(by_seed: dict[str, dict]) -> dict:
    """The median over seeds of every number in results of the same shape."""
    first = next(iter(by_seed.values()))
    return {
        key: medians({seed: one[key] for seed, one in by_seed.items()})
        if isinstance(value, dict)
        else statistics.median(one[key] for one in by_seed.values())
        for key, value in first.items()
    }
