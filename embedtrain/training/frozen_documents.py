"""Query-only tuning: documents are encoded once, before training, and never again."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import NonNegativeInt
from torch import Tensor

from embedtrain.models.chunking import Execution
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.retrieval.dense.exact import search_exact
from embedtrain.section import Section
from embedtrain.training.guide import StoredVectors
from embedtrain.types import Relevance, RetrievalBatch, RetrievalOutputs


class FrozenDocumentsConfig(Section):
    """Train the encoder of queries only; documents keep the vectors that the starting model gave them.

    An index of them stays valid while queries are tuned. The run's ``model/`` encodes queries and names
    ``document_model/`` beside it, which every command of embedtrain then takes for documents.

    Source: with ``live_negatives`` ADORE, Zhan et al. (2021), https://arxiv.org/abs/2104.08051.
    """

    path: str | None = None
    """Corpus beside the documents of ``data.sources``: a BEIR folder or ``python_docs``."""
    split: str = "train"
    """Split of the corpus, where it has splits."""
    live_negatives: NonNegativeInt = 0
    """Take so many best documents of the corpus under the query of this very step as its negatives; 0 takes
    those of the rows."""


@dataclass(frozen=True)
class FrozenDocuments:
    """The vectors of all documents, and how a batch meets them."""

    documents: StoredVectors
    live_negatives: int = 0

    def __call__(
        self, model: DenseEncoder, batch: RetrievalBatch, execution: Execution
    ) -> RetrievalOutputs:
        """Encode the queries of a batch and put stored documents beside them."""
        query = model.embed(batch.queries, execution, "query")[batch.query_rows]
        relevance = batch.relevance
        if self.live_negatives:
            relevance = self.with_live_negatives(query.detach(), relevance)
        return RetrievalOutputs(
            query=query,
            document=self.documents.look_up(relevance.document_ids),
            relevance=relevance,
            temperature=model.temperature,
            similarity=model.contract.similarity,
            interaction=interaction_of(model),
        )

    def with_live_negatives(
        self, query: Float[Tensor, "queries dim"], relevance: Relevance
    ) -> Relevance:
        """Replace each query's negatives by the best documents that are not known to answer it."""
        known, device = relevance.answers, query.device
        wanted = self.live_negatives + known.shape[1]
        found = search_exact(query, self.documents.values, wanted, device=device).indices
        by_row = np.empty_like(self.documents.ids)
        by_row[self.documents.rows] = self.documents.ids
        ids = torch.from_numpy(by_row[found]).to(device)
        spared = (ids[:, :, None] == known[:, None]).any(2)
        first = spared.int().argsort(dim=1, stable=True)[:, : self.live_negatives]
        negatives = ids.gather(1, first).masked_fill(spared.gather(1, first), -1)
        return _in_groups(relevance, known[:, : relevance.positives.shape[1]], negatives)


def _in_groups(
    relevance: Relevance,
    answers: Int64[Tensor, "queries positives"],
    negatives: Int64[Tensor, "queries negatives"],
) -> Relevance:
    """Lay positives and negatives of each query out query-major; -1 stands for none."""
    groups = torch.cat([answers, negatives], 1)
    used = groups >= 0
    places = (used.flatten().cumsum(0) - 1).view(groups.shape)
    own = answers >= 0
    return replace(
        relevance,
        document_ids=groups[used],
        owners=used.nonzero()[:, 0],
        positives=places[:, : answers.shape[1]].masked_fill(~own, -1),
        teacher_scores=None,
        teacher_gram=None,
    )
