"""YAML from outside: texts, plain numbers, lists and mappings, bounded in size, depth and expansion.

What YAML knows beyond that has no use in a recipe and surprises: a date stays the text it is, tags are refused,
a key that stands twice as well.
"""

import math
import re
from collections.abc import Hashable
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, cast

import yaml

from embedtrain.errors import UserError
from embedtrain.outside import reading

LARGEST_FILE = 1 << 20
"""Bytes; the longest recipe of the package has some thousands."""
DEEPEST = 64
"""Lists and mappings inside each other."""
MOST_VALUES = 30_000
"""Values of a file, those that an alias repeats counted each time."""
LARGEST_NUMBER = 2**63
NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")
PLAIN = frozenset(
    f"tag:yaml.org,2002:{kind}"
    for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)


class _Refused(yaml.MarkedYAMLError):
    """What YAML allows and a recipe does not."""


class _Loader(yaml.SafeLoader):
    """Composes and constructs; each value is looked at on the way."""

    depth = values = 0
    yaml_implicit_resolvers = {  # noqa: RUF012 - as yaml declares it
        first: [one for one in found if one[0] != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self.depth, self.values = self.depth + 1, self.values + 1
        if self.depth > DEEPEST:
            raise _refuse(mark, f"more than {DEEPEST} levels inside each other")
        if self.values > MOST_VALUES:
            raise _refuse(mark, f"more than {MOST_VALUES:,} values")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag not in PLAIN:
            raise _refuse(node.start_mark, f"the tag {node.tag} has no use here")
        return node

    def construct_mapping(
        self, node: yaml.MappingNode | yaml.SequenceNode, deep: bool = False
    ) -> dict[Hashable, Any]:
        seen = set()
        # Of a list that its tag calls a mapping yaml itself says what is wrong.
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                raise _refuse(key.start_mark, "a key must be a text: put it into quotes")
            if key.value in seen:
                raise _refuse(key.start_mark, f"the key {key.value} stands twice")
            seen.add(key.value)
        return super().construct_mapping(cast(yaml.MappingNode, node), deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:  # noqa: ANN401 - as yaml declares it
        value = super().construct_scalar(node)
        if isinstance(value, str) and NO_TEXT.search(value):
            raise _refuse(node.start_mark, "a text with NUL or half of a surrogate pair")
        return value

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        is_whole = node.tag.endswith("int")
        try:
            value = self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)
        except ValueError:  # a tag that does not fit; more digits than Python reads
            raise _refuse(node.start_mark, "this is no number, or one of too many digits") from None
        if not abs(value) < (LARGEST_NUMBER if is_whole else math.inf):  # of NaN nothing is true
            raise _refuse(node.start_mark, "a number must be finite, a whole one of 64 bits")
        return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


def read_text(path: Path) -> str:
    """Read a file of at most 1 MiB as UTF-8; a byte order mark is dropped.

    Raises:
        UserError: If it is larger, no UTF-8, no file (a pipe would be waited for), or cannot be read.
    """
    with reading(path, cure="Name a file of yours"):
        mode = path.stat().st_mode
        if not S_ISREG(mode) and not S_ISDIR(mode):
            raise UserError(path, "is a pipe or a device", cure="Name a file")
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            cure = "Is it a file of data? Put its path into a recipe"
            raise UserError(path, "is larger than 1 MiB, too large for a recipe", cure=cure)
        return content.decode("utf-8-sig")


def parse(place: str, text: str) -> tuple[Any, yaml.Node | None]:
    """Return what YAML says, and its nodes, which know their lines; ``place`` is named in errors.

    Raises:
        UserError: If it is no YAML, or goes beyond what this module says.
    """
    with reading(place, cure="Correct the value"):
        try:
            loader = _Loader(text)  # which looks at all characters
            root = loader.get_single_node()
            if root is None:
                return None, None
            if _size(root, {}) > MOST_VALUES:
                raise _refuse(root.start_mark, f"aliases make more than {MOST_VALUES:,} values")
            return loader.construct_document(root), root
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            problem = str(error).splitlines()[0]
            raise UserError(f"{place}:{line}", f"is not valid YAML ({problem})") from error
        except yaml.MarkedYAMLError as error:
            where = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
            what = "cannot be used" if isinstance(error, _Refused) else "is not valid YAML"
            cure = "Indent with spaces" if "'\\t'" in (error.problem or "") else ""
            raise UserError(f"{place}{where}", f"{what} ({error.problem})", cure=cure) from error


def _size(node: yaml.Node, known: dict[int, float | int]) -> float | int:
    """Count the values below a node as if aliases were written out; infinite if it holds itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf  # while it is open
        inner = [
            one for part in node.value for one in (part if isinstance(part, tuple) else [part])
        ]
        known[id(node)] = 1 + sum(_size(one, known) for one in inner)
    return known[id(node)]


def _refuse(mark: yaml.Mark, problem: str) -> _Refused:
    return _Refused(None, None, problem, mark)
