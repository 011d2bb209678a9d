"""Quick-Thought: the candidates of a sentence are the others of its batch, its two neighbours the right ones."""

from math import e, log

import numpy as np
import pytest
import torch

from embedtrain.contract.texts import Contract, Tokenization
from embedtrain.data.batches import BatchBuilder
from embedtrain.data.examples import SourceConfig, text_id
from embedtrain.data.mixture import Draw
from embedtrain.data.sources import open_source
from embedtrain.data.tokenized import tokenize_source
from embedtrain.models.backbone.loading import load_backbone
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.types import RetrievalOutputs

SENTENCES = [f"The {name} cat sits by the house." for name in ("first", "second", "third", "last")]
SIDES = {"query_prompt": "", "document_prompt": "", "query_length": 16, "document_length": 16}


def test_both_neighbours_are_positives(bert, tmp_path, write_jsonl):
    path = write_jsonl([{"text": " ".join(SENTENCES)}])
    config = SourceConfig(path=str(path), pairs="neighbours", same_document="negative")
    contract = Contract(pooling="mean", similarity="cosine", **SIDES)
    tokenization = Tokenization(load_backbone(bert).tokenizer, contract)
    source = tokenize_source(open_source(config), tokenization, tmp_path)
    batch = BatchBuilder([source], num_positives=2)(Draw(0, 0, np.arange(4)))
    ids = [text_id(sentence) for sentence in SENTENCES]
    assert batch.relevance.query_ids.tolist() == ids
    # The second sentence scores 1 with the first and 0 with any other.
    one_hot = torch.eye(4, dtype=torch.float64)
    query = torch.zeros(4, 4, dtype=torch.float64)
    query[1] = one_hot[0]
    document = torch.stack([one_hot[ids.index(i)] for i in batch.relevance.document_ids.tolist()])
    outputs = RetrievalOutputs(query, document, batch.relevance)
    # A query of zeros scores 0 with all. Each sentence is there as often as it is a neighbour: the ends see one right
    # document and three others, the third sentence each of its two right ones with one other.
    others = 2 * log(4) + log(3)
    second = 4 * float(InfoNCE(temperature=1.0)(outputs).loss) - others
    assert second == pytest.approx(log(e + 2) - 0.5, abs=1e-9)
    assert log(e + 2) - 0.5 == pytest.approx(1.051445, abs=1e-6)
