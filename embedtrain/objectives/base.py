"""What every objective is: frozen hyper-parameters and one call from outputs to a loss."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor

from embedtrain.contract.stored import StoredOutputs
from embedtrain.ops.infonce.nested import Sizes
from embedtrain.section import Section
from embedtrain.types import ObjectiveOutput, RetrievalOutputs, Side

ObjectiveT = TypeVar("ObjectiveT", bound="Objective")


class Objective(Section, ABC):
    """A training objective. Its fields are the recipe's ``objective:`` section.

    It owns no model, rank, tokenizer or logger: it never encodes, gathers, logs or caches. A subclass is
    final, declares ``name: Literal["..."]`` and is found by being in this package.
    """

    pair_defaults: ClassVar[dict[str, Any]] = {}
    """Defaults in place of the fields' own where a cross-encoder scores pairs: log-odds have no bounds."""
    prices_entries: ClassVar[bool] = False
    """Whether it prices entries of the whole batch, of which there is one count and one target."""

    @model_validator(mode="after")
    def _priced_once(self: ObjectiveT) -> ObjectiveT:
        if self.num_prices > 1:
            raise ValueError(
                "entries are priced twice: keep one objective sparsity, around all others"
            )
        return self

    @property
    def num_prices(self) -> int:
        """How many of it and of those among its fields price entries."""
        return self.prices_entries + sum(inner.num_prices for inner in self.inner_objectives)

    @property
    def inner_objectives(self) -> tuple["Objective", ...]:
        """The objectives among its fields, which it calls: whatever one of them needs, it needs too."""
        values = [getattr(self, name) for name in type(self).model_fields]
        several = [value if isinstance(value, tuple) else (value,) for value in values]
        return tuple(one for value in several for one in value if isinstance(one, Objective))

    def stored(self, width: int) -> StoredOutputs | None:
        """Return what vectors of ``width`` dimensions are trained to be stored as; None where codes are not trained."""
        return next((one for i in self.inner_objectives if (one := i.stored(width))), None)

    @property
    def needs_all_queries(self) -> bool:
        """Whether queries are candidates too, so that those of other ranks must be brought."""
        return any(inner.needs_all_queries for inner in self.inner_objectives)

    @property
    def uses_guide(self) -> bool:
        """Whether it needs the embeddings of a guide, a second model that is not trained."""
        return any(inner.uses_guide for inner in self.inner_objectives)

    @property
    def read_sides(self) -> tuple[Side, ...]:
        """Whose vectors it reads; texts of a side that is not among them need not be encoded."""
        return ("query", "document")

    @property
    def counts_query_words(self) -> int | None:
        """Ask for the mean weights of words over the queries of all ranks that have more entries than this; None asks not."""
        asked = [
            one for inner in self.inner_objectives if (one := inner.counts_query_words) is not None
        ]
        return min(asked, default=None)

    @property
    def target_entries(self) -> tuple[int | None, int | None] | None:
        """How many entries queries and documents are to have on average, where what they cost follows a target."""
        return next((one for i in self.inner_objectives if (one := i.target_entries)), None)

    @property
    def needs_words(self) -> bool:
        """Whether it needs vectors of words, none of whose weights is below 0 (``model.kind: sparse``)."""
        return any(inner.needs_words for inner in self.inner_objectives)

    @property
    def needs_code(self) -> bool:
        """Whether it rebuilds the dense vectors that codes stand for (``model.head: code``)."""
        return any(inner.needs_code for inner in self.inner_objectives)

    @property
    def takes_labels(self) -> bool:
        """Whether its candidates may be labels that no query brought (``data.candidates: all``)."""
        inner = self.inner_objectives
        return bool(inner) and all(one.takes_labels for one in inner)

    @property
    def uses_exits(self) -> bool:
        """Whether it compares the vectors of several layers (``model.exits``)."""
        return any(inner.uses_exits for inner in self.inner_objectives)

    @property
    def uses_pair_classifier(self) -> bool:
        """Whether it trains a classifier of pairs (``model.pair_classes``)."""
        return any(inner.uses_pair_classifier for inner in self.inner_objectives)

    @property
    def wanted_bank(self) -> int | None:
        """How many vectors of earlier steps it compares with, those of ``model.contrast_head``; None for none."""
        return None

    @property
    def uses_word_head(self) -> bool:
        """Whether it predicts words from vectors (``model.word_head``)."""
        return any(inner.uses_word_head for inner in self.inner_objectives)

    @property
    def uses_recovery(self) -> bool:
        """Whether it prices what bits miss of vectors (``model.recovery``)."""
        return any(inner.uses_recovery for inner in self.inner_objectives)

    @property
    def uses_interaction(self) -> bool:
        """Whether it can score pairs by what the model has in place of the inner product (``model.interaction``)."""
        inner = self.inner_objectives
        if inner:
            return all(one.uses_interaction for one in inner)
        return self.uses_pairs and not self.uses_pair_classifier

    @property
    def uses_pairs(self) -> bool:
        """Whether the scores of queries with their own documents are enough, as a cross-encoder gives them."""
        return False

    @property
    def reads_scores(self) -> bool:
        """Whether it reads the scores of the rows, which documents that are drawn at random do not have."""
        inner = self.inner_objectives
        return not inner or any(one.reads_scores for one in inner)

    def for_pairs(self: ObjectiveT) -> ObjectiveT:
        """Return the objective with the defaults that suit a cross-encoder, where the recipe said nothing."""
        said = self.model_fields_set
        changed = {key: value for key, value in self.pair_defaults.items() if key not in said}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Objective):
                changed[name] = value.for_pairs()
            elif isinstance(value, tuple) and any(isinstance(one, Objective) for one in value):
                changed[name] = tuple(one.for_pairs() for one in value)
        return self.model_copy(update=changed)

    @property
    def takes_half(self) -> bool:
        """Whether embeddings may come in 16 bits where the network computes so; others get float32.

        Only for objectives that hand them to operations which add up in float32, untouched.
        """
        return False

    @abstractmethod
    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:
        """Return the loss of a batch, averaged over its queries, and figures for the log."""

    def at_prefixes(
        self, outputs: RetrievalOutputs, sizes: Sizes, *, normalize: bool
    ) -> tuple[Float[Tensor, ""], list[ObjectiveOutput]] | None:
        """Compute the loss at several prefixes of the vectors in one pass, where that is cheaper than one call each.

        Returns:
            The weighted sum of the losses, and every size's own output without gradient; None where the
            objective has no such pass.
        """


if TYPE_CHECKING:
    AnyObjective = Objective
    """What an objective that holds others writes, in quotes, as their type: any of the package."""
