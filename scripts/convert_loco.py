"""LoCoV1's two tables as BEIR folders, one for each of its data sets, for `embedtrain evaluate --data FOLDER`.

    python scripts/convert_loco.py queries.jsonl documents.jsonl --output loco

The tables are those of hazyresearch/LoCoV1-Queries and -Documents, as files of rows that embedtrain reads: ``dataset``,
``qid``, ``query``, ``answer_pids`` and ``dataset``, ``pid``, ``passage``. Documents are whole; the measure is nDCG@10.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exit_codes import run_main

from embedtrain.data.readers.tabular import ROW_READERS
from embedtrain.data.sources import SUFFIXES
from embedtrain.errors import UserError

Rows = dict[str, list[dict[str, Any]]]


def read_table(path: Path, columns: tuple[str, ...]) -> Rows:
    """Return the rows of a table by data set.

    Raises:
        UserError: If a row lacks a column.
    """
    kind = SUFFIXES[path.suffix]
    found: Rows = defaultdict(list)
    for place, row in ROW_READERS[kind](path):
        lacking = [name for name in ("dataset", *columns) if name not in row]
        if lacking:
            raise UserError(place, f"has no column {lacking[0]!r}", got=list(row))
        found[str(row["dataset"])].append(dict(row))
    return found


def write_rows(path: Path, rows: Iterator[dict[str, str]]) -> None:
    """Write rows as JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def convert(queries: Path, documents: Path, output: Path) -> list[Path]:
    """Write a folder for each data set that has queries; return them."""
    asked = read_table(queries, ("qid", "query", "answer_pids"))
    passages = read_table(documents, ("pid", "passage"))
    folders = []
    for name, rows in sorted(asked.items()):
        folder = output / name
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        corpus = ({"_id": str(row["pid"]), "text": row["passage"]} for row in passages[name])
        write_rows(folder / "corpus.jsonl", corpus)
        texts = ({"_id": str(row["qid"]), "text": row["query"]} for row in rows)
        write_rows(folder / "queries.jsonl", texts)
        lines = [f"{row['qid']}\t{pid}\t1" for row in rows for pid in row["answer_pids"]]
        content = "\n".join(["query-id\tcorpus-id\tscore", *lines, ""])
        (folder / "qrels" / "test.tsv").write_text(content, encoding="utf-8")
        folders.append(folder)
    return folders


def main() -> None:
    """Write the folders and name them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("queries", type=Path)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    for folder in convert(arguments.queries, arguments.documents, arguments.output):
        print(folder)


if __name__ == "__main__":
    run_main(main)
