"""Embed texts with a reader: ``PYTHON reader.py '{"reader": "onnxruntime", "folder": ...}'``.

Answers a line of JSON on standard input with one on standard output, until there are no more. Runs in the reader's Python,
with what users of that reader would write.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

VECTORS = 2
"""Axes of finished vectors; token states have three."""


class SentenceTransformers:
    """Reads the folder; puts prompts before texts itself."""

    def __init__(self, folder: str, **_: object) -> None:
        import sentence_transformers

        self.model: Any = sentence_transformers.SentenceTransformer(folder, device="cpu")
        self.version = sentence_transformers.__version__

    def encode(self, texts: list[str], mode: str) -> Any:  # noqa: ANN401 - an array or arrays
        """Return vectors, computed in one batch."""
        ways = {"query": "encode_query", "document": "encode_document", "plain": "encode"}
        encode = getattr(self.model, ways[mode])
        return encode(texts, batch_size=len(texts), show_progress_bar=False)

    def ids(self, texts: list[str], mode: str) -> list[list[int]]:
        """Return token ids."""
        prompt = (self.model.prompts or {}).get(mode) or ""
        found = self.model.tokenizer(
            [prompt + text for text in texts], truncation=True, max_length=self.model.max_seq_length
        )
        ids: list[list[int]] = found["input_ids"]
        return ids


class _Graph:
    """Runs a graph from ids and mask to finished vectors, texts padded on the right."""

    def __init__(self, folder: str, windows: dict[str, int], pad: int) -> None:
        from tokenizers import Tokenizer

        self.tokenizer: Any = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.windows, self.pad = windows, pad
        self.version = ""

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return the graph's vectors."""
        raise NotImplementedError

    def encode(self, texts: list[str], mode: str) -> np.ndarray:
        """Return vectors, computed in one batch."""
        ids = self.ids(texts, mode)
        padded = np.full((len(ids), max(map(len, ids))), self.pad, np.int64)
        mask = np.zeros_like(padded)
        for row, one in enumerate(ids):
            padded[row, : len(one)], mask[row, : len(one)] = one, 1
        types = np.zeros_like(padded)
        return self.run({"input_ids": padded, "attention_mask": mask, "token_type_ids": types})

    def ids(self, texts: list[str], mode: str) -> list[list[int]]:
        """Return token ids."""
        self.tokenizer.enable_truncation(self.windows[mode])
        return [one.ids for one in self.tokenizer.encode_batch(texts)]


class Onnxruntime(_Graph):
    """Runs ``onnx/embedding.onnx``."""

    def __init__(self, folder: str, file: str, windows: dict[str, int], pad: int) -> None:
        import onnxruntime

        super().__init__(folder, windows, pad)
        self.session: Any = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self.wanted = [one.name for one in self.session.get_inputs()]
        outputs = self.session.get_outputs()
        self.output = next(one.name for one in outputs if len(one.shape) == VECTORS)
        self.version = onnxruntime.__version__

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return the graph's vectors."""
        given = {name: inputs[name] for name in self.wanted}
        found: np.ndarray = self.session.run([self.output], given)[0]
        return found


class OpenVino(_Graph):
    """Runs a graph of OpenVINO, or one in ONNX."""

    def __init__(
        self, folder: str, file: str, windows: dict[str, int], pad: int, hint: str | None = None
    ) -> None:
        import openvino

        super().__init__(folder, windows, pad)
        settings = {} if hint is None else {"INFERENCE_PRECISION_HINT": hint}
        self.model: Any = openvino.Core().compile_model(file, "CPU", settings)
        self.wanted = [one.get_any_name() for one in self.model.inputs]
        ranks = [one.get_partial_shape().rank.get_length() for one in self.model.outputs]
        self.output = self.model.outputs[ranks.index(VECTORS)]
        self.version = openvino.__version__.partition("-")[0]

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return the graph's vectors."""
        found: np.ndarray = self.model({name: inputs[name] for name in self.wanted})[self.output]
        return found


class LlamaCppPython:
    """Runs a GGUF file through llama-cpp-python, which cuts texts at the window and loses their last token."""

    def __init__(self, file: str, window: int, normalize: bool) -> None:
        import llama_cpp

        sizes = {"n_ctx": window, "n_batch": window, "n_ubatch": window}
        self.model: Any = llama_cpp.Llama(file, embedding=True, verbose=False, **sizes)
        self.normalize, self.window = normalize, window
        self.version = f"llama-cpp-python {llama_cpp.__version__}"

    def encode(self, texts: list[str], mode: str) -> Any:  # noqa: ANN401 - lists of numbers
        """Return vectors; llama.cpp makes batches itself."""
        del mode
        return self.model.embed(texts, normalize=self.normalize, truncate=True)

    def ids(self, texts: list[str], mode: str) -> list[list[int]]:
        """Return token ids, as ``embed`` makes and cuts them."""
        del mode
        return [self.model.tokenize(text.encode())[: self.window] for text in texts]


