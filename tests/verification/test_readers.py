"""Real readers where they are cheap; programs that die or hang are rows; engines give back what they got."""

import json
import sys
import time
from contextlib import closing, contextmanager, suppress
from functools import partial

import numpy as np
import pytest
from serve_toys import running

from embedtrain.errors import UserError
from embedtrain.verification import readers, stores
from embedtrain.verification.asked import AskedReader
from embedtrain.verification.process import ReaderFailed, program
from embedtrain.verification.programmed import ProgrammedReader
from embedtrain.verification.programs.reader import SentenceTransformers, llama_cpp
from embedtrain.verification.ranking import Scores
from embedtrain.verification.readers import FLOAT32, Opening, Wanted, openings_of, parse_readers

BEGIN = 'print(\'{"version": "1"}\', flush=True); '


def test_names_and_places_are_read():
    found = parse_readers(["sentence-transformers,serve", "openai=http://localhost:1/v1#m"])
    assert found == [
        Wanted("sentence-transformers"), Wanted("serve"), Wanted("openai", "http://localhost:1/v1#m")
    ]  # fmt: skip
    for words, line in (
        ("ollamma", "names no reader"),
        ("tei", "says not where tei is"),
        ("transformers.js", "says not where transformers.js is.*node_modules"),
        ("openai=python3", "needs an address"),
        ("serve=http://localhost", "needs the path of a Python"),
        ("transformers.js=http://localhost", "needs the folder whose node_modules"),
    ):
        with pytest.raises(UserError, match=line):
            parse_readers([words])


def test_a_folder_without_the_file_is_a_line(mean_model, mean_folder, tmp_path):
    for name, said in (
        ("llama.cpp", r"has not a GGUF file.*--gguf f16"),
        ("fastembed", r"has not a graph with states.*--transformers-js"),
        ("transformers.js", r"has not a graph with states.*--transformers-js"),
    ):
        with pytest.raises(UserError, match=said):
            openings_of(Wanted(name, sys.executable), tmp_path, mean_model.ours)


def test_each_reader_is_started_with_what_it_reads(mean_model, mean_folder, tmp_path, monkeypatch):
    """By a program of ours in the place of node and of the other Python, which answers with its command."""
    (tmp_path / "onnx").mkdir()
    for name in ("model.onnx", "model_quantized.onnx"):
        (tmp_path / "onnx" / name).touch()
    (tmp_path / "model-f16.gguf").touch()
    started = []
    monkeypatch.setattr(readers, "program", lambda name, command: started.append((name, command)))
    monkeypatch.setattr(readers, "which", lambda _: "/bin/llama-server")
    monkeypatch.setattr(readers, "find_spec", lambda _: None)
    for name, where in (("fastembed", "py"), ("transformers.js", "app"), ("llama.cpp", "")):
        for opening in openings_of(Wanted(name, where), tmp_path, mean_model.ours):
            with suppress(AttributeError, TypeError), opening.start():
                pass
    told = {name: (command[0], json.loads(command[-1])) for name, command in started}
    assert told["fastembed model.onnx"][0] == "py"
    assert told["fastembed model.onnx"][1]["file"] == "onnx/model.onnx"
    assert told["transformers.js model_quantized.onnx"][0] == "node"
    assert told["transformers.js model_quantized.onnx"][1]["dtype"] == "q8"
    assert told["llama.cpp model-f16.gguf"][0] == sys.executable
    assert told["llama.cpp model-f16.gguf"][1]["program"] == "/bin/llama-server"


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import sys; sys.exit('no such module')", "ended with code 1.*no such module"),
        ("print('Loading')", "said what is no answer"),
        (BEGIN + "input(); print('{\"vectors\": 1}')", "gave no vectors"),
        (BEGIN + "import os; input(); os.abort()", "ended with code -6"),
        (BEGIN + "import time; time.sleep(600)", "said nothing for 1 s"),
    ],
)
def test_a_program_that_dies_or_hangs_is_a_row(mean_model, code, line):
    @contextmanager
    def start():
        with program("bad", [sys.executable, "-c", code]) as one:
            yield ProgrammedReader("bad", one, FLOAT32, adds_prompts=False, text_seconds=1.0)

    begun = time.monotonic()
    row = mean_model.row(Opening("bad", start))
    assert row.verdict == "did not start"
    assert time.monotonic() - begun < 60
    with pytest.raises(ReaderFailed, match=line):
        raise ReaderFailed(row.failure, "")


