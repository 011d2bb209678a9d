from dataclasses import replace

import pytest
import torch
from pretrain_parts import autoencoder, masked_batch, objective_of

from embedtrain.models.chunking import Execution
from embedtrain.objectives.pretrain.dupmae import bag_of_words
from embedtrain.ops.vocabulary_max import vocabulary_max
from embedtrain.packed import Texts


@pytest.fixture
def parts(bert):
    objective = objective_of("dupmae")
    batch = masked_batch(objective.masking, [9, 12, 5], vocabulary=12)  # words repeat
    model = autoencoder(bert, "dupmae", double=True)
    return objective, batch, model


def naive(batch, model) -> torch.Tensor:
    """The definition: a loop over texts and vocabulary entries, one text at a time."""
    losses = []
    for number in range(len(batch)):
        text = batch.select(torch.tensor([number]))
        states = model.encoder.states(Texts(text.encoder_ids, text.texts.lengths), packed=False)
        logits = model.language.transform(states) @ model.language.weight.T + model.language.bias
        pooled = logits[1:].max(0).values
        log_probabilities = pooled.log_softmax(0)
        tokens = text.texts.ids[~text.special].tolist()
        weights = dict.fromkeys(tokens, 1 / len(tokens))
        losses.append(-sum(weight * log_probabilities[v] for v, weight in weights.items()))
    return torch.stack(losses).mean()


def test_the_bag_of_words_equals_the_double_loop(parts):
    _, batch, model = parts
    loss, _ = bag_of_words(model(batch, Execution(12)))
    assert torch.allclose(loss, naive(batch, model), atol=1e-10)


def test_the_loss_adds_the_weighted_bag_to_the_rebuilt_text(parts):
    objective, batch, model = parts
    out = model(batch, Execution())
    result = objective(out)
    rebuilt = result.metrics["encoder_loss"] + result.metrics["decoder_loss"]
    assert torch.allclose(result.loss, rebuilt + 0.1 * result.metrics["bag_of_words_loss"])
    assert objective.keeps_head


def test_a_repeated_word_counts_once_but_lowers_the_weight_of_all(parts):
    objective, _, model = parts
    batch = masked_batch(objective.masking, [6])
    ids = torch.tensor([2, 7, 7, 8, 9, 3])
    words = model(replace(batch, texts=Texts(ids, batch.texts.lengths)), Execution()).words
    assert words.bag_ids.tolist() == [7, 8, 9]
    assert words.num_tokens.tolist() == [4]


def test_the_first_token_takes_no_part(parts):
    _, batch, model = parts
    out = model(batch, Execution())
    assert out.words.lengths.tolist() == [11, 8, 4]  # longest first, each without its first
    assert len(out.words.hidden) == len(batch.texts.ids) - 3


def test_words_found_is_the_share_among_the_largest_entries(parts):
    _, batch, model = parts
    out = model(batch.select(torch.tensor([0])), Execution())
    bias = torch.zeros(len(out.weight), dtype=torch.float64)
    bias[out.words.bag_ids] = 1000
    assert bag_of_words(replace(out, bias=bias))[1] == 1
    assert bag_of_words(replace(out, bias=-bias))[1] == 0


def test_words_are_found_among_as_many_entries_as_their_own_text_has_words(parts):
    _, batch, model = parts
    out = model(batch, Execution())
    words, found = out.words, 0
    shortest = words.bag_ids[words.bag_texts == words.bag_texts.bincount().argmin()]
    bias = torch.zeros(len(out.weight), dtype=torch.float64)
    bias[shortest] = 1000
    bias[next(one for one in range(len(bias)) if one not in shortest)] = 2000  # before its words
    out = replace(out, bias=bias)
    pooled = vocabulary_max(words.hidden, words.lengths, out.weight, out.bias)
    for number, entries in enumerate(pooled):
        own = words.bag_ids[words.bag_texts == number].tolist()
        found += len(set(own) & set(entries.topk(len(own)).indices.tolist()))
    assert len(set(words.bag_texts.bincount().tolist())) > 1
    assert bag_of_words(out)[1].item() == pytest.approx(found / len(words.bag_ids))
