"""An ordinary pipeline for a wish and a plan: which stages there are, and what each is told."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedtrain.workflows.asked import FEWEST
from embedtrain.workflows.fit.costs import LLM_SHARE, NEGATIVES
from embedtrain.workflows.fit.plan import Plan
from embedtrain.workflows.fit.wish import FitWish
from embedtrain.workflows.pipeline import Pipeline

Content = dict[str, Any]
TRAINER: Content = {"auto": True}
"""How both trials train."""
MAKERS = ["title", "heading", "question", "link", "first"]
TAUGHT: Content = {"name": "kl_distillation", "candidates": "batch"}
"""The reranker's word on a query's own documents; those of others are negatives."""
GUIDED: Content = {"name": "gist"}
"""What the start finds better than the positive may answer as well, and is no negative."""
RIVALS = "bm25"
"""Which documents are searched beside the answers where there is no time for all: those that are hard to tell from them."""
LOOKED_AT = 10
"""First ranks of which a reranker judges what mining kept out."""
SHARES = {"first": 1.0}
"""Rules that wrote what a model learned from (docs/measured.md); crops and key phrases repeat their text's words."""


def compose(wish: FitWish, plan: Plan) -> Pipeline:
    """Return the stages."""
    made = [(name, part(wish, plan)) for name, part in PARTS.items()]
    made[2:2] = guard_stages(wish, plan).items()
    stages = [{"name": name, **content} for name, content in made if content is not None]
    what = "a corpus" if wish.pairs is None else "pairs"
    return Pipeline.model_validate(
        {
            "description": f"From {what} to a retriever that is better than its start.",
            "stages": stages,
        }
    )


def _data(wish: FitWish, plan: Plan) -> Content:
    if wish.pairs is not None:
        return {
            "hold_out": {
                "path": wish.pairs,
                # People ask about the same documents again: what answers a held-out query may answer others in training.
                "by": "query",
                "dev": plan.held_out if plan.validates else 0.0,
                "test": plan.decides,
                "apart": wish.queries,
                **({"corpus": wish.corpus, "base": wish.model} if wish.corpus else {}),
            }
        }
    settings: Content = {"base": wish.model, "limit": plan.queries}
    if not plan.reads:
        settings["round_trip"] = {"reader": "bm25"}
    if wish.llm is None:
        settings |= {"makers": MAKERS, "shares": SHARES}
    stage: Content = {"corpus": wish.corpus, "settings": settings}
    if wish.llm is not None:
        stage["llm"] = wish.llm
        if wish.queries is not None and (Path(wish.queries) / "qrels" / "train.tsv").is_file():
            stage["like"] = wish.queries  # queries that neither choose nor decide
        settings["language"] = {"budget_seconds": round(LLM_SHARE * plan.budget)}
    return {"synth": stage}


def _human(wish: FitWish, plan: Plan) -> Content | None:
    if wish.queries is None:
        return None
    corpus = "stage:data/corpus.jsonl"
    return {
        "divide": {
            "path": wish.queries,
            "corpus": corpus,
            "chooses": people_decide(plan) and plan.validates,
        }
    }


def guard_stages(wish: FitWish, plan: Plan) -> dict[str, Content]:
    """Divide what must not be forgotten: the queries by which the model is chosen do not say what it lost."""
    return {
        guard_name(number, path): {
            "divide": {"path": path, "num_documents": plan.searched, "others": RIVALS},
        }
        for number, path in enumerate(wish.guards, 1)
    }


def guard_name(number: int, path: str) -> str:
    """Return the name of a guard's stage, which reports show."""
    own = re.sub(r"[^a-z0-9]+", "-", Path(path).name.lower()).strip("-")
    return f"guard-{number}-{own}".rstrip("-")


def people_decide(plan: Plan) -> bool:
    """Whether there are people's queries enough to choose and to decide; fewer are measured besides."""
    return plan.human >= FEWEST


def _enough(wish: FitWish, _: Plan) -> Content | None:
    return None if wish.pairs is not None else {"require": {"data": "stage:data"}}


