"""Requests that are not answered: why, in words, and under which status each family of clients expects it."""

from math import ceil
from typing import Any, Literal

from embedtrain.errors import one_line

Kind = Literal[
    "validation",
    "empty",
    "unauthorized",
    "forbidden",
    "unknown",
    "method",
    "slow",
    "too_large",
    "overloaded",
    "backend",
    "unhealthy",
    "expired",
]
"""Why a request is refused; metrics count by it."""
STATUSES: dict[Kind, int] = {
    "validation": 400,
    "empty": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown": 404,
    "method": 405,
    "slow": 408,
    "too_large": 413,
    "overloaded": 429,
    "backend": 500,
    "unhealthy": 503,
    "expired": 503,
}
OF_TEI: dict[Kind, int] = {"validation": 422, "backend": 424}
"""Where text-embeddings-inference answers by another status."""
TEI_PATHS = frozenset({"/embed", "/embed_all", "/embed_sparse", "/tokenize", "/info"})
TYPES: dict[Kind, str] = {
    "unauthorized": "authentication_error",
    "forbidden": "permission_error",
    "unknown": "not_found_error",
    "overloaded": "rate_limit_error",
    "backend": "server_error",
    "unhealthy": "service_unavailable",
    "expired": "service_unavailable",
}
"""OpenAI's name of a kind; the others are invalid requests."""


class Refusal(Exception):  # noqa: N818 - what a client is told; often it is not at fault
    """A request that is not answered.

    Args:
        kind: Why.
        message: Why, in words that never repeat a text of the request.
        param: The field of the request that is at fault.
        retry_seconds: After how long another try may be taken.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.param = kind, param
        self.retry_seconds = retry_seconds

    def status(self, path: str) -> int:
        """Return the status of the answer, as clients of this route expect it."""
        own = OF_TEI.get(self.kind) if path in TEI_PATHS else None
        return own or STATUSES[self.kind]

    def content(self, path: str) -> dict[str, Any]:
        """Return the answer's content, in the form of text-embeddings-inference on its routes, else in OpenAI's."""
        message = one_line(str(self))
        if path in TEI_PATHS:
            return {"error": message, "error_type": self.kind}
        kind = TYPES.get(self.kind, "invalid_request_error")
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.kind}}

    def headers(self) -> dict[str, str]:
        """Return the headers that say what to do next."""
        found = {}
        if self.retry_seconds is not None:
            found["retry-after"] = str(max(1, ceil(self.retry_seconds)))
        if self.kind == "unauthorized":
            found["www-authenticate"] = "Bearer"
        return found
