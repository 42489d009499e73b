import pytest
from support.scripts import PRETRAIN, keys_of, make_text, python

from .slurm import Slurm


@pytest.fixture(scope="session")
def slurm():
    """Four nodes that all tests use which leave them as they are."""
    with Slurm() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder that every rank sees, with a tokenizer and two corpora in it."""
    return make_text(tmp_path_factory.mktemp("system"))


@pytest.fixture(scope="session")
def keys(place):
    return keys_of(place)


@pytest.fixture(scope="session")
def alone(place, keys):
    """The run of one process with which all others are compared."""
    python(*PRETRAIN, *keys, f"folder={place}/alone")
    return place / "alone"
