import pytest
from small_backbones import save_bert


@pytest.fixture(scope="session", autouse=True)
def quick_exports(forked_reloads: object) -> None:
    """Most tests here export: to reload each in a process of its own would take seconds."""


@pytest.fixture(scope="session")
def shallow_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of one layer: what exporters write of a second is more of the same, and takes as long again."""
    return str(save_bert(tmp_path_factory.mktemp("shallow-bert"), layers=1))
