"""Counts and times of a server, in the text form that Prometheus reads. Used by the event loop alone."""

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TOKENS = (16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0)
"""Upper bounds of the bins of histograms."""


class Counter:
    """A number for each combination of labels; their values come from short lists, so their number is bounded."""

    def __init__(self, name: str, told: str, *labels: str, kind: str = "counter") -> None:
        self.name, self.told, self.labels, self.kind = name, told, labels, kind
        self.values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, by: int | float = 1) -> None:
        """Count."""
        self.values[labels] = self.values.get(labels, 0.0) + by

    def set(self, value: int | float, *labels: str) -> None:
        """Say how much there is now, of a gauge."""
        self.values[labels] = value

    def lines(self) -> list[str]:
        """Return the lines of the page."""
        found = _head(self.name, self.told, self.kind)
        for labels, value in sorted(self.values.items()):
            found.append(f"{self.name}{_labels(self.labels, labels)} {value:.10g}")
        return found


class Histogram:
    """How many values lie below each bound."""

    def __init__(self, name: str, told: str, bounds: Sequence[float] = SECONDS) -> None:
        self.name, self.told, self.bounds = name, told, bounds
        self.bins = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: int | float) -> None:
        """Count a value."""
        self.bins[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self) -> list[str]:
        """Return the lines of the page."""
        found, below = _head(self.name, self.told, "histogram"), 0
        for bound, number in zip((*self.bounds, "+Inf"), self.bins, strict=True):
            below += number
            edge = bound if isinstance(bound, str) else f"{bound:g}"
            found.append(f"{self.name}_bucket{_labels(('le',), (edge,))} {below}")
        return [*found, f"{self.name}_sum {self.total:.10g}", f"{self.name}_count {below}"]


class Metrics:
    """All that a server counts."""

    def __init__(self) -> None:
        self.requests = Counter(
            "embedtrain_requests_total", "Requests that were answered.", "route", "status"
        )
        self.rejected = Counter(
            "embedtrain_rejected_total", "Requests that were refused.", "reason"
        )
        self.texts = Counter("embedtrain_texts_total", "Texts asked for.", "side")
        self.tokens = Counter("embedtrain_tokens_total", "Tokens asked for.")
        self.computed = Counter("embedtrain_computed_tokens_total", "Tokens that were computed.")
        self.truncated = Counter("embedtrain_truncated_total", "Texts that were cut.")
        self.running = Counter("embedtrain_requests_running", "Requests under way.", kind="gauge")
        self.held = Counter("embedtrain_held_bytes", "Bytes of requests under way.", kind="gauge")
        self.waiting = Counter("embedtrain_queue_tokens", "Tokens that wait.", kind="gauge")
        self.batch = Histogram("embedtrain_batch_tokens", "Tokens computed at once.", TOKENS)
        self.queued = Histogram("embedtrain_queue_seconds", "From arrival to the first batch.")
        self.tokenized = Histogram("embedtrain_tokenize_seconds", "Making token ids of a request.")
        self.encoded = Histogram("embedtrain_encode_seconds", "Computing a batch.")
        self.request = Histogram("embedtrain_request_seconds", "A whole request.")

    def text(self) -> str:
        """Return the page."""
        return "\n".join([*(line for one in vars(self).values() for line in one.lines()), ""])


def _head(name: str, told: str, kind: str) -> list[str]:
    return [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    pairs = [f'{name}="{escaped(value)}"' for name, value in zip(names, values, strict=True)]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def escaped(value: str) -> str:
    r"""Return the value of a label with ``\``, ``"`` and ends of lines written as the format wants them."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
