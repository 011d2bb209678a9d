"""What the command line prints of pre-training."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embedtrain.check_pretrain import PretrainCheck
from embedtrain.plan import describe
from embedtrain.recipe import dump_recipe


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
    out.print("Fine-tune it next:")
    out.print(f"  embedtrain train dense/info_nce model.backbone={path}/model")
