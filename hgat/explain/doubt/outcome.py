"""What a test of attention found: numbers, one sentence, and whether the attention stood it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from torch import Tensor

from hgat.explain.plot import LEARNED, figure_class, save

__all__ = ["MATERIAL", "Curve", "Doubt", "Doubts", "above", "draw_curves", "standard_error"]

MATERIAL = 0.05  # a change of the answer that counts, of at most 1
COLOURS = {"attention": LEARNED, "random": "#8a8f98", "degree": "#d1603d"}  # of different lightness, too
DASHES = {"attention": "-", "random": "--", "degree": ":"}


def standard_error(values: Tensor) -> float:
    """Of the mean of values [M], with M - 1 in the variance; NaN of fewer than two."""
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def above(mean: float, error: float, least: float) -> bool | None:
    """Whether a mean is above `least` and two standard errors; None where there is no standard error."""
    return None if math.isnan(error) else mean > max(least, 2 * error)


@dataclass(frozen=True)
class Doubt:
    """One test. name, title; numbers: {measure: value}; verdict: one sentence, of what it shows and what it does not.

    holds: whether the attention stood the test, that is, whether it looks like the mechanism; None where the test has
    no say, such as a noise floor.
    """

    name: str
    title: str
    numbers: Mapping[str, float]
    verdict: str
    holds: bool | None = None


@dataclass(frozen=True)
class Curve:
    """Mean value of the answers when a share of each node's in-edges is deleted, or is all that is left.

    fraction: of the in-edges. deletion, insertion: {order: one value for each fraction}.
    """

    fraction: tuple[float, ...]
    deletion: Mapping[str, tuple[float, ...]]
    insertion: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Doubts:
    """What a battery of tests found of one model, on so many nodes.

    left_out: {test that was asked for: what it needs and does not have}.

    str() of it is the verdicts, a paragraph each.
    """

    title: str
    nodes: int
    tests: tuple[Doubt, ...]
    curve: Curve | None = field(default=None, repr=False)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def stood(self) -> int:
        """How many tests the attention stood."""
        return sum(test.holds is True for test in self.tests)

    @property
    def asked(self) -> int:
        """How many tests have a say."""
        return sum(test.holds is not None for test in self.tests)

    @property
    def mechanism(self) -> bool | None:
        """Whether attention looks like the mechanism: it is needed, and it stood more than half of the tests.

        None where no test against uniform attention had a say.
        Needed: it stood the tests against uniform attention that were made. Where uniform attention does as well, what
        the other tests find is a use that the model makes of its weights and could do without (Wiegreffe and Pinter
        2019, section 3.1).
        """
        uniform = [test.holds for test in self.tests if test.name.startswith("uniform") and test.holds is not None]
        return all(uniform) and 2 * self.stood > self.asked if uniform else None

    def to_frame(self) -> pd.DataFrame:
        """A row for every number: test, measure, value, holds ("yes", "no" or "")."""
        rows = [
            (test.name, measure, value, {True: "yes", False: "no", None: ""}[test.holds])
            for test in self.tests
            for measure, value in test.numbers.items()
        ]
        return pd.DataFrame(rows, columns=["test", "measure", "value", "holds"])

    def __str__(self) -> str:
        looks = "attention looks like "
        word = {
            True: looks + "the mechanism",
            False: looks + "decoration, as far as these tests can tell",
            None: "no verdict, as no test against uniform attention had a say",
        }[self.mechanism]
        lines = [self.title, f"attention of {self.nodes:,} nodes in doubt", ""]
        for test in self.tests:
            mark = {True: "stood", False: "fell", None: "–"}[test.holds]
            lines += [f"  {test.title}: {mark}", f"    {test.verdict}"]
            lines += [f"    {', '.join(f'{name} {_number(value)}' for name, value in test.numbers.items())}", ""]
        if self.left_out:
            lines += [f"  left out: {', '.join(f'{name} ({why})' for name, why in self.left_out.items())}"]
        lines.append(f"  stood {self.stood} of {self.asked}: {word}")
        return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def draw_curves(curve: Curve, path: str | Path, title: str = "") -> None:
    """Draw the curves of deletion and insertion into a PNG file, or SVG, at `path`.

    Raises HgatError if matplotlib is missing, OutputError if the file cannot be written.
    """
    figure = figure_class()(figsize=(8.6, 3.6), layout="constrained")
    panels: Sequence[tuple[str, Mapping[str, tuple[float, ...]]]] = (
        ("deleted", curve.deletion),
        ("left", curve.insertion),
    )
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (what, of) in zip(axes, panels, strict=True):
        for order, values in of.items():
            axis.plot(
                curve.fraction,
                values,
                DASHES[order],
                color=COLOURS[order],
                label=f"by {order}".replace("by random", "at random"),
                lw=2,
            )
        axis.set_xlabel(f"share of a node's in-edges that is {what}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].locator_params(axis="y", nbins=5)
    figure.supylabel("what is left of the answer", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    if title:
        figure.suptitle(title, fontsize=12)
    save(figure, Path(path))
