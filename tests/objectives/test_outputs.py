from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from objective_toys import number, random_outputs

from embedtrain.errors import UserError
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.outputs import Outputs, bit_balance
from embedtrain.retrieval.late_interaction.binary_tokens import pack_signs
from embedtrain.types import TokenVectors

INNER = InfoNCE(temperature=0.2)


def of_length_one(kind: str = "dense"):
    outputs = random_outputs(kind)
    if kind == "dense":
        return outputs.changed(lambda x: F.normalize(x, dim=1), lambda x: F.normalize(x, dim=1))
    scale = lambda x: replace(x, tokens=F.normalize(x.tokens, dim=1))  # noqa: E731
    return outputs.changed(scale, scale)


def bits(vectors, size):
    return torch.where(vectors[:, :size] >= 0, 1.0, -1.0) / 0.7979 / size**0.5


def test_the_loss_is_that_of_floats_and_of_signs_beside_them():
    outputs = of_length_one()
    floats = number(INNER(outputs).loss)
    document = bits(outputs.document, outputs.document.shape[1])
    small = number(INNER(replace(outputs, document=document.double())).loss)
    one = Outputs(inner=INNER, self_distillation=0.0)
    assert number(one(outputs).loss) == pytest.approx(floats + small)
    one = Outputs(inner=INNER, self_distillation=0.0, float_weight=0.0)
    assert number(one(outputs).loss) == pytest.approx(small)


def test_a_size_is_cut_then_normalised_then_quantised():
    outputs = of_length_one()
    query = F.normalize(outputs.query[:, :4], dim=1)
    document = (127 * F.normalize(outputs.document[:, :4], dim=1)).round() / 127
    expected = INNER(replace(outputs, query=query, document=document)).loss
    found = Outputs(inner=INNER, quantize="int8", matryoshka=(4,))(outputs).metrics["loss_int8_4"]
    assert number(found) == pytest.approx(number(expected))


def test_symmetric_scores_compare_bits_with_bits():
    outputs = of_length_one()
    width = outputs.query.shape[1]
    coded = outputs.changed(lambda x: bits(x, width).double(), lambda x: bits(x, width).double())
    found = Outputs(inner=INNER, scoring="both")(outputs).metrics
    assert number(found[f"loss_binary_{width}_symmetric"]) == pytest.approx(
        number(INNER(coded).loss)
    )
    assert f"loss_binary_{width}_asymmetric" in found


def test_codes_that_rank_as_floats_do_have_nothing_to_learn_from_them():
    outputs = of_length_one()
    found = Outputs(inner=INNER, quantize=("int8", "binary"))(outputs).metrics
    width = outputs.query.shape[1]
    assert (
        number(found[f"divergence_int8_{width}"])
        < 1e-3
        < number(found[f"divergence_binary_{width}"])
    )


def test_the_gradient_passes_to_both_sides_through_the_codes():
    outputs = of_length_one()
    loss = Outputs(inner=INNER, float_weight=0.0, self_distillation=0.0)(outputs).loss
    for gradient in torch.autograd.grad(loss, [outputs.query, outputs.document]):
        assert gradient.abs().max() > 1e-6


def test_training_and_the_index_give_a_number_the_same_bit():
    outputs = of_length_one("late_interaction")
    code = Outputs(inner=INNER)._code(outputs.document, "binary", outputs.document.tokens.shape[1])
    values = outputs.document.tokens.detach().numpy()
    stored = pack_signs(TokenVectors(values, outputs.document.lengths.numpy())).part(
        0, len(outputs.document)
    )
    assert ((code.tokens.detach().numpy() > 0) == (stored.values > 0)).all()


def test_balance_is_the_distance_of_the_share_of_ones_from_a_half():
    assert number(bit_balance(torch.tensor([[1.0, 0.0], [-1.0, 2.0]]))) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"quantize": ("binary", "binary")}, "format twice"),
        ({"matryoshka": (4, 4)}, "size twice"),
        ({"quantize": "int8", "through": "tanh"}, "bits alone"),
    ],
)
def test_what_fits_nothing_is_refused(wrong, part):
    with pytest.raises(ValueError, match=part):
        Outputs(inner=INNER, **wrong)


def test_products_and_sizes_beyond_the_model_are_refused():
    outputs = of_length_one()
    with pytest.raises(UserError, match="similarity=cosine"):
        Outputs(inner=INNER)(replace(outputs, similarity="dot"))
    with pytest.raises(UserError, match="are more than the model"):
        Outputs(inner=INNER, matryoshka=(1000,))(outputs)
    with pytest.raises(UserError, match="asymmetric"):
        Outputs(inner=INNER, scoring="both")(of_length_one("late_interaction"))
