import numpy as np
import pytest
import torch

from embedtrain.contract.texts import Contract, Tokenization
from embedtrain.data.batches import BatchBuilder
from embedtrain.data.examples import SourceConfig, text_id
from embedtrain.data.mixture import Cut, Draw
from embedtrain.data.sources import open_source
from embedtrain.data.tokenized import tokenize_source
from embedtrain.models.backbone.loading import load_backbone
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.types import RetrievalOutputs

CONTRACT = Contract(
    pooling="mean",
    similarity="cosine",
    query_prompt="",
    document_prompt="",
    query_length=16,
    document_length=16,
)
ROWS = [
    {"query": "red cat", "positive": ["cat", "a cat"], "negatives": ["dog", "tree"]},
    {"query": "blue dog", "positive": ["dog"], "negatives": ["house"]},
    {"query": "red cat", "positive": ["bird"], "negatives": []},
]


@pytest.fixture
def source(bert, tmp_path, write_jsonl):
    tokenization = Tokenization(load_backbone(bert).tokenizer, CONTRACT)
    return tokenize_source(
        open_source(SourceConfig(path=str(write_jsonl(ROWS)))), tokenization, tmp_path
    )


def test_groups_are_query_major_with_positives_first(source):
    batch = BatchBuilder([source], num_positives=2)(Draw(0, 0, np.arange(3)))
    ids = [text_id(t) for t in ("cat", "a cat", "dog", "tree", "dog", "house", "bird")]
    assert batch.relevance.document_ids.tolist() == ids
    assert batch.relevance.owners.tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert batch.relevance.positives.tolist() == [[0, 1], [4, -1], [6, -1]]


def test_each_distinct_text_is_there_once(source):
    batch = BatchBuilder([source])(Draw(0, 0, np.arange(3)))
    assert len(batch.queries) == 2
    assert batch.query_rows[0] == batch.query_rows[2]
    rows = batch.document_rows[batch.relevance.document_ids == text_id("dog")]
    assert len(rows) == 2
    assert rows[0] == rows[1]
    assert len(batch.documents) == len(set(batch.relevance.document_ids.tolist()))


def test_all_documents_are_candidates_that_no_query_brought(source):
    batch = BatchBuilder([source], num_positives=2, all_documents=True)(Draw(0, 0, np.arange(3)))
    texts = ("cat", "a cat", "dog", "tree", "house", "bird")
    ids = batch.relevance.document_ids.tolist()
    assert sorted(ids) == sorted(map(text_id, texts))
    assert batch.relevance.owners.tolist() == [-1] * len(texts)
    answers = [{ids[c] for c in row if c >= 0} for row in batch.relevance.positives.tolist()]
    assert answers == [{text_id("cat"), text_id("a cat")}, {text_id("dog")}, {text_id("bird")}]
    assert BatchBuilder([source], all_documents=True)(
        Draw(0, 0, np.arange(3))
    ).relevance.positives.shape == (3, 1)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_all_documents_and_columns_are_those_of_the_gathered_ones(source, ranks):
    builder = BatchBuilder([source], num_positives=2, all_documents=True)
    draw = Draw(0, 0, np.arange(3))
    whole = builder(draw).relevance
    parts = [builder(Cut(1, rank, ranks).part(draw, 0)).relevance for rank in range(ranks)]
    assert torch.cat([part.document_ids for part in parts]).tolist() == whole.document_ids.tolist()
    found = []
    for rank, part in enumerate(parts):
        gathered = torch.cat([one.document_ids for one in parts[rank:] + parts[:rank]])
        found += [
            sorted(gathered[row[row >= 0]].tolist()) for row in part.positives if (row >= 0).any()
        ]
    expected = [sorted(whole.document_ids[row[row >= 0]].tolist()) for row in whole.positives]
    assert found == expected


