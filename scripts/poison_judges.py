"""Judges of the poison test: one that knows all judgments, such that err, and real ones; and what each made of it."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from rich.console import Console
from rich.table import Table

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding.pair_scorers import PairScorer
from embedtrain.encoding.pair_work import PairWork
from embedtrain.evaluation.measures.agreement import kappa
from embedtrain.files import read_json
from embedtrain.mining.judgement.settings import JudgeConfig
from embedtrain.workflows.judge import judge_mined
from embedtrain.workflows.judge_task import open_judge

ODDS = math.log(0.95 / 0.05)
"""What a judge says who only answers yes or no."""
AUDITED = 150
"""Pairs that people look at, to measure the judge; they are no longer its own."""
Pairs = set[tuple[str, str]]


class Oracle:
    """Says what the judgments say, but for a share of pairs, or of whole queries, drawn by a hash.

    Args:
        task: With every judgment.
        errors: Share of wrong answers.
        of_queries: All answers of a query are wrong together.
        constant: Always the same answer.
    """

    precision = "fp32"

    def __init__(
        self,
        task: RetrievalTask,
        errors: float = 0.0,
        *,
        of_queries: bool = False,
        constant: bool | None = None,
    ) -> None:
        texts = dict(zip(task.document_ids, task.documents, strict=True))
        queries = dict(zip(task.query_ids, task.queries, strict=True))
        self.relevant = {
            (queries[name], texts[document])
            for name, judged in task.qrels.items()
            for document, grade in judged.items()
            if grade >= 1
        }
        self.errors, self.of_queries, self.constant = errors, of_queries, constant
        self.work = PairWork()

    def key(self) -> str:
        """Return what tells it from others."""
        return f"oracle {self.errors} {self.of_queries} {self.constant} {len(self.relevant)}"

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Answer yes or no, as log-odds."""
        self.work.pairs += len(pairs)
        self.work.tokens += sum(len(text.split()) for _, text in pairs)
        return np.array([ODDS if self._says_yes(pair) else -ODDS for pair in pairs])

    def _says_yes(self, pair: tuple[str, str]) -> bool:
        if self.constant is not None:
            return self.constant
        content = pair[0] if self.of_queries else "|".join(pair)
        drawn = int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big")
        return (pair in self.relevant) != (drawn / 2**64 < self.errors)


@dataclass(frozen=True)
class Judged:
    """What a judge made of mined rows."""

    training: Path
    figures: dict[str, float | int | str | None]


def judge_of(
    rule: str, task: RetrievalTask, model: str | None
) -> tuple[PairScorer, dict[str, object]]:
    """Return the judge of a rule, with its settings.

    Of judges that err, random pairs move no threshold: they would see through the errors at once.
    """
    if rule == "judge_small":
        settings = {"judge": {"model": model}}
        return open_judge(JudgeConfig.model_validate(settings).judge), settings
    made: dict[str, Oracle] = {
        "judge_oracle": Oracle(task),
        "judge_noisy_10": Oracle(task, 0.1),
        "judge_noisy_20": Oracle(task, 0.2),
        "judge_noisy_30": Oracle(task, 0.3),
        "judge_clustered_10": Oracle(task, 0.1, of_queries=True),
        "judge_yes": Oracle(task, constant=True),
        "judge_no": Oracle(task, constant=False),
    }
    settings = {"judge": {"model": rule}, "words": 10**6}
    if rule.startswith(("judge_noisy", "judge_clustered")):
        settings["num_random"] = 0
    return made[rule], settings


