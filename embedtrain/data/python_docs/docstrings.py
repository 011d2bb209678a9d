"""One Python file -> pairs of a sentence and what it describes, by parsing; nothing is imported or run."""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc

from embedtrain.data.python_docs.docstring_text import (
    first_sentence,
    is_boilerplate,
    normalize,
    plain,
    shorten,
    split_signature,
)

SIGNATURE_LENGTH = 240
DOCUMENT_LENGTH = 1000
REST_LENGTH = 40
BODY_LENGTH = 60
TRAILING_COMMENT = re.compile(r"(?:^|\s+)#[^'\"]*$")
LINE_END = re.compile(r"\r\n?|\n")
"""Python's line ends; ``splitlines`` would also split at form feeds."""
DEFINITION = re.compile(r"^(?:async )?(?:def|class) \w+")
DOC_ADDERS = frozenset({"add_docstr", "add_newdoc"})

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class DocumentedObject:
    """A sentence that describes an object (the query), and the object without it (the document)."""

    name: str
    query: str
    document: str


def documented_objects(source: bytes, module: str) -> Iterator[DocumentedObject]:
    """Yield what a file documents, in its order.

    Raises:
        SyntaxError, ValueError, RecursionError: the file is no Python of this version.
    """
    if b'"""' not in source and b"'''" not in source:
        return  # parsing is most of the time, and a docstring on one line has no rest
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        tree = ast.parse(source)
    lines = LINE_END.split(source.decode("utf-8", errors="replace"))
    yield from _walk(tree, public_name(module), lines)


def public_name(module: str) -> str:
    """Drop private parts: what ``scipy.signal._peaks`` defines is known as ``scipy.signal``'s."""
    parts = module.split(".")
    return ".".join([parts[0], *(part for part in parts[1:] if not part.startswith("_"))])


def _walk(node: ast.AST, name: str, lines: list[str]) -> Iterator[DocumentedObject]:
    if isinstance(node, Documented) and (found := _describe(node, name, lines)):
        yield found
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return  # what stands inside is local
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not (child.name.startswith("__") and child.name.endswith("__")):
                yield from _walk(child, f"{name}.{child.name}", lines)
        elif isinstance(child, ast.If | ast.Try):
            yield from _walk(child, name, lines)
        elif isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
            yield from _added(child.value, name)


def _describe(node: Documented, name: str, lines: list[str]) -> DocumentedObject | None:
    if not node.body or not isinstance(docstring := _constant(node.body[0]), str):
        return None
    signature, text = split_signature(cleandoc(docstring))
    query, prose = first_sentence(text)
    rest = plain(prose)
    needs_rest = isinstance(node, ast.Module) or name.rpartition(".")[2].startswith("_")
    if len(rest) < REST_LENGTH:
        if needs_rest:
            return None
        rest = f"{rest}\n{_body(node, lines)}".strip()
        if len(rest) < BODY_LENGTH:
            return None
    if not isinstance(node, ast.Module):
        signature = signature_of(node, lines)
    return _pair(name, query, signature, rest)


def _constant(statement: ast.stmt) -> object:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) else None


def _pair(name: str, query: str, signature: str, rest: str) -> DocumentedObject | None:
    query = plain(query).rstrip(" .:")
    if is_boilerplate(query):
        return None
    if normalize(query) in normalize(rest):
        return None
    document = shorten(f"{name}{signature}\n{rest}", DOCUMENT_LENGTH)
    # A docstring may spell half a surrogate pair, which no tokenizer takes.
    return DocumentedObject(name, query, document.encode("utf-8", "replace").decode())


def signature_of(node: Documented, lines: list[str]) -> str:
    """Return the text between a definition's name and its colon, on one line.

    Taken from the source rather than unparsed, which is slower and loses how the author wrote it.
    """
    assert not isinstance(node, ast.Module)
    header_lines = lines[node.lineno - 1 : node.body[0].lineno - 1]
    header = " ".join(TRAILING_COMMENT.sub("", line).strip() for line in header_lines)
    text = DEFINITION.sub("", re.sub(r"\s+", " ", header)).strip().rstrip(":")
    text = text.replace("( ", "(").replace(", )", ")").replace(" )", ")")
    return shorten(text, SIGNATURE_LENGTH)


def _body(node: Documented, lines: list[str]) -> str:
    """Return the start of the source after the docstring, without its indentation."""
    if len(node.body) < 2 or isinstance(node.body[1], ast.Pass | ast.Raise):
        return ""
    start = (node.body[0].end_lineno or 0) + 1
    body = lines[start - 1 : node.body[-1].end_lineno]
    return shorten(cleandoc("\n" + "\n".join(body)), DOCUMENT_LENGTH)


def _added(call: ast.Call, module: str) -> Iterator[DocumentedObject]:
    """Read a docstring that is added to compiled code, as NumPy, SciPy and PyTorch do."""
    function = call.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if called not in DOC_ADDERS or len(call.args) < 2:
        return
    *owners, documentation = call.args
    path = [_dotted(owner) for owner in owners]
    if isinstance(documentation, ast.Tuple) and len(documentation.elts) == 2:
        path.append(_dotted(documentation.elts[0]))
        documentation = documentation.elts[1]
    text = _text(documentation)
    if text is None or not all(path):
        return
    name = ".".join(path) if "." in path[0] else f"{module}.{'.'.join(path)}"
    signature, text = split_signature(cleandoc(text))
    query, prose = first_sentence(text)
    rest = plain(prose)
    if len(rest) >= REST_LENGTH and (found := _pair(public_name(name), query, signature, rest)):
        yield found


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def _text(node: ast.expr) -> str | None:
    """Return a constant text, or the template of ``text.format(...)`` with its fields removed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        template = _text(node.func.value)
        return None if template is None else re.sub(r"\{\w*\}", "", template)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return (left or "") + (right or "") if left or right else None
    return None
