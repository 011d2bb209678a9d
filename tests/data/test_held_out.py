import json
import random
from dataclasses import replace
from itertools import combinations

import pytest

from embedtrain.data.examples import Example, Source, SourceConfig
from embedtrain.data.held_out import MIN_QUERIES, Part, hold_out, sufficient_fraction
from embedtrain.data.linked_texts import node_of
from embedtrain.data.readers.beir import bounded, load_retrieval_task
from embedtrain.data.sources import open_source
from embedtrain.errors import UserError

PARTS = [Part("evaluation", 0.2), Part("validation", 0.1)]


def source(rows, name="rows"):
    """A source of rows that lie in memory."""
    config = SourceConfig(path=f"{name}.jsonl")
    return Source(config, name, f"{name} {rows!r}", lambda: iter(rows))


def linked_rows(num_groups=150, seed=0):
    """Rows whose queries share positives within small groups, and whose negatives are other rows' positives."""
    rng = random.Random(seed)
    documents = [f"document {n}" for n in range(3 * num_groups)]
    rows = []
    for group in range(num_groups):
        for _ in range(3):
            first, second = (rng.randrange(3 * group, 3 * group + 3) for _ in "qd")
            texts = [documents[second], *rng.sample(documents, 3)]
            scores = tuple(float(text.split()[1]) for text in texts)
            parts = tuple(texts[:1]), tuple(texts[1:])
            rows.append(Example(f"query {first}", *parts, scores, teacher_gram=pairs_of(scores)))
    return rows


def pairs_of(scores):
    """A number for each pair of documents, which tells them."""
    return tuple(1000 * a + b for a, b in combinations(scores, 2))


def texts_of(examples):
    return {text for e in examples for text in (e.query, *e.positives, *e.negatives)}


@pytest.fixture
def split(tmp_path):
    return hold_out([source(linked_rows())], PARTS, tmp_path)


def test_no_held_out_text_is_in_training_and_the_parts_share_none(split):
    training = {node_of(text) for text in texts_of(split.sources[0].examples())}
    judged = {}
    for name, task in split.tasks.items():
        texts = dict(zip(task.document_ids, task.documents, strict=True))
        answers = {texts[d] for documents in task.qrels.values() for d in documents}
        judged[name] = {node_of(text) for text in (*task.queries, *answers)}
        assert len(task.queries) >= MIN_QUERIES
    assert not any(a & b for a, b in combinations([training, *judged.values()], 2))


def test_no_row_that_shares_a_text_with_a_held_out_row_trains(split):
    rows = linked_rows()
    task = split.tasks["evaluation"]
    held = set(task.queries)
    answers = {d for row in rows if row.query in held for d in row.positives}
    near = {row.query for row in rows if answers & set(row.positives)}
    training = list(split.sources[0].examples())
    assert near == held
    assert not near & {row.query for row in training}
    assert any(len(row.negatives) < 3 for row in training)
    for row in training:  # negatives go with their scores
        assert list(row.scores) == [float(t.split()[1]) for t in row.positives + row.negatives]
        assert row.teacher_gram == pairs_of(row.scores)


def test_shares_counts_and_the_sentence_are_of_what_was_held_out(split):
    rows, (left,) = linked_rows(), split.sources
    queries = {row.query for row in rows}
    assert len(split.tasks["evaluation"].queries) == round(0.2 * len(queries))
    assert len(split.tasks["validation"].queries) == round(0.1 * len(queries))
    held = {name: set(task.queries) for name, task in split.tasks.items()}
    assert left.held_out == {n: sum(r.query in held[n] for r in rows) for n in held}
    assert left.length == len(list(left.examples()))
    assert split.summary[0].startswith(
        f"evaluation.fraction 0.2 keeps {len(held['evaluation'])} of {len(queries)} queries"
    )


def test_the_order_of_rows_changes_nothing_and_few_new_rows_change_little(tmp_path, split):
    rows = linked_rows()
    held = set(split.tasks["evaluation"].queries)
    turned = hold_out([source(rows[::-1], "turned")], PARTS, tmp_path)
    assert set(turned.tasks["evaluation"].queries) == held
    more = [*rows, *(Example(f"new {n}", (f"newer {n}",)) for n in range(10))]
    grown = hold_out([source(more, "grown")], PARTS, tmp_path)
    assert len(held - set(grown.tasks["evaluation"].queries)) < len(held) / 4
    assert grown.sources[0].fingerprint != split.sources[0].fingerprint


def test_texts_link_across_sources_and_cases(tmp_path):
    first = [Example(f"Query  {n}", (f"a {n}",)) for n in range(100)]
    second = [Example(f"other {n}", (f"A {n} ",)) for n in range(100)]
    split = hold_out([source(first, "x"), source(second, "y")], [Part("evaluation", 0.1)], tmp_path)
    numbers = [
        {q.split()[1] for q in split.tasks["evaluation"].queries if q.startswith(side)}
        for side in ("Q", "o")
    ]
    assert numbers[0] == numbers[1]
    for left in split.sources:
        assert not numbers[0] & {row.query.split()[1] for row in left.examples()}
    assert split.tasks["evaluation"].name == "x+y"


def test_the_corpus_is_what_answers_and_others_up_to_a_number(tmp_path):
    small, large = (
        hold_out([source(linked_rows())], [Part("evaluation", 0.1, size)], tmp_path).tasks[
            "evaluation"
        ]
        for size in (1, 300)
    )
    answers = {d for documents in small.qrels.values() for d in documents}
    assert set(small.document_ids) == answers
    assert len(large.documents) == 300
    assert set(small.documents) < set(large.documents)


