"""The parts that a dense encoder may have, and what follows from which of them it has."""

from torch import nn

from embedtrain.contract.texts import Contract, Tokenization
from embedtrain.models.backbone.loading import Backbone, Packing
from embedtrain.models.backbone.named_adapters import NamedAdapters
from embedtrain.models.dense.attention_pooling import AttentionPooling
from embedtrain.models.dense.contrast_head import ContrastHead
from embedtrain.models.dense.decoder_pooling import DecoderPooling
from embedtrain.models.dense.echo import Placeholder
from embedtrain.models.dense.layer_pooling import PooledLayers
from embedtrain.models.dense.pair_head import PairHead
from embedtrain.models.dense.query_gate import QueryGate
from embedtrain.models.dense.query_head import QueryHead
from embedtrain.models.dense.situated import Situated, TwofoldTokenization
from embedtrain.models.dense.span_pooling import SpanMlp
from embedtrain.models.dense.value_spans import ValueSpans
from embedtrain.models.dense.word_coordinates import WordPart
from embedtrain.models.dense.word_head import WordHead
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.exits import Exits
from embedtrain.types import Side


class DenseParts(TextEncoder):
    """Holds the parts of a dense encoder, most of them None; :class:`DenseEncoder` puts them to work."""

    contract: Contract

    def __init__(
        self,
        backbone: Backbone,
        contract: Contract,
        projection: nn.Linear | None = None,
        *,
        packing: Packing = "auto",
        learn_temperature: float | None = None,
    ) -> None:
        super().__init__(backbone, contract, packing=packing, learn_temperature=learn_temperature)
        self.projection = projection
        self.words: WordPart | None = None
        """Coordinates for words that follow those of the vector, or None."""
        self.exits: Exits | None = None
        """Layers that are trained as embeddings too, or None."""
        self.layer_pooling: PooledLayers | None = None
        """What makes one of the pooled states of several layers, or None."""
        self.query_gate: QueryGate | None = None
        """What multiplies the coordinates of queries, or None."""
        self.attention_pooling: AttentionPooling | None = None
        """What pools token states in place of the contract's pooling, or None."""
        self.decoder_pooling: DecoderPooling | None = None
        """The decoder whose first output is the vector, or None."""
        self.span_mlp: SpanMlp | None = None
        """What transforms the mean of a span's states, or None."""
        self.value_spans: ValueSpans | None = None
        """What makes the vector of a span from a value vector, or None."""
        self.placeholder: Placeholder | None = None
        """What a prepended token is before the first layer, where it is none of the vocabulary, or None."""
        self.situated: Situated | None = None
        """A frozen model whose vectors stand beside the own ones, or None."""
        self.interaction: PairHead | None = None
        """What scores pairs of vectors in place of the inner product, or None."""
        self.query_network: QueryHead | None = None
        """What makes a network of a query, which then scores documents, or None."""
        self.query_codes: QueryHead | None = None
        """What makes several vectors of a query, to which documents attend, or None."""
        self.adapters: NamedAdapters | None = None
        """Adapters of the backbone, where it has several; the contract says which of them acts."""
        self.pair_classifier: nn.Linear | None = None
        """Weights that only training uses; see :meth:`add_pair_classifier`."""
        self.contrast_head: ContrastHead | None = None
        """Layers that only training puts behind the vectors."""
        self.word_head: WordHead | None = None
        """What names the word that a query defines, in training only, or None."""
        self.truncate_dim: int | None = None
        """Dimensions that were kept of the trained ones, where an export cut some off."""

    def add_pair_classifier(self, num_classes: int) -> None:
        """Add what the objective pair_classification trains beside the vectors."""
        self.pair_classifier = nn.Linear(3 * self.dim, num_classes, bias=False)

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        if self.value_spans is not None:
            return self.value_spans.config.dim
        width = self.backbone.config.hidden_size
        if self.layer_pooling is not None:
            width = self.layer_pooling.config.width_of(width)
        vector = int(self.projection.out_features if self.projection else width)
        if self.situated is not None:
            vector += self.situated.base.dim
        return vector if self.words is None else vector + self.words.dim

    @property
    def tokenization(self) -> Tokenization:
        """Texts to token ids, under this model's contract and that of a frozen one beside it."""
        own = super().tokenization
        return own if self.situated is None else TwofoldTokenization(own, self.situated)

    @property
    def query_head(self) -> QueryHead | None:
        """What makes more of a query than a vector, or None."""
        return self.query_network or self.query_codes

    def dim_of(self, side: Side) -> int:
        """Return how many numbers :meth:`embed` makes of a text of a side."""
        head = self.query_head
        return self.dim if head is None or side == "document" else head.num_numbers

    @property
    def sides_differ(self) -> bool:
        """Whether queries pass other layers than documents: they are encoded apart, even equal texts."""
        chosen = self.contract.adapters
        own = chosen is not None and chosen.active.query != chosen.active.document
        return own or self.query_head is not None

    @property
    def is_portable(self) -> bool:
        """Whether sentence-transformers can express it: it computes the same vectors."""
        parts = (self.words, self.layer_pooling, self.attention_pooling, self.interaction)
        spans = (self.span_mlp, self.value_spans, self.situated)
        more = (self.own_positions, *spans, self.decoder_pooling, self.query_head, self.adapters)
        own = self.gates_queries or any(part is not None for part in (*parts, *more))
        contract = self.contract
        shown = contract.echo or contract.prepend is not None or contract.framing is not None
        return not (own or shown)

    @property
    def gates_queries(self) -> bool:
        """Whether queries pass a gate that is kept after training."""
        return self.query_gate is not None and self.query_gate.config.at_inference
