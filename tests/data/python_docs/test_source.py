import gc
import json
import sys

import pytest

from embedtrain.data.examples import Example
from embedtrain.data.python_docs import source as python_docs
from embedtrain.data.python_docs.python_packages import installed_packages
from embedtrain.data.python_docs.source import (
    python_docs_folder,
    read_report,
    split_files,
    stored_pairs,
)
from embedtrain.data.sources import SourceConfig, load_task, open_source
from embedtrain.errors import UserError
from embedtrain.seals import seal

COLOURS = ("red", "green", "blue", "grey", "white", "black", "amber", "ivory", "coral", "olive")
FUNCTION = '''
def paint_{name}(wall):
    """Paint the {name} wall with a brush.

    The colour {other} {name} is mixed first, then {package} spreads it over all of the wall.
    """
'''


@pytest.fixture
def site(tmp_path, install):
    """Sixteen packages that would end the run if one of them were imported."""
    folder = tmp_path / "site"
    for i in range(16):
        package = f"pack{i:02d}"
        text = "raise SystemExit('imported')\n"
        for colour, other in zip(COLOURS, reversed(COLOURS), strict=True):
            text += FUNCTION.format(name=f"{colour}{i}", other=f"{other}{i}", package=package)
        install(folder, package, "1.0", {f"{package}/__init__.py": text})
    install(folder, "broken", "1.0", {"broken.py": '"""text"""\nprint "python 2"\n'})
    return folder


@pytest.fixture
def build(site, tmp_path, monkeypatch):
    monkeypatch.setattr(python_docs, "installed_packages", lambda: installed_packages([str(site)]))
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    return python_docs_folder


def examples(split):
    return list(open_source(SourceConfig(path="python_docs", split=split)).examples())


def test_whole_packages_are_held_out_and_nothing_is_imported(build):
    report = read_report(build())
    assert (report.num_packages, report.num_files, report.num_unreadable_files) == (17, 17, 1)
    assert report.num_raw_pairs == report.num_distinct_pairs == 160
    packages = {
        split: {pair.package for pair in stored_pairs(split_files(build(), split))}
        for split in ("train", "validation", "test", "all")
    }
    assert packages["test"] == set(report.held_out["test"]) != set()
    assert not packages["train"] & packages["test"]
    assert len(packages["all"]) == 16
    assert not any(name in sys.modules for name in packages["all"])


def test_an_example_is_a_sentence_and_its_object(build):
    found = {example.query_id: example for example in examples("all")}
    assert found["pack03.paint_blue3"] == Example(
        "Paint the blue3 wall with a brush",
        (
            "pack03.paint_blue3(wall)\nThe colour ivory3 blue3 is mixed first,"
            " then pack03 spreads it over all of the wall.",
        ),
        query_id="pack03.paint_blue3",
        document_ids=("pack03.paint_blue3",),
    )


def test_a_source_knows_its_length(build):
    source = open_source(SourceConfig(path="python_docs"))
    assert source.length == len(list(source.examples())) == read_report(build()).num_pairs["train"]
    assert source.place == "python_docs [train]"
    assert open_source(SourceConfig(path="python_docs", limit=3)).length == 3


def test_the_second_start_reads_the_cache(build, site):
    first = open_source(SourceConfig(path="python_docs"))
    for path in site.glob("pack*/*.py"):
        path.write_text("", "utf-8")
    second = open_source(SourceConfig(path="python_docs"))
    assert second.fingerprint == first.fingerprint
    assert list(second.examples()) == list(first.examples())


def test_another_version_of_a_package_renews_the_pairs(build, site, install):
    before = build()
    install(
        site, "another", "1.0", {"another.py": FUNCTION.format(name="x", other="y", package="z")}
    )
    assert read_report(build()).num_raw_pairs == read_report(before).num_raw_pairs + 1


def test_two_builds_give_the_same_bytes(build, tmp_path):
    folders = [build(tmp_path / name) for name in "ab"]
    for split in ("train", "validation", "test"):
        contents = {(folder / f"{split}.jsonl").read_bytes() for folder in folders}
        assert len(contents) == 1


def test_progress_is_told_for_every_file(build):
    told = []
    build(progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 17) for i in range(1, 18)]


def test_an_interrupted_build_leaves_no_cache_and_collects_garbage_again(build, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(progress=interrupt)
    assert gc.isenabled()
    assert not list(tmp_path.glob("cache/python_docs/*"))


def test_the_task_asks_each_sentence_against_all_documents_of_its_split(build):
    task = load_task("python_docs", "test")
    assert task.name == "python_docs-test"
    assert task.query_ids == task.document_ids
    assert task.qrels == {name: {name: 1} for name in task.document_ids}
    assert len(task.queries) == len(task.documents) == read_report(build()).num_pairs["test"]
    for query, document in zip(task.queries, task.documents, strict=True):
        assert query.lower() not in document.lower()


def test_documents_of_the_same_sentence_are_all_relevant(build):
    (path,) = split_files(build(), "test")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows[1]["query"] = rows[0]["query"].upper() + "!"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    seal(path.parent)
    task = load_task("python_docs", "test")
    assert task.qrels[rows[0]["id"]] == {rows[0]["id"]: 1, rows[1]["id"]: 1}
    assert rows[1]["id"] not in task.query_ids
    assert len(task.documents) == len(task.queries) + 1


def test_an_unknown_split_lists_those_there_are(build):
    with pytest.raises(UserError, match=r"got 'dev'. Choose from train, validation, test, all\."):
        examples("dev")


def test_an_environment_without_packages_holds_no_example(monkeypatch, tmp_path):
    monkeypatch.setattr(python_docs, "installed_packages", list)
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"python_docs \[train\] holds no example"):
        examples("train")
