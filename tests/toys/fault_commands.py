"""The commands of the matrix of faults: what each reads and writes. One entry a command makes it longer than 300 lines."""

import re
from dataclasses import dataclass

from embedtrain.errors import REFUSED

MODEL = ("model/*.json", "model/*.safetensors", "model/*/config.json")
BACKBONE = ("bert/*.json", "bert/*.safetensors")
BEIR = ("beir/corpus.jsonl", "beir/queries.jsonl", "beir/qrels/test.tsv")
SPARSE = ("sparse/*.json", "sparse/*.safetensors", "sparse/*/config.json")


@dataclass(frozen=True)
class Command:
    """A command of the matrix.

    Args:
        name: What the table calls it.
        words: The command line, below the world's folder.
        reads: Patterns of the files that it reads.
        writes: The file or folder that it writes; empty if none.
        keeps: A failed or killed one leaves its work, and the same command goes on with it.
        slow: Like another command in what it reads and writes, so only ``make prove`` tries it.
        ends: Exit codes with which it has done its work.
    """

    name: str
    words: str
    reads: tuple[str, ...]
    writes: str = ""
    keeps: bool = False
    slow: bool = False
    ends: tuple[int, ...] = (0,)

    def line(self, output: str = "") -> list[str]:
        """Return the command line, with another output if one is named."""
        if not output:
            return self.words.split()
        # Of an address too: ``jsonl://./out``.
        own = re.compile(rf"(?<![^/]){re.escape(self.writes)}(?![^/])")
        return [own.sub(lambda _: output, word) for word in self.words.split()]


