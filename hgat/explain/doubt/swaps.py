"""Other weights in the place of those that were learned: uniform, shuffled, adversarial, of another seed."""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hgat import ops
from hgat.errors import HgatError, check_range
from hgat.explain.doubt.outcome import MATERIAL, Doubt, above, standard_error
from hgat.explain.doubt.subject import TINY, Subject

__all__ = ["adversarial", "adversary", "divergence", "permutation", "retrained", "seeds_apart", "uniform_frozen"]

HALF = 0.5  # of the divergence that there can be
POINTS = 1.0  # of a score in percent that count


def uniform_frozen(subject: Subject, score: Callable[[nn.Module], float] | None = None) -> Doubt:
    """Every weight replaced by uniform ones, all other parameters as they were trained.

    score: of a model, in percent. Paper: Wiegreffe and Pinter 2019, arXiv:1908.04626, section 3.1.
    """
    with ops.uniform_attention():
        answers = subject.answer()[subject.nodes]
        even = None if score is None else score(subject.model)
    change = float(subject.change(subject.base[subject.nodes], answers).mean())
    numbers = {"mean change": change}
    if subject.kind == "classes":
        numbers["share of other classes"] = float((answers.argmax(1) != subject.chosen).float().mean())
    holds = numbers.get("share of other classes", change) > MATERIAL
    text = f"the answers move by {change:.2f} of 1 in the mean"
    if score is not None and even is not None:
        numbers |= {"score": score(subject.model), "score with uniform": even}
        text += f" and the score goes from {numbers['score']:.1f} to {even:.1f}"
        holds = numbers["score"] - even > POINTS
    verdict = (
        f"With uniform weights in the trained model {text}: these parameters {'need' if holds else 'hardly need'} "
        "this attention; what others that were trained without it would do is not said."
    )
    return Doubt("uniform, frozen", "Uniform attention, frozen", numbers, verdict, holds)


def retrained(learned: Sequence[float], uniform: Sequence[float]) -> Doubt:
    """Scores of seeds trained with attention, and of the same seeds trained with uniform attention, in percent."""
    if not len(learned) or len(learned) != len(uniform):
        raise HgatError(f"retrained: expected scores of the same seeds, got {len(learned)} and {len(uniform)}")
    gain = torch.tensor(learned, dtype=torch.float64) - torch.tensor(uniform, dtype=torch.float64)
    numbers = {
        "score": sum(learned) / len(learned),
        "score with uniform": sum(uniform) / len(uniform),
        "gain": float(gain.mean()),
        "seeds": len(gain),
    }
    holds = above(numbers["gain"], standard_error(gain), POINTS)
    better = numbers["gain"] > POINTS if holds is None else holds
    word = "better than" if better else "no better than" if numbers["gain"] > -POINTS else "worse than"
    seeds = f"{len(gain)} seeds" if len(gain) > 1 else "one seed, which is too few for a say"
    verdict = (
        f"Trained anew, attention is {word} uniform attention on this task ({numbers['score']:.1f} against "
        f"{numbers['score with uniform']:.1f}, {seeds}); that is about the task, and a model may still use an "
        "attention that it could do without."
    )
    return Doubt("uniform, retrained", "Uniform attention, retrained", numbers, verdict, holds)


