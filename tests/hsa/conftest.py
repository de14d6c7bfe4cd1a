"""Tiny random models of every family that semantic attention is for."""

import copy

import pytest
import torch

from qwenlab.hsa.exactness import FAMILIES, build


@pytest.fixture(scope="session")
def models():
    """One untouched model a family."""
    return {family: build(family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def model(request, models):
    """A copy to attach to, of every family in turn."""
    return copy.deepcopy(models[request.param])


@pytest.fixture
def qwen2(models):
    return copy.deepcopy(models["qwen2"])


@pytest.fixture(scope="session")
def ids() -> torch.Tensor:
    """Tokens `[2, 20]`, none of them special."""
    return torch.randint(2, 60, (2, 20), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def types() -> torch.Tensor:
    """Their types `[2, 20]`, all three of them in both rows."""
    return torch.randint(0, 3, (2, 20), generator=torch.Generator().manual_seed(2))
