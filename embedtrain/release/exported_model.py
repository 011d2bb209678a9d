"""What an export writes: the model of a folder or an untrained one, and what is changed in it for good."""

from collections.abc import Sequence
from pathlib import Path

from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import preferred_device
from embedtrain.models.build import build_model, load_model
from embedtrain.models.cross_encoder.build import load_cross_encoder
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.edits.keep_adapter import keep_adapter
from embedtrain.models.edits.shrink import shrink, shrink_reranker
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.build import load_sparse
from embedtrain.models.text_model import TextModel
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.release.probabilities import fold_probabilities
from embedtrain.resources import find_recipe


def model_of_folder(source: str, *, sparse: bool, scores: bool) -> TextModel:
    """Return the model of a folder, as what it is to be taken; ``scores`` wants a classifier of pairs.

    Raises:
        UserError: If it is to be taken as both.
    """
    if scores and sparse:
        cure = "Leave one of them out"
        raise UserError("--sparse and --probabilities", "are for models of two kinds", cure=cure)
    if scores:
        return load_cross_encoder(source)
    return load_sparse(source, preferred_device("auto")) if sparse else load_model(source)


def refuse_measured(recipe: str | Path, *, sparse: bool, scores: bool) -> None:
    """Refuse what is only asked of models that are there, where a recipe says what its own is.

    Raises:
        UserError: If any of it is asked.
    """
    for flag, asked in (("--sparse", sparse), ("--probabilities", scores)):
        if asked:
            cure = "Name a run or a model folder"
            raise UserError(flag, "is for trained models", got=str(recipe), cure=cure)


def untrained_model(source: str | Path, overrides: Sequence[str]) -> TextModel:
    """Return the model that training by a recipe would begin with."""
    recipe = load_recipe(find_recipe(source), overrides)
    if isinstance(recipe, PretrainRecipe):
        problem = "is a recipe of pre-training, whose model has learned nothing yet"
        raise UserError(source, problem, cure="Run `embedtrain train` first, and export the run")
    # Adapters that have learned nothing change nothing, and a model folder has no place for them.
    return build_model(recipe.model.model_copy(update={"lora": None}))


def changed_model(
    model: TextModel,
    source: object,
    changes: Sequence[str],
    layer: int | None,
    dim: int | None,
    instruction: str | None,
    probabilities: Path | None,
) -> TextModel:
    """Return the model with its layer, size, instruction or scale changed for good.

    Raises:
        UserError: If it is a cross-encoder and more is asked than one can have.
    """
    if isinstance(model, CrossEncoderModel):
        if probabilities is not None and len(changes) == 1:
            fold_probabilities(model, probabilities)
            return model
        if layer is None or len(changes) > 1:
            raise UserError(
                source, "is a cross-encoder, which can end at a layer or say probabilities and no more",
                got=changes[-1], cure="Leave the others of these flags out, or export twice",
            )  # fmt: skip
        return shrink_reranker(model, layer)
    assert isinstance(model, TextEncoder)
    if layer is not None or dim is not None or instruction is not None:
        if instruction is not None and isinstance(model, DenseEncoder):
            keep_adapter(model, instruction)
        model = shrink(model, layer=layer, dim=dim)
        model.contract = model.contract.under(instruction)
    return model
