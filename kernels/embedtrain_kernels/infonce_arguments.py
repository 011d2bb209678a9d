"""What the launches of the InfoNCE kernels are given, and the names under which a kernel takes it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """What is multiplied, and what makes logits of the products.

    Products of several sizes continue each other: those of size k end at coordinate ``bounds[k + 1]``.
    """

    anchor: Tensor
    """``[anchors, dim]``, a multiple of 16 wide and 16 elements apart, as ``candidate``."""
    candidate: Tensor
    scale: Tensor
    """``[sizes, anchors]`` float32: slope of a logit along its product (with ``candidate_scale``)."""
    log2_scale: Tensor
    """``[sizes, anchors]`` float32: a logit to base 2 over its product; larger than ``scale`` under hardness."""
    candidate_scale: Tensor | None = None
    """``[sizes, candidates]`` float32, further factors of both; only with ``segments``."""
    segments: tuple[tuple[int, int], ...] = ()
    """The coordinates that each size adds, multiples of 16; empty for one size of all coordinates."""

    @property
    def nested(self) -> bool:
        """Whether several sizes are looked at."""
        return bool(self.segments)

    @property
    def columns(self) -> list[tuple[int, int]]:
        """Return the coordinates that each size adds."""
        return list(self.segments) or [(0, self.anchor.shape[1])]

    def rows(self, begin: int, end: int) -> "Scores":
        """Return the same for a range of anchors."""
        return replace(
            self,
            anchor=self.anchor[begin:end],
            scale=self.scale[:, begin:end].contiguous(),
            log2_scale=self.log2_scale[:, begin:end].contiguous(),
        )

    def arguments(self, bounds: Tensor) -> dict[str, Tensor | int | bool]:
        """Return what both kernels take by these names."""
        filler = self.log2_scale
        return {
            "anchor": self.anchor,
            "candidate": self.candidate,
            "log2_scale": filler,
            "candidate_scale": filler if self.candidate_scale is None else self.candidate_scale,
            "bounds": bounds,
            "num_anchors": len(self.anchor),
            "num_candidates": len(self.candidate),
            "depth_end": self.anchor.shape[1],
            "num_sizes": len(self.log2_scale),
            "anchor_stride": self.anchor.stride(0),
            "candidate_stride": self.candidate.stride(0),
            "nested": self.nested,
        }

    def bounds(self) -> Tensor:
        """Return the coordinates where sizes begin and end, on the device (one launch per number)."""
        places = torch.empty(len(self.columns) + 1, dtype=torch.int32, device=self.anchor.device)
        for k, place in enumerate((0, *(stop for _, stop in self.columns))):
            places[k : k + 1].fill_(
                place
            )  # a tensor made from a list would be copied, and waited for
        return places


@dataclass(frozen=True)
class Candidates:
    """Which candidates are labels of an anchor and which may not be its negatives.

    Tensors are int32 and contiguous; lists may be of any length, ``-1`` fills them up.
    """

    labels: Tensor
    """``[anchors, labels]`` columns whose slopes come from the caller; they are no negatives."""
    relevant: Tensor | None = None
    """``[anchors, relevant]`` keys of candidates that are no negatives."""
    keys: Tensor | None = None
    """``[candidates]`` keys, at least 0; needed with ``relevant``."""
    anchor_keys: Tensor | None = None
    """``[anchors]`` keys, at least 0: those of ..."""
    answers: Tensor | None = None
    """``[candidates, answers]`` ... are no negatives, seen from the candidate's side."""
    ceiling: Tensor | None = None
    """``[anchors]`` float32: a candidate with a larger product is left out and counted as suspected."""
    counted: bool = False
    """Ask for the figures of the rows even if nothing else needs the guarded form."""

    @property
    def guarded(self) -> bool:
        """Whether the form with more masks and figures is needed."""
        return self.counted or self.answers is not None or self.ceiling is not None

    def rows(self, begin: int, end: int) -> "Candidates":
        """Return the same for a range of anchors."""
        cut = {
            name: None if value is None else value[begin:end]
            for name in ("labels", "relevant", "anchor_keys", "ceiling")
            for value in (getattr(self, name),)
        }
        return replace(self, **cut)

    def arguments(self) -> dict[str, Tensor | int | bool | None]:
        """Return what both kernels take by these names; labels stand where there is nothing."""
        filler = self.labels
        ceiling = self.ceiling
        if ceiling is None:
            ceiling = torch.full((len(filler),), torch.inf, device=filler.device)
        return {
            "labels": self.labels,
            "relevant": filler if self.relevant is None else self.relevant,
            "candidate_keys": filler if self.keys is None else self.keys,
            "anchor_keys": filler if self.anchor_keys is None else self.anchor_keys,
            "answers": filler if self.answers is None else self.answers,
            "ceiling": ceiling,
            "num_labels": self.labels.shape[1],
            "num_relevant": 0 if self.relevant is None else self.relevant.shape[1],
            "num_answers": 0 if self.answers is None else self.answers.shape[1],
            "guarded": self.guarded,
        }


