"""What InfoNCE is asked to compute: options, checked inputs, and what it returns."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypedDict, Unpack

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.infonce.host_ids import HostIds
from embedtrain.ops.products import operand_dtype
from embedtrain.types import Relevance

Reduction = Literal["mean", "sum"]
Direction = Literal[
    "query_to_document", "document_to_query", "query_to_query", "document_to_document"
]
Temperature = (
    float | Float[Tensor, ""] | Float[Tensor, "1"]  # fixed or learned
)


@dataclass(frozen=True)
class InfoNCEOptions:
    """Which candidates a query is compared with and how; formulas stand in :func:`infonce`."""

    directions: tuple[Direction, ...] = ("query_to_document",)
    """Whose scores enter the softmax; must hold ``query_to_document``."""
    partition: Literal["joint", "per_direction"] = "joint"
    """One denominator over all directions, or the mean of one loss per direction."""
    negatives: Literal["all", "own", "others"] = "all"
    """Every candidate of the batch, only those that the query itself brought (``owners``), or only
    those that other queries brought."""
    several_positives: Literal["average", "any", "decoupled"] = "average"
    """How the positives of one query share its loss."""
    false_negative_margin: float | None = None
    """A candidate above the best positive's similarity minus this is left out; ``None`` keeps all."""
    false_negative_margin_kind: Literal["absolute", "relative"] = "absolute"
    """``relative`` multiplies the margin by the size of the positive's similarity."""
    positive_margin: float = 0.0
    """Taken from the similarity of every positive before the softmax."""
    hardness: float = 0.0
    """Adds ``hardness * similarity`` (no gradient) to the logits of negatives."""
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


PLAIN = InfoNCEOptions()


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
    share: float
    """Factor of each query's loss in the total: 1 for a sum, one over their number for a mean."""
    rows: Int64[Tensor, " queries"]
    """The row of each query in ``all_query``: own ones are the first."""
    own_rows: Int64[Tensor, " queries"]
    """The number in ``owners`` of each query's own documents: its row, unless several queries share them."""
    owners: Int64[Tensor, " documents"] | None
    document_ids: Int64[Tensor, " documents"] | None
    relevant_ids: Int64[Tensor, "queries relevant"]
    """Ids of documents that answer the query, each once, -1 unused."""
    query_ids: Int64[Tensor, " queries"] | None
    all_query_ids: Int64[Tensor, " all_queries"] | None
    all_relevant_ids: Int64[Tensor, "all_queries all_relevant"] | None
    options: InfoNCEOptions
    relevance: Relevance | None = None
    """What the ids were taken from, if it may know them on the CPU as well."""

    @cached_property
    def host(self) -> HostIds:
        """The ids on the CPU; waits for the device only where nobody kept them."""
        names = HostIds._fields
        values: dict[str, Tensor | None] = {}
        if self.relevance is not None and self.query.device.type != "cpu":
            values = self._kept(self.relevance.on_host)
        for name in names:
            value = values[name] if name in values else getattr(self, name)
            values[name] = None if value is None else value.cpu()
        return HostIds(**values)  # type: ignore[arg-type]

    def _kept(self, known: Relevance) -> dict[str, Tensor | None]:
        """Return what the CPU knows of own queries and all documents."""
        has_ids = self.document_ids is not None
        relevant = _relevant_ids(
            known.positives, known.document_ids if has_ids else None, known.known_positives
        )
        kept: dict[str, Tensor | None] = {
            "rows": torch.arange(len(self.query)),
            "own_rows": known.own_rows,
            "owners": known.owners,
            "positives": known.positives,
            "document_ids": known.document_ids if has_ids else None,
            "relevant_ids": relevant,
            "query_ids": known.query_ids,
        }
        if self.all_query is self.query:
            kept |= {"all_query_ids": known.query_ids, "all_relevant_ids": relevant}
        return kept

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
        return self.temperature.dtype

    @property
    def operands(self) -> torch.dtype:
        """The type in which scores are multiplied out."""
        return operand_dtype(self.query, self.document, self.all_query, wide=self.dtype)

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


