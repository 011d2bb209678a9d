"""The card of an export that is less, or other, than the model its card was rendered for."""

import re

import yaml
from huggingface_hub import ModelCard

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.release.cards.results import HEADING, replace_section

UNKNOWN_SCORES = """The scores of the whole model are not this one's. Measure this folder with `embedtrain evaluate` and
add what is found with `embedtrain export --results`."""


def describe_changes(
    layer: int | None,
    dim: int | None,
    instruction: str | None,
    long_inputs: LongInputs | None,
    probabilities: object = None,
) -> list[str]:
    """Return what an export does to its model, in words; empty if nothing."""
    changes = {
        f"ends at layer {layer}": layer,
        f"keeps the first {dim} dimensions": dim,
        f"has the prompts of the instruction {instruction!r} in the place of the usual ones": instruction,
        "has scores whose sigmoid is a probability, for lists as they were measured": probabilities,
    }
    found = [words for words, wish in changes.items() if wish is not None]
    if long_inputs is not None:
        found.append(f"has {long_inputs.method} positions for {long_inputs.length:,} tokens")
    return found


def change_card(card: str, changes: list[str]) -> str:
    """Return the card with what was changed, and without scores, which were the whole model's."""
    parsed = ModelCard(card, ignore_metadata_errors=True)
    metadata = parsed.data.to_dict()  # type: ignore[no-untyped-call]
    metadata.pop("model-index", None)
    note = f"**This export {', '.join(changes)}.** What follows describes the model it was made of."
    body = replace_section(parsed.text, HEADING, "")
    body = replace_section(body, "## Scores", f"## Scores\n\n{UNKNOWN_SCORES}\n\n")
    title = re.search(r"^# .*$", body, re.MULTILINE)
    place = title.end() if title else 0
    head = yaml.safe_dump(metadata, sort_keys=False).strip()
    return f"---\n{head}\n---\n{body[:place]}\n\n{note}\n{body[place:]}"