@dataclass(frozen=True)
class NegativeSums:
    """What one pass over the scores knows about the negatives; logarithms to base 2."""

    row_maximum: Tensor
    """``[sizes, anchors]``, as all of the rows."""
    row_logsumexp: Tensor
    num_suspected: Tensor | None = None
    """Left out by the ceiling; this and the next two only in the guarded form."""
    number: Tensor | None = None
    logits: Tensor | None = None
    """Sum of the logits."""
    column_logsumexp: Tensor | None = None


@dataclass(frozen=True)
class Slopes:
    """The slopes of the loss along what the forward pass found, in float32.

    Log-sums (to base 2) are those of :class:`NegativeSums`, ``inf`` where there is no negative. Columns
    are ``None`` where candidates have no softmax of their own.
    """

    row_logsumexp: Tensor
    row: Tensor
    """``[sizes, anchors]`` along the natural log-sum of an anchor's negatives."""
    label: Tensor
    """``[sizes, anchors, labels]`` along the logits of the labels, in the order of ``Candidates.labels``."""
    constant: Tensor | None = None
    """``[anchors]`` along the logit of every negative alike (label smoothing)."""
    column_logsumexp: Tensor | None = None
    column: Tensor | None = None

    def largest(self) -> Tensor:
        """Return a bound of all slopes; not so small that dividing by it overflows."""
        slopes = (self.row, self.label, self.constant, self.column)
        peaks = [slope.abs().amax() for slope in slopes if slope is not None and slope.numel()]
        return torch.stack(peaks).sum().clamp_min(1e-30)

    def rows(self, begin: int, end: int) -> "Slopes":
        """Return the same for a range of anchors."""
        return replace(
            self,
            row_logsumexp=self.row_logsumexp[:, begin:end].contiguous(),
            row=self.row[:, begin:end].contiguous(),
            label=self.label[:, begin:end].contiguous(),
            constant=None if self.constant is None else self.constant[begin:end],
        )

    def scaled(self, factor: Tensor) -> "Slopes":
        """Return the same, multiplied; log-sums stay."""
        return replace(
            self,
            row=self.row * factor,
            label=self.label * factor,
            constant=None if self.constant is None else self.constant * factor,
            column=None if self.column is None else self.column * factor,
        )

    def arguments(self) -> dict[str, Tensor | bool]:
        """Return what the kernel takes by these names."""
        filler = self.row
        constant = torch.zeros_like(filler[0]) if self.constant is None else self.constant
        return {
            "row_logsumexp": self.row_logsumexp,
            "row_slope": self.row,
            "row_constant": constant,
            "label_slope": self.label,
            "column_logsumexp": filler if self.column_logsumexp is None else self.column_logsumexp,
            "column_slope": filler if self.column is None else self.column,
            "has_columns": self.column is not None,
        }
