"""Suffixes, several frames, and a placeholder before the text: what the vectors are, and what is refused."""

import pytest
import torch

from embedtrain.contract.framing import Frame, Framing
from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.subject import symmetric_view, with_prompts
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.late_chunking import chunk_late

TEXTS = ["red cat", "a small blue bird sleeps near the large house", "the dog runs"]
SIDE = {"prompt": "the: ", "suffix": " : a", "length": 24}
FRAMES = [
    {"prompt": "the: ", "suffix": " : a"},
    {"suffix": " near"},
    {"prompt": "a ", "suffix": " x y"},
]
PUBLISHED = {"start": 1, "stop": 2, "place": "before_text", "token": "random"}


def model_of(path, **settings):
    usual = {"backbone": path, "pooling": "last_token", "similarity": "dot"}
    return build_dense(DenseConfig.model_validate(usual | settings), "cpu").eval()


def sides(**side):
    return {"query": side, "document": side}


@torch.no_grad()
def embed(model, texts=TEXTS, execution=Execution(1000), side="document"):  # noqa: B008 - frozen
    return model.embed(model.tokenization.encode(texts, side), execution, side)


def test_the_vector_is_the_state_of_the_suffix_s_last_token(llama):
    model = model_of(llama, **sides(**SIDE))
    for row, text in zip(embed(model), TEXTS, strict=True):
        ids = model.tokenizer(f"the: {text} : a")["input_ids"]
        assert ids[-1] == model.tokenizer("a", add_special_tokens=False)["input_ids"][0]
        model.use_padded_attention()
        with torch.no_grad():
            states = model.backbone(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(row, states[-1], atol=1e-5, rtol=1e-4)


def test_vectors_of_several_frames_are_averaged_whatever_their_order(llama):
    frames = [model_of(llama, **sides(**one)) for one in FRAMES]
    expected = torch.stack([embed(one) for one in frames]).mean(0)
    model = model_of(llama, prompts=FRAMES)
    found = embed(model)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embed(model, execution=Execution(20)), found, atol=1e-5, rtol=1e-4)
    turned = model_of(llama, prompts=FRAMES[::-1], packing="padded")
    torch.testing.assert_close(embed(turned), found, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embed(model_of(llama, prompts=FRAMES[:1])), embed(frames[0]))


@pytest.mark.parametrize(
    "settings",
    [
        sides(**SIDE),
        {"prompts": FRAMES},
        {"prepend": PUBLISHED, **sides(**SIDE)},
    ],
    ids=["suffix", "prompts", "prepend"],
)
def test_an_export_keeps_the_contract_and_its_vectors(settings, llama, tmp_path):
    model = model_of(llama, **settings)
    assert not model.is_portable
    save_dense(model, tmp_path / "model")
    again = load_dense(str(tmp_path / "model")).eval()
    assert again.contract == model.contract
    torch.testing.assert_close(embed(again), embed(model), atol=1e-6, rtol=1e-5)
    plain = model_of(llama, **sides(length=24))
    assert (embed(plain) - embed(model)).abs().max() > 1e-3


def test_a_recipe_may_change_what_a_folder_says(llama, tmp_path):
    save_dense(model_of(llama, **sides(**SIDE)), tmp_path / "model")
    path = str(tmp_path / "model")
    again = model_of(path, prompts=FRAMES).contract
    assert again.framing == Framing(prompts=tuple(Frame(**one) for one in FRAMES))
    other = model_of(path, query={"suffix": " near"}).contract.framing
    assert (other.query_suffix, other.document_suffix) == (" near", " : a")


def test_texts_that_are_compared_with_their_like_share_the_query_s_suffix(llama):
    model = model_of(llama, query=SIDE, document={"suffix": " near"})
    view = symmetric_view(model)
    torch.testing.assert_close(embed(view), embed(model, side="query"))


def placed(llama, **changes):
    return model_of(llama, prepend=PUBLISHED | changes, **sides(**SIDE))


def states_of(model, text, layers):
    chunk = model.tokenization.encode([text], "document")
    with torch.no_grad():
        states, own = model._own_states(chunk, packed=False, layers=layers)
    assert len(own.ids) == len(states)
    return states.chunk(len(layers) + 1, dim=1)


