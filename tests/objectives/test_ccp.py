"""CCP against its formula in float64, sentence by sentence."""

import math
from dataclasses import replace

import pytest
import torch
from objective_toys import random_outputs

from embedtrain.bank_types import Bank
from embedtrain.objectives.ccp import CCP
from embedtrain.types import Relevance, RetrievalOutputs


def unit(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, 6, dtype=torch.float64, generator=generator)
    return torch.nn.functional.normalize(vectors, dim=1)


def outputs_of(rows: int = 4, bank: Bank | None = None) -> RetrievalOutputs:
    ids = torch.arange(rows)
    relevance = Relevance(ids, ids + 100, ids, ids[:, None], torch.full((rows, 1), -1))
    return RetrievalOutputs(unit(rows, 0), unit(rows, 1), relevance, bank=bank)


def by_formula(query, context, banks, temperature=0.05) -> float:
    total = 0.0
    for i, (z, other) in enumerate(zip(query.tolist(), context.tolist(), strict=True)):
        for asked, found in ((z, other), (other, z)):
            right = math.exp(
                math.fsum(a * b for a, b in zip(asked, found, strict=True)) / temperature
            )
            wrong = math.fsum(
                math.exp(math.fsum(a * b for a, b in zip(asked, entry, strict=True)) / temperature)
                for entry in banks[i]
            )
            total -= math.log(right / (right + wrong))
    return total / len(query)


def test_the_loss_is_that_of_the_formula_over_the_bank_alone():
    bank = Bank(unit(9, 2), torch.arange(9) + 500)
    outputs = outputs_of(bank=bank)
    expected = by_formula(outputs.query, outputs.document, [bank.vectors.tolist()] * 4)
    assert CCP()(outputs).loss.item() == pytest.approx(expected, rel=1e-9)
    shuffled = outputs.changed(lambda query: query, lambda document: document)
    lonely = replace(shuffled, query=outputs.query.clone())
    lonely.query[1] = unit(1, 7)[0]
    changed = by_formula(lonely.query, outputs.document, [bank.vectors.tolist()] * 4)
    assert CCP()(lonely).loss.item() == pytest.approx(changed, rel=1e-9)


def test_an_entry_with_a_text_of_the_pair_is_no_negative():
    ids = torch.tensor(
        [500, 2, 101, 501]
    )  # the second is query 2, the third the context of query 1
    bank = Bank(unit(4, 2), ids)
    outputs = outputs_of(bank=bank)
    entries = bank.vectors.tolist()
    expected, each = 0.0, {0: [0, 1, 2, 3], 1: [0, 1, 3], 2: [0, 2, 3], 3: [0, 1, 2, 3]}
    banks = [[entries[j] for j in each[i]] for i in range(4)]
    expected = by_formula(outputs.query, outputs.document, banks)
    assert CCP()(outputs).loss.item() == pytest.approx(expected, rel=1e-9)


def test_a_known_neighbour_is_a_negative_of_neither_side():
    bank = Bank(unit(3, 2), torch.tensor([500, 700, 501]))
    outputs = outputs_of(bank=bank)
    known = torch.tensor([[700], [-1], [-1], [-1]])
    outputs = replace(outputs, relevance=replace(outputs.relevance, known_positives=known))
    entries = bank.vectors.tolist()
    banks = [[entries[0], entries[2]], entries, entries, entries]
    expected = by_formula(outputs.query, outputs.document, banks)
    assert CCP()(outputs).loss.item() == pytest.approx(expected, rel=1e-9)


def test_a_sentence_that_the_context_also_stands_beside_is_no_negative_of_it():
    outputs = outputs_of()
    known = torch.tensor([[-1, -1], [103, -1], [700, 100], [-1, -1]])
    outputs = replace(outputs, relevance=replace(outputs.relevance, known_positives=known))
    scores = outputs.query @ outputs.document.T / 0.05
    scores[2, 0] = scores[1, 3] = -torch.inf
    target = torch.arange(4)
    both = [torch.nn.functional.cross_entropy(one, target) for one in (scores, scores.T)]
    assert CCP()(outputs).loss.item() == pytest.approx(sum(both).item(), rel=1e-9)


def test_the_batch_stands_in_for_a_bank_that_is_not_filled_and_beside_one_if_wished():
    outputs = outputs_of()
    query, context = outputs.query, outputs.document
    total = 0.0
    for one, other in ((query, context), (context, query)):
        scores = one @ other.T / 0.05
        total += torch.nn.functional.cross_entropy(scores, torch.arange(4)).item()
    assert CCP()(outputs).loss.item() == pytest.approx(total, rel=1e-9)
    bank = Bank(unit(9, 2), torch.arange(9) + 500)
    alone = CCP()(replace(outputs, bank=bank)).loss.item()
    both = CCP(in_batch=True)(replace(outputs, bank=bank)).loss.item()
    assert both > max(alone, total)


def test_the_bank_gets_no_gradient_and_both_sides_do():
    bank = Bank(unit(9, 2).requires_grad_(), torch.arange(9) + 500)
    outputs = outputs_of(bank=Bank(bank.vectors.detach(), bank.ids))
    query, context = outputs.query.requires_grad_(), outputs.document.requires_grad_()
    CCP()(outputs).loss.backward()
    assert query.grad.abs().min() > 0
    assert context.grad.abs().min() > 0


def test_hard_negatives_of_a_row_are_candidates_of_the_batch():
    outputs = random_outputs()
    assert CCP()(outputs).loss.isfinite()
