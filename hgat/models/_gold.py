"""Attention beside a gold standard: edges of which is known whether they decide, measured or learned from."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import dgl
import torch
import torch.nn.functional as F
from torch import Tensor

from hgat import ops
from hgat.errors import GraphError, RecipeError, ShapeError
from hgat.graph import csr

__all__ = ["attended", "beside_gold", "checked", "correctness", "supervision"]

FORMS = ("softmax", "sigmoid")  # whose weights are shares from 0 to 1, as gold is
LEAST = 1e-6  # a weight whose logarithm is taken, and its distance from 1


def checked(
    weights: Any, gold: Any, graph: dgl.DGLGraph | Tensor, name: str = "gold", dtype: torch.dtype | None = torch.bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(weights [E, H] in 64 bits, gold [E], where each edge ends [E]); ShapeError for what does not fit."""
    for what, tensor in (("weights", weights), (name, gold)):
        if not isinstance(tensor, Tensor):
            raise ShapeError(f"{what}: expected a tensor with a row for each edge, got {type(tensor).__name__}")
    if isinstance(graph, Tensor):
        dst = graph.cpu()
    else:
        csr.single_relation(graph)
        dst = csr.edges(graph, "cpu")[1]
    edges = len(dst)
    if dst.dim() != 1 or dst.is_floating_point():
        raise ShapeError(f"graph: expected a DGLGraph, or where each edge ends, [E], got {list(dst.shape)} {dst.dtype}")
    if len(weights) != edges or weights.dim() == 0 or not weights.is_floating_point():
        raise ShapeError(f"weights: expected floats [E, H] with E = {edges}, got {weights.dtype} {list(weights.shape)}")
    if list(gold.shape) != [edges] or (dtype is not None and gold.dtype != dtype):
        expected = "" if dtype is None else f"{dtype} "
        raise ShapeError(f"{name}: expected {expected}[E] with E = {edges}, got {gold.dtype} {list(gold.shape)}")
    weights = weights.detach().cpu().double().reshape(edges, weights[0].numel() if edges else 1)
    return weights, gold.detach().cpu(), dst.long()


def correctness(weights: Tensor, gold: Tensor, graph: dgl.DGLGraph | Tensor, nodes: Tensor | None = None) -> float:
    """Attention correctness: the share of a node's attention that is on gold edges, the mean over nodes and heads.

        AC_v = sum over gold u -> v of |w_uv| / sum over all u -> v of |w_uv|

    weights [E, H] or [E]; gold [E] bool; graph: of these edges, in order, or where each ends, [E]. Counted are the
    nodes that a gold edge enters, of those in `nodes` (all if None). A node whose weights are all zero has 0. Weights
    of a softmax need no absolute value and are divided by 1.
    Raises ShapeError for tensors that do not fit, and where no gold edge enters any of the nodes.
    Paper: Liu et al. 2017, arXiv:1605.09553, for attention over regions of an image; edges are of this project.
    """
    weights, gold, dst = checked(weights, gold, graph)
    if nodes is not None:
        here = torch.isin(dst, nodes.cpu())
        weights, gold, dst = weights[here], gold[here], dst[here]
    if not gold.any():
        raise ShapeError("gold: expected a gold edge into one of the nodes or more, got none")
    _, place = dst.unique(return_inverse=True)
    count = int(place.max()) + 1
    total, right = (
        torch.zeros(count, weights.shape[1], dtype=torch.float64).index_add_(0, place, part)
        for part in (weights.abs(), weights.abs() * gold.unsqueeze(1))
    )
    asked = torch.zeros(count, dtype=torch.bool).index_fill_(0, place[gold], True)
    return float((right / total.clamp_min(1e-30))[asked].mean())


@contextmanager
def attended() -> Iterator[list[ops.AttentionCall]]:
    """A list of the attention calls over edges that are made inside the block, in their order."""
    calls: list[ops.AttentionCall] = []

    def hook(call):
        if call.kind == "edges":
            calls.append(call)

    with ops.attention_hook(hook):
        yield calls


