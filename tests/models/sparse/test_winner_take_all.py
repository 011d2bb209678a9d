"""The head of UHD against numbers worked by hand."""

import pytest
import torch
from pydantic import ValidationError
from sparse_toys import TEXTS, sparse_encoder, weights_of

from embedtrain.contract.sparse_contract import Winners
from embedtrain.errors import UserError
from embedtrain.models.build import save_encoder
from embedtrain.models.sparse.winner_take_all import WinnerTakeAll
from embedtrain.packed import Texts

STATES = torch.tensor([[1.0, 5.0, 0.0, 2.0], [3.0, 0.0, 4.0, 1.0]])


def head(**settings: object) -> WinnerTakeAll:
    made = WinnerTakeAll(4, Winners(entries=4, **settings))
    torch.nn.init.eye_(made.wide[0].weight)
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
