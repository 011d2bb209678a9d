r"""Descriptions and code: the functions of the installed Python packages, each with the first sentence of its docstring.

    python scripts/code_set.py --output runs/code_set
    embedtrain train mixtures/code_languages "data.sources=[{path: runs/code_set/python.jsonl, adapter: python}]" \
        "model.lora.adapters=[python]" --output runs/code
    embedtrain evaluate runs/code/model --data runs/code_set/test --instruction python

Files are parsed, nothing is imported. A query is the sentence, the positive the function without its docstring, of three
lines or more. Copies are left out. ``python.jsonl`` is for training, the BEIR folder ``test`` for measuring: no package is
in both.
"""

import argparse
import ast
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from inspect import cleandoc
from pathlib import Path

from exit_codes import run_main

from embedtrain.data.python_docs.docstring_text import (
    first_sentence,
    is_boilerplate,
    normalize,
    plain,
)
from embedtrain.data.python_docs.python_packages import installed_packages

FEWEST_LINES, MOST_CHARACTERS = 3, 1500
"""Of a function's code."""
MOST_OF_TEST = 0.35
"""A package of a larger share of the test is trained on: it would be the test."""


@dataclass(frozen=True)
class Function:
    """A function and what its docstring says first."""

    package: str
    query: str
    code: str

    @property
    def order(self) -> bytes:
        """What puts functions into an order that no package decides."""
        return sha256(self.code.encode("utf-8", "replace")).digest()


def functions_of(source: bytes, package: str) -> Iterator[Function]:
    """Yield the documented functions and methods of a file; of one that cannot be parsed none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = source.decode("utf-8", "replace").split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(node.body) > 1:
            described = ast.get_docstring(node)
            query = "" if described is None else plain(first_sentence(described)[0]).rstrip(" .:")
            head = lines[node.lineno - 1 : node.body[0].lineno - 1]
            body = lines[node.body[0].end_lineno or 0 : node.end_lineno]
            code = cleandoc("\n" + "\n".join([*head, *body]))
            size = len(body) >= FEWEST_LINES and len(code) <= MOST_CHARACTERS
            if query and size and not is_boilerplate(query):
                yield Function(package, query, code.encode("utf-8", "replace").decode())


def every_function() -> list[Function]:
    """Return the functions of all packages, those of the same code or the same words once."""
    found: dict[str, Function] = {}
    queries: set[str] = set()
    for package in installed_packages():
        for _, path in package.modules():
            for one in functions_of(path.read_bytes(), package.name):
                query = normalize(one.query)
                if one.code not in found and query not in queries:
                    found[one.code] = one
                    queries.add(query)
    return list(found.values())


def divide(
    every: list[Function], num_train: int, num_test: int
) -> tuple[list[Function], list[Function]]:
    """Return functions to train on and to measure on, of other packages."""
    by_package: dict[str, list[Function]] = {}
    for one in every:
        by_package.setdefault(one.package, []).append(one)
    test: list[Function] = []
    train: list[Function] = []
    for name in sorted(by_package, key=lambda name: sha256(name.encode()).digest()):
        own = by_package[name]
        fits = len(test) < num_test and len(own) <= MOST_OF_TEST * num_test
        (test if fits else train).extend(own)
    train, test = (sorted(some, key=lambda one: one.order) for some in (train, test))
    return train[:num_train], test[:num_test]


def write_rows(path: Path, rows: Iterator[dict[str, str]]) -> None:
    """Write rows as JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_set(output: Path, train: list[Function], test: list[Function]) -> None:
    """Write the rows to train on and the folder to measure on."""
    (output / "test" / "qrels").mkdir(parents=True, exist_ok=True)
    write_rows(
        output / "python.jsonl",
        ({"query": one.query, "positive": one.code, "package": one.package} for one in train),
    )
    names = [f"f{row}" for row in range(len(test))]
    both = list(zip(names, test, strict=True))
    corpus = ({"_id": name, "text": one.code} for name, one in both)
    write_rows(output / "test" / "corpus.jsonl", corpus)
    asked = ({"_id": f"q{name}", "text": one.query} for name, one in both)
    write_rows(output / "test" / "queries.jsonl", asked)
    lines = ["query-id\tcorpus-id\tscore", *(f"q{name}\t{name}\t1" for name in names)]
    (output / "test" / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("runs/code_set"))
    parser.add_argument("--train", type=int, default=20_000, help="functions to train on")
    parser.add_argument("--test", type=int, default=2000, help="functions to search")
    arguments = parser.parse_args()
    train, test = divide(every_function(), arguments.train, arguments.test)
    write_set(arguments.output, train, test)
    print(f"{len(train):,} functions to train on, {len(test):,} to search")


if __name__ == "__main__":
    run_main(main)
