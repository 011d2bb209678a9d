"""Headings of plain text that are told by a line of marks below them, as reStructuredText and Setext have them."""

import re

from embedtrain.data.documents.document import Heading

UNDERLINED = re.compile(
    r"^(?:(?P<over>[^\w\s])(?P=over){2,}[ \t]*\n[ \t]*)?(?P<text>\S[^\n]*)\n"
    r"(?P<mark>[=\-~^\"*#+.:_`'])(?P=mark){2,}[ \t]*$",
    re.MULTILINE,
)
LONGEST_HEADING = 100
"""Characters; what is longer is a paragraph above a rule."""
SHORTEST_RULE = 0.7
"""Length of the marks, as a share of the heading's: many are off by a few."""


def underlined_headings(text: str) -> tuple[Heading, ...]:
    """Return the headings in the order of a text; a kind of marks is a level, in the order of their first use."""
    levels: dict[str, int] = {}
    found = []
    for one in UNDERLINED.finditer(text):
        name = one["text"].strip()
        rule = one.end() - one.start("mark")
        above = text[: one.start()].rstrip(" \t")
        alone = not above or above.endswith("\n\n") or one["over"] is not None
        if alone and len(name) <= LONGEST_HEADING and rule >= SHORTEST_RULE * len(name):
            kind = f"{one['over'] or ''}{one['mark']}"
            level = levels.setdefault(kind, len(levels) + 1)
            found.append(Heading(level, name, one.start(), one.end()))
    return tuple(found)
