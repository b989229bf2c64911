"""Personalised PageRank of some nodes of a power-law graph of a million edges: by push, and by SciPy's power iteration.

Both end at one rule, by which nothing of a walk above epsilon times the degree is under way at any node, so that both
are below the value by at most epsilon times the degree, and so far apart at most: that is looked at before the clock
runs. The power iteration has its walks side by side, a dense [N, B].
"""

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.graphs import power_law
from benchmarks.memory import Spec
from benchmarks.timing import Candidate, Case, Unequal
from hgat.graph.ppr import _Walk

__all__ = ["push", "specs"]

NODES, EDGES, WALKS = 100_000, 1_000_000, 64
ALPHA, EPSILON = 0.25, 1e-4


def push(scale=1.0, epsilon=EPSILON):
    """The case of `WALKS` nodes, row form."""
    nodes = max(int(NODES * scale), 2 * WALKS)
    graph = power_law(nodes, max(int(EDGES * scale), 2 * nodes)).graph
    walk = _Walk(graph, ALPHA, "row", "push", epsilon, None)
    back, threshold = sp.csr_matrix(walk.step.T), walk.threshold[:, None]
    none = torch.zeros((), requires_grad=True)

    def by_push():
        row, column, value = walk.nearest(0, WALKS, nodes)
        return torch.from_numpy(sp.csr_matrix((value, (row, column)), (WALKS, nodes)).toarray()) + none

    def by_power():
        left, found = np.zeros((nodes, WALKS)), np.zeros((nodes, WALKS))
        left[np.arange(WALKS), np.arange(WALKS)] = 1.0
        while (left > threshold).any():
            found += ALPHA * left
            left = (1 - ALPHA) * (back @ left)
        return torch.from_numpy(found.T) + none

    apart = ((by_push() - by_power()).detach().abs() / torch.from_numpy(walk.threshold)).max()
    if apart > 1:
        raise Unequal(f"PageRank: expected values that are a bound apart at most, got {float(apart):g} of it")
    candidates = [Candidate("hgat", by_push, {"none": none})]
    candidates.append(Candidate("SciPy", by_power, {"none": none}, compared=False))
    return Case(f"PageRank of {WALKS}, {graph.num_edges():,} edges, epsilon {epsilon:g}", candidates, ("forward",))


def specs(scale=1.0, root=None):
    """Every case."""
    yield Spec("benchmarks.ppr:push", {"scale": scale}, memory=False)
