"""Workflow: a model folder gets a graph for OpenVINO, in float16 files or in int8 with ranges from texts.

A graph gives the token states that readers ask for, and the finished vectors behind them (extra ``openvino``).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedtrain.errors import UserError, missing_extra
from embedtrain.files import appearing_folder, write_file
from embedtrain.locks import owns
from embedtrain.models.build import load_model
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.release.calibration import choose_texts, feeds
from embedtrain.release.cards.graphs import card_with_openvino
from embedtrain.release.export import card_of
from embedtrain.release.graph_runs import Feed, Runtime
from embedtrain.release.onnx import MOST_FLOAT16, MOST_INT8, check_graph, check_smaller, probes_of
from embedtrain.release.onnx_graph import save_onnx

FOLDER = "openvino"
FILE = "openvino_model.xml"
INT8_FILE = "openvino_model_qint8_quantized.xml"
"""As sentence-transformers calls it, which looks for both."""


class OpenvinoRuntime(Runtime):
    """A graph in OpenVINO, on the CPU.

    Args:
        path: The ``.xml`` file, its weights beside it.
        precision: In what products are computed; left out, in bfloat16 where the CPU has it.
        threads: As many as OpenVINO likes where it is 0.
    """

    def __init__(self, path: Path, precision: str | None = "f32", threads: int = 0) -> None:
        import openvino

        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = precision
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        core: Any = openvino.Core()
        self.compiled = core.compile_model(str(path), "CPU", settings)
        self.names = [one.any_name for one in self.compiled.inputs]

    def __call__(self, feed: Feed) -> list[NDArray[Any]]:
        """Return all outputs, in order."""
        found = self.compiled({name: feed[name] for name in self.names})
        return [np.array(found[number]) for number in range(len(self.compiled.outputs))]


def check_openvino(*, int8: bool) -> None:
    """Check that the extra is installed.

    Raises:
        UserError: If not.
    """
    for package in ("onnx", "onnxscript", "openvino", *["nncf"] * int8):
        if find_spec(package) is None:
            raise missing_extra(package, "openvino", "to write a graph for OpenVINO")


@owns("folder")
def export_openvino(
    folder: Path,
    *,
    int8: bool = False,
    texts: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write a graph into a model folder, and into its card how to run it.

    Args:
        folder: Of the model.
        int8: Write one in int8 too.
        texts: Of the user, to set the ranges of int8.
        say: Told what int8 costs.

    Returns:
        The graph with float weights, stored in float16.

    Raises:
        UserError: If the extra is missing, the model has no graph, OpenVINO gives other numbers, or int8 has too few
            texts or pairs to score.
    """
    check_openvino(int8=int8)
    import openvino

    model = load_model(str(folder))
    if isinstance(model, SparseEncoder) or (int8 and not isinstance(model, TextEncoder)):
        raise UserError(
            folder, "is a sparse model or cross-encoder, which has no such graph", cure="Leave --openvino --int8 out"
        )  # fmt: skip
    chosen = choose_texts(texts) if int8 else []
    model.to("cpu")
    with appearing_folder(folder / FOLDER) as building:
        source = building / "graph.onnx"
        save_onnx(model, source, "states" if isinstance(model, DenseEncoder) else "finished")
        check_graph(model, OpenvinoRuntime(source), folder / FOLDER / FILE)
        # Not by its converter, which reports its use to the vendor.
        graph: Any = openvino.Core().read_model(source)
        openvino.save_model(graph, building / FILE, compress_to_fp16=True)
        source.unlink()
        if isinstance(model, TextEncoder):
            stored = OpenvinoRuntime(building / FILE)
            check_smaller(model, stored, probes_of(chosen), MOST_FLOAT16, FILE)
        if int8:
            assert isinstance(model, TextEncoder)
            _save_int8(graph, list(feeds(model, chosen)), building / INT8_FILE)
            found = check_smaller(
                model,
                OpenvinoRuntime(building / INT8_FILE),
                probes_of(chosen),
                MOST_INT8,
                INT8_FILE,
            )
            say(f"{folder / FOLDER / INT8_FILE}: {found}")
    card = card_of(folder)
    if card is not None:
        write_file(folder / "README.md", card_with_openvino(card, model, f"{FOLDER}/{FILE}"))
    return folder / FOLDER / FILE


def _save_int8(graph: Any, given: Sequence[Feed], path: Path) -> None:  # noqa: ANN401 - openvino is untyped
    import openvino

    with _unreported():
        import nncf

        quantized = nncf.quantize(
            graph,
            nncf.Dataset(list(given), lambda feed: {name: feed[name] for name in _names(graph)}),
            model_type=nncf.ModelType.TRANSFORMER,  # without it all vectors become alike
            subset_size=len(given),
        )
    openvino.save_model(quantized, path, compress_to_fp16=True)


def _names(graph: Any) -> list[str]:  # noqa: ANN401 - openvino is untyped
    return [one.any_name for one in graph.inputs]


@contextmanager
def _unreported() -> Iterator[None]:
    """Keep nncf from reporting its use to the vendor, and its progress off the screen."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        import nncf

        nncf.set_log_level(40)
        yield
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
