import json

import datasets
import pytest

from embedtrain.data.examples import Example
from embedtrain.data.sources import SourceConfig, open_source
from embedtrain.errors import UserError

ROWS = [{"query": "q1", "positive": "p1"}, {"query": "q2", "positive": "p2"}]
EXAMPLES = [Example("q1", ("p1",)), Example("q2", ("p2",))]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def open_examples(path, **config):
    return list(open_source(SourceConfig(path=str(path), **config)).examples())


def write_data_files(folder):
    (folder / "data").mkdir(parents=True)
    for split, rows in (("train", ROWS), ("test", ROWS[:1])):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"data/{split}-00000-of-00001.jsonl").write_text(lines, "utf-8")
    return folder


def test_a_saved_data_set_is_read_whole(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    source = open_source(SourceConfig(path=str(tmp_path / "saved")))
    assert list(source.examples()) == EXAMPLES
    assert source.length == 2
    assert source.place == f"{tmp_path / 'saved'} [train]"


def test_a_saved_data_set_has_the_split_that_is_asked_for(tmp_path):
    splits = {"train": ROWS, "dev": ROWS[1:]}
    saved = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    assert open_examples(tmp_path / "saved", split="dev") == EXAMPLES[1:]
    with pytest.raises(UserError, match=r"no such split; got 'test'. Choose from dev, train\."):
        open_examples(tmp_path / "saved", split="test")


def test_a_folder_of_data_files_is_loaded_by_its_layout(tmp_path):
    folder = write_data_files(tmp_path / "set")
    assert open_examples(folder) == EXAMPLES
    assert open_examples(folder, split="test", limit=1) == EXAMPLES[:1]
    with pytest.raises(UserError, match=r"no such split; got 'dev'. Choose from .*test"):
        open_examples(folder, split="dev")


def test_the_fingerprint_of_a_folder_is_that_of_its_content(tmp_path):
    first = write_data_files(tmp_path / "a")
    second = write_data_files(tmp_path / "b")
    prints = [open_source(SourceConfig(path=str(path))).fingerprint for path in (first, second)]
    assert prints[0] == prints[1]
    (second / "data/test-00000-of-00001.jsonl").write_text(json.dumps(ROWS[1]) + "\n", "utf-8")
    assert open_source(SourceConfig(path=str(second))).fingerprint != prints[0]


def test_a_bad_row_is_named_by_split_and_number(tmp_path):
    datasets.Dataset.from_list([*ROWS, {"query": "q", "positive": " "}]).save_to_disk(
        tmp_path / "s"
    )
    with pytest.raises(UserError, match=r"\[train\] row 3 positive is an empty text"):
        open_examples(tmp_path / "s")


def test_an_empty_folder_and_an_unreachable_id_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", "nobody/nothing"):
        with pytest.raises(UserError, match="is no file, folder or reachable Hub data set"):
            open_examples(path)


def test_code_of_a_data_set_is_never_run(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "set.py").write_text("raise SystemExit('ran')", "utf-8")
    with pytest.raises(UserError, match="cannot be loaded by datasets"):
        open_examples(folder)


def test_a_missing_configuration_is_an_error_of_the_user(tmp_path):
    folder = write_data_files(tmp_path / "set")
    with pytest.raises(UserError, match="cannot be loaded by datasets"):
        open_examples(folder, name="other")


def test_a_hub_id_is_loaded_without_trusting_code(monkeypatch):
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = open_source(SourceConfig(path="some/set", name="small", split="dev"))
    assert list(source.examples()) == EXAMPLES
    assert calls == [(("some/set", "small"), {"split": "dev"})]
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(ROWS[:1])
    )
    assert open_source(source.config).fingerprint != source.fingerprint
