"""Reads a trained model and shows what its attention learned; changes nothing."""

from hgat.explain.attention import Past, Shares, past, shares
from hgat.explain.plot import draw_past, draw_shares

__all__ = ["Past", "Shares", "draw", "draw_past", "draw_shares", "past", "shares"]


def draw(model, structure, feat, path, title=""):
    """Draw what a trained model attends to into a PNG file at `path`; False where there is nothing to draw."""
    for read, paint in ((shares, draw_shares), (past, draw_past)):
        found = read(model, structure, feat)
        if found:
            paint(found, path, title)
            return True
    return False
