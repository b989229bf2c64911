"""Where nodes lie: places on a map, and the place of every node."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from hgat.errors import GraphError

__all__ = ["Places"]


@dataclass(frozen=True, eq=False)
class Places:
    """Places on a map, and which of them every node belongs to.

    names: of the P places. position: [P, 2] longitude and latitude, in degrees. of: {node type: [N] the place of every
    node, -1 for none}. home: (longitude, latitude) of where all begins, or None. stars: places to draw a map for.
    background: [B, 2] further positions, that make the shape of the land. asks, seen: what a figure calls the nodes
    that attend, with {} for a place, and their neighbours. value: {node type: number of the column of its features that
    a figure of one node's neighbours shows}; means: what that column is. Raises GraphError for what does not fit.
    """

    names: tuple[str, ...]
    position: torch.Tensor
    of: Mapping[str, torch.Tensor]
    home: tuple[float, float] | None = None
    stars: tuple[str, ...] = ()
    background: torch.Tensor | None = None
    asks: str = "nodes at {}"
    seen: str = "neighbours"
    value: Mapping[str, int] = field(default_factory=dict)
    means: str = ""

    def __post_init__(self) -> None:
        if tuple(self.position.shape) != (len(self.names), 2) or not torch.isfinite(self.position).all():
            got = f"{list(self.position.shape)} for {len(self.names)} names"
            raise GraphError(f"places: expected a finite longitude and latitude of every place, [P, 2], got {got}")
        for ntype, of in self.of.items():
            if of.numel() and not -1 <= int(of.min()) <= int(of.max()) < len(self.names):
                got = f"{int(of.min())} to {int(of.max())}"
                raise GraphError(f"places of {ntype}: expected numbers from -1 to {len(self.names) - 1}, got {got}")
        for star in self.stars:
            self.number(star)

    def number(self, name: str) -> int:
        """The number of a place; GraphError for a name that is none."""
        if name not in self.names:
            raise GraphError(f"places: expected one of {', '.join(self.names)}, got {name!r}")
        return self.names.index(name)
