"""What a server takes on, and how long it waits."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from embedtrain.section import Count, Section


class ServeSettings(Section):
    """Limits of a server. What lies beyond one is answered by 413, 429 or 503, never kept."""

    max_body_bytes: Count = 2_000_000
    """Bytes of a request."""
    max_texts: Count = 2_048
    """Texts of a request."""
    max_request_tokens: Count = 300_000
    """Tokens of all texts of a request, after they were cut to the model's length."""
    max_requests: Count = 512
    """Requests under way at once."""
    max_connections: Count = 1_024
    """Open connections."""
    max_held_bytes: Count = 512 * 2**20
    """Bytes of all requests and answers that are under way."""
    queue_tokens: Count = 1_000_000
    """Tokens that wait to be computed."""
    batch_tokens: Count = 4_096
    """Tokens computed at once: fewer answer sooner, more keep a GPU busy."""
    wait_seconds: NonNegativeFloat = 0.002
    """How long an idle model waits for company when less than a quarter of a batch is there."""
    request_seconds: PositiveFloat = 120.0
    """For a whole request."""
    head_seconds: PositiveFloat = 10.0
    """For the head of a request, and for a new connection to send one."""
    read_seconds: PositiveFloat = 10.0
    """Between two pieces of a body that arrive, or of an answer that a client takes."""
    body_seconds: PositiveFloat = 30.0
    """For a whole body."""
    grace_seconds: NonNegativeFloat = 20.0
    """For requests that are under way when the server is told to stop."""
    page_texts: int = Field(default=500, ge=1)
    """Documents that a visitor of the page may type."""
    dimensions: tuple[Count, ...] | Literal["any"] = ()
    """Sizes to which clients may have vectors cut: those that the model was trained for."""
