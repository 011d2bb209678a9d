"""Sources of training data with an objective, a batch size and an instruction of their own."""

from typing import Literal

from pydantic import Field, model_validator

from embedtrain.data.batches import DataConfig
from embedtrain.data.examples import SourceConfig
from embedtrain.mining.settings import MiningConfig
from embedtrain.objectives import AnyObjective
from embedtrain.precision import choose
from embedtrain.section import Count, Section


class RetrieverNegatives(Section):
    """Hard negatives from what a retriever finds for a source's queries, mined before the first step.

    A reranker so learns on the documents that it will be given. The corpus is the source's: that of a BEIR folder, or
    all documents of the rows. What was mined is kept in the cache, and a run goes on with the very same rows.
    """

    retriever: str
    """Model folder or Hub id of an encoder: the first stage."""
    corpora: tuple[str, ...] = ()
    """Searched together with the source's own: corpora of other tasks, whose documents may answer the query and never
    the source's instruction. BEIR folders or files of rows."""
    mining: MiningConfig = MiningConfig()
    """As for ``embedtrain mine``; its ``num_negatives`` are what ``data.num_negatives`` draws from at each step."""


class TrainingSource(SourceConfig):
    """One source of training data; each step trains on one of them, on all ranks."""

    objective: AnyObjective | None = None
    """What its steps are trained on; null takes the recipe's objective."""
    batch_size: int | None = Field(default=None, ge=2, le=10**9)
    """Queries of its steps; null takes ``trainer.batch_size``."""
    order: Literal["shuffled", "consecutive"] = "shuffled"
    """``consecutive`` makes a batch of rows that follow one another in the source; which ones is drawn."""
    instruction: str | None = None
    """Name in ``model.instructions``; null uses the model's own prompts."""
    adapter: str | None = None
    """Name of a task in ``model.lora.adapters``, whose adapters act in its steps."""
    document_length: Count | None = None
    """Tokens kept of its documents, where that is less than ``model.document.length``: short and long texts in turn."""
    negatives: RetrieverNegatives | None = None
    """Mine negatives, in place of those and of the scores that the rows have; null takes the rows as they are."""

    def with_precision(self, device: str) -> "TrainingSource":
        """Return the source with the precision that its negatives are mined in on a kind of device."""
        if self.negatives is None:
            return self
        mining = self.negatives.mining
        chosen = mining.model_copy(update={"precision": choose(mining.precision, device)})
        negatives = self.negatives.model_copy(update={"mining": chosen})
        return self.model_copy(update={"negatives": negatives})

    @model_validator(mode="after")
    def _scores_are_the_retrievers(self) -> "TrainingSource":
        if self.negatives is not None and self.score_range is not None:
            raise ValueError("score_range is of the rows' scores, which mined rows lose: drop it")
        return self


class TrainingData(DataConfig):
    """What to train on."""

    sources: tuple[TrainingSource, ...] = Field(min_length=1)
    """Each step draws its batch from one of them."""

    swapped_negatives: int = Field(default=0, ge=0, le=10**6)
    """So many more negatives per row, among which ``num_negatives`` are drawn: positives that sources under another
    ``instruction`` have for the same query. They answer the query, not the instruction."""

    def batch_sizes(self, default: int) -> list[int]:
        """Return the queries of each source's steps."""
        return [source.batch_size or default for source in self.sources]
