"""A trained model whose attention is doubted: its answers, and the weights behind them, to be changed at will."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from hgat import ops
from hgat.errors import GraphError, HgatError, is_whole
from hgat.explain.origins import Origins, origins
from hgat.graph import csr
from hgat.models import System
from hgat.models._system import resting

__all__ = ["KINDS", "Change", "Subject"]

KINDS = ("classes", "labels", "rows")
SAME = 1e-3  # answers that differ by no more are one
PROBES = 8  # nodes whose in-edges all go, each alone, to see who reads them
FARTHEST = 6  # hops that an answer is looked for; beyond them every node is asked alone
TINY = 1e-30
APART = 1e-5  # ratios to uniform weights that differ by less are tied

Change = Callable[[int, Tensor], Tensor]  # (number of the site, its weights [E, H]) -> others


class Subject:
    """The answer of a model for some nodes, and the attention that these nodes spend on their in-edges.

    model, inputs: as of its forward. nodes: rows of the answer, in numbers of the task's nodes: [M], or how many of
    those that have two in-edges or more, drawn by `seed`; all of them if None. kind: "classes", logits of one class per
    row; "labels", a logit per label; "rows", numbers that stand for a node, of which the last step is taken where there
    are steps. target: the type of the nodes that the answer is of, where the model does not say it.

    A site is an attention call over the edges that enter the asked nodes, such as a layer of GAT; all sites share one
    graph, that of the last call. What is changed of a node are the weights of its own in-edges, at every site. That
    changes the answers of others, too, wherever they are read from that node's row. Nodes are therefore answered in
    batches in which none is within reach of another: as many hops as there are calls over edges behind the first. That
    is exact for layers that pass messages by attention alone. Other hops are no calls: the nodes that most others read
    lose all in-edges, each alone, and reach grows while that moves the answer of another of their batch. Weights
    along an axis that all nodes share are held as they were.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple,
        nodes: int | Sequence[int] | Tensor | None = None,
        *,
        kind: str = "classes",
        target: str | None = None,
        seed: int = 0,
        tick: Callable[[], Any] = lambda: None,
    ) -> None:
        if kind not in KINDS:
            raise HgatError(f"kind: expected one of {list(KINDS)}, got {kind!r}")
        self.model, self.inputs, self.kind, self.tick = model, inputs, kind, tick
        calls: list[ops.AttentionCall] = []
        with ops.attention_hook(calls.append):
            self.base = self.answer()
        edges = [call for call in calls if call.kind == "edges"]
        if not edges:
            name = type(model).__name__
            raise HgatError(f"doubt: expected a model with attention over edges, got {name}, which has none")
        self._held = {c.number: c.weights for c in calls if c.kind == "axis" and c.weights.dim() == 1}
        graphs = [call.graph for call in edges if call.graph is not None]
        target = getattr(model, "target", target)
        placed = origins(inputs, graphs, target)
        self.graph = graphs[-1]
        index = self.graph._graph
        sites = [call for call in edges if call.graph is not None and call.graph._graph is index]
        self.site_of = {call.number: number for number, call in enumerate(sites)}
        self.forms = [call.form for call in sites]
        self.weights = [call.weights for call in sites]
        self.device = self.base.device
        self.group = csr.edges(self.graph, self.device)[1]
        self.num_groups = self.graph.num_dst_nodes()
        self.origin = placed[-1]
        self.row = _rows(self.origin, target, len(self.base), type(model).__name__).to(self.device)
        known = self.row >= 0
        self.size = torch.bincount(self.group, minlength=self.num_groups)  # edges of a softmax
        self.degree = torch.bincount(self.row[known], minlength=len(self.base))
        wide = self.size[self.group] > 1
        self.wide = torch.zeros(len(self.base), dtype=torch.bool, device=self.device)
        self.wide[self.row[known & wide]] = True
        self.nodes = self._asked(nodes, seed)
        self._near = _Near(placed)
        self.batches = self._batches(len(edges) - 1)

    @property
    def chosen(self) -> Tensor:
        """The class of each asked node that the model prefers, [M]."""
        return self.base[self.nodes].argmax(1)

    def _asked(self, nodes: Any, seed: int) -> Tensor:
        """Rows to be asked; GraphError for such as attend to nothing."""
        if nodes is None or is_whole(nodes):
            able = self.wide.nonzero().flatten()
            if not len(able):
                raise GraphError("nodes: expected a node with two in-edges to choose from, got none in the graph")
            order = torch.randperm(len(able), generator=torch.Generator().manual_seed(seed)).to(able.device)
            if nodes is not None and not nodes >= 1:
                raise HgatError(f"nodes: expected 1 or more, got {nodes}")
            return able[order[: None if nodes is None else int(nodes)]].sort().values
        found = torch.as_tensor(nodes, device=self.device).long().flatten()
        outside = found[(found < 0) | (found >= len(self.base))]
        if len(outside):
            raise GraphError(f"nodes: expected nodes from 0 to {len(self.base) - 1}, got {int(outside[0])}")
        alone = found[self.degree[found] == 0]
        if len(alone) or not len(found):
            got = f"node {int(alone[0])} without any" if len(alone) else "no node"
            raise GraphError(f"nodes: expected nodes with in-edges to attend to, got {got}")
        return found

    # ---- answers ----

    def answer(self, model: nn.Module | None = None, grad: bool = False) -> Tensor:
        """Distributions over classes, probabilities of labels, or rows, [N, C], in evaluation mode."""
        one = self.model if model is None else model
        found = resting(one, lambda: one.whole(self.inputs) if isinstance(one, System) else one(*self.inputs), grad)
        self.tick()
        if not isinstance(found, Tensor) or found.dim() not in (2, 3):
            got = f"{list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise HgatError(f"doubt: expected a model that answers with a row for each node, got {got}")
        found = found[:, -1] if found.dim() == 3 else found
        if self.kind == "classes":
            return torch.softmax(found.float(), 1)
        return torch.sigmoid(found.float()) if self.kind == "labels" else found

    def change(self, one: Tensor, other: Tensor) -> Tensor:
        """By how much answers [M, C] differ, [M], from 0 to 1.

        Total variation distance of classes, its mean over labels; of rows the length of the difference over the sum of
        their lengths.
        """
        if self.kind == "rows":
            return (one - other).norm(dim=1) / (one.norm(dim=1) + other.norm(dim=1)).clamp_min(TINY)
        gap = (one - other).abs()
        return gap.sum(1) / 2 if self.kind == "classes" else gap.mean(1)

    def value(self, answers: Tensor) -> Tensor:
        """What is left of the answers of the asked nodes, [M]: the probability of the class that was preferred.

        Without classes one less the change.
        """
        if self.kind == "classes":
            return answers.gather(1, self.chosen[:, None]).squeeze(1)
        return 1 - self.change(answers, self.base[self.nodes])

    def read(self, model: nn.Module, grad: bool = False) -> tuple[Tensor, list[Tensor]]:
        """(answers of the asked nodes [M, C], weights of every site) of another model of this kind."""
        seen: dict[int, Tensor] = {}

        def hook(call):
            if call.number in self.site_of:
                seen[self.site_of[call.number]] = call.weights

        with ops.attention_hook(hook):
            answers = self.answer(model, grad)[self.nodes]
        return answers, [seen[site] for site in range(len(self.weights))]

    # ---- changed weights ----

    def swapped(self, change: Change, touched: Tensor | None = None) -> Any:
        """A context in which the weights of the touched edges, bool [E], are what `change` makes of them."""

        def hook(call):
            site = self.site_of.get(call.number)
            if site is None:
                return self._held.get(call.number)
            others = change(site, call.weights)
            return others if touched is None else torch.where(touched[:, None], others, call.weights)

        return ops.attention_hook(hook)

    def rounds(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(places among the asked nodes, bool [E] of their in-edges) of every batch."""
        for batch in self.batches:
            here = torch.zeros(len(self.base) + 1, dtype=torch.bool, device=self.device)
            here[self.nodes[batch]] = True
            yield batch, here[self.row]  # -1, an edge of no row, is the last, which is False

    def sweep(self, change: Change) -> Tensor:
        """The answers of the asked nodes, each with its own in-edges' weights changed and no others, [M, C]."""
        found = self.base[self.nodes].clone()
        for batch, touched in self.rounds():
            with self.swapped(change, touched):
                found[batch] = self.answer()[self.nodes[batch]]
        return found

    def per_group(self, values: Tensor) -> Tensor:
        """Sums over each softmax's edges: [E, H] -> [G, H]."""
        return values.new_zeros(self.num_groups, *values.shape[1:]).index_add(0, self.group, values)

    def kept(self, keep: Tensor) -> Change:
        """The change that leaves edges out, bool [E], False for what is left out: the softmax is over the others."""

        def change(site, weights):
            left = weights * keep[:, None]
            if self.forms[site] != "softmax":
                return left
            return left / self.per_group(left).clamp_min(TINY)[self.group]

        return change

    def per_node(self, of_edge: Tensor) -> Tensor:
        """Means over the in-edges of the asked nodes whose softmax has a choice: [E] -> [M], NaN where none has."""
        counted = (self.row >= 0) & (self.size[self.group] > 1)
        total = of_edge.new_zeros(len(self.base)).index_add(0, self.row[counted], of_edge[counted])
        count = torch.bincount(self.row[counted], minlength=len(self.base))
        return (total / torch.where(count > 0, count, torch.nan))[self.nodes]

    def attention(self) -> Tensor:
        """The attention to each edge, [E]: the mean over heads and sites of `ratios`."""
        return torch.stack([ratio.mean(1) for ratio in self.ratios()]).mean(0).div(APART).round() * APART

    def ratios(self) -> list[Tensor]:
        """Weights of every site as multiples of uniform's, |w| times the edges of the softmax, [E, H]; of a gate |w|.

        A node may have several softmaxes, one for each view, relation or step: a weight alone would mostly tell how
        large its softmax is. Ratios that differ by rounding are one.
        """
        size = self.size[self.group][:, None].double()
        found = [
            weights.abs() * (size if form == "softmax" else 1)
            for form, weights in zip(self.forms, self.weights, strict=True)
        ]
        return [ratio.double().div(APART).round() * APART for ratio in found]

    # ---- batches ----

    def _batches(self, reach: int) -> list[Tensor]:
        nothing = self.kept(torch.zeros(len(self.row), device=self.device))
        readers = self._near.readers(self.origin, self.row, self.nodes)
        moved: dict[int, Tensor] = {}  # of a node that was probed: which of the asked nodes read it
        while reach <= FARTHEST:
            batches = self._near.apart(self.origin, self.row, self.nodes, reach)
            crowds = {k: batch for batch in batches if len(batch) > 1 for k in batch.tolist()}
            for k in sorted(crowds, key=lambda k: -readers[k])[:PROBES]:
                if k not in moved:
                    with self.swapped(nothing, self.row == self.nodes[k]):
                        moved[k] = self.change(self.answer()[self.nodes], self.base[self.nodes]) > SAME
                if any(bool(moved[k][other]) for other in crowds[k].tolist() if other != k):
                    break
            else:
                return batches
            reach += 1
        return [torch.tensor([k], device=self.device) for k in range(len(self.nodes))]


def _rows(of: Origins, target: str | None, count: int, name: str) -> Tensor:
    """The row of the answer that each edge enters, [E]; -1 for edges that enter nodes which are not asked for."""
    ends = {relation[2] for relation in of.relations}
    if target is None or target not in ends:
        if len(ends) > 1:
            raise HgatError(
                f"doubt: expected attention that ends at the nodes that {name} answers for, got {sorted(ends)}"
            )
        row = of.dst
    else:
        row = torch.where(torch.tensor([relation[2] == target for relation in of.relations])[of.relation], of.dst, -1)
    if len(row) and int(row.max()) >= count:
        raise HgatError(
            f"doubt: expected attention that ends at one of {count} rows of the answer, got {int(row.max())}"
        )
    return row


class _Near:
    """Who can be read from whom over how many hops of attention."""

    def __init__(self, placed: Sequence[Origins]) -> None:
        first: dict[str, int] = {}
        for of in placed:
            for number, relation in enumerate(of.relations):
                here = of.relation == number
                for ntype, ends in ((relation[0], of.src[here]), (relation[2], of.dst[here])):
                    first[ntype] = max(first.get(ntype, 1), int(ends.max()) + 1 if len(ends) else 1)
        starts, total = {}, 0
        for ntype, count in first.items():
            starts[ntype], total = total, total + count
        src, dst = [], []
        for of in placed:
            names = torch.tensor([[starts[r[0]], starts[r[2]]] for r in of.relations])
            src.append(of.src + names[of.relation, 0])
            dst.append(of.dst + names[of.relation, 1])
        one, two = torch.cat(dst).numpy(), torch.cat(src).numpy()
        shape = (total, total)
        self._in = scipy.sparse.csr_matrix((torch.ones(len(one)).numpy(), (one, two)), shape=shape)
        self._in = ((self._in + scipy.sparse.identity(total)) > 0).astype("float32").tocsr()
        self._starts = starts

    def _ids(self, of: Origins, row: Tensor, nodes: Tensor) -> np.ndarray:
        ends = [self._starts[relation[2]] for relation in of.relations]
        (edge,) = (row.cpu() >= 0).nonzero(as_tuple=True)
        return nodes.cpu().numpy() + ends[int(of.relation[edge[0]])]

    def readers(self, of: Origins, row: Tensor, nodes: Tensor) -> list[int]:
        """How many read each of `nodes` over one hop, itself among them."""
        return np.diff(self._in.tocsc().indptr)[self._ids(of, row, nodes)].tolist()

    def apart(self, of: Origins, row: Tensor, nodes: Tensor, reach: int) -> list[Tensor]:
        """Places among `nodes` in batches, of which none is within `reach` hops of another."""
        ids = self._ids(of, row, nodes)
        around = scipy.sparse.identity(self._in.shape[0], dtype="float32", format="csr")[ids]
        for _ in range(reach):
            around = ((around @ self._in) > 0).astype("float32")
        meet = around[:, ids].tocoo()
        graph = nx.Graph()
        graph.add_nodes_from(range(len(ids)))
        graph.add_edges_from((a, b) for a, b in zip(meet.row.tolist(), meet.col.tolist(), strict=True) if a != b)
        colour = nx.greedy_color(graph, "largest_first")
        place = torch.tensor([colour[k] for k in range(len(ids))], device=nodes.device)
        return [(place == k).nonzero().flatten() for k in range(int(place.max()) + 1)]
