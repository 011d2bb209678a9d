"""One pass over all sizes against one plain call per size, in float64: losses, figures and every gradient."""

import pytest
import torch
import torch.nn.functional as F

from embedtrain.ops.infonce.loss import infonce
from embedtrain.ops.infonce.nested import Sizes, can_be_nested, infonce_nested
from embedtrain.ops.infonce.problem import InfoNCEOptions, make_problem

SIZES = Sizes((2, 3, 7), (0.25, 0.5, 1.5))
OPTIONS = {
    "plain": InfoNCEOptions(),
    "any": InfoNCEOptions(several_positives="any"),
    "decoupled": InfoNCEOptions(several_positives="decoupled"),
    "others": InfoNCEOptions(negatives="others"),
}


def leaves(batch, temperature):
    query, document = (batch.pop(name).requires_grad_() for name in ("query", "document"))
    return query, document, torch.tensor(temperature, dtype=torch.float64, requires_grad=True)


def separately(batch, options, sizes, *, normalize):
    """The definition: cut, normalise, and ask the reference that stores all scores."""
    inputs = leaves(batch, 0.3)
    query, document, temperature = inputs
    outputs = []
    for dim in sizes.dims:
        cut = [vectors[:, :dim] for vectors in (query, document)]
        if normalize and dim < query.shape[1]:
            cut = [F.normalize(vectors, dim=1) for vectors in cut]
        outputs.append(
            infonce(
                *cut,
                batch["positives"],
                temperature,
                **rest(batch),
                options=options,
                backend="reference",
            )
        )
    loss = sum(w * output.loss for w, output in zip(sizes.weights, outputs, strict=True))
    return loss, outputs, torch.autograd.grad(loss, inputs)


def rest(batch):
    return {name: value for name, value in batch.items() if name != "positives"}


def together(batch, options, sizes, *, normalize):
    inputs = leaves(batch, 0.3)
    problem = make_problem(
        *inputs[:2], batch["positives"], inputs[2], **rest(batch), options=options
    )
    assert can_be_nested(problem)
    found = infonce_nested(problem, sizes, normalize=normalize)
    return found.loss, found.outputs, torch.autograd.grad(found.loss, inputs)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("sizes", [SIZES, Sizes((2, 5), (1.0, 1.0)), Sizes((7,), (1.0,))])
def test_one_pass_gives_what_a_call_per_size_gives(
    sizes, options, normalize, make_batch, small_tiles
):
    expected = separately(make_batch(11), options, sizes, normalize=normalize)
    found = together(make_batch(11), options, sizes, normalize=normalize)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(torch.stack(one), torch.stack(other), rtol=1e-12, atol=1e-12)
    for one, other in zip(found[2], expected[2], strict=True):
        assert other.abs().max() > 1e-6
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_without_gradients_the_loss_is_the_same(make_batch):
    batch = make_batch(9)
    expected, _, _ = together(make_batch(9), OPTIONS["plain"], SIZES, normalize=True)
    problem = make_problem(
        batch.pop("query"), batch.pop("document"), batch["positives"], 0.3, **rest(batch)
    )
    torch.testing.assert_close(
        infonce_nested(problem, SIZES, normalize=True).loss, expected.detach()
    )


def test_half_precision_embeddings_get_float32_scores(make_batch):
    exact, _, wanted = together(make_batch(12), OPTIONS["plain"], SIZES, normalize=True)
    batch = make_batch(12)
    query, document = (
        batch.pop(name).bfloat16().requires_grad_() for name in ("query", "document")
    )
    problem = make_problem(query, document, batch["positives"], 0.3, **rest(batch))
    loss = infonce_nested(problem, SIZES, normalize=True).loss
    loss.backward()
    assert (loss.dtype, query.grad.dtype) == (torch.float32, torch.bfloat16)
    assert abs(float(loss.detach() - exact.detach())) < 0.01
    assert (query.grad.double() - wanted[0]).norm() < 0.03 * wanted[0].norm()


@pytest.mark.parametrize(
    "options",
    [
        InfoNCEOptions(directions=("query_to_document", "document_to_query")),
        InfoNCEOptions(negatives="own"),
        InfoNCEOptions(false_negative_margin=0.1),
        InfoNCEOptions(hardness=1.0),
        InfoNCEOptions(label_smoothing=0.1),
    ],
)
def test_what_one_pass_cannot_do_is_told_apart(options, make_batch):
    batch = make_batch(4)
    query, document = batch.pop("query"), batch.pop("document")
    problem = make_problem(query, document, batch["positives"], 0.3, **rest(batch), options=options)
    assert not can_be_nested(problem)
