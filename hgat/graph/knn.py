"""Graphs of nodes whose features are alike."""

from typing import Literal

import dgl
import numpy as np
import torch
from torch import Tensor

from hgat.errors import GraphError, ShapeError, check_range, check_shape
from hgat.graph.csr import check_whole, shown
from hgat.graph.memory import within_memory

__all__ = ["knn_graph"]

METRICS = ("cosine", "heat")
SYMMETRIZE = ("union", "official")


@within_memory
def knn_graph(
    x: Tensor,
    k: int,
    *,
    metric: Literal["cosine", "heat"] = "cosine",
    symmetrize: Literal["union", "official"] = "union",
    temperature: float = 2.0,
) -> dgl.DGLGraph:
    """The graph from each node to the k others whose rows are most alike, every edge in both directions, once.

        cosine: s_ij = x_i . x_j / (|x_i| |x_j|);   heat: s_ij = exp(-|x_i - x_j|^2 / temperature)

    symmetrize: "union" links i and j where either is among the k nearest of the other. "official" keeps a pair only
    where j is among those of i and i < j, as AM-GCN's published code does, which loses what a node of a higher number
    alone lists. There are no self-loops.

    Shapes: x [N, F], finite -> a DGLGraph of N nodes with edata["similarity"] [E] float32. scikit-learn compares blocks
    of rows, so that nothing is N x N; the time is that of N^2 F products. Rows of zeros have no cosine: they get no
    neighbours and are nobody's. Among rows that are equally alike scikit-learn's order decides.
    Raises ShapeError for another metric or form and for what is no such tensor, GraphError for numbers that are not
    finite, for k that is not below N, rows of zeros not counted, and for rows that are all alike, where any others
    would be the nearest.
    Paper: Wang et al. 2020 (AM-GCN), arXiv:2007.02265, whose heat kernel has temperature 2.
    """
    for name, value, known in (("metric", metric, METRICS), ("symmetrize", symmetrize, SYMMETRIZE)):
        if not isinstance(value, str) or value not in known:
            raise ShapeError(f"{name}: expected one of {list(known)}, got {shown(value)}")
    check_whole(1, k=k)
    check_range(0, temperature=temperature)
    if temperature == 0:
        raise ShapeError("temperature: expected a number above 0, got 0")
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.layout != torch.strided:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ShapeError(f"x: expected a floating-point tensor [N, F], got {got}")
    check_shape("x", x, ("N", None), ("F", None))
    rows = x.detach().cpu().float()
    odd = (~rows.isfinite().all(1)).nonzero().flatten()
    if len(odd):
        raise GraphError(f"x: expected finite features to compare, got others in row {int(odd[0])}")
    ids = torch.arange(len(rows))
    if metric == "cosine":
        length = rows.norm(dim=1, keepdim=True)
        ids = length.flatten().nonzero().flatten()
        rows = rows[ids] / length[ids]
    if k >= len(ids):
        what = "rows" if len(ids) == len(x) else "rows that are not zero"
        raise GraphError(f"k: expected fewer neighbours than the {len(ids)} {what}, got {k}")
    if k < len(ids) - 1 and torch.allclose(rows, rows[:1].expand_as(rows), rtol=1e-5, atol=1e-7):
        raise GraphError(f"x: expected rows of which some differ, got {len(ids)} alike, any {k} of them the nearest")
    near, distance = _nearest(rows.numpy(), k)
    listing, listed = ids.repeat_interleave(k), ids[torch.from_numpy(near.astype(np.int64)).flatten()]
    squared = torch.from_numpy(distance).flatten().double().square()
    similarity = 1 - squared / 2 if metric == "cosine" else torch.exp(-squared / temperature)
    if symmetrize == "official":
        kept = listing < listed
        listing, listed, similarity = listing[kept], listed[kept], similarity[kept]
    # A pair that both list stands twice; both say the same but for rounding, and the first is taken.
    low, high = torch.minimum(listing, listed), torch.maximum(listing, listed)
    key, first = np.unique((low * len(x) + high).numpy(), return_index=True)
    low, high = (torch.from_numpy(end) for end in np.divmod(key, len(x)))
    graph = dgl.graph((torch.cat([low, high]), torch.cat([high, low])), num_nodes=len(x))
    graph.edata["similarity"] = similarity[torch.from_numpy(first)].repeat(2).float()
    return graph


def _nearest(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(numbers of the k nearest other rows, their distances), [N, k] each."""
    from sklearn.neighbors import NearestNeighbors  # a second of its own, for whoever asks for it

    # Of rows of length one the nearest are those of the largest cosine. Of no query row scikit-learn leaves out itself.
    distance, near = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="euclidean").fit(rows).kneighbors()
    return near, distance
