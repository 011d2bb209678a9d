"""Every engine keeps the same odd documents and finds what exact search finds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import engine_toys as toys
import numpy as np
import pytest

from embedtrain.engines.engine import rows_of
from embedtrain.engines.layout import Layout
from embedtrain.engines.open import open_engine
from embedtrain.errors import UserError
from embedtrain.retrieval.search import search


@dataclass(frozen=True)
class Case:
    url: str
    kinds: tuple[str, ...]
    package: str | None = None


DENSE_SPARSE = ("dense", "sparse")
CASES = {
    "qdrant": Case("qdrant://{folder}/store/docs", toys.KINDS, "qdrant_client"),
    "lancedb": Case("lancedb://{folder}/docs", ("dense", "late_interaction"), "lancedb"),
    "postgresql": Case("{postgres}&table=docs", toys.KINDS, "psycopg"),
    "milvus": Case("milvus://{folder}/store.db/docs", DENSE_SPARSE, "milvus_lite"),
    "jsonl": Case("jsonl://{folder}/docs", toys.KINDS),
    "elasticsearch": Case("elasticsearch://{folder}/docs", toys.KINDS),
    "opensearch": Case("opensearch://{folder}/docs", toys.KINDS),
    "vespa": Case("vespa://{folder}/docs", toys.KINDS),
}
IDS = toys.IDS


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with toys.postgres() as address:
        yield address


def address_of(name: str, folder: Path, request: pytest.FixtureRequest) -> str:
    case = CASES[name]
    if case.package:
        pytest.importorskip(case.package)
    server = request.getfixturevalue("postgres") if "{postgres}" in case.url else ""
    return case.url.format(folder=folder, postgres=server)


@pytest.mark.filterwarnings("ignore")  # of clients' own libraries
@pytest.mark.parametrize("name", CASES)
def test_a_collection_keeps_documents_and_finds_them(name, tmp_path, request):
    url, kinds = address_of(name, tmp_path, request), CASES[name].kinds
    layout = toys.layout(*kinds)
    with open_engine(url, writes=True) as engine:
        assert engine.describe() is None
        engine.settle(layout)
        assert engine.describe() == layout
        every = [
            one for one in toys.records(kinds)
            if engine.takes_empty >= {"sparse"} or not any(map(toys.is_nothing, one.vectors.values()))
        ]  # fmt: skip
        engine.write(every[:12])
        engine.write(every[8:])  # some of them again
        engine.settle(replace_finished(layout))
        assert engine.count() == len(every)
    with open_engine(url) as engine:
        assert engine.describe() == replace_finished(layout)
        assert sorted(engine.ids()) == sorted(one.document.id for one in every)
        kept = {one.document.id: one.document.hash for one in every}
        assert engine.hashes([*IDS, "none"]) == kept
        for kind in kinds:
            check_search(engine, kind)
        newer = toys.records(kinds, version="2")[4:5]
        changed = [replace(one, document=replace(one.document, text="new")) for one in newer]
        engine.write(changed)
        engine.delete([IDS[1], IDS[2]])
        assert engine.count() == len(every) - 2
        assert engine.hashes(IDS[:5])[IDS[4]] == "2 4"
        [found] = engine.search(toys.field(kinds[0]), part(toys.vectors(kinds[0]), 4), 1)
        assert (found[0].id, found[0].text) == (IDS[4], "new")


def replace_finished(layout):
    return layout.model_copy(update={"is_finished": True})


def part(vectors, number):
    rows = slice(number, number + 1)
    return vectors[rows] if hasattr(vectors, "shape") else vectors.part(rows.start, rows.stop)


def check_search(engine, kind):
    queries = toys.vectors(kind, 5, seed=9, zero=False)
    ours = search(queries, toys.vectors(kind), 5)
    found = engine.search(toys.field(kind), queries, 5)
    assert [[one.id for one in row] for row in found] == [
        [IDS[index] for index in row] for row in ours.indices
    ]
    for row, scores in zip(found, ours.scores, strict=True):
        assert [one.score for one in row] == pytest.approx(scores.tolist(), abs=1e-5)
        assert [one.text for one in row] == [f"text of {one.id}" for one in row]
    if kind == "dense":  # a vector of zeros is found, with a score and no NaN
        [every] = engine.search(toys.field(kind), queries[:1], 30)
        scores = {one.id: one.score for one in every}
        assert scores.get(IDS[3], 0.0) == 0.0
        assert len(every) == engine.count()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "store", "more", "tolerance"),
    [
        ("postgresql", "float16", "_half&index=hnsw", 1e-3),
        ("postgresql", "binary", "_bits&index=hnsw", 0),
        ("lancedb", "float16", "", 1e-3),
    ],
)
def test_halves_and_bits_are_found_by_their_own_scores(
    name, store, more, tolerance, tmp_path, request
):
    url = address_of(name, tmp_path, request) + more
    with open_engine(url) as engine:
        layout = toys.layout("dense", store=store)
        engine.settle(layout)
        engine.write(toys.records(("dense",)))
        engine.settle(replace_finished(layout))
        queries = toys.vectors("dense", 3, seed=9)
        found = engine.search(toys.field("dense", store), queries, 20)
    documents = dict(zip(IDS, rows_of(toys.vectors("dense")), strict=True))
    for query, row in zip(queries, found, strict=True):
        for one in row:
            document = documents[one.id]
            signs = (
                [1 if value > 0 else -1 for value in document] if store == "binary" else document
            )
            asked = [1 if value > 0 else -1 for value in query] if store == "binary" else query
            assert one.score == pytest.approx(
                sum(a * b for a, b in zip(signs, asked, strict=True)), abs=tolerance
            )


def test_what_postgres_cannot_hold_is_one_line(postgres):
    pytest.importorskip("psycopg")
    with open_engine(f"{postgres}&table=nul") as engine:
        engine.settle(toys.layout("dense"))
        [one] = toys.records(("dense",))[:1]
        for changed in ({"text": "a\x00b"}, {"metadata": {"title": "\x00"}}):
            record = replace(one, document=replace(one.document, **changed))
            with pytest.raises(UserError, match="document a b holds a NUL character"):
                engine.write([record])
        assert engine.count() == 0
    with open_engine(f"{postgres}&table=wide&index=hnsw") as engine:
        wide = Layout(fields=(toys.field("dense", dim=2001),))
        with pytest.raises(UserError, match="for up to 2,000 dimensions of one vector"):
            engine.settle(wide)
        assert engine.describe() is None


def test_a_document_without_a_token_comes_last(postgres):
    pytest.importorskip("psycopg")
    with open_engine(f"{postgres}&table=empty") as engine:
        engine.settle(toys.layout("late_interaction"))
        every = toys.records(("late_interaction",))[:3]
        nothing = np.empty((0, toys.DIM), np.float32)
        engine.write([*every[:2], replace(every[2], vectors={"late": nothing})])
        queries = toys.vectors("late_interaction", 1, seed=9)
        [found] = engine.search(toys.field("late_interaction"), queries, 3)
    assert (found[-1].id, found[-1].score) == (IDS[2], float("-inf"))


@pytest.mark.filterwarnings("ignore")
def test_a_collection_of_milvus_is_found_after_its_server_has_started_anew(tmp_path):
    lite = pytest.importorskip("milvus_lite.server_manager")
    url = f"milvus://{tmp_path}/store.db/docs"
    with open_engine(url, writes=True) as engine:
        engine.settle(toys.layout("dense"))
        engine.write(toys.records(("dense",)))
    lite.server_manager_instance.release_server(f"{tmp_path}/store.db")
    with open_engine(url) as engine:
        assert engine.describe() == toys.layout("dense")
        check_search(engine, "dense")


def test_faiss_holds_what_was_loaded_last(tmp_path):
    url = f"faiss://{tmp_path}/docs"
    for ids in (IDS, IDS[:5]):
        with open_engine(url, writes=True) as engine:
            layout = toys.layout("dense")
            engine.settle(layout)
            engine.write(toys.records(("dense",))[: len(ids)])
            engine.settle(replace_finished(layout))
            assert engine.count() == len(ids)
    with open_engine(url) as engine:
        assert engine.describe() == replace_finished(layout)
        assert list(engine.ids()) == IDS[:5]
        queries = toys.vectors("dense", 2, seed=9)
        found = engine.search(toys.field("dense"), queries, 3)
    ours = search(queries, toys.vectors("dense")[:5], 3)
    assert [[one.id for one in row] for row in found] == [
        [IDS[i] for i in row] for row in ours.indices
    ]


@pytest.mark.parametrize("url", ["qdrant://./docs", "milvus:///docs"])
def test_a_store_has_a_folder_of_its_own(url):
    with pytest.raises(UserError, match="no folder of its own"), open_engine(url, writes=True):
        pass