def permutation(subject: Subject, *, seed: int = 0, draws: int = 10) -> Doubt:
    """The weights of every node's in-edges shuffled inside each softmax, all heads alike.

    Numbers are over asked nodes with two in-edges or more in a softmax: the median over nodes of the median over
    `draws`, beside the same where the largest weight is above and below one half. How flat probabilities are is not
    what is asked: of classes the share that changes counts, in the mean over draws, else the median change.
    Paper: Jain and Wallace 2019, arXiv:1902.10186, section 4.2.1.
    """
    generator = torch.Generator().manual_seed(seed)
    order = subject.group.argsort(stable=True)
    changes, turned = [], []
    for _ in range(draws):
        draw = torch.rand(len(subject.group), generator=generator).to(subject.device)
        shuffled = draw.argsort()
        shuffled = shuffled[subject.group[shuffled].argsort(stable=True)]
        taken = torch.empty_like(order)
        taken[order] = shuffled

        def change(site, weights, taken=taken):
            return weights[taken]

        answers = subject.sweep(change)
        changes.append(subject.change(answers, subject.base[subject.nodes]))
        turned.append((answers.argmax(1) != subject.chosen).float())
    able = subject.wide[subject.nodes]
    _able(able)
    moved = torch.stack(changes).median(0).values[able]
    most = torch.zeros(len(subject.base), device=subject.device, dtype=subject.weights[0].dtype)
    wide = (subject.row >= 0) & (subject.size[subject.group] > 1)
    weight = torch.stack([weights.abs().amax(1) for weights in subject.weights]).amax(0)
    most = most.scatter_reduce(0, subject.row[wide], weight[wide], "amax")[subject.nodes][able]
    numbers = {"median change": float(moved.median()), "mean change": float(moved.mean())}
    for name, part in (("largest weight above 1/2", most > 0.5), ("largest weight below", most <= 0.5)):
        numbers[f"median change, {name}"] = float(moved[part].median()) if part.any() else math.nan
    numbers["nodes"] = int(able.sum())
    if subject.kind == "classes":
        numbers["share of other classes"] = float(torch.stack(turned)[:, able].mean())
    holds = numbers.get("share of other classes", numbers["median change"]) > MATERIAL
    verdict = (
        f"Shuffled inside its softmax, attention gives {'other' if holds else 'about the same'} answers (median "
        f"change {numbers['median change']:.3f}): which in-edge has which weight "
        f"{'matters' if holds else 'hardly matters'} to the trained model; whether the weights are right is not said."
    )
    return Doubt("permutation", "Permutation", numbers, verdict, holds)


def _able(able: Tensor) -> None:
    if not able.any():
        raise HgatError("doubt: expected an asked node with two in-edges in a softmax, got none")


def _log(weights: Tensor) -> Tensor:
    return weights.clamp_min(TINY).log()


