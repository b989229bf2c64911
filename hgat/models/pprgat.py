"""PPRGAT as a whole model: attention that knows personalised PageRank, over edges or over the nearest by it."""

from typing import Any, Literal

from dgl import DGLGraph
from torch import Tensor

from hgat.errors import GraphError
from hgat.graph import csr, homogeneous, ppr_graph, ppr_values
from hgat.models._stack import Stack
from hgat.models._system import Ablation, Facts
from hgat.nn.pprgat import PPRGATConv

__all__ = ["PPRGAT"]


class PPRGAT(Stack):
    """A stack of PPRGAT layers: heads side by side with ELU in between, averaged at the end.

    in_feats: F. num_outputs: C. heads: one number per layer, the last for the output layer. hidden: width per head of
    the hidden layers. residual: a skip around every layer. The other settings are those of hgat.nn.PPRGATConv.
    Raises RecipeError for no heads, ShapeError for sizes and rates out of range.
    Paper: Choi 2022, arXiv:2205.14259, in GAT's architecture. Differs: value_drop, as in hgat.models.GAT.
    """

    layer = PPRGATConv
    defaults = {"feat_drop": 0.6, "attn_drop": 0.6, "value_drop": 0.6}
    ablations = {
        "no_ppr": Ablation("PageRank not in the score", {"use_ppr": False}),
        "gat": Ablation("GAT", {"use_ppr": False, "score": "v1"}, {"neighbours": "edges"}),
    }

    @staticmethod
    def prepare(
        shown: Facts,
        *,
        neighbours: Literal["topk", "edges"] = "topk",
        ppr: Literal["push", "exact"] = "push",
        form: Literal["row", "sym", "col"] = "sym",
        k: int = 16,
        alpha: float = 0.25,
        epsilon: float = 1e-4,
        undirected: bool = False,
    ) -> tuple:
        """(graph with edata["ppr"], features).

        neighbours: whom a node attends to; "topk", the k nearest by PageRank, itself among them; "edges", its
        neighbours and itself. ppr: how it is computed; form, k, alpha and epsilon are those of hgat.graph.ppr_graph.
        undirected: every edge in both directions, once. The walk takes no self-loops.
        """
        graph = homogeneous.prepare(shown.graph, undirected=undirected)
        src, dst = csr.edges(graph)
        options: dict[str, Any] = {"form": form, "method": ppr, "epsilon": epsilon, "edge_weight": (src != dst).float()}
        if neighbours == "topk":
            return ppr_graph(graph, k, alpha, **options), dict(shown.feat)
        graph.edata["ppr"] = ppr_values(graph, alpha, **options)
        return graph, dict(shown.feat)

    def step(self, depth: int, graph: DGLGraph, h: Tensor) -> Tensor:
        """Layer `depth`, counted from 0, on a graph or block with edata["ppr"]: [N_src, width] -> [N_dst, width].

        Raises GraphError for a graph without it.
        """
        if "ppr" not in graph.edata:
            raise GraphError("graph: expected PageRank in edata['ppr'], as hgat.graph.ppr_graph gives it, got none")
        ppr = csr.beside(graph, "ppr", graph.edata["ppr"], h.device).to(h.dtype)
        return self.merged(depth, self.layers[depth](graph, h, ppr))
