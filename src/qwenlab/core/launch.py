"""Several training processes, by way of `accelerate launch`: the one distributed engine of this project."""

import os
import subprocess
import sys
from collections.abc import Sequence


def launched() -> bool:
    """Whether this process was started by a launcher."""
    return "WORLD_SIZE" in os.environ


def main_process() -> bool:
    """Whether this process writes files: the only one, or the first of several."""
    return int(os.environ.get("RANK", "0")) == 0


def relaunch(processes: int, device: str, module: str, arguments: Sequence[str]) -> bool:
    """Start `python -m module arguments` in `processes` processes and wait; False when that is not needed.

    Raises:
        SystemExit: with the launcher's exit code when it fails.
    """
    if processes <= 1 or launched():
        return False
    where = ["--cpu"] if device == "cpu" else ["--multi_gpu"]
    command = [
        sys.executable, "-m", "accelerate.commands.launch", *where, "--num_processes", str(processes),
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", module, *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return True
