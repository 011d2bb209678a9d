import pytest
import torch

from embedtrain.contract.texts import join_texts
from embedtrain.data.batches import BatchBuilder
from embedtrain.data.mixture import Draw
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.types import Relevance, RetrievalBatch

WHOLE = Execution(chunk_tokens=100_000)


def encoder(path: str, **settings) -> DenseEncoder:
    return build_dense(DenseConfig(backbone=path, **settings))


def batch_of(model: DenseEncoder, sentences: list[str], rows: int = 12) -> RetrievalBatch:
    queries = model.tokenization.encode(sentences[:rows], "query")
    documents = model.tokenization.encode(sentences[rows : 3 * rows], "document")
    relevance = Relevance(
        query_ids=torch.arange(rows),
        document_ids=torch.arange(2 * rows),
        owners=torch.arange(2 * rows) // 2,
        positives=2 * torch.arange(rows)[:, None],
        known_positives=2 * torch.arange(rows)[:, None],
    )
    return RetrievalBatch(queries, documents, torch.arange(rows), torch.arange(2 * rows), relevance)


def gradients(model: DenseEncoder, batch: RetrievalBatch, execution: Execution) -> dict:
    model.zero_grad()
    InfoNCE(temperature=0.05)(model(batch, execution)).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def relative_error(found: dict, expected: dict) -> float:
    assert found.keys() == expected.keys()
    difference = sum(float((found[k] - expected[k]).double().square().sum()) for k in expected)
    return (difference / sum(float(v.double().square().sum()) for v in expected.values())) ** 0.5


@pytest.mark.parametrize("pooling", ["cls", "mean", "last_token", "weighted_mean", "max"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "llama"])
def test_packed_and_padded_give_the_same_vectors(kind, pooling, request, sentences):
    path = request.getfixturevalue(kind)
    if kind == "bert" and pooling == "last_token":
        pytest.skip("the BERT tokenizer has no EOS token")
    packed = encoder(path, pooling=pooling, packing="packed").double().eval()
    padded = encoder(path, pooling=pooling, packing="padded").double().eval()
    texts = packed.tokenization.encode(sentences[:40], "document")
    difference = packed.embed(texts, WHOLE) - padded.embed(texts, WHOLE)
    assert difference.abs().max() < 1e-12


@pytest.mark.parametrize("packing", ["packed", "padded"])
@pytest.mark.parametrize("rematerialize", [False, True])
def test_chunked_and_rematerialised_gradients_are_those_of_one_padded_batch(
    packing, rematerialize, bert, sentences
):
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        plain = encoder(bert, packing="padded", projection=16, learn_temperature=0.07).to(dtype)
        other = encoder(bert, packing=packing, projection=16, learn_temperature=0.07).to(dtype)
        other.load_state_dict(plain.state_dict())
        batch = batch_of(plain, sentences)
        expected = gradients(plain, batch, WHOLE)
        found = gradients(other, batch, Execution(40, rematerialize))
        assert "log_temperature" in found
        assert relative_error(found, expected) <= bound


def test_rematerialisation_replays_dropout(bert_with_dropout, sentences):
    model = encoder(bert_with_dropout).double().train()
    batch = batch_of(model, sentences)
    torch.manual_seed(3)
    expected = gradients(model, batch, Execution(60))
    torch.manual_seed(3)
    found = gradients(model, batch, Execution(60, rematerialize=True))
    assert relative_error(found, expected) == 0
    torch.manual_seed(4)
    other = gradients(model, batch, Execution(60))
    assert relative_error(other, expected) > 1e-3, "dropout must really be on"


def test_a_text_that_occurs_twice_gets_the_gradient_of_both_places(bert, sentences):
    model = encoder(bert).double()
    batch = batch_of(model, sentences)
    twice = RetrievalBatch(
        batch.queries,
        batch.documents.select(torch.tensor([*range(23), 0])),
        batch.query_rows,
        batch.document_rows,
        batch.relevance,
    )
    rows = batch.document_rows.clone()
    rows[23] = 0
    once = RetrievalBatch(batch.queries, batch.documents, batch.query_rows, rows, batch.relevance)
    assert relative_error(gradients(model, once, WHOLE), gradients(model, twice, WHOLE)) < 1e-12


