"""Reads a trained model and shows what its attention learned; changes nothing."""

from pathlib import Path

from hgat.explain.attention import Past, Shares, past, shares
from hgat.explain.plot import draw_past, draw_shares
from hgat.models import System

__all__ = ["Past", "Shares", "draw", "draw_past", "draw_shares", "past", "shares"]


def draw(model: System, inputs: tuple, path: str | Path, title: str = "") -> bool:
    """Draw what a trained model attends to into a PNG file at `path`; False where there is nothing to draw.

    inputs: those of its forward.
    """
    if spent := shares(model, *inputs):
        draw_shares(spent, path, title)
    elif layers := past(model, *inputs):
        draw_past(layers, path, title)
    else:
        return False
    return True
