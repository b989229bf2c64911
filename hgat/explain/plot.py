"""All figures. matplotlib comes with `pip install "hgat[plot]"` and is imported only when something is drawn."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hgat.errors import HgatError
from hgat.explain.tables import called
from hgat.files import write_bytes
from hgat.models import Past, Shares

__all__ = ["draw_past", "draw_shares", "figure_class", "save"]

# More bars than this cannot be read; the rest is left out and counted.
MOST_BARS = 20
MOST_NODES = 40
LEARNED, EVEN = "#1f6f8b", "#c9ccd1"


def draw_shares(found: Sequence[Shares], path: str | Path, title: str = "") -> None:
    """Draw one panel of bars per entry of `found` (see hgat.explain.shares) into a PNG file at `path`.

    Dark bars are the learned share of attention, light ones what uniform attention would spend, sorted by how much the
    one is above the other, but for names that have an order of their own. Where there are more than 20 names, the 20
    are shown that differ most. Raises HgatError if matplotlib is missing, OutputError if the file
    cannot be written.
    """
    if not found:
        raise HgatError("figures: expected shares of at least one layer, got none")
    Figure = figure_class()
    panels = [_panel(entry) for entry in found]
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    tallest = max(len(rows_) for _, rows_, _ in panels)
    figure = Figure(figsize=(5.6 * columns, rows * (0.27 * tallest + 1.1) + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, entry, (heading, bars, left_out) in zip(axes, found, panels, strict=False):
        names, attention, uniform = zip(*bars, strict=True)
        place = range(len(bars))
        axis.barh([p + 0.2 for p in place], uniform, 0.36, color=EVEN, label=entry.even)
        axis.barh([p - 0.2 for p in place], attention, 0.36, color=LEARNED, label="learned")
        axis.set_yticks(list(place), [called(name) for name in names])
        axis.invert_yaxis()
        axis.set_xlabel(entry.what)
        # On a line of its own: beside a long heading it would run out of the picture.
        axis.set_title(heading + (f"\n({left_out} smaller differences left out)" if left_out else ""), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2, frameon=False)
    if title:
        figure.suptitle(title, fontsize=12)
    save(figure, Path(path))


def draw_past(found: Sequence[Past], path: str | Path, title: str = "", names: Sequence[object] | None = None) -> None:
    """Draw two heatmaps per entry of `found` (see hgat.explain.past) into a PNG file at `path`.

    Left: what each step gives to those before it, over all nodes, 1 being what it gives where all are looked at alike.
    Right: the same for the last step of single nodes, the 40 that have been there longest; grey before a node has
    appeared. names: of all nodes, else their numbers.
    Raises HgatError if matplotlib is missing, OutputError if the file cannot be written.
    """
    if not found:
        raise HgatError("figures: expected attention of at least one temporal layer, got none")
    Figure = figure_class()
    figure = Figure(figsize=(11.5, 6.5 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 2, squeeze=False)
    for (left, right), entry in zip(axes, found, strict=True):
        steps = entry.by_step.shape[0]
        _heat(figure, left, _blank(entry.by_step, torch.ones(steps, steps).tril().bool()))
        left.set_title(entry.title, fontsize=10)
        left.set_ylabel("step that looks back")
        age = entry.present.sum(0)
        shown = torch.argsort(-age, stable=True)[: min(MOST_NODES, int((age > 0).sum()))]
        _heat(figure, right, _blank(entry.by_node[shown], entry.present.t()[shown]))
        right.set_title(f"the last step of {len(shown)} nodes", fontsize=10)
        right.set_ylabel("node")
        right.set_yticks(range(len(shown)), [str(names[k] if names else k) for k in shown.tolist()], fontsize=6)
        for axis in (left, right):
            axis.set_xlabel("step that is looked at")
            axis.set_facecolor(EVEN)
    if title:
        figure.suptitle(title, fontsize=12)
    save(figure, Path(path))


def figure_class() -> Any:
    """matplotlib's Figure; HgatError where the package is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise HgatError('figures: expected matplotlib, got none; pip install "hgat[plot]"') from None
    return Figure


def _blank(values, shown):
    return values.masked_fill(~shown, float("nan")).numpy()


def _heat(figure, axis, values):
    from matplotlib.colors import TwoSlopeNorm

    known = values[values == values]
    scale = TwoSlopeNorm(1, min(0.9, known.min()), max(1.1, known.max()))
    image = axis.imshow(values, aspect="auto", cmap="RdBu_r", norm=scale, interpolation="nearest")
    figure.colorbar(image, ax=axis, label="attention, 1 = as much as to any other step", shrink=0.8)


def _panel(entry):
    bars = list(zip(entry.names, entry.attention, entry.uniform, strict=True))
    shown = sorted(bars, key=lambda bar: -abs(bar[1] - bar[2]))[:MOST_BARS]
    if entry.ordered:
        shown = [bar for bar in bars if bar in shown]
    else:
        shown = sorted(shown, key=lambda bar: bar[2] - bar[1])
    return entry.title, shown, len(bars) - len(shown)


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG, or as SVG where the path ends so; OutputError where that is not possible."""
    picture = io.BytesIO()
    if path.suffix.lower() == ".svg":
        from matplotlib import rc_context

        with rc_context({"svg.hashsalt": "hgat"}):  # the same picture is the same file
            figure.savefig(picture, format="svg", metadata={"Date": None})
    else:
        figure.savefig(picture, format="png", dpi=150)
    write_bytes(path, picture.getvalue())
