"""Count what a training step has to compute, exactly and on the host: tokens, padding, floating-point operations.

What a matrix product takes stands in :mod:`embedtrain.models.flops`. ``operations`` are those that the texts of a
step need; padding, and what is computed twice to save memory, does not count: over time and peak they give the
share that is called MFU. ``computed`` are those that the device is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from embedtrain.models.backbone.few_shapes import rounded
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.chunking import Execution, plan_chunks
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.flops import BackboneWork, Passes, Sight, count_backbone, count_linear
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder
from embedtrain.models.pretraining.masked_autoencoder import MaskedAutoencoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.objectives.base import Objective
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.objectives.weighted_sum import WeightedSum
from embedtrain.pretrain_types import MaskedBatch
from embedtrain.types import RetrievalBatch

Lengths = Int64[Tensor, " texts"]
NOTHING = Passes()


@dataclass(frozen=True)
class StepWork:
    """What one rank's part of a micro-batch takes."""

    texts: int = 0
    """Distinct texts."""
    tokens: int = 0
    computed_tokens: int = 0
    """Tokens and the padding beside them."""
    operations: int | None = 0
    """None where a part of the model is of a kind that is not counted."""
    computed: int | None = 0

    def __add__(self, other: "StepWork") -> "StepWork":
        return StepWork(
            self.texts + other.texts,
            self.tokens + other.tokens,
            self.computed_tokens + other.computed_tokens,
            _sum(self.operations, other.operations),
            _sum(self.computed, other.computed),
        )

    @property
    def padding_ratio(self) -> float:
        """Share of the computed tokens that is padding."""
        return 1 - self.tokens / max(1, self.computed_tokens)


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


@dataclass(frozen=True)
class EncoderWork:
    """What an encoder takes for texts: its backbone, and its head for each text or each token.

    Attributes:
        backbone: None where it is not counted; tokens are counted all the same.
        per_text: Of the head.
        per_token: Of the head.
        fills: Whether packed texts are filled up to few sizes.
    """

    backbone: BackboneWork | None
    per_text: Passes = NOTHING
    per_token: Passes = NOTHING
    fills: bool = False

    def step(
        self, lengths: Lengths, execution: Execution, *, packed: bool, least: int = 0
    ) -> StepWork:
        """Return what encoding texts and going back takes; each has ``least`` tokens at least."""
        own = lengths.clamp_min(least)
        chunks = plan_chunks(lengths, execution.chunk_tokens, padded=not packed, least=least)
        with torch.enable_grad():
            again = execution.num_recomputed(len(chunks))
        recalled = execution.num_recalled(again)
        shown = [self._shown(own[rows], packed=packed) for rows in chunks]
        tokens = sum(int(part.sum()) for part in shown)
        operations = computed = None
        if self.backbone is not None:
            operations, computed = (self.backbone.count(own) + self._head(own)).total, 0
            for number, (part, rows) in enumerate(zip(shown, chunks, strict=True)):
                # The head is given tokens without the padding.
                passes = self.backbone.count(part, dense=not packed) + self._head(own[rows])
                known = passes.recalled if number < recalled else 0
                computed += passes.total + (passes.forward - known) * (number < again)
        return StepWork(len(lengths), int(own.sum()), tokens, operations, computed)

    def _head(self, lengths: Lengths) -> Passes:
        return self.per_text.times(len(lengths)) + self.per_token.times(int(lengths.sum()))

    def _shown(self, lengths: Lengths, *, packed: bool) -> Int64[Tensor, " shown"]:
        """Return the lengths of what the backbone is given of a chunk."""
        if not packed:
            return torch.full_like(lengths, int(lengths.max()))
        total = int(lengths.sum())
        more = rounded(total) - total if self.fills else 0
        return torch.cat([lengths, lengths.new_ones(more)])


def retrieval_counter(
    model: TextModel, *, num_ranks: int = 1, only_queries: bool = False
) -> Callable[[RetrievalBatch, Execution, Objective], StepWork]:
    """Return what counts the steps of an encoder.

    Weights must be frozen, and adapters there, as in training. ``only_queries``: documents are not encoded.
    """
    late = model if isinstance(model, LateInteractionEncoder) else None
    encoder = _encoder_work(model)
    packed: list[bool] = []

    def count(batch: RetrievalBatch, execution: Execution, objective: Objective) -> StepWork:
        if not packed:
            packed.append(model.packs(batch.documents))
        if only_queries:
            work = encoder.step(batch.queries.sizes, execution, packed=packed[0])
        elif late is None:
            lengths = model.texts_of(batch.on_host).sizes
            work = encoder.step(lengths, execution, packed=packed[0])
        else:
            least = late.least_length("query")
            work = encoder.step(batch.queries.sizes, execution, packed=packed[0], least=least)
            work += encoder.step(batch.documents.sizes, execution, packed=packed[0])
        scores = 0
        if isinstance(model, TextEncoder):
            scores = score_operations(model, batch, objective, num_ranks)
        return work + StepWork(operations=scores, computed=scores)

    return count


