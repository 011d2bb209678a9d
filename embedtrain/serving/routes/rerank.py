"""``/rerank``: a query and documents in, the documents by their score out; in Cohere's form and in TEI's."""

from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from embedtrain.serving.answers import answer
from embedtrain.serving.desk import Computed, Desk
from embedtrain.serving.exchange import exchange_of
from embedtrain.serving.forms import Document, RerankForm, read_form
from embedtrain.serving.refusals import Refusal
from embedtrain.serving.scoring import score_all
from embedtrain.serving.served import ServedCrossEncoder, ServedEncoder


class Rerank:
    """Orders documents by a cross-encoder, or by the similarity of vectors of any kind."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def rerank(self, request: Request) -> Response:
        """Return documents, best first; ties stay in the order given."""
        form = read_form(await request.body(), RerankForm)
        texts = self._texts(form)
        _, model = self.desk.find(form.model)
        kept = model.numbers if isinstance(model, ServedEncoder) else 1
        exchange_of(request).hold(4 * (sum(map(len, texts)) + len(texts) * kept))
        done = await self._scored(form, texts)
        scores = np.asarray(done.results, dtype=np.float64)
        if isinstance(model, ServedCrossEncoder) and not form.raw_scores:
            scores = 1 / (1 + np.exp(-scores))
        order = np.argsort(-scores, kind="stable")[: form.top_n].tolist()
        if form.texts is not None:
            return answer([self._of_tei(one, scores, texts, form) for one in order])
        results = [self._of_cohere(one, scores, texts, form) for one in order]
        usage = {"prompt_tokens": done.tokens, "total_tokens": done.tokens}
        return answer({"model": model.name, "results": results, "usage": usage})

    def _texts(self, form: RerankForm) -> list[str]:
        given = form.documents if form.texts is None else form.texts
        if given is None:
            raise Refusal("validation", "documents or texts are missing", param="documents")
        if not given:
            raise Refusal("empty", "there are no documents", param="documents")
        most = self.desk.settings.max_texts
        if len(given) > most:
            raise Refusal("too_large", f"there are more than {most} documents", param="documents")
        return [one.text if isinstance(one, Document) else one for one in given]

    async def _scored(self, form: RerankForm, texts: list[str]) -> Computed:
        number, model = self.desk.find(form.model)
        if isinstance(model, ServedCrossEncoder):
            return await self.desk.score(number, form.query, texts, truncate=form.truncate)
        query = await self.desk.encode(number, [form.query], "query", truncate=form.truncate)
        found = await self.desk.encode(number, texts, "document", truncate=form.truncate)
        scores = await self.desk.aside(
            lambda: score_all(model.model, query.results[0], found.results)
        )
        return Computed(scores, query.tokens + found.tokens)

    @staticmethod
    def _of_tei(
        index: int, scores: np.ndarray, texts: list[str], form: RerankForm
    ) -> dict[str, Any]:
        found = {"index": index, "score": float(scores[index])}
        return found | ({"text": texts[index]} if form.return_text else {})

    @staticmethod
    def _of_cohere(
        index: int, scores: np.ndarray, texts: list[str], form: RerankForm
    ) -> dict[str, Any]:
        found = {"index": index, "relevance_score": float(scores[index])}
        return found | ({"document": {"text": texts[index]}} if form.return_documents else {})
