from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_exports(forked_reloads: object) -> None:
    """Most tests here export: to reload each in a process of its own would take seconds."""


@pytest.fixture(scope="session", autouse=True)
def few_timed_queries() -> Iterator[None]:
    """Hundreds of timed queries make figures steady; no test is about time."""
    from embedtrain.workflows import pareto
    from embedtrain.workflows.evaluate import cost, model

    with pytest.MonkeyPatch.context() as patch:
        for module in (cost, model, pareto):
            patch.setattr(module, "TIMED_QUERIES", 5)
        yield


@pytest.fixture
def mined(tmp_path: Path) -> Path:
    """Mined rows by hand, for a judge."""
    from judge_toys import NUMBER, write_mined

    return write_mined(tmp_path / "mined", NUMBER)
