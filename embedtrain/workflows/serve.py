"""Workflow: a model answers requests until it is told to stop."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain.errors import UserError, missing_extra
from embedtrain.files import default_cache
from embedtrain.precision import Precision
from embedtrain.serving.settings import ServeSettings
from embedtrain.units import show_bytes

if TYPE_CHECKING:
    from embedtrain.serving.desk import Desk
    from embedtrain.serving.page.board import Collection

TOKEN = "EMBEDTRAIN_SERVE_TOKEN"
"""Environment variable: the bearer token. Not a flag: every user of a machine sees the flags of all processes."""
PACKAGES = ("fastapi", "uvicorn", "httptools", "orjson")


@dataclass(frozen=True)
class Serving:
    """What is served, and to whom.

    Args:
        models: Model folders or Hub ids; the first answers where a request names none.
        names: Their names in requests; those of their folders where there are fewer.
        host: Address that is listened on.
        port: 0 takes a free one.
        allow_hosts: Names by which a proxy on this machine calls the server, beside this machine's own.
        data: What the page searches: a BEIR folder, ``python_docs`` or a file of documents; None lets visitors type.
        split: Split of ``data``, where it has splits.
        token_file: Holds the bearer token; None takes the environment variable's, if there is one.
        no_token: Whether others than this machine may ask without one.
        open_metrics: Whether ``/metrics`` asks for no token.
        page: Whether there is a page at ``/``.
        check: Whether to end once all has been loaded and has computed.
        precision: What networks compute in.
        threads: Threads that compute; None leaves one core to the event loop.
        settings: Limits.
    """

    models: Sequence[str]
    names: Sequence[str] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    allow_hosts: Sequence[str] = ()
    data: str | None = None
    split: str | None = None
    token_file: Path | None = None
    no_token: bool = False
    open_metrics: bool = False
    page: bool = True
    check: bool = False
    precision: Precision = "auto"
    threads: int | None = None
    settings: ServeSettings = field(default_factory=ServeSettings)


def serve(wish: Serving, tell: Callable[[str], None]) -> None:
    """Load models, answer requests until a signal comes, end what is under way.

    ``tell`` gets a line once requests are answered.

    Raises:
        UserError: If a package is missing, the port is taken, a model or data cannot be used, or the server would be
            open to others without a token.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise missing_extra(package, "serve", "to serve")
    from embedtrain.serving.app import build_app, open_paths
    from embedtrain.serving.guard import Door, own_names
    from embedtrain.serving.page.board import Board
    from embedtrain.serving.page.page import Page
    from embedtrain.serving.server import address_of, bound_socket
    from embedtrain.serving.server import serve as run

    token, hosts = read_token(wish.token_file), own_names(wish.host)
    if token is None and not hosts and not wish.no_token:
        cure = f"Put a token into {TOKEN} or --token-file, or say --no-token"
        raise UserError("--host", "lets others ask without a token", got=wish.host, cure=cure)
    taken = bound_socket(wish.host, wish.port)  # before minutes of loading
    with taken:
        desk = open_desk(wish)
        page = Page(Board(desk, _collection(wish, desk))) if wish.page else None
        paths = open_paths(metrics=wish.open_metrics, page=wish.page)
        app = build_app(
            desk, Door(token, hosts and hosts | frozenset(wish.allow_hosts), paths), page
        )
        address = address_of(taken)
        if wish.check:
            tell(f"{_told(wish, desk)}. It can be served at {address}")
            return
        run(app, desk, taken, lambda: tell(f"{_told(wish, desk)}. Listening on {address}"))


def read_token(path: Path | None) -> bytes | None:
    """Return the bearer token from a file or the environment; None if there is none.

    Raises:
        UserError: If it is empty or has characters that no header holds.
    """
    from embedtrain.outside import reading

    place, given = TOKEN, os.environ.get(TOKEN)
    if path is not None:
        place = str(path)
        with reading(path):
            given = path.read_text(encoding="utf-8")
    if given is None:
        return None
    token = given.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        cure = "Write letters, digits and signs, without spaces"
        raise UserError(place, "is no token", cure=cure)
    return token.encode()


def open_desk(wish: Serving) -> "Desk":
    """Load the models and let each compute once.

    Raises:
        UserError: If one cannot be used, or two have one name.
    """
    import torch

    from embedtrain.serving.desk import Desk
    from embedtrain.serving.metrics import Metrics
    from embedtrain.serving.served import open_served

    torch.set_num_threads(wish.threads or max(1, torch.get_num_threads() - 1))
    # Between two operations the thread that computes waits for whoever runs Python: 5 ms by default.
    sys.setswitchinterval(0.0005)
    names = [*wish.names, *[None] * len(wish.models)]
    models = [
        open_served(path, name, wish.precision, wish.settings.batch_tokens)
        for path, name in zip(wish.models, names, strict=False)
    ]
    return Desk(models, wish.settings, Metrics())


def _collection(wish: Serving, desk: "Desk") -> "Collection | None":
    """Return the documents that the page searches, with their vectors."""
    if wish.data is None:
        return None
    from embedtrain.encoding.cache import embed_once, model_key
    from embedtrain.serving.page.board import Collection
    from embedtrain.serving.served import ServedEncoder
    from embedtrain.workflows.search import documents_of

    texts, ids, _ = documents_of(wish.models[0], wish.data, wish.split)
    found = Collection(texts, ids)
    if not wish.page:
        return found
    for number, served in enumerate(desk.models):
        if isinstance(served, ServedEncoder):
            key, cache = model_key(served.model), default_cache()
            found.vectors[number] = embed_once(
                served.model, key, texts, "document", cache, precision=wish.precision
            )
            served.warm_up()
    return found


def _told(wish: Serving, desk: "Desk") -> str:
    settings = desk.settings
    held = show_bytes(settings.max_held_bytes + 8 * settings.queue_tokens)
    names = ", ".join(f"{one.name} ({one.kind})" for one in desk.models)
    ways = "with its page" if wish.page else "without a page"
    return f"{names}, {ways}; requests take {held} of memory at most"
