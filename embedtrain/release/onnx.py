"""Workflow: a model folder gets graphs for onnxruntime, checked against torch before they stay."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder, write_file
from embedtrain.locks import owns
from embedtrain.models.build import load_model
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.release.calibration import choose_texts, feeds
from embedtrain.release.cards.graphs import card_with_graph
from embedtrain.release.export import PROBES, card_of, difference, largest_difference
from embedtrain.release.fidelity import by_text, measure
from embedtrain.release.graph_runs import GraphEncoder, GraphScorer, OnnxRuntime, Runtime
from embedtrain.release.onnx_graph import (
    Form,
    check_packages,
    graph_file,
    input_names,
    model_graph,
    save_onnx,
    traceable,
)
from embedtrain.release.onnx_int8 import smoothed, write_dynamic, write_float16, write_static
from embedtrain.release.pair_scores import values_of
from embedtrain.types import Side

Int8 = Literal["static", "dynamic"]
MAX_DIFFERENCE = 1e-4
MIN_COSINE = 0.9999
MOST_INT8 = 0.05
"""Cosine distance on average: beyond it ranges are wrong rather than coarse."""
MOST_FLOAT16 = 1e-3
MEASURED = 96
"""Texts that are compared, besides the odd ones."""


@dataclass(frozen=True)
class Graphs:
    """Which graphs are wanted."""

    forms: tuple[Form, ...] = ("finished",)
    int8: Int8 | None = None
    float16: bool = False
    texts: Sequence[str] = ()
    """Of the user, to set the ranges of int8 and to measure what is lost."""


@owns("folder")
def export_onnx(
    folder: Path, graphs: Graphs | None = None, say: Callable[[str], None] = lambda _: None
) -> Path:
    """Write graphs into a model folder, and into its card how to run one: ids and mask in, vectors or scores out.

    Args:
        folder: Of the model.
        graphs: Which; one with finished vectors if left out.
        say: Told what smaller numbers cost.

    Returns:
        The first one.

    Raises:
        UserError: If the extra is missing, the model has no graph, onnxruntime gives other numbers, or int8 has too
            few texts or pairs to score.
    """
    graphs = graphs or Graphs()
    check_packages()
    model = load_model(str(folder))
    if isinstance(model, SparseEncoder):
        raise UserError(folder, "is a sparse model, which has no graph", cure="Leave --onnx out")
    if isinstance(model, CrossEncoderModel) and (graphs.int8 or graphs.float16):
        raise UserError(
            folder, "is a cross-encoder, whose graph is in float32 only", cure="Leave --int8 and --fp16 out"
        )  # fmt: skip
    texts = choose_texts(graphs.texts) if graphs.int8 == "static" else list(graphs.texts)
    model.to("cpu")
    paths = {graph_file(model, form): form for form in graphs.forms}
    smaller: dict[str, str] = {}
    with appearing_folder(folder / "onnx") as building:
        for file, form in paths.items():
            path = building / Path(file).name
            save_onnx(model, path, form)
            check_onnx(model, path)
            if isinstance(model, TextEncoder):
                smaller |= _write_smaller(model, path, form, graphs, texts)
    for name, cost in smaller.items():
        say(f"{folder / 'onnx' / name}: {cost}")
    card, first = card_of(folder), next(iter(paths))
    if card is not None:
        states = "states" in graphs.forms
        card = card_with_graph(card, model, first, states=states, smaller=tuple(smaller))
        write_file(folder / "README.md", card)
    return folder / first


def _write_smaller(
    model: TextEncoder, path: Path, form: Form, graphs: Graphs, texts: Sequence[str]
) -> dict[str, str]:
    """Write the graph in smaller numbers beside it; return by name what was lost."""
    written = []
    if graphs.float16:
        halved = path.with_name(f"{path.stem}_fp16.onnx")
        write_float16(path, halved)
        written.append((halved, MOST_FLOAT16))
    if graphs.int8 is not None:
        # Readers of ``states`` know it by this name.
        name = "model_quantized.onnx" if form == "states" else f"{path.stem}_int8.onnx"
        if graphs.int8 == "dynamic":
            write_dynamic(path, path.with_name(name))
        else:
            _write_static(model, path.with_name(name), form, texts)
        written.append((path.with_name(name), MOST_INT8))
    probes = probes_of(texts)
    return {
        one.name: check_smaller(model, OnnxRuntime(one), probes, most, one.name)
        for one, most in written
    }


def probes_of(texts: Sequence[str]) -> list[str]:
    """Return what smaller numbers are measured by: some of the texts, and our own."""
    return [*texts[:: max(1, len(texts) // MEASURED)], *PROBES, *texts[-4:]]


def _write_static(model: TextEncoder, path: Path, form: Form, texts: Sequence[str]) -> None:
    graph, _ = model_graph(model, form)
    given = list(feeds(model, texts))
    source = path.with_suffix(".smoothed")
    with traceable(model, graph), smoothed(model.backbone, graph, given):
        save_onnx(model, source, form)
    names = input_names(model, form)
    write_static(source, path, [{name: feed[name] for name in names} for feed in given])
    source.unlink()


def check_smaller(
    model: TextEncoder, runtime: Runtime, texts: Sequence[str], most: float, name: str
) -> str:
    """Say what smaller numbers cost.

    Raises:
        UserError: If vectors are not those of the model any more.
    """
    found = measure(model, GraphEncoder(model, runtime), texts)
    if not found.mean <= most:
        raise UserError(
            name, "gives vectors of another model", got=f"a mean cosine distance of {found.mean:.2g}",
            cure="Leave --int8 and --fp16 out, or calibrate on texts of your own",
        )  # fmt: skip
    return str(found)


def check_onnx(model: TextModel, path: Path) -> float:
    """Compare a graph in onnxruntime with its model; see :func:`check_graph`."""
    return check_graph(model, OnnxRuntime(path), path)


def check_graph(model: TextModel, runtime: Runtime, path: Path) -> float:
    """Compare a graph with its model on texts of very different lengths, together and one by one.

    Returns:
        The largest difference of a coordinate or score, relative to the largest one where that exceeds 1.

    Raises:
        UserError: If it is more than rounding.
    """
    if isinstance(model, CrossEncoderModel):
        return _check_scores(model, runtime, path)
    assert isinstance(model, TextEncoder)
    graph, largest = GraphEncoder(model, runtime), 0.0
    sides: tuple[Side, ...] = ("query", "document")
    for side in sides:
        ours = by_text(encode_texts(model, PROBES, side, precision="fp32"))
        alone = [graph([text], side)[0] for text in PROBES]
        for theirs in (graph(PROBES, side), alone):
            for one, other in zip(ours, theirs, strict=True):
                if found := difference(one, other, MAX_DIFFERENCE, MIN_COSINE):
                    raise UserError(
                        path,
                        f"gives other {side} vectors than torch",
                        got=found,
                        cure="Please report this",
                    )
                largest = max(largest, largest_difference(one, other))
    return largest


def _check_scores(model: CrossEncoderModel, runtime: Runtime, path: Path) -> float:
    graph, pairs = GraphScorer(model, runtime), [(one, other) for one in PROBES for other in PROBES]
    ours = values_of(model, pairs)
    alone = np.concatenate([graph([pair]) for pair in pairs])
    largest = max(largest_difference(ours, theirs) for theirs in (graph(pairs), alone))
    if not largest <= MAX_DIFFERENCE:  # NaN is not
        raise UserError(
            path, "gives other scores than torch", got=largest, cure="Please report this"
        )
    return largest
