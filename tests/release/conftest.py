from collections.abc import Iterator
from functools import cache

import pytest
from small_backbones import save_bert


@pytest.fixture(scope="session", autouse=True)
def quick_exports(forked_reloads: object) -> None:
    """Most tests here export: to reload each in a process of its own would take seconds."""


@pytest.fixture(scope="session")
def shallow_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of one layer: what exporters write of a second is more of the same, and takes as long again."""
    return str(save_bert(tmp_path_factory.mktemp("shallow-bert"), layers=1))


@pytest.fixture(scope="session")
def known_operations() -> Iterator[None]:
    """Let torch read once, not for each graph, what ONNX can say: a tenth of the time of a graph."""
    exporter = pytest.importorskip("torch.onnx._internal.exporter._registration")
    read_once = staticmethod(cache(exporter.ONNXRegistry.from_torchlib))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter.ONNXRegistry, "from_torchlib", read_once)
        yield
