"""Dense encoder: one vector per text."""

import logging
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from embedtrain.contract import Contract, Pooling, TextSide, Tokenization
from embedtrain.errors import UserError
from embedtrain.models.backbone import Backbone, position_offset
from embedtrain.models.chunking import Execution, encode_in_chunks
from embedtrain.models.packed_attention import NAME as PACKED
from embedtrain.models.packed_attention import length_groups
from embedtrain.models.pooling import pack_states, pool, positions
from embedtrain.types import RetrievalBatch, RetrievalOutputs, Similarity, Texts

logger = logging.getLogger(__name__)

Packing = Literal["auto", "packed", "padded"]


class DenseConfig(BaseModel):
    """A bi-encoder with one vector per text. Null takes what the backbone's folder says."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["dense"] = "dense"
    backbone: str
    """Hub id, local folder (transformers or sentence-transformers), or ``package:NAME/FOLDER``."""
    pooling: Pooling | None = None
    """Null: as the sentence-transformers folder says, else mean."""
    similarity: Similarity | None = None
    """Null: as the sentence-transformers folder says, else cosine."""
    query: TextSide = TextSide()
    document: TextSide = TextSide()
    projection: PositiveInt | None = None
    """Dimension of a linear layer after pooling; null: as the folder says, else none."""
    num_layers: PositiveInt | None = None
    """Keep only the first layers of the backbone; null keeps all."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Replaces the backbone's dropout ratios; null keeps them. Attention dropout is slow on CPU."""
    learn_temperature: PositiveFloat | None = None
    """Start value of a learnable temperature; null leaves the temperature to the objective."""
    packing: Packing = "auto"
    """``packed`` computes no padding, ``padded`` pads each chunk, ``auto`` packs on CPU where it is exact."""
    trust_remote_code: bool = False
    """Run modelling code from the model's repository. Only for repositories you trust."""


