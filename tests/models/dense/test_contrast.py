"""Contrastive prompting: the published forms by hand, and what else of a pass they change."""

import pytest
import torch

from embedtrain.contract.framing import Contrast
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.contrast import contrasted, output_projection
from embedtrain.models.exits import layer_stacks

A, B = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 4.0]])
TEXTS = ["red cat", "a small blue bird sleeps near the large house", "the dog runs"]
SIDE = {"prompt": "the: ", "suffix": " : a", "length": 24}
AGAINST = {"prompt": "near: ", "suffix": " : the", "layer": 0}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("norm", [5.0, 0.0]),
        ("scaled", [1.5, 0.0]),
        ("scaled_norm", [2.5, 0.0]),
        ("added", [4.5, 4.0]),
    ],
)
def test_the_forms_are_those_of_the_paper(form, expected):
    found = contrasted(A, B, Contrast(form=form), num_heads=1)
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_each_head_keeps_its_own_length():
    usual, other = torch.tensor([[3.0, 4, 0, 2]]), torch.tensor([[0.0, 4, 1, 2]])
    found = contrasted(usual, other, Contrast(form="sub_head_norm"), num_heads=2)
    torch.testing.assert_close(found, torch.tensor([[5.0, 0, -2, 0]]))


def test_nothing_to_take_away_leaves_no_number_that_is_not_finite():
    assert contrasted(A, A, Contrast(form="norm"), num_heads=1).isfinite().all()


def model_of(llama, **settings):
    usual = {"backbone": llama, "pooling": "last_token", "similarity": "dot", "query": SIDE}
    config = DenseConfig.model_validate(usual | {"document": SIDE} | settings)
    return build_dense(config, "cpu").eval()


@torch.no_grad()
def embed(model, texts=TEXTS):
    return model.embed(model.tokenization.encode(texts, "document"), Execution(1000))


@torch.no_grad()
@pytest.mark.parametrize("packing", ["packed", "padded"])
def test_a_vector_is_that_of_two_passes_by_hand(llama, packing):
    found = embed(model_of(llama, contrast=AGAINST, packing=packing))
    plain = model_of(llama, packing="padded")
    owner, name = layer_stacks(plain.backbone)[0]
    projection = output_projection(plain.backbone, getattr(owner, name), 0)
    for row, text in enumerate(TEXTS):
        seen = []

        def read(_, inputs, seen=seen):
            seen.append(inputs[0][0, -1])

        def change(_, inputs, seen=seen):
            heads = inputs[0].clone()
            heads[0, -1] = 0.5 * (heads[0, -1] - seen[0])
            return (heads,)

        for shown, hook in ((f"near: {text} : the", read), (f"the: {text} : a", change)):
            ids = torch.tensor([plain.tokenizer(shown)["input_ids"]])
            handle = projection.register_forward_pre_hook(hook)
            states = plain.backbone(input_ids=ids).last_hidden_state[0]
            handle.remove()
        torch.testing.assert_close(found[row], states[-1], atol=1e-5, rtol=1e-4)


def test_our_own_form_with_no_weight_is_the_model_as_it_was(llama):
    model = model_of(llama, contrast=AGAINST | {"form": "added", "coefficient": 0})
    torch.testing.assert_close(embed(model), embed(model_of(llama)), atol=1e-6, rtol=1e-5)
    assert (
        len(getattr(*layer_stacks(model.backbone)[0])) == 2
    )  # the pass that ended early left all layers


def test_an_export_keeps_it(llama, tmp_path):
    model = model_of(llama, contrast=AGAINST)
    assert not model.is_portable
    save_dense(model, tmp_path / "model")
    again = load_dense(str(tmp_path / "model")).eval()
    assert again.contract == model.contract
    torch.testing.assert_close(embed(again), embed(model), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"contrast": {"prompt": "the: ", "suffix": " : a"}},
            "has the frame that a query has anyhow",
        ),
        ({"contrast": AGAINST, "pooling": "mean"}, "changes the last token"),
        ({"contrast": AGAINST, "echo": True}, "changes the last token"),
        ({"contrast": AGAINST, "attention_pooling": {"num_heads": 4}}, "attention_pooling"),
    ],
)
def test_what_it_does_not_go_with_is_refused(llama, settings, message):
    with pytest.raises(UserError, match=message):
        model_of(llama, **settings)


def test_a_layer_that_is_not_there_is_refused(llama, bert):
    with pytest.raises(UserError, match="is not below the 2 layers of the backbone; got 2"):
        embed(model_of(llama, contrast=AGAINST | {"layer": 2}))
