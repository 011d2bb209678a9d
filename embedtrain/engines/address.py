"""Addresses of collections: ``qdrant://localhost:6333/docs``, ``lancedb://./folder/docs?index=hnsw``."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from embedtrain.errors import UserError
from embedtrain.redaction import SECRET_OPTION, redact

LOCAL = ("/", ".", "~")
"""How a folder begins, where an address could also name a host."""
POSTGRES = frozenset({"postgresql", "postgres"})
"""Servers without a folder: ``postgresql:///DATABASE?host=/run/postgresql``."""
SERVERS = POSTGRES | {"qdrant", "qdrant+https", "milvus"}
"""Engines whose address may hold a user and password."""


@dataclass(frozen=True)
class Address:
    """An address in its parts: ``scheme://server/collection?options``."""

    scheme: str
    server: str
    """A host and port, or a folder."""
    collection: str
    options: dict[str, str]

    @property
    def place(self) -> str:
        """The address as messages name it: without options and password."""
        return redact(f"{self.scheme}://{self.server.rstrip('/')}/{self.collection}")

    @property
    def is_local(self) -> bool:
        """Whether it names a folder and no host."""
        return not self.server or self.server.startswith(LOCAL)

    @property
    def folder(self) -> Path:
        """The folder that the part before the collection names."""
        return Path(self.server or ".").expanduser()

    def option(self, name: str, choices: Collection[str], otherwise: str) -> str:
        """Return the value of an option.

        Raises:
            UserError: If it is none of the choices.
        """
        value = self.options.get(name, otherwise)
        if value not in choices:
            cure = f"Choose from {', '.join(choices)}"
            raise UserError(f"{self.place} {name}", "is unknown", got=value, cure=cure)
        return value

    def refuse_unknown(self, *known: str) -> None:
        """Refuse options that the engine does not have.

        Raises:
            UserError: If there are some.
        """
        unknown = [name for name in self.options if name not in known]
        if unknown:
            cure = f"Options of this engine: {', '.join(known) or 'none'}"
            raise UserError(self.place, "has an unknown option", got=unknown[0], cure=cure)


def is_address(text: str) -> bool:
    """Whether a text names a collection of an engine."""
    return "://" in text


def parse_address(url: str, schemes: Collection[str]) -> Address:
    """Take an address apart.

    Raises:
        UserError: If its engine is unknown, it names no collection, or it holds a secret where it would be shown.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme not in schemes:
        cure = f"Write ENGINE://PLACE/COLLECTION with one of {', '.join(schemes)}"
        raise UserError(redact(url), "names no engine", got=scheme, cure=cure)
    path, _, query = rest.partition("?")
    server, _, collection = path.rstrip("/").rpartition("/")
    if path.startswith("/") and not server and scheme not in POSTGRES:
        server = "/"
    name = unquote(collection)
    is_host = not server and (path.endswith("/") or ":" in name)  # ``localhost:6333/``
    if not name or name.startswith(".") or "/" in name or is_host:
        cure = f"Write {scheme}://PLACE/COLLECTION"
        raise UserError(redact(url), "names no collection", cure=cure)
    if scheme in SERVERS and not path.startswith(LOCAL):
        _refuse_unclear(url, path)
    # As libpq reads it: a plus is no space.
    options = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    for option in filter(SECRET_OPTION.fullmatch, options):
        cure = "Give it in PGPASSWORD, QDRANT_API_KEY or MILVUS_TOKEN"
        raise UserError(redact(url), "holds a secret", got=option, cure=cure)
    return Address(
        scheme,
        unquote(server) if server.startswith(LOCAL) else server,
        name,
        options,
    )


def _refuse_unclear(url: str, path: str) -> None:
    """Refuse a user or password that cannot be told from the host, and so would be shown."""
    user = path.rpartition("@")[0]
    if "/" in user or "@" in user:
        raise UserError(
            redact(url), "has a / or a second @ before its last @",
            cure="Write / as %2F and @ as %40, or give the password in PGPASSWORD",
        )  # fmt: skip
