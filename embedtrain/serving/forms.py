"""What requests look like: the fields that are read; clients may send others."""

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedtrain.serving.refusals import Refusal
from embedtrain.types import Side

SIDES: dict[str, Side] = {
    "query": "query",
    "search_query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
}
"""The sides, under the names that other services gave them too."""
F = TypeVar("F", bound="Form")
Words = list[str] | list[list[int]]


class Form(BaseModel):
    """A request: types are not guessed, so 1 is no text."""

    model_config = ConfigDict(
        extra="ignore", strict=True, frozen=True, use_attribute_docstrings=True
    )


class EmbeddingsForm(Form):
    """OpenAI's ``/v1/embeddings``, and what it does not know."""

    input: Any
    """A text, texts, the token ids of a text, or of texts."""
    model: str | None = None
    """Name of a model; the first one if left out."""
    encoding_format: Literal["float", "base64"] = "float"
    """Base64 is of little-endian float32 numbers, or of the bytes of what is quantised."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Keep the first so many, of length 1 again where the model compares by cosine."""
    input_type: str = "document"
    """``query`` or ``document``: whose prompt and length."""
    instruction: str | None = None
    """Name of one of the model's instructions."""
    quantize: Literal["float", "int8", "binary"] = "float"
    """A byte per number, c / 127, or a bit, 1 where the number is not below 0."""
    truncate: bool = True
    """Cut texts that are too long; else refuse them."""


class InputsForm(Form):
    """Text-embeddings-inference's ``/embed``, ``/embed_all``, ``/embed_sparse`` and ``/tokenize``."""

    inputs: Any
    model: str | None = None
    truncate: bool = True
    prompt_name: str | None = None
    """``query`` or ``document``; left out, ``document``."""
    normalize: bool = True
    """Of length 1, also where the model leaves it."""
    dimensions: Annotated[int, Field(ge=1)] | None = None


class Document(Form):
    """A document in Cohere's form."""

    text: str


class RerankForm(Form):
    """Cohere's ``/rerank``, with ``documents``, or text-embeddings-inference's, with ``texts``."""

    query: str
    documents: list[str | Document] | None = None
    texts: list[str] | None = None
    model: str | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    return_text: bool = False
    raw_scores: bool = False
    """Of a cross-encoder, log-odds in the place of probabilities."""
    truncate: bool = True


def read_form(body: bytes, kind: type[F]) -> F:
    """Read a request.

    Raises:
        Refusal: If it is no JSON, or not of this form.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:  # deep nesting, NaN and halves of surrogate pairs as well
        raise Refusal("validation", "the body is no JSON in UTF-8") from None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"][:2])) or "body"
        raise Refusal("validation", f"{place}: {first['msg']}", param=place) from None


def read_side(name: str | None, param: str) -> Side:
    """Return the side that a request names; documents if it names none.

    Raises:
        Refusal: If it names something else.
    """
    side = SIDES.get("document" if name is None else name)
    if side is None:
        raise Refusal("validation", f"{param} must be query or document", param=param)
    return side


def read_input(given: object, param: str, most: int) -> Words:
    """Return the texts of a request, or their token ids; what the first one is decides.

    Raises:
        Refusal: If there is none, too many, or something else among them.
    """
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise Refusal("validation", f"{param} must be a text or a list", param=param)
    if not given:
        raise Refusal("empty", f"{param} is empty", param=param)
    if _is_id(given[0]):
        given = [given]
    if len(given) > most:
        raise Refusal("too_large", f"{param} has more than {most} texts", param=param)
    if all(isinstance(one, str) for one in given):
        return list(given)
    if not all(isinstance(one, list) and all(map(_is_id, one)) for one in given):
        problem = "must be texts, or lists of token ids, not both"
        raise Refusal("validation", f"{param} {problem}", param=param)
    if not all(given):
        raise Refusal("empty", f"{param} has a text without tokens", param=param)
    return list(given)


def _is_id(one: object) -> bool:
    return isinstance(one, int) and not isinstance(one, bool)
