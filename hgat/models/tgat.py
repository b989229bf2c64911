"""TGAT as a whole model: a node at a time, and whether two nodes meet then."""

from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from hgat.errors import GraphError, RecipeError, ShapeError, check_shape, check_whole
from hgat.graph import recent
from hgat.graph.recent import RecentNeighbours
from hgat.models._system import Ablation, Batch, Facts, System
from hgat.nn.common import check_floats
from hgat.nn.tgat import TGATConv

__all__ = ["TGAT"]


class TGAT(System):
    """TGAT layers over sampled earlier events, then a perceptron on the two ends of a link.

    recent: the events by node (hgat.graph.recent.recent_neighbours). in_feats: F of the nodes, edge_feats: Fe of the
    events. node_input: what layer one reads, "zeros" as in the authors' data without node features, "learned", a row
    per node, or "feat". hidden: width of every layer. neighbours, sample: events seen by a node in each layer, see
    RecentNeighbours.before. time_unit: the elapsed time that counts as one. time_feats, time_encoding, norm, attn_drop,
    out_drop: see hgat.nn.TGATConv.
    Only events before a link's own time are read, in every layer.
    Elapsed times are taken in the times' own type: whole numbers can be shifted without changing a bit.
    Raises RecipeError for node_input without what it reads, ShapeError and GraphError as RecentNeighbours.queries.
    Paper: Xu et al. 2020, arXiv:2002.07962. Layers, heads, neighbours, dropout and the perceptron on links as in the
    authors' code, whose widths are all that of the features. Differs: a pair (node, time) that is asked for twice is
    computed once, with one sample and one dropout.
    """

    solves = ("stream_links",)
    layers: nn.ModuleList
    link: nn.Sequential
    # Where an hour and a year are the same, only the order of events is left.
    ablations = {"no_time": Ablation("order of events only", {"time_unit": 1e30})}

    def __init__(
        self,
        num_nodes: int,
        in_feats: int | None = None,
        edge_feats: int = 0,
        *,
        node_input: str = "zeros",
        hidden: int = 100,
        heads: int = 2,
        layers: int = 2,
        neighbours: int = 20,
        sample: str = "uniform",
        time_feats: int = 100,
        time_encoding: str = "cos",
        time_unit: float = 1.0,
        norm: bool = True,
        attn_drop: float = 0.1,
        out_drop: float = 0.1,
    ) -> None:
        super().__init__()
        check_whole(1, hidden=hidden, heads=heads, layers=layers, neighbours=neighbours, in_feats=in_feats)
        check_whole(0, num_nodes=num_nodes, edge_feats=edge_feats)
        if node_input not in ("zeros", "learned", "feat"):
            raise RecipeError(f"model.node_input: expected 'zeros', 'learned' or 'feat', got {node_input!r}")
        if node_input == "feat" and in_feats is None:
            raise RecipeError("model.node_input: expected features of the nodes for 'feat', got none")
        if sample not in ("recent", "uniform"):
            raise RecipeError(f"model.sample: expected 'recent' or 'uniform', got {sample!r}")
        if not isinstance(time_unit, Real) or not 0 < time_unit < float("inf"):
            raise RecipeError(f"model.time_unit: expected a number above 0, got {time_unit}")
        self.node_input, self.num_nodes, self.hidden = node_input, num_nodes, hidden
        self.in_feats, self.edge_feats = in_feats, edge_feats
        self.neighbours, self.sample, self.time_unit = neighbours, sample, time_unit
        if node_input == "learned":
            self.node = nn.Embedding(num_nodes, hidden)
            nn.init.xavier_uniform_(self.node.weight)
        self.layers = nn.ModuleList()
        width = in_feats if node_input == "feat" else hidden
        for _ in range(layers):
            options = {"time_encoding": time_encoding, "out_drop": out_drop, "norm": norm}
            self.layers.append(TGATConv(width, hidden, heads, time_feats, edge_feats, attn_drop, **options))
            width = hidden
        self.link = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        for layer in (self.link[0], self.link[2]):
            nn.init.xavier_normal_(layer.weight)

    @staticmethod
    def prepare(shown: Facts, *, both_ways: bool = True) -> tuple:
        """(the events by node, features [N, F] where all types have them and of one width).

        both_ways: an event is met by its source and by its destination.
        """
        events = recent.prepare(shown.graph, both_ways=both_ways)
        feat = [shown.feat[ntype] for ntype in shown.graph.ntypes]
        known = [rows for rows in feat if rows is not None]
        alike = len(known) == len(feat) and len({rows.shape[1] for rows in known}) == 1
        return (events, torch.cat(known)) if alike else (events,)

    def answer(self, inputs: tuple, batch: Batch) -> Tensor:
        """Logits of the batch's links: features stand behind the query in `forward`."""
        recent, *feat = inputs
        return self(recent, *batch.query, *feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, *, edge_feat: Tensor | None = None, **settings: Any) -> "TGAT":
        """A model for the prepared events, as wide as the features; GraphError for something else than events."""
        recent, feat = inputs[0], inputs[1] if len(inputs) > 1 else None
        _check_recent(recent, "graph")
        widths = None if feat is None else feat.shape[1], 0 if edge_feat is None else edge_feat.shape[1]
        return cls(recent.num_nodes, *widths, **settings)

    def embed(
        self,
        recent: RecentNeighbours,
        nodes: Tensor,
        times: Tensor,
        feat: Tensor | None = None,
        edge_feat: Tensor | None = None,
    ) -> Tensor:
        """h of each node at its time, [B, hidden]."""
        return self._at(len(self.layers), *self._checked(recent, nodes, times, feat, edge_feat))

    def score(self, z_src: Tensor, z_dst: Tensor) -> Tensor:
        """Logits [B] that the nodes behind z_src and z_dst [B, hidden] meet."""
        return self.link(torch.cat([z_src, z_dst], -1)).squeeze(-1)

    def forward(
        self,
        recent: RecentNeighbours,
        src: Tensor,
        dst: Tensor,
        times: Tensor,
        feat: Tensor | None = None,
        edge_feat: Tensor | None = None,
    ) -> Tensor:
        """Whether two nodes meet at a time.

        recent: hgat.graph.recent_neighbours; src, dst, times: [B] each; feat [N, F] where node_input is "feat";
        edge_feat [E, Fe] in the order of recent.edge's numbers -> logits [B].
        Raises GraphError for something else than recent, ShapeError for nodes, times or features that do not fit.
        """
        recent, src, times, *given = self._checked(recent, src, times, feat, edge_feat)
        dst, _ = recent.queries(dst, times)
        z = self._at(len(self.layers), recent, torch.cat([src, dst]), times.repeat(2), *given)
        return self.score(*z.chunk(2))

    def attention(
        self,
        recent: RecentNeighbours,
        nodes: Tensor,
        times: Tensor,
        feat: Tensor | None = None,
        edge_feat: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(alpha [B, H, K] of the last layer, and what it stands on: neighbour, time, edge, mask, [B, K] each)."""
        inputs, events = self._below(len(self.layers), *self._checked(recent, nodes, times, feat, edge_feat))
        return self.layers[-1](*inputs, get_attention=True)[1], *events

    def _checked(self, recent, nodes, times, feat, edge_feat):
        _check_recent(recent)
        if recent.num_nodes != self.num_nodes:
            raise ShapeError(f"recent: expected {self.num_nodes} nodes, got {recent.num_nodes}")
        read = {"feat": (feat, ("N", self.num_nodes), ("F", self.in_feats))} if self.node_input == "feat" else {}
        if self.edge_feats or edge_feat is not None:
            read["edge_feat"] = edge_feat, ("E", recent.num_edges), ("Fe", self.edge_feats)
        for name, (given, *shape) in read.items():
            if given is None:
                raise ShapeError(f"{name}: expected [{shape[0][0]}, {shape[1][0]}], got none")
            check_floats(name, given, self.link[0].weight)
            check_shape(name, given, *shape)
        return recent, *recent.queries(nodes, times), feat, edge_feat

    def _input(self, nodes, feat):
        if self.node_input == "learned":
            return self.node(nodes)
        return feat[nodes] if self.node_input == "feat" else self.link[0].weight.new_zeros(len(nodes), self.hidden)

    def _at(self, depth, recent, nodes, times, feat, edge_feat):
        """h of each node at its time after `depth` layers."""
        if depth == 0:
            return self._input(nodes, feat)
        nodes, times, place = _distinct(nodes, times)
        return self.layers[depth - 1](*self._below(depth, recent, nodes, times, feat, edge_feat)[0])[place]

    def _below(self, depth, recent, nodes, times, feat, edge_feat):
        """(what layer `depth` is called with, the events that it sees)."""
        events = neighbour, time, edge, mask = recent.before(nodes, times, self.neighbours, self.sample)
        # Nodes and neighbours in one call, for many of them are the same; padding is never asked for.
        both = torch.cat([nodes, neighbour[mask]]), torch.cat([times, time[mask]])
        own, found = self._at(depth - 1, recent, *both, feat, edge_feat).tensor_split([len(nodes)])
        elapsed = (times.unsqueeze(1) - time).double() / self.time_unit
        edge_found = None if edge_feat is None else _padded(edge_feat[edge[mask]], mask)
        return (own, _padded(found, mask), elapsed, mask, edge_found), events


def _check_recent(recent, name="recent"):
    if not isinstance(recent, RecentNeighbours):
        raise GraphError(f"{name}: expected what hgat.graph.recent gives, got {type(recent).__name__}")


def _padded(rows, mask):
    """rows [number of True, F] at the True places of `mask` [B, K], zeros elsewhere: [B, K, F]."""
    out = rows.new_zeros((*mask.shape, rows.shape[-1]))
    out[mask] = rows
    return out


def _distinct(nodes, times):
    """The distinct pairs of a node and a time, and the pair of each [B]."""
    moments, moment = torch.unique(times, return_inverse=True)
    count = max(len(moments), 1)
    pair, place = torch.unique(nodes * count + moment, return_inverse=True)
    return torch.div(pair, count, rounding_mode="floor"), moments[pair % count], place
