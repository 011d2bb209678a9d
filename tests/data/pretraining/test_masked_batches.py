import json
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from embedtrain.data.mixture import Draw
from embedtrain.data.pretraining.corpus import CorpusConfig, open_corpus
from embedtrain.data.pretraining.masked_batches import MaskedBatchBuilder, frame_of
from embedtrain.data.pretraining.spans import SpanSource, tokenize_corpus
from embedtrain.errors import UserError
from embedtrain.pretrain_types import Masking

SIZE = 12


@pytest.fixture(scope="module")
def tokenizer(bert):
    return AutoTokenizer.from_pretrained(bert)


@pytest.fixture(scope="module")
def source(tokenizer, sentences, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    documents = [". ".join(sentences[i : i + 6]) + "." for i in range(0, 120, 6)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
    (folder / "corpus.jsonl").write_text(lines)
    corpus = open_corpus(CorpusConfig(path=str(folder / "corpus.jsonl")))
    return tokenize_corpus(
        corpus, tokenizer, size=SIZE, mode="split", min_tokens=3, cache=folder / "cache"
    )


@pytest.fixture(scope="module")
def frame(tokenizer):
    return frame_of(tokenizer, 200, "bert")


def draw(step: int = 0, rows: int = 16) -> Draw:
    return Draw(step, 0, np.arange(rows))


@pytest.fixture(scope="module")
def build(source, frame):
    def builder(masking: Masking, **settings):
        return MaskedBatchBuilder([source], masking, frame, size=SIZE, **settings)

    return builder


def equal(one, other) -> bool:
    names = ("encoder_ids", "encoder_masked", "decoder_ids", "decoder_masked", "decoder_draws")
    same = one.texts.ids.equal(other.texts.ids)
    return same and all(getattr(one, name).equal(getattr(other, name)) for name in names)


def test_texts_are_framed_and_special_tokens_are_marked(build, source, tokenizer):
    batch = build(Masking(0.3))(draw())
    first = batch.texts.select(torch.tensor([0])).ids
    assert first[0] == tokenizer.cls_token_id
    assert first[-1] == tokenizer.sep_token_id
    assert first[1:-1].tolist() == source.span(0)[0].tolist()
    special = torch.isin(batch.texts.ids, torch.tensor(tokenizer.all_special_ids))
    assert batch.special.equal(special)
    assert not (batch.encoder_masked & batch.special).any()
    assert batch.encoder_ids[~batch.encoder_masked].equal(batch.texts.ids[~batch.encoder_masked])


def test_a_batch_depends_on_seed_and_step_only(build):
    masking = Masking(0.3, 0.5, by_position=True)
    assert equal(build(masking, seed=1)(draw(5)), build(masking, seed=1)(draw(5)))
    assert not equal(build(masking, seed=1)(draw(5)), build(masking, seed=1)(draw(6)))
    assert not equal(build(masking, seed=1)(draw(5)), build(masking, seed=2)(draw(5)))


@pytest.mark.parametrize("num_draws", [None, 7])
def test_positions_choose_among_the_drawn_masks(build, num_draws):
    batch = build(Masking(0.3, 0.5, by_position=True, num_draws=num_draws))(draw(rows=40))
    num_masks = num_draws or int(batch.texts.lengths.max())
    assert batch.decoder_draws.shape == (len(batch.texts.ids), num_masks)
    assert batch.decoder_picks.max() < num_masks
    if num_draws is None:  # each position its own
        assert batch.decoder_picks[: batch.texts.lengths[0]].tolist() == list(
            range(batch.texts.lengths[0])
        )
    assert not batch.decoder_draws[batch.special].any()
    assert abs(batch.decoder_draws[~batch.special].float().mean() - 0.5) < 0.03


def test_a_superset_mask_contains_the_encoders_and_an_independent_one_does_not(build):
    superset = build(Masking(0.3, 0.5, superset=True))(draw(rows=40))
    assert (superset.decoder_masked & superset.encoder_masked).equal(superset.encoder_masked)
    other = build(Masking(0.3, 0.45))(draw(rows=40))
    both = (other.decoder_masked & other.encoder_masked).sum() / other.encoder_masked.sum()
    assert 0.3 < both < 0.6


@pytest.mark.parametrize("kind", ["mixed", "nearby", "random", "overlap"])
def test_pairs_are_two_spans_of_one_document_that_decode_each_other(build, source, kind):
    batch = build(Masking(0.3, 0.45, pairs=True), pairs=kind)(draw(rows=source.num_documents))
    assert len(batch) == 2 * source.num_documents
    assert batch.partners.tolist() == [i ^ 1 for i in range(len(batch))]
    for number in range(source.num_documents):
        first, count = source.document(number)
        own = [source.span(first + i)[0].tolist() for i in range(count)]
        joined = ",".join(str(token) for span in own for token in span)
        pair = batch.select(torch.tensor([2 * number, 2 * number + 1]))
        tokens = [ids[1:-1].tolist() for ids in pair.texts.ids.split(pair.texts.lengths.tolist())]
        assert tokens[0] != tokens[1]
        assert all(",".join(map(str, span)) in joined for span in tokens)
        assert max(map(len, tokens)) <= SIZE
        if kind == "nearby":
            places = sorted(own.index(span) for span in tokens)
            assert places[1] == places[0] + 1


def test_selecting_texts_selects_their_tokens_in_every_tensor(build):
    batch = build(Masking(0.3, 0.5, by_position=True, num_draws=3))(draw())
    rows = torch.tensor([4, 0, 9])
    chosen = batch.select(rows)
    lengths = batch.texts.lengths.tolist()
    for name in ("encoder_ids", "special", "decoder_draws", "decoder_picks"):
        parts = getattr(batch, name).split(lengths)
        assert getattr(chosen, name).equal(torch.cat([parts[row] for row in rows.tolist()])), name


def test_a_tokenizer_that_cannot_serve_is_refused(tokenizer, llama, tmp_path):
    with pytest.raises(UserError, match="has a tokenizer without a mask token"):
        frame_of(AutoTokenizer.from_pretrained(llama), 200, "llama")
    with pytest.raises(UserError, match=r"has a tokenizer of .* tokens and a model of 10"):
        frame_of(tokenizer, 10, "bert")
    bare = PreTrainedTokenizerFast(
        tokenizer_object=AutoTokenizer.from_pretrained(llama).backend_tokenizer, mask_token="[UNK]"
    )
    with pytest.raises(UserError, match="puts no token before a text"):
        frame_of(bare, 200, "llama")


def test_a_tokenizer_saved_with_padding_is_framed_like_any_other(tokenizer, bert):
    padding = AutoTokenizer.from_pretrained(bert)
    padding.backend_tokenizer.enable_padding(length=20)
    padding.backend_tokenizer.enable_truncation(10)
    ours, theirs = frame_of(padding, 200, "bert"), frame_of(tokenizer, 200, "bert")
    assert ours.prefix.tolist() == theirs.prefix.tolist()
    assert ours.suffix.tolist() == theirs.suffix.tolist()


@pytest.mark.parametrize("pairs", [False, True])
def test_parts_of_a_step_are_cut_out_of_the_whole_batch(build, pairs):
    builder = build(Masking(0.3, 0.5, by_position=True, pairs=pairs))
    whole, parts = builder(draw(2, 7)), [builder(draw(2, 7).part(rank, 3)) for rank in range(3)]
    assert [len(part) for part in parts] == ([4, 4, 6] if pairs else [2, 2, 3])
    for name in ("encoder_ids", "encoder_masked", "decoder_masked", "decoder_draws"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert joined.equal(getattr(whole, name))
    starts = np.cumsum([0] + [len(part) for part in parts])
    partners = [part.partners + int(start) for part, start in zip(parts, starts, strict=False)]
    assert torch.cat(partners).equal(whole.partners)


def test_words_of_spans_that_overlap_begin_where_they_do_in_the_document(build):
    ids = np.arange(12, dtype=np.int32)
    starts = np.array([1, 1, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1], dtype=bool)
    spans = [(ids[part], starts[part]) for part in (slice(0, 6), slice(6, 12))]
    document = Mock(SpanSource, document=lambda _: (0, 2), span=spans.__getitem__)
    builder = build(Masking(0.3, 0.45, pairs=True), pairs="overlap")
    pair = builder._pair(document, 0, np.random.default_rng(0))
    assert sorted(tokens[0] for tokens, _ in pair) == [0, 3]
    for tokens, found in pair:
        assert found.tolist() == starts[tokens].tolist()
