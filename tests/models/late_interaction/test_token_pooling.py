import pytest
import torch
import torch.nn.functional as F

from embedtrain.models.late_interaction.token_pooling import pool_embeddings
from embedtrain.ops.maxsim.token_clusters import pooled_labels
from embedtrain.types import TokenEmbeddings


def documents(*lengths: int, dim: int = 6) -> TokenEmbeddings:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(sum(lengths), dim, generator=generator, dtype=torch.float64)
    return TokenEmbeddings(F.normalize(tokens, dim=1), torch.tensor(lengths))


@pytest.mark.parametrize("factor", [2, 3, 8])
@pytest.mark.parametrize("num_tokens", [1, 2, 3, 20])
def test_so_many_vectors_are_left_at_most_and_the_first_is_untouched(num_tokens, factor):
    whole = documents(num_tokens)
    pooled = pool_embeddings(whole, factor)
    assert len(pooled.tokens) <= 1 + (max((num_tokens - 1) // factor, 1) if num_tokens > 1 else 0)
    torch.testing.assert_close(pooled.tokens[0], whole.tokens[0])


def test_a_merged_vector_is_the_mean_brought_back_to_length_one():
    whole = documents(9)
    labels = torch.from_numpy(pooled_labels(whole.tokens.numpy(), 3))
    pooled = pool_embeddings(whole, 3)
    for cluster in range(int(labels.max()) + 1):
        mean = F.normalize(whole.tokens[labels == cluster].mean(0), dim=0)
        torch.testing.assert_close(pooled.tokens[cluster], mean)


def test_texts_are_pooled_by_themselves():
    two = documents(7, 5)
    both = pool_embeddings(two, 2)
    alone = pool_embeddings(two.select(torch.tensor([0])), 2)
    assert both.lengths[0] == alone.lengths[0]
    torch.testing.assert_close(both.tokens[: len(alone.tokens)], alone.tokens)


def test_each_text_may_have_its_own_factor():
    two = documents(7, 9)
    both = pool_embeddings(two, [4, 2])
    for row, factor in enumerate((4, 2)):
        alone = pool_embeddings(two.select(torch.tensor([row])), factor)
        torch.testing.assert_close(both.select(torch.tensor([row])).tokens, alone.tokens)


def test_the_gradient_reaches_every_token():
    whole = documents(9)
    tokens = whole.tokens.clone().requires_grad_()
    pool_embeddings(TokenEmbeddings(tokens, whole.lengths), 4).tokens[:, 0].sum().backward()
    assert (tokens.grad.abs().sum(1) > 0).all()
