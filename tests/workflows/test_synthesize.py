import json
from pathlib import Path
from random import Random

import pytest
from document_toys import paragraph, write_folder
from judge_toys import StubJudge

from embedtrain.data.examples import SourceConfig
from embedtrain.data.raw_text.rules import begins_with
from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.data.sources import open_source
from embedtrain.errors import UserError
from embedtrain.mining.output import _training_row as training_row
from embedtrain.mining.task import load_mining_task
from embedtrain.synthesis.candidate import Candidate
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.workflows.pipeline import load_pipeline, run_pipeline
from embedtrain.workflows.synthesize import plan, synthesize

WORDS = {"round_trip": {"reader": "bm25"}, "chunks": {"length": 60}}
"""No model is needed."""


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("docs"), 80)


@pytest.fixture(scope="module")
def made(docs, tmp_path_factory):
    return run(docs, tmp_path_factory.mktemp("made") / "out")


def run(docs, output, *, writer=None, **settings):
    config = SynthesisConfig.model_validate(WORDS | settings)
    return synthesize(str(docs), output, config, writer=writer).path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_folder_is_trained_on_and_measured_with_as_any_other(made):
    rows = lines(made / "train.jsonl")
    examples = list(open_source(SourceConfig(path=str(made / "train.jsonl"))).examples())
    assert [one.query for one in examples] == [row["query"] for row in rows]
    assert not any(begins_with(row["positive"], row["query"]) for row in rows)
    documents = {}
    for split in ("train", "dev", "test"):
        task = load_retrieval_task(made, split)
        documents[split] = {name.split("#")[0] for found in task.qrels.values() for name in found}
        assert len(task.document_ids) == 160
    assert not documents["train"] & (documents["dev"] | documents["test"])
    assert not documents["dev"] & documents["test"]


def test_the_waterfall_adds_up(made):
    report = json.loads((made / "report.json").read_text())
    candidates = lines(made / "candidates.jsonl")
    table = report["waterfall"]
    for maker, counts in table.items():
        own = [one for one in candidates if maker in ("all", one["maker"])]
        assert counts["written"] == len(own) == sum(counts.values()) - counts["written"]
        assert counts["kept"] == sum(one["taken_by"] == "" for one in own)
    assert set(table) == {"title", "heading", "first", "crop", "keyphrases", "all"}
    queries = len(lines(made / "queries.jsonl"))
    assert (
        table["all"]["kept"] == queries == sum(one["queries"] for one in report["splits"].values())
    )


def test_a_held_out_text_lacks_the_words_that_became_its_query(made):
    """Else measuring would only ask whether a copy is found."""
    task = load_retrieval_task(made, "dev")
    texts = dict(zip(task.document_ids, task.documents, strict=True))
    makers = {one["_id"]: one["maker"] for one in lines(made / "queries.jsonl")}
    asked = 0
    for name, query in zip(task.query_ids, task.queries, strict=True):
        if makers[name] in ("title", "first"):
            (document,) = task.qrels[name]
            assert query.lower() not in texts[document].lower()
            asked += 1
    assert asked


