"""Several adapters in one backbone are as many separate models, whichever acts."""

import pytest
import torch

from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, load_encoder, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.edits.keep_adapter import keep_adapter

SIDES = {"same": "shared", "search": {"query": "asking", "document": "answering"}}
TEXTS = ["red cat", "a small blue bird sleeps", "green"]


def build(backbone, adapters, **settings):
    torch.manual_seed(0)
    lora = {"rank": 3, "adapters": adapters} | settings
    config = DenseConfig.model_validate({"backbone": backbone, "lora": lora})
    model = build_dense(config, "cpu").eval()
    with torch.no_grad():
        for name, one in model.backbone.named_parameters():
            if "lora_B" in name:  # which begin at 0
                one.copy_(torch.randn(one.shape))
    return model


def vectors(model, task, side="query", tokens=1000):
    view = model.contract
    model.contract = view.under(task)
    with torch.no_grad():
        found = model.embed(model.tokenization.encode(TEXTS, side), Execution(tokens), side)
    model.contract = view
    return found


@pytest.fixture(scope="module")
def model(bert):
    return build(bert, SIDES)


def test_each_adapter_is_the_model_that_has_it_alone(model, bert, tmp_path):
    model.adapters.save(tmp_path, bert)
    found = {}
    for task, side, name in (
        ("same", "query", "shared"),
        ("same", "document", "shared"),
        ("search", "query", "asking"),
        ("search", "document", "answering"),
    ):
        lora = {"rank": 3, "start": str(tmp_path / name)}
        alone = build_dense(DenseConfig.model_validate({"backbone": bert, "lora": lora}), "cpu")
        found[name] = vectors(model, task, side)
        torch.testing.assert_close(
            found[name], vectors(alone.eval(), None, side), rtol=0, atol=1e-6
        )
    assert (found["asking"] - found["shared"]).abs().max() > 0.01
    assert (found["asking"] - found["answering"]).abs().max() > 0.01


def test_the_first_task_is_the_usual_one_and_chunks_change_nothing(model):
    torch.testing.assert_close(vectors(model, None), vectors(model, "same"), rtol=0, atol=0)
    torch.testing.assert_close(vectors(model, "search"), vectors(model, "search", tokens=4))


def test_a_task_without_an_adapter_is_refused_with_those_that_have_one(model):
    with pytest.raises(UserError, match=r"got 'rust'\. Choose from: same, search"):
        model.contract.under("rust")


def test_an_exported_folder_keeps_all_and_a_merged_one_is_plain(model, bert, tmp_path):
    save_dense(model, tmp_path / "all")
    again = load_dense(str(tmp_path / "all")).eval()
    for task in SIDES:
        for side in ("query", "document"):
            expected = vectors(model, task, side)
            torch.testing.assert_close(vectors(again, task, side), expected, rtol=0, atol=1e-6)
    assert not again.is_portable
    named = load_encoder(str(tmp_path / "all"), instruction="search").eval()
    torch.testing.assert_close(vectors(named, None), vectors(model, "search"), rtol=0, atol=1e-6)

    with pytest.raises(UserError, match="two sides use different adapters"):
        keep_adapter(again, "search")
    expected = vectors(again, "same")
    keep_adapter(again, "same")
    assert again.is_portable
    save_dense(again, tmp_path / "one")
    plain = load_dense(str(tmp_path / "one")).eval()
    torch.testing.assert_close(vectors(plain, None), expected, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="would stand on the adapters"):
        build_dense(DenseConfig.model_validate({"backbone": str(tmp_path / "all"), "lora": {}}))


def test_an_adapter_may_be_called_as_a_layer_is(bert):
    model = build(bert, ["query", "key"])
    own = model.adapters.parameters_of("query")
    assert len(own) == len(model.adapters.parameters_of("key"))
    assert not {id(one) for one in own} & {id(one) for one in model.adapters.parameters_of("key")}


def test_odd_names_and_four_bits_are_refused(bert):
    for lora, said in (
        ({"adapters": ["a.b"]}, "letters, digits"),
        ({"adapters": ["a"], "frozen": "nf4"}, "beside plain weights"),
    ):
        with pytest.raises(ValueError, match=said):
            DenseConfig.model_validate({"backbone": bert, "lora": lora})


def test_whole_copies_are_layers_of_their_own_and_move_as_these_would(bert, tmp_path):
    targets = ["layer.1.intermediate.dense", "layer.1.output.dense"]  # wider and narrower
    lora = {"whole": True, "targets": targets, "adapters": ["search", "same"]}
    config = DenseConfig.model_validate({"backbone": bert, "lora": lora})
    model, plain = build_dense(config, "cpu"), load_dense(bert)
    start = vectors(plain.eval(), None)
    torch.testing.assert_close(vectors(model.eval(), "search"), start, rtol=0, atol=1e-6)
    layer = plain.backbone.encoder.layer[1]
    copied = [layer.intermediate.dense.weight, layer.output.dense.weight]
    trained = [one for one in model.backbone.parameters() if one.requires_grad]
    assert sorted(map(torch.numel, trained)) == sorted(2 * [one.numel() for one in copied])
    for one, weights in ((plain, copied), (model, trained)):
        texts = one.tokenization.encode(TEXTS, "query")
        found = one.embed(texts, Execution(1000), "query")
        gradients = torch.autograd.grad(found[:, 0].sum(), weights, allow_unused=True)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:  # the other task's copies
                    weight.sub_(0.5 * gradient)
    expected = vectors(plain, None)
    assert (expected - start).abs().max() > 0.01
    torch.testing.assert_close(vectors(model, "search"), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors(model, "same"), start, rtol=0, atol=1e-6)
    save_dense(model, tmp_path / "all")
    again = load_dense(str(tmp_path / "all")).eval()
    torch.testing.assert_close(vectors(again, "search"), expected, rtol=0, atol=1e-5)
    keep_adapter(again, "search")
    torch.testing.assert_close(vectors(again, None), expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="whole copies have no rank: drop it"):
        DenseConfig.model_validate({"backbone": bert, "lora": {"whole": True, "rank": 4}})
