"""Two processes train a latent stage together as one does alone."""

import json
import os
import subprocess
import sys

from qwenlab.latentcot import precompute
from qwenlab.latentcot.train import run_job
from tests.latentcot import vl
from tests.latentcot.test_train import job

MODULE = """
import json, sys
import torch; torch.set_num_threads(1)
from dataclasses import replace
from qwenlab.core.launch import relaunch, main_process
from tests.latentcot import vl
from tests.latentcot.test_train import job
from qwenlab.latentcot.train import run_job
base, data, root = sys.argv[1:4]
if not relaunch(2, "cpu", "train_in_two", sys.argv[1:]):
    one = job("stage1-2", base, data, root + "/two", root + "/s11", root + "/reps")
    one = replace(one, runtime=vl.runtime(base, processes=2))
    facts = run_job(one)
    if main_process():
        print("LOSS", json.dumps(facts["training_loss"]), flush=True)
"""


def test_two_processes_reach_the_loss_of_one(base, data, tmp_path, root):
    run_job(job("stage1-1", base, data, tmp_path / "s11"))
    precompute.run("rep", tmp_path / "s11", data, tmp_path / "reps", vl.runtime(str(base)), vl.METHOD, packed=True)
    alone = run_job(job("stage1-2", base, data, tmp_path / "one", tmp_path / "s11", tmp_path / "reps"))
    (tmp_path / "train_in_two.py").write_text(MODULE)
    env = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK")}
    env |= {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, root / "src", root))), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "train_in_two", str(base), str(data), str(tmp_path)], env=env, capture_output=True,
        text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    together = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("LOSS")).split()[1])
    # Each process takes the mean over its own tokens: the mean of both is nearly the mean over all.
    assert abs(together - alone["training_loss"]) < 0.02 * alone["training_loss"]
    assert (tmp_path / "two" / "model.safetensors").is_file()