COMMANDS = [
    Command(
        "train",
        "train recipe.yaml --output out",
        ("recipe.yaml", "pairs.jsonl", *BACKBONE, "beir/qrels/dev.tsv"),
        "out",
        keeps=True,
    ),
    Command("resume", "train --resume run", ("run/*.*", "run/checkpoints/*"), keeps=True),
    Command(
        "pretrain",
        "train pretrain.yaml --output out",
        ("pretrain.yaml", "texts.jsonl", *BACKBONE),
        "out",
        keeps=True,
    ),
    Command(
        "train reranker",
        "train rerank.yaml --output out",
        ("rerank.yaml", "mined.jsonl", *BACKBONE),
        "out",
        keeps=True,
    ),
    Command(
        "fit",
        "fit --pairs many.jsonl --model bert --budget 10m --output out",
        ("many.jsonl", *BACKBONE),
        "out",
        keeps=True,
        slow=True,
        ends=(0, REFUSED),  # a toy need not beat its start
    ),
    Command(
        "tune",
        "tune tune.yaml --budget 4s --output out",
        ("tune.yaml", "pairs.jsonl", *BACKBONE, "beir/qrels/dev.tsv"),
        "out",
        keeps=True,
        slow=True,
    ),
    Command("check", "check recipe.yaml", ("recipe.yaml", "pairs.jsonl", "bert/config.json")),
    Command("init", "init pairs.jsonl --output out.yaml", ("pairs.jsonl",), "out.yaml"),
    Command(
        "synth",
        "synth notes --output out base=bert chunks.length=40 round_trip.reader=fused",
        ("notes/*.*", *BACKBONE),
        "out",
        keeps=True,
    ),
    Command(
        "mine",
        "mine model --data beir --split test --output out num_negatives=2 depth=10",
        (*MODEL, *BEIR),
        "out",
        keeps=True,
    ),
    Command(
        "judge",
        "judge kept --judge cross --labels beir/qrels/test.tsv --output out num_random=20",
        (
            "kept/train.jsonl",
            "kept/rejected.jsonl",
            "kept/manifest.json",
            "cross/*.json",
            "cross/*.safetensors",
            "beir/qrels/test.tsv",
        ),
        "out",
        keeps=True,
    ),
    Command(
        "score",
        "score model --data pairs.jsonl --output out.jsonl",
        (*MODEL, "pairs.jsonl"),
        "out.jsonl",
        keeps=True,
    ),
    Command(
        "score language",
        "score language --as likelihood --data mined.jsonl --output out.jsonl",
        ("language/*.json", "language/*.safetensors", "language/*.jinja", "mined.jsonl"),
        "out.jsonl",
        keeps=True,
    ),
    Command("search", "search model red --data beir", (*MODEL, "beir/corpus.jsonl")),
    Command("search late", "search late red --data texts.jsonl", ("late/*.*", "late/*/*.*")),
    Command(
        "encode", "encode model texts.jsonl --output out.npy", (*MODEL, "texts.jsonl"), "out.npy"
    ),
    Command("encode parquet", "encode model t.parquet --output out.npy", ("t.parquet",), "out.npy"),
    Command("encode gz", "encode model t.jsonl.gz --output out.npy", ("t.jsonl.gz",), "out.npy"),
    Command(
        "encode shards",
        "encode model texts.txt --output out --rows-per-shard 64",
        (*MODEL, "texts.txt"),
        "out",
        keeps=True,
    ),
    Command(
        "evaluate",
        "evaluate model --data beir --output out.json --no-efficiency",
        (*MODEL, *BEIR),
        "out.json",
    ),
    Command(
        "evaluate rerank",
        "evaluate bm25 --rerank cross --top 3 --data beir --output out.json --no-efficiency",
        ("cross/*.json", "cross/*.safetensors", *BEIR),
        "out.json",
    ),
    Command(
        "compare",
        "compare base.json mine.json --output out.json",
        ("base.json", "mine.json"),
        "out.json",
    ),
    Command("pareto", "pareto base.json mine.json --plot out.svg", ("mine.json",), "out.svg"),
    Command(
        "report run",
        "report run --output out.html",
        ("run/*.*", "run/metrics.csv"),
        "out.html",
    ),
    Command(
        "report",
        "report mine.json --baseline base.json --data beir --output out.html",
        ("mine.json", *BEIR),
        "out.html",
    ),
    Command("export", "export run --output out", ("run/*.*", "run/model/*.*"), "out"),
    Command(
        "merge",
        "merge model bert2 --output out --weight 0.5 --weight 0.5",
        (*MODEL, "bert2/*.json", "bert2/*.safetensors"),
        "out",
    ),
    Command(
        "select",
        "select run --output out",
        ("run/*.*", "run/model/*.*", "run/checkpoints/*.ckpt", *BEIR),
        "out",
    ),
    Command("rotate", "rotate model pairs.jsonl --output out", (*MODEL, "pairs.jsonl"), "out"),
    Command(
        "prune-vocabulary",
        "prune-vocabulary model texts.txt --output out",
        (*MODEL, "texts.txt"),
        "out",
    ),
    Command(
        "prune-layers",
        "prune-layers model texts.txt --keep 1 --columns 16 --output out",
        (*MODEL, "texts.txt"),
        "out",
        slow=True,
    ),
    Command(
        "encode bits",
        "encode model texts.txt --output out.npy --quantize binary",
        (*MODEL, "texts.txt"),
        "out.npy",
        slow=True,
    ),
    Command(
        "calibrate", "calibrate model pairs.jsonl --output out", (*MODEL, "pairs.jsonl"), "out"
    ),
    Command("probe", "probe model perturbations --data beir --output out.json", BEIR, "out.json"),
    Command(
        "adapt",
        "adapt --queries q.npy --documents d.npy --pairs pairs.tsv --output out steps=5",
        ("q.npy", "d.npy", "pairs.tsv"),
        "out",
    ),
    Command(
        "static",
        "static bert texts.txt --output out dim=8 steps=5",
        (*BACKBONE, "texts.txt"),
        "out",
    ),
    Command(
        "tokenizer",
        "tokenizer texts.jsonl --vocabulary-size 300 --output out",
        ("texts.jsonl",),
        "out",
    ),
    Command(
        "train sparse",
        "train sparse.yaml --output out",
        ("sparse.yaml", "masked/*.json", "masked/*.safetensors"),
        "out",
        keeps=True,
    ),
    Command(
        "encode sparse",
        "encode sparse texts.jsonl --output out.npz",
        (*SPARSE, "texts.jsonl"),
        "out.npz",
        slow=True,
    ),
    Command("search sparse", "search sparse red --data beir --index two_step", SPARSE, slow=True),
    Command(
        "evaluate sparse",
        "evaluate sparse --data beir --index seismic --output out.json --no-efficiency",
        (*SPARSE, *BEIR),
        "out.json",
        slow=True,
    ),
    Command(
        "evaluate fused",
        "evaluate model --data beir --with bm25 --fuse tuned --save-runs out --no-efficiency",
        (*MODEL, *BEIR),
        "out",
        keeps=True,
        slow=True,
    ),
    Command(
        "evaluate forms",
        "evaluate model --data beir --forms fuse --output out.json --no-efficiency",
        ("beir/query_forms.jsonl",),
        "out.json",
    ),
    Command(
        "search fused",
        "search model red --data beir --with bm25 --with late",
        ("late/*.json", "beir/corpus.jsonl"),
        slow=True,
    ),
    Command("load", "load model beir --into jsonl://./out", (*MODEL, *BEIR[:2]), "out", keeps=True),
    Command(
        "load lancedb",
        "load model texts.jsonl --into lancedb://./out",
        (),
        "out",
        keeps=True,
        slow=True,
    ),
    Command(
        "load qdrant",
        "load model texts.jsonl --into qdrant://./out/docs --with sparse",
        (),
        "out",
        keeps=True,
        slow=True,
    ),
    Command("search files", "search model red --index jsonl://./files", ("files/*",)),
    Command(
        "search lancedb",
        "search model red --index lancedb://./lance/docs",
        ("lance/**/*",),
        slow=True,
    ),
    Command(
        "search qdrant",
        "search model red --index qdrant://./qdrant/docs",
        ("qdrant/**/*",),
        slow=True,
    ),
    Command(
        "serve",
        "serve model --with cross --data texts.jsonl --token-file token.txt --port 0 --check",
        (*MODEL, "cross/*.json", "cross/*.safetensors", "texts.jsonl", "token.txt"),
    ),
    Command(
        "verify",
        "verify model --with sentence-transformers --data texts.jsonl --num-texts 8",
        (*MODEL, "texts.jsonl"),
        ends=(0, 1),  # a spoilt folder may give another program other vectors: that is its finding
        slow=True,
    ),
    Command("export graph", "export model --onnx --output out", MODEL, "out", slow=True),
    Command(
        "export layer",
        "export cross --layer 1 --output out",
        ("cross/*.json", "cross/*.safetensors"),
        "out",
        slow=True,
    ),
    Command(
        "export sparse",
        "export masked --sparse --output out",
        ("masked/*.json", "masked/*.safetensors"),
        "out",
        slow=True,
    ),
]
