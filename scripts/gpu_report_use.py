"""Stages ``encode``, ``search`` and ``scale``: a model at work, and training on several devices."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from gpu_report_models import SHAPES, TINY, WORDS, build_model, build_tokenizer
from gpu_report_setting import Missing, Row, Setting, attempt, measure

RESULTS = 100
OF_THE_COMMAND = ("faiss", "filelock", "matplotlib", "pyarrow", "rich", "scipy", "typer")
"""What `embedtrain train` imports beyond what the other stages do; not carried to a bare machine."""


def encode_rows(setting: Setting) -> Iterator[Row]:
    """Yield texts and tokens a second from text to vectors on the host, tokenizer included."""
    for shape in ("MiniLM", "BERT-base", "ModernBERT-base"):
        for precision in ("bf16", "fp32"):
            row = {"shape": shape, "type": precision}
            yield attempt(row, partial(_encode_cell, setting, shape, precision))


def _encode_cell(setting: Setting, shape: str, precision: str) -> Row:
    (count,) = setting.pick((20_000,), (20,))
    (longest,) = setting.pick((128,), (12,))
    model = build_model(setting, shape, longest)
    from embedtrain.encoding.texts import encode_texts

    generator = torch.Generator().manual_seed(0)
    texts = [
        " ".join(f"w{word}" for word in torch.randint(WORDS, (length,), generator=generator))
        for length in torch.randint(longest // 8, longest - 1, (count,), generator=generator)
    ]
    tokens = sum(len(text.split()) + 2 for text in texts)
    found = measure(
        setting, lambda: encode_texts(model, texts, "document", precision=precision), repeats=2
    )
    seconds = found["ms"] / 1000
    tokenizing = measure(setting, lambda: model.tokenization.encode(texts, "document"), repeats=1)
    return found | {
        "texts_per_second": round(count / seconds),
        "tokens_per_second": round(tokens / seconds),
        "tokenizer_share": round(tokenizing["ms"] / found["ms"], 3),
    }


def search_rows(setting: Setting) -> Iterator[Row]:
    """Yield the time of an exact search, and whether its results are those of the CPU."""
    for dim in setting.pick((384, 768, 1024), (16,)):
        yield attempt({"D": dim}, partial(_search_cell, setting, dim))


def _search_cell(setting: Setting, dim: int) -> Row:
    from embedtrain.retrieval.dense.exact import search_exact

    (documents,) = setting.pick((1_000_000,), (2_000,))
    (queries,) = setting.pick((1_000,), (16,))
    torch.manual_seed(0)
    stored = F.normalize(torch.randn(documents, dim, device=setting.device), dim=1)
    asked = F.normalize(torch.randn(queries, dim, device=setting.device), dim=1)
    find = partial(search_exact, asked, stored, RESULTS, device=setting.device)
    found = measure(setting, find)
    few = 4
    exact = search_exact(asked[:few].cpu(), stored.cpu(), RESULTS)
    same = float((find().indices[:few] == exact.indices).mean())
    return found | {"documents": documents, "queries": queries, "same_as_cpu": round(same, 4)}


def scale_rows(setting: Setting) -> Iterator[Row]:
    """Yield the speed of one, two and all devices on the same global batch."""
    count = torch.cuda.device_count() if setting.device.type == "cuda" else 0
    if count < 2:
        yield {"devices": count, "skipped": "needs two devices or more"}
        return
    for devices in sorted({1, 2, count}):
        yield attempt({"devices": devices}, partial(_scale_cell, setting, devices))


def _scale_cell(setting: Setting, devices: int) -> Row:
    """Train for some steps by the command line and read what it logged."""
    for needed in OF_THE_COMMAND:
        if find_spec(needed) is None:
            raise Missing(f"{needed}, which the command line needs, is not here")
    folder = setting.folder / f"scale-{devices}"
    shutil.rmtree(folder, ignore_errors=True)  # of a try that did not end
    folder.mkdir(parents=True)
    write_backbone(setting, folder / "model")
    rows = [
        {"query": f"w{at % WORDS} w{at // WORDS}", "positive": f"w{at // WORDS} " * 60}
        for at in range(4096)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "pairs.jsonl").write_text(lines, encoding="utf-8")
    (folder / "recipe.yaml").write_text(
        "description: scale\n"
        f"data: {{sources: [{{path: {folder}/pairs.jsonl}}], cache: {folder}/cache}}\n"
        f"model: {{kind: dense, backbone: {folder}/model}}\n"
        f"trainer: {{steps: 60, batch_size: 1024, precision: bf16, log_every: 10, devices: {devices}}}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "embedtrain", "train", str(folder / "recipe.yaml")]
    done = subprocess.run(
        [*command, "--output", str(folder / "run")],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return read_speed(folder / "run" / "speed.csv")


def read_speed(path: Path) -> Row:
    """Return the medians of a run's speed.csv."""
    header, *lines = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines())
    columns = dict(zip(header, zip(*lines, strict=True), strict=True))
    return {
        name.removeprefix("speed/"): round(median(map(float, values)), 3)
        for name, values in columns.items()
        if name != "step" and all(values)
    }


def write_backbone(setting: Setting, folder: Path) -> None:
    """Write a model of MiniLM's sizes with random weights, and its tokenizer."""
    from transformers import BertConfig, BertModel

    sizes = SHAPES["MiniLM"][1] if not setting.tiny else {}
    few = {key: TINY[key] for key in ("vocab_size", "pad_token_id")}
    BertModel(BertConfig(**sizes | few)).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
