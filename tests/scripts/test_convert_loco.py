"""LoCoV1's tables become folders that can be evaluated; sets about context and of code keep what they promise."""

import gzip
import json
import sys

import places
import pytest

from embedtrain.data.sources import load_task
from embedtrain.errors import UserError

sys.path.insert(0, str(places.SCRIPTS))
from code_set import Function, divide, functions_of
from context_set import make_set
from convert_loco import convert


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_data_set_becomes_a_folder(tmp_path):
    asked = [
        {"dataset": "qmsum", "qid": 1, "query": "who spoke", "answer_pids": ["a", "b"]},
        {"dataset": "courts", "qid": 2, "query": "what law", "answer_pids": ["c"]},
    ]
    texts = [
        {"dataset": name, "pid": pid, "passage": f"text {pid}"}
        for name, pid in (("qmsum", "a"), ("qmsum", "b"), ("courts", "c"), ("courts", "d"))
    ]
    files = write(tmp_path / "q.jsonl", asked), write(tmp_path / "d.jsonl", texts)
    folders = convert(*files, tmp_path / "loco")
    assert [folder.name for folder in folders] == ["courts", "qmsum"]
    task = load_task(str(folders[1]), "test")
    assert task.qrels == {"1": {"a": 1, "b": 1}}
    assert task.documents == ["text a", "text b"]
    lacking = write(tmp_path / "bad.jsonl", [{"dataset": "x", "qid": 1}])
    with pytest.raises(UserError, match="has no column 'query'"):
        convert(lacking, files[1], tmp_path / "bad")


def test_no_sentence_that_answers_names_its_subject_and_documents_are_apart(tmp_path):
    words = [f"word{chr(97 + n // 20)}{chr(97 + n % 20)}" for n in range(80)]

    def sentence(number: int) -> str:
        return f"It has {words[number % 80]} and {words[(3 * number + 1) % 80]} of this kind."

    rows = [
        {
            "title": f"Subject{number:02d}",
            "text": " ".join(
                [f"Subject{number:02d} is a thing.", *(sentence(4 * number + n) for n in range(4))]
            ),
        }
        for number in range(60)
    ]
    with gzip.open(tmp_path / "summaries.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    make_set(tmp_path / "summaries.gz", tmp_path / "set", 20, 10)
    task = load_task(str(tmp_path / "set" / "test"), "test")
    assert task.contexts is not None
    texts = dict(zip(task.document_ids, task.documents, strict=True))
    shown = dict(zip(task.document_ids, task.contexts, strict=True))
    for query, text in zip(task.query_ids, task.queries, strict=True):
        subject = text.split()[0]
        for document in task.qrels[query]:
            assert subject not in texts[document]
            assert subject in shown[document][0]
    train = (tmp_path / "set" / "train.jsonl").read_text()
    assert not any(text.split()[0] in train for text in task.queries)


def test_a_function_stands_without_its_description_and_packages_are_apart():
    source = b"""class Box:
    @cached
    def open(self, key):
        '''Open the box with a key of the right size.

        More of it.'''
        lock = self.lock
        lock.turn(key)
        return lock

    def close(self):
        return 1
"""
    (found,) = functions_of(source, "boxes")
    assert found.query == "Open the box with a key of the right size"
    assert found.code.splitlines()[0] == "def open(self, key):"
    assert found.code.splitlines()[-1] == "    return lock"
    assert "right size" not in found.code
    assert list(functions_of(b"def (", "boxes")) == []
    every = [Function(f"p{n % 7}", f"q{n}", f"code {n}") for n in range(70)]
    train, test = divide(every, 100, 30)
    assert {one.package for one in train}.isdisjoint(one.package for one in test)
    assert len(test) == 30
    assert len(train) == 40
