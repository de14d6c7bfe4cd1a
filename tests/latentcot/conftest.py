import pytest
import torch

from tests.latentcot import vl


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return vl.save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return vl.save_data(tmp_path_factory.mktemp("data") / "train.jsonl")
