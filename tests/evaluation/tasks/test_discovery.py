import json
from pathlib import Path

import pytest

from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.discovery import open_task, task_kinds

SENTENCES = {"sentence1": "red cat", "sentence2": "blue dog"}
ROWS = {
    "sts": [SENTENCES | {"score": 3.5}],
    "pair_classification": [SENTENCES | {"label": 1}, SENTENCES | {"label": 0}],
    "bitext_mining": [SENTENCES],
    "clustering": [{"text": "red", "label": "x"}, {"text": "blue", "label": "y"}],
    "reranking": [{"query": "red", "positive": ["a"], "negative": ["b"]}],
}


def test_every_file_of_the_folder_that_defines_a_kind_is_found_and_every_kind_has_a_test():
    kinds = task_kinds()
    assert set(kinds) == {*ROWS, "classification", "retrieval"}
    for kind in kinds.values():
        assert Path(__file__).with_name(f"test_{kind.__module__.rpartition('.')[2]}.py").is_file()
        assert kind.needs


@pytest.mark.parametrize("kind", ROWS)
def test_rows_tell_which_kind_of_task_they_are(kind, write_jsonl):
    path = write_jsonl(ROWS[kind], "data.test.jsonl")
    task = open_task(str(path))
    assert task.kind == kind == task.data.task
    assert task.data.num_queries == len(ROWS[kind])
    assert set(task.texts)


def test_labelled_texts_with_training_rows_are_classified_and_may_be_clustered(write_jsonl):
    write_jsonl(ROWS["clustering"], "data.train.jsonl")
    path = str(write_jsonl(ROWS["clustering"], "data.test.jsonl"))
    assert open_task(path).kind == "classification"
    assert open_task(path, kind="clustering").kind == "clustering"


def test_a_beir_folder_is_retrieval_until_it_has_candidates(beir, tmp_path):
    assert open_task(str(beir)).kind == "retrieval"
    folder = tmp_path / "beir"
    folder.mkdir()
    for part in beir.iterdir():
        (folder / part.name).symlink_to(part)
    rows = [{"query-id": f"q{n}", "corpus-ids": [f"d{n}", "d29"]} for n in range(10)]
    (folder / "top_ranked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert open_task(str(folder)).kind == "reranking"


def test_the_fingerprint_follows_the_data(write_jsonl):
    first = open_task(str(write_jsonl(ROWS["sts"], "a.jsonl"))).data.fingerprint
    other = [ROWS["sts"][0] | {"score": 4}]
    assert open_task(str(write_jsonl(ROWS["sts"], "b.jsonl"))).data.fingerprint == first
    assert open_task(str(write_jsonl(other, "c.jsonl"))).data.fingerprint != first


def test_rows_of_no_kind_say_what_each_kind_needs(write_jsonl):
    path = write_jsonl([{"question": "x"}], "odd.jsonl")
    with pytest.raises(UserError, match=r"looks like no task; got \['question'\].*sts: rows"):
        open_task(str(path))
    with pytest.raises(UserError, match=r"--task is unknown; got 'summary'\. Use bitext_mining"):
        open_task(str(path), kind="summary")
