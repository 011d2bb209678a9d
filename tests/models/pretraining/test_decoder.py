import pytest
import torch
from transformers import BertConfig, BertModel

from embedtrain.errors import UserError
from embedtrain.models.pretraining.decoder import Decoder, DecoderLayer, visible_by_position


def visible(pattern: torch.Tensor) -> list[list[int]]:
    return pattern.int().tolist()


def test_the_worked_visibility():
    """[CLS] a b c [SEP]; the draw of row 1 hides b, of row 2 a and c, of row 3 a."""
    inside = torch.ones(1, 5, dtype=torch.bool)
    draws = torch.zeros(1, 5, 3, dtype=torch.bool)
    draws[0, 2, 0] = draws[0, 1, 1] = draws[0, 3, 1] = draws[0, 1, 2] = True
    picks = torch.tensor([[0, 0, 1, 2, 0]])
    rows = visible(visible_by_position(inside, draws, picks)[0])
    assert rows[1:4] == [[1, 0, 0, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1]]


def random_visibility(num_texts: int = 6, width: int = 20, ratio: float = 0.5):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, width + 1, (num_texts,), generator=generator)
    inside = torch.arange(width) < lengths[:, None]
    draws = torch.rand(num_texts, width, width, generator=generator) < ratio
    picks = torch.arange(width).expand(num_texts, width).contiguous()
    return inside, draws, visible_by_position(inside, draws, picks)


def test_no_row_sees_itself_and_all_see_the_vector():
    _, _, seen = random_visibility()
    for row in range(1, seen.shape[1]):
        assert not seen[:, row, row].any()
    assert not seen[:, 0, 0].any()
    assert seen[:, 1:, 0].all()


def test_no_row_sees_padding():
    inside, _, seen = random_visibility()
    outside = ~inside[:, None, :] & torch.ones_like(seen)
    assert not (seen & outside)[:, 1:].any()


def test_the_visible_share_is_what_the_draws_leave():
    inside = torch.ones(40, 30, dtype=torch.bool)
    draws = torch.rand(40, 30, 30, generator=torch.Generator().manual_seed(0)) < 0.5
    picks = torch.arange(30).expand(40, 30).contiguous()
    seen = visible_by_position(inside, draws, picks)[:, 1:, 1:]
    others = ~torch.eye(29, dtype=torch.bool)
    assert abs(seen[:, others].float().mean() - 0.5) < 0.02


def test_rows_without_anything_to_see_stay_finite():
    layer = DecoderLayer(8, 2, 16, 0.0)
    inside = torch.zeros(2, 4, dtype=torch.bool)
    inside[0, :1] = True
    draws = torch.ones(2, 4, 1, dtype=torch.bool)
    seen = visible_by_position(inside, draws, torch.zeros(2, 4, dtype=torch.int64))
    states = torch.randn(2, 4, 8, requires_grad=True)
    out = layer(states, states, seen)
    out.sum().backward()
    assert out.isfinite().all()
    assert states.grad.isfinite().all()


@pytest.mark.parametrize("num_layers", [1, 2])
def test_copied_layers_are_those_of_the_encoder(num_layers):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=24,
    )
    encoder = BertModel(config).eval().double()
    decoder = Decoder(16, 4, 24, num_layers, 0.0, 0).double().eval()
    decoder.copy_last_layers(encoder.encoder.layer)
    states = torch.randn(2, 5, 16, dtype=torch.float64)
    expected = states
    for layer in encoder.encoder.layer[-num_layers:]:
        expected = layer(expected)
    out = decoder.plain(states, torch.ones(2, 1, 5, dtype=torch.bool))
    assert torch.allclose(out, expected, atol=1e-10)


def test_layers_of_another_kind_cannot_be_copied():
    with pytest.raises(UserError, match=r"last_layers needs a BERT or RoBERTa encoder"):
        Decoder(16, 4, 24, 1, 0.0, 0).copy_last_layers(torch.nn.ModuleList([torch.nn.Linear(2, 2)]))
