"""Attention as tables: every weight, how it is spread, by relation, over time, head against head, over all layers."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import scipy.sparse
import torch
from torch import Tensor

from hgat.errors import GraphError, HgatError, check_range
from hgat.explain.edges import AxisAttention, EdgeAttention
from hgat.models import Shares

__all__ = ["axis_table", "by_relation", "heads_apart", "neighbours", "over_time", "rollout", "spread", "table"]

Ids = Mapping[str, Sequence[object]]  # {node type: names of its nodes}
LEAST = 1e-30


def table(records: Iterable[EdgeAttention], nodes: Iterable[int] | None = None, ids: Ids | None = None) -> pd.DataFrame:
    """Every weight of every head, a row each: layer, relation, head, the two ends, weight, uniform.

    nodes: only the edges that enter these. ids: {node type: names of its nodes}, which give the columns src_name and
    dst_name. Columns: layer, relation, head, src_type, src, dst_type, dst, step (-1 where there is none), weight and
    uniform, what uniform attention would give.
    """
    parts = []
    for record in records:
        uniform, names = record.uniform, record.relations
        keep = torch.arange(len(record.src))
        if nodes is not None:
            keep = torch.isin(record.dst, torch.as_tensor(list(nodes))).nonzero().flatten()
        heads = record.weight.shape[1]
        rows = keep.repeat_interleave(heads)
        of = record.relation[rows].tolist()
        part: dict[str, Any] = {"layer": record.layer, "relation": [names[k][1] for k in of]}
        part["head"] = torch.arange(heads).repeat(len(keep)).numpy()
        for end, place, column in (("src", 0, record.src), ("dst", 2, record.dst)):
            part[f"{end}_type"] = [names[k][place] for k in of]
            part[end] = column[rows].numpy()
            if ids is not None:
                part[f"{end}_name"] = [
                    name_of(ids, ntype, number) for ntype, number in zip(part[f"{end}_type"], part[end], strict=True)
                ]
        part["step"] = -1 if record.step is None else record.step[rows].numpy()
        part["weight"] = record.weight[keep].flatten().numpy()
        part["uniform"] = uniform[rows].numpy()
        parts.append(pd.DataFrame(part))
    if not parts:
        raise HgatError("explain: expected attention over edges, got none")
    return pd.concat(parts, ignore_index=True)


def axis_table(records: Iterable[AxisAttention]) -> pd.DataFrame:
    """Mean weight of every place along an axis: layer, name, weight, uniform.

    Means over all rows, which are nodes, or nodes and heads. uniform: one over the number of places that weigh anything
    in a row, 1 behind a gate.
    """
    rows = []
    for record in records:
        weight = record.weight.reshape(-1, len(record.names)).double()
        here = (weight != 0).double()
        even = here / here.sum(1, keepdim=True).clamp_min(1) if record.form == "softmax" else torch.ones_like(weight)
        means = (x.mean(0).tolist() for x in (weight, even))
        rows += [(record.layer, *row) for row in zip(record.names, *means, strict=True)]
    return pd.DataFrame(rows, columns=["layer", "name", "weight", "uniform"])


def called(relation: str) -> str:
    """A relation as people read it: "likes^-1" is the inverse of likes, and one that has no name "edges"."""
    return "edges" if relation == "_E" else re.sub(r"^(.+)\^-1(?= \(|$)", r"inverse of \1", relation)


def name_of(ids: Ids | None, ntype: str, number: int) -> str:
    """What a node is called: its name in the data, else its number, with its type where that has a name."""
    names = (ids or {}).get(ntype)
    if names is not None and number < len(names):
        return str(names[number])
    return str(number) if ntype == "_N" else f"{ntype} {number}"


def numbered(records: Sequence[EdgeAttention]) -> list[EdgeAttention]:
    """The same records, those of one module told apart: its second call is "layers.0, 2"."""
    calls = Counter[str]()
    found = []
    for record in records:
        calls[record.layer] += 1
        count = calls[record.layer]
        found.append(record if count == 1 else replace(record, layer=f"{record.layer or 'model'}, {count}"))
    return found


def _parts_of_groups(record: EdgeAttention) -> tuple[Tensor, Tensor, Tensor]:
    """(group [E] from 0 without gaps, size [G], share [E, H] of the sum of the group's |weights|)."""
    _, group = record.group.unique(return_inverse=True)
    size = torch.bincount(group)
    weight = record.weight.double().abs()
    total = weight.new_zeros(len(size), weight.shape[1]).index_add(0, group, weight)
    return group, size, weight / total.clamp_min(LEAST)[group]


def by_node(record: EdgeAttention) -> bool:
    """Whether each node has one softmax: none of its own for a relation, a view or a step."""
    of = torch.stack([_types(record, 2)[1], record.dst], 1)
    return len(record.group.unique()) == len(of.unique(dim=0))


def evenness(record: EdgeAttention) -> tuple[Tensor, Tensor, Tensor]:
    """(in-edges [G], entropy [G, H] in nats, effective number of neighbours [G, H]) of each node's softmax.

        entropy_v = - sum_u alpha_uv ln alpha_uv;   effective_v = exp(entropy_v), the in-degree where attention is even

    alpha: the weights; behind a gate, which does not sum to one, the shares of the sum of |weights|.
    """
    group, size, share = _parts_of_groups(record)
    entropy = share.new_zeros(len(size), share.shape[1]).index_add(0, group, -torch.special.xlogy(share, share))
    return size, entropy, entropy.exp()


def spread(records: Iterable[EdgeAttention]) -> pd.DataFrame:
    """How widely each head looks: layer, head, nodes, in_edges, effective, entropy, of_uniform.

    A node with a softmax for each relation, view or step counts once for each. Means over those with two in-edges or
    more, where there is something to choose: effective and in_edges are the
    effective number of neighbours and that of uniform attention, entropy is in nats, and of_uniform is the entropy over
    the logarithm of the in-degree, 1 where attention is even. See `evenness`.
    """
    rows = []
    for record in records:
        size, entropy, effective = evenness(record)
        several = size > 1
        even = size[several].double()
        for head in range(entropy.shape[1]):
            own, wide = entropy[several, head], effective[several, head]
            means = [x.mean().item() for x in (even, wide, own, own / even.log())]
            rows.append((record.layer, head, int(several.sum()), *means))
    columns = ["layer", "head", "nodes", "in_edges", "effective", "entropy", "of_uniform"]
    return pd.DataFrame(rows, columns=columns)


def _shares_of_nodes(record: EdgeAttention) -> tuple[Tensor, Tensor, Tensor]:
    """(node [E] from 0 without gaps, the edge's share [E] of its node's attention, its uniform share [E]).

    A node's attention is that of all its softmaxes and heads together.
    """
    kind = _types(record, 2)[1]
    step = torch.zeros_like(kind) if record.step is None else record.step
    key = (kind * (int(step.max()) + 1 if len(step) else 1) + step) * (int(record.dst.max()) + 1 if len(step) else 1)
    _, node = (key + record.dst).unique(return_inverse=True)
    found = []
    for weight in (record.weight.double().abs().mean(1), record.uniform.double()):
        total = weight.new_zeros(int(node.max()) + 1 if len(node) else 0).index_add(0, node, weight)
        found.append(weight / total.clamp_min(LEAST)[node])
    return node, found[0], found[1]


def _types(record: EdgeAttention, end: int) -> tuple[list[str], Tensor]:
    """(node types at one end, the number [E] of each edge's)."""
    ntypes = sorted({etype[end] for etype in record.relations})
    return ntypes, torch.tensor([ntypes.index(etype[end]) for etype in record.relations])[record.relation]


def by_relation(records: Iterable[EdgeAttention]) -> list[Shares]:
    """The mean share of a node's attention that goes to each relation, beside what uniform attention would give it.

    One entry for each layer and type of destination at which several relations end; heads averaged.
    """
    found = []
    for record in records:
        _, share, even = _shares_of_nodes(record)
        count = len(record.relations)
        spent, uniform = (
            torch.zeros(count, dtype=torch.float64).index_add(0, record.relation, x) for x in (share, even)
        )
        for ntype in dict.fromkeys(etype[2] for etype in record.relations):
            here = [k for k, etype in enumerate(record.relations) if etype[2] == ntype and uniform[k] > 0]
            if len(here) < 2:
                continue
            names = [record.relations[k][1] for k in here]
            names = [
                name if names.count(name) == 1 else f"{name} ({record.relations[k][0]})"
                for k, name in zip(here, names, strict=True)
            ]
            ours, even = (tuple((x[here] / x[here].sum()).tolist()) for x in (spent, uniform))
            of = "nodes" if ntype in ("_N", "node") else f"{ntype} nodes"
            title = f"attention of {of}, {record.layer}"
            found.append(Shares(title, tuple(names), ours, even, even="if it were uniform"))
    return found


def over_time(records: Iterable[EdgeAttention]) -> pd.DataFrame:
    """Of attention inside snapshots: layer, step, nodes, in_edges, effective, of_uniform; columns as in `spread`.

    Heads averaged. Empty for records without steps.
    """
    rows = []
    for record in records:
        if record.step is None:
            continue
        for step in record.step.unique().tolist():
            part = record.only(record.step == step)
            means = spread([part]).mean(numeric_only=True)
            rows.append((record.layer, step, int(means.nodes), means.in_edges, means.effective, means.of_uniform))
    return pd.DataFrame(rows, columns=["layer", "step", "nodes", "in_edges", "effective", "of_uniform"])


def heads_apart(record: EdgeAttention) -> Tensor:
    """[H, H], how far two heads are apart: the mean total variation of their weights over the nodes.

        apart_gh = mean over v of 1/2 sum_u |alpha^g_uv - alpha^h_uv|

    0: they look at the same; 1: never at the same neighbour. Over the nodes with two in-edges or more.
    """
    group, size, share = _parts_of_groups(record)
    chosen = (size > 1)[group]
    share, count = share[chosen], max(int((size > 1).sum()), 1)
    heads = range(share.shape[1])
    return torch.stack([(share - share[:, [head]]).abs().sum(0) / (2 * count) for head in heads])


def rollout(
    records: Iterable[EdgeAttention],
    nodes: Sequence[int],
    sizes: Mapping[str, int],
    ntype: str = "_N",
    *,
    residual: float = 0.5,
) -> dict[str, scipy.sparse.csr_matrix]:
    """Attention through all layers, from the last back to the input: {node type: [B, N], what each of `nodes` reads}.

        R = A_L ... A_1,  A_l = residual * I + (1 - residual) * alpha_l,  alpha_l: means over heads, rows sum to 1

    Rows of R sum to 1. nodes: [B] numbers of type ntype. sizes: {node type: N}. residual: the share that is taken to go
    past a layer; a node without in-edges keeps all. Only the rows that are asked for are made, as sparse products.
    Calls of one module between the same types are one layer; relations with softmaxes of their own count alike in it.
    Raises GraphError for nodes, or a node type, that are not there, HgatError for attention inside snapshots and
    for negative weights.
    Paper: Abnar and Zuidema 2020, arXiv:2005.00928, eq. 1; 0.5 is theirs. It takes no account of what values carry.
    """
    check_range(0, 1, residual=residual)
    start, total = {}, 0
    for name, count in sizes.items():
        start[name], total = total, total + count
    check_node(nodes, sizes, ntype)
    rows = torch.as_tensor(list(nodes)) + start[ntype]
    shape = len(rows), total
    found = scipy.sparse.csr_matrix(([1.0] * len(rows), (range(len(rows)), rows.numpy())), shape)
    for layer in reversed(_layers(records)):
        found = found @ _step(layer, start, total, residual)
    return {name: found[:, start[name] : start[name] + count] for name, count in sizes.items()}


def _layers(records: Iterable[EdgeAttention]) -> list[list[EdgeAttention]]:
    """Records that are one layer together: calls of one module between the same types, one after the other."""
    found: list[list[EdgeAttention]] = []
    for record in records:
        last = found[-1][0] if found else None
        if last is not None and last.layer == record.layer and _ends(last) == _ends(record):
            found[-1].append(record)
        else:
            found.append([record])
    return found


def _ends(record: EdgeAttention) -> set[tuple[str, str]]:
    return {(src, dst) for src, _, dst in record.relations}


def _step(layer: list[EdgeAttention], start: Mapping[str, int], total: int, residual: float) -> Any:
    """A of one layer, [total, total]: from a destination to its sources."""
    parts = []
    for record in layer:
        unknown = {ntype for pair in _ends(record) for ntype in pair} - set(start)
        if unknown or record.step is not None:
            got = "snapshots" if record.step is not None else f"attention from or to {sorted(unknown)}"
            raise HgatError(f"rollout: expected attention between nodes of {list(start)}, got {got}")
        if (record.weight < 0).any():
            raise HgatError(f"rollout: expected weights of 0 or more, got negative ones in {record.layer}")
        ends = [torch.tensor([start[e[end]] for e in record.relations])[record.relation] for end in (2, 0)]
        dst, src = (record.dst + ends[0]).numpy(), (record.src + ends[1]).numpy()
        parts.append(scipy.sparse.csr_matrix((record.weight.double().mean(1).numpy(), (dst, src)), (total, total)))
    alpha = sum(parts[1:], parts[0])
    spent = torch.from_numpy(alpha.sum(1)).flatten()
    scale = torch.where(spent > 0, (1 - residual) / spent.clamp_min(LEAST), 0.0)
    stay = torch.where(spent > 0, residual, 1.0)
    return scipy.sparse.diags(scale.numpy()) @ alpha + scipy.sparse.diags(stay.numpy())


def check_node(nodes: Iterable[int], sizes: Mapping[str, int], ntype: str) -> None:
    """Raise GraphError unless all are numbers of nodes of the type."""
    if ntype not in sizes:
        raise GraphError(f"node: expected a node type among {sorted(sizes)}, got {ntype!r}")
    for node in nodes:
        if not 0 <= node < sizes[ntype]:
            kind = "" if ntype == "_N" else f" of type {ntype!r}"
            raise GraphError(f"node: expected a node{kind} from 0 to {sizes[ntype] - 1}, got {node}")


def neighbours(
    record: EdgeAttention, node: int, ntype: str = "_N", ids: Ids | None = None, *, heads: int = 0
) -> pd.DataFrame:
    """What one node looks at in a layer, most attended first: name, type, node, relation, step, weight, uniform, alone.

    Most attended is the most over uniform attention's weight, so that softmaxes of different size can be compared; an
    edge that is alone in its softmax weighs 1 whatever is learned and comes last. Heads averaged; heads: of so many
    rows with a column that has the weight of each, in words.
    Raises GraphError for a node without in-edges there.
    """
    kinds, kind = _types(record, 2)
    here = (record.dst == node) & (kind == (kinds.index(ntype) if ntype in kinds else -1))
    if not here.any():
        called = name_of(None, ntype, node) if ntype != "_N" else f"node {node}"
        raise GraphError(
            f"node: expected a node with in-edges in {record.layer or 'the model'}, got {called} with none"
        )
    part, uniform = record.only(here), record.uniform[here]
    alone = (uniform == 1) & (record.form == "softmax")
    rows = pd.DataFrame(
        {
            "name": [
                name_of(ids, record.relations[k][0], n)
                for k, n in zip(part.relation.tolist(), part.src.tolist(), strict=True)
            ],
            "type": [record.relations[k][0] for k in part.relation.tolist()],
            "node": part.src.numpy(),
            "relation": [record.relations[k][1] for k in part.relation.tolist()],
            "step": -1 if part.step is None else part.step.numpy(),
            "weight": part.weight.mean(1).numpy(),
            "uniform": uniform.numpy(),
            "alone": alone.numpy(),
        }
    )
    order = torch.argsort(-(part.weight.mean(1) / uniform).masked_fill(alone, -torch.inf), stable=True)
    rows = rows.iloc[order.numpy()].reset_index(drop=True)
    if heads:
        told = [", ".join(f"{weight:.3f}" for weight in own) for own in part.weight[order[:heads]].tolist()]
        rows["heads"] = told + [""] * (len(rows) - len(told))
    return rows
