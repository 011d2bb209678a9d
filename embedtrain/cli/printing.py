"""What the command line prints on standard output."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embedtrain.data.pretraining.spans import SpanReport
from embedtrain.data.tokenized import SourceReport
from embedtrain.evaluation.results.report import result_tables
from embedtrain.evaluation.results.result import EvaluationResult, load_result
from embedtrain.evaluation.results.wording import metric_title, show_paired
from embedtrain.files import read_json
from embedtrain.mining.output import MiningFolder
from embedtrain.models.chosen_weights import Movement
from embedtrain.plugins import IMPORTED
from embedtrain.progress import is_verbose
from embedtrain.recipe.changed_settings import dump_changed
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import Recipe, dump_recipe, load_recipe
from embedtrain.recipe.run_files import ShownExample, Summary, read_evaluation, read_summary
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.redaction import redact
from embedtrain.training.planner import describe
from embedtrain.units import show_seconds
from embedtrain.workflows.check import CheckReport
from embedtrain.workflows.gpu import Finding
from embedtrain.workflows.load.load import Loaded
from embedtrain.workflows.pipeline import load_pipeline
from embedtrain.workflows.prediction import describe_prediction
from embedtrain.workflows.search import Hit

SHOWN = ("ndcg_at_10", "recall_at_100")
"""Metrics of the table at the end of a run; evaluation.json has all."""


def show_command(command: str) -> None:
    """Print a command to be copied: on one line, however long, and nothing in it is markup."""
    sys.stdout.write(f"  {command}\n")


def print_hits(hits: Sequence[Hit], threshold: float | None = None) -> None:
    """Print what a search found; with a threshold only what scores as much."""
    out = Console(highlight=False)
    if threshold is not None:
        hits = [hit for hit in hits if hit.score >= threshold]
    if not hits:
        reason = "has a score" if threshold is None else f"scores {threshold:g} or more"
        Console(stderr=True).print(f"Nothing found: no document {reason}.")
    for hit in hits:
        out.print(f"[bold]{hit.rank}. {escape(hit.document_id)}[/bold]  [dim]{hit.score:.3f}[/dim]")
        if hit.places:
            out.print(f"   [dim]{escape('  '.join(hit.places))}[/dim]")
        out.print(f"   {escape(' '.join(hit.text.split())[:300])}")


def print_report(report: CheckReport) -> None:
    """Print data report, estimate and recipe, and what code of the user's was imported for them."""
    out, estimate = Console(highlight=False), report.estimate
    for name, file in IMPORTED.items():
        out.print(escape(f"# imports {name} from {file}"), soft_wrap=True)
    rows = [{"Source": escape(place)} | _describe_source(one) for place, one in report.sources]
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    out.print(table)
    for sentence in report.held_out:
        out.print(escape(sentence))
    out.print(
        "Span tokens: 10/50/90/99 %, special tokens not counted."
        if isinstance(report.recipe, PretrainRecipe)
        else "Tokens: 10/50/90/99 %. At limit: share of queries / documents that were cut or just fit."
    )
    whole = show_seconds(estimate.num_steps * estimate.seconds_per_step)
    out.print(
        f"{estimate.num_parameters / 1e6:.1f} M parameters; {estimate.num_steps:,} steps of "
        f"{estimate.tokens_per_step:,} tokens: about {show_seconds(estimate.seconds_per_step)} a step, "
        f"{whole} in all (measured on a small batch)"
    )
    out.print(describe(estimate.plan))
    if report.prediction is not None:
        out.print(describe_prediction(report.prediction, estimate.num_steps))
    every = is_verbose()
    out.print("\nAll settings:" if every else "\nSettings beyond the defaults (--verbose: all):")
    out.print(escape((dump_recipe if every else dump_changed)(report.recipe)), soft_wrap=True)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print what a machine with a GPU has, and what it lacks at which cost."""
    table = Table("GPU", "Found", "Cost", "Cure", box=box.SIMPLE_HEAD)
    for one in findings:
        mark = "" if one.is_good else "! "
        table.add_row(*(escape(cell) for cell in (mark + one.what, one.found, one.cost, one.cure)))
    Console(highlight=False).print(table)


def _describe_source(source: SourceReport | SpanReport) -> dict[str, str]:
    """Return headings and cells."""
    if isinstance(source, SpanReport):
        return {
            "Documents": f"{source.num_documents:,}",
            "Empty": f"{source.num_empty:,}",
            "Spans": f"{source.num_spans:,}",
            "Too short": f"{source.num_short:,}",
            "Tokens": f"{source.num_tokens:,}",
            "Span tokens": "/".join(map(str, source.span_lengths[:4])),
        }
    return {
        "Rows": f"{source.num_rows:,}",
        "Queries": f"{source.num_queries:,}",
        "Documents": f"{source.num_documents:,}",
        "Query tokens": "/".join(map(str, source.query_lengths[:4])),
        "Document tokens": "/".join(map(str, source.document_lengths[:4])),
        "At limit": f"{source.query_full_ratio:.1%} / {source.document_full_ratio:.1%}",
    }


def print_run(path: Path) -> None:
    """Print what training changed, by a query of the data, and what to do next with them."""
    run, out = RunFolder(path), Console(highlight=False)
    recipe = load_recipe(run.recipe)
    if isinstance(recipe, PretrainRecipe):
        print_pretrain_run(path)
        return
    summary = read_summary(run)
    if (found := read_evaluation(run)) is not None:
        _print_gain(found[1], out)
        if example := summary.get("example"):
            _print_example(example, out)
    if rows := summary.get("movements"):
        print_movements([Movement.model_validate(row) for row in rows], out)
    if seconds := summary.get("seconds"):
        parts = ", ".join(f"{part} {value:,.0f}" for part, value in seconds.items())
        out.print(f"{sum(seconds.values()):,.0f} seconds: {parts}")
    out.print(f"Run folder: [bold]{escape(str(path))}[/bold]; the model is in model/. Next:")
    for command in _next_commands(path, recipe, summary):
        out.print(f"  {escape(command)}", soft_wrap=True)
    if recipe.evaluation is None:
        fraction = summary.get("fraction")
        what = (
            f"{{fraction: {fraction}}}" if fraction else "{path: a BEIR folder of judged queries}"
        )
        out.print(
            f"To see what training changes, add to the recipe: evaluation: {what}", soft_wrap=True
        )


def _print_gain(after: EvaluationResult, out: Console) -> None:
    """Print the main scores before and after, and the interval of the difference."""
    data = after.data
    table = Table("", "before", "after", "difference, 95 % interval", box=box.SIMPLE_HEAD)
    assert after.comparison is not None
    for name in SHOWN:
        value, paired = after.metrics[name].value, after.comparison.metrics[name]
        before, interval = f"{value - paired.difference:.3f}", show_paired(paired)[0]
        table.add_row(metric_title(name), before, f"{value:.3f}", interval)
    out.print(table)
    out.print(
        f"{data.num_queries:,} queries among {data.num_documents:,} documents "
        f"({escape(data.name)} {escape(data.split)})"
    )


def print_movements(rows: Sequence[Movement], out: Console) -> None:
    """Print what of each part was trained, and how far it moved."""
    table = Table("Part", "weights", "trained", "moved by", box=box.SIMPLE_HEAD)
    for row in rows:
        moved = f"{row.moved:.2%}" if row.num_trained else "-"
        table.add_row(escape(row.part), f"{row.num_weights:,}", f"{row.num_trained:,}", moved)
    out.print(table)


def _print_example(example: ShownExample, out: Console) -> None:
    """Print a query and its first results before and after; a star marks those judged relevant."""
    out.print(f"\nFor example: [bold]{escape(example['query'])}[/bold]")
    for name, hits in (("before", example["before"]), ("after", example["after"])):
        for rank, hit in enumerate(hits, 1):
            star = "*" if hit["relevant"] else " "
            text = " ".join(hit["text"].split())
            line = f"{name if rank == 1 else '':7}{rank}{star} {text}"
            out.print(escape(line[: out.width - 1]))
    out.print("")


def _next_commands(path: Path, recipe: Recipe, summary: Summary) -> list[str]:
    """Return commands that search, report and ship this very model."""
    commands = [
        ["embedtrain", "report", str(path), "--output", f"{path}.html"],
        ["embedtrain", "export", str(path), "--output", f"{path.name}-model"],
    ]
    source = recipe.data.sources[0]
    query = (summary.get("example") or summary).get("query")
    where = [] if recipe.evaluation else ["--data", source.path, "--split", source.split]
    searchable = source.path == "python_docs" or Path(source.path, "corpus.jsonl").is_file()
    if query and (recipe.evaluation or searchable):
        commands.insert(0, ["embedtrain", "search", f"{path}/model", query, *where])
    if len(commands) < 3:
        commands.append(["embedtrain", "check", str(path / "recipe.yaml")])
    return [shlex.join(command) for command in commands]


def print_mining(folder: MiningFolder) -> None:
    """Print what mining found and why it left candidates out."""
    out = Console(highlight=False)
    manifest = read_json(folder.manifest)
    outcome = manifest["outcome"]
    table = Table("Kept out because", "Documents", title="Candidates left out")
    for reason, count in outcome["dropped"].items():
        table.add_row(reason, f"{count:,}")
    out.print(table)
    for source in manifest["sources"]:
        if "recall" in source:
            found = f"recall@{source['recall_depth']} {source['recall']:.4f} of the exact search"
            out.print(f"{source['name']}: {escape(source['index'])} {found}")
    shares = ", ".join(
        f"{count:,} {name}" for name, count in outcome["negatives_by_source"].items()
    )
    out.print(
        f"{outcome['num_queries']:,} queries, {outcome['num_negatives']:,} negatives ({shares}); "
        f"{outcome['short_ratio']:.1%} of the queries found too few; negatives score "
        f"{outcome['mean_score_ratio']:.3f} of their positive on average"
    )
    out.print(f"Read {folder.suspects} for what was kept out. Train on the rest:")
    show_command(f'embedtrain train my.yaml "data.sources=[{{path: {folder.training}}}]"')


def print_pipeline(output: Path) -> None:
    """Print what each stage left, and the scores of those that evaluate."""
    out = Console(highlight=False)
    for stage in load_pipeline(output / "pipeline.yaml").stages:
        out.print(f"[bold]{stage.name}[/bold]: {output / stage.name}")
        if stage.evaluate is not None:
            for table in result_tables(load_result(output / stage.name / "scores.json")):
                out.print(table)


def print_pretrain_run(path: Path) -> None:
    """Print what a pre-training run left and what to try next."""
    out = Console(highlight=False)
    out.print(
        f"Run folder: [bold]{path}[/bold] (metrics.csv, recipe.yaml, model/ with its card, decoder/)"
    )
    out.print("Fine-tune it on pairs of your own next:")
    show_command(f"embedtrain init pairs.jsonl --model {path}/model")


def print_loaded(done: Loaded, models: Sequence[str], url: str) -> None:
    """Print what a loading did, whether the engine agrees, and how to search there."""
    out = Console(highlight=False)
    removed = f", {done.removed:,} removed" if done.removed else ""
    out.print(
        escape(
            f"{done.place}: {done.count:,} documents; {done.written:,} written, {done.unchanged:,} there already{removed}"
        ),
        soft_wrap=True,
    )
    if done.left_out:
        some = ", ".join(done.left_out[:3]) + (", ..." if len(done.left_out) > 3 else "")
        out.print(
            escape(
                f"Left out, since a model makes nothing of them: {len(done.left_out):,} ({some})"
            )
        )
    if done.zeros:
        out.print(f"Vectors of zeros, which score 0: {done.zeros:,}")
    if done.is_without_words:
        out.print("Not verified: no text holds a word.")
    for one in done.agreement:
        out.print(
            f"{one.field}: {one.overlap:.1%} of our 10 best in {one.num_queries} queries, largest difference of "
            f"a score {one.difference:.1e}",
            soft_wrap=True,
        )
    show_command(shlex.join(["embedtrain", "search", models[0], "--index", redact(url)]))
