"""ACM's layer: low-pass, high-pass and identity channels, weighed for every node by itself."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from dgl import DGLGraph
from torch import Tensor, nn
from torch.nn import functional as F

from hgat import ops
from hgat.errors import ShapeError, brief, check_shape
from hgat.graph import csr
from hgat.nn.common import (
    Layer,
    both_ends,
    check_floats,
    check_graph,
    check_plain,
    check_sizes,
    first_rows,
    normalized_weights,
)
from hgat.nn.fusion import Fusion

__all__ = ["ACMConv"]

FORMS = ("acm", "acmii")
CHANNELS = ("low", "high", "identity")


class ACMConv(Layer):
    """Adaptive channel mixing: a node takes the mean of its neighbourhood, what differs from it, or its own row.

        acm:   H_L = ReLU(P h W_L);    H_H = ReLU((I - P) h W_H);    H_I = ReLU(h W_I)
        acmii: H_L = P ReLU(h W_L);    H_H = (I - P) ReLU(h W_H);    H_I = ReLU(h W_I)
        [alpha_L, alpha_H, alpha_I] = softmax([sigmoid(H_c w_c)]_c / C * M);    out = sum_c alpha_c H_c

    P takes the mean over in-edges, and (I - P) y is y - P y: there is no second matrix, and both channels are one sum
    over the edges. channels: which of "low", "high" and "identity" there are, C of them and one more with num_nodes:
    then H_A = ReLU(A W_A), a row of W_A for every node of one graph, summed over the in-edges but self-loops.
    score_norm: a layer normalisation of H_c, for the scores alone. scale_by_channels: the authors' code multiplies the
    sum by the number of channels, though not where there is H_A. M is [C, C]. Inside `uniform_attention()` alpha is
    1 / C. Parameters: 3 F_in F + 3 F + 9 by default.

    Raises ShapeError for a constructor's argument out of range.

    Paper: Luan et al. 2022, arXiv:2210.07606, section 4.2; score_norm and H_A are those of ACM-GCN+, appendix B.3.
    Differs: the last ReLU of step 3 is the caller's, as in the code, which leaves it out of the last layer; a self-loop
    is the caller's to add, and counts once, where the code counts one that the data have twice. No bias, and the
    initialisation of the code.
    """

    structure: nn.Parameter | None
    norms: nn.ModuleList | None

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        *,
        form: Literal["acm", "acmii"] = "acm",
        channels: Sequence[str] = CHANNELS,
        score_norm: bool = False,
        scale_by_channels: bool = False,
        num_nodes: int | None = None,
    ) -> None:
        super().__init__()
        self._in_feats, self._out_feats = check_sizes(in_feats=in_feats, out_feats=out_feats)
        if not isinstance(form, str) or form not in FORMS:
            raise ShapeError(f"form: expected 'acm' or 'acmii', got {brief(form)}")
        given = isinstance(channels, Sequence) and not isinstance(channels, str) and len(channels) > 0
        if not given or any(name not in CHANNELS or channels.count(name) > 1 for name in channels):
            raise ShapeError(f"channels: expected some of {', '.join(CHANNELS)}, each once, got {brief(channels)}")
        if num_nodes is not None:
            check_sizes(num_nodes=num_nodes)
        self.form, self.channels = form, tuple(name for name in CHANNELS if name in channels)
        count = len(self.channels) + (num_nodes is not None)
        self.scale = len(self.channels) if scale_by_channels and num_nodes is None else 1
        self.fc = nn.Linear(self._in_feats, len(self.channels) * self._out_feats, bias=False)
        rows = None if num_nodes is None else nn.Parameter(torch.empty(num_nodes, self._out_feats))
        self.register_parameter("structure", rows)
        self.norms = nn.ModuleList(nn.LayerNorm(self._out_feats) for _ in range(count)) if score_norm else None
        self.fuse = Fusion(
            self._out_feats,
            count,
            score="linear",
            shared=False,
            activation=torch.sigmoid,
            mix=True,
            temperature=float(count),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(F) for what projects, within 1 for the scores, within 1 / sqrt(C) for M."""
        bound = self._out_feats**-0.5
        nn.init.uniform_(self.fc.weight, -bound, bound)
        if self.structure is not None:
            nn.init.uniform_(self.structure, -bound, bound)
        for layer in self.norms or ():
            cast(nn.LayerNorm, layer).reset_parameters()
        self.fuse.reset_parameters()
        for weight in self.fuse.project.parameters():
            nn.init.uniform_(weight, -1.0, 1.0)

    def names(self) -> tuple[str, ...]:
        """The channels in the order of alpha."""
        return (*self.channels, "structure") if self.structure is not None else self.channels

    def views(
        self,
        graph: DGLGraph,
        feat: Tensor | tuple[Tensor, Tensor],
        edge_weight: Tensor | None = None,
        nodes: Tensor | None = None,
    ) -> list[Tensor]:
        """H_c of every channel, in the order of `names`: C tensors [N_dst, F]. Arguments and errors as in `forward`."""
        check_graph(graph)
        h_src, h_dst, one_input = both_ends(graph, feat, (self._in_feats,) * 2, nn.Identity(), (self.fc, self.fc))
        check_plain("feat", h_src, h_dst)
        z = self._projected(h_src)
        own = first_rows(z, len(h_dst)) if one_input else self._projected(h_dst)
        smooth = sum(name in ("low", "high") for name in self.channels)  # they are the first
        found = list(own.unbind(1))
        if smooth:
            if edge_weight is None:
                edge_weight = normalized_weights(graph, "right", z.device)
            check_floats("edge_weight", edge_weight)
            check_shape("edge_weight", edge_weight, ("E", graph.num_edges()))
            weight = edge_weight.to(z.dtype).unsqueeze(1).expand(-1, smooth).contiguous()
            mean = ops.weighted_sum(graph, z[:, :smooth].contiguous(), weight)
            for k, name in enumerate(self.channels[:smooth]):
                found[k] = mean[:, k] if name == "low" else found[k] - mean[:, k]
        if self.form == "acm":
            found = [F.relu(rows) for rows in found]
        if self.structure is not None:
            found.append(F.relu(self._of_structure(graph, nodes)))
        return found

    def _projected(self, h):
        """The rows of every channel before its filter, [N, C, F]."""
        z = self.fc(h).unflatten(-1, (len(self.channels), self._out_feats))
        return F.relu(z) if self.form == "acmii" else z

    def _of_structure(self, graph, nodes):
        """A W_A, [N_dst, F]."""
        rows = self.structure
        if nodes is not None:
            check_shape("nodes", nodes, ("N_src", graph.num_src_nodes()))
            rows = rows[nodes.to(rows.device).long()]
        check_shape("structure", rows, ("N_src", graph.num_src_nodes()), ("F", self._out_feats))
        weight = csr.cached(graph, ("but loops", str(rows.device)), lambda: _but_loops(graph).to(rows.device))
        return ops.weighted_sum(graph, rows.unsqueeze(1), weight.to(rows.dtype)).squeeze(1)

    def forward(
        self,
        graph: DGLGraph,
        feat: Tensor | tuple[Tensor, Tensor],
        edge_weight: Tensor | None = None,
        *,
        nodes: Tensor | None = None,
        get_attention: bool = False,
    ) -> Any:
        """The channels' weighted sum.

        graph: DGLGraph with one relation, or a block; feat [N, F_in], on a block of its sources, or a pair (source,
        destination); edge_weight [E], what P takes the mean with, by default one over the in-degree; nodes [N_src],
        with num_nodes: which rows of W_A the sources of a block have -> [N_dst, F], and with get_attention alpha
        [N_dst, C]. Of a node without in-edges H_L is zero, and H_H its own row.
        Raises GraphError for anything but such a graph, ShapeError for tensors unlike it.
        """
        rows = self.views(graph, feat, edge_weight, nodes)
        scored = rows if self.norms is None else [norm(h) for norm, h in zip(self.norms, rows, strict=True)]
        out, alpha = self.fuse(scored, value=rows)
        out = out * self.scale if self.scale != 1 else out
        return (out, alpha) if get_attention else out


def _but_loops(graph):
    """[E, 1]: 1, and 0 for an edge from a node to itself; the destinations of a block are its first sources."""
    src, dst = csr.edges(graph)
    return (src != dst).float().unsqueeze(1)
