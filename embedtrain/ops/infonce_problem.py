"""What InfoNCE is asked to compute: options, checked inputs, and what it returns."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.errors import UserError

Reduction = Literal["mean", "sum"]
Direction = Literal[
    "query_to_document", "document_to_query", "query_to_query", "document_to_document"
]
Temperature = (
    float | Float[Tensor, ""] | Float[Tensor, "1"] | Float[Tensor, " queries"]  # fixed or learned
)


@dataclass(frozen=True)
class InfoNCEOptions:
    """Which candidates a query is compared with and how; formulas stand in :func:`infonce`."""

    directions: tuple[Direction, ...] = ("query_to_document",)
    """Whose scores enter the softmax; must hold ``query_to_document``."""
    partition: Literal["joint", "per_direction"] = "joint"
    """One denominator over all directions, or the mean of one loss per direction."""
    negatives: Literal["all", "own"] = "all"
    """Every candidate of the batch, or only those that the query itself brought (``owners``)."""
    several_positives: Literal["average", "any", "decoupled"] = "average"
    """How the positives of one query share its loss."""
    false_negative_margin: float | None = None
    """A candidate above the best positive's similarity minus this is left out; ``None`` keeps all."""
    false_negative_margin_kind: Literal["absolute", "relative"] = "absolute"
    """``relative`` multiplies the margin by the size of the positive's similarity."""
    hardness: float = 0.0
    """Adds ``hardness * similarity`` (no gradient) to the logits of negatives."""
    hardness_scope: Literal["all", "own", "in_batch"] = "all"
    """Which negatives ``hardness`` touches: all, those the query brought, or the others."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all candidates, in [0, 1)."""

    @property
    def has_margin(self) -> bool:
        """Whether suspected false negatives are left out."""
        return self.false_negative_margin is not None

    def __post_init__(self) -> None:
        place, directions = "infonce options", self.directions
        if "query_to_document" not in directions or len(set(directions)) != len(directions):
            raise UserError(
                f"{place}: directions",
                "must be distinct and hold query_to_document",
                got=directions,
            )
        one_sided = {"query_to_query", "document_to_document"} & set(directions)
        if self.partition == "per_direction" and one_sided:
            raise UserError(
                f"{place}: directions",
                "hold one without a positive, whose own loss would have no lower bound",
                got=sorted(one_sided),
                cure='Use partition="joint"',
            )
        if self.hardness < 0.0:
            raise UserError(f"{place}: hardness", "must not be negative", got=self.hardness)
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UserError(
                f"{place}: label_smoothing", "must lie in [0, 1)", got=self.label_smoothing
            )


class InfoNCEOutput(NamedTuple):
    """The loss, and figures for the log that cost no further pass over the scores.

    All but ``loss`` are detached and speak of the query-to-document direction, with the logits as the
    loss sees them.
    """

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    """Share of queries whose best positive scores above every negative."""
    margin: Float[Tensor, ""]
    """Mean of (best positive - hardest negative) in units of similarity; queries without a negative
    are left out (0 where none has one)."""
    masked_ratio: Float[Tensor, ""]
    """Share of the candidates that are not positives and were left out because of their ids."""
    suspected_ratio: Float[Tensor, ""]
    """Share left out because of ``false_negative_margin``."""


@dataclass(frozen=True)
class InfoNCEProblem:
    """Checked inputs with defaults filled in; every backend starts from one of these."""

    query: Float[Tensor, "queries dim"]
    document: Float[Tensor, "documents dim"]
    all_query: Float[Tensor, "all_queries dim"]
    positives: Int64[Tensor, "queries positives"]
    temperature: Float[Tensor, " queries"]
    one_temperature: bool
    """Whether all queries have the same temperature."""
    row_weights: Float[Tensor, " queries"]
    """Factor of each query's loss in the total: its weight, divided by the count for a mean."""
    owner_rows: Int64[Tensor, " queries"]
    """The number that ``owners`` uses for each query."""
    query_rows: Int64[Tensor, " queries"]
    """The row of each query in ``all_query``."""
    owners: Int64[Tensor, " documents"] | None
    document_ids: Int64[Tensor, " documents"] | None
    relevant_ids: Int64[Tensor, "queries relevant"]
    """Ids of documents that answer the query, each once, -1 unused."""
    query_ids: Int64[Tensor, " queries"] | None
    all_query_ids: Int64[Tensor, " all_queries"] | None
    all_relevant_ids: Int64[Tensor, "all_queries all_relevant"] | None
    options: InfoNCEOptions

    def detached(self) -> "InfoNCEProblem":
        """Return the same problem without the graph behind its tensors."""
        shared = self.all_query is self.query
        query = self.query.detach()
        return replace(
            self,
            query=query,
            document=self.document.detach(),
            all_query=query if shared else self.all_query.detach(),
            temperature=self.temperature.detach(),
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type of logits and sums: float64 where an input has it, float32 otherwise."""
        tensors = (self.query, self.document, self.all_query)
        return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32

    @property
    def positive_is_used(self) -> Bool[Tensor, "queries positives"]:
        """Which entries of ``positives`` hold a column."""
        return self.positives >= 0

    def threshold(self, best: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Return the similarity above which a candidate is suspected; ``best`` is the positive's."""
        margin = self.options.false_negative_margin
        if margin is None:
            return torch.full_like(best, torch.inf)
        relative = self.options.false_negative_margin_kind == "relative"
        return best - margin * (best.abs() if relative else 1.0)


def relevant_ids(
    positives: Int64[Tensor, "queries positives"],
    document_ids: Int64[Tensor, " documents"] | None,
    known_positives: Int64[Tensor, "queries known"] | None,
) -> Int64[Tensor, "queries relevant"]:
    """Collect the ids of each query's positives and known positives, each once, -1 elsewhere."""
    if document_ids is None:
        return positives.new_empty(positives.shape[0], 0)
    own = document_ids[positives.clamp_min(0)].masked_fill(positives < 0, -1)
    ids = own if known_positives is None else torch.cat([own, known_positives], dim=1)
    ids = ids.sort(dim=1).values
    repeated = ids[:, 1:] == ids[:, :-1]
    return torch.cat([ids[:, :1], ids[:, 1:].masked_fill(repeated, -1)], dim=1)
