"""The routes of text-embeddings-inference, so that its clients need a new address only."""

from starlette.requests import Request
from starlette.responses import Response

from embedtrain.serving.answers import (
    BYTES_OF_A_NUMBER,
    answer,
    check_dimensions,
    cut,
    is_normalized,
    stacked,
    unit,
)
from embedtrain.serving.desk import Computed, Desk
from embedtrain.serving.exchange import exchange_of
from embedtrain.serving.forms import InputsForm, Words, read_form, read_input, read_side
from embedtrain.serving.served import ServedEncoder


class Tei:
    """Answers clients of text-embeddings-inference."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def embed(self, request: Request) -> Response:
        """Return a vector for each text."""
        form = read_form(await request.body(), InputsForm)
        number, model = self.desk.encoder(form.model, kind="dense")
        check_dimensions(model, form.dimensions, self.desk.settings.dimensions)
        done = await self._encode(request, form, number, model)
        normalized = form.normalize or is_normalized(model)
        vectors = cut(stacked(done.results), form.dimensions, normalized=normalized)
        if form.normalize and not is_normalized(model):
            vectors = unit(vectors)
        return answer(list(vectors))

    async def embed_all(self, request: Request) -> Response:
        """Return the vectors of each text's tokens, of a model of late interaction."""
        form = read_form(await request.body(), InputsForm)
        number, model = self.desk.encoder(form.model, kind="late_interaction")
        done = await self._encode(request, form, number, model)
        return answer([list(one.values) for one in done.results])

    async def embed_sparse(self, request: Request) -> Response:
        """Return the entries of each text's vector, of a sparse model."""
        form = read_form(await request.body(), InputsForm)
        number, model = self.desk.encoder(form.model, kind="sparse")
        done = await self._encode(request, form, number, model)
        return answer(
            [
                [
                    {"index": index, "value": value}
                    for index, value in zip(one.indices, one.values, strict=True)
                ]
                for one in done.results
            ]
        )

    async def tokenize(self, request: Request) -> Response:
        """Return the token ids that the model reads of each text, prompt and special tokens included."""
        form = read_form(await request.body(), InputsForm)
        _, model = self.desk.encoder(form.model)
        texts = self._texts(form)
        side = read_side(form.prompt_name, "prompt_name")
        found, _ = await self.desk.aside(lambda: model.prepare(texts, side, truncate=form.truncate))
        names = model.model.tokenizer.convert_ids_to_tokens
        special = set(model.model.tokenizer.all_special_ids)
        return answer(
            [
                [
                    {"id": one, "text": name, "special": one in special}
                    for one, name in zip(text.ids.tolist(), names(text.ids.tolist()), strict=True)
                ]
                for text in found
            ]
        )

    async def info(self, request: Request) -> Response:
        """Return what the first model is, and the limits."""
        del request
        model, settings = self.desk.models[0], self.desk.settings
        contract = model.model.contract
        return answer(
            {
                "model_id": model.name,
                "model_type": model.kind,
                "max_input_length": contract.length("document"),
                "max_batch_tokens": settings.batch_tokens,
                "max_client_batch_size": settings.max_texts,
                "max_concurrent_requests": settings.max_requests,
            }
        )

    def _texts(self, form: InputsForm) -> Words:
        return read_input(form.inputs, "inputs", self.desk.settings.max_texts)

    async def _encode(
        self, request: Request, form: InputsForm, number: int, model: ServedEncoder
    ) -> Computed:
        texts = self._texts(form)
        exchange_of(request).hold(len(texts) * model.numbers * BYTES_OF_A_NUMBER)
        side = read_side(form.prompt_name, "prompt_name")
        return await self.desk.encode(number, texts, side, truncate=form.truncate)
