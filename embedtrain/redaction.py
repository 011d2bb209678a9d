"""Takes tokens and passwords out of what is printed, logged or kept."""

import os
import re

SECRET_NAME = re.compile(r"(TOKEN|API_KEY|ACCESS_KEY|SECRET|PASSWORD|PASSWD)$")
"""Environment variables whose values are secret: HF_TOKEN, WANDB_API_KEY, AWS_SECRET_ACCESS_KEY."""
SHORTEST = 6
"""Characters; a shorter value (``true``) would be found in ordinary words."""
IN_URL = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)(?:[^\s/@:'\"]{0,99}:[^\s'\"]{0,299}|[^\s/'\"]{1,299})@"
)
"""A password may hold ``/`` or ``@``, though it should not. All parts are bounded: else the time grows with the square
of a long word."""
OPTION = r"[\w-]*(?:passw(?:or)?d|pwd|token|api[_-]?key|secret)"
SECRET_OPTION = re.compile(OPTION, re.IGNORECASE)
"""Options of an address whose values are secret: ``password``, ``sslpassword``, ``api_key``."""
IN_QUERY = re.compile(rf"([?&](?:{OPTION}|key)=)[^&\s'\"]+", re.IGNORECASE)
LOOKS_SECRET = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9-]{20,})"
)
HIDDEN = "***"


def redact(text: str) -> str:
    """Return the text with ``***`` in the place of secrets.

    These are the values of environment variables that are named like secrets, the user and password in URLs, and
    their secret options, and words in the form of access tokens.
    """
    for name, padded in os.environ.items():
        value = padded.strip()  # a secret is sent without what surrounds it
        if len(value) >= SHORTEST and SECRET_NAME.search(name.upper()):
            text = text.replace(value, HIDDEN)
    text = IN_QUERY.sub(rf"\1{HIDDEN}", IN_URL.sub(rf"\1{HIDDEN}@", text))
    return LOOKS_SECRET.sub(HIDDEN, text)
