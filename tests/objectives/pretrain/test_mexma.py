"""MEXMA against its formulas, one text at a time in float64."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pretrain_parts import autoencoder, masked_batch, objective_of

from embedtrain.models.chunking import Execution
from embedtrain.packed import Texts

WHOLE = Execution()
LENGTHS = [9, 12, 7, 8, 10, 6]
PART = {"token_weight": 0.0, "align_weight": 0.0, "koleo_weight": 0.0}


def encoded(model, ids):
    texts = Texts(ids, torch.tensor([len(ids)]))
    return model.encoder.states(texts, packed=True)


def texts_of(batch):
    """Return ids, masked ids and places of labels of each text."""
    parts = [
        part.split(batch.texts.lengths.tolist())
        for part in (batch.texts.ids, batch.encoder_ids, batch.encoder_masked)
    ]
    return list(zip(*parts, strict=True))


def cross_entropy(model, masked_ids, labelled, ids, vector):
    """Return the loss of the hidden words of a text, given its translation's vector; summed."""
    states = encoded(model, masked_ids)
    head = torch.cat([vector[None], states[1:]])[None]
    width = len(ids)
    rebuilt = model.decoder.plain(head, torch.ones(1, 1, width, dtype=torch.bool))[0]
    logits = rebuilt[labelled] @ model.language.weight.T + model.language.bias
    return F.cross_entropy(logits, ids[labelled], reduction="sum")


def by_formula(model, batch, *, token_weight=1.0, align_weight=1.0, koleo_weight=0.01):
    texts = texts_of(batch)
    vectors = [encoded(model, ids)[0] for ids, _, _ in texts]
    words = 0.0
    for side in (0, 1):
        total, number = 0.0, 0
        for i in range(side, len(texts), 2):
            ids, masked_ids, labelled = texts[i]
            total = total + cross_entropy(model, masked_ids, labelled, ids, vectors[i ^ 1])
            number += int(labelled.sum())
        words = words + total / number / 2
    pairs = range(0, len(texts), 2)
    apart = sum((vectors[i] - vectors[i + 1]).square().sum() for i in pairs)
    apart = apart / (len(pairs) * len(vectors[0]))
    crowded = 0.0
    for side in (0, 1):
        units = [vector / vector.norm() for vector in vectors[side::2]]
        for i, unit in enumerate(units):
            others = [other for j, other in enumerate(units) if j != i]
            nearest = max(others, key=lambda other, unit=unit: float((unit @ other).detach()))
            crowded = crowded - ((unit - nearest).norm()).log() / len(units) / 2
    return token_weight * words + align_weight * apart + koleo_weight * crowded


def test_the_loss_and_its_gradients_are_those_of_the_formula(bert):
    objective = objective_of("mexma", koleo_weight=0.3)
    batch = masked_batch(objective.masking, LENGTHS)
    found = []
    for losses in (
        lambda model: objective(model(batch, WHOLE)).loss,
        lambda model: by_formula(model, batch, koleo_weight=0.3),
    ):
        model = autoencoder(bert, "mexma", double=True)
        loss = losses(model)
        loss.backward()
        found.append((loss, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (loss, gradients), (expected, wanted) = found
    assert math.isclose(loss.item(), expected.item(), rel_tol=1e-6)
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-5, atol=1e-7)


def gradient_by_states(bert, **part):
    """Return the gradient of a loss by the last states of the masked pass and of the clean pass, by text."""
    model = autoencoder(bert, "mexma", double=True)
    objective = objective_of("mexma", **PART | part)
    batch = masked_batch(objective.masking, [9, 9])
    run, kept = model.encoder.states, []

    def states(texts, **options):
        found = run(texts, **options)
        found.retain_grad()
        kept.append(found)
        return found

    model.encoder.states = states
    outputs = model(batch, WHOLE)
    # Only the first text's hidden words count.
    objective(replace(outputs, translated=replace(outputs.translated, weight=0.0))).loss.backward()
    masked, clean = (one.grad.view(2, 9, -1) for one in kept)
    return masked, clean


def test_hidden_words_of_one_text_train_the_vector_of_the_other_and_not_their_own(bert):
    masked, clean = gradient_by_states(bert, token_weight=1.0)
    assert clean[1, 0].abs().max() > 1e-6, "the translation's vector"
    assert clean[0].abs().max() == 0, "nothing of its own clean pass"
    assert clean[1, 1:].abs().max() == 0
    assert masked[0, 0].abs().max() == 0, "its own first state gives way to the vector"
    assert masked[0, 1:].abs().max() > 1e-6
    assert masked[1].abs().max() == 0


def test_the_languages_may_be_swapped(bert):
    objective = objective_of("mexma")
    batch = masked_batch(objective.masking, LENGTHS)
    model = autoencoder(bert, "mexma", double=True)
    loss = objective(model(batch, WHOLE)).loss
    swapped = replace(batch.select(torch.arange(6) ^ 1), partners=batch.partners)
    torch.testing.assert_close(objective(model(swapped, WHOLE)).loss, loss)


def test_a_step_needs_two_pairs_for_koleo():
    assert objective_of("mexma").smallest_batch == 4
    assert objective_of("mexma", koleo_weight=0.0).smallest_batch == 2
    assert pytest.approx(0.4) == objective_of("mexma").masking.encoder_ratio
