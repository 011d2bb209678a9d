"""What a local folder of Qdrant may hold: points, and no code."""

import pickle
import sqlite3
from pathlib import Path

import engine_toys as toys
import pytest

from embedtrain.engines.open import open_engine
from embedtrain.errors import UserError


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore")
def test_a_pickle_that_is_no_point_is_refused_and_not_run(tmp_path):
    pytest.importorskip("qdrant_client")
    url = f"qdrant://{tmp_path}/store/docs"
    with open_engine(url, writes=True) as engine:
        engine.settle(toys.layout(*toys.KINDS))
        engine.write(toys.records(toys.KINDS)[:3])
    with open_engine(url) as engine:
        assert engine.count() == 3
    (file,) = (tmp_path / "store").rglob("*.sqlite")
    with sqlite3.connect(file) as base:
        content = pickle.dumps(Touch(tmp_path / "pwned"))
        base.execute("UPDATE points SET point = ?", [content])
    base.close()
    with pytest.raises(UserError, match="a pickle that names"), open_engine(url):
        pass
    assert not (tmp_path / "pwned").exists()