@pytest.mark.parametrize(("links", "fewest"), [(("ab", "ba", "bc"), 30), (("ab", "ca"), 20)])
def test_a_text_that_is_query_and_document_does_not_find_itself(tmp_path, links, fewest):
    rows = [Example(f"{a} {n}", (f"{b} {n}",)) for n in range(60) for a, b in links]
    task = hold_out([source(rows)], [Part("evaluation", 0.5)], tmp_path).tasks["evaluation"]
    assert not set(task.queries) & set(task.documents)
    assert len(task.queries) >= fewest


def test_scored_pairs_are_no_queries_but_leave_training_with_their_texts(tmp_path):
    retrieval = [Example(f"q {n}", (f"d {n}",)) for n in range(100)]
    pairs = [Example(f"q {n}", (f"s {n}",), scores=(0.1,)) for n in range(100)]
    split = hold_out(
        [source(retrieval, "x"), source(pairs, "y")], [Part("evaluation", 0.2)], tmp_path
    )
    held = set(split.tasks["evaluation"].queries)
    texts = split.tasks["evaluation"]
    assert all(next(iter(texts.qrels[i])) and len(texts.qrels[i]) == 1 for i in texts.query_ids)
    assert not held & {row.query for row in split.sources[1].examples()}
    with pytest.raises(UserError, match="holds out 0 of 0 queries"):
        hold_out([source(pairs, "y")], [Part("evaluation", 0.2)], tmp_path)


def test_too_few_rows_are_one_clear_line_and_leave_no_cache(tmp_path):
    rows = [Example(f"q {n}", (f"d {n}",)) for n in range(40)]
    with pytest.raises(
        UserError, match=r"^validation.fraction holds out 2 of 40 queries.*got 0.05"
    ):
        hold_out([source(rows)], [Part("validation", 0.05)], tmp_path)
    one = [Example(f"q {n}", ("the same",)) for n in range(400)]
    with pytest.raises(UserError, match="holds out 0 of 400"):
        hold_out([source(one)], [Part("validation", 0.05)], tmp_path)
    assert not list(tmp_path.glob("held_out/*"))


def test_a_second_call_reads_the_cache_and_ids_of_the_data_are_kept(tmp_path, beir):
    opened = open_source(SourceConfig(path=str(beir), split="dev"))
    rows = [*opened.examples(), *(Example(f"q {n}", (f"d {n}",)) for n in range(90))]
    first = hold_out([source(rows)], [Part("evaluation", 0.5)], tmp_path)
    silent = Source(SourceConfig(path="rows.jsonl"), "rows", f"rows {rows!r}", lambda: iter(()))
    again = hold_out([silent], [Part("evaluation", 0.5)], tmp_path)
    assert again.tasks == first.tasks
    assert again.sources[0].fingerprint == first.sources[0].fingerprint
    named = [i for i in first.tasks["evaluation"].query_ids if i.startswith("q")]
    assert named
    assert json.dumps(sorted(named))


def test_a_smaller_task_keeps_what_is_relevant(beir):
    whole = load_retrieval_task(beir, "test")
    task = bounded(whole, 4, 11)
    assert (len(task.queries), len(task.documents)) == (4, 11)
    assert {d for documents in task.qrels.values() for d in documents} <= set(task.document_ids)
    texts = dict(zip(whole.query_ids, whole.queries, strict=True))
    assert task.queries == [texts[i] for i in task.query_ids]
    assert task.fingerprint != whole.fingerprint
    assert bounded(whole, None, None) is whole
    assert bounded(whole, 100, 1000) is whole
    assert len(bounded(whole, 4, 1).documents) == 4


@pytest.mark.parametrize(("is_whole", "fraction"), [(True, 0.1), (False, 0.12)])
def test_a_fraction_is_proposed_that_is_enough_with_room_where_rows_are_unknown(is_whole, fraction):
    rows = [Example(f"q {n}", (f"d {n}",)) for n in range(100)]
    assert sufficient_fraction(rows, 1, is_whole=is_whole) == fraction


def test_no_fraction_is_proposed_where_every_query_is_a_document():
    rows = [Example(f"{a} {n}", (f"{b} {n}",)) for n in range(100) for a, b in ("ab", "ba")]
    assert sufficient_fraction(rows, 1, is_whole=True) is None


def test_ids_stay_with_their_texts_where_a_negative_is_held_out(tmp_path):
    rows = [replace(row, document_ids=row.positives + row.negatives) for row in linked_rows()]
    training = list(hold_out([source(rows)], PARTS, tmp_path).sources[0].examples())
    assert any(len(row.negatives) < 3 for row in training)
    assert all(row.document_ids == row.positives + row.negatives for row in training)


def test_scored_pairs_without_a_query_of_retrieval_all_train(tmp_path):
    retrieval = [Example(f"q {n}", (f"d {n}",)) for n in range(100)]
    pairs = [Example(f"s {n}", (f"t {n}",), scores=(0.1,)) for n in range(100)]
    opened = [source(retrieval, "x"), source(pairs, "y")]
    left = hold_out(opened, [Part("evaluation", 0.2)], tmp_path).sources[1]
    assert len(list(left.examples())) == left.length == 100
