"""What a test of attention found: numbers, one sentence, and whether the attention stood it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from hgat.explain.plot import LEARNED, figure_class, save

__all__ = ["MATERIAL", "Curve", "Doubt", "Doubts", "draw_curves"]

MATERIAL = 0.05  # a change of the answer that counts, of at most 1
COLOURS = {"attention": LEARNED, "random": "#8a8f98", "degree": "#d1603d"}  # of different lightness, too
DASHES = {"attention": "-", "random": "--", "degree": ":"}


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

    str() of it is the verdicts, a paragraph each.
    """

    title: str
    nodes: int
    tests: tuple[Doubt, ...]
    curve: Curve | None = field(default=None, repr=False)

    @property
    def stood(self) -> int:
        """How many tests the attention stood."""
        return sum(test.holds is True for test in self.tests)

    @property
    def asked(self) -> int:
        """How many tests have a say."""
        return sum(test.holds is not None for test in self.tests)

    @property
    def mechanism(self) -> bool:
        """Whether attention looks like the mechanism: it is needed, and it stood more than half of the tests.

        Needed: it stood the tests against uniform attention that were made. Where uniform attention does as well, what
        the other tests find is a use that the model makes of its weights and could do without (Wiegreffe and Pinter
        2019, section 3.1).
        """
        needed = all(test.holds is not False for test in self.tests if test.name.startswith("uniform"))
        return needed and 2 * self.stood > self.asked

    def to_frame(self) -> pd.DataFrame:
        """A row for every number: test, measure, value, holds ("yes", "no" or "")."""
        rows = [
            (test.name, measure, value, {True: "yes", False: "no", None: ""}[test.holds])
            for test in self.tests
            for measure, value in test.numbers.items()
        ]
        return pd.DataFrame(rows, columns=["test", "measure", "value", "holds"])

    def __str__(self) -> str:
        word = "the mechanism" if self.mechanism else "decoration, as far as these tests can tell"
        lines = [self.title, f"attention of {self.nodes:,} nodes in doubt", ""]
        for test in self.tests:
            mark = {True: "stood", False: "fell", None: "–"}[test.holds]
            lines += [f"  {test.title}: {mark}", f"    {test.verdict}"]
            lines += [f"    {', '.join(f'{measure} {value:.3f}' for measure, value in test.numbers.items())}", ""]
        lines.append(f"  stood {self.stood} of {self.asked}: attention looks like {word}")
        return "\n".join(lines)


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
