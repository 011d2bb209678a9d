"""The head of BGE-M3 against numbers worked by hand."""

import pytest
import torch
from safetensors.torch import save_file
from sparse_toys import TEXTS, sparse_encoder, weights_of

from embedtrain.errors import UserError
from embedtrain.models.build import save_encoder
from embedtrain.models.sparse.token_weights import TokenWeights
from embedtrain.models.sparse.words import column_names
from embedtrain.packed import Texts


def test_a_token_weighs_its_largest_number_and_special_ones_nothing():
    head = TokenWeights(1, 9, [2])
    torch.nn.init.ones_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    states = torch.tensor([[0.2], [0.9], [0.6], [0.7], [-0.5], [0.4]], requires_grad=True)
    texts = Texts(torch.tensor([5, 7, 5, 2, 8, 5]), torch.tensor([4, 2]))
    found = head(states, texts)
    expected = torch.zeros(2, 9)
    expected[0, [5, 7]] = torch.tensor([0.6, 0.9])
    expected[1, 5] = 0.4
    assert torch.equal(found, expected)
    found[0, 5].backward()
    assert states.grad.flatten().tolist() == [0, 0, 1, 0, 0, 0]


def test_a_text_has_weights_of_its_own_words_alone(bert):
    model = sparse_encoder(bert, head="token_weights")
    torch.nn.init.constant_(model.head.linear.bias, 50.0)
    names, found = column_names(model), weights_of(model, TEXTS)
    special = set(model.tokenizer.all_special_tokens)
    for text, row in zip(TEXTS, found, strict=True):
        words = set(model.tokenizer.tokenize(text)) - special
        assert {names[column] for column in row.nonzero().flatten().tolist()} == words


def test_a_folder_with_the_published_weights_has_the_head_without_being_told(bert, tmp_path):
    save_encoder(sparse_encoder(bert, head="token_weights"), tmp_path / "own")
    folder = tmp_path / "own" / "backbone"
    torch.manual_seed(3)
    stated = {"weight": torch.randn(1, 32), "bias": torch.randn(1)}
    save_file(stated, folder / "sparse_linear.safetensors")
    model = sparse_encoder(str(folder))
    assert model.contract.head == "token_weights"
    assert torch.equal(model.head.linear.weight, stated["weight"])
    assert torch.equal(model.head.linear.bias, stated["bias"])
    save_file({**stated, "weight": torch.randn(1, 31)}, folder / "sparse_linear.safetensors")
    with pytest.raises(UserError, match="holds other weights"):
        sparse_encoder(str(folder))
    (folder / "sparse_linear.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"sparse_linear\.safetensors"):
        sparse_encoder(str(folder))


def test_a_pickle_of_published_weights_is_not_read(bert, tmp_path, monkeypatch):
    save_encoder(sparse_encoder(bert, head="token_weights"), tmp_path / "own")
    folder = tmp_path / "own" / "backbone"
    torch.save({"weight": torch.randn(1, 32), "bias": torch.randn(1)}, folder / "sparse_linear.pt")
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(UserError, match="is a pickle, and none is read"):
        sparse_encoder(str(folder))
