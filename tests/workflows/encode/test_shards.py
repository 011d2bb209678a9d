"""Folders of texts become folders of vectors, also by several processes and after kills."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.workflows.encode import shards as workflow
from embedtrain.workflows.encode.file import encode
from embedtrain.workflows.encode.shards import encode_shards

SIZES = (7, 1, 12)


def stored(folder):
    """Map the shards that the manifest of a finished folder names."""
    names = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["parts"]
    return [np.load(folder / name, mmap_mode="r") for name in names]


@pytest.fixture
def folder(sentences, tmp_path):
    """Twenty texts in three files, one of each kind."""
    texts, corpus = sentences[:20], tmp_path / "corpus"
    corpus.mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[:7])
    (corpus / "a.jsonl").write_text(lines)
    (corpus / "b.txt").write_text(texts[7] + "\n")
    pq.write_table(pa.table({"text": texts[8:]}), corpus / "c.parquet")
    (corpus / "notes.md").write_text("no text of the corpus")
    return corpus


@pytest.fixture
def model(bert, tmp_path):
    from embedtrain.models.build import build_encoder, save_encoder
    from embedtrain.models.dense.config import DenseConfig

    save_encoder(build_encoder(DenseConfig(backbone=bert), "cpu"), tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def expected(model, sentences):
    return encode_texts(load_encoder(model), sentences[:20], "document")


def as_rank(monkeypatch, rank, ranks):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(ranks))


def test_all_files_of_a_folder_become_shards_in_their_order(folder, model, expected, tmp_path):
    done = encode_shards(model, folder, tmp_path / "out", rows_per_shard=5)
    shards = stored(tmp_path / "out")
    assert [len(shard) for shard in shards] == [5, 2, 1, 5, 5, 2]
    assert isinstance(shards[0], np.memmap)
    np.testing.assert_allclose(np.concatenate(shards), expected, atol=1e-6)
    assert (done.num_rows, done.new_rows) == (20, 20)
    assert done.rows_per_second > 0


def test_ranks_share_the_shards_and_each_row_is_there_once(
    folder, model, expected, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    monkeypatch.setattr(workflow, "wait_for", lambda paths: None)  # they run one after the other
    settings = {"form": "parquet", "rows_per_shard": 3}
    for rank in (0, 1, 2):
        as_rank(monkeypatch, rank, 3)
        encode_shards(model, folder, out, **settings)
    table = pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("*.parquet")))
    assert table["row"].to_pylist() == list(range(20))
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), expected, atol=1e-6)


def test_a_killed_run_goes_on_with_what_is_there_also_with_other_ranks(
    folder, model, expected, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    write, written = workflow._write_shard, []

    def stop(*arguments):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(arguments[1].number)
        write(*arguments)

    monkeypatch.setattr(workflow, "_write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        encode_shards(model, folder, out, rows_per_shard=3)
    assert not (out / "manifest.json").exists()
    monkeypatch.setattr(workflow, "_write_shard", write)
    monkeypatch.setattr(workflow, "wait_for", lambda paths: None)
    for rank in (1, 0):
        as_rank(monkeypatch, rank, 2)
        done = encode_shards(model, folder, out, rows_per_shard=3)
    assert written == [0, 1, 2]
    assert done.num_rows == 20
    np.testing.assert_allclose(np.concatenate(stored(out)), expected, atol=1e-6)


def test_several_vectors_per_text_bring_their_lengths(
    folder, late_interaction, sentences, tmp_path
):
    encode_shards(late_interaction, folder, tmp_path / "npy", rows_per_shard=8)
    encode_shards(late_interaction, folder, tmp_path / "pq", form="parquet", rows_per_shard=8)
    whole = encode_texts(load_encoder(late_interaction), sentences[:20], "document")
    names = sorted(path.name for path in (tmp_path / "npy").glob("*.lengths.npy"))
    lengths = np.concatenate([np.load(tmp_path / "npy" / name) for name in names])
    assert lengths.tolist() == whole.lengths.tolist()
    np.testing.assert_allclose(np.concatenate(stored(tmp_path / "npy")), whole.values, atol=1e-6)
    first = pq.read_table(tmp_path / "pq" / "part-00000.parquet")["embedding"][0].as_py()
    np.testing.assert_allclose(first, whole.values[: whole.lengths[0]], atol=1e-6)


def test_a_folder_of_other_texts_is_refused(folder, model, tmp_path):
    encode_shards(model, folder / "a.jsonl", tmp_path / "out")
    with pytest.raises(UserError, match="vectors of another side"):
        encode_shards(model, folder / "a.jsonl", tmp_path / "out", side="query")
    (folder / "a.jsonl").write_text('{"text": "red"}\n')
    with pytest.raises(UserError, match="has changed since the work began"):
        encode_shards(model, folder / "a.jsonl", tmp_path / "out")
    with pytest.raises(UserError, match="exists and is not empty"):
        encode_shards(model, folder, folder)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.parquet", b"no table", "cannot be read; got .Parquet"),
        ("x.jsonl", b'{"text": " "}\n', "holds an empty text"),
        ("x.png", b"", "holds no texts"),
    ],
)
def test_unusable_files_are_named_before_any_work(name, content, problem, model, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / name).write_bytes(content)
    with pytest.raises(UserError, match=problem):
        encode_shards(model, tmp_path / "texts", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_parquet_file_becomes_one_file_as_well(folder, model, expected, tmp_path):
    assert encode(model, folder / "c.parquet", tmp_path / "c.npy")[0] == 12
    np.testing.assert_allclose(np.load(tmp_path / "c.npy"), expected[8:], atol=1e-6)


@pytest.mark.prove
def test_torchrun_starts_ranks_that_encode_together(folder, model, expected, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(random.randrange(20_000, 40_000)), "-m", "embedtrain"]
    command += ["encode", model, str(folder), "--output", str(tmp_path / "out")]
    command += ["--rows-per-shard", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "20 rows; process 1 of 2 encoded 11" in said
    assert "20 rows; process 2 of 2 encoded 9" in said
    np.testing.assert_allclose(np.concatenate(stored(tmp_path / "out")), expected, atol=1e-6)
