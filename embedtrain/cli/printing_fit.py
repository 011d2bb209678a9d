"""What ``embedtrain fit`` prints on standard output: the plan first, the result last."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embedtrain.cli.printing import show_command
from embedtrain.evaluation.results.wording import counted
from embedtrain.units import show_seconds
from embedtrain.workflows.asked import FEWEST
from embedtrain.workflows.fit.compose import people_decide
from embedtrain.workflows.fit.plan import Plan
from embedtrain.workflows.fit.run import Fitted


def print_plan(plan: Plan) -> None:
    """Print what will be done and how long it should take."""
    out = Console(highlight=False)
    source = f"at most {plan.queries:,} queries" if plan.queries else "given pairs"
    trials = ", ".join(f"{name} {counted(number, 'step')}" for name, number in plan.steps.items())
    out.print(
        f"Plan: {counted(plan.documents, 'document or chunk', 'documents or chunks')}, {source}; trials: {trials} of "
        f"{plan.batch_size} queries, {show_seconds(plan.seconds_per_step)} a step (measured)"
        + ("; the budget allows fewer steps than the data would" if plan.cut else ""),
        soft_wrap=True,
    )
    out.print(escape(_measured_by(plan)), soft_wrap=True)
    table = Table("Stage", "Expected", box=box.SIMPLE_HEAD)
    for name, seconds in plan.seconds.items():
        table.add_row(name, show_seconds(seconds))
    table.add_row("all", f"{show_seconds(plan.total)} of {show_seconds(plan.budget)}")
    out.print(table)
    if plan.reranks is False:
        out.print(
            "The reranker is left out: its trials would take steps from the others. A longer --budget takes it in.",
            soft_wrap=True,
        )
    out.print(
        "Training ends when its part of the budget is over; what is around it takes longer on a busy machine."
    )


def _measured_by(plan: Plan) -> str:
    """Say which queries choose and decide, and among what they search."""
    kind = "the pairs" if plan.queries == 0 else "the queries that are made"
    decides = plan.held_out if plan.decides is None else plan.decides
    said = f"{plan.held_out:.0%} of {kind} choose the model and {decides:.0%} decide about it"
    if not plan.validates:
        said = f"{decides:.0%} of {kind} decide about the model; too few are left, or too little time, for others to choose"
    if people_decide(plan):
        said = f"{plan.human:,} queries of people {'choose the model and ' * plan.validates}decide about it"
    elif plan.human:
        said += f"; {counted(plan.human, 'query of people is', 'queries of people are')} measured besides, fewer than "
        said += f"{FEWEST} decide nothing"
    if plan.searched is not None and plan.searched < plan.documents:
        said += f"; {plan.searched:,} documents are searched, since the budget allows no more"
    return f"{said}."


def print_fitted(done: Fitted) -> None:
    """Print where the result is, and what to do with it."""
    out = Console(highlight=False)
    kind = "the trained model" if done.refusal is None else "the start, unchanged"
    out.print(escape(f"Result: {done.model}, {kind}. Read {done.report}"), soft_wrap=True)
    show_command(f'embedtrain search {done.model} "your question" --data {done.corpus}')