def test_all_that_a_program_started_ends_with_it():
    import psutil

    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True); input()"
    with program("parent", [sys.executable, "-c", code]) as one:
        child = int(one.hear(60.0))
        assert psutil.pid_exists(child)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != "zombie":
        assert time.monotonic() < deadline
        time.sleep(0.05)


LLAMA_SERVER = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.say({})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            return self.say({"tokens": [len(asked["content"])]})
        self.say({"data": [{"embedding": [float(len(one)), float(asked["embd_normalize"])]} for one in asked["input"]]})
    def say(self, content):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

assert sys.argv[sys.argv.index("--ctx-size") + 1] == "16"
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_the_program_of_llama_cpp_is_started_and_asked(tmp_path):
    script = tmp_path / "llama-server"
    script.write_text(LLAMA_SERVER.replace("{python}", sys.executable))
    script.chmod(0o755)
    reader = llama_cpp("a.gguf", 16, False, str(script))
    try:
        assert reader.encode(["four", "at"], "plain") == [[4, -1], [2, -1]]
        assert reader.ids(["four"], "plain") == [[4]]
    finally:
        reader.process.kill()
        reader.process.wait()
    with pytest.raises(
        SystemExit, match="ended with code 1"
    ):  # another window than it was made for
        llama_cpp("a.gguf", 17, False, str(script))


def test_sentence_transformers_gives_our_vectors(mean_model, mean_folder):
    class Here:
        name, bound, adds_prompts = "sentence-transformers", FLOAT32, True
        modes = ("query", "document", "plain")
        reader = SentenceTransformers(mean_folder)

        def encode(self, texts, mode):
            return list(np.asarray(self.reader.encode(list(texts), mode)))

        def ids(self, texts, mode):
            return self.reader.ids(list(texts), mode)

        def memory(self):
            return 0

    @contextmanager
    def start():
        yield Here()

    row = mean_model.row(Opening("sentence-transformers", start))
    # It knows one window: queries are cut where documents are.
    assert row.verdict == "ok except", row.findings
    assert [one.cause for one in row.findings] == ["window: cuts at 24 tokens"]
    assert row.figures["largest"] < 1e-6


def test_a_server_of_ours_gives_our_vectors(mean_model, mean_folder):
    with running([mean_folder], page=False) as server:

        @contextmanager
        def start(**more):
            address = f"http://127.0.0.1:{server.port}"
            with closing(AskedReader("serve", f"{address}/v1", FLOAT32, **more)) as reader:
                yield reader

        row = mean_model.row(Opening("serve", partial(start, input_types=True)))
        assert row.figures["largest"] < 1e-6
        assert not [one for one in row.findings if not one.excused], row.findings
        row = mean_model.row(Opening("openai", start))
        # Nothing says that these are queries, so ours cuts them where documents are cut.
        assert {one.cause for one in row.findings} <= {"window: cuts at 24 tokens", "refuses texts"}
        assert row.verdict == "ok except"
    row = mean_model.row(Opening("serve", start))
    assert "does not answer" in row.failure


@pytest.mark.parametrize("engine", ["qdrant", "lancedb"])
def test_engines_find_what_exact_search_finds(mean_model, tmp_path, capsys, engine):
    scores = mean_model.scores
    path = tmp_path / "vectors.npz"
    np.savez(path, documents=scores.documents, queries=scores.queries, similarity="cosine")
    stores.main(f"{engine}://{tmp_path}/{engine}/verify", str(path))
    found = [[stores.Hit(*one) for one in hits] for hits in json.loads(capsys.readouterr().out)]
    row = stores._row(engine, scores, found)
    assert row.verdict == "ok", row.findings
    assert row.figures["overlap"] == 1.0


def test_what_an_engine_does_otherwise_is_named():
    generator = np.random.default_rng(0)
    queries, documents = (generator.normal(size=(n, 8)).astype(np.float32) for n in (5, 30))
    scores = Scores(queries, documents, "dot")

    def row_of(matrix, ids=lambda place: place):
        hits = [[stores.Hit(ids(int(n)), float(r[n])) for n in np.argsort(-r)[:10]] for r in matrix]
        return stores._row("engine", scores, hits)

    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (queries, documents)]
    assert row_of(scores.matrix).verdict == "ok"
    for row, cause in (
        (row_of(units[0] @ units[1].T), "metric: cosines"),
        (row_of(1 - scores.matrix), "metric: distances"),
        (row_of(-scores.matrix), "metric: inner products of the other sign"),
        (row_of(scores.matrix, ids=lambda place: (place + 1) % 30), "ids: the right scores"),
        (row_of(scores.matrix**3), "unknown"),
    ):
        assert row.verdict == "wrong"
        assert row.findings[0].cause.startswith(cause)
