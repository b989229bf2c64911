"""Attention in numbers: by relation, meta-path or moment, beside what uniform attention would spend."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from hgat.graph import csr
from hgat.graph.metapath import Views
from hgat.graph.relations import JoinedRelations
from hgat.models._system import Past, Shares

__all__ = ["by_relation", "by_view", "over_time"]


def by_relation(
    joined: JoinedRelations, alpha: Mapping[tuple[str, str, str], Tensor], layer: str, read: Collection[str]
) -> list[Shares]:
    """Shares of every destination type in `read`, heads averaged, over the nodes that have in-edges.

    joined: the relations. alpha: {relation: [E_r, H]}. layer: what the titles call it.
    """
    device = next(iter(alpha.values())).device
    mass = torch.cat([alpha[e].mean(1) for e in joined.etypes])
    _, dst = csr.edges(joined.across, device)
    degree = torch.bincount(dst, minlength=joined.across.num_dst_nodes()).to(mass.dtype)
    # Within a relation alpha sums to one per relation, so a node's total is the number of its relations.
    total = mass.new_zeros(degree.shape).index_add(0, dst, mass).clamp_min(1e-30)
    relation = joined.relation_of_edge().to(device)
    count = len(joined.etypes)
    spent = mass.new_zeros(count).index_add(0, relation, mass / total[dst])
    even = mass.new_zeros(count).index_add(0, relation, 1 / degree[dst])
    found = []
    for ntype in joined.dsttypes:
        if ntype not in read:
            continue
        here = [k for k, etype in enumerate(joined.etypes) if etype[2] == ntype and joined.num_edges[k]]
        if here:
            found.append(
                Shares(
                    f"attention of {ntype} nodes, {layer}",
                    tuple(_name(joined.etypes, k) for k in here),
                    tuple((spent[here] / spent[here].sum()).tolist()),
                    tuple((even[here] / even[here].sum()).tolist()),
                )
            )
    return found


def _name(etypes, k):
    """A relation's own name, with its source type where the name alone is ambiguous."""
    src, name, _ = etypes[k]
    return name if sum(e[1] == name for e in etypes) == 1 else f"{name} ({src})"


def by_view(views: Views, beta: Tensor, depth: int) -> Shares:
    """Shares of the views of layer `depth`; beta: [P], or [N, P] by node."""
    mean = beta if beta.dim() == 1 else beta.mean(0)
    return Shares(
        f"semantic attention, layer {depth}",
        views.names,
        tuple(mean.tolist()),
        (1 / views.num_views,) * views.num_views,
        "mean share of a node's attention to its meta-paths",
        "if all meta-paths counted alike",
    )


def over_time(present: Tensor, beta: Tensor, seen: Tensor, title: str) -> Past:
    """Past of one temporal layer; present: [T, N], beta: [N, H, T, T], seen: [T, N], the steps that may be seen."""
    beta = beta.mean(1).cpu()
    visible = (seen.t().unsqueeze(1) & present.t().unsqueeze(2)).tril()  # [N, T, T]
    beta = torch.where(visible, beta * visible.sum(2, keepdim=True), 0.0)
    by_step = beta.sum(0) / visible.sum(0).clamp_min(1)
    return Past(title, by_step, beta[:, -1], present)
