"""Several training processes under accelerate, the one distributed engine of this project."""

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
    if device == "cpu":
        # Not `accelerate launch --cpu`: it starts one process, whatever --num_processes says. This is what it runs
        # for GPUs; accelerate finds its processes in the environment either way.
        start = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    else:
        start = [
            "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1",
            "--mixed_precision", "no", "--dynamo_backend", "no",
        ]  # fmt: skip
    command = [sys.executable, "-m", *start, "-m", module, *arguments]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return True