class DenseEncoder(nn.Module):
    """Backbone, pooling, optional projection, normalisation: texts in, one vector each out.

    Args:
        backbone: Model and tokenizer.
        contract: Pooling, similarity, prompts and lengths.
        projection: A linear layer after pooling, or None.
        packing: ``packed``, ``padded``, or ``auto``, which packs on CPU if a check of this very
            backbone shows that it gives the same states.
        learn_temperature: Start value of a learnable temperature, or None.

    Raises:
        UserError: If a length exceeds the backbone's positions, or ``packed`` is not exact for it.
    """

    def __init__(
        self,
        backbone: Backbone,
        contract: Contract,
        projection: nn.Linear | None = None,
        *,
        packing: Packing = "auto",
        learn_temperature: float | None = None,
    ) -> None:
        super().__init__()
        for side in ("query", "document"):
            if contract.length(side) > backbone.max_length:
                raise UserError(
                    f"model.{side}.length",
                    f"is more than the {backbone.max_length} tokens that {backbone.path} has positions for",
                    got=contract.length(side),
                    cure="Lower it",
                )
        self.backbone: Any = backbone.model
        self._padded_attention: str = backbone.model.config._attn_implementation  # noqa: SLF001 - no getter
        self.tokenizer = backbone.tokenizer
        self.contract = contract
        self.projection = projection
        start = torch.tensor([learn_temperature or 1.0]).log()
        # Shape [1], not []: DeepSpeed cannot broadcast 0-dimensional parameters.
        self.log_temperature = nn.Parameter(start) if learn_temperature else None
        self.packing: Packing = packing
        self._packed_is_exact: bool | None = None

    @property
    def tokenization(self) -> Tokenization:
        """Texts to token ids, under this model's contract."""
        return Tokenization(self.tokenizer, self.contract)

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return int(
            self.projection.out_features if self.projection else self.backbone.config.hidden_size
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, batch: RetrievalBatch, execution: Execution) -> RetrievalOutputs:
        """Encode each distinct text of the batch once and lay the embeddings out by query and candidate."""
        queries, documents = batch.queries, batch.documents
        together = Texts(
            torch.cat([queries.ids, documents.ids]), torch.cat([queries.lengths, documents.lengths])
        )
        embeddings = self.embed(together, execution)
        query, document = torch.split(embeddings, [len(queries), len(documents)])
        temperature = None if self.log_temperature is None else self.log_temperature.exp()[0]
        return RetrievalOutputs(
            query=query[batch.query_rows],
            document=document[batch.document_rows],
            relevance=batch.relevance,
            temperature=temperature,
        )

    def embed(self, texts: Texts, execution: Execution) -> Float[Tensor, "texts dim"]:
        """Return one vector per text, in float32 at least, normalised if the similarity is cosine."""
        if int(texts.lengths.min()) == 0:
            raise UserError("a text", "has no tokens", cure="Remove empty texts")
        packed = self._packs(texts.ids.device)
        encode = self._encode_packed if packed else self._encode_padded
        return encode_in_chunks(encode, texts, execution, padded=not packed)

    def _encode_packed(self, texts: Texts) -> Float[Tensor, "texts dim"]:
        return self._head(self._packed_states(texts), texts)

    def _encode_padded(self, texts: Texts) -> Float[Tensor, "texts dim"]:
        return self._head(self._padded_states(texts), texts)

    def _head(
        self, states: Float[Tensor, "tokens width"], texts: Texts
    ) -> Float[Tensor, "texts dim"]:
        pooled = pool(states, texts.lengths, self.contract.pooling)
        if self.projection is not None:
            pooled = self.projection(pooled)
            pooled = pooled.float() if pooled.dtype == torch.bfloat16 else pooled
        return F.normalize(pooled, dim=-1) if self.contract.similarity == "cosine" else pooled

    def _packed_states(self, texts: Texts) -> Float[Tensor, "tokens width"]:
        """Run the backbone over the texts laid end to end; they must be sorted by length."""
        self._use_attention(PACKED)
        places = positions(texts.lengths) + position_offset(self.backbone.config)
        output = self.backbone(
            input_ids=texts.ids[None],
            position_ids=places[None],
            sequence_groups=length_groups(texts.lengths.tolist()),
            use_cache=False,
        )
        states: Tensor = output.last_hidden_state[0]
        return states

    def _padded_states(self, texts: Texts) -> Float[Tensor, "tokens width"]:
        """Run the backbone over right-padded texts and drop the padding again."""
        self._use_attention(self._padded_attention)
        width = int(texts.lengths.max())
        mask = torch.arange(width, device=texts.ids.device) < texts.lengths[:, None]
        ids = torch.full(mask.shape, self.tokenizer.pad_token_id or 0, device=texts.ids.device)
        ids[mask] = texts.ids
        output = self.backbone(input_ids=ids, attention_mask=mask.long(), use_cache=False)
        return pack_states(output.last_hidden_state, mask)[0]

    def use_padded_attention(self) -> None:
        """Put the backbone back on the attention it was loaded with; encoding switches when it needs to."""
        self._use_attention(self._padded_attention)

    def _use_attention(self, name: str) -> None:
        if self.backbone.config._attn_implementation != name:  # noqa: SLF001 - no getter
            self.backbone.set_attn_implementation(name)

    def _packs(self, device: torch.device) -> bool:
        """Decide, once, whether to pack; an explicit wish that cannot be met is an error."""
        if self.packing == "padded" or (self.packing == "auto" and device.type != "cpu"):
            return False
        if self._packed_is_exact is None:
            self._packed_is_exact = self._check_packing(device)
            logger.info("packing: %s", "packed" if self._packed_is_exact else "padded")
        if self.packing == "packed" and not self._packed_is_exact:
            raise UserError(
                "model.packing", "packed is not exact for this backbone", cure="Use auto or padded"
            )
        return self._packed_is_exact

    @torch.no_grad()
    def _check_packing(self, device: torch.device) -> bool:
        """Compare packed with padded states on random tokens, longer than any attention window.

        Backbones differ in what they make of positions and masks; a wrong guess would be silent.
        """
        limit = max(self.contract.query_length, self.contract.document_length)
        lengths = torch.tensor(sorted({limit, min(limit, 19), min(limit, 7)}, reverse=True))
        lengths = torch.cat([lengths, lengths[-1:]]).to(device)
        generator = torch.Generator().manual_seed(0)
        total, vocabulary = int(lengths.sum()), self.backbone.config.vocab_size
        ids = torch.randint(0, vocabulary, (total,), generator=generator).to(device)
        ids[ids == (self.tokenizer.pad_token_id or 0)] = vocabulary - 1
        texts = Texts(ids, lengths)
        training = self.backbone.training
        self.backbone.eval()
        try:
            with torch.autocast(device.type, enabled=False):
                padded = self._padded_states(texts)
                packed = self._packed_states(texts)
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            logger.info("packing is not possible with this backbone: %s", error)
            return False
        finally:
            self.backbone.train(training)
        scale = padded.abs().max()
        return bool((packed - padded).abs().max() <= 1e-4 * scale)
