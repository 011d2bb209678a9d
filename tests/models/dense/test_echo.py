"""Echo and token prepending: what early tokens learn of late ones, and what stays as it was."""

import pytest
import torch

from embedtrain.contract.texts import TokenPrepending
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.echo import twice, with_placeholder
from embedtrain.packed import Texts

WHOLE = Execution(10_000)
TEXTS = ["red cat runs", "red cat sleeps", "a small blue bird"]


def model(llama, **settings):
    sides = {"query": {"length": 12}, "document": {"length": 12}}
    config = DenseConfig.model_validate(
        {"backbone": llama, "pooling": "cls", "similarity": "dot", **sides, **settings}
    )
    return build_dense(config, "cpu").eval()


@torch.no_grad()
def embed(encoder, execution=WHOLE):
    return encoder.embed(encoder.tokenization.encode(TEXTS, "query"), execution)


def test_a_text_is_followed_by_itself():
    texts = Texts(torch.tensor([1, 2, 3, 7, 8]), torch.tensor([3, 2]))
    repeated, second = twice(texts)
    assert repeated.ids.tolist() == [1, 2, 3, 1, 2, 3, 7, 8, 7, 8]
    assert repeated.lengths.tolist() == [6, 4]
    assert repeated.ids[second].tolist() == texts.ids.tolist()
    assert second.tolist() == [3, 4, 5, 8, 9]


def test_the_placeholder_stands_behind_the_first_token():
    shown, own = with_placeholder(Texts(torch.tensor([1, 2, 7, 8, 9]), torch.tensor([2, 3])), 0)
    assert shown.ids.tolist() == [1, 0, 2, 7, 0, 8, 9]
    assert shown.lengths.tolist() == [3, 4]
    assert shown.ids[own].tolist() == [1, 2, 7, 8, 9]


@pytest.mark.parametrize("packing", ["packed", "padded"])
def test_with_echo_the_first_token_knows_the_last(llama, packing):
    plain, echo = (
        embed(model(llama, packing=packing)),
        embed(model(llama, echo=True, packing=packing)),
    )
    torch.testing.assert_close(plain[0], plain[1])
    assert (echo[0] - echo[1]).abs().max() > 1e-4


def test_echo_is_the_second_half_of_the_text_written_twice(llama):
    encoder = model(llama, echo=True, pooling="mean")
    texts = encoder.tokenization.encode(TEXTS[:1], "query")
    with torch.no_grad():
        states = encoder.backbone(input_ids=texts.ids.repeat(2)[None]).last_hidden_state[0]
    torch.testing.assert_close(
        embed(encoder)[0], states[len(texts.ids) :].mean(0), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("packing", ["packed", "padded"])
def test_with_prepending_the_token_behind_the_placeholder_knows_the_last(llama, packing):
    def second_token(**settings):
        encoder = model(llama, packing=packing, **settings)
        texts = encoder.tokenization.encode(TEXTS[:2], "query")
        with torch.no_grad():
            states, _ = encoder._own_states(texts, packed=packing == "packed", layers=())
        return states[1], states[1 + int(texts.lengths[0])]

    for settings, known in (
        ({}, False),
        ({"prepend": {"start": 1, "stop": 1}}, False),
        ({"prepend": {"start": 1, "stop": 2}}, True),
    ):
        one, other = second_token(**settings)
        assert bool((one - other).abs().max() > 1e-5) == known, settings


@pytest.mark.parametrize("settings", [{"echo": True}, {"prepend": {"start": 0, "stop": 2}}])
def test_packing_and_chunks_change_nothing(llama, settings):
    settings = {"pooling": "weighted_mean"} | settings
    whole = embed(model(llama, packing="padded", **settings))
    for execution in (WHOLE, Execution(8)):
        found = embed(model(llama, packing="packed", **settings), execution)
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [{"echo": True}, {"prepend": {"start": 0, "stop": 2}}])
def test_an_export_is_read_back_and_refused_by_others(llama, tmp_path, settings):
    encoder = model(llama, **settings)
    save_dense(encoder, tmp_path / "model")
    again = load_dense(str(tmp_path / "model")).eval()
    assert again.contract == encoder.contract
    torch.testing.assert_close(embed(again), embed(encoder))
    sentence_transformers = pytest.importorskip("sentence_transformers")
    with pytest.raises((ImportError, AttributeError, ValueError, OSError)):
        sentence_transformers.SentenceTransformer(str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"echo": True, "document": {"length": 40}}, "shows the backbone 80 tokens"),
        ({"prepend": {"start": 0, "stop": 3}}, "is more than the 2 layers"),
    ],
)
def test_mistakes_are_named(llama, settings, words):
    with pytest.raises(UserError, match=words):
        embed(model(llama, **settings))


def test_prepending_has_the_defaults_of_the_paper():
    assert TokenPrepending() == TokenPrepending(start=1, stop=7)
