"""Plots: a mark on the axis of steps is a whole number."""

import re

from embedtrain.evaluation.results.plots import draw_curve

MARK = re.compile(r">(\d+\.\d+)<")


def test_no_mark_stands_at_half_a_step():
    steps = [(0, 1.0), (5, 2.0), (12, 2.0), (20, 3.0)]
    assert "2.5" in MARK.findall(
        draw_curve([(float(step), 1.0) for step, _ in steps], "loss", "share")
    )
    assert not MARK.findall(
        draw_curve([(step, 10 * value) for step, value in steps], "loss", "step")
    )