def test_the_order_of_texts_does_not_matter(bert, sentences):
    model = encoder(bert).double().eval()
    texts = model.tokenization.encode(sentences[:30], "document")
    order = torch.randperm(30)
    embeddings = model.embed(texts, Execution(50))
    assert torch.allclose(model.embed(texts.select(order), Execution(70)), embeddings[order])


def test_cosine_vectors_have_length_one_and_dot_vectors_do_not(bert, sentences):
    texts = encoder(bert).tokenization.encode(sentences[:5], "query")
    assert torch.allclose(encoder(bert).eval().embed(texts, WHOLE).norm(dim=1), torch.ones(5))
    free = encoder(bert, similarity="dot").eval().embed(texts, WHOLE).norm(dim=1)
    assert (free - 1).abs().max() > 0.1


def test_bf16_autocast_leaves_float32_vectors_close_to_the_exact_ones(bert, sentences):
    model = encoder(bert).eval()
    texts = model.tokenization.encode(sentences[:20], "document")
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.embed(texts, WHOLE)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - model.embed(texts, WHOLE)).abs().max() < 0.05


def test_last_token_pooling_ends_every_text_with_eos_even_when_cut(llama):
    model = encoder(llama, pooling="last_token", document={"length": 4})
    for text in ("cat", "cat dog bird runs jumps sleeps over under"):
        ids = model.tokenization([text], "document")[0]
        assert ids[-1] == model.tokenizer.eos_token_id
        assert len(ids) <= 4


def test_prompts_and_lengths_of_the_sides_differ(bert):
    model = encoder(
        bert, query={"prompt": "query: ", "length": 5}, document={"prompt": "", "length": 9}
    )
    tokenize = model.tokenization
    assert len(tokenize(["cat " * 20], "query")[0]) == 5
    assert len(tokenize(["cat " * 20], "document")[0]) == 9
    assert (
        tokenize(["cat"], "query")[0].tolist() == tokenize(["query: cat"], "document")[0].tolist()
    )
    assert tokenize.fingerprint("query") != tokenize.fingerprint("document")


def test_the_fingerprint_does_not_depend_on_what_was_tokenised_before(bert):
    tokenize = encoder(bert).tokenization
    before = tokenize.fingerprint("query")
    tokenize(["cat " * 90], "document")
    assert tokenize.fingerprint("query") == before


def test_a_length_beyond_the_positions_is_refused(bert):
    with pytest.raises(UserError, match=r"model.document.length is more than the 64 tokens"):
        encoder(bert, document={"length": 65})


def test_packing_that_is_not_exact_is_refused_when_wished_for_and_avoided_by_auto(
    bert, sentences, monkeypatch
):
    monkeypatch.setattr("embedtrain.models.text_model.position_offset", lambda config: 1)
    texts = encoder(bert).tokenization.encode(sentences[:5], "document")
    with pytest.raises(UserError, match="packed is not exact"):
        encoder(bert, packing="packed").embed(texts, WHOLE)
    auto, padded = encoder(bert, packing="auto"), encoder(bert, packing="padded")
    assert torch.equal(auto.eval().embed(texts, WHOLE), padded.eval().embed(texts, WHOLE))


def test_keeping_the_first_layers_gives_the_states_after_them(bert, sentences):
    whole, cut = encoder(bert).eval(), encoder(bert, num_layers=1).eval()
    assert len(cut.backbone.encoder.layer) == 1
    whole.backbone.encoder.layer = whole.backbone.encoder.layer[:1]
    texts = whole.tokenization.encode(sentences[:9], "document")
    assert torch.equal(whole.embed(texts, WHOLE), cut.embed(texts, WHOLE))


def test_a_text_without_tokens_is_refused(bert):
    texts = join_texts([torch.tensor([], dtype=torch.int32).numpy()])
    with pytest.raises(UserError, match="has no tokens"):
        encoder(bert).embed(texts, WHOLE)


def test_a_batch_from_data_passes_through_the_encoder(bert, pairs, cache):
    from embedtrain.data.examples import SourceConfig
    from embedtrain.data.sources import open_source
    from embedtrain.data.tokenized import tokenize_source

    model = encoder(bert)
    source = tokenize_source(open_source(SourceConfig(path=str(pairs))), model.tokenization, cache)
    batch = BatchBuilder([source])(Draw(0, 0, torch.arange(8).numpy()))
    outputs = model(batch, WHOLE)
    assert outputs.query.shape == (8, 32)
    assert outputs.document.shape == (16, 32)
