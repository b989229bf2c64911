"""GAT of whole graphs: layers of attention over the edges, and one that reads out a row for each graph."""

from typing import Any, Literal, cast

import dgl
import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import RecipeError, check_range, check_whole
from hgat.graph.batches import members, take_graphs
from hgat.graph.csr import to_device
from hgat.models._batches import Features, one_type
from hgat.models._stack import feature_width
from hgat.models._system import Ablation, Facts, System, pieces
from hgat.nn import GATConv, GlobalAttentionPooling, Set2Set
from hgat.nn.pooling import SAGPooling, TopKPooling

__all__ = ["GraphGAT"]

AT_ONCE = 256  # graphs of a piece where none is said
READOUTS = ("gate", "set2set", "topk", "sag", "mean")


class GraphGAT(System):
    """GAT layers with residuals on a batch of graphs, a readout by attention, and a linear map.

        h^0 = W x;   h^{l+1} = ReLU(GAT(h^l) + h^l);   z_g = readout of the rows h^L of a graph;   answer_g = W' z_g

    in_feats: F. num_outputs: C. edge_feats: of the edges' features, a term of every layer's score, or None. hidden:
    width of h, heads side by side. layers: L. readout: "gate", GlobalAttentionPooling with a linear gate; "set2set",
    Set2Set of `steps` queries; "topk" and "sag", the mean of the rows that TopKPooling or SAGPooling of `ratio` keeps;
    "mean". edges: False has ReLU(W h + h) of every node alone in the layers' place. feat_drop: dropout on x and z.
    A node without in-edges keeps h; a graph without nodes reads out zeros.
    Raises ShapeError for sizes and rates out of range, RecipeError for another readout and a width that the heads do
    not divide.
    Paper: Velickovic et al. 2018 (GAT), arXiv:1710.10903, for the layers; those of the readouts stand with them.
    """

    solves = ("graphs",)
    ablations = {
        "mean": Ablation("mean of the nodes", {"readout": "mean"}),
        "no_edges": Ablation("without edges", {"edges": False}),
    }

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        edge_feats: int | None = None,
        *,
        hidden: int = 32,
        heads: int = 4,
        layers: int = 2,
        readout: Literal["gate", "set2set", "topk", "sag", "mean"] = "gate",
        steps: int = 3,
        ratio: float = 0.5,
        edges: bool = True,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole(1, in_feats=in_feats, num_outputs=num_outputs)
        check_whole(1, hidden=hidden, heads=heads, layers=layers, steps=steps)
        check_range(0, 1, feat_drop=feat_drop, attn_drop=attn_drop)
        if readout not in READOUTS:
            raise RecipeError(f"model.readout: expected one of {', '.join(READOUTS)}, got {readout!r}")
        if hidden % heads:
            raise RecipeError(f"model.hidden: expected a multiple of heads = {heads}, got {hidden}")
        self.edges = edges
        self.encoder = nn.Linear(in_feats, hidden)
        options: dict[str, Any] = {"residual": True, "activation": torch.relu, "allow_zero_in_degree": True}
        self.layers = nn.ModuleList(
            GATConv(hidden, hidden // heads, heads, attn_drop=attn_drop, edge_feats=edge_feats, **options)
            if edges
            else nn.Linear(hidden, hidden)
            for _ in range(layers)
        )
        self.pool: nn.Module | None = None
        self.readout: nn.Module | None = None
        if readout == "gate":
            self.readout = GlobalAttentionPooling(nn.Linear(hidden, 1))
        elif readout == "set2set":
            self.readout = Set2Set(hidden, steps)
        elif readout != "mean":
            self.pool = TopKPooling(hidden, ratio) if readout == "topk" else SAGPooling(hidden, ratio)
        self.drop = nn.Dropout(feat_drop)
        self.decoder = nn.Linear(hidden * (1 + (readout == "set2set")), num_outputs)

    @staticmethod
    def prepare(shown: Facts, *, undirected: bool = False) -> tuple:
        """(batch of all graphs, features, features of the edges or None), as they are.

        undirected: with the reverse of every edge behind the edges of its graph, and the same features.
        """
        graph, edge_feat = shown.graph, shown.edge_feat
        if undirected:
            sizes, counts = graph.batch_num_nodes(), graph.batch_num_edges()
            src, dst = graph.edges(order="eid")
            # Edge e becomes 2 e and 2 e + 1, so that graphs stay one behind the other.
            ends = torch.stack([src, dst], 1).flatten(), torch.stack([dst, src], 1).flatten()
            graph = dgl.graph(ends, num_nodes=graph.num_nodes(), idtype=graph.idtype)
            graph.set_batch_num_nodes(sizes)
            graph.set_batch_num_edges(2 * counts)
            edge_feat = None if edge_feat is None else edge_feat.repeat_interleave(2, 0)
        return graph, dict(shown.feat), edge_feat

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "GraphGAT":
        """A model as wide as the features of nodes and edges; RecipeError for nodes without features."""
        _, feat, edge_feat = inputs
        edge_feats = None if edge_feat is None else edge_feat.shape[1]
        return cls(feature_width(feat, shown.target), shown.num_classes, edge_feats, **settings)

    def sampled(self, inputs: tuple, ids: Tensor, fanout: Any) -> tuple:
        """((batch, features, edges' features), ()) whose answer has the rows of the graphs `ids`."""
        graph, feat, edge_feat = inputs
        part, nodes, edges = take_graphs(graph, ids)
        rows, of_edges = _floats(one_type(feat), nodes), None if edge_feat is None else _floats(edge_feat, edges)
        device = next(self.parameters()).device
        to_device(members(part), device)  # kept with the batch: the readout finds it there
        return to_device((part, rows, of_edges), device), ()

    def rows(self, inputs: tuple, ids: Tensor, batch_size: int | None = None) -> Tensor:
        """Answers for the graphs `ids`, in pieces of batch_size of them."""
        size = AT_ONCE if batch_size is None else batch_size
        parts = [self(*self.sampled(inputs, ids[piece], None)[0]) for piece in pieces(len(ids), size)]
        return torch.cat(parts)

    def whole(self, inputs: tuple, batch_size: int | None = None) -> Tensor:
        """Answers for all graphs, in pieces."""
        return self.rows(inputs, torch.arange(inputs[0].batch_size), batch_size)

    def hidden_states(self, graph: DGLGraph, feat: Features, edge_feat: Tensor | None = None) -> list[Tensor]:
        """What each layer receives, and what the last gives: a list of [N, hidden]."""
        h = self.encoder(self.drop(one_type(feat)))
        states = [h]
        for layer in self.layers:
            h = layer(graph, h, edge_feat=edge_feat).flatten(1) if self.edges else torch.relu(layer(h) + h)
            states.append(h)
        return states

    def forward(self, graph: DGLGraph, feat: Features, edge_feat: Tensor | None = None) -> Tensor:
        """Logits of every graph of a batch.

        graph: what dgl.batch gives, feat [N, F] or {node type: [N, F]}, edge_feat [E, F_e] where the model has
        edge_feats -> [B, C]. Raises GraphError for another graph, ShapeError for features that do not fit.
        """
        h = self.hidden_states(graph, feat, edge_feat)[-1]
        if self.pool is not None:
            graph, h = self.pool(graph, h)
        out = _mean(graph, h) if self.readout is None else self.readout(graph, h)
        return self.decoder(self.drop(out))

    def attention(self, graph: DGLGraph, feat: Features, edge_feat: Tensor | None = None) -> list[Tensor]:
        """alpha of every layer, [E, heads] each, and behind them the weights of the readout or of the pooling.

        Those are [N, 1], of Set2Set [N, steps], and not there for a mean; without edges there is no alpha.
        """
        states = self.hidden_states(graph, feat, edge_feat)
        found = [
            layer(graph, h, get_attention=True, edge_feat=edge_feat)[1].squeeze(-1)
            for layer, h in zip(self.layers, states[:-1], strict=True)
            if self.edges
        ]
        last: Any = self.readout if self.pool is None else self.pool
        return found if last is None else [*found, last(graph, states[-1], get_attention=True)[-1]]


def _floats(feat: Any, ids: Tensor) -> Tensor:
    """Rows as floats; those of categories are kept as bytes."""
    rows = cast(Tensor, feat)[ids.to(feat.device)]
    return rows if rows.is_floating_point() else rows.float()


def _mean(graph: DGLGraph, h: Tensor) -> Tensor:
    """The mean of the rows of every graph, [B, D]; zeros where it has no nodes."""
    star = members(graph)
    return ops.weighted_sum(star, h.unsqueeze(1), ops.edge_softmax(star, h.new_zeros(len(h), 1))).squeeze(1)
