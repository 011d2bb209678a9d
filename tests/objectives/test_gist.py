from dataclasses import replace

import pytest
import torch
from objective_toys import GROUP, number, random_outputs

from embedtrain.errors import UserError
from embedtrain.objectives.gist import GIST
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.types import GuideEmbeddings, RetrievalOutputs

EVERY = ("query_to_document", "query_to_query", "document_to_document")


def guided(outputs: RetrievalOutputs, query: torch.Tensor, document: torch.Tensor):
    return replace(outputs, guide=GuideEmbeddings(query, document, query))


def careless(outputs: RetrievalOutputs) -> RetrievalOutputs:
    """A guide that scores positives 1 and everything else 0."""
    num_queries = len(outputs.query)
    query = torch.eye(num_queries, dtype=torch.float64)
    document = torch.zeros(num_queries * GROUP, num_queries, dtype=torch.float64)
    document[outputs.relevance.positives[:, 0]] = query
    return guided(outputs, query, document)


@pytest.mark.parametrize("directions", [EVERY[:1], EVERY])
def test_a_guide_that_suspects_nothing_gives_infonce(directions):
    outputs = careless(random_outputs())
    loss = GIST(temperature=0.2, directions=directions)(outputs).loss
    assert torch.isclose(loss, InfoNCE(temperature=0.2, directions=directions)(outputs).loss)


def test_a_planted_false_negative_gets_no_gradient_and_a_margin_leaves_out_more():
    outputs = careless(random_outputs())
    guide = outputs.guide
    guide.document[2 * GROUP + 3] = 0.9 * guide.query.sum(0)  # 0.9 for every query
    directions = EVERY[:1]
    for margin, spared in ((0.0, False), (0.2, True)):
        outputs.document.grad = None
        result = GIST(temperature=0.2, directions=directions, margin=margin)(outputs)
        result.loss.backward(retain_graph=True)
        assert (number(outputs.document.grad[2 * GROUP + 3].abs().max()) == 0) is spared
    assert number(result.metrics["guided_ratio"]) > 0


@pytest.mark.parametrize(
    ("of_positive", "kept", "left_out"), [(0.5, 0.39, 0.41), (-0.5, -0.61, -0.59)]
)
def test_a_relative_margin_grows_with_the_size_of_the_guides_score(of_positive, kept, left_out):
    """A fifth of 0.5 below the positive's score, whatever its sign."""
    outputs = random_outputs()
    query = torch.eye(5, dtype=torch.float64)
    document = torch.full((5 * GROUP, 5), -10.0, dtype=torch.float64)
    document[outputs.relevance.positives[:, 0]] = of_positive
    document[[2, 3]] = 10.0  # left out of every other row
    document[[2, 3], 0] = torch.tensor([kept, left_out], dtype=torch.float64)
    objective = GIST(temperature=0.2, directions=EVERY[:1], margin=0.2, margin_kind="relative")
    objective(guided(outputs, query, document)).loss.backward()
    sizes = outputs.document.grad.abs().amax(1)
    assert number(sizes[2]) > 0
    assert number(sizes[3]) == 0


def test_the_positive_stays_even_if_the_guide_prefers_all_others():
    outputs = random_outputs()
    query = torch.eye(5, dtype=torch.float64)
    document = torch.ones(5 * GROUP, 5, dtype=torch.float64)
    document[outputs.relevance.positives[:, 0]] -= query
    result = GIST(directions=EVERY[:1])(guided(outputs, query, document))
    assert number(result.loss) == 0, "no candidate is left but the positive"
    result.loss.backward()
    assert number(outputs.document.grad.abs().max()) == 0


def test_a_duplicate_query_is_left_out_by_its_id_and_costs_nothing():
    outputs = careless(random_outputs())
    ids = outputs.relevance.query_ids.clone()
    ids[:] = 7
    same = replace(outputs, relevance=replace(outputs.relevance, query_ids=ids))
    without = GIST(directions=(EVERY[0],))(same).loss
    assert torch.isclose(GIST(directions=EVERY[:2])(same).loss, without)


def test_late_interaction_is_guided_among_documents_and_refused_among_queries():
    outputs = careless(random_outputs("late_interaction"))
    loss = GIST(directions=EVERY[:1])(outputs).loss
    assert torch.isclose(loss, InfoNCE()(outputs).loss)
    with pytest.raises(UserError, match="texts of one side"):
        GIST()(outputs)


def test_without_a_guide_it_says_what_is_missing():
    with pytest.raises(UserError, match="gist needs a guide"):
        GIST()(random_outputs())


def test_a_candidate_level_with_the_positive_stays():
    outputs = careless(random_outputs())
    outputs.guide.document[2 * GROUP + 3] = outputs.guide.query.sum(0)  # 1, as the positives
    GIST(directions=EVERY[:1])(outputs).loss.backward()
    assert number(outputs.document.grad[2 * GROUP + 3].abs().max()) > 0