def test_a_killed_run_goes_on_to_the_same_bytes(docs, made, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("embedtrain.workflows.synthesize.describe", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(docs, tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()
    assert content(run(docs, tmp_path / "out")) == content(made)


def test_a_finished_folder_is_left_and_another_corpus_begins_anew(
    docs, made, tmp_path, monkeypatch
):
    before = (made / "corpus.jsonl").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("embedtrain.workflows.synthesize.split_documents", lambda *_: 1 / 0)
        run(docs, made)
    assert (made / "corpus.jsonl").stat().st_mtime_ns == before
    other = write_folder(tmp_path / "docs", 40, seed=9)
    output = run(other, tmp_path / "out")
    (other / "000.md").write_text("# Something else altogether\n\n" + "new words of it " * 9)
    changed = content(run(other, output))["corpus.jsonl"].decode()
    assert "Something else altogether" in changed


def test_a_folder_of_something_else_is_not_touched(docs, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        run(docs, tmp_path)


class Oracle:
    """Writes a known query for the first chunk of each document."""

    name = "oracle"

    def write(self, chunks):
        for chunk in chunks:
            yield Candidate(
                f"what is said in {chunk.title} about {chunk.text.split()[3]}", chunk.text, chunk.id,
                chunk.document, self.name, "question",
            )  # fmt: skip


def test_a_writer_s_queries_arrive_unchanged(docs, tmp_path):
    settings = {"round_trip": {"reader": None}, "cosine": 1}
    made = run(docs, tmp_path / "out", writer=Oracle(), **settings)
    rows = lines(made / "train.jsonl")
    assert {row["maker"] for row in rows} == {"oracle"}
    corpus = {one["_id"]: one for one in lines(made / "corpus.jsonl")}
    candidates = [one for one in lines(made / "candidates.jsonl") if one["split"] == "train"]
    assert [row["query"] for row in rows] == [one["query"] for one in candidates]
    for row, one in zip(rows, candidates, strict=True):
        own = corpus[one["chunk"]]
        assert row["positive"] == f"{own['title']} {own['text']}"


def test_a_judge_of_the_settings_takes_what_it_denies_and_is_asked_once(
    docs, tmp_path, monkeypatch
):
    asked = []

    def open_judge(_):
        judge = StubJudge(lambda _, text: 1.0 - 2.0 * (sum(map(ord, text)) % 2))
        asked.append(judge)
        return judge

    monkeypatch.setattr("embedtrain.workflows.synthesize.open_judge", open_judge)
    settings = {"round_trip": {"reader": None}, "cosine": 1, "judge": {"model": "stub"}}
    made = run(docs, tmp_path / "out", writer=Oracle(), **settings)
    found = [one for one in lines(made / "candidates.jsonl") if one["taken_by"] in ("", "judge")]
    assert len({one["taken_by"] for one in found}) == 2
    texts = dict(asked[0].asked)
    for one in found:
        assert (one["taken_by"] == "judge") == bool(sum(map(ord, texts[one["query"]])) % 2)
    (made / "report.json").unlink()
    run(docs, tmp_path / "out", writer=Oracle(), **settings)
    assert asked[1].asked == []


def test_rules_write_beside_a_writer_where_they_are_named(docs, tmp_path):
    made = run(docs, tmp_path / "out", writer=Oracle(), makers=["heading"])
    assert {row["maker"] for row in lines(made / "train.jsonl")} == {"oracle", "heading"}


class Babbler(Oracle):
    def write(self, chunks):
        for one in super().write(chunks):
            yield Candidate(
                "Sure! Here is a question",
                one.positive,
                one.chunk,
                one.document,
                "babbler",
                "question",
            )


def test_a_writer_that_babbles_leaves_nothing_and_all_is_kept_to_be_read(docs, tmp_path):
    with pytest.raises(UserError, match=r"of 160 written none is left to train \(form took 160\)"):
        run(docs, tmp_path / "out", writer=Babbler())
    assert {one["taken_by"] for one in lines(tmp_path / "out" / "candidates.jsonl")} == {"form"}


def test_one_file_is_cut_into_parts_and_the_report_says_so(tmp_path):
    pages = [one.read_text() for one in sorted(write_folder(tmp_path / "pages", 60).iterdir())]
    (tmp_path / "book.md").write_text("\n\n".join(pages))
    made = run(tmp_path / "book.md", tmp_path / "out")
    report = json.loads((made / "report.json").read_text())
    assert report["corpus"]["parts"] == 8
    assert "8 parts of them were taken for documents" in report["notes"][0]
    assert all(one["documents"] for one in report["splits"].values())
    assert {row["document"] for row in lines(made / "train.jsonl")} == {"book.md"}


def test_few_documents_in_parts_have_their_titles_and_links_all_the_same(tmp_path):
    """Parts are for the split alone: makers know documents."""
    folder = write_folder(tmp_path / "docs", 3)
    for place, page in enumerate(sorted(folder.iterdir())):
        more = "".join(f"\n\n{paragraph(Random(100 * place + n))}" for n in range(30))
        link = f"\n\nSee [the page of number {place}]({(place + 1) % 3:03d}.md)."
        page.write_text(page.read_text() + more + link)
    made = run(folder, tmp_path / "out", makers=["title", "link"])
    report = json.loads((made / "report.json").read_text())
    assert report["corpus"]["parts"] > 3
    written = [one["maker"] for one in lines(made / "candidates.jsonl")]
    assert (written.count("title"), written.count("link")) == (3, 3)


def test_the_plan_counts_and_writes_nothing(docs, made, tmp_path):
    found = plan(str(docs), tmp_path / "out", SynthesisConfig.model_validate(WORDS))
    written = json.loads((made / "report.json").read_text())["waterfall"]
    assert found.candidates == {
        name: one["written"] for name, one in written.items() if name != "all"
    }
    assert found.figures["documents"] == 80


def test_a_base_model_measures_chunks_and_reads(docs, bert, tmp_path):
    settings = {
        "base": bert,
        "round_trip": {"reader": "fused"},
        "precision": "fp32",
        "chunks": {"length": 200},
    }
    made = run(docs, tmp_path / "out", **settings)
    assert content(run(docs, tmp_path / "again", **settings)) == content(made)
    assert len(lines(made / "corpus.jsonl")) > 160
    assert lines(made / "train.jsonl")


def test_a_stage_of_a_pipeline_makes_the_data_of_the_next(docs, tmp_path):
    recipe = tmp_path / "pipeline.yaml"
    recipe.write_text(
        f"description: A toy.\nstages:\n- name: made\n  synth: {{corpus: {docs}, settings: {json.dumps(WORDS)}}}\n"
    )
    output = run_pipeline(load_pipeline(recipe), tmp_path / "out")
    assert (output / "made" / "train.jsonl").is_file()
    assert Path(output / "made" / "qrels" / "dev.tsv").is_file()


def test_what_was_removed_of_a_finished_folder_is_made_again(docs, tmp_path):
    made = run(docs, tmp_path / "out")
    before = content(made)
    (made / "train.jsonl").unlink()
    assert content(run(docs, made)) == before


def test_two_documents_hold_none_out_and_the_report_says_so(tmp_path):
    made = run(write_folder(tmp_path / "docs", 2), tmp_path / "out", per_document=8)
    notes = json.loads((made / "report.json").read_text())["notes"]
    assert "No document is held out" in notes[0]


def test_mined_rows_have_the_positives_that_queries_were_made_for(docs, tmp_path):
    """A text that still begins with its query would teach to compare strings."""
    made = run(docs, tmp_path / "out", makers=["title", "heading"])
    task = load_mining_task(str(made))
    rows = {row["query_id"]: row for row in lines(made / "train.jsonl")}
    assert rows
    for name, row in rows.items():
        query = {
            "qid": name,
            "pos": [{"id": task.document_ids[place], "score": 1.0} for place in task.positives[task.row_of_query[name]]],
            "neg": [],
            "new_pos": [],
        }  # fmt: skip
        (positive,) = training_row(query, task)["positives"]
        assert positive == row["positive"]
        assert not begins_with(positive, row["query"])
        assert row["query"].lower() not in positive.lower()


def test_two_chunks_of_one_name_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    text = "Some words of a text that is long. " * 30
    rows = {"_id": "d", "text": text}, {"_id": "d#1", "text": text[:60]}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="gives two chunks one id; got 'd#1'"):
        plan(str(path), tmp_path / "out", SynthesisConfig.model_validate(WORDS))
