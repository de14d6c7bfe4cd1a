"""Seeds and determinism: two cold runs on one machine give byte-identical metrics."""

import os
import random


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch and ask torch for deterministic kernels.

    Kernels without a deterministic form only warn: on a GPU a run may then differ in the last digits
    (seed 001, 6.3), which is why noisy claims are judged on the median over seeds.
    """
    import numpy as np
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
