"""What does not fit into a collection or an engine is refused in one line; addresses are taken apart."""

import os

import engine_toys as toys
import pytest

from embedtrain.engines.address import parse_address
from embedtrain.engines.layout import Layout, read_layout, refuse_beyond, refuse_other
from embedtrain.engines.open import ENGINES, open_engine
from embedtrain.errors import UserError
from embedtrain.locks import HELD


@pytest.mark.parametrize(
    ("message", "held"),
    [
        ("has dimension 16; got 8", {"dim": 16}),
        ("has store float16; got 'float32'", {"store": "float16"}),
        ("has the model other, of other weights", {"model": "x", "model_name": "other"}),
        ("holds the vectors words; got 'dense'", {"name": "words"}),
    ],
)
def test_another_collection_is_refused(message, held):
    with pytest.raises(UserError, match=message):
        refuse_other("place", Layout(fields=(toys.field("dense", **held),)), toys.layout("dense"))


def test_a_collection_of_somebody_else_is_refused():
    nobody = Layout(fields=())
    with pytest.raises(UserError, match="was not filled by `embedtrain load`"):
        refuse_other("place", nobody, toys.layout("dense"))
    with pytest.raises(UserError, match="was not filled by `embedtrain load`"):
        nobody.field_of("key", "place", "model")


def test_what_an_engine_has_no_type_for_is_refused():
    abilities = {"dense": {"float32": 7, "float16": 8}}
    refuse_beyond("place", abilities, toys.layout("dense", store="float16"))
    for message, layout in {
        "holds at most 7 dimensions of dense float32; got 8": toys.layout("dense"),
        "cannot store dense so; got 'int8'. Choose --store from float32": toys.layout("dense", store="int8"),
        "holds dense vectors; got 'sparse'": toys.layout("sparse"),
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=message):
            refuse_beyond("place", abilities, layout)


@pytest.mark.parametrize(
    ("url", "server", "collection", "is_local", "options"),
    [
        ("qdrant://localhost:6333/docs", "localhost:6333", "docs", False, {}),
        ("qdrant://./a/b/docs", "./a/b", "docs", True, {}),
        ("jsonl:///tmp/a%20b/docs/", "/tmp/a b", "docs", True, {}),
        ("jsonl:///docs", "/", "docs", True, {}),
        ("jsonl://docs", "", "docs", True, {}),
        ("postgresql://me@host/base?table=t&host=/run", "me@host", "base", False, {"table": "t", "host": "/run"}),
    ],
)  # fmt: skip
def test_an_address_is_taken_apart(url, server, collection, is_local, options):
    found = parse_address(url, ENGINES)
    assert (found.server, found.collection, found.is_local, found.options) == (
        server, collection, is_local, options,
    )  # fmt: skip


def test_messages_hold_no_password():
    assert "secret" not in parse_address("postgresql://me:secret@host/base", ENGINES).place
    with pytest.raises(UserError) as raised:
        parse_address("mongo://me:secret@host/base", ENGINES)
    assert "secret" not in str(raised.value)


def test_a_choice_that_is_none_is_refused(tmp_path):
    with (
        pytest.raises(UserError, match="index is unknown; got 'fast'"),
        open_engine(f"lancedb://{tmp_path}/docs?index=fast"),
    ):
        pass


def test_words_of_somebody_else_say_nothing_and_a_broken_layout_is_one_line():
    whole = toys.layout("dense", "sparse", texts=False)
    assert read_layout("place", whole.model_dump_json()) == whole
    assert read_layout("place", whole.model_dump(mode="json")) == whole
    for foreign in ("the docs of 2021", b"", None, "[" * 100_000):
        assert read_layout("place", foreign) == Layout(fields=())
    for broken in ("[]", '{"fields": 3}', {"fields": [{"name": "dense"}]}, {"fields": [], "x": 1}):
        with pytest.raises(UserError, match="place"):
            read_layout("place", broken)


@pytest.mark.parametrize("url", ["qdrant://localhost:6333/", "qdrant://localhost:6333", "jsonl://"])
def test_a_host_is_no_collection(url):
    with pytest.raises(UserError, match="names no collection"):
        parse_address(url, ENGINES)


@pytest.mark.parametrize(
    "url", ["qdrant://{}/store/a", "milvus://{}/store.db/a", "lancedb://{}/store/a"]
)
def test_to_look_for_a_collection_makes_nothing(url, tmp_path):
    with pytest.raises(UserError, match="is no collection"), open_engine(url.format(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())


def test_a_local_store_has_one_writer(tmp_path, monkeypatch):
    pytest.importorskip("qdrant_client")
    url = f"qdrant://{tmp_path}/store/a"
    with open_engine(url, writes=True):
        monkeypatch.delenv(HELD)
        with (
            pytest.raises(UserError, match="is being written by another process"),
            open_engine(url, writes=True),
        ):
            pass


@pytest.mark.parametrize("scheme", ["jsonl", "lancedb", "qdrant"])
def test_a_pipe_is_refused_before_anybody_waits_for_it(scheme, tmp_path):
    own = {"jsonl": "docs", "lancedb": "docs.lance", "qdrant": ""}
    folder = tmp_path / "store" / own[scheme]
    folder.mkdir(parents=True)
    os.mkfifo(folder / "meta.json")
    with (
        pytest.raises(UserError, match=r"meta\.json is no plain file"),
        open_engine(f"{scheme}://{tmp_path}/store/docs"),
    ):
        pass
