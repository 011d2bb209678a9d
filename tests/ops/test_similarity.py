import pytest
import torch

from embedtrain.errors import UserError
from embedtrain.ops.similarity import all_scores, pair_scores, take
from embedtrain.types import TokenEmbeddings


def several(*texts: list[list[float]]) -> TokenEmbeddings:
    tokens = torch.tensor([vector for text in texts for vector in text])
    return TokenEmbeddings(tokens, torch.tensor([len(text) for text in texts]))


QUERY = several([[1.0, 0.0], [0.0, 1.0]])
DOCUMENTS = several([[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [-1.0, 0.0]])


def test_late_interaction_sums_the_best_document_token_of_each_query_token() -> None:
    torch.testing.assert_close(all_scores(QUERY, DOCUMENTS), torch.tensor([[1.8, 1.0]]))


def test_one_vector_each_scores_by_inner_product() -> None:
    query, document = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    torch.testing.assert_close(all_scores(query, document), torch.tensor([[11.0, 2.0]]))


@pytest.mark.parametrize("kind", ["dense", "late_interaction"])
def test_pair_scores_are_the_entries_of_all_scores(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    if kind == "dense":
        query, document = (torch.randn(n, 8, generator=generator) for n in (3, 7))
    else:
        query, document = (
            TokenEmbeddings(torch.randn(int(lengths.sum()), 8, generator=generator), lengths)
            for lengths in (torch.tensor([2, 1, 3]), torch.tensor([4, 1, 2, 2, 5, 1, 3]))
        )
    owners = torch.tensor([0, 2, 1, 1, 0, 2, 2])
    expected = all_scores(query, document)[owners, torch.arange(7)]
    torch.testing.assert_close(pair_scores(query, document, owners), expected)


def test_half_precision_embeddings_give_float32_scores() -> None:
    query = torch.randn(2, 8, dtype=torch.bfloat16)
    assert all_scores(query, query).dtype == torch.float32
    assert pair_scores(query, query, torch.arange(2)).dtype == torch.float32


def test_taking_texts_commutes_with_scoring() -> None:
    rows = torch.tensor([1, 0, 1])
    expected = all_scores(QUERY, DOCUMENTS)[:, rows]
    torch.testing.assert_close(all_scores(QUERY, take(DOCUMENTS, rows)), expected)


def test_embeddings_of_two_kinds_are_refused() -> None:
    with pytest.raises(UserError, match="one kind"):
        all_scores(torch.randn(2, 2), DOCUMENTS)


def words(*texts: dict[int, float]) -> TokenEmbeddings:
    """One number per word, by the word's id."""
    return TokenEmbeddings(
        torch.tensor([[value] for text in texts for value in text.values()], dtype=torch.float64),
        torch.tensor([len(text) for text in texts]),
        torch.tensor([word for text in texts for word in text]),
        exact_match=True,
    )


def test_exact_match_counts_equal_words_only() -> None:
    query = words({7: 2.0, 5: 1.0, 9: 3.0})
    documents = words({5: 4.0, 7: 0.5}, {1: 9.0}, {9: -1.0, 2: 1.0}, {9: -1.0})
    expected = torch.tensor([[2.0 * 0.5 + 1.0 * 4.0, 0.0, 0.0, -3.0]], dtype=torch.float64)
    torch.testing.assert_close(all_scores(query, documents), expected)
    owners = torch.zeros(4, dtype=torch.int64)
    torch.testing.assert_close(pair_scores(query, documents, owners), expected[0])


def test_exact_match_is_the_masked_maxsim_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randperm(9, generator=generator)[: 1 + n % 5] for n in range(8)]
    sides = [
        TokenEmbeddings(
            torch.randn(sum(map(len, part)), 3, generator=generator, dtype=torch.float64),
            torch.tensor([len(text) for text in part]),
            torch.cat(part),
            exact_match=True,
        )
        for part in (texts[:3], texts[3:])
    ]
    scores = all_scores(*sides)
    for row, query_rows in enumerate(sides[0].lengths.cumsum(0).tolist()):
        first = query_rows - int(sides[0].lengths[row])
        for column, end in enumerate(sides[1].lengths.cumsum(0).tolist()):
            start = end - int(sides[1].lengths[column])
            products = sides[0].tokens[first:query_rows] @ sides[1].tokens[start:end].T
            equal = sides[0].ids[first:query_rows, None] == sides[1].ids[start:end]
            expected = (products * equal).amax(1).sum()
            torch.testing.assert_close(scores[row, column], expected)


def test_the_vector_of_the_whole_text_adds_its_inner_product() -> None:
    cls = torch.tensor([[2.0]])
    query = TokenEmbeddings(QUERY.tokens, QUERY.lengths, cls=cls)
    documents = TokenEmbeddings(
        DOCUMENTS.tokens, DOCUMENTS.lengths, cls=torch.tensor([[1.0], [-1.0]])
    )
    torch.testing.assert_close(all_scores(query, documents), torch.tensor([[3.8, -1.0]]))
    owners = torch.zeros(2, dtype=torch.int64)
    torch.testing.assert_close(pair_scores(query, documents, owners), torch.tensor([3.8, -1.0]))
