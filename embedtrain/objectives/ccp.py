"""CCP: a sentence finds its neighbour among sentences of earlier steps in its own language."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field, PositiveFloat
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.infonce.loss import infonce
from embedtrain.ops.infonce.problem import InfoNCEOptions, InfoNCEOutput
from embedtrain.section import Count
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class CCP(Objective):
    r"""Make a sentence prefer its context to the bank of its language, and the context likewise.

    $$\mathcal{L} = \frac{1}{B} \sum_i -\log \frac{e^{z_i \cdot z'_i/\tau}}{e^{z_i \cdot z'_i/\tau}
    + \sum_{m \in Q_l} e^{z_i \cdot m/\tau}}
    -\log \frac{e^{z'_i \cdot z_i/\tau}}{e^{z'_i \cdot z_i/\tau} + \sum_{m \in Q_l} e^{z'_i \cdot m/\tau}}$$

    $z$ is what ``model.contrast_head`` makes of the vectors of query and positive, $Q_l$ the last ``bank_size`` of them of
    the same source of data: one source for each language. An entry of the bank with the text of the sentence, or of a
    known positive, is no negative; nor is, the other way, a sentence of the batch that the context is a known positive
    of. Until a quarter of the bank is filled the batch's other sentences stand in for it.
    Temperature and size are ours, as the paper's code of pre-training is not public.

    Also called contrastive context prediction. Source: Wu et al. (2022), https://arxiv.org/abs/2206.03281.
    """

    name: Literal["ccp"] = "ccp"
    needs_all_queries: ClassVar[bool] = True
    temperature: PositiveFloat = 0.05
    """Divides the scores (no unit)."""
    bank_size: Count = Field(default=4096)
    """Sentences of earlier steps, of each source."""
    in_batch: bool = False
    """Take the batch's other sentences as negatives beside the bank."""

    @property
    def wanted_bank(self) -> int:
        """The size of the bank."""
        return self.bank_size

    @property
    def reads_scores(self) -> bool:
        """Only which documents are positives counts."""
        return False

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        query, document, relevance = outputs.query, outputs.document, outputs.relevance
        assert isinstance(query, Tensor)
        assert isinstance(document, Tensor)
        everyone = outputs.all_queries
        asked, asked_ids, answers = query, relevance.query_ids, relevance.known_positives
        if everyone is not None:
            assert isinstance(everyone.embeddings, Tensor)
            asked, asked_ids = everyone.embeddings, everyone.ids
            answers = everyone.known_positives
        itself = relevance.query_ids[:, None]
        known = torch.cat([relevance.known_positives, itself], 1)
        there = self._one_way(
            outputs, query, (document, relevance.document_ids), relevance.positives, known
        )
        first = relevance.positives[:, 0]
        contexts = relevance.document_ids[first]
        rows = torch.arange(len(query), device=first.device)[:, None]
        back = self._one_way(
            outputs,
            document[first],
            (asked, asked_ids),
            rows,
            # The context stands beside other sentences too, and near what else stands beside this one.
            torch.cat(
                [
                    contexts[:, None],
                    relevance.known_positives,
                    _beside(contexts, asked_ids, answers),
                ],
                1,
            ),
        )
        metrics = {"accuracy": there.accuracy, "margin": there.margin}
        return ObjectiveOutput(there.loss + back.loss, metrics)

    def _one_way(
        self,
        outputs: RetrievalOutputs,
        asked: Float[Tensor, "queries dim"],
        candidates: tuple[Float[Tensor, "documents dim"], Int64[Tensor, " documents"]],
        positives: Int64[Tensor, "queries positives"],
        known: Int64[Tensor, "queries known"],
    ) -> InfoNCEOutput:
        """Compare one side with the bank, which owners tell from the batch."""
        (vectors, ids), bank = candidates, outputs.bank
        owners = torch.zeros_like(ids)
        if bank is not None:
            vectors = torch.cat([vectors, bank.vectors.to(vectors.dtype)])
            ids = torch.cat([ids, bank.ids])
            owners = torch.cat([owners, torch.ones_like(bank.ids)])
        alone = bank is None or self.in_batch
        temperature = self.temperature if outputs.temperature is None else outputs.temperature
        return infonce(
            asked,
            vectors,
            positives,
            temperature,
            document_ids=ids,
            known_positives=known,
            owners=owners,
            own_rows=torch.zeros(len(asked), dtype=torch.int64, device=ids.device),
            options=InfoNCEOptions(negatives="all" if alone else "others"),
        )


def _beside(
    contexts: Int64[Tensor, " rows"],
    ids: Int64[Tensor, " queries"],
    answers: Int64[Tensor, "queries known"],
) -> Int64[Tensor, "rows found"]:
    """Return the ids of the queries that each context is a known positive of, -1 unused."""
    found = (answers[None] == contexts[:, None, None]).any(2) & (contexts >= 0)[:, None]
    places = found.int().topk(int(found.sum(1).max()), dim=1).indices
    return ids[places].masked_fill(~found.gather(1, places), -1)
