"""The field of a collection whose vectors a model made."""

from embedtrain.encoding.cache import model_key
from embedtrain.engines.engine import Engine
from embedtrain.engines.layout import Layout, VectorField
from embedtrain.engines.open import FILL
from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.subject import kind_of
from embedtrain.models.encoder import TextEncoder


def field_of(engine: Engine, model: TextEncoder, name: str) -> VectorField:
    """Return the field of a collection that a model's vectors lie in.

    Raises:
        UserError: If there is no such collection, it is half filled, or its vectors are of another model.
    """
    field = _finished(engine).field_of(model_key(model), engine.place, name)
    if (field.kind, field.dim) != (kind_of(model), model.dim):
        raise UserError(
            f"{engine.place} {field.name}", "says that it holds other vectors than its model gives",
            got=f"{field.kind} of {field.dim}", cure="Remove it and load again",
        )  # fmt: skip
    return field


def _finished(engine: Engine) -> Layout:
    layout = engine.describe()
    if layout is None:
        raise UserError(engine.place, "is no collection", cure=FILL)
    if not layout.is_finished and layout.fields:
        raise UserError(
            engine.place, "is half filled: its loading has not come to an end",
            got=f"{engine.count():,} documents", cure="Start the same `embedtrain load` again",
        )  # fmt: skip
    return layout
