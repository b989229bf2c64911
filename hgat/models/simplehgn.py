"""Simple-HGN as a whole model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import dgl
import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import GraphError, RecipeError, check_range, check_whole
from hgat.graph import relations
from hgat.graph.stacked import StackedTypes
from hgat.models._batches import per_layer, source_ids, widths
from hgat.models._stack import check_settings
from hgat.models._system import Ablation, Facts
from hgat.models._typed import StackedSystem, typed_sizes
from hgat.nn.simplehgn import SimpleHGNConv

__all__ = ["SimpleHGN"]


class SimpleHGN(StackedSystem):
    """GAT on all relations at once, with relations in the score, attention that remembers the layer before it,
    residuals, and an answer of length one.

        x_v = W_t(v) h_v + b_t(v), or a learned row;  layers: hgat.nn.SimpleHGNConv, ELU behind all but the last
        out_v = z_v / |z_v|,  z_v the mean over the heads of the last layer

    graph: a typed graph with the relations that the model is for, DGLGraph. in_feats: {node type: F, or None for a type
    without features}. target: the node type to predict. embed: the width of x. heads: one number per layer, the last
    for the output layer; hidden: width per head of the others, 64 in the paper. edge_feats: the width of each
    relation's embedding. beta: what the attention of the layer before counts for in the layers between the first and
    the last, which need as many heads as the first then; on sampled blocks an edge that the layer before did not sample
    had none there.
    residual: behind every layer but the first. l2_norm: the division.
    [N, F] of each type -> [N_target, C]. Raises RecipeError for no heads, ShapeError for sizes and rates out of range.
    Paper: Lv et al. 2021, arXiv:2112.14936, eq. 5-10, and the authors' code. Differs: as hgat.nn.SimpleHGNConv does;
    the relation of nodes to themselves is one for each node type, not one for all.
    """

    ablations = {"no_residual_attention": Ablation("no residual attention", {"beta": 0.0})}
    of_ntype = re.compile(r"(?!)")  # none
    of_etype = re.compile(r"layers\.\d+\.edge_emb\.weight")

    def __init__(
        self,
        graph: DGLGraph,
        in_feats: Mapping[str, int | None],
        num_outputs: int,
        target: str,
        *,
        embed: int = 64,
        hidden: int = 8,
        heads: Sequence[int] = (8, 8, 1),
        edge_feats: int = 64,
        beta: float = 0.05,
        feat_drop: float = 0.5,
        attn_drop: float = 0.5,
        negative_slope: float = 0.05,
        residual: bool = True,
        l2_norm: bool = True,
    ) -> None:
        super().__init__()
        sizes = typed_sizes(graph, target)
        check_whole(1, num_outputs=num_outputs, embed=embed, edge_feats=edge_feats)
        check_settings(heads, hidden, feat_drop=feat_drop, attn_drop=attn_drop)
        check_range(0, 1, beta=beta)
        self.remembers = beta > 0 and len(heads) > 2
        if self.remembers and len(set(heads[:-1])) > 1:
            raise RecipeError(f"model.heads: expected as many in each layer but the last with beta, got {list(heads)}")
        self.target, self.etypes, self.l2_norm = target, tuple(graph.canonical_etypes), l2_norm
        self.bring(sizes, in_feats, embed)
        self.layers = nn.ModuleList()
        width = embed
        for depth, count in enumerate(heads):
            last = depth == len(heads) - 1
            self.layers.append(
                SimpleHGNConv(
                    width,
                    num_outputs if last else hidden,
                    count,
                    len(self.etypes),
                    edge_feats,
                    feat_drop,
                    attn_drop,
                    negative_slope,
                    residual=residual and depth > 0,
                    activation=None if last else F.elu,
                    allow_zero_in_degree=True,
                    beta=beta,
                )
            )
            width = hidden * count

    @staticmethod
    def prepare(
        shown: Facts, *, inverse: bool = True, self_relation: bool = True, without: Sequence[str] = ()
    ) -> tuple:
        """(graph, features): inverse and self relations added, but for those of the relations named in without."""
        graph = relations.extended(shown.graph, inverse=inverse, self_relation=self_relation, without=without)
        return graph, dict(shown.feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "SimpleHGN":
        """A model for the types of the prepared graph, as wide as the features; RecipeError for no target."""
        graph, feat = inputs
        return cls(graph, widths(feat, graph.ntypes), shown.num_classes, shown.target, **settings)

    def layered(self, depth: int, part: DGLGraph, stacked: StackedTypes, rows: Tensor, past: Any) -> tuple[Tensor, Any]:
        """[N_src, width] -> [N_dst, width], of the last layer the answer; (the edges, alpha [E, H]) for the next."""
        layer: Any = self.layers[depth]
        last = depth == len(self.layers) - 1
        told = None if last or past is None else _told(part, *past)
        tells = self.remembers and depth < len(self.layers) - 2
        out = layer(stacked.graph, rows, stacked.etype, told, get_attention=tells)
        out, alpha = out if isinstance(out, tuple) else (out, None)
        if not last:
            return out.flatten(1), None if alpha is None else (part, alpha)
        out = out.mean(1)
        return F.normalize(out, dim=1) if self.l2_norm else out, None

    def step(self, depth: int, graph: DGLGraph, h: Any) -> Any:
        """Layer `depth`, counted from 0, on a graph or block: {type: [N_src, width]} -> {type: [N_dst, width]}."""
        if self.remembers:
            raise RecipeError("model.beta: expected 0 for layers one by one, as each is told of the attention before")
        return super().step(depth, graph, h)

    def whole(self, inputs: tuple, batch_size: int | None = None) -> Tensor:
        """Logits of all nodes; in pieces of batch_size rows only where no layer is told of the one before."""
        return super().whole(inputs, None if self.remembers else batch_size)

    def attention(self, graph: DGLGraph | Sequence[DGLGraph], feat: Any) -> list[dict[tuple[str, str, str], Tensor]]:
        """alpha of every layer, a list of {relation: [E_r, H]}."""
        h, past, found = self.start(feat, source_ids(graph)), None, []
        for depth, part in enumerate(per_layer(graph, len(self.layers))):
            stacked, rows = self.rows_of(part, h)
            told = None if past is None or depth == len(self.layers) - 1 else _told(part, *past)
            layer: Any = self.layers[depth]
            _, alpha = layer(stacked.graph, rows, stacked.etype, told, get_attention=True)
            found.append(dict(zip(part.canonical_etypes, alpha.split(stacked.num_edges), strict=True)))
            h, past = self._step(depth, part, h, past)
        return found


def _told(part, before, alpha):
    """What the layer before gave the edges of `part`, [E, H]: on blocks found by the edges' numbers, else the same."""
    if part is before:
        return alpha
    mine, theirs = (_numbers(graph).to(alpha.device) for graph in (part, before))
    if not len(theirs):
        return alpha.new_zeros((len(mine), alpha.shape[1]))
    theirs, order = theirs.sort()
    place = torch.searchsorted(theirs, mine).clamp(max=len(theirs) - 1)
    return alpha[order[place]] * (theirs[place] == mine).unsqueeze(1)


def _numbers(block):
    """A number of each edge of a sampled block, the same wherever the edge is, [E]."""
    found = []
    for number, etype in enumerate(block.canonical_etypes):
        column = block.edges[etype].data.get(dgl.EID)
        if column is None and block.num_edges(etype):
            raise GraphError("blocks: expected the numbers of their edges in edata[dgl.EID], got none")
        if column is not None:
            found.append(column.long() + (number << 40))
    return torch.cat(found)
