"""Cross-encoders of all families score as transformers does, packed or not, in any chunks."""

from dataclasses import replace

import pytest
import torch
from objective_toys import number
from pair_toys import FAMILIES, batch_of, gradients, pairs_of_lengths, save_classifier

from embedtrain.errors import UserError
from embedtrain.models.chunking import Execution
from embedtrain.models.cross_encoder.build import build_cross_encoder, load_cross_encoder
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.edits.shrink import shrink_reranker
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.multi_exit import MultiExit
from embedtrain.objectives.rank_net import RankNet

PAIRS = pairs_of_lengths((1, 1), (5, 3), (2, 30), (12, 12), (3, 20), (12, 1))
WHOLE = Execution(100_000)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    made = {}

    def folder(family):
        if family not in made:
            made[family] = save_classifier(tmp_path_factory.mktemp(family), family)
        return str(made[family])

    return folder


@torch.no_grad()
def logits_of_transformers(folder, pairs):
    """Padded, all in one, by what the tokenizer itself makes of pairs."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    queries, documents = zip(*pairs, strict=True)
    if "Llama" in type(model).__name__:
        tokenizer.pad_token = "[UNK]"
        model.config.pad_token_id = tokenizer.pad_token_id
        texts = [f"[CLS]query: {q} document: {d}[SEP]" for q, d in pairs]
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
    else:
        inputs = tokenizer(list(queries), list(documents), padding=True, return_tensors="pt")
    return model(**inputs).logits[:, 0]


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_short_length_is_no_unknown_head(family, folder_of):
    config = CrossEncoderConfig(
        kind="cross_encoder", backbone=folder_of(family), length=8, query_length=2
    )
    assert build_cross_encoder(config, torch.device("cpu")).contract.pair_length == 8


@pytest.mark.parametrize("packing", ["auto", "padded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_classifiers_own(family, packing, folder_of):
    model = load_cross_encoder(folder_of(family), packing=packing).eval()
    with torch.no_grad():
        found = model.score(model.pairs_of(PAIRS), WHOLE)
    expected = logits_of_transformers(folder_of(family), PAIRS)
    assert expected.std() > 0.01, "the toy tells pairs apart"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)
    assert model.parts.has_types == (family in ("bert", "electra"))


@pytest.mark.parametrize("family", ["bert", "modernbert_mean", "llama", "deberta"])
@pytest.mark.parametrize("objective", [InfoNCE().for_pairs(), RankNet().for_pairs()])
def test_chunks_that_are_read_again_give_the_plain_gradients(family, objective, folder_of):
    model = load_cross_encoder(folder_of(family)).double().eval()
    batch = batch_of(model, PAIRS)
    whole = gradients(model, batch, WHOLE, objective)
    parts = gradients(model, batch, Execution(25, rematerialize=True), objective)
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-12, atol=1e-12)
    assert whole[1].keys() == parts[1].keys() == dict(model.named_parameters()).keys()
    assert max(number(value.norm()) for value in whole[1].values()) > 1e-4
    for name, value in whole[1].items():
        torch.testing.assert_close(parts[1][name], value, rtol=1e-9, atol=1e-11)


def test_a_pair_that_occurs_twice_is_read_once_and_counts_twice(folder_of, monkeypatch):
    model = load_cross_encoder(folder_of("bert")).double().eval()
    batch = batch_of(model, PAIRS, repeat=True)
    assert len(model.texts_of(batch)) < len(batch.document_rows)
    outputs = model(batch, WHOLE)
    same = [(0, 8), (1, 5), (2, 6)]
    for one, other in same:
        assert outputs.pair_scores[one] == outputs.pair_scores[other]
    outputs.pair_scores[[0, 8]].sum().backward()
    twice = model.head.last.weight.grad.clone()
    model.zero_grad()
    model(batch, WHOLE).pair_scores[0].backward()
    torch.testing.assert_close(twice, 2 * model.head.last.weight.grad)


def test_scores_stand_beside_the_candidates_they_are_of(folder_of):
    model = load_cross_encoder(folder_of("roberta")).eval()
    batch = batch_of(model, PAIRS)
    outputs = model(batch, WHOLE)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    turned = replace(
        batch,
        document_rows=batch.document_rows[order],
        relevance=replace(batch.relevance, owners=batch.relevance.owners[order]),
    )
    torch.testing.assert_close(model(turned, WHOLE).pair_scores, outputs.pair_scores[order])


def with_exit(folder):
    config = CrossEncoderConfig(kind="cross_encoder", backbone=folder, exits=(1,))
    return build_cross_encoder(config, torch.device("cpu")).double().eval()


@pytest.mark.parametrize("packing", ["auto", "padded"])
@pytest.mark.parametrize("family", ["bert", "modernbert_mean", "llama"])
def test_an_exit_scores_as_the_model_that_ends_there(family, packing, folder_of):
    model = with_exit(folder_of(family))
    model.packing = packing
    batch = batch_of(model, PAIRS)
    both = model(batch, WHOLE)
    assert both.exits == (1, 2)
    torch.testing.assert_close(both.exit_scores[:, 1], both.pair_scores)
    small = shrink_reranker(model, 1)
    alone = small(batch, WHOLE)
    assert alone.exit_scores is None
    torch.testing.assert_close(both.at_exit(0).pair_scores, alone.pair_scores)
    assert (both.pair_scores - alone.pair_scores).abs().max() > 1e-3


def test_exits_in_chunks_give_the_plain_gradients(folder_of):
    model = with_exit(folder_of("bert"))
    batch, objective = batch_of(model, PAIRS), MultiExit(inner=InfoNCE()).for_pairs()
    whole = gradients(model, batch, WHOLE, objective)
    parts = gradients(model, batch, Execution(25, rematerialize=True), objective)
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-12, atol=1e-12)
    for name, value in whole[1].items():
        torch.testing.assert_close(parts[1][name], value, rtol=1e-9, atol=1e-11)


def test_an_exit_lies_below_the_last_layer(folder_of):
    config = CrossEncoderConfig(kind="cross_encoder", backbone=folder_of("bert"), exits=(2,))
    with pytest.raises(UserError, match="must lie below the last of the 2 layers"):
        build_cross_encoder(config, torch.device("cpu"))


def test_dropout_is_drawn_again_where_a_chunk_is_read_again(folder_of):
    model = load_cross_encoder(folder_of("bert")).double()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.2
    model.train()
    batch, found = batch_of(model, PAIRS), []
    for again in (False, True):
        torch.manual_seed(7)
        found.append(gradients(model, batch, Execution(25, again), RankNet().for_pairs()))
    assert torch.equal(found[0][0], found[1][0])
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value, rtol=1e-12, atol=1e-13)


def test_the_document_is_cut_and_what_stands_around_stays(folder_of):
    model = load_cross_encoder(folder_of("bert"))
    model.contract = model.contract.model_copy(update={"query_length": 4, "pair_length": 16})
    pairs = model.pairs_of(pairs_of_lengths((9, 30), (2, 3), (1, 40)))
    assert model.num_cut == 2
    assert pairs.lengths.tolist() == [16, 8, 16]
    for ids in pairs.ids.split(pairs.lengths.tolist()):
        assert (ids[0], ids[-1]) == (model.parts.prefix[0], model.parts.suffix[0])
    assert pairs.second.tolist() == [6, 4, 3]