def judge_rows(
    rule: str, mined: Path, task: RetrievalTask, hidden: Pairs, place: Path, model: str | None
) -> Judged:
    """Judge mined rows under a rule; ``task`` holds every judgment."""
    labels = place / "audit.tsv"
    audited = write_audit(mined, task, labels)
    scorer, settings = judge_of(rule, task, model)
    config = JudgeConfig.model_validate({**settings, "labels": str(labels)})
    folder = judge_mined(mined, [scorer], place / "judged", config, cache=place / "cache")
    rows = [json.loads(line) for line in folder.judged.read_text("utf-8").splitlines()]
    asked = [row for row in rows if row["role"] != "positive"]
    report = read_json(folder.report)
    truth = np.array([is_relevant(task, row["query_id"], row["document_id"]) for row in asked])
    yes = np.array([row["p_small"] >= config.relabel for row in asked])
    moved = np.array([row["action"] == "relabel" for row in asked])
    met = np.array([(row["query_id"], row["document_id"]) in hidden for row in asked])
    errors = scorer.errors if isinstance(scorer, Oracle) and scorer.constant is None else None
    figures = {
        "judged": len(asked),
        "audited": len(audited),
        "prevalence": float(truth.mean()),
        "said_yes": int(yes.sum()),
        "precision_predicted": predicted(float(truth.mean()), errors),
        "precision": float(truth[yes].mean()) if yes.any() else None,
        "kappa": kappa(yes.astype(np.int64), truth.astype(np.int64)),
        "kappa_measured": report["agreement"]["kappa"],
        "hidden_met": int(met.sum()),
        "hidden_relabelled": int((met & moved).sum()),
        "relabelled": int(moved.sum()),
        "relabelled_wrongly": int((moved & ~truth).sum()),
        "regained": sum(row["action"] == "regain" for row in rows),
        "regained_wrongly": sum(
            row["action"] == "regain" and (row["query_id"], row["document_id"]) in hidden
            for row in rows
        ),
        "gate": report["gate"],
    }
    return Judged(folder.training, figures)


def write_audit(mined: Path, task: RetrievalTask, path: Path) -> Pairs:
    """Let people judge some of what mining kept out, drawn by a hash; return the pairs."""
    lines = (mined / "rejected.jsonl").read_text("utf-8").splitlines()
    found = [
        (row["query_id"], one["id"]) for row in map(json.loads, lines) for one in row["rejected"]
    ]
    found.sort(key=lambda pair: hashlib.blake2b("|".join(pair).encode()).digest())
    told = [(*pair, int(is_relevant(task, *pair))) for pair in found[:AUDITED]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{query}\t{name}\t{grade}\n" for query, name, grade in told), "utf-8")
    return set(found[:AUDITED])


def is_relevant(task: RetrievalTask, query: str, document: str) -> bool:
    """Whether the judgments, hidden ones with them, call a document relevant."""
    return task.qrels[query].get(document, 0) >= 1


def predicted(prevalence: float, errors: float | None) -> float | None:
    """Return the share of right answers among those of yes, of a judge that errs so often."""
    if errors is None:
        return None
    right = prevalence * (1 - errors)
    return right / (right + (1 - prevalence) * errors)


def print_judges(judged: dict[str, list[Judged]]) -> None:
    """Print what the judges made of the rows, summed over the seeds."""
    table = Table(
        "Judge", "Pairs", "Relevant", "Said yes", "Precision predicted", "measured", "kappa",
        "as the gate saw it",
        "Hidden ones relabelled", "Wrongly relabelled", "Regained (hidden ones)",
    )  # fmt: skip
    for rule, seeds in judged.items():
        whole = {
            name: sum(one.figures[name] for one in seeds)  # type: ignore[misc]
            for name in ("judged", "said_yes", "hidden_met", "hidden_relabelled", "relabelled",
                         "relabelled_wrongly", "regained", "regained_wrongly")
        }  # fmt: skip
        table.add_row(
            rule, f"{whole['judged']:,}", _mean(seeds, "prevalence"), f"{whole['said_yes']:,}",
            _mean(seeds, "precision_predicted"), _mean(seeds, "precision"), _mean(seeds, "kappa"),
            _mean(seeds, "kappa_measured"),
            f"{whole['hidden_relabelled']} of {whole['hidden_met']}",
            f"{whole['relabelled_wrongly']} of {whole['relabelled']}",
            f"{whole['regained']:,} ({whole['regained_wrongly']})",
        )  # fmt: skip
    Console(width=160).print(table)


def _mean(seeds: Sequence[Judged], name: str) -> str:
    found = [one.figures[name] for one in seeds]
    known = [float(value) for value in found if isinstance(value, int | float)]
    return f"{np.mean(known):.3f}" if known else ""
