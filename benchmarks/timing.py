"""What is compared, the proof that it is the same, and the clock.

A case holds candidates that claim to compute the same outputs from the same inputs. `check` refuses a case whose
candidates differ; `interleave` runs them in turn (A B C A B C ...), so that a machine that slows down slows all alike.
"""

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

__all__ = ["TOLERANCE", "Candidate", "Case", "Unequal", "check", "interleave", "medians", "runner"]

# Largest difference allowed, as a part of the largest entry: float32 sums of some ten thousand terms in another order.
TOLERANCE = 1e-4
# The same for the norm of a gradient through several layers, where float32 takes other sides of LeakyReLU's kink.
DEEP_TOLERANCE = 1e-2
# A turn of a fast function lasts about this many seconds, in at most so many calls.
LEAST_ROUND, MOST_CALLS = 0.05, 20


class Unequal(Exception):
    """Two candidates of a case differ, so their times say nothing."""


@dataclass
class Candidate:
    """One way to compute what a case asks for.

    call: one forward pass; gives a tensor or a list of tensors, shaped alike for all candidates.
    leaves: what gradients are taken of, by name; the same tensors where candidates can share them.
    common: brings the gradients, by name, into the form that all candidates share; None if they have it already.
    compared: False for a floor, which computes something else on purpose: timed, not checked.
    fresh: makes the argument of `call` anew before every call, outside the clock.
    step: what the pass "epoch" runs instead: forward, loss, backward, optimiser.
    """

    name: str
    call: Callable
    leaves: dict[str, torch.Tensor]
    common: Callable | None = None
    compared: bool = True
    fresh: Callable | None = None
    step: Callable | None = None


@dataclass
class Case:
    """Candidates under one title; the first is the one that the others are compared with.

    proof: makes the same case in float64 on a small graph, for models of several layers and for scores that are
    products. There a logit near zero may fall on either side of LeakyReLU's kink by rounding alone, and all gradients
    before it change by more than TOLERANCE, although the candidates compute the same function: in float64 they agree to
    all digits. So the proof is checked entry by entry, and the case itself by its outputs, entry by entry, and by the
    norms of its gradients.
    by_norm: the same for a case whose operators were proved elsewhere.
    """

    title: str
    candidates: list[Candidate]
    passes: tuple[str, ...] = ("forward", "forward+backward")
    proof: Callable | None = None
    by_norm: bool = False


def _outputs(candidate, *state):
    out = candidate.call(*state)
    return list(out) if isinstance(out, (list, tuple)) else [out]


def _state(candidate):
    return () if candidate.fresh is None else (candidate.fresh(),)


def cotangents(outputs, seed=0):
    """A random cotangent for every output, the same for all candidates of a case: outputs have equal shapes."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(out.shape, generator=generator, dtype=out.dtype).to(out.device) for out in outputs]


def _evaluate(candidate):
    """Outputs and gradients by name, as one dict."""
    outputs = _outputs(candidate, *_state(candidate))
    grads = torch.autograd.grad(outputs, list(candidate.leaves.values()), cotangents(outputs))
    grads = dict(zip(candidate.leaves, grads, strict=True))
    if candidate.common is not None:
        grads = candidate.common(grads)
    found = {f"output {number}": out.detach() for number, out in enumerate(outputs)}
    return found | {f"gradient of {name}": grad for name, grad in grads.items()}


def _largest(tensor):
    return tensor.abs().max()


_ENTRIES = (_largest, "largest entry", TOLERANCE)


def check(case):
    """Raise Unequal unless all compared candidates give equal outputs and gradients; gives the largest difference.

    The cotangent is random: the gradient of a plain sum of a softmax is zero and would show nothing. Differences are
    measured against the largest entry of the first candidate's tensor; for the exception see Case.proof.
    """
    first, *others = [c for c in case.candidates if c.compared]
    worst = 0.0
    if case.proof is not None:
        proof = case.proof()
        names = {c.name for c in case.candidates}
        proof.candidates = [c for c in proof.candidates if c.name in names]
        worst = check(proof)
    expected = _evaluate(first)
    for other in others:
        found = _evaluate(other)
        if found.keys() != expected.keys():
            raise Unequal(f"{case.title}: {first.name} gives {list(expected)}, {other.name} {list(found)}: not timed")
        for name, tensor in expected.items():
            if found[name].shape != tensor.shape:
                shapes = f"{list(tensor.shape)} and {list(found[name].shape)}"
                raise Unequal(f"{case.title}: {name} of {first.name} and {other.name} have shapes {shapes}: not timed")
            if tensor.numel() == 0:
                continue
            by_norm = (case.proof is not None or case.by_norm) and name.startswith("gradient")
            measure, what, allowed = (torch.linalg.vector_norm, "norm", DEEP_TOLERANCE) if by_norm else _ENTRIES
            difference, largest = float(measure(found[name] - tensor)), float(measure(tensor))
            if not difference <= allowed * largest:  # also where either is NaN
                raise Unequal(
                    f"{case.title}: {name} of {first.name} and {other.name} differ by {difference:.2g} where the "
                    f"{what} is {largest:.2g} (allowed: {allowed:g} of it): not timed"
                )
            worst = max(worst, difference / largest if largest else 0.0)
    return worst


def runner(candidate, which):
    """A function that runs one pass: (state) -> what must stay alive until the clock has stopped.

    forward runs without autograd, as in inference; forward+backward takes gradients of every leaf, with a random
    cotangent made beforehand; epoch is the candidate's step.
    """
    if which == "epoch":
        return lambda *state: candidate.step(*state)
    if which == "forward":

        def forward(*state):
            with torch.no_grad():
                return candidate.call(*state)

        return forward
    with torch.no_grad():
        along = cotangents(_outputs(candidate, *_state(candidate)))
    leaves = list(candidate.leaves.values())

    def both(*state):
        outputs = _outputs(candidate, *state)
        return outputs, torch.autograd.grad(outputs, leaves, along)

    return both


def interleave(functions, rounds, fresh=None):
    """Seconds per call of every round by name: the functions in turn, `rounds` times, after two calls to warm up.

    functions: {name: function}; fresh: {name: makes the function's argument}, run outside the clock. A function that is
    done in less than LEAST_ROUND seconds is called several times in its turn, and the round's number is the mean.
    Python's garbage collector runs between calls and not in them.
    """
    fresh = fresh or {}
    seconds = {name: [] for name in functions}
    calls = {}
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()  # what is there already is not looked through again before every call
    gc.disable()
    try:
        for name, function in functions.items():
            _once(function, fresh.get(name))
            taken = max(_once(function, fresh.get(name)), 1e-9)
            calls[name] = math.ceil(min(max(LEAST_ROUND / taken, 1), MOST_CALLS))
        for _ in range(rounds):
            for name, function in functions.items():
                taken = [_once(function, fresh.get(name)) for _ in range(calls[name])]
                seconds[name].append(sum(taken) / len(taken))
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return seconds


def _once(function, fresh):
    """Seconds of one call."""
    state = () if fresh is None else (fresh(),)
    gc.collect()
    start = time.perf_counter()
    result = function(*state)
    taken = time.perf_counter() - start
    del result, state
    return taken


def medians(seconds):
    """{name: median over the rounds}."""
    return {name: median(values) for name, values in seconds.items()}
