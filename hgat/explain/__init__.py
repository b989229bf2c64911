"""Reads a trained model and shows what its attention learned; changes nothing."""

from pathlib import Path

from hgat.explain.attention import Past, Shares, past, shares
from hgat.explain.edges import Attended, AxisAttention, EdgeAttention, attended_axes, attended_edges, observe
from hgat.explain.page import write_page
from hgat.explain.pictures import draw_heads, draw_neighbourhood, draw_over_time, draw_spread
from hgat.explain.places import draw_map, looks_at, toward
from hgat.explain.plot import draw_past, draw_shares
from hgat.explain.tables import axis_table, by_relation, heads_apart, neighbours, over_time, rollout, spread, table
from hgat.models import System
from hgat.renamed import warn

__all__ = [
    "Attended",
    "AxisAttention",
    "EdgeAttention",
    "Past",
    "Shares",
    "attended_axes",
    "attended_edges",
    "axis_table",
    "by_relation",
    "draw",
    "draw_heads",
    "draw_map",
    "draw_neighbourhood",
    "draw_over_time",
    "draw_past",
    "draw_shares",
    "draw_spread",
    "heads_apart",
    "looks_at",
    "neighbours",
    "observe",
    "over_time",
    "past",
    "rollout",
    "shares",
    "spread",
    "table",
    "toward",
    "write_page",
]


def draw(model: System, inputs: tuple, path: str | Path, title: str | Path = "", *more: str) -> bool:
    """Draw what a trained model attends to into a PNG file at `path`; False where there is nothing to draw.

    inputs: those of its forward, a tuple. (The structure and the features one by one, as it was called before, are
    taken with a warning.)
    """
    if not isinstance(inputs, tuple):
        warn("draw(model, structure, feat, path, title)", "draw(model, (structure, feat), path, title)")
        inputs, path, title = (inputs, path), title, more[0] if more else ""
    if spent := shares(model, *inputs):
        draw_shares(spent, path, str(title))
    elif layers := past(model, *inputs):
        draw_past(layers, path, str(title))
    else:
        return False
    return True
