import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def rows(pairs: Path) -> list[dict[str, object]]:
    """The rows of ``pairs``, in memory."""
    return [json.loads(line) for line in pairs.read_text("utf-8").splitlines()]


@pytest.fixture
def recipe(bert: str) -> dict[str, object]:
    """A recipe without data that trains a tiny encoder in a second."""
    return {
        "description": "Tiny.",
        "model": {"backbone": bert, "query": {"prompt": "query: "}, "document": {"length": 16}},
        "trainer": {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 2},
    }


@pytest.fixture
def trusted_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reloading each export in a fresh process takes long and is tested elsewhere."""
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)