def _mined(wish: FitWish, plan: Plan) -> Content | None:
    if "hard" not in plan.steps:
        return None
    settings: Content = {
        "sources": [{"kind": "dense", "quota": NEGATIVES // 2}, {"kind": "bm25"}],
        "num_negatives": NEGATIVES,
        "shortfall": "random_fill",
        # Where splits share documents, to spare those that answer the test would be to learn from it.
        "guard": {**_deciding(plan, "test"), "exclude_positives": wish.pairs is None},
    }
    if people_decide(plan):
        made = {"path": "stage:data", "split": "test", "exclude_positives": wish.pairs is None}
        settings["guards"] = [made]
    if "cleaned" in plan.steps:
        settings["num_rejected"] = LOOKED_AT
    return {"mine": {"model": wish.model, "data": "stage:data", "settings": settings}}


def _judged(wish: FitWish, plan: Plan) -> Content | None:
    if "cleaned" not in plan.steps:
        return None
    judge: Content = {"judge": {"model": wish.reranker}, "written": wish.pairs is None}
    return {"judge": {"mined": "stage:mined", "settings": {**judge, "depth": LOOKED_AT}}}


def _scored(wish: FitWish, plan: Plan) -> Content | None:
    if "taught" not in plan.steps:
        return None
    return {"score": {"teacher": wish.reranker, "data": "stage:mined/train.jsonl"}}


def _training(
    name: str, rows: str, negatives: int | None, objective: Content | None = None
) -> Callable[[FitWish, Plan], Content | None]:
    def part(wish: FitWish, plan: Plan) -> Content | None:
        if name not in plan.steps:
            return None
        most: Content = {"max_steps": plan.steps[name], "max_seconds": plan.limit(name)}
        if wish.pairs is None:
            most["auto"] = "synthetic"
        if plan.halved:
            most["batch_size"] = plan.batch_size
        return {
            "train": {
                "data": {"sources": [{"path": rows}], "num_negatives": negatives},
                "model": {"backbone": wish.model},
                "objective": objective or {"name": "info_nce"},
                **({"guide": {"model": wish.model}} if objective is GUIDED else {}),
                "trainer": {**TRAINER, **most},
                **({"validation": _validation(plan)} if plan.validates else {}),
            }
        }

    return part


def _validation(plan: Plan) -> Content:
    queries, documents = plan.dev
    return {
        **_deciding(plan, "dev"),
        "num_queries": queries,
        "num_documents": documents,
        "others": RIVALS,
    }


def _choice(wish: FitWish, plan: Plan) -> Content | None:
    if not plan.chooses:
        return None
    return {
        "select": {
            "runs": [f"stage:{name}" for name in plan.steps],
            "guard": [f"stage:{name}" for name in guard_stages(wish, plan)],
            "guard_split": "dev",
            # Nearer to the start is safer where something is guarded. Elsewhere few queries must not end training early:
            # of MedQuAD's pairs they took step 8 of 32, which cost 1.7 points of nDCG@10 on its test.
            "toward": "start" if wish.guards else "end",
        }
    }


def _gate(wish: FitWish, plan: Plan) -> Content:
    trained = "stage:choice" if plan.chooses else f"stage:{list(plan.steps)[-1]}/model"
    synthetic = wish.pairs is None
    made: Content = {"path": "stage:data", "split": "test", "synthetic": synthetic}
    decides: Content = made if synthetic else {**made, "train": "stage:data/train.jsonl"}
    if people_decide(plan):
        decides = {**_deciding(plan, "test"), "also": [made], "train": "stage:data/train.jsonl"}
    elif wish.queries is not None:
        decides = {**decides, "also": [{"path": "stage:human", "split": "test"}]}
    guards = [{"path": f"stage:{name}"} for name in guard_stages(wish, plan)]
    how = {"guards": guards, "num_documents": plan.searched, "others": RIVALS}
    return {"gate": {"model": trained, "base": wish.model, **decides, **how}}


def _deciding(plan: Plan, split: str) -> Content:
    """Name what chooses (``dev``) or decides (``test``): people's queries where there are enough."""
    return {"path": "stage:human" if people_decide(plan) else "stage:data", "split": split}


PARTS: dict[str, Callable[[FitWish, Plan], Content | None]] = {
    "data": _data,
    "human": _human,
    "enough": _enough,
    "mined": _mined,
    "judged": _judged,
    "scored": _scored,
    "plain": _training("plain", "stage:data/train.jsonl", None),
    "guided": _training("guided", "stage:data/train.jsonl", None, GUIDED),
    "hard": _training("hard", "stage:mined/train.jsonl", NEGATIVES),
    "cleaned": _training("cleaned", "stage:judged/train.jsonl", NEGATIVES),
    "taught": _training("taught", "stage:scored/scored.jsonl", NEGATIVES, TAUGHT),
    "choice": _choice,
    "gate": _gate,
}
"""The stages by their names, in their order."""
