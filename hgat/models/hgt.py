"""HGT as a whole model."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import check_whole
from hgat.graph import relations
from hgat.graph.relations import INVERSE
from hgat.graph.stacked import AGE, StackedTypes, relative_times
from hgat.models._batches import per_layer, source_ids, widths
from hgat.models._stack import check_settings
from hgat.models._system import Facts
from hgat.models._typed import StackedSystem, typed_sizes
from hgat.nn import HGTConv

__all__ = ["HGT"]


class HGT(StackedSystem):
    """Heterogeneous graph transformer: an input of its own for each node type, HGTConv layers, a linear classifier.

        x_v = drop(tanh(W_t(v) h_v)), or a learned row;  [x_u <- x_u + T_l r(age_uv) on the edge u -> v]
        r(a)_2k = sin(a / 10000^(2k / F)) / sqrt(F),  r(a)_2k+1 = cos(a / 10000^(2k / F)) / sqrt(F)

    graph: a typed graph with the relations that the model is for, DGLGraph. Where its edges have an "age", as
    hgat.graph.relative_times writes it and `prepare` does with time = "edges" or "nodes", each layer adds the relative
    time of each edge, and every graph and block has to have it; DGL's samplers give their blocks what edges have.
    in_feats: {node type: F, or None for a type without features}. target: the node type to predict. heads: one number
    per layer; hidden: width per head. out_drop: dropout behind each layer's last projection. use_norm: a LayerNorm
    behind each layer.
    [N, F] of each type -> [N_target, C]. Raises RecipeError for no heads, ShapeError for sizes and rates out of range.
    Paper: Hu et al. 2020, arXiv:2003.01332, eq. 1-8. Differs: as hgat.nn.HGTConv does, but for GELU, which is here; one
    LayerNorm for all types of a layer; ages are not cut off at the 240 rows of the code's table, and begin at 0, not in
    its middle.
    """

    of_ntype = re.compile(r"layers\.\d+\.(linear_[kqva]\.W|skip)")
    of_etype = re.compile(r"layers\.\d+\.relation_(pri\.\d+|(att|msg)\.\d+\.W)")

    def __init__(
        self,
        graph: DGLGraph,
        in_feats: Mapping[str, int | None],
        num_outputs: int,
        target: str,
        *,
        hidden: int = 8,
        heads: Sequence[int] = (8, 8),
        feat_drop: float = 0.2,
        out_drop: float = 0.2,
        use_norm: bool = True,
    ) -> None:
        super().__init__()
        sizes = typed_sizes(graph, target)
        check_whole(1, num_outputs=num_outputs)
        check_settings(heads, hidden, feat_drop=feat_drop, out_drop=out_drop)
        self.target, self.etypes = target, tuple(graph.canonical_etypes)
        self.timed = any(AGE in graph.edges[etype].data for etype in self.etypes)
        width = hidden * heads[0]
        self.bring(sizes, in_feats, width)
        self.feat_drop = nn.Dropout(feat_drop)
        self.layers, self.times = nn.ModuleList(), nn.ModuleList()
        for count in heads:
            if self.timed:
                self.times.append(nn.Linear(width, width))
            self.layers.append(
                HGTConv(
                    width, hidden, count, len(sizes), len(self.etypes), out_drop, use_norm=use_norm, activation=F.gelu
                )
            )
            width = hidden * count
        self.classify = nn.Linear(width, num_outputs)

    @staticmethod
    def prepare(
        shown: Facts,
        *,
        inverse: bool = True,
        self_relation: bool = False,
        without: Sequence[str] = (),
        time: Literal["none", "edges", "nodes"] = "none",
        time_unit: float = 1.0,
    ) -> tuple:
        """(graph, features): inverse and self relations added, but for those of the relations named in without.

        time: how old what an edge brings is, by times of edges, whose inverses have the same, or of nodes, in
        time_unit; see hgat.graph.relative_times.
        """
        graph = relations.extended(shown.graph, inverse=inverse, self_relation=self_relation, without=without)
        if time == "none":
            return graph, dict(shown.feat)
        graph = graph.local_var()
        if time == "nodes":
            for ntype in graph.ntypes:
                graph.nodes[ntype].data.update(shown.graph.nodes[ntype].data)
        else:
            for src, name, dst in shown.graph.canonical_etypes:
                for etype in ((src, name, dst), (dst, name + INVERSE, src)):
                    if etype in graph.canonical_etypes:
                        graph.edges[etype].data.update(shown.graph.edges[src, name, dst].data)
        return relative_times(graph, time, time_unit), dict(shown.feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "HGT":
        """A model for the types of the prepared graph, as wide as the features; RecipeError for no target."""
        graph, feat = inputs
        return cls(graph, widths(feat, graph.ntypes), shown.num_classes, shown.target, **settings)

    def start(self, feat: Any, nodes: Mapping[str, Tensor | None] | None = None) -> dict[str, Tensor]:
        """What the first layer receives, {node type: [N, width]}; nodes: {type: ids} where only some nodes are here."""
        given = super().start(feat, nodes)
        featured = dict(zip(self.ntypes, self.featured, strict=True))
        return {t: self.feat_drop(torch.tanh(h) if featured[t] else h) for t, h in given.items()}

    def layered(
        self, depth: int, part: DGLGraph, stacked: StackedTypes, rows: Tensor, past: Any
    ) -> tuple[Tensor, None]:
        """[N_src, width] -> [N_dst, width], behind the last layer the classifier; nothing is told the next layer."""
        rows = self.layers[depth](stacked.graph, self._aged(depth, stacked, rows), stacked.ntype, stacked.etype)
        return (self.classify(rows) if depth == len(self.layers) - 1 else rows), None

    def _aged(self, depth, stacked, rows):
        """The rows of the sources, those behind the destinations with their relative times."""
        if stacked.ages is None:
            return rows
        count = len(rows) - len(stacked.age)
        time = self.times[depth](_sinusoid(stacked.ages, rows)).index_select(0, stacked.age)
        return torch.cat([rows[:count], rows[count:] + time])

    def attention(self, graph: DGLGraph | Sequence[DGLGraph], feat: Any) -> list[dict[tuple[str, str, str], Tensor]]:
        """alpha of every layer, a list of {relation: [E_r, H]}."""
        h, found = self.start(feat, source_ids(graph)), []
        for depth, part in enumerate(per_layer(graph, len(self.layers))):
            stacked, rows = self.rows_of(part, h)
            layer: Any = self.layers[depth]
            alpha = layer.attention(stacked.graph, self._aged(depth, stacked, rows), stacked.ntype, stacked.etype)
            found.append(dict(zip(part.canonical_etypes, alpha.split(stacked.num_edges), strict=True)))
            h = self.step(depth, part, h)
        return found


def _sinusoid(ages, like):
    """[A, F] of ages [A]: sines and cosines of slower and slower waves; computed in 64 bits, as ages may be large."""
    width = like.shape[1]
    rate = torch.exp(torch.arange(0, width, 2, device=ages.device, dtype=torch.float64) * (-math.log(10000.0) / width))
    angle = ages.double().unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :width].div(width**0.5).to(like.dtype)
