"""The command that lets a teacher score training rows."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from embedtrain.cli.options import PrecisionOption
from embedtrain.encoding.pair_work import ScorerKind

EXAMPLES = (
    "embedtrain score cross-encoder/ms-marco-MiniLM-L6-v2 --data mined/train.jsonl "
    "--output scored.jsonl",
    "embedtrain score Qwen/Qwen3-Reranker-0.6B --as yes_no --template qwen3 --data mined/train.jsonl "
    "--output scored.jsonl",
    "embedtrain score runs/reranker/model --first runs/retriever/model --blend 0.5 --data mined/train.jsonl "
    "--output scored.jsonl",
    "embedtrain score http://localhost:8000/v1 --as yes_no --data mined/train.jsonl --output scored.jsonl",
)


def score(
    teacher: Annotated[
        str,
        typer.Argument(
            help="A cross-encoder, an encoder of either kind, or a language model: a folder, a Hub id, a .gguf "
            "file, or an OpenAI-compatible address (its key in EMBEDTRAIN_API_KEY)."
        ),
    ],
    data: Annotated[
        str, typer.Option(help="Training rows, such as the train.jsonl of `embedtrain mine`.")
    ],
    output: Annotated[Path, typer.Option(help="The .jsonl file to write, with a column scores.")],
    split: Annotated[
        str, typer.Option(help="Split of the data, where there are splits.")
    ] = "train",
    kind: Annotated[
        ScorerKind | None,
        typer.Option(
            "--as", "--kind", help="What the teacher is; left out: as its config.json says."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs scored at once.")] = 32,
    precision: PrecisionOption = "auto",
    template: Annotated[
        str | None,
        typer.Option(
            help="What a language model reads: chat, plain, qwen3, bge_gemma, d2llm, d2llm_similarity, upr, monot5, sgpt, passage, a file, or a "
            "text with {query}, {document} and maybe {instruction}."
        ),
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(help="What makes a document a good one, for {instruction}.")
    ] = None,
    yes: Annotated[
        str | None, typer.Option(help="yes_no: the answer that counts; left out, a form of Yes.")
    ] = None,
    no: Annotated[
        str | None, typer.Option(help='yes_no: the other answer; "" scores by the first alone.')
    ] = None,
    centre: Annotated[
        bool, typer.Option(help="yes_no: subtract the score of a pair that says nothing.")
    ] = False,
    gram: Annotated[
        bool,
        typer.Option(
            help="yes_no: write the cosines between the states of a row's pairs too, for d2llm."
        ),
    ] = False,
    normalize: Annotated[
        Literal["tokens", "sum", "pmi"],
        typer.Option(help="likelihood: mean of the tokens, their sum, or gain over no document."),
    ] = "tokens",
    labels: Annotated[
        str, typer.Option(help="graded: the grades from the worst to the best, with commas.")
    ] = "1,2,3,4,5",
    answers: Annotated[
        Path | None,
        typer.Option(
            help="answer, attribution: .jsonl of query and answer, what is to be written."
        ),
    ] = None,
    attribution: Annotated[
        Literal["loo", "linear", "shapley"],
        typer.Option(help="attribution: how the help of several documents is told apart."),
    ] = "shapley",
    window: Annotated[
        int, typer.Option(min=2, max=26, help="listwise: documents ordered at once.")
    ] = 20,
    step: Annotated[int, typer.Option(min=1, help="listwise: how far the window moves.")] = 10,
    length: Annotated[
        int, typer.Option(min=1, help="Tokens of a pair that a language model reads at most.")
    ] = 2048,
    served_name: Annotated[
        str | None, typer.Option(help="Of an address: the model; left out, the first it lists.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Of an address: requests under way at once.")
    ] = 16,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Of an address: send no more than these.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Of an address: of a million tokens, for the bill.")
    ] = None,
    first: Annotated[
        str | None,
        typer.Option(
            help="An encoder whose scores are mixed in, such as the retriever that is to learn."
        ),
    ] = None,
    blend: Annotated[
        float | None,
        typer.Option(
            help="With --first: share of the teacher's scores, as in evaluate --blend; 0.5."
        ),
    ] = None,
) -> None:
    """Let a teacher score each query's documents, for distillation; a killed run goes on."""
    # Longer than others: most of its lines are its options.
    from embedtrain.data.examples import SourceConfig
    from embedtrain.encoding.language.settings import EndpointSettings, LanguageSettings
    from embedtrain.workflows.score import score as run_score

    config = SourceConfig(path=data, split=split)
    endpoint = EndpointSettings(
        served_name=served_name, concurrency=concurrency,
        requests_per_minute=requests_per_minute, price=price,
    )  # fmt: skip
    language = LanguageSettings(
        template=template, instruction=instruction, yes=yes, no=no, centre=centre, gram=gram, normalize=normalize,
        labels=tuple(labels.split(",")), answers=None if answers is None else str(answers),
        attribution=attribution, window=window, step=step, length=length, endpoint=endpoint,
    )  # fmt: skip
    rows = run_score(
        teacher, config, output,
        kind=kind, batch_size=batch_size, precision=precision, language=language, first=first, share=blend,
    )  # fmt: skip
    typer.echo(f"{output}: {rows:,} rows with scores. Distil from them:")
    typer.echo(f'  embedtrain train distill/kl "data.sources=[{{path: {output}}}]"')
