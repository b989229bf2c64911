"""What attention is spent on, in numbers: by relation, meta-path or moment, beside what uniform attention would."""

from dataclasses import dataclass

import torch

from hgat.graph import JoinedRelations, Snapshots, Views, csr

__all__ = ["Past", "Shares", "past", "shares"]


@dataclass(frozen=True)
class Shares:
    """Mean share of a node's attention that goes to each name, and what it would be if all edges counted alike.

    title: whose attention, in which layer. attention, uniform: one number per name; each list sums to 1.
    """

    title: str
    names: tuple
    attention: tuple
    uniform: tuple


@dataclass(frozen=True)
class Past:
    """How one layer's attention is spread over time, heads averaged: 1 is what a step gets if all are looked at alike.

    by_step: [T, T], row t: what step t gives to each step up to it, the mean over the nodes present there. by_node: [N,
    T], what every node's last step gives to each step; 0 for those that are hidden from it. present: [T, N] bool.
    title: whose attention.
    """

    title: str
    by_step: torch.Tensor
    by_node: torch.Tensor
    present: torch.Tensor


def past(model, structure, feat):
    """Past of every temporal layer of a trained model, a list; empty for a model without such layers."""
    if not isinstance(structure, Snapshots):
        return []
    present = structure.present
    # Steps before a node has appeared are looked at, too, where the model does not hide them.
    seen = present if model.mask_absent else torch.ones_like(present)
    found = []
    for depth, beta in enumerate(_resting(model, lambda: model.attention(structure, feat)), 1):
        beta = beta.mean(1).cpu()
        visible = (seen.t().unsqueeze(1) & present.t().unsqueeze(2)).tril()  # [N, T, T]
        beta = torch.where(visible, beta * visible.sum(2, keepdim=True), 0.0)
        by_step = beta.sum(0) / visible.sum(0).clamp_min(1)
        by_node = beta[:, -1]
        found.append(Past(f"temporal attention, layer {depth}", by_step, by_node, present))
    return found


def shares(model, structure, feat):
    """Shares of every layer of a trained model, a list; empty for a model on one plain graph.

    On joined relations: one entry per layer and destination type, heads averaged, over the nodes that have in-edges;
    of the last layer the predicted type alone.
    On views: the semantic weights beta, averaged over nodes where they differ by node.
    """
    return _resting(model, lambda: _shares(model, structure, feat))


def _resting(model, read):
    """read() with the model in evaluation mode and without gradients; its mode is given back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            return read()
    finally:
        for module in training:
            module.training = True


def _shares(model, structure, feat):
    if isinstance(structure, JoinedRelations):
        found = []
        layers = model.attention(structure, feat)
        for depth, alpha in enumerate(layers, 1):
            # Of the last layer only the predicted nodes are read: what the others attend to was never trained.
            read = {model.target} if depth == len(layers) else set(structure.dsttypes)
            found += _by_relation(structure, alpha, f"layer {depth}", read)
        return found
    if isinstance(structure, Views):
        return [_by_view(structure, beta, depth) for depth, (_, beta) in enumerate(model.attention(structure, feat), 1)]
    return []


def _by_relation(joined, alpha, layer, read):
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


def _by_view(views, beta, depth):
    mean = beta if beta.dim() == 1 else beta.mean(0)
    return Shares(
        f"semantic attention, layer {depth}",
        views.names,
        tuple(mean.tolist()),
        (1 / views.num_views,) * views.num_views,
    )
