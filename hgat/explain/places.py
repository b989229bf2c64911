"""Attention on a map: how much the nodes of one place look at those of every other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hgat.errors import HgatError
from hgat.explain.plot import figure_class, save
from hgat.graph.places import Places
from hgat.models import System
from hgat.models._system import resting

__all__ = ["draw_map", "looks_at", "toward"]

LAND, LINE, INK = "#cbd2da", "#aab2bb", "#20262d"
COLOURS, LEAST, MOST = "RdYlBu_r", 1 / 8, 8.0  # of the scale of ratios, and its ends
VALUES, FAR = "PuOr_r", 2.0  # of the scale of a neighbour's value, and its ends
MARGIN = 3.0  # degrees around the land
MOST_BARS = 12


def toward(model: System, inputs: tuple, places: Places, star: str) -> tuple[Tensor, Tensor]:
    """(ratio [P], count [P]): what nodes of the place `star` give to an in-neighbour at every place, of how many.

        ratio_p = sum alpha_uv / sum 1 / deg(v), over the edges u -> v with u at p and v at the star

    1 is what uniform attention gives; NaN where there is no edge. alpha: of the model's last layer, heads averaged.
    inputs: those of its forward, a typed graph first. Raises GraphError for a star that is no place.
    """
    number, of, edges = places.number(star), places.of[_target(model)], list(_edges(model, inputs))
    degree = torch.bincount(torch.cat([dst for _, _, dst, _ in edges]), minlength=len(of))
    found = torch.zeros(3, len(places.names), dtype=torch.float64)
    for ntype, src, dst, alpha in edges:
        here = (of[dst] == number) & (places.of[ntype][src] >= 0)
        at = places.of[ntype][src[here]]
        for row, values in enumerate((alpha[here], 1.0 / degree[dst[here]], torch.ones(len(at)))):
            found[row].index_add_(0, at, values.double())
    return found[0] / found[1], found[2].long()


def looks_at(model: System, inputs: tuple, node: int) -> tuple[list[str], Tensor, Tensor]:
    """(types [K], numbers [K], alpha [K]) of the in-neighbours of a node of the predicted type, most attended first."""
    ntypes, sources, weights = [], [torch.empty(0, dtype=torch.int64)], [torch.empty(0)]
    for ntype, src, dst, alpha in _edges(model, inputs):
        here = dst == node
        ntypes += [ntype] * int(here.sum())
        sources.append(src[here])
        weights.append(alpha[here])
    alpha, order = torch.cat(weights).sort(descending=True, stable=True)
    return [ntypes[k] for k in order], torch.cat(sources)[order], alpha


def _target(model):
    return getattr(model, "target", "")


def _edges(model, inputs) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """(source type, src, dst, alpha [E] of the last layer, heads averaged) of each relation into the predicted type."""
    ask: Any = model.attention
    alpha = resting(model, lambda: ask(*inputs))[-1]
    for etype in inputs[0].canonical_etypes:
        if etype[2] == _target(model):
            src, dst = (end.long().cpu() for end in inputs[0].edges(etype=etype, order="eid"))
            yield etype[0], src, dst, alpha[etype].mean(1).cpu()


def draw_map(
    model: System,
    inputs: tuple,
    places: Places,
    path: str | Path,
    title: str = "",
    *,
    among: Tensor | None = None,
) -> None:
    """Draw `toward` for every star of `places` into a PNG file at `path`: what was learned above uniform attention.

    A dot is a place, larger where more neighbours are; its colour says how much attention one of them gets, beside what
    uniform attention would give. among: [M] nodes of the predicted type, of which one of the first star is drawn with
    its neighbours, too: the one with the largest answer among those that have the most neighbours. None: no such panel.
    Raises HgatError if matplotlib is missing or there is no star, OutputError if the file cannot be written.
    """
    if not places.stars:
        raise HgatError("figures: expected places with a star, got none")
    Figure = figure_class()
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    columns = len(places.stars)
    width, heights = max(4.4 * columns + 1.2, 9.0), (6.2, 4.0) if among is not None else (6.2,)
    figure = Figure(figsize=(width, sum(heights) + 0.5), layout="constrained", facecolor="white")
    upper, *lower = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    axes, scale = upper.subplots(2, columns, squeeze=False), LogNorm(LEAST, MOST)
    for column, star in enumerate(places.stars):
        ratio, count = toward(model, inputs, places, star)
        for axis, what, values in zip(axes[:, column], ("learned", "uniform"), (ratio, ratio / ratio), strict=True):
            size, seen = 12 + 200 * (count / count.max().clamp_min(1)).sqrt(), count > 0
            position = _ground(axis, places, seen)
            dots = {"c": values[seen].numpy(), "cmap": COLOURS, "norm": scale, "edgecolors": INK, "linewidths": 0.4}
            axis.scatter(*position[seen].T.numpy(), s=size[seen].numpy(), **dots)
            _mark(axis, places, position, star)
            axis.set_title(f"{places.asks.format(star)}: {what} attention", fontsize=11)
    bar = upper.colorbar(ScalarMappable(scale, COLOURS), ax=axes, shrink=0.75, extend="both", pad=0.01)
    bar.set_ticks([2.0**k for k in range(-3, 4)], labels=["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    bar.minorticks_off()
    bar.set_label(f"attention to one of the {places.seen}\n1 = as much as to any other")
    upper.supxlabel(f"a dot: a place, larger where more {places.seen} are seen", fontsize=9, color=INK)
    for part in lower:
        _draw_one(part, model, inputs, places, _told_most(model, inputs, places, among))
    if title:
        figure.suptitle(title, fontsize=13)
    save(figure, Path(path))


def _ground(axis, places, shown):
    """The land and the frame; [P, 2] where the places are drawn: those far from the land stand at the border.

    shown: [P] bool, the places that are drawn.
    """
    land = places.position if places.background is None else places.background
    low, high = land.amin(0) - MARGIN, land.amax(0) + MARGIN
    inside = ((places.position > low - 12) & (places.position < high + 12)).all(1)
    near = places.position[inside]
    low, high = torch.minimum(low, near.amin(0) - MARGIN), torch.maximum(high, near.amax(0) + MARGIN)
    if places.background is not None:
        axis.scatter(*places.background.T.numpy(), s=5, c=LAND, linewidths=0, zorder=0)
    axis.set_xlim(float(low[0]), float(high[0]))
    axis.set_ylim(float(low[1]), float(high[1]))
    axis.set_aspect(1.0 / float(torch.cos(torch.deg2rad((low[1] + high[1]) / 2))))
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color(LINE)
    position = torch.minimum(torch.maximum(places.position, low + 1), high - 1)
    for k in (shown & ~inside).nonzero().flatten().tolist():
        axis.annotate(places.names[k], position[k].tolist(), (4, 6), textcoords="offset points", fontsize=7, color=INK)
    return position


def _mark(axis, places, position, star):
    """Where all begins, and the star."""
    if places.home is not None:
        axis.plot(*places.home, marker="s", color=INK, markersize=4, zorder=4)
    at = position[places.number(star)].tolist()
    axis.plot(*at, marker="*", color="#ffd400", markeredgecolor=INK, markersize=17, zorder=5)
    axis.annotate(star, at, (8, -14), textcoords="offset points", fontsize=10, fontweight="bold", color=INK, zorder=6)


def _told_most(model, inputs, places, among):
    """The node of the first star, among some, with the largest answer; of those that have the most neighbours."""
    degree = torch.zeros(len(places.of[_target(model)]), dtype=torch.int64)
    for etype in inputs[0].canonical_etypes:
        if etype[2] == _target(model):
            degree += inputs[0].in_degrees(etype=etype)
    here = among[places.of[_target(model)][among] == places.number(places.stars[0])]
    if not len(here):
        raise HgatError(f"figures: expected a node at {places.stars[0]} among those to draw, got none")
    here = here[degree[here] == degree[here].max()]
    answer = resting(model, lambda: model(*inputs)).cpu()[here]
    return int(here[answer.abs().amax(1).argmax()])


def _draw_one(figure, model, inputs, places, node):
    """One node: lines to its neighbours, as strong as the attention, and bars of those that get the most."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    ntypes, sources, alpha = looks_at(model, inputs, node)
    at = torch.tensor([int(places.of[ntype][k]) for ntype, k in zip(ntypes, sources, strict=True)])
    value = torch.tensor(
        [
            float(inputs[1][t][k, places.value[t]]) if t in places.value else 0.0
            for t, k in zip(ntypes, sources, strict=True)
        ]
    )
    scale, star = Normalize(-FAR, FAR), places.stars[0]
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    position = _ground(left, places, torch.isin(torch.arange(len(places.names)), at))
    strength = alpha / alpha.max()
    for k in range(len(at) - 1, -1, -1):  # the most attended on top
        if places.home is not None:
            ends = torch.stack([torch.tensor(places.home), position[at[k]]])
            left.plot(
                *ends.T.numpy(),
                color=INK,
                linewidth=0.3 + 3 * float(strength[k]),
                alpha=0.15 + 0.6 * float(strength[k]),
            )
    back = torch.arange(len(at) - 1, -1, -1)
    size, colour = (20 + 240 * strength[back]).numpy(), value[back].numpy()
    dots = {"s": size, "c": colour, "cmap": VALUES, "norm": scale, "edgecolors": INK, "linewidths": 0.5, "zorder": 3}
    left.scatter(*position[at[back]].T.numpy(), **dots)
    _mark(left, places, position, star)
    answer = float(resting(model, lambda: model(*inputs))[node, 0])
    left.set_title(f"one of the {places.asks.format(star)} and the {len(at)} {places.seen} that it sees", fontsize=11)
    left.set_xlabel(f"its answer: {answer:+.1f} standard deviations" if places.means else "")
    shown = slice(0, MOST_BARS)
    colours = ScalarMappable(scale, VALUES)
    names = [places.names[k] for k in at[shown].tolist()]
    right.barh(
        range(len(names)),
        alpha[shown].numpy(),
        color=colours.to_rgba(value[shown].numpy()),
        edgecolor=INK,
        linewidth=0.5,
    )
    right.axvline(1 / len(at), color=INK, linestyle=":", linewidth=1)
    right.annotate(
        "uniform", (1 / len(at), len(names) - 0.5), (4, 0), textcoords="offset points", fontsize=8, color=INK
    )
    right.set_yticks(range(len(names)), names)
    right.invert_yaxis()
    right.set_xlabel("attention")
    right.set_title(f"the {len(names)} that it attends to most", fontsize=11)
    right.spines[["top", "right"]].set_visible(False)
    if places.means:
        figure.colorbar(
            colours, ax=[left, right], shrink=0.8, extend="both", label=places.means.replace(", ", ",\n"), pad=0.01
        )
