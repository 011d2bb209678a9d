"""Rows between those of a table of positions, trained: what they begin as, and that the others never move."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.backbone.fractional_positions import TunedPositions
from embedtrain.models.build import build_encoder, build_model, load_encoder, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig

LONG = " ".join(["the", "red", "cat", "runs", "over", "a", "small", "tree"] * 12)
WINDOW = " ".join(["cat"] * 62)
BEYOND = " ".join(["cat"] * 63)
WISH = {"method": "interpolated", "length": 256, "tune": True}


def vectors(model, texts):
    return encode_texts(model.eval(), texts, "document")


def test_a_table_of_three_rows_stretched_by_two():
    table = nn.Embedding.from_pretrained(torch.tensor([[0.0], [10.0], [30.0]]))
    tuned = TunedPositions.of(table, 2)
    assert tuned(torch.arange(6) / 2)[:, 0].tolist() == [0, 5, 10, 20, 30, 30]
    with torch.no_grad():
        tuned.between.fill_(7)
    assert tuned(torch.arange(6) / 2)[:, 0].tolist() == [0, 7, 10, 7, 30, 7]
    assert tuned(torch.arange(3.0))[:, 0].tolist() == [0, 10, 30]
    thirds = TunedPositions.of(table, 3)
    found = thirds(torch.arange(9) / 3)[:, 0]
    torch.testing.assert_close(found[:6], torch.tensor([0, 10, 20, 30, 50, 70.0]) / 3)


@pytest.fixture
def tuned(bert):
    return build_model(DenseConfig(backbone=bert, long_inputs=WISH, train=("between",)), "cpu")


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_before_training_it_is_the_interpolated_model(family, request):
    path = request.getfixturevalue(family)
    plain = build_encoder(
        DenseConfig(backbone=path, long_inputs={"method": "interpolated", "length": 256})
    )
    model = build_encoder(DenseConfig(backbone=path, long_inputs=WISH))
    np.testing.assert_allclose(
        vectors(model, [LONG, BEYOND]), vectors(plain, [LONG, BEYOND]), atol=1e-6
    )


def test_training_moves_rows_between_and_nothing_that_short_texts_read(bert, tuned):
    short = ["red cat runs", WINDOW]
    plain = build_encoder(DenseConfig(backbone=bert))
    expected = vectors(plain, short)
    np.testing.assert_array_equal(vectors(tuned, short), expected)
    before, start = vectors(tuned, [LONG]), {k: v.clone() for k, v in tuned.state_dict().items()}
    trained = [name for name, weight in tuned.named_parameters() if weight.requires_grad]
    assert [name.rpartition(".")[2] for name in trained] == ["between"]
    optimizer = torch.optim.AdamW(
        [weight for weight in tuned.parameters() if weight.requires_grad], lr=0.1, weight_decay=0.1
    )
    for _ in range(3):
        texts = tuned.tokenization.encode([LONG, "red cat"], "document")
        (first, second) = tuned.train().embed(texts, Execution())
        optimizer.zero_grad()
        (first @ second).backward()
        optimizer.step()
    for name, value in tuned.state_dict().items():
        assert torch.equal(value, start[name]) == (name not in trained)
    np.testing.assert_array_equal(vectors(tuned, short), expected)
    assert np.abs(vectors(tuned, [LONG]) - before).max() > 1e-3
    beyond = vectors(plain, [BEYOND])
    assert np.abs(vectors(tuned, [BEYOND]) - beyond).max() > 1e-3


def test_rows_of_the_table_stay_though_all_else_is_trained(bert):
    model = build_model(DenseConfig(backbone=bert, long_inputs=WISH), "cpu")
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    assert frozen == ["backbone.embeddings.position_embeddings.weight"]


def test_a_folder_keeps_trained_rows_and_misses_them(tuned, tmp_path):
    with torch.no_grad():
        tuned.backbone.embeddings.position_embeddings.between.normal_()
    save_encoder(tuned, tmp_path / "model")
    again = load_encoder(str(tmp_path / "model"))
    assert again.contract == tuned.contract
    np.testing.assert_array_equal(vectors(again, [LONG]), vectors(tuned, [LONG]))
    said = json.loads((tmp_path / "model" / "embedtrain.json").read_text())
    said["contract"]["long_inputs"]["length"] = 512
    (tmp_path / "model" / "embedtrain.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match="lacks the positions that it was tuned with"):
        load_encoder(str(tmp_path / "model"))


def test_what_has_no_rows_to_tune_is_refused(llama):
    with pytest.raises(UserError, match="positions are rotary"):
        build_encoder(DenseConfig(backbone=llama, long_inputs=WISH))
    for wish in ({"method": "grouped"}, {"method": "interpolated", "keep_short": False}):
        with pytest.raises(ValidationError, match="tune is for interpolated positions"):
            LongInputs(length=256, tune=True, **wish)
