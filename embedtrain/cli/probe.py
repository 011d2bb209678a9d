"""The command that probes a model."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from embedtrain.cli.options import LateChunksOption, LongInputsOption, ModelArgument
from embedtrain.errors import UserError
from embedtrain.locks import owns

EXAMPLES = (
    "embedtrain probe my-model passkey --length 128 --length 512",
    "embedtrain probe my-model passkey --length 1500 --long-inputs grouped:2048",
    "embedtrain probe my-model perturbations --data scifact",
    "embedtrain probe my-sparse-model words --data scifact/corpus.jsonl --size 1000",
    "embedtrain probe my-model sticky-tokens --data stsb-en.test.jsonl --size 200",
    "embedtrain probe my-model thresholds --data scifact --wanted 0.9 --store",
)


@owns("output")
def probe(
    model: ModelArgument,
    name: Annotated[
        str,
        typer.Argument(
            metavar="PROBE",
            help="passkey, needle, limit, instructions, perturbations, paraphrases, overlap, space, "
            "sticky-tokens, words, dapr, thresholds, "
            "associations, query-instructions, rare-labels or linguistic.",
        ),
    ],
    data: Annotated[Path | None, typer.Option(help="Data, where the probe needs some.")] = None,
    length: Annotated[
        list[int] | None, typer.Option(min=20, help="Words of a text; may be repeated.")
    ] = None,
    size: Annotated[int, typer.Option(min=2, help="Texts that the probe makes or draws.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the texts that are made.")] = 0,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    wanted: Annotated[
        float, typer.Option(min=0, max=1, help="With thresholds: precision of what is shown.")
    ] = 0.9,
    template: Annotated[
        Literal["instruct", "tart", "plain"],
        typer.Option(help="With query-instructions: form of an instruction before its query."),
    ] = "instruct",
    store: Annotated[
        bool,
        typer.Option("--store", help="With thresholds: keep it in the model's folder and card."),
    ] = False,
    long_inputs: LongInputsOption = None,
    late_chunks: LateChunksOption = None,
) -> None:
    """Probe what a model can and cannot do."""
    # Longer than others: half of its lines are its options.
    from rich.console import Console
    from rich.table import Table

    from embedtrain.contract.long_inputs import parse_long_inputs
    from embedtrain.evaluation.probes.base import ProbeWish
    from embedtrain.evaluation.probes.discovery import run_probe
    from embedtrain.evaluation.tasks.subject import Subject
    from embedtrain.files import check_file, default_cache, write_json
    from embedtrain.models.build import load_encoder
    from embedtrain.models.dense.late_chunking import chunk_late
    from embedtrain.models.edits.lengthen import lengthen_encoder

    if output is not None:
        check_file("--output", output)
    if store and name != "thresholds":
        raise UserError("--store", "is for the probe thresholds", got=name, cure="Leave it out")
    wish = ProbeWish(data=data, size=size, seed=seed, precision=wanted, template=template)
    if length:
        wish = replace(wish, lengths=tuple(length))
    encoder = lengthen_encoder(load_encoder(model), parse_long_inputs(long_inputs))
    subject = Subject(chunk_late(encoder, late_chunks), model, default_cache())
    if store and data is not None:
        from embedtrain.workflows.evaluate.threshold import probe_and_store

        findings = probe_and_store(subject, wish)
    else:
        findings = run_probe(name, subject, wish)
    table = Table(name, "metric", "value")
    for finding in findings:
        table.add_row(finding.setting, finding.metric, f"{finding.value:.4f}")
    if output is not None:
        content = {
            "model": subject.identity().model_dump(),
            "probe": name,
            "findings": [vars(finding) for finding in findings],
        }
        write_json(output, content)
    Console().print(table)
