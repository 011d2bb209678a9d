"""The one door to models that score a query with a document, whether they read both together or apart.

Each kind is a class in a file of its own; here it is found out which one a folder wants.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.encoding.encoder_pairs import EncoderPairs
from embedtrain.encoding.language.answers import AnswerLikelihood, Attributed
from embedtrain.encoding.language.endpoint import is_endpoint
from embedtrain.encoding.language.endpoint_scorers import open_endpoint
from embedtrain.encoding.language.first_word import FirstWord
from embedtrain.encoding.language.graded import Graded
from embedtrain.encoding.language.likelihood import Likelihood
from embedtrain.encoding.language.listwise import Listwise
from embedtrain.encoding.language.pairwise import Pairwise
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.language.yes_no import YesNo
from embedtrain.encoding.pair_work import PairWork, ScorerKind
from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.backbone.folder_files import BackboneFile, read_form
from embedtrain.models.cross_encoder.resolving import is_cross_encoder
from embedtrain.models.dense.layout import CONTRACT_FILE
from embedtrain.models.language.encoder_decoder import EncoderDecoder, is_encoder_decoder
from embedtrain.models.language.model import GGUF, LanguageModel, is_language_model
from embedtrain.precision import Chosen, Precision

LANGUAGE_SCORERS = {
    "yes_no": YesNo,
    "likelihood": Likelihood,
    "graded": Graded,
    "listwise": Listwise,
    "pairwise": Pairwise,
    "answer": AnswerLikelihood,
    "attribution": Attributed,
}
SAYS_POOLING = (CONTRACT_FILE, "modules.json")
"""Files by which a folder says how its states become vectors."""


@runtime_checkable
class PairScorer(Protocol):
    """Scores texts of queries and documents, read together or apart."""

    @property
    def precision(self) -> Chosen:
        """What the network computes in."""
        ...

    @property
    def work(self) -> PairWork:
        """What has been computed so far."""
        ...

    def key(self) -> str:
        """Return a hash of all that a score depends on: weights, tokenizer, template, lengths, precision."""
        ...

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs of a query and a document: raw log-odds or similarities, the higher the better.

        Equal calls give equal bits.
        """
        ...


def detect_kind(path: str) -> ScorerKind:
    """Tell what a model folder or Hub id is by the architecture that its config names.

    Raises:
        UserError: If it is a language model that says nothing of pooling: its mean state is no embedding.
    """
    if path.endswith(GGUF) or is_endpoint(path):
        raise _unsaid(path, GGUF if path.endswith(GGUF) else "an address")
    if is_classifier(path):
        return "cross_encoder"
    folder = fetch(path)
    names = read_form(folder / "config.json", BackboneFile, optional=True).architectures or []
    pooled = any((folder / name).is_file() for name in SAYS_POOLING)
    if not pooled and (is_language_model(names) or is_encoder_decoder(names)):
        raise _unsaid(path, names[0])
    return "encoder"


def is_classifier(path: str) -> bool:
    """Whether a model folder or Hub id is a classifier that reads two texts together."""
    if path.endswith(GGUF) or is_endpoint(path):
        return False
    folder = fetch(path)
    names = read_form(folder / "config.json", BackboneFile, optional=True).architectures or []
    named = any(name.endswith("ForSequenceClassification") for name in names)
    return named or is_cross_encoder(folder)


def _unsaid(path: str, name: str) -> UserError:
    return UserError(
        path,
        "is a language model, and nothing in its folder says how it scores or embeds",
        got=name,
        cure=f"Say what it is with --as: {', '.join(LANGUAGE_SCORERS)} or encoder",
    )


def open_pair_scorer(
    path: str,
    *,
    kind: ScorerKind | None = None,
    precision: Precision = "auto",
    batch_size: int = 32,
    language: LanguageSettings | None = None,
) -> PairScorer:
    """Open what scores pairs.

    Args:
        path: Model folder or Hub id.
        kind: What it is; None finds out.
        precision: What it computes in.
        batch_size: Pairs that a cross-encoder scores at once.
        language: How a language model is asked; a cross-encoder takes the instruction for the name of one of its own.

    Raises:
        UserError: If it cannot be loaded, or its kind cannot be told.
    """
    settings = language or LanguageSettings()
    if is_endpoint(path):
        if precision != "auto":
            cure = "Leave it out: the server chose it"
            raise UserError(
                "--precision", "is not an address's to choose", got=precision, cure=cure
            )
        if kind is not None:
            settings.refuse_unused(kind, at_an_address=True)
        return open_endpoint(path, kind, settings)
    found = kind or detect_kind(path)
    settings.refuse_unused(found)
    if found == "yes_no" and not path.endswith(GGUF):
        config = read_form(fetch(path) / "config.json", BackboneFile, optional=True)
        if is_encoder_decoder(config.architectures):
            return FirstWord(EncoderDecoder(path, precision=precision), settings)
    if found in LANGUAGE_SCORERS:
        model = LanguageModel(path, precision=precision)
        asked: PairScorer = LANGUAGE_SCORERS[found](model, settings)
        return asked
    if found == "cross_encoder":
        return CrossEncoder(
            path, batch_size=batch_size, precision=precision, instruction=settings.instruction
        )
    return EncoderPairs(path, precision=precision)
