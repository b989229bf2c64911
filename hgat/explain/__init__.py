"""Reads a trained model and shows what its attention learned; changes nothing."""

from hgat.explain.attention import Shares, shares
from hgat.explain.plot import draw_shares

__all__ = ["Shares", "draw_shares", "shares"]