def test_from_a_layer_on_tokens_behind_the_placeholder_know_the_last_word(llama):
    model = placed(llama)
    first, second = (states_of(model, text, (1,)) for text in ("red cat runs", "red cat sleeps"))
    word = len(model.tokenizer("the:")["input_ids"])  # the first of the text's own
    assert torch.equal(first[0][: word + 1], second[0][: word + 1])  # layer 0: no overwriting yet
    assert torch.equal(first[1][:word], second[1][:word])  # the prompt comes before the placeholder
    assert (first[1][word] - second[1][word]).abs().max() > 1e-4


def test_an_empty_range_of_layers_has_no_effect_but_the_position_of_a_random_row(llama):
    model = placed(llama, start=2, stop=2)
    state = states_of(model, "red cat", ())[0]
    ids = model.tokenization.encode(["red cat"], "document").ids
    from embedtrain.contract.framing import PLACE

    where = int((ids & PLACE).nonzero()[0, 0])
    table = model.backbone.get_input_embeddings()
    with torch.no_grad():
        words = table(ids & ~PLACE)
        words[where] = model.placeholder.row
        model.use_padded_attention()
        expected = model.backbone(inputs_embeds=words[None]).last_hidden_state[0]
    own = [place for place in range(len(ids)) if place != where]
    torch.testing.assert_close(state, expected[own], atol=1e-5, rtol=1e-4)
    std = table.weight.std()
    assert 0.5 * std < model.placeholder.row.std() < 2 * std


@pytest.mark.parametrize("place", ["before_text", "after_first"])
@pytest.mark.parametrize("token", ["eos", "random"])
def test_packed_and_padded_agree_wherever_the_placeholder_stands(place, token, llama):
    settings = {"prepend": {"stop": 2, "place": place, "token": token}, "pooling": "mean"}
    packed, padded = (
        model_of(llama, packing=way, **settings, **sides(**SIDE)) for way in ("packed", "padded")
    )
    torch.testing.assert_close(embed(packed), embed(padded), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"query": SIDE, "document": {}}, r"last_token pools a suffix, which some texts have"),
        (
            sides(suffix=" : a", length=2),
            r"model\.query\.suffix and what .* leave no room for a text",
        ),
        ({"spans": "mean", "pooling": "mean", **sides(**SIDE)}, r"spans does not go with a suffix"),
        ({"prompts": FRAMES, "layer_pooling": {}}, r"prompts does not go with layer_pooling"),
    ],
)
def test_what_a_suffix_does_not_go_with_is_refused(settings, message, llama):
    with pytest.raises(UserError, match=message):
        model_of(llama, **settings)


def test_a_token_that_the_tokenizer_puts_behind_the_suffix_is_not_pooled(bert):
    with pytest.raises(UserError, match=r"would pool what the tokenizer puts behind .*SEP"):
        model_of(bert, **sides(**SIDE))


def test_prompts_that_others_would_put_before_frames_are_refused(llama):
    with pytest.raises(ValueError, match="prompts takes the place of prompt, suffix"):
        DenseConfig.model_validate({"backbone": llama, "prompts": FRAMES, "query": SIDE})
    with pytest.raises(UserError, match="--prompts does not go with a model of several prompts"):
        with_prompts(model_of(llama, prompts=FRAMES), "a", "b")


def test_an_empty_frame_among_several_is_refused():
    with pytest.raises(ValueError, match="of several prompts none may be empty"):
        Framing(prompts=(Frame(suffix=" a"), Frame()))


def test_a_contrast_in_a_layer_that_is_not_there_is_refused(llama):
    contrast = {"prompt": "a ", "suffix": " x", "layer": 99}
    with pytest.raises(UserError, match=r"model\.contrast\.layer is not below"):
        model_of(llama, contrast=contrast, **sides(**SIDE))


def test_late_chunks_with_a_suffix_are_refused(llama):
    model = model_of(llama, **sides(**SIDE) | {"pooling": "mean"})
    with pytest.raises(UserError, match=r"--late-chunks does not go with a suffix; got ' : a'"):
        chunk_late(model, 8)
