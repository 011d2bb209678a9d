"""What is PostgreSQL's alone: how an index is asked and named, and how a server is reached."""

import json
import re
from collections.abc import Iterator

import engine_toys as toys
import numpy as np
import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.engines.engine import Document, Entries, Record
from embedtrain.engines.layout import Layout
from embedtrain.engines.open import open_engine
from embedtrain.engines.postgres import NAME_BYTES, index_name
from embedtrain.errors import UserError
from embedtrain.workflows.load.load import load

FINISHED = {"is_finished": True}


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with toys.postgres() as address:
        yield address


def test_an_index_gives_as_many_results_as_are_wanted(postgres):
    rows = toys.vectors("dense", 1500, zero=False)
    layout = toys.layout("dense", **FINISHED)
    with open_engine(f"{postgres}&table=many&index=hnsw") as engine:
        engine.settle(layout.model_copy(update={"is_finished": False}))
        engine.write(
            [Record(Document(f"d{n}", None, {}, ""), {"dense": row}) for n, row in enumerate(rows)]
        )
        assert engine.is_exact(layout.fields[0])
        engine.settle(layout)
        assert not engine.is_exact(layout.fields[0])
        engine._connection.execute("SET enable_seqscan = off")
        query = toys.vectors("dense", 1, seed=9)
        for wanted in (100, 1, 1200):
            assert len(engine.search(layout.fields[0], query, wanted)[0]) == wanted


def test_a_sparse_document_too_long_for_an_index_is_refused_by_name(postgres):
    layout = Layout(fields=(toys.field("sparse", dim=2000),))
    entries = Entries(np.arange(1001, dtype=np.int32), np.ones(1001, np.float32))
    record = Record(Document("long one", "a", {}, ""), {"sparse": entries})
    with open_engine(f"{postgres}&table=long&index=hnsw") as engine:
        engine.settle(layout)
        with pytest.raises(UserError, match=r"document long one has more than the 1,000.*top_k"):
            engine.write([record])
    with open_engine(f"{postgres}&table=long") as engine:
        assert engine.describe() == layout
        engine.write([record])
        assert engine.count() == 1


def test_two_columns_of_a_long_table_have_an_index_each(postgres):
    table = "t" * 60
    fields = (toys.field("dense"), toys.field("dense", name="dense2", model="another"))
    with open_engine(f"{postgres}&table={table}&index=hnsw") as engine:
        engine.settle(Layout(fields=fields, **FINISHED))
        assert not any(map(engine.is_exact, fields))
    with pytest.raises(UserError, match="by too many bytes; got 64"):
        open_engine(f"{postgres}&table={'t' * 64}").__enter__()
    names = {index_name(table, one.name) for one in fields}
    assert {len(one) for one in names} == {NAME_BYTES}
    assert len(names) == 2
    assert len(index_name("ä" * 31, "dense").encode()) <= NAME_BYTES
    assert index_name("docs", "dense") == "docs_dense_hnsw"


def test_a_socket_and_options_with_blanks_reach_the_server(postgres):
    [host] = re.findall("host=([^&]+)", postgres)
    more = "user=postgres&options=-c%20statement_timeout%3D12000"
    with open_engine(f"postgresql:///postgres?host={host}&{more}") as engine:
        assert engine.place == "postgresql:///postgres"
        assert engine._connection.execute("SHOW statement_timeout").fetchone() == ("12s",)


def test_evaluate_measures_what_the_server_finds(postgres, bert, beir, tmp_path):
    url = f"{postgres}&table=judged&index=hnsw"
    load([bert], str(beir), url)
    found = []
    for more in ((), ("--index", url)):
        place = tmp_path / f"{len(more)}.json"
        words = ["evaluate", bert, "--data", beir, "--no-efficiency", "--output", place, *more]
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.exit_code == 0, done.exception
        found.append(json.loads(place.read_text()))
    ours, theirs = found
    assert theirs["per_query"] == ours["per_query"]
    assert theirs["index"]["recall"]["recall_at_10"] == 1
