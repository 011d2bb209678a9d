"""The head of UHD against numbers worked by hand."""

import pytest
import torch
from pydantic import ValidationError
from sparse_toys import TEXTS, sparse_encoder, weights_of

from embedtrain.contract.sparse_contract import Winners
from embedtrain.errors import UserError
from embedtrain.models.build import save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.sparse.winner_take_all import WinnerTakeAll
from embedtrain.packed import Texts

STATES = torch.tensor([[1.0, 5.0, 0.0, 2.0], [3.0, 0.0, 4.0, 1.0]])


def head(**settings: object) -> WinnerTakeAll:
    made = WinnerTakeAll(4, Winners(entries=4, **settings))
    for layer in made.wide:
        torch.nn.init.eye_(layer.weight)
    return made


def weights(states: torch.Tensor, **settings: object) -> torch.Tensor:
    texts = Texts(torch.zeros(len(states), dtype=torch.int64), torch.tensor([len(states)]))
    return head(**settings)(states, texts)[0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"winners": 1}, [0.0, 5.0, 4.0, 0.0]),
        ({"winners": 1, "binary": True}, [0.0, 1.0, 1.0, 0.0]),
        ({"winners": 4}, [3.0, 5.0, 4.0, 2.0]),  # the plain maximum over tokens
    ],
)
def test_each_token_keeps_its_largest_outputs_and_texts_the_maxima(settings, expected):
    assert weights(STATES, **settings).tolist() == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"buckets": "merged"}, [0.0, 5.0, 6.0, 0.0]),
        ({"buckets": "concatenated"}, [0.0, 0.0, 6.0, 0.0, 0.0, 5.0, 4.0, 0.0]),
        ({"buckets": "concatenated", "binary": True}, [0, 0, 1, 0, 0, 1, 1, 0]),
    ],
)
def test_layers_share_their_entries_or_have_their_own(settings, expected):
    made = head(winners=1, layers=(1,), **settings)
    below = torch.tensor([[0.0, 0.0, 6.0, 1.0], [0.0, 1.0, 2.0, 0.0]])
    states = torch.cat([below, STATES], dim=1).requires_grad_()
    texts = Texts(torch.zeros(2, dtype=torch.int64), torch.tensor([2]))
    [found] = made(states, texts)
    assert found.tolist() == expected
    assert made.dim == len(expected)
    found.sum().backward()
    tokens = (
        {0, 1} if made.dim > 4 else {0}
    )  # the second token's 4 is not the largest of both layers
    assert set(states.grad.nonzero()[:, 0].tolist()) == tokens


def test_concatenated_buckets_are_the_sum_of_those_alone_in_chunks_and_after_saving(bert, tmp_path):
    sizes = {"entries": 60, "winners": 2, "layers": [1], "buckets": "concatenated"}
    model = sparse_encoder(bert, head="winner_take_all", winners=sizes)
    whole = weights_of(model, TEXTS)
    lower, upper = whole.split(60, dim=1)
    assert bool((lower > 0).any())
    assert bool((upper > 0).any())
    merged = sparse_encoder(bert, head="winner_take_all", winners=sizes | {"buckets": "merged"})
    merged.head.load_state_dict(model.head.state_dict())
    assert torch.equal(torch.maximum(lower, upper), weights_of(merged, TEXTS))
    tokens = model.tokenization.encode(TEXTS, "document")
    with torch.no_grad():
        chunks = model.embed(tokens, Execution(8))
    torch.testing.assert_close(chunks, whole, rtol=1e-5, atol=1e-6)
    save_encoder(model, tmp_path / "model")
    again = sparse_encoder(str(tmp_path / "model"))
    assert again.contract.winners.buckets == "concatenated"
    torch.testing.assert_close(weights_of(again, TEXTS), whole)


def test_the_gradient_reaches_winners_alone():
    states = STATES.clone().requires_grad_()
    weights(states, winners=1).sum().backward()
    assert states.grad.tolist() == [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]


def test_bits_are_trained_through_the_hyperbolic_tangent():
    states = STATES.clone().requires_grad_()
    weights(states, winners=1, binary=True).sum().backward()
    assert states.grad[0, 1].item() == pytest.approx(1 - torch.tanh(torch.tensor(5.0)).item() ** 2)


def test_a_text_has_at_most_as_many_entries_as_its_tokens_have_winners(bert):
    sizes = {"entries": 60, "winners": 2, "layers": [1]}
    model = sparse_encoder(bert, head="winner_take_all", winners=sizes)
    found = weights_of(model, TEXTS)
    tokens = model.tokenization.encode(TEXTS, "document").lengths
    assert found.shape == (3, 60)
    assert bool(((found > 0).sum(1) <= 2 * 2 * tokens).all())
    assert bool((found > 0).any(1).all())


def test_sizes_that_do_not_fit_are_refused(bert):
    with pytest.raises(ValidationError, match="more than 4 entries"):
        Winners(entries=4, winners=5)
    with pytest.raises(ValidationError, match="one layer makes one bucket"):
        Winners(buckets="concatenated")
    with pytest.raises(UserError, match="lie below the last of the 2 layers"):
        sparse_encoder(bert, head="winner_take_all", winners={"layers": [2]})
    with pytest.raises(ValidationError, match="head: winner_take_all"):
        sparse_encoder(bert, winners={})


def test_half_weights_are_computed_with_in_float32():
    texts = Texts(torch.zeros(2, dtype=torch.int64), torch.tensor([2]))
    found = head(winners=1).bfloat16()(STATES.bfloat16(), texts)
    assert found.dtype == torch.float32
    assert found[0].tolist() == [0.0, 5.0, 4.0, 0.0]


def test_what_is_said_of_words_is_refused_or_left_behind(bert, masked_model, tmp_path):
    for name, value in (("pooled_tokens", "without_first"), ("activation", "log1p_twice")):
        with pytest.raises(ValidationError, match=f"has no logits of words: drop {name}"):
            sparse_encoder(bert, head="winner_take_all", **{name: value})
    with pytest.raises(ValidationError, match="start_entries moves the bias"):
        sparse_encoder(masked_model, start_entries=5, lora={})
    static = sparse_encoder(masked_model, query_weights={}, activation="log1p_twice")
    save_encoder(static, tmp_path / "static")
    contract = sparse_encoder(str(tmp_path / "static"), head="winner_take_all").contract
    assert not contract.static_queries
    assert contract.activation == "log1p"
