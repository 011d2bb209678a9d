"""The values that travel in pre-training: what the data draw, what the model says, what the loss is given.

The legend of axis names stands in :mod:`embedtrain.types`. Further here: ``draws`` (masks of the same text),
``labelled`` (tokens that carry a label), ``vectors`` (one per text, what an encoder squeezes it into).
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.packed import Movable, Texts, token_places


@dataclass(frozen=True)
class Masking:
    """What an objective asks of the data.

    Attributes:
        encoder_ratio: Share of the ordinary tokens that the encoder does not see.
        decoder_ratio: The same of the decoder; 0 draws no mask for it.
        superset: The decoder's mask contains the encoder's.
        by_position: The decoder's mask is drawn for each position anew, so that none sees the same tokens.
        num_draws: Distinct masks of a text among which its positions choose; None draws one each.
        pairs: Texts come in pairs of spans of one document, and each is decoded from the other's vector.
        parallel: The pairs are rows of two columns, a text and its translation, not spans.
    """

    encoder_ratio: float
    decoder_ratio: float = 0.0
    superset: bool = False
    by_position: bool = False
    num_draws: int | None = None
    pairs: bool = False
    parallel: bool = False


@dataclass(frozen=True)
class Computation:
    """What an objective asks of the model, besides the masked tokens of the encoder.

    Attributes:
        decoder: ``enhanced`` is RetroMAE's two-stream layer, ``plain`` an ordinary bidirectional stack.
        all_tokens: The encoder predicts every ordinary token, not only the masked ones.
        decode_all_tokens: The decoder likewise.
        query_norm: The enhanced decoder's queries pass through the norm of the embeddings (DupMAE's code).
        bag_of_words: States of all ordinary tokens are wanted, to pool them over the vocabulary.
        generator: Masked tokens are replaced by samples of a small language model.
        shifted: A token is predicted from the state before it, as a decoder's head has learned to.
        early_layer: The plain decoder gets the token states behind this share of the layers, not embeddings.
        clean_pass: Vectors are those of the untouched texts, by a pass of their own. The plain decoder gets the last
            states of the masked ones, and its states meet the output matrix as they are; the encoder predicts nothing.
    """

    decoder: Literal["none", "enhanced", "plain"] = "none"
    all_tokens: bool = False
    decode_all_tokens: bool = False
    query_norm: bool = False
    bag_of_words: bool = False
    generator: bool = False
    shifted: bool = False
    early_layer: float | None = None
    clean_pass: bool = False


@dataclass(frozen=True)
class MaskedBatch(Movable):
    """Texts as they are, and as the encoder and the decoder get them; all tensors lie as ``texts`` does.

    ``special`` marks the tokens that are never masked nor predicted. ``decoder_draws`` are whole masks of
    which the token at place t uses number ``decoder_picks[t]``; both are empty unless asked for.
    ``partners[i]`` is the text whose vector rebuilds text i.
    """

    texts: Texts
    special: Bool[Tensor, " tokens"]
    encoder_ids: Int64[Tensor, " tokens"]
    encoder_masked: Bool[Tensor, " tokens"]
    decoder_ids: Int64[Tensor, " tokens"]
    decoder_masked: Bool[Tensor, " tokens"]
    decoder_draws: Bool[Tensor, "tokens draws"]
    decoder_picks: Int64[Tensor, " tokens"]
    partners: Int64[Tensor, " texts"]
    source: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Int64[Tensor, " chosen"]) -> "MaskedBatch":
        """Return the texts at ``rows``, in that order; ``partners`` still count in the whole batch."""
        host, rows = self.on_host, rows.cpu()
        places, lengths = token_places(host.texts.lengths, rows)
        by_token = {
            name: getattr(host, name)[places]
            for name in (
                "special", "encoder_ids", "encoder_masked", "decoder_ids", "decoder_masked",
                "decoder_draws", "decoder_picks",
            )
        }  # fmt: skip
        texts = Texts(host.texts.ids[places], lengths)
        chosen = replace(host, texts=texts, partners=host.partners[rows], **by_token)
        return chosen.to(self.partners.device)


@dataclass(frozen=True)
class Labelled(Movable):
    """States that are to predict a token, behind the head's transform, and the tokens."""

    hidden: Float[Tensor, "labelled dim"]
    labels: Int64[Tensor, " labelled"]
    weight: float = 1.0
    """Of the mean over these labels among the means of all ranks."""


@dataclass(frozen=True)
class LabelledHead(Movable):
    """Labelled states of another model, and the output matrix of its own head."""

    labelled: Labelled
    weight: Float[Tensor, "vocabulary dim"]
    bias: Float[Tensor, " vocabulary"] | None


@dataclass(frozen=True)
class WordBag(Movable):
    """States of all ordinary tokens behind the head's transform, and the words of each untouched text.

    ``bag_texts[k]`` holds the word ``bag_ids[k]``, each pair once; ``num_words`` counts them in each text, and
    ``num_tokens`` with repetition. ``lengths`` and ``num_words``, on which shapes depend, are on the CPU.
    """

    hidden: Float[Tensor, "tokens dim"]
    lengths: Int64[Tensor, " texts"]
    bag_texts: Int64[Tensor, " pairs"]
    bag_ids: Int64[Tensor, " pairs"]
    num_tokens: Int64[Tensor, " texts"]
    num_words: Int64[Tensor, " texts"]
    weight: float = 1.0
    """Of the mean over these texts among the means of all ranks."""


@dataclass(frozen=True)
class PretrainOutputs(Movable):
    """What a masked autoencoder says about a batch; logits are ``hidden @ weight.T + bias``, never stored."""

    weight: Float[Tensor, "vocabulary dim"]
    bias: Float[Tensor, " vocabulary"] | None
    encoder: Labelled
    vectors: Float[Tensor, "texts width"]
    decoder: Labelled | None = None
    translated: Labelled | None = None
    """The decoder's states of the second texts of parallel pairs; ``decoder`` then holds the first ones alone."""
    all_vectors: Float[Tensor, "all_texts width"] | None = None
    """The vectors of all ranks, own first, with gradient, where the objective asked for them."""
    text_weight: float = 1.0
    """Of a mean over this rank's texts among the means of all ranks."""
    shuffled: Labelled | None = None
    """What the decoder makes of the vectors of other texts; for the log only."""
    words: WordBag | None = None
    generator: LabelledHead | None = None
    figures: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """For the log only."""