def divergence(subject: Subject, one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Jensen-Shannon divergence of each asked node's weights, in nats, [M]: the mean over sites, heads and softmaxes.

        JSD(p, q) = KL(p | m) / 2 + KL(q | m) / 2,   m = (p + q) / 2;   at most ln 2

    one, other: weights [E, H] of every site. Softmaxes over one edge do not count; NaN of nodes that have no other.
    """
    found = []
    for form, p, q in zip(subject.forms, one, other, strict=True):
        if form == "softmax":
            middle = _log((p + q) / 2)
            both = (p * (_log(p) - middle) + q * (_log(q) - middle)) / 2
            found.append(subject.per_group(both).mean(1))
    if not found:
        raise HgatError(f"doubt: expected a softmax for a divergence, got {sorted(set(subject.forms))}")
    return _of_nodes(subject, torch.stack(found).mean(0))


def _of_nodes(subject: Subject, of_group: Tensor) -> Tensor:
    """The mean over each asked node's softmaxes with a choice: [G] -> [M], NaN where none has."""
    # A mean over softmaxes, not over edges: each edge brings its share of its softmax's.
    row = torch.full((subject.num_groups,), -1, device=subject.device).scatter_reduce(
        0, subject.group, subject.row, "amax"
    )
    counted = (row >= 0) & (subject.size > 1)
    rows = len(subject.base)
    total = of_group.new_zeros(rows).index_add(0, row[counted], of_group[counted])
    count = torch.bincount(row[counted], minlength=rows)
    return (total / torch.where(count > 0, count, torch.nan))[subject.nodes]


def _farthest(subject: Subject) -> list[Tensor]:
    """All weight on the edge of each softmax that has least: the weights whose divergence is largest."""
    found = []
    for weights in subject.weights:
        heads = weights.shape[1]
        ends = subject.group[:, None].expand_as(weights)
        least = weights.new_full((subject.num_groups, heads), torch.inf).scatter_reduce(0, ends, weights, "amin")
        edge = torch.arange(len(weights), device=weights.device)[:, None].expand_as(weights)
        tied = torch.where(weights == least[subject.group], edge, len(weights))
        first = tied.new_full((subject.num_groups, heads), len(weights)).scatter_reduce(0, ends, tied, "amin")
        found.append((edge == first[subject.group]).to(weights.dtype))
    return found


def adversarial(subject: Subject, *, eps: float = 0.01, steps: int = 30, floor: float | None = None) -> Doubt:
    """The largest divergence of other weights, each node's its own, at a change of its answer of at most `eps`.

        max over w' of JSD(w, w')   such that change(answer(w'), answer(w)) <= eps

    Found by gradient ascent on logits with a penalty for what is above eps, from halfway to the farthest weights, and
    by halving the way to where that ends; what is reported was reached, and more may be possible. Divergences are
    beside the largest that there can be, all weight on the edge that has least. floor: the divergence of two seeds.
    Paper: Jain and Wallace 2019, arXiv:1902.10186, section 4.2.2, algorithm 3; eps of 0.01 is theirs.
    Raises HgatError for eps that is not above 0 and below 1.
    """
    check_range(0, 1, eps=eps)
    if not 0 < eps < 1:
        raise HgatError(f"eps: expected a number above 0 and below 1, got {eps}")
    base = subject.base[subject.nodes]
    far = _farthest(subject)
    possible = divergence(subject, subject.weights, far)
    able = subject.wide[subject.nodes]
    _able(able)
    best = torch.zeros_like(possible)
    logits = [
        _log((weights + end) / 2).clone().requires_grad_() for weights, end in zip(subject.weights, far, strict=True)
    ]
    optimiser = torch.optim.Adam(logits, lr=0.5)

    def others() -> list[Tensor]:
        return [ops.edge_softmax(subject.graph, one) for one in logits]

    def record(best, apart, change):
        return torch.where((change <= eps) & (apart > best), apart, best)

    for _ in range(steps):
        optimiser.zero_grad()
        for batch, touched in subject.rounds():
            weights = others()
            with subject.swapped(lambda site, _: weights[site], touched):  # noqa: B023 (used here alone)
                answers = subject.answer(grad=True)[subject.nodes[batch]]
            change = subject.change(answers, base[batch])
            apart = divergence(subject, subject.weights, weights)[batch]
            best[batch] = record(best[batch], apart.detach(), change.detach())
            loss = 20 * (change - eps).clamp_min(0) - apart / possible[batch].clamp_min(TINY)
            loss[able[batch]].sum().backward()
        optimiser.step()
    with torch.no_grad():
        for end in (others(), far):
            low, high = torch.zeros_like(possible), torch.ones_like(possible)
            for _ in range(6):
                way = (low + high) / 2
                of_row = way.new_zeros(len(subject.base) + 1)
                of_row[subject.nodes] = way
                part = of_row[subject.row][:, None]
                mixed = [w + part * (e - w) for w, e in zip(subject.weights, end, strict=True)]
                change = subject.change(subject.sweep(lambda site, _: mixed[site]), base)  # noqa: B023
                best = record(best, divergence(subject, subject.weights, mixed), change)
                low, high = torch.where(change <= eps, way, low), torch.where(change <= eps, high, way)
    share = (best / possible.clamp_min(TINY))[able]
    numbers = {
        "eps": eps,
        "median divergence": float(best[able].median()),
        "median share of the possible": float(share.median()),
        "nodes above half of it": float((share > HALF).float().mean()),
    }
    holds = numbers["median share of the possible"] < HALF
    beside = "" if floor is None else f"; two seeds differ by {floor:.3f}"
    verdict = (
        f"At a change of at most {eps:g}, weights as far as {numbers['median divergence']:.3f} nats from the learned "
        f"ones ({100 * numbers['median share of the possible']:.0f} % of what is possible{beside}) give a node its "
        f"answer, in the median: its answer {'pins' if holds else 'does not pin'} its attention down; these weights "
        "were searched for, and training need not come to any of them."
    )
    return Doubt("adversarial", "Adversarial attention", numbers, verdict, holds)


def adversary(
    subject: Subject, *, scales: Sequence[float] = (0.1, 0.3), steps: int = 100, lr: float = 0.05, seed: int = 0
) -> Doubt:
    """One adversary for the whole model: its own parameters, trained to answer alike and to attend otherwise.

        loss = mean of change(answer_a, answer_b) - scale * mean of KL(w_a | w_b)

    over the asked nodes, their softmaxes with a choice and all sites, a the adversary, which begins as a copy with
    noise on its parameters, b the model. What counts is the largest divergence that any step of any scale has at a mean
    change of at most 0.05. One that is found speaks against the attention; that none is found says nothing, as so short
    a training may miss it.
    Paper: Wiegreffe and Pinter 2019, arXiv:1908.04626, section 4. Differs: it begins at the model, which is easier.
    """
    base, possible = subject.base[subject.nodes], divergence(subject, subject.weights, _farthest(subject))
    able = subject.wide[subject.nodes]
    _able(able)
    best = (0.0, 0.0, 0.0)  # share of the possible divergence, mean change, scale
    for scale in scales:
        model = _disturbed(subject.model, seed)
        optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
        for _ in range(steps):
            answers, weights = subject.read(model, grad=True)
            change = subject.change(answers, base).mean()
            share = (divergence(subject, subject.weights, weights).detach() / possible.clamp_min(TINY))[able]
            if float(change.detach()) <= MATERIAL:
                best = max(best, (float(share.median()), float(change.detach()), scale))
            pairs = [(a, b) for a, b, f in zip(weights, subject.weights, subject.forms, strict=True) if f == "softmax"]
            of_group = [subject.per_group(a * (_log(a) - b.clamp_min(1e-6).log())).mean(1) for a, b in pairs]
            apart = _of_nodes(subject, torch.stack(of_group).mean(0))[able].mean()
            optimiser.zero_grad()
            (change - scale * apart).backward()
            optimiser.step()
    share, moved, scale = best
    numbers = {"median share of the possible": share, "mean change": moved, "scale": scale}
    found = share >= HALF
    verdict = (
        f"An adversary trained to attend otherwise reaches {100 * share:.0f} % of the possible divergence at a mean "
        f"change of {moved:.3f}: "
        + (
            "a model of the same kind answers alike and attends to something else"
            if found
            else "none was found that answers alike and attends to something else, which says nothing, as training "
            f"was {steps} steps for each of {len(scales)} scales and a longer one may find it"
        )
        + "."
    )
    return Doubt("adversary", "One trained adversary", numbers, verdict, False if found else None)


def _disturbed(model: nn.Module, seed: int) -> nn.Module:
    """A copy with a little noise on its parameters: at the model itself the divergence has no slope."""
    model = copy.deepcopy(model)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.numel() > 1:
                parameter.add_(0.01 * parameter.std() * torch.randn_like(parameter))
    return model


def seeds_apart(subject: Subject, others: Sequence[nn.Module]) -> Doubt:
    """How far the weights of other seeds are from these, the noise floor of every divergence, and their answers.

    Paper: Wiegreffe and Pinter 2019, arXiv:1908.04626, section 3.2.
    """
    if not others:
        raise HgatError("seeds: expected a model of another seed or more, got none")
    possible = divergence(subject, subject.weights, _farthest(subject))
    able = subject.wide[subject.nodes]
    _able(able)
    apart, moved = [], []
    for other in others:
        answers, weights = subject.read(other)
        apart.append(divergence(subject, subject.weights, weights)[able])
        moved.append(subject.change(answers, subject.base[subject.nodes])[able])
    numbers = {
        "median divergence": float(torch.stack(apart).median()),
        "median share of the possible": float((torch.stack(apart) / possible[able].clamp_min(TINY)).median()),
        "mean change of the answer": float(torch.stack(moved).mean()),
        "other seeds": len(others),
    }
    verdict = (
        f"Another seed attends {numbers['median divergence']:.3f} nats away, in the median, and answers "
        f"{numbers['mean change of the answer']:.2f} of 1 otherwise: a divergence that is no larger than this is noise "
        "of training; heads are compared in their order, which seeds need not share."
    )
    return Doubt("seeds", "Seed to seed", numbers, verdict)
