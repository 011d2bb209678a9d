"""The prose of docstrings: its first sentence, its markup, and what says nothing."""

import re

MIN_QUERY_WORDS = 5
MAX_QUERY_WORDS = 40
MAX_QUERY_LENGTH = 250
MIN_LETTER_RATIO = 0.75

SIGNATURE = re.compile(r"[\w.]+(\(.*\)(?:\s*->.*)?)")
SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bvs)(?<!\bcf)[.!?](?=\s|$)")
FIRST_LINE_ONLY = re.compile(
    r"^\s*(?::\w|\.\. |@\w|>>>|[-=~*+]{3,}|Args:|Parameters\b|Returns?:|Examples?\b)"
)

ROLE = re.compile(r":(?:[\w-]+:)*[\w-]+:`([^`]+)`")
ROLE_TARGET = re.compile(r"^(.*?)\s*<[^<>]*>$", re.DOTALL)
LINK = re.compile(r"\[([^\]\n]+)\]\([^)\s]+\)")
REFERENCE = re.compile(r"\[`~?([^`\n]+)`\]")
QUOTED = re.compile(r"(`{1,2})([^`\n]+)\1_{0,2}")
STRONG = re.compile(r"(?<!\w)(\*{1,2})(?=\S)([^*\n]+)(?<=\S)\1(?!\w)")
RULE = re.compile(r"^[ \t]*[-=~^*\"#]{3,}[ \t]*\n", re.MULTILINE)
BLANK_LINES = re.compile(r"\n\s*\n+")

SAYS_NOTHING = re.compile(
    r"""\b(?:deprecated|todo|fixme|xxx|boilerplate|auto-?generated|docstring|copyright|licen[cs]ed?
    |unit\s?tests?|test\s(?:case|that|the|if|for)|not\simplemented|placeholder|stub|legacy
    |backwards?[\s-]compatib\w+|do\snot\suse|internal\suse|private\smethod|overrid(?:e|es|den)\b)\b
    |^(?:see\b|same\sas\b|alias\b|like\s|wrapper\s(?:for|around)|equivalent\sto|inherit\w*|mixin\sfor|implements?\s`?\w+`?$
    |initiali[sz]es?\s(?:the|a|an|this|self)|constructor\b|base\sclass|abstract\sbase|subclass(?:es)?|helper\b
    |this\s(?:is|was|has|can|may|will|should|corresponds|method|function|class|module|file|property|helper)\b|note\b|warning\b|usage\b|example|returns?\sself\b|returns?\sthe\sstring
    |[\w,\s]{1,40}\([^)]*\)[^:]{0,12}:|:\w|[\w\s]{1,20}:\s|.*(?:https?://|=)
    |args?\b|param\w*\b|http|import\s|from\s\w+\simport)
    """,
    re.IGNORECASE | re.VERBOSE,
)


def split_signature(docstring: str) -> tuple[str, str]:
    """Take off a signature that stands in the first line, as docstrings of compiled code have it."""
    first, _, rest = docstring.strip().partition("\n")
    match = SIGNATURE.fullmatch(first.strip())
    return (match[1], rest.strip()) if match and rest.strip() else ("", docstring.strip())


def first_sentence(text: str) -> tuple[str, str]:
    """Split a docstring into its first sentence, on one line, and the rest."""
    paragraph, _, rest = (text + "\n").partition("\n\n") if "\n\n" in text else (text, "", "")
    lines = paragraph.splitlines()
    for number, line in enumerate(lines[1:], 1):
        if FIRST_LINE_ONLY.match(line):
            rest = "\n".join(lines[number:]) + "\n\n" + rest
            lines = lines[:number]
            break
    paragraph = " ".join(line.strip() for line in lines)
    end = SENTENCE_END.search(paragraph)
    if not end:
        return paragraph.strip(), rest.strip()
    tail = paragraph[end.end() :].strip()
    return paragraph[: end.start()].strip(), f"{tail}\n\n{rest}".strip()


def plain(text: str) -> str:
    """Take off the markup of reStructuredText and Markdown, keep its words."""
    text = ROLE.sub(_role_text, text)
    text = LINK.sub(r"\1", text)
    text = REFERENCE.sub(r"\1", text)
    text = QUOTED.sub(r"\2", text)
    text = STRONG.sub(r"\2", text)
    text = RULE.sub("", text)
    return BLANK_LINES.sub("\n", text).strip()


def _role_text(match: re.Match[str]) -> str:
    text = match[1]
    if target := ROLE_TARGET.match(text):
        return target[1]
    return text[1:].rpartition(".")[2] if text.startswith("~") else text.lstrip("!")


def normalize(text: str) -> str:
    """Keep lower-case words only, one space between them: two such texts are equal for a reader."""
    return " ".join(re.findall(r"\w+", text.lower()))


def is_boilerplate(query: str) -> bool:
    """Tell a sentence that nobody would search for: too short, too long, no prose, or says nothing."""
    words = query.split()
    if not MIN_QUERY_WORDS <= len(words) <= MAX_QUERY_WORDS or len(query) > MAX_QUERY_LENGTH:
        return True
    letters = sum(character.isalpha() or character == " " for character in query)
    if letters < MIN_LETTER_RATIO * len(query) or not query.isascii():
        return True
    return bool(SAYS_NOTHING.search(query))


def shorten(text: str, length: int) -> str:
    """Cut at the last space before ``length``, in a word only if there is none."""
    if len(text) <= length:
        return text
    return re.sub(r"\s\S*$", "", text[:length]).rstrip()
