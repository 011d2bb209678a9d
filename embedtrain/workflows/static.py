"""Workflow: a sentence encoder and texts become a table of words that needs no encoder."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.static.distil import (
    bag_vectors,
    choose_words,
    contextual_rows,
    distil,
    sentence_components,
    words_encoder,
)
from embedtrain.progress import console, progress_bar
from embedtrain.release.export import write_model
from embedtrain.section import Count, Section
from embedtrain.workflows.encode.file import read_texts


class StaticConfig(Section):
    """What `embedtrain static` makes."""

    vocabulary: Count = 30_000
    """Words of the table, the most frequent of the texts."""
    min_count: Count = 3
    """Words that occur less often are left out."""
    per_word: Count = 100
    """Places of a word that its row is averaged over."""
    dim: Count = 256
    """Dimensions of a row."""
    removed: NonNegativeInt = 7
    """First principal components of sentences that are taken away."""
    steps: NonNegativeInt = 1_000
    """Of distillation; 0 keeps the averages."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: PositiveFloat = 1.0e-3
    seed: NonNegativeInt = 0


@owns("output")
def make_static(
    model: str, texts: Path, output: Path, config: StaticConfig, column: str | None = None
) -> dict[str, float]:
    """Make static embeddings and write them as a sentence-transformers folder.

    Args:
        model: The teacher, with one vector per text.
        texts: Sentences: ``.jsonl`` with a text column, or a text per line. A twentieth of them is held out.
        output: Folder to write; must not exist.
        config: Sizes and distillation.
        column: Name of the text column.

    Returns:
        Correlation of cosines with the teacher's on held-out texts, before and after distillation.

    Raises:
        UserError: If texts are too few, or the sizes do not fit the model.
    """
    if output.exists():
        raise UserError("--output", "exists", got=str(output), cure="Choose another folder")
    teacher = load_encoder(model)
    if not isinstance(teacher, DenseEncoder):
        raise UserError(model, "has several vectors per text", cure="Name a dense model")
    sentences = list(dict.fromkeys(read_texts(texts, column)))
    held = max(2, len(sentences) // 20)
    if len(sentences) < 4 * held:
        raise UserError(texts, "holds too few texts", got=len(sentences), cure="Give thousands")
    width = int(teacher.backbone.config.hidden_size)
    if config.dim + config.removed > width:
        raise UserError(
            "dim", f"and removed are together more than the model's {width} dimensions",
            got=(config.dim, config.removed), cure="Lower dim",
        )  # fmt: skip
    order = np.random.default_rng(config.seed).permutation(len(sentences))
    sentences = [sentences[place] for place in order]
    probes, sentences = sentences[:held], sentences[held:]
    words = choose_words(sentences, config.vocabulary, config.min_count)
    if len(words) < 2:
        raise UserError(texts, "has no word often enough", cure="Lower min_count")
    console.print(f"Averaging the vectors of {len(words) - 1:,} words")
    rows = contextual_rows(teacher, sentences, words, config.per_word)
    bags, probe_bags = words.bags(sentences), words.bags(probes)
    rows = sentence_components(rows, bags, config.dim, config.removed)
    expected = torch.from_numpy(encode_texts(teacher, probes, "document"))
    figures = {"correlation_before": _agreement(bag_vectors(rows, probe_bags), expected)}
    if config.steps:
        with progress_bar("Encoding texts with the teacher", len(sentences)) as advance:
            vectors = encode_texts(teacher, sentences, "document", progress=advance)
        rows = distil(
            rows,
            bags,
            torch.from_numpy(vectors),
            steps=config.steps,
            batch_size=min(config.batch_size, len(sentences)),
            learning_rate=config.learning_rate,
            seed=config.seed,
        )
    figures["correlation"] = _agreement(bag_vectors(rows, probe_bags), expected)
    write_model(words_encoder(words, rows), output)
    return figures


def _agreement(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """Return Pearson's correlation of the cosines of all pairs of texts."""
    places = torch.triu_indices(len(student), len(student), 1)
    cosines = [
        (unit @ unit.T)[places[0], places[1]]
        for unit in (F.normalize(student, dim=1), F.normalize(teacher, dim=1))
    ]
    return float(torch.corrcoef(torch.stack(cosines))[0, 1])