def check_loss(source, num_rows, known):
    """Compare the loss with a loop in float64 that leaves the texts of ``known`` out of each denominator."""
    batch = BatchBuilder([source])(Draw(0, 0, np.arange(num_rows)))
    num_documents = len(batch.relevance.document_ids)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(num_rows, 8, generator=generator).double()
    document = torch.randn(num_documents, 8, generator=generator).double()
    scores = query @ document.T
    ids = batch.relevance.document_ids.tolist()
    expected = 0.0
    for row, positive in enumerate(batch.relevance.positives[:, 0].tolist()):
        excluded = {text_id(text) for text in known[row]}
        kept = [c for c in range(num_documents) if ids[c] not in excluded or c == positive]
        expected += float(torch.logsumexp(scores[row, kept], 0) - scores[row, positive]) / num_rows
    outputs = RetrievalOutputs(query, document, batch.relevance)
    assert float(InfoNCE(temperature=1.0)(outputs).loss) == pytest.approx(expected, abs=1e-10)


def test_known_positives_reach_the_loss_and_are_no_negatives(source):
    """Row 2's "bird" answers row 0's query too, and row 0's negative "dog" is row 1's positive."""
    check_loss(source, 3, [{"cat", "a cat", "bird"}, {"dog"}, {"cat", "a cat", "bird"}])


def test_what_a_judge_dropped_is_no_negative_in_the_batch(bert, tmp_path, write_jsonl):
    """Rows 1 and 2 bring "dog" and "bird" as their own; the first query may be answered by both."""
    rows = [
        {
            "query": "red cat",
            "positive": ["cat"],
            "negatives": [],
            "not_negatives": ["dog", "bird"],
        },
        {"query": "blue dog", "positive": ["dog"], "negatives": ["tree"], "not_negatives": []},
        {"query": "a house", "positive": ["bird"], "negatives": ["house"]},
    ]
    tokenization = Tokenization(load_backbone(bert).tokenizer, CONTRACT)
    opened = open_source(SourceConfig(path=str(write_jsonl(rows))))
    source = tokenize_source(opened, tokenization, tmp_path)
    check_loss(source, 3, [{"cat", "dog", "bird"}, {"dog"}, {"bird"}])
    texts = {number for row in range(3) for number in source.rows.row("negatives", row).tolist()}
    assert len(texts) == 2, "what was dropped is nobody's hard negative"


def test_the_choice_of_positives_and_negatives_depends_on_the_step_alone(source):
    builder = BatchBuilder([source], num_positives=1, num_negatives=1, seed=5)

    def shown(step: int) -> list[int]:
        return builder(Draw(step, 0, np.arange(3))).relevance.document_ids.tolist()

    assert shown(4) == shown(4)
    assert len({tuple(shown(step)) for step in range(20)}) > 1


def test_scores_stay_with_their_texts_when_a_positive_or_a_negative_is_not_shown(
    bert, tmp_path, write_jsonl
):
    texts = {"cat": 1.0, "a cat": 2.0, "dog": 3.0, "tree": 4.0, "house": 5.0}
    row = {"query": "red cat", "positive": ["cat", "a cat"], "negatives": ["dog", "tree", "house"]}
    path = write_jsonl([row | {"scores": list(texts.values())}] * 2)
    tokenization = Tokenization(load_backbone(bert).tokenizer, CONTRACT)
    source = tokenize_source(open_source(SourceConfig(path=str(path))), tokenization, tmp_path)
    builder = BatchBuilder([source], num_positives=1, num_negatives=2)
    score_of = {text_id(text): score for text, score in texts.items()}
    shown = set()
    for step in range(20):
        relevance = builder(Draw(step, 0, np.arange(2))).relevance
        ids = relevance.document_ids.tolist()
        assert relevance.teacher_scores.tolist() == [score_of[one] for one in ids]
        shown.update(ids)
    assert shown == set(score_of)


def cosines(size: int) -> dict[tuple[int, int], float]:
    return {(a, b): (a + 7 * b) / 64 for a in range(size) for b in range(a + 1, size)}


