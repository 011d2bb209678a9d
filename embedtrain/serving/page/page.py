"""The page and what it asks for. One answer holds all of it: no other file, no other address."""

from functools import lru_cache
from pathlib import Path
from secrets import token_urlsafe
from time import perf_counter
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from embedtrain.serving.answers import answer
from embedtrain.serving.exchange import exchange_of
from embedtrain.serving.forms import Form, read_form
from embedtrain.serving.page.board import Board, Choice, Collection, Found
from embedtrain.serving.page.marks import explained, in_parts
from embedtrain.serving.refusals import Refusal
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

FOLDER = Path(__file__).parent
SHOWN = 20_000
"""Characters of a document that are sent."""
ANSWER_BYTES = 4
"""Of a character, at most."""


class SearchForm(Form):
    """What the page asks for."""

    query: str
    documents: list[str] = Field(default_factory=list)
    sides: Annotated[list[str], Field(min_length=1, max_length=2)]
    """Keys of choices."""
    top: Annotated[int, Field(ge=1, le=50)] = 10


class Page:
    """Answers the page's requests."""

    def __init__(self, board: Board) -> None:
        self.board = board

    async def show(self, request: Request) -> Response:
        """Return the page. Its script and style run because they carry a word that no other answer has."""
        del request
        nonce = token_urlsafe(16)
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return Response(
            written_page().replace("NONCE", nonce),
            headers={"content-security-policy": policy},
            media_type="text/html",
        )

    async def choices(self, request: Request) -> Response:
        """Return the ways to search, and how many documents are there already."""
        del request
        corpus = self.board.corpus
        listed = [{"key": one.key, "label": one.label} for one in self.board.choices]
        number = 0 if corpus is None else len(corpus.texts)
        most = self.board.desk.settings.page_texts
        return answer({"choices": listed, "documents": number, "most": most})

    async def search(self, request: Request) -> Response:
        """Return the best documents of each side."""
        form = read_form(await request.body(), SearchForm)
        texts = [text for text in form.documents if text.strip()]
        most = self.board.desk.settings.page_texts
        if len(texts) > most:
            raise Refusal("too_large", f"there are more than {most} documents", param="documents")
        if not form.query.strip():
            raise Refusal("empty", "the query is empty", param="query")
        documents = self.board.collection(texts)
        if documents is None:
            raise Refusal("empty", "there are no documents to search", param="documents")
        known = {one.key: one for one in self.board.choices}
        if not all(key in known for key in form.sides):
            raise Refusal("validation", "there is no such way to search", param="sides")
        exchange_of(request).hold(len(form.sides) * form.top * SHOWN * ANSWER_BYTES)
        sides = [await self._side(documents, known[key], form) for key in form.sides]
        return answer({"sides": sides, "documents": len(documents.texts)})

    async def _side(
        self, documents: Collection, choice: Choice, form: SearchForm
    ) -> dict[str, Any]:
        begun = perf_counter()
        found = await self.board.find(documents, choice, form.query, form.top)
        seconds = perf_counter() - begun
        hits, meaning = await self.board.desk.aside(
            lambda: self._hits(documents, choice, form.query, found)
        )
        return {
            "label": choice.label,
            "milliseconds": round(1000 * seconds, 1),
            "marked": meaning,
            "hits": hits,
        }

    def _hits(
        self, documents: Collection, choice: Choice, query: str, found: Found
    ) -> tuple[list[dict[str, Any]], str]:
        """Return what is shown of each result; in the tokenizer's thread."""
        model = None if choice.number is None else self.board.desk.models[choice.number].model
        vectors = None if choice.number is None else documents.vectors.get(choice.number)
        hits, meaning = [], ""
        for row, score in zip(found.rows, found.scores, strict=True):
            text = documents.texts[row][:SHOWN]
            vector = None
            if isinstance(vectors, TokenVectors | SparseVectors):
                vector = vectors.part(row, row + 1)
            spans, terms, meaning = explained(model, query, found.query, text, vector)
            hits.append(
                {
                    "id": documents.ids[row],
                    "row": row,
                    "score": score,
                    "parts": in_parts(text, spans),
                    "cut": len(documents.texts[row]) > SHOWN,
                    "terms": terms,
                }
            )
        return hits, meaning


@lru_cache(maxsize=1)
def written_page() -> str:
    """Return the page with its style and script, and ``NONCE`` where the word of an answer goes."""
    page, style, script = (
        (FOLDER / f"page.{ending}").read_text(encoding="utf-8") for ending in ("html", "css", "js")
    )
    return page.replace("/* STYLE */", style).replace("/* SCRIPT */", script)