def _encoder_work(model: TextModel) -> EncoderWork:
    """Return what the parts of an encoder take; of a kind of dense head without a count, tokens alone."""
    backbone = count_backbone(model.backbone)
    fills = model.device.type == "cpu" and not isinstance(model.backbone, WordTable)
    if isinstance(model, SparseEncoder):
        # Its head multiplies every token forward, and backward the winners alone: no linear layer's count.
        return EncoderWork(None, per_text=NOTHING, fills=fills)
    if isinstance(model, DenseEncoder):
        counted = {model.backbone, model.projection, model.pair_classifier}
        if set(model.children()) - counted or model.contract.prepend or model.contract.echo:
            backbone = None
        projection = model.projection
        head = NOTHING if projection is None else count_linear(projection)
        return EncoderWork(backbone, per_text=head, fills=fills)
    heads = [part for part in model.modules() if isinstance(part, nn.Linear)]
    inside = {id(part) for part in model.backbone.modules()}
    head = sum((count_linear(part) for part in heads if id(part) not in inside), NOTHING)
    if isinstance(model, CrossEncoderModel):
        return EncoderWork(backbone, per_text=head, fills=fills)
    return EncoderWork(backbone, per_token=head, fills=fills)


def score_operations(
    model: TextEncoder, batch: RetrievalBatch, objective: Objective, num_ranks: int
) -> int:
    """Return what scoring takes, forward and backward.

    InfoNCE scores each query with the documents of all ranks, and more in further directions; of another
    objective only the scores that it cannot do without are counted, one for each document. MaxSim's backward
    pass follows the best token of each query token alone.
    """
    queries, documents = len(batch.query_rows), len(batch.document_rows)
    matrices = _matrices(objective)
    if isinstance(model, LateInteractionEncoder):
        asked = queries * max(model.least_length("query"), _mean(batch.queries.sizes))
        given = documents * _mean(batch.documents.sizes)
        if not matrices:
            return round(2 * model.dim * asked * given / queries)
        return round(2 * model.dim * num_ranks * (asked * given + 2 * asked * documents))
    pairs = {
        "query_to_document": queries * documents * num_ranks,
        "query_to_query": queries * queries * num_ranks,
        "document_to_document": queries * documents * num_ranks,
    }
    wanted = sum(pairs[name] for name in matrices) if matrices else documents
    return 3 * 2 * model.dim * wanted


def _matrices(objective: Objective) -> set[str]:
    """Return which matrices of scores an objective needs; both directions of one are the same."""
    if isinstance(objective, InfoNCE):
        if objective.negatives == "own":
            return set()
        return {
            "query_to_document" if name == "document_to_query" else name
            for name in objective.directions
        }
    if isinstance(objective, Matryoshka):  # shorter sizes are on the way to the longest
        return _matrices(objective.inner)
    if isinstance(objective, WeightedSum):
        return set().union(*map(_matrices, objective.objectives))
    return set()


def _mean(lengths: Lengths) -> float:
    return float(lengths.double().mean())


def pretraining_counter(
    model: MaskedAutoencoder, encoder_ratio: float, decoder_ratio: float
) -> Callable[[MaskedBatch, Execution], StepWork]:
    """Return what counts the steps of a masked autoencoder.

    Labels are counted as the masking draws them on average: the ratios of the tokens that are not special, of
    which a text has two. Words pooled over the vocabulary and generators are not counted.
    """
    computation = model.computation
    encoder = EncoderWork(
        count_backbone(model.encoder.backbone), fills=model.encoder.device.type == "cpu"
    )
    if model.generator is not None or computation.bag_of_words:
        encoder = EncoderWork(None, fills=encoder.fills)
    label, decoder = _label_work(model), _decoder_work(model)
    if computation.clean_pass:
        encoder_ratio = 0.0
    shares = [1.0 if computation.all_tokens else encoder_ratio]
    if model.decoder is not None:
        shares.append(1.0 if computation.decode_all_tokens else decoder_ratio)

    def count(batch: MaskedBatch, execution: Execution) -> StepWork:
        lengths = batch.texts.sizes
        packed = model.encoder.packs(batch.texts)
        work = encoder.step(lengths, execution, packed=packed)
        if computation.clean_pass:
            work += StepWork(operations=work.operations, computed=work.computed)
        ordinary = int((lengths - 2).clamp_min(0).sum())
        labels = label.times(sum(round(share * ordinary) for share in shares)).total
        if decoder is not None:
            labels += decoder.count(lengths, dense=True).total
        return work + StepWork(operations=labels, computed=labels)

    return count


def _label_work(model: MaskedAutoencoder) -> Passes:
    """Return what a labelled token takes: the head's layers and its row of logits."""
    language = model.language
    output = language.model.get_output_embeddings()
    if model.computation.clean_pass:  # goes round the layers before it
        return count_linear(output)
    inside = {id(part) for part in language.model.base_model.modules()} | {id(output)}
    layers = (one for one in language.model.modules() if isinstance(one, nn.Linear))
    head = sum((count_linear(one) for one in layers if id(one) not in inside), NOTHING)
    return head + count_linear(output)


def _decoder_work(model: MaskedAutoencoder) -> BackboneWork | None:
    if model.decoder is None:
        return None
    layers = model.decoder.layers
    linear = (one for one in layers.modules() if isinstance(one, nn.Linear))
    width = model.encoder.backbone.config.hidden_size
    pair = Passes(4 * width, 8 * width).times(len(layers))
    return BackboneWork(sum(map(count_linear, linear), NOTHING), ((Sight(), pair),))
