"""The score from which on results are shown, kept beside the model whose scores it is about."""

from pathlib import Path

from pydantic import FiniteFloat, ValidationError

from embedtrain.errors import UserError
from embedtrain.files import read_json, write_json
from embedtrain.section import Section

FILE = "threshold.json"
CURE = "Make it with embedtrain probe MODEL thresholds --data DIR --store"


class Threshold(Section):
    """Where to cut for a wanted precision, chosen on half of the queries and measured on the other half."""

    score: FiniteFloat
    wanted: FiniteFloat
    """The precision that was asked for; its lower bound was to reach it where the score was chosen."""
    precision: FiniteFloat
    """Share of the shown results that are relevant, on queries that did not choose."""
    low: FiniteFloat
    high: FiniteFloat
    """95 % interval of the precision; queries are drawn whole."""
    recall: FiniteFloat
    """Share of the relevant among the first results that are shown."""
    similarity: str
    data: str
    """Name of the data and its split."""
    num_queries: int
    """Queries that it was measured on."""
    num_documents: int
    """Size of the corpus: the more documents, the higher the best wrong one scores."""
    depth: int
    """Results of a query that were looked at."""
    weights: str
    """Hash of the weights and the contract whose scores these are."""


def write_threshold(folder: Path, threshold: Threshold) -> None:
    """Keep a threshold in a model folder."""
    write_json(folder / FILE, threshold.model_dump())


def read_threshold(folder: Path, weights: str) -> Threshold:
    """Read the threshold of a model folder.

    Raises:
        UserError: If there is none, or it is of other weights, prompts or lengths.
    """
    path = folder / FILE
    if not path.is_file():
        cure = f"{CURE}, or give a number"
        raise UserError(
            "--threshold", f"stored needs a {FILE} in the model folder", got=str(folder), cure=cure
        )
    try:
        threshold = Threshold.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UserError(path, f"is not usable ({where}: {first['msg']})", cure=CURE) from error
    if threshold.weights != weights:
        problem = "is of other weights, prompts or lengths than the model's"
        raise UserError(path, problem, cure=CURE)
    return threshold
