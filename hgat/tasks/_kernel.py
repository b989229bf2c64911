"""A kernel that somebody made by hand: a weighted mean over a node's in-neighbours, nearer ones more."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hgat.errors import RecipeError
from hgat.models import Facts
from hgat.tasks._fitted import Boosted, means, own
from hgat.tasks._task import Control

__all__ = ["BoostedKernel", "Kernel"]


class Kernel(Control):
    """Nadaraya and Watson's estimate: the mean of a column over the in-neighbours, weighted by how near they are.

        answer_v = a + b sum_u w_uv x_u / sum_u w_uv, w_uv = exp(- sum_g |z_g,u - z_g,v|^2 / (2 h_g^2))

    kernel: {"value": x, the name of a column of the sources; "near": {name: {"columns": z_g, names that sources and
    destinations have, "bandwidths": those that are tried for h_g}}}. All relations count alike. a and b are the least
    squares line of the training nodes; a node without in-neighbours gets a + b times the training nodes' mean estimate.
    Validation chooses among all combinations of the bandwidths.
    Paper: Nadaraya 1964, Theory of Probability and its Applications 9(1); Watson 1964, Sankhya A 26(4).
    """

    title = "hand-made kernel"
    bandwidth: Tensor
    line: Tensor

    def __init__(self, solutions: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.tried = solutions
        self.solutions = len(solutions)  # type: ignore[misc]
        self.register_buffer("bandwidth", torch.tensor(solutions[0]))
        self.register_buffer("line", torch.tensor([0.0, 1.0, 0.0]))

    @staticmethod
    def prepare(shown: Facts, *, kernel: Mapping) -> tuple:
        """(squares [E, G] of how far the ends of every edge are apart, value [E], dst [E], nodes, bandwidths)."""
        return _prepared(shown, kernel)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "Kernel":
        """With the first bandwidths."""
        return cls(inputs[-1])

    def forward(self, squares: Tensor, value: Tensor, dst: Tensor, nodes: int, tried: Sequence) -> Tensor:
        """squares [E, G], value [E], dst [E] -> [N, 1]. Raises nothing: prepare has checked them."""
        found = _estimate(squares, value, dst, nodes, self.bandwidth)
        slope, shift, empty = self.line[1], self.line[0], self.line[2]
        return (shift + slope * torch.where(found.isnan(), empty, found)).unsqueeze(1)

    def solve(self, shown: Facts, inputs: tuple, number: int) -> None:
        """Take bandwidths number `number`, and the line through what they give."""
        self.bandwidth.copy_(torch.tensor(self.tried[number]))
        squares, value, dst, nodes, _ = inputs
        found = _estimate(squares, value, dst, nodes, self.bandwidth)[shown.train.to(squares.device)].cpu()
        known, label = ~found.isnan(), shown.label[shown.train]
        x, y = found[known].double(), label[known].double()
        slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum().clamp_min(1e-30)
        self.line.copy_(torch.stack([y.mean() - slope * x.mean(), slope, x.mean()]))


class BoostedKernel(Boosted):
    """Boosted trees on the target's own features, its neighbours' means and the hand-made kernel's estimate.

    The bandwidths are those whose estimate has the least squared error on the training nodes. The estimate itself is
    made of the in-neighbours' column and of no label.
    """

    title = "boosted trees with neighbours' means and that kernel"

    @staticmethod
    def prepare(shown: Facts, *, kernel: Mapping) -> tuple:
        """(table [N, F] float32,)."""
        squares, value, dst, nodes, tried = _prepared(shown, kernel)
        label, best, least = shown.label[shown.train], torch.empty(0), float("inf")
        for bandwidth in tried:
            found = _estimate(squares, value, dst, nodes, torch.tensor(bandwidth))
            x, y = found[shown.train].nan_to_num().double(), label.double()
            error = 1.0 - float(torch.corrcoef(torch.stack([x, y]))[0, 1].nan_to_num() ** 2)
            if error < least:
                best, least = found, error
        return (torch.cat([own(shown), means(shown), best.unsqueeze(1)], 1),)


def _prepared(shown, kernel):
    """(squares [E, G], value [E], dst [E], nodes, combinations of bandwidths) over all relations into the target."""
    near = _checked(kernel)
    into = [etype for etype in shown.graph.canonical_etypes if etype[2] == shown.target]
    if not into:
        raise RecipeError(f"task.kernel: expected relations that end at {shown.target!r}, got none")
    squares, value, ends = [], [], []
    for etype in into:
        src, dst = (end.long() for end in shown.graph.edges(etype=etype, order="eid"))
        apart = []
        for group in near.values():
            there, here = (_columns(shown, ntype, group["columns"]) for ntype in (etype[0], shown.target))
            apart.append(((there[src] - here[dst]) ** 2).sum(1))
        squares.append(torch.stack(apart, 1))
        value.append(_columns(shown, etype[0], [kernel["value"]])[src, 0])
        ends.append(dst)
    tried = tuple(itertools.product(*(map(float, group["bandwidths"]) for group in near.values())))
    return torch.cat(squares), torch.cat(value), torch.cat(ends), shown.graph.num_nodes(shown.target), tried


def _checked(kernel):
    near = kernel.get("near")
    if not isinstance(near, Mapping) or not near or "value" not in kernel:
        raise RecipeError(f"task.kernel: expected value and near, a table of columns and bandwidths, got {kernel}")
    for name, group in near.items():
        if not isinstance(group, Mapping) or not group.get("columns") or not group.get("bandwidths"):
            raise RecipeError(f"task.kernel: expected columns and bandwidths of {name}, got {group}")
        for bandwidth in group["bandwidths"]:
            if not bandwidth > 0:
                raise RecipeError(f"task.kernel: expected bandwidths above 0, got {bandwidth}")
    return near


def _columns(shown, ntype, names):
    """[N, C] of the features of a node type."""
    known = shown.columns.get(ntype, ())
    for name in names:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise RecipeError(f"task.kernel: expected columns of {ntype} among {listed}, got {name!r}")
    return shown.feat[ntype][:, [known.index(name) for name in names]]


def _estimate(squares, value, dst, nodes, bandwidth):
    """[N] the weighted means, NaN where a node has no in-neighbour."""
    logits = -(squares / (2.0 * bandwidth.to(squares) ** 2)).sum(1)
    # The nearest one of each node counts one, so that no weight vanishes where all are far.
    top = logits.new_full((nodes,), -float("inf")).scatter_reduce(0, dst, logits, "amax")
    weight = torch.exp(logits - top[dst])
    total = logits.new_zeros(nodes).index_add(0, dst, weight)
    return logits.new_zeros(nodes).index_add(0, dst, weight * value) / total