class Known(TypedDict, total=False):
    """What InfoNCE may be told beside embeddings, positives and temperature; see :func:`infonce`."""

    query_ids: Int64[Tensor, " queries"] | None
    """63-bit ids of the query texts, needed to spare equal queries in query-to-query."""
    document_ids: Int64[Tensor, " documents"] | None
    """63-bit ids of the document texts, -1 for a document without id."""
    known_positives: Int64[Tensor, "queries known"] | None
    """Ids of documents that answer the query, in the batch or not, -1 unused."""
    owners: Int64[Tensor, " documents"] | None
    """The query that brought each document, by its row; queries of other ranks follow own ones."""
    own_rows: Int64[Tensor, " queries"]
    """The query that brought a query's own documents; by default itself."""
    all_query: Float[Tensor, "all_queries dim"] | None
    """Queries of all ranks, own first, for directions whose candidates are queries; own ones by default."""
    all_query_ids: Int64[Tensor, " all_queries"] | None
    """Their ids."""
    all_known_positives: Int64[Tensor, "all_queries all_known"] | None
    """Ids of the documents that answer them, their positives included."""
    relevance: Relevance | None
    """Where ids, owners and positives come from; what it kept on the CPU need not be asked from a device."""
    options: InfoNCEOptions
    """Directions, partition, negatives, guards."""
    reduction: Reduction
    """``mean``, the default, or ``sum`` over queries."""


def make_problem(
    query: Float[Tensor, "queries dim"],
    document: Float[Tensor, "documents dim"],
    positives: Int64[Tensor, "queries positives"],
    temperature: Temperature,
    **known: Unpack[Known],
) -> InfoNCEProblem:
    """Check the arguments of :func:`embedtrain.ops.infonce.loss.infonce` and fill in what they leave open."""
    options, owners = known.get("options", PLAIN), known.get("owners")
    document_ids, query_ids = known.get("document_ids"), known.get("query_ids")
    all_query = known.get("all_query")
    gathered = all_query is not None
    relevant = _relevant_ids(positives, document_ids, known.get("known_positives"))
    dtype = torch.float64 if torch.float64 in (query.dtype, document.dtype) else torch.float32
    _check(options, owners)
    averaged = known.get("reduction", "mean") == "mean"
    rows = torch.arange(len(query), device=query.device)
    return InfoNCEProblem(
        query=query,
        document=document,
        all_query=query if all_query is None else all_query,
        positives=positives,
        temperature=_temperature_rows(temperature, query, dtype),
        share=1 / max(len(query), 1) if averaged else 1.0,
        rows=rows,
        own_rows=known.get("own_rows", rows),
        owners=owners,
        document_ids=document_ids,
        relevant_ids=relevant,
        query_ids=query_ids,
        all_query_ids=known.get("all_query_ids") if gathered else query_ids,
        all_relevant_ids=known.get("all_known_positives") if gathered else relevant,
        options=options,
        relevance=known.get("relevance"),
    )


def _relevant_ids(
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


def _temperature_rows(
    temperature: Temperature, query: Float[Tensor, "queries dim"], dtype: torch.dtype
) -> Float[Tensor, " queries"]:
    if isinstance(temperature, Tensor):
        return temperature.to(query.device, dtype).expand(len(query))
    if temperature <= 0.0:
        raise UserError("infonce: temperature", "must be positive", got=temperature)
    return torch.full((len(query),), temperature, dtype=dtype, device=query.device)


def _check(options: InfoNCEOptions, owners: Int64[Tensor, " documents"] | None) -> None:
    needs_owners = options.negatives != "all" or "document_to_document" in options.directions
    if needs_owners and owners is None:
        raise UserError(
            "infonce: owners",
            "are needed to know which documents a query brought",
            cure="Pass owners, or leave out own negatives and document_to_document",
        )
