"""Query-only tuning: keep the starting model for documents, and encode them once."""

from pathlib import Path

from embedtrain.data.examples import text_id
from embedtrain.data.sources import open_source
from embedtrain.errors import UserError
from embedtrain.files import build_once
from embedtrain.mining.task import load_mining_task
from embedtrain.models.build import load_dense, save_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.training.frozen_documents import FrozenDocuments, FrozenDocumentsConfig
from embedtrain.training.guide import StoredVectors
from embedtrain.workflows.prepare import cache_of


def keep_document_model(run: RunFolder, recipe: Recipe, model: TextModel) -> None:
    """Let ``model`` name another for documents where only queries are trained: the guide, or its start.

    The start is written to ``document_model/`` of the run.

    Raises:
        UserError: If the model gives several vectors per text.
    """
    if recipe.guide is not None and recipe.guide.encodes_documents:
        place = Path(recipe.guide.model)
        named = str(place.resolve()) if place.is_dir() else recipe.guide.model
        model.contract = model.contract.model_copy(update={"document_model": named})
    if recipe.frozen_documents is None:
        return
    if not isinstance(model, DenseEncoder):
        raise UserError(
            "frozen_documents",
            "keeps one vector per document",
            got="late_interaction",
            cure="Use model.kind: dense, or drop it",
        )
    folder = (run.path / "document_model").resolve()
    build_once(folder, lambda building: save_encoder(model, building))
    model.contract = model.contract.model_copy(update={"document_model": str(folder)})


def encode_documents(
    run: RunFolder, recipe: Recipe, config: FrozenDocumentsConfig
) -> FrozenDocuments:
    """Return the vectors of every document of the rows and of the corpus, under the starting model."""
    cache = cache_of(recipe.data)
    texts: dict[int, str] = {}
    for source in recipe.data.sources:
        for example in open_source(source, cache).examples():
            for text in example.positives + example.negatives:
                texts.setdefault(text_id(text), text)
    if config.path is not None:
        for text in load_mining_task(config.path, config.split, cache).documents:
            texts.setdefault(text_id(text), text)
    model = load_dense(str(run.path / "document_model"))
    stored = StoredVectors.of(model, texts, "document", cache)
    return FrozenDocuments(stored, config.live_negatives)


def refuse_query_model(model: TextModel, recipe: Recipe) -> None:
    """Refuse to train documents with an encoder that was tuned for queries only."""
    if isinstance(model, DenseEncoder) and model.contract.document_model:
        raise UserError(
            "model.backbone",
            "was tuned for queries only; documents are encoded by another model",
            got=recipe.model.backbone,
            cure=f"Start from {model.contract.document_model}",
        )
