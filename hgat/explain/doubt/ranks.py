"""Whether attention ranks a node's in-edges as their gradients do, and as their absence does."""

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

from hgat.explain.doubt.curves import places
from hgat.explain.doubt.outcome import Doubt, above, standard_error
from hgat.explain.doubt.subject import Subject

__all__ = ["gradients", "leave_one_out", "rank_test"]

AGREES = 0.2  # a mean of Kendall's tau that counts


def gradients(subject: Subject) -> Tensor:
    """|sum over sites and heads of w_uv * d value_v / d w_uv| of each edge, [E]: a factor on what the edge sends."""
    found = torch.zeros(len(subject.row), device=subject.device)
    for batch, touched in subject.rounds():
        leaves = [weights.detach().clone().requires_grad_() for weights in subject.weights]
        with torch.enable_grad(), subject.swapped(lambda site, weights: leaves[site]):  # noqa: B023 (used here alone)
            answers = subject.base[subject.nodes].clone()
            answers[batch] = subject.answer(grad=True)[subject.nodes[batch]]
            total = _flow(subject, answers)[batch].sum()
            grads = torch.autograd.grad(total, leaves, allow_unused=True)
        parts = [(g * leaf).sum(1) for g, leaf in zip(grads, leaves, strict=True) if g is not None]
        here = torch.stack(parts).sum(0).detach().abs().float() if parts else found
        found = torch.where(touched, here, found)
    return found


def _flow(subject: Subject, answers: Tensor) -> Tensor:
    """What is derived, [M]: the value; of rows their length along the answer as it was, since their change is least
    there and has no slope."""
    if subject.kind == "classes":
        return subject.value(answers)
    base = subject.base[subject.nodes]
    return (answers * base / base.norm(dim=1, keepdim=True).clamp_min(1e-12)).sum(1)


def leave_one_out(subject: Subject, *, seed: int = 0, most: int = 32) -> Tensor:
    """Change of a node's answer without one of its in-edges, [E]; NaN of edges that were not left out.

    most: in-edges of a node, drawn by `seed`, that are left out, one after the other, of all nodes at once.
    """
    draw = torch.rand(len(subject.row), generator=torch.Generator().manual_seed(seed)).to(subject.device)
    place, here = places(subject, draw), torch.zeros(len(subject.base) + 1, dtype=torch.bool, device=subject.device)
    here[subject.nodes] = True
    mine = here[subject.row]
    found = torch.full((len(subject.row),), torch.nan, device=subject.device)
    of_row = torch.full((len(subject.base),), torch.nan, device=subject.device)
    base = subject.base[subject.nodes]
    for k in range(min(most, int(subject.degree[subject.nodes].max()))):
        out = place == k
        of_row[subject.nodes] = subject.change(subject.sweep(subject.kept(~out)), base).float()
        found = torch.where(out & mine, of_row[subject.row.clamp_min(0)], found)
    return found


def _taus(subject: Subject, importance: Tensor) -> Tensor:
    """Kendall's tau of attention and importance, a number for each asked node with two in-edges or more.

    A node where one of them is the same for all has 0: nothing is ranked.
    """
    attention, score = subject.attention().cpu().double().numpy(), importance.cpu().double().numpy()
    row = subject.row.cpu().numpy()
    asked = np.isin(row, subject.nodes.cpu().numpy()) & ~np.isnan(score)
    order = np.flatnonzero(asked)[np.argsort(row[asked], kind="stable")]
    found = []
    for edges in np.split(order, np.flatnonzero(np.diff(row[order])) + 1):
        if len(edges) > 1:
            flat = min(np.ptp(attention[edges]), np.ptp(score[edges])) <= 1e-9
            found.append(0.0 if flat else kendalltau(attention[edges], score[edges]).statistic)
    return torch.tensor(np.nan_to_num(np.array(found)))


def rank_test(subject: Subject, *, seed: int = 0, most: int = 32) -> Doubt:
    """Kendall's tau-b of a node's attention with gradients and with leave-one-out importance, means over nodes.

    Paper: Jain and Wallace 2019, arXiv:1902.10186, section 4.1. Differs: of a node's in-edges; gradients are those of a
    factor on what an edge sends, w * d value / d w.
    """
    by_gradient, by_absence = (
        _taus(subject, score) for score in (gradients(subject), leave_one_out(subject, seed=seed, most=most))
    )
    tau, error = float(by_absence.mean()), standard_error(by_absence)
    numbers = {
        "tau with gradient": float(by_gradient.mean()),
        "tau with leave-one-out": tau,
        "standard error of that": error,
    }
    holds = above(tau, error, AGREES)
    verdict = (
        f"Attention ranks a node's in-edges {'much' if holds else 'hardly'} as their absence does (tau {tau:.2f} with "
        f"leaving one out, {numbers['tau with gradient']:.2f} with the gradient); that is agreement of two orders, of "
        f"which neither need be the reason{'.' if holds is not None else ', and of one node nothing follows.'}"
    )
    return Doubt("ranks", "Rank correlation", numbers, verdict, holds)
