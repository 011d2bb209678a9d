"""What the command line prints on standard output."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embedtrain.evaluation.results.report import result_tables
from embedtrain.evaluation.results.result import load_result, parse_result
from embedtrain.mining.output import MiningFolder
from embedtrain.plugins import IMPORTED
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import dump_recipe, load_recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.training.planner import describe
from embedtrain.workflows.check import CheckReport, PretrainCheck
from embedtrain.workflows.pipeline import load_pipeline
from embedtrain.workflows.search import Hit


def show_command(command: str) -> None:
    """Print a command to be copied: on one line, however long, and nothing in it is markup."""
    sys.stdout.write(f"  {command}\n")


def print_hits(hits: Sequence[Hit]) -> None:
    """Print what a search found."""
    out = Console(highlight=False)
    for hit in hits:
        out.print(f"[bold]{hit.rank}. {escape(hit.document_id)}[/bold]  [dim]{hit.score:.3f}[/dim]")
        out.print(f"   {escape(' '.join(hit.text.split())[:300])}")


def print_report(report: CheckReport | PretrainCheck) -> None:
    """Print recipe, data report and estimate, and what code of the user's was imported for them."""
    for name, file in IMPORTED.items():
        Console(highlight=False).print(escape(f"# imports {name} from {file}"), soft_wrap=True)
    if isinstance(report, PretrainCheck):
        print_pretrain_check(report)
        return
    out = Console(highlight=False)
    out.print(escape(dump_recipe(report.recipe)))
    table = Table(
        "Source", "Rows", "Queries", "Documents", "Query tokens", "Document tokens", "At limit"
    )
    for place, source in report.sources:
        table.add_row(
            escape(place),
            f"{source.num_rows:,}",
            f"{source.num_queries:,}",
            f"{source.num_documents:,}",
            "/".join(map(str, source.query_lengths[:4])),
            "/".join(map(str, source.document_lengths[:4])),
            f"{source.query_full_ratio:.1%} / {source.document_full_ratio:.1%}",
        )
    out.print(table)
    for sentence in report.held_out:
        out.print(escape(sentence))
    out.print(
        "Tokens: 10/50/90/99 %. At limit: share of queries / documents that were cut or just fit."
    )
    estimate = report.estimate
    total = estimate.num_steps * estimate.seconds_per_step
    out.print(
        f"{estimate.num_steps:,} steps of {estimate.tokens_per_step:,} tokens: about "
        f"{estimate.seconds_per_step:.2f} s a step, {total / 60:.0f} minutes (measured on a small batch)"
    )
    out.print(describe(estimate.plan))
    if not estimate.plan.fits:
        out.print(
            "[bold red]This may not fit.[/] Set trainer.rematerialize=true, lower trainer.chunk_tokens."
        )


def print_run(path: Path) -> None:
    """Print the scores of a run and what to try next."""
    run, out = RunFolder(path), Console(highlight=False)
    if isinstance(load_recipe(run.recipe), PretrainRecipe):
        print_pretrain_run(path)
        return
    if run.evaluation.is_file():
        after = json.loads(run.evaluation.read_text(encoding="utf-8"))["after"]
        for table in result_tables(parse_result(after)):
            out.print(table)
    out.print(
        f"Run folder: [bold]{path}[/bold] (metrics.csv, recipe.yaml, model/ with its model card)"
    )
    out.print("Try next:")
    out.print(f'  embedtrain search {path}/model "split a list into chunks of equal size"')
    out.print(f"  embedtrain export {path} --output my-model")
    out.print(f"  embedtrain doctor {path}/recipe.yaml")


def print_mining(folder: MiningFolder) -> None:
    """Print what mining found and why it left candidates out."""
    out = Console(highlight=False)
    manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
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


def print_pretrain_check(report: PretrainCheck) -> None:
    """Print recipe, text report and estimate."""
    out = Console(highlight=False)
    out.print(escape(dump_recipe(report.recipe)))
    table = Table("Source", "Documents", "Empty", "Spans", "Too short", "Tokens", "Span tokens")
    for place, source in report.sources:
        table.add_row(
            escape(place),
            f"{source.num_documents:,}",
            f"{source.num_empty:,}",
            f"{source.num_spans:,}",
            f"{source.num_short:,}",
            f"{source.num_tokens:,}",
            "/".join(map(str, source.span_lengths[:4])),
        )
    out.print(table)
    out.print("Span tokens: 10/50/90/99 %, special tokens not counted.")
    minutes = report.num_steps * report.seconds_per_step / 60
    out.print(
        f"{report.num_parameters / 1e6:.1f} M parameters; {report.num_steps:,} steps of "
        f"{report.tokens_per_step:,} tokens: about {report.seconds_per_step:.2f} s a step, "
        f"{minutes:.0f} minutes (measured on a small batch)"
    )
    out.print(describe(report.plan))


def print_pretrain_run(path: Path) -> None:
    """Print what a pre-training run left and what to try next."""
    out = Console(highlight=False)
    out.print(
        f"Run folder: [bold]{path}[/bold] (metrics.csv, recipe.yaml, model/ with its card, decoder/)"
    )
    out.print("Fine-tune it on pairs of your own next:")
    show_command(f"embedtrain init pairs.jsonl --model {path}/model")
