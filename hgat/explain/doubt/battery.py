"""All tests of one model's attention, one after the other, with a progress bar."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from hgat.errors import GraphError, HgatError, check_range, meant
from hgat.explain.doubt.curves import curves
from hgat.explain.doubt.outcome import Curve, Doubt, Doubts
from hgat.explain.doubt.ranks import rank_test
from hgat.explain.doubt.subject import Subject
from hgat.explain.doubt.swaps import adversarial, adversary, permutation, retrained, seeds_apart, uniform_frozen

__all__ = ["TESTS", "battery"]

TESTS = ("uniform", "retrained", "curves", "permutation", "seeds", "adversarial", "adversary", "ranks", "gold")


def battery(
    model: nn.Module,
    inputs: tuple,
    *,
    kind: str = "classes",
    target: str | None = None,
    nodes: int | Sequence[int] | Tensor | None = 1000,
    seed: int = 0,
    eps: float = 0.01,
    score: Callable[[nn.Module], float] | None = None,
    scores: tuple[Sequence[float], Sequence[float]] | None = None,
    others: Sequence[nn.Module] = (),
    gold: Mapping[tuple[str, str, str], Tensor] | Tensor | None = None,
    tests: Sequence[str] = TESTS,
    title: str = "",
    progress: bool = True,
) -> Doubts:
    """Doubt the attention of a trained model: every test of hgat.explain.doubt that the arguments allow.

    model, inputs, kind, target, nodes, seed: see `Subject`; seed also draws random orders and permutations. eps: the
    change of the answer that adversarial attention may make. score: of a model, in percent. scores: (with attention,
    with uniform attention), trained, seed by seed. others: the same model from other seeds. gold: bool [E_r] for each
    relation of the graph, or [E] where there is one, True where a neighbour decides. tests: names out of TESTS; those
    that lack what they need are left out, and named. progress: a bar of forward passes, where stderr is a terminal.
    Raises HgatError for a model without attention over edges, an answer that is no row per node, and numbers out of
    range; GraphError for nodes that do not exist or have no in-edges, and for gold edges that the graph does not have.
    """
    if unknown := [name for name in tests if name not in TESTS]:
        near = meant(unknown[0], TESTS)
        raise HgatError(f"tests: expected names out of {', '.join(TESTS)}, got {unknown[0]!r}{near}")
    check_range(0, 1, eps=eps)
    found: list[Doubt] = []
    left_out: dict[str, str] = {}
    curve: Curve | None = None
    floor: float | None = None
    with tqdm(desc="doubt", unit="pass", disable=None if progress else True, leave=False) as bar:
        subject = Subject(model, inputs, nodes, kind=kind, target=target, seed=seed, tick=bar.update)
        marked = None if gold is None else _gold_edges(subject, gold)
        missing = {
            name: needs
            for name, needs, there in (
                ("retrained", "needs scores with uniform attention: --retrain", scores is not None),
                ("seeds", "needs another seed: --retrain", bool(others)),
                ("gold", "needs to know which of the attended edges decide", marked is not None),
            )
            if not there
        }
        for name in tests:
            bar.set_description(f"doubt: {name}")
            if name == "uniform":
                found.append(uniform_frozen(subject, score))
            elif name in missing:
                left_out[name] = missing[name]
            elif name == "retrained" and scores is not None:
                found.append(retrained(*scores))
            elif name == "curves":
                deletion, insertion, curve = curves(subject, seed=seed)
                found += [deletion, insertion]
            elif name == "permutation":
                found.append(permutation(subject, seed=seed))
            elif name == "ranks":
                found.append(rank_test(subject, seed=seed))
            elif name == "gold" and marked is not None:
                found.append(_gold(subject, marked))
            elif "softmax" not in subject.forms:
                left_out[name] = "needs a softmax, as weights of a gate are no distribution"
            elif name == "seeds":
                found.append(seeds_apart(subject, others))
                floor = found[-1].numbers["median divergence"]
            elif name == "adversarial":
                found.append(adversarial(subject, eps=eps, floor=floor))
            elif name == "adversary":
                found.append(adversary(subject, seed=seed))
    return Doubts(title or type(model).__name__, len(subject.nodes), tuple(found), curve, left_out)


def _gold_edges(subject: Subject, gold: Mapping | Tensor) -> Tensor:
    """bool [E] of the subject's edges; GraphError for annotations of edges that the graph does not have."""
    of = subject.origin
    if isinstance(gold, Tensor):
        gold = {of.relations[0]: gold}
    found = torch.zeros(len(of.relation), dtype=torch.bool)
    for etype, marks in gold.items():
        if etype not in of.relations:
            raise GraphError(f"gold: expected relations of the graph, {list(of.relations)}, got {etype}")
        here = of.relation == of.relations.index(etype)
        if marks.dtype != torch.bool or marks.dim() != 1 or len(marks) > int(here.sum()):
            raise GraphError(
                f"gold: expected bool [E] of the {int(here.sum())} edges of {etype}, got {marks.dtype} "
                f"{list(marks.shape)}"
            )
        places = here.nonzero().flatten()[: len(marks)]  # self-loops stand behind the edges of the data
        found[places] = marks.cpu()
    return found


def _gold(subject: Subject, marked: Tensor) -> Doubt:
    """Attention on the edges that are annotated, by hgat.explain.gold: of a node's in-edges, the mean over sites."""
    from hgat.explain import gold

    row = subject.row.cpu()
    asked = torch.isin(row, subject.nodes.cpu())
    if not (marked & asked).any():
        raise GraphError("gold: expected a gold edge into one of the asked nodes or more, got none")
    marks, ends = marked[asked], row[asked]
    sites = [weights.cpu()[asked] for weights in subject.weights]
    even = (1 / subject.size[subject.group].double()).cpu()[asked]
    ratios = torch.cat(subject.ratios(), 1).cpu()[asked]  # for what depends on an order across softmaxes
    numbers = {
        "correctness": sum(gold.correctness(weights, marks, ends) for weights in sites) / len(sites),
        "correctness of uniform": gold.correctness(even, marks, ends),
        "alignment error rate": gold.alignment_error_rate(ratios, marks, ends),
        "rank correlation": gold.rank_correlation(ratios, marks.float(), ends),
    }
    holds = numbers["correctness"] > (1 + numbers["correctness of uniform"]) / 2
    verdict = (
        f"{100 * numbers['correctness']:.0f} % of attention is on the edges that decide, of uniform attention "
        f"{100 * numbers['correctness of uniform']:.0f} %; ties for the largest weight count by their share. That is "
        "where attention looks, not whether the answer follows from it."
    )
    return Doubt("gold", "Gold standard", numbers, verdict, holds)
