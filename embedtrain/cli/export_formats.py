"""What `export` adds to a model folder for other runtimes: which flags go together, and what each wrote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from embedtrain.errors import UserError

if TYPE_CHECKING:
    from embedtrain.release.onnx import Int8
    from embedtrain.release.onnx_graph import Form

Gguf = Literal["f32", "f16", "q8_0"]


@dataclass(frozen=True)
class Formats:
    """The flags of `export` that add files."""

    onnx: bool = False
    transformers_js: bool = False
    openvino: bool = False
    model2vec: bool = False
    gguf: Gguf | None = None
    int8: bool = False
    dynamic: bool = False
    fp16: bool = False
    calibrate: Path | None = None

    def check(self) -> Sequence[str]:
        """Check that the flags go together, and return the texts of --calibrate.

        Raises:
            UserError: If they do not, an extra is missing, or there are too few texts.
        """
        graphs = self.onnx or self.transformers_js
        self._check_numbers(graphs=graphs)
        if graphs:
            from embedtrain.release.onnx_graph import check_packages

            check_packages()
        if self.openvino:
            from embedtrain.release.openvino_graph import check_openvino

            check_openvino(int8=self.int8)
        if self.calibrate is None:
            return ()
        from embedtrain.release.calibration import choose_texts
        from embedtrain.workflows.encode.file import read_texts

        texts = list(read_texts(self.calibrate, None))
        choose_texts(texts)
        return texts

    def _check_numbers(self, *, graphs: bool) -> None:
        if self.fp16 and not graphs:
            raise UserError("--fp16", "is for graphs", cure="Add --onnx or --transformers-js")
        if self.int8 and not (graphs or self.openvino):
            raise UserError(
                "--int8", "is for graphs", cure="Add --onnx, --transformers-js or --openvino"
            )
        if self.dynamic and not (self.int8 and graphs and not self.openvino):
            raise UserError(
                "--dynamic", "is for the int8 of --onnx and --transformers-js",
                cure="Add --int8, and leave --openvino out",
            )  # fmt: skip
        static = self.int8 and not self.dynamic
        if static and self.calibrate is None:
            raise UserError(
                "--int8", "needs texts that set its ranges",
                cure="Add --calibrate FILE with several hundred of those that you will encode",
            )  # fmt: skip
        if self.calibrate is not None and not static:
            raise UserError("--calibrate", "is for --int8", cure="Add --int8")

    def add(self, folder: Path, texts: Sequence[str], say: Callable[[str], None]) -> None:
        """Write the files into a model folder and say what became of each."""
        from embedtrain.models.cross_encoder.resolving import is_cross_encoder

        same = "same scores" if is_cross_encoder(folder) else "same vectors"
        say(f"{folder}: reloaded, {same}")
        if self.onnx or self.transformers_js:
            self._add_graphs(folder, same, texts, say)
        if self.openvino:
            from embedtrain.release.openvino_graph import export_openvino

            path = export_openvino(folder, int8=self.int8, texts=texts, say=say)
            say(f"{path}: {same} through OpenVINO")
        if self.gguf is not None:
            from embedtrain.release.llama_cpp.export import export_gguf

            say(f"{export_gguf(folder, self.gguf)}: reads back the same; for llama.cpp")
        if self.model2vec:
            from embedtrain.release.model2vec import export_model2vec

            say(f"{export_model2vec(folder)}: reads back the same; for model2vec")

    def _add_graphs(
        self, folder: Path, same: str, texts: Sequence[str], say: Callable[[str], None]
    ) -> None:
        from embedtrain.release.onnx import Graphs, export_onnx

        wanted: dict[Form, bool] = {"finished": self.onnx, "states": self.transformers_js}
        forms = tuple(form for form, asked in wanted.items() if asked)
        int8: Int8 | None = ("dynamic" if self.dynamic else "static") if self.int8 else None
        graphs = Graphs(forms, int8, self.fp16, texts)
        say(f"{export_onnx(folder, graphs, say)}: {same} through onnxruntime")