def beside_gold(
    calls: list[ops.AttentionCall], inputs: Any, known: Any
) -> Iterator[tuple[ops.AttentionCall, Tensor, Tensor]]:
    """(call, gold [E], where each edge ends [E]) of every call over the edges of a graph among the inputs.

    known: what has a `graph` and its `gold`, as Facts and NodeData have. gold is 1, 0, or NaN for an edge that `known`
    does not have or says nothing of. Ends are nodes of known.target; -1 for those of another type. A layer over several
    relations attends over all of them laid end to end. Of several edges between the same two nodes the k-th has
    the mark of the data's k-th. Raises GraphError where their marks differ and some of them are left out.
    """
    graphs = list(_graphs(inputs))
    for call in calls:
        edges = cast(dgl.DGLGraph, call.graph).num_edges()
        fits = [graph for graph in graphs if graph is call.graph]
        fits += [graph for graph in graphs if sum(map(graph.num_edges, graph.canonical_etypes)) == edges]
        if fits:
            yield call, *csr.cached(fits[0], ("gold", known), partial(_laid, fits[0], known))


def _graphs(inputs):
    if isinstance(inputs, dgl.DGLGraph):
        yield inputs
    elif isinstance(inputs, (list, tuple)):
        for part in inputs:
            yield from _graphs(part)


def _laid(graph, known):
    """(gold [E], ends [E]) of the edges of all relations, laid end to end."""
    of, found, ends = known.graph, [], []
    for etype in graph.canonical_etypes:
        src, dst = (end.long().cpu() for end in csr.in_order(graph, etype))
        if graph.is_block:
            src = graph.srcnodes[etype[0]].data[dgl.NID].long().cpu()[src]
            dst = graph.dstnodes[etype[2]].data[dgl.NID].long().cpu()[dst]
        marks = known.gold
        if isinstance(marks, Tensor):
            marks = marks if etype == of.canonical_etypes[0] else None
        elif marks is not None:
            marks = marks.get(etype)
        told = torch.full((len(src),), torch.nan)
        if marks is not None:
            first, last = (end.long().cpu() for end in csr.in_order(of, etype))
            width = max(of.num_nodes(etype[2]), 1)
            told = _told(src * width + dst, first * width + last, marks.float(), etype)
        found.append(told)
        ends.append(dst if etype[2] == known.target else torch.full_like(dst, -1))
    return torch.cat(found), torch.cat(ends)


def _told(edges, known, marks, etype):
    """The marks of `known` edges for `edges`, both written as one number for their two ends; NaN where there is none.

    Of several edges between the same two nodes the k-th is the k-th of the data.
    """
    known, order = known.sort(stable=True)
    marks = marks[order]
    mine, own = edges.sort(stable=True)
    (place, end), (start, stop) = (
        [torch.searchsorted(x, mine, right=side) for side in (False, True)] for x in (known, mine)
    )
    # Where some copies are left out it is not known which, which matters if their marks differ.
    differ = (marks[1:].nan_to_num(-1.0) != marks[:-1].nan_to_num(-1.0)) & (known[1:] == known[:-1])
    fewer = (place < end) & (end - place != stop - start)
    if torch.isin(mine[fewer], known[1:][differ]).any():
        raise GraphError(
            f"gold: expected as many edges of {etype} between two nodes as in the data, where their marks differ, "
            "got another number"
        )
    here = (place < end).nonzero().flatten()
    copy = torch.minimum(torch.arange(len(mine)) - start, end - place - 1)[here]
    told = torch.full((len(mine),), torch.nan)
    told[own[here]] = marks[place[here] + copy]
    return told


def supervision(calls: list[ops.AttentionCall], inputs: Any, shown: Any) -> Tensor:
    """The mean over layers, heads and edges whose gold is shown of -g log w - (1 - g) log(1 - w), a scalar.

    Zero for a batch without such an edge. Raises RecipeError for a system without weights from 0 to 1 over edges.
    """
    found, fits = [], [pair for pair in beside_gold(calls, inputs, shown) if pair[0].form in FORMS]
    if not fits:
        raise RecipeError("task.gold: expected softmax or sigmoid attention over edges of the data's graph, got none")
    for call, gold, _ in fits:
        told = (~gold.isnan()).nonzero().flatten()
        if len(told):
            weights = call.weights[told.to(call.weights.device)].flatten(1).clamp(LEAST, 1 - LEAST)
            target = gold[told].to(weights).unsqueeze(1).expand_as(weights)
            found.append(F.binary_cross_entropy(weights, target))
    return torch.stack(found).mean() if found else fits[0][0].weights.new_zeros(())
