from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_exports(forked_reloads: object) -> None:
    """Most tests here export: to reload each in a process of its own would take seconds."""


@pytest.fixture(scope="session", autouse=True)
def few_timed_searches(few_timed_queries: None) -> Iterator[None]:
    """An index and each form of ``pareto`` are timed by searches of their own number."""
    from embedtrain.workflows import pareto
    from embedtrain.workflows.evaluate import index_cost

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_cost, "TIMED", 5)
        patch.setattr(pareto, "TIMED_QUERIES", 5)
        yield


@pytest.fixture
def mined(tmp_path: Path) -> Path:
    """Mined rows by hand, for a judge."""
    from judge_toys import NUMBER, write_mined

    return write_mined(tmp_path / "mined", NUMBER)