def test_what_a_teacher_sees_between_documents_stays_with_them(bert, tmp_path, write_jsonl):
    texts = ["cat", "a cat", "dog", "tree", "house"]
    row = {"query": "red cat", "positive": texts[:2], "negatives": texts[2:]}
    rows = [
        row | {"teacher_gram": list(cosines(5).values())},
        {"query": "blue dog", "positive": "bird", "negatives": ["tree"], "teacher_gram": [-0.5]},
        {"query": "a house", "positive": "house"},
    ]
    tokenization = Tokenization(load_backbone(bert).tokenizer, CONTRACT)
    source = tokenize_source(
        open_source(SourceConfig(path=str(write_jsonl(rows)))), tokenization, tmp_path
    )
    place = {text_id(text): number for number, text in enumerate(texts)}
    for step in range(10):
        builder = BatchBuilder([source], num_positives=1, num_negatives=2)
        relevance = builder(Draw(step, 0, np.arange(3))).relevance
        shown = [place[one] for one in relevance.document_ids.tolist()[:3]]
        expected = np.eye(3)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            expected[a, b] = expected[b, a] = cosines(5)[shown[a], shown[b]]
        gram = relevance.teacher_gram.numpy()
        assert np.array_equal(gram[0], expected)
        assert np.array_equal(gram[1, :2, :2], [[1, -0.5], [-0.5, 1]])
        assert gram[2, 0, 0] == 1


def test_a_row_without_cosines_leaves_the_batch_without(bert, tmp_path, write_jsonl):
    rows = [{"query": "red cat", "positive": "cat", "negatives": ["dog"]}] * 2
    rows[0] = rows[0] | {"teacher_gram": [0.5]}
    tokenization = Tokenization(load_backbone(bert).tokenizer, CONTRACT)
    source = tokenize_source(
        open_source(SourceConfig(path=str(write_jsonl(rows)))), tokenization, tmp_path
    )
    builder = BatchBuilder([source])
    assert builder(Draw(0, 0, np.arange(2))).relevance.teacher_gram is None
    assert builder(Draw(0, 0, np.array([0, 0]))).relevance.teacher_gram is not None


def test_no_negatives_can_be_asked_for(source):
    batch = BatchBuilder([source], num_negatives=0)(Draw(0, 0, np.arange(3)))
    assert batch.relevance.owners.tolist() == [0, 1, 2]


def test_parts_of_a_step_show_the_positives_and_negatives_of_the_whole(source):
    builder = BatchBuilder([source], num_positives=1, num_negatives=1, seed=5)
    whole = Draw(7, 0, np.array([2, 0, 1, 2, 0]))
    parts = [builder(whole.part(number, 3)).relevance for number in range(3)]
    together = builder(whole).relevance
    for name in ("query_ids", "document_ids"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert joined.equal(getattr(together, name))
    assert [len(part.query_ids) for part in parts] == [1, 2, 2]


def test_rows_and_seeds_choose_apart(source):
    def shown(seed: int) -> list[int]:
        builder = BatchBuilder([source], num_positives=1, num_negatives=1, seed=seed)
        return builder(Draw(0, 0, np.zeros(20, dtype=np.int64))).relevance.document_ids.tolist()

    assert set(shown(0)) == {text_id(text) for text in ("cat", "a cat", "dog", "tree")}
    assert shown(0) != shown(1)


def test_random_negatives_answer_no_query_of_theirs_and_come_once(source):
    """Row 0 knows cat, a cat and bird as answers and has dog and tree: only the house is left."""
    builder = BatchBuilder([source], random_negatives=5)
    for step in range(10):
        batch = builder(Draw(step, 0, np.array([0, 1])))
        ids, owners = batch.relevance.document_ids, batch.relevance.owners
        first = ids[owners == 0].tolist()
        assert first[0] in (text_id("cat"), text_id("a cat"))
        assert first[1:] == [text_id(text) for text in ("dog", "tree", "house")]
        second = set(ids[owners == 1].tolist())
        assert second == {text_id(t) for t in ("dog", "house", "cat", "a cat", "tree", "bird")}
        assert batch.relevance.positives.tolist() == [[0], [4]]


def test_random_negatives_depend_on_seed_step_and_place_alone(source):
    def drawn(step: int, seed: int = 0) -> torch.Tensor:
        builder = BatchBuilder([source], num_negatives=0, seed=seed, random_negatives=2)
        whole = Draw(step, 0, np.array([1, 0, 1, 2]))
        parts = [builder(whole.part(number, 2)).relevance.document_ids for number in range(2)]
        together = builder(whole).relevance.document_ids
        assert torch.cat(parts).equal(together)
        return together

    assert drawn(3).equal(drawn(3))
    shown = [drawn(step, seed).tolist() for step in range(6) for seed in (0, 1)]
    assert len({tuple(ids) for ids in shown}) > 2
    assert any(ids[:3] != ids[6:9] for ids in shown)  # the same row at another place
