import os
import sys
from pathlib import Path

import places
import pytest

SCRIPTS = str(places.SCRIPTS)

os.environ.setdefault("DS_ACCELERATOR", "cpu")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and tiny data for runs on several processes."""
    from distributed_toys import write_toys

    folder = tmp_path_factory.mktemp("toys")
    write_toys(folder)
    return folder


@pytest.fixture(scope="session")
def alone(toys):
    """Train a case in one plain process, each once."""
    from distributed_cases import train_case

    known = {}

    def train(case):
        reference = case.alone
        if reference not in known:
            known[reference] = train_case(reference, toys)
        return known[reference]

    return train


@pytest.fixture(scope="session", autouse=True)
def quick_exports(forked_reloads: object) -> None:
    """Some tests here export: to reload each in a process of its own would take seconds."""
