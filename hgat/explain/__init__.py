"""Reads a trained model and shows what its attention learned; changes nothing."""

from pathlib import Path

from hgat.explain.attention import Past, Shares, past, shares
from hgat.explain.places import draw_map, looks_at, toward
from hgat.explain.plot import draw_past, draw_shares
from hgat.models import System
from hgat.renamed import warn

__all__ = ["Past", "Shares", "draw", "draw_map", "draw_past", "draw_shares", "looks_at", "past", "shares", "toward"]


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
