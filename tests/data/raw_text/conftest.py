import json

import pytest

from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source


@pytest.fixture
def rows(tmp_path):
    """Make rows of documents: rows(documents, pairs=..., ...)."""

    def make(documents, **settings):
        lines = [one if isinstance(one, dict) else {"text": one} for one in documents]
        path = tmp_path / "corpus.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        return list(open_source(SourceConfig(path=str(path), **settings)).examples())

    return make
