"""Deletion and insertion: what becomes of a node's answer when its in-edges go, or come, in the order of attention."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hgat.explain.doubt.outcome import Curve, Doubt, above, standard_error
from hgat.explain.doubt.subject import Subject

__all__ = ["FRACTIONS", "SHARES", "curves", "places"]

FRACTIONS = tuple(k / 10 for k in range(11))
SHARES = (1, 2, 5)  # tenths of the in-edges: comprehensiveness and sufficiency are means over them
LEAST = 0.01  # a difference of areas that counts


def places(subject: Subject, score: Tensor) -> Tensor:
    """The place of each edge among those of its node, the one of the highest score [E] first: [E], from 0."""
    order = score.argsort(descending=True, stable=True)
    order = order[subject.row[order].argsort(stable=True)]
    ends = subject.row[order] + 1  # from 0 on, with those of no node
    first = torch.bincount(ends, minlength=len(subject.base) + 1).cumsum(0).roll(1)
    first[0] = 0
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - first[ends]
    return place


def _orders(subject: Subject, seed: int, draws: int) -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    edges, of = len(subject.row), subject.origin
    types = sorted({relation[0] for relation in of.relations})
    kind = torch.tensor([types.index(relation[0]) for relation in of.relations])[of.relation]
    _, node = torch.unique(torch.stack([kind, of.src]), dim=1, return_inverse=True)
    degree = torch.bincount(node)[node]
    noise = torch.rand(edges, generator=generator)  # nodes of one degree come in no order
    ties = torch.rand(edges, generator=generator, dtype=torch.float64)  # nor do edges of one weight
    return {
        "attention": [torch.unique(subject.attention(), return_inverse=True)[1] + ties.to(subject.device) / 2],
        "degree": [(degree + noise / 2).to(subject.device)],
        "random": [torch.rand(edges, generator=generator).to(subject.device) for _ in range(draws)],
    }


def _run(subject: Subject, place: Tensor) -> tuple[Tensor, Tensor]:
    """(deletion, insertion): values of every asked node at every fraction, [M, K] each."""
    whole, count = subject.value(subject.base[subject.nodes]), subject.degree[subject.row.clamp_min(0)]
    deletion, insertion = [whole], []
    for fraction in FRACTIONS[1:]:
        first = place < torch.ceil(fraction * count - 1e-6)
        deletion.append(subject.value(subject.sweep(subject.kept(~first))))
        insertion.append(whole if fraction == 1 else subject.value(subject.sweep(subject.kept(first))))
    return torch.stack(deletion, 1), torch.stack([deletion[-1], *insertion], 1)  # nothing is left of either


def _area(values: Tensor) -> Tensor:
    return torch.trapezoid(values, torch.tensor(FRACTIONS, device=values.device, dtype=values.dtype), dim=1)


def curves(subject: Subject, *, seed: int = 0, draws: int = 3) -> tuple[Doubt, Doubt, Curve]:
    """Deletion and insertion of a node's own in-edges, by attention, by the degree of their source and at random.

        deletion(f)  = value when the first f of a node's in-edges are left out at every site
        insertion(f) = value when they alone are left in

    value: the probability of the class that the model prefers, or one less the change of the answer. An edge that is
    left out has no part in any softmax, as if the graph did not have it. Attention of an edge: its weight as a multiple
    of uniform's in its softmax, the mean over heads and sites, ties at random. Areas are under the curve over f in
    tenths, by the trapezoid rule; comprehensiveness is the mean of value - deletion(f), sufficiency of value -
    insertion(f), over f = 0.1, 0.2 and 0.5. draws: of random orders.
    Paper: DeYoung et al. 2020 (ERASER), arXiv:1911.03429, section 4. Differs: a share of a node's in-edges.
    """
    found: Mapping[str, list[list[Tensor]]] = {
        order: [list(_run(subject, places(subject, score))) for score in scores]
        for order, scores in _orders(subject, seed, draws).items()
    }
    mean = {order: [torch.stack(parts).mean(0) for parts in zip(*runs, strict=True)] for order, runs in found.items()}
    tests = []
    whole = mean["attention"][0][:, :1]
    for number, (name, sign) in enumerate((("deletion", -1), ("insertion", 1))):
        area = {order: _area(values[number]) for order, values in mean.items()}
        gain = sign * (area["attention"] - area["random"])
        error = standard_error(gain)
        left = {order: float((whole - values[number][:, list(SHARES)]).mean()) for order, values in mean.items()}
        what = ("comprehensiveness", "sufficiency")[number]
        numbers = {f"area by {order}": float(values.mean()) for order, values in area.items()}
        numbers |= {f"{what} by {order}": value for order, value in left.items()}
        numbers |= {"gain on random": float(gain.mean()), "its standard error": error}
        holds = above(float(gain.mean()), error, LEAST)
        degree = sign * float((area["degree"] - area["random"]).mean())
        beside = "above" if float(gain.mean()) > degree else "not above"
        does = ("take", "more of the answer away than") if number == 0 else ("bring", "more of the answer back than")
        verdict = (
            f"In-edges by attention {does[0]} {does[1]} random ones"
            if holds
            else f"In-edges by attention {does[0]} no {does[1]} random ones"
        )
        verdict += (
            f" (area {numbers['area by attention']:.3f} against {numbers['area by random']:.3f}; {beside} the order by "
            "degree), on graphs that the model was not trained on; that says how attention ranks edges, not why"
        )
        verdict += "." if holds is not None else ", and of one node nothing follows."
        title = ("Deletion, comprehensiveness", "Insertion, sufficiency")[number]
        tests.append(Doubt(name, title, numbers, verdict, holds))
    lines = [{order: tuple(values[number].mean(0).tolist()) for order, values in mean.items()} for number in range(2)]
    return tests[0], tests[1], Curve(FRACTIONS, *lines)
