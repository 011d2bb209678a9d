"""OpenAI's routes: ``/v1/embeddings`` and ``/v1/models``."""

from starlette.requests import Request
from starlette.responses import Response

from embedtrain.serving.answers import (
    BYTES_OF_A_NUMBER,
    answer,
    check_dimensions,
    cut,
    is_normalized,
    quantized,
    stacked,
    written,
)
from embedtrain.serving.desk import Desk
from embedtrain.serving.exchange import exchange_of
from embedtrain.serving.forms import EmbeddingsForm, read_form, read_input, read_side


class OpenAI:
    """Answers OpenAI's clients."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def embeddings(self, request: Request) -> Response:
        """Return a vector for each text."""
        form = read_form(await request.body(), EmbeddingsForm)
        settings = self.desk.settings
        number, model = self.desk.encoder(form.model, kind="dense")
        side = read_side(form.input_type, "input_type")
        check_dimensions(model, form.dimensions, settings.dimensions)
        texts = read_input(form.input, "input", settings.max_texts)
        exchange_of(request).hold(len(texts) * model.numbers * BYTES_OF_A_NUMBER)
        done = await self.desk.encode(
            number, texts, side, instruction=form.instruction, truncate=form.truncate
        )
        vectors = cut(stacked(done.results), form.dimensions, normalized=is_normalized(model))
        rows = written(quantized(vectors, form.quantize), form.encoding_format)
        data = [
            {"object": "embedding", "index": index, "embedding": row}
            for index, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": done.tokens, "total_tokens": done.tokens}
        return answer({"object": "list", "model": model.name, "data": data, "usage": usage})

    async def models(self, request: Request) -> Response:
        """Return the names of the models."""
        del request
        data = [
            {"id": model.name, "object": "model", "owned_by": "embedtrain", "kind": model.kind}
            for model in self.desk.models
        ]
        return answer({"object": "list", "data": data})
