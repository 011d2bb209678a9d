"""The section ``model:`` of a recipe, for one vector per text."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from embedtrain.contract.framing import Contrast, Frame
from embedtrain.contract.texts import (
    Instruction,
    Pooling,
    TextSide,
    TokenPrepending,
)
from embedtrain.models.dense.attention_pooling import AttentionPoolingConfig
from embedtrain.models.dense.contrast_head import ContrastHeadConfig
from embedtrain.models.dense.decoder_pooling import DecoderPoolingConfig
from embedtrain.models.dense.layer_pooling import LayerPoolingConfig
from embedtrain.models.dense.pair_head import InteractionConfig
from embedtrain.models.dense.query_gate import QueryGateConfig
from embedtrain.models.dense.query_head import QueryCodesConfig, QueryNetworkConfig
from embedtrain.models.dense.situated import SituatedConfig
from embedtrain.models.dense.value_spans import ValueSpansConfig
from embedtrain.models.dense.word_coordinates import WordsConfig
from embedtrain.models.encoder import EncoderConfig
from embedtrain.section import Count
from embedtrain.types import Similarity


class DenseSide(TextSide):
    """What one side looks like to a backbone that gives one vector per text."""

    suffix: str | None = None
    """Put behind every text and never cut (PromptEOL); null: as the folder says, else nothing."""


class QuerySide(DenseSide):
    """What a query looks like to such a backbone."""

    cut: Literal["end", "start"] | None = None
    """Where a query that is too long loses tokens: ``start`` keeps the last turn of a conversation, and the prompt; null:
    as the folder says, else ``end``."""


OF_BOTH_SIDES = ("exits", "query_gate", "pair_classes", "contrast_head", "word_head")
"""What training makes of all texts of a batch at once, whichever side they are of."""


class DenseConfig(EncoderConfig):
    """A bi-encoder with one vector per text. Null takes what the backbone's folder says."""

    kind: Literal["dense"] = "dense"

    @field_validator("query", "document", mode="before")
    @classmethod
    def _takes_any_side(cls, given: object) -> object:
        """Take a side that says less, as Python users have it, for one that leaves the rest out."""
        return given.model_dump(exclude_unset=True) if isinstance(given, TextSide) else given

    query: QuerySide = QuerySide()
    document: DenseSide = DenseSide()
    backbone: str
    """Hub id, local folder (transformers or sentence-transformers), or ``package:NAME/FOLDER``."""
    pooling: Pooling | None = None
    """Null: as the sentence-transformers folder says, else mean."""
    similarity: Similarity | None = None
    """Null: as the sentence-transformers folder says, else cosine."""
    instructions: dict[str, Instruction] = Field(default={})
    """Tasks by name, for ``data.sources`` and for ``--instruction``; those of the folder are kept."""
    projection: Count | None = None
    """Dimension of a linear layer after pooling; null: as the folder says, else none."""
    projection_activation: Literal["tanh"] | None = None
    """What stands behind the numbers of a new ``projection``; null: nothing."""
    query_gate: QueryGateConfig | None = None
    """Let the words of a query choose among its coordinates (LexSemBridge); null: as the folder says."""
    layer_pooling: LayerPoolingConfig | None = None
    """Learned attention over the pooled states of all layers; null: as the folder says, else none."""
    attention_pooling: AttentionPoolingConfig | None = None
    """Pool tokens by a learned seed (PMA), whatever ``pooling`` says; null: as the folder says, else not."""
    decoder_pooling: DecoderPoolingConfig | None = None
    """Pool by the first output of T5's decoder (Sentence-T5), whatever ``pooling`` says; null: as the folder says."""
    interaction: InteractionConfig | None = None
    """Score pairs by a network of their vectors (D2LLM); null: as the folder says, else inner products."""
    query_network: QueryNetworkConfig | None = None
    """Make a network of each query, which scores documents (Hypencoder); null: as the folder says, else a vector."""
    query_codes: QueryCodesConfig | None = None
    """Make several vectors of each query, to which a document attends (Poly-encoder); null: as above."""
    echo: bool | None = None
    """Show each text twice and pool the second time, for causal backbones; null: as the folder says, else no."""
    prepend: TokenPrepending | None = None
    """Put a summary of the text before its tokens (token prepending), for causal backbones; null: as above."""
    prompts: tuple[Frame, ...] | None = None
    """Show each text in each of these frames and average the vectors (MetaEOL); null: as the folder says."""
    contrast: Contrast | None = None
    """Take away what a text says under another frame (contrastive prompting); null: as the folder says."""
    spans: Literal["mean", "mlp"] | None = None
    """Give vectors to marked spans of texts: the ``mean`` of their tokens, or an ``mlp`` behind it; null: as the
    folder says, else whole texts only."""
    value_spans: ValueSpansConfig | None = None
    """Give vectors to marked spans from the value vector of their last token, in the last layer that ``num_layers``
    keeps (NER Retriever); null: as the folder says, else none."""
    late_chunks: Count | None = None
    """Give a document a vector for every so many tokens at most, pooled after it was read whole (late chunking); its best
    chunk answers. Null: as the folder says, else one vector."""
    in_context: bool | None = None
    """Read chunks whose rows name their ``document`` within it, and of what is too long the tokens around the span;
    needs ``spans``. Null: as the folder says, else chunks alone."""
    situated: SituatedConfig | None = None
    """Put the vectors of a frozen model beside the trained ones (SitEmb); null: as the folder says, else not."""
    words: WordsConfig | None = None
    """Coordinates for words beside the vector (DupMAE); null: as the folder says, else none."""
    exits: tuple[Count, ...] = ()
    """Layers, counted from 1, whose states are trained as embeddings too, besides the last; ascending."""
    exit_heads: bool = False
    """Give each exit a projection of its own, of ``projection`` dimensions; else all share the model's."""
    pair_classes: Count | None = Field(default=None, ge=2)
    """Train a classifier of pairs of texts for the objective pair_classification; exports leave it out."""
    contrast_head: ContrastHeadConfig | None = None
    """Layers behind the vectors, for the objective ccp; exports leave them out."""
    word_head: bool = False
    """Let the backbone's masked-language head name the word that a query defines, for the objective word_prediction;
    exports leave it out."""
    kept_layers: tuple[Count, ...] = ()
    """Keep these layers of the backbone, counted from 1: a small model that starts from parts of a large one."""

    @model_validator(mode="after")
    def _exits_are_plain(self) -> "DenseConfig":
        if list(self.exits) != sorted(set(self.exits)):
            raise ValueError("exits must ascend")
        if self.kept_layers and (self.num_layers is not None or self.words is not None):
            raise ValueError("kept_layers goes with neither num_layers nor words")
        if list(self.kept_layers) != sorted(set(self.kept_layers)):
            raise ValueError("kept_layers must ascend")
        if self.exits and self.words is not None:
            raise ValueError("exits have no coordinates for words: drop exits or words")
        if self.projection_activation and (self.projection is None or self.exit_heads):
            raise ValueError("projection_activation needs projection, and goes without exit_heads")
        if self.exit_heads and not (self.exits and self.projection):
            raise ValueError("exit_heads needs exits and projection, the dimension of each head")
        if self.echo and self.prepend is not None:
            raise ValueError("echo and prepend do the same in two ways: drop one")
        if self.value_spans and (self.spans or self.projection):
            raise ValueError("value_spans has its own layers: drop spans and projection")
        if self.layer_pooling is not None and (self.exits or self.words is not None):
            raise ValueError("layer_pooling takes all layers for one vector: drop exits and words")
        return self

    @model_validator(mode="after")
    def _frames_go_together(self) -> "DenseConfig":
        sides = (self.query, self.document)
        own = any(side.prompt or side.suffix for side in sides) or self.contrast is not None
        if self.prompts and own:
            raise ValueError("prompts takes the place of prompt, suffix and contrast: drop them")
        return self

    @model_validator(mode="after")
    def _heads_go_together(self) -> "DenseConfig":
        if self.query_gate and (self.exits or self.words or self.layer_pooling):
            raise ValueError("query_gate goes with none of exits, words and layer_pooling")
        if self.situated and (self.exits or self.query_gate or self.words or self.interaction):
            raise ValueError("situated goes with none of exits, query_gate, words and interaction")
        if self.attention_pooling and self.layer_pooling:
            raise ValueError("attention_pooling and layer_pooling pool in two ways: drop one")
        if self.decoder_pooling and (self.attention_pooling or self.layer_pooling or self.exits):
            raise ValueError("decoder_pooling goes with no other pooling and no exits: drop them")
        if self.word_head and (self.words or self.projection or self.query_gate or self.exits):
            raise ValueError("word_head goes with none of words, projection, query_gate and exits")
        if self.interaction and (self.exits or self.query_gate):
            raise ValueError("interaction goes with neither exits nor query_gate")
        if len(self.ways_to_score) > 1:
            raise ValueError(
                f"{' and '.join(self.ways_to_score)} score pairs in two ways: keep one"
            )
        return self

    @model_validator(mode="after")
    def _sides_may_differ(self) -> "DenseConfig":
        """Refuse what is made of both sides at once where queries pass other layers than documents."""
        beside: tuple[str, ...] = ()
        tasks, what = {} if self.lora is None else self.lora.adapters, "adapters of a side"
        if any(sides.query != sides.document for sides in tasks.values()):
            beside = OF_BOTH_SIDES
        if self.query_network or self.query_codes:
            beside = (*OF_BOTH_SIDES, "words", "layer_pooling", "spans", "value_spans")
            what = self.ways_to_score[0]
        for name in beside:
            if getattr(self, name):
                raise ValueError(f"{what} cannot go with {name}: drop one")
        return self

    @property
    def ways_to_score(self) -> tuple[str, ...]:
        """Which sections score pairs by something else than the inner product."""
        names = ("interaction", "query_network", "query_codes")
        return tuple(name for name in names if getattr(self, name) is not None)
