"""Several processes: all of them start, once."""

import os
import subprocess
import sys
from pathlib import Path

MODULE = """
import os, sys
from qwenlab.core.launch import main_process, relaunch
if not relaunch(2, "cpu", "two_of_me", sys.argv[1:]):
    # One write: print would send the line end by itself, and the lines of two processes would run into each other.
    said = f"{os.environ['RANK']} of {os.environ['WORLD_SIZE']}, writes: {main_process()}, {sys.argv[1]}\\n"
    os.write(1, said.encode())
"""


def test_two_cpu_processes_start_and_do_not_start_others(tmp_path: Path, root: Path):
    (tmp_path / "two_of_me.py").write_text(MODULE)
    env = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK")}
    env |= {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root / 'src'}", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(
        [sys.executable, "-m", "two_of_me", "word"], env=env, check=True, capture_output=True, text=True, timeout=100
    ).stdout
    assert sorted(said.split("\n"))[-2:] == ["0 of 2, writes: True, word", "1 of 2, writes: False, word"]
