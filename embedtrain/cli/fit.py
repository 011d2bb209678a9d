"""The command that goes the whole way, from documents or pairs to a model that is measured against its start."""

from pathlib import Path
from typing import Annotated

import typer

from embedtrain.errors import Refused

EXAMPLES = (
    "embedtrain fit docs/ --output runs/mine",
    "embedtrain fit docs/ --queries my_queries.jsonl --budget 1h --output runs/mine",
    "embedtrain fit docs/ --llm http://127.0.0.1:8080/v1 --output runs/mine",
    "embedtrain fit docs/ --pairs pairs.jsonl --guard scifact --output runs/mine",
    "embedtrain fit docs/ --reranker cross-encoder/ms-marco-MiniLM-L6-v2 --budget 2h --output runs/mine",
)


def fit(
    output: Annotated[
        Path, typer.Option(help="Folder to write; the same command on it goes on where it was.")
    ],
    corpus: Annotated[
        str | None,
        typer.Argument(help="Documents to learn from and to search: a folder, or a file of them."),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="Training rows of your own: no queries are made then. CORPUS is what they are searched among; left out, "
            "their own documents are."
        ),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            help="Queries of people with what answers them, which choose and decide: a BEIR folder, or rows with "
            "query and positive (an id or a text)."
        ),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            help="What writes the queries: a language model's folder, a .gguf file, or the address of an "
            "OpenAI-compatible server; left out, rules do. A key comes from the environment."
        ),
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            help="A cross-encoder's folder or Hub id, which judges mined rows and teaches: two more trials, where the "
            "budget allows."
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(help="Wall time that the plan is fit to, and training held to: 90s, 30m, 2h."),
    ] = "30m",
    model: Annotated[
        str | None, typer.Option(help="What to start from: a folder or Hub id; left out: MiniLM.")
    ] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(help="A BEIR folder on which the model may not lose more than 0.01."),
    ] = None,
) -> None:
    """Make a search model from documents or pairs, and ship it only if it is better than its start.

    Prints the plan first. Exit code 3: done, but nothing was better than the start, which is the result then.
    """
    from embedtrain.cli.printing_fit import print_fitted, print_plan
    from embedtrain.workflows.first_recipe import usual_model
    from embedtrain.workflows.fit.run import fit as run_fit
    from embedtrain.workflows.fit.wish import FitWish, read_duration

    wish = FitWish(
        corpus=corpus,
        pairs=pairs,
        queries=queries,
        llm=llm,
        reranker=reranker,
        model=model or usual_model(),
        guards=tuple(guard or ()),
        seconds=read_duration(budget),
    )
    done = run_fit(wish, output, print_plan)
    print_fitted(done)
    if done.refusal is not None:
        raise Refused(done.refusal)
