"""TDGNN as a whole model: shells of hops, -s and -w, and attention over them."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from dgl import DGLGraph
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError, check_range, check_shape
from hgat.graph import csr, hop_shells
from hgat.models._batches import Features
from hgat.models._input import Perceptron, sparse_rows
from hgat.models._stack import feature_width
from hgat.models._system import Ablation, Facts, Shares, System
from hgat.nn import Fusion

__all__ = ["TDGNN"]

Shells = Sequence[tuple[DGLGraph, Tensor, Tensor]]
MIXES = ("sum", "scalar", "attention")


class TDGNN(System):
    """Tree decomposition: a perceptron makes logits, and each shell of hops adds its own, weighed by all walks to it.

        H^0 = MLP(X);   H^k_v = sum_{u in shell k of v} E^k_vu H^0_u;   logits = sum_k theta_k H^k

    E: see hgat.graph.hop_shells. mix: "sum" is TDGNN-s, every theta 1; "scalar" TDGNN-w, a learned theta for each hop,
    that begins with 1, the same for all nodes; "attention" a softmax over the hops for each node, theta_ik of
    softmax(q . H^k_i), as the paper is often described. diffusion: with False every node of a shell counts alike, each
    by their mean weight. feat_drop, hidden_drop: before either layer of the perceptron.
    decay_in, decay_out, decay_hops: weight decay of its two layers, and of what weighs the hops; None is that of the
    recipe's [train]. Inside `uniform_attention()` theta is 1, or 1 / (L + 1) of a softmax.

    in_feats: F. num_outputs: C. num_hops: L, the shells that are prepared. Raises ShapeError for sizes, rates and names
    out of range.
    Paper: Wang and Derr 2021, arXiv:2108.11022. Differs: the authors' code has `self_loop = "first"`. Their numbers on
    directed graphs are those of another model, for which see hop_shells.
    """

    ablations = {
        "even_shells": Ablation("equal weights in a shell", {"diffusion": False}),
        "equal_hops": Ablation("equal hops", {"mix": "sum"}),
    }

    def __init__(
        self,
        in_feats: int,
        num_outputs: int,
        num_hops: int,
        *,
        mix: Literal["sum", "scalar", "attention"] = "scalar",
        diffusion: bool = True,
        hidden: int = 32,
        feat_drop: float = 0.8,
        hidden_drop: float = 0.8,
        decay_in: float | None = None,
        decay_out: float | None = None,
        decay_hops: float | None = None,
    ) -> None:
        super().__init__()
        if mix not in MIXES:
            raise ShapeError(f"mix: expected one of {', '.join(MIXES)}, got {csr.shown(mix)}")
        check_range(0, decay_in=decay_in, decay_out=decay_out, decay_hops=decay_hops)
        self.mix, self.diffusion, self.num_hops = mix, diffusion, num_hops
        self.mlp = Perceptron(in_feats, hidden, num_outputs, feat_drop, hidden_drop)
        self.theta = nn.Parameter(torch.ones(num_hops + 1)) if mix == "scalar" else None
        self.fuse = Fusion(num_outputs, score="linear") if mix == "attention" else None
        self.decays = decay_in, decay_out, decay_hops

    @staticmethod
    def prepare(
        shown: Facts,
        *,
        hops: int | list[int] = 4,
        horizon: int = 10,
        self_loop: Literal["every", "first"] = "every",
        undirected: bool = True,
        keep: int | None = None,
    ) -> tuple:
        """([(graph, weight [E_k], mean weight [N]) of each shell], features); the settings are hop_shells'."""
        key = "shells", str(hops), horizon, self_loop, undirected, keep

        def build():
            return hop_shells(shown.graph, hops, horizon, self_loop=self_loop, undirected=undirected, keep=keep)

        # Splits share their graph, and with it what is costly here.
        found = csr.cached(shown.graph, key, build)
        shells = []
        for graph, weight in found:
            total = torch.zeros(graph.num_nodes()).index_add(0, csr.edges(graph)[1], weight)
            shells.append((graph, weight, total / graph.in_degrees().clamp(min=1)))
        return shells, {ntype: sparse_rows(x) for ntype, x in shown.feat.items()}

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "TDGNN":
        """A model as wide as the features of the target type, and its classes, for the shells that are prepared."""
        return cls(feature_width(shown.feat, shown.target), shown.num_classes, len(inputs[0]), **settings)

    def groups(self) -> list[dict]:
        """The perceptron's two layers and what weighs the hops, each with its decay."""
        of_hops = [p for module in (self.fuse,) if module is not None for p in module.parameters()]
        of_hops += [] if self.theta is None else [self.theta]
        parts = list(self.mlp.fc_in.parameters()), list(self.mlp.fc_out.parameters()), of_hops
        return [
            {"params": params} if decay is None else {"params": params, "weight_decay": decay}
            for params, decay in zip(parts, self.decays, strict=True)
            if params
        ]

    def hops(self, shells: Shells, feat: Features) -> list[Tensor]:
        """H^0 to H^L, a list of [N, C]; arguments as of `forward`."""
        if not isinstance(shells, (list, tuple)) or len(shells) != self.num_hops:
            got = len(shells) if isinstance(shells, (list, tuple)) else type(shells).__name__
            raise ShapeError(f"shells: expected a list of {self.num_hops}, got {got}")
        z = self.mlp(feat)
        found = [z]
        for graph, weight, mean in shells:
            check_shape("mean", mean, ("N", len(z)))
            h = ops.propagate(graph, z, weight if self.diffusion else None)
            found.append(h if self.diffusion else h * mean.unsqueeze(1))
        return found

    def forward(self, shells: Shells, feat: Features) -> Tensor:
        """Logits of every node.

        shells: of each hop a graph of the N nodes, weights [E_k] and their means [N], as `prepare` gives them; feat
        [N, F] or {node type: [N, F]} -> [N, C].
        Raises ShapeError for another number of shells and for tensors that do not fit.
        """
        h = self.hops(shells, feat)
        if self.fuse is not None:
            return self.fuse(h)[0]
        if self.theta is None:
            return torch.stack(h).sum(0)
        theta = ops.alignment(self.theta, form="none")
        return (torch.stack(h) * theta[:, None, None]).sum(0)

    def attention(self, shells: Shells, feat: Features) -> Tensor:
        """theta of every hop, [L + 1], or of every node and hop, [N, L + 1]."""
        if self.fuse is not None:
            return self.fuse.weights(self.hops(shells, feat))
        return torch.ones(self.num_hops + 1) if self.theta is None else ops.alignment(self.theta, form="none")

    def attended(self, *inputs: Any) -> list[Shares]:
        """The share of every hop in the sum of |theta|; nothing where it is not learned."""
        if self.mix == "sum":
            return []
        theta = self.attention(*inputs).abs()
        theta = theta if theta.dim() == 1 else theta.mean(0)
        if theta.sum() == 0:
            return []
        names = tuple(f"shell {k}" for k in range(len(theta)))
        even = (1 / len(theta),) * len(theta)
        what: dict[str, Any] = {
            "what": "share of the sum of |theta|",
            "even": "if all hops counted alike",
            "ordered": True,
        }
        return [Shares("weights of hops", names, tuple((theta / theta.sum()).tolist()), even, **what)]
