"""Whether attention is the mechanism of a trained model or its decoration: tests, each with a verdict.

Nothing here proves an explanation. Each test says what it shows and what it does not; see docs/doubt.md.
"""

from hgat.explain.doubt.battery import TESTS, battery
from hgat.explain.doubt.curves import curves
from hgat.explain.doubt.outcome import Curve, Doubt, Doubts, draw_curves
from hgat.explain.doubt.ranks import gradients, leave_one_out, rank_test
from hgat.explain.doubt.subject import Subject
from hgat.explain.doubt.swaps import (
    adversarial,
    adversary,
    divergence,
    permutation,
    retrained,
    seeds_apart,
    uniform_frozen,
)

__all__ = [
    "TESTS",
    "Curve",
    "Doubt",
    "Doubts",
    "Subject",
    "adversarial",
    "adversary",
    "battery",
    "curves",
    "divergence",
    "draw_curves",
    "gradients",
    "leave_one_out",
    "permutation",
    "rank_test",
    "retrained",
    "seeds_apart",
    "uniform_frozen",
]