class LlamaServer:
    """Runs a GGUF file through llama.cpp's server, which refuses texts beyond the window.

    The program of that name, or the same inside xllamacpp where there is no program.
    """

    def __init__(self, file: str, window: int, normalize: bool, program: str) -> None:
        self.normalize = normalize
        if program:
            self.version = Path(program).name
            self.address = self._started(program, file, window)
            return
        import xllamacpp

        settings: Any = xllamacpp.CommonParams()
        settings.model.path, settings.embedding, settings.port = file, True, 0
        settings.n_ctx = settings.n_batch = settings.n_ubatch = window
        settings.n_parallel, settings.warmup, settings.ui = 1, False, False
        self.server: Any = xllamacpp.Server(settings)
        self.address, self.version = (
            self.server.listening_address,
            f"xllamacpp {xllamacpp.__version__}",
        )

    def encode(self, texts: list[str], mode: str) -> list[list[float]]:
        """Return vectors; llama.cpp makes batches itself."""
        del mode
        length = 2 if self.normalize else -1
        asked: dict[str, object] = {"input": texts, "embd_normalize": length}
        return [row["embedding"] for row in self._post("/v1/embeddings", asked)["data"]]

    def ids(self, texts: list[str], mode: str) -> list[list[int]]:
        """Return token ids, none cut off."""
        del mode
        asked = ({"content": text, "add_special": True} for text in texts)
        return [self._post("/tokenize", one)["tokens"] for one in asked]

    def _started(self, program: str, file: str, window: int) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        sizes = [
            word for name in ("ctx", "batch", "ubatch") for word in (f"--{name}-size", str(window))
        ]
        command = [
            program,
            "--model",
            file,
            "--embeddings",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            *sizes,
        ]
        self.process = subprocess.Popen([*command, "--parallel", "1"], stdin=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{port}"
        while self.process.poll() is None:
            with suppress(OSError), _open(f"{address}/health"):
                return address
            time.sleep(0.1)
        sys.exit(f"{program} ended with code {self.process.returncode}")

    def _post(self, route: str, asked: dict[str, object]) -> Any:  # noqa: ANN401 - JSON
        headers = {"Content-Type": "application/json"}
        body = json.dumps(asked).encode()
        with _open(urllib.request.Request(self.address + route, body, headers)) as answer:
            return json.load(answer)


def _open(asked: "str | urllib.request.Request") -> Any:  # noqa: ANN401 - a response
    """Ask a server of this machine, past any proxy that the environment names."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked)


def llama_cpp(
    file: str, window: int, normalize: bool, program: str
) -> LlamaCppPython | LlamaServer:
    """Return llama.cpp as this Python has it; by the program llama-server if its path is given."""
    if not program and find_spec("llama_cpp"):
        return LlamaCppPython(file, window, normalize)
    return LlamaServer(file, window, normalize, program)


class FastEmbed:
    """Runs a graph with finished vectors through fastembed, which cuts texts where ``tokenizer_config.json`` says."""

    def __init__(self, folder: str, file: str, dim: int) -> None:
        import fastembed
        from fastembed.common.model_description import ModelSource, PoolingType

        name = "local/model"
        fastembed.TextEmbedding.add_custom_model(
            model=name, pooling=PoolingType.DISABLED, normalization=False, sources=ModelSource(hf=name), dim=dim,
            model_file=file, output_name="sentence_embedding",
        )  # fmt: skip
        self.model: Any = fastembed.TextEmbedding(name, specific_model_path=folder)
        self.version = fastembed.__version__

    def encode(self, texts: list[str], mode: str) -> np.ndarray:
        """Return vectors, computed in one batch."""
        del mode
        return np.stack(list(self.model.embed(texts, batch_size=len(texts))))

    def ids(self, texts: list[str], mode: str) -> list[list[int]]:
        """Return token ids."""
        del mode
        return [self.model.model.tokenizer.encode(text).ids for text in texts]


READERS: dict[str, Any] = {
    "sentence-transformers": SentenceTransformers,
    "onnxruntime": Onnxruntime,
    "openvino": OpenVino,
    "llama.cpp": llama_cpp,
    "fastembed": FastEmbed,
}


def main() -> None:
    """Open the reader that the first argument describes, then answer."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print
    wanted = json.loads(sys.argv[1])
    reader = READERS[wanted.pop("reader")](**wanted)
    _say(answers, {"version": reader.version})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            _say(answers, _answer(reader, **asked))
        except Exception as error:  # whatever a reader raises, it is its answer
            _say(answers, {"error": f"{type(error).__name__}: {error}"})


def _answer(reader: Any, do: str, texts: list[str], mode: str) -> dict[str, object]:  # noqa: ANN401
    if do == "ids":
        return {"ids": reader.ids(texts, mode)}
    vectors = np.asarray(reader.encode(texts, mode), "<f4")
    return {"shape": vectors.shape, "vectors": base64.b64encode(vectors.tobytes()).decode()}


def _say(answers: Any, content: dict[str, object]) -> None:  # noqa: ANN401 - a file
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
