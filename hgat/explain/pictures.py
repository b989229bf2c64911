"""Pictures of attention: a node's neighbourhood, how widely each layer looks, heads against heads, over time."""

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import networkx as nx
import pandas as pd
import torch

from hgat.errors import GraphError, HgatError
from hgat.explain.edges import EdgeAttention
from hgat.explain.plot import figure_class, save
from hgat.explain.tables import Ids, by_node, called, evenness, heads_apart, name_of, neighbours, over_time

__all__ = ["COLOURS", "draw_heads", "draw_neighbourhood", "draw_over_time", "draw_spread"]

# Okabe and Ito's, which colour-blind readers can tell apart, without black; and what has no colour of its own.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
OTHER, INK, PALE = "#4d4d4d", "#20262d", "#c9ccd1"
MOST_NAMES = 40
LONGEST = 24  # letters of a name
CROWD = 14  # names around one node that can stand level
NOTHING = 1e-3  # a smaller weight is said to be 0
THICK, THIN = 5.0, 0.5  # points, of the most attended edge and of one that is not attended to


def palette(relations: Sequence[str]) -> dict[str, str]:
    """{relation: colour}, in the order given; from the eighth on all share a grey."""
    return {name: COLOURS[k] if k < len(COLOURS) else OTHER for k, name in enumerate(relations)}


def short(name: str) -> str:
    """A name of at most 24 letters."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def neighbourhood(
    records: Sequence[EdgeAttention], node: int, ntype: str = "_N", *, ids: Ids | None = None, most: int = MOST_NAMES
) -> tuple[nx.MultiDiGraph, int]:
    """(graph, how many neighbours are left out) of what a node looks at in the last layer, and these in the one before.

    Nodes are (type, number) with "name" and "hop", edges have relation, weight and uniform, heads averaged. There are
    at most `most` nodes, the most attended ones: two thirds of them neighbours, where the layer before has some, too.
    Of snapshots it is the last in which a node has several in-edges, else the last in which it has one. Raises
    GraphError for a node without in-edges.
    """
    last = records[-1]
    rows = latest(neighbours(last, node, ntype, ids))
    graph = nx.MultiDiGraph()
    centre = (ntype, node)
    graph.add_node(centre, name=name_of(ids, ntype, node), hop=0, plain=not (ids or {}).get(ntype))
    deeper = _before(records) if len(records) > 1 else None
    first = most - 1 if deeper is None else max(2 * most // 3 - 1, 1)
    left_out = _add(graph, rows, centre, first, most)
    if deeper is None:
        return graph, left_out
    below = []
    for end, data in list(graph.nodes(data=True)):
        if data["hop"] == 1:
            strength = sum(abs(edge["weight"]) for *_, edge in graph.edges(end, data=True))
            try:
                rows = latest(neighbours(deeper, end[1], end[0], ids))
            except GraphError:  # it sends and receives nothing
                continue
            below.append(rows.assign(of=[end] * len(rows), path=rows.weight.abs() * strength * ~rows.alone))
    if below:
        every = pd.concat(below, ignore_index=True).sort_values("path", ascending=False, kind="stable")
        every = every[[(row.type, row.node) not in graph for row in every.itertuples()]]
        every = every[: 2 * (most - len(graph))]  # a tree, with few edges between its branches, can be read
        for end, rows in every.groupby("of", sort=False):
            _add(graph, rows, end, most, most, hop=2)
    return graph, left_out


def _before(records):
    """The record of the layer before the last: of another module, over the same relations; None if there is none."""
    last = records[-1]
    for record in reversed(records[:-1]):
        if record.layer != last.layer and {e[2] for e in record.relations} >= {e[0] for e in last.relations}:
            return record
    return None


def latest(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of the last step in which there is something to choose, else of the last."""
    count = rows.groupby("step").size()
    return rows[rows.step == (count[count > 1] if (count > 1).any() else count).index.max()]


def _add(graph, rows, centre, first, most, hop=1):
    """Add the edges of `rows` into a node, of at most `first` new nodes and `most` in all; gives how many are left."""
    new, left = set(), set()
    for _, row in rows.iterrows():
        end = (row.type, row.node)
        if end not in graph:
            if len(new) >= first or len(graph) >= most:
                left.add(end)
                continue
            graph.add_node(end, name=row["name"], hop=hop, plain=row["name"] == name_of(None, *end))
            new.add(end)
        graph.add_edge(end, centre, relation=row.relation, weight=row.weight, uniform=row.uniform)
    return len(left)


def first_relations(graph: nx.MultiDiGraph, centre: tuple[str, int]) -> list[str]:
    """Relations of a neighbourhood, those first that have the first colours: what the node itself is told of."""
    spent: dict[str, float] = {}
    for (src, dst, _), data in graph.edges.items():
        if src != dst:
            part = abs(data["weight"]) * (10 if dst == centre else 1)
            spent[data["relation"]] = spent.get(data["relation"], 0.0) + part
    return sorted(spent, key=lambda name: -spent[name])


def draw_neighbourhood(
    records: Sequence[EdgeAttention],
    node: int,
    path: str | Path,
    title: str = "",
    *,
    ntype: str = "_N",
    ids: Ids | None = None,
    most: int = MOST_NAMES,
) -> None:
    """Draw what a node attends to, edges as wide as the attention and coloured by relation, into a PNG or SVG file.

    records: of the layers in order (hgat.explain.attended_edges); drawn are the last layer's edges into the node and,
    paler, those of the layer before into its neighbours, heads averaged, at most `most` nodes. ids: {node type: names}.
    Raises GraphError for a node without in-edges, HgatError if matplotlib is missing, OutputError if the file cannot
    be written.
    """
    if not records:
        raise HgatError("figures: expected attention over edges, got none")
    Figure = figure_class()
    from matplotlib.lines import Line2D

    graph, left_out = neighbourhood(records, node, ntype, ids=ids, most=min(most, MOST_NAMES))
    centre = (ntype, node)
    figure = Figure(figsize=(8.6, 8.0), layout="constrained", facecolor="white")
    axis = figure.subplots()
    axis.set_axis_off()
    axis.set_aspect("equal")
    place = _layout(graph, centre)
    weights = nx.get_edge_attributes(graph, "weight")
    largest = max(map(abs, weights.values())) or 1.0
    colour = palette(first_relations(graph, centre))
    for (nearer, turn, negative), some in sorted(_alike(graph, centre).items()):  # the node's own edges on top
        nx.draw_networkx_edges(
            graph,
            place,
            [(src, dst) for src, dst, _ in some],
            ax=axis,
            width=[THIN + (THICK - THIN) * abs(weights[edge]) / largest for edge in some],
            edge_color=[colour[graph.edges[edge]["relation"]] for edge in some],
            alpha=0.9 if nearer else 0.55,
            style="dashed" if negative else "solid",
            arrowsize=9,
            connectionstyle=f"arc3,rad={turn}",
            node_size=240,
        )
    for arrow in axis.patches:
        arrow.set_clip_on(False)
    kinds = sorted({kind for kind, _ in graph})
    for kind, marker in zip(kinds, "os^Dvph" * len(kinds), strict=False):
        own = [name for name in graph if name[0] == kind]
        fill = [INK if name == centre else "white" for name in own]
        drawn = nx.draw_networkx_nodes(
            graph, place, own, ax=axis, node_color=fill, node_shape=marker, edgecolors=INK, linewidths=1, node_size=130
        )
        drawn.set_clip_on(False)
    _frame(axis, place)
    _write_names(axis, graph, place, centre, len(kinds) == 1)
    handles = [
        Line2D([], [], color=colour[name], linewidth=3, label=called(short(name)))
        for name in list(colour)[: len(COLOURS)]
    ]
    if len(colour) > len(COLOURS):
        handles.append(Line2D([], [], color=OTHER, linewidth=3, label="other relations"))
    for part in (largest, largest / 4):
        width = THIN + (THICK - THIN) * part / largest
        handles.append(Line2D([], [], color=INK, linewidth=width, label=f"attention {part:.2g}"))
    if len(kinds) > 1:
        for kind, marker in zip(kinds, "os^Dvph" * len(kinds), strict=False):
            handles.append(Line2D([], [], color=INK, marker=marker, mfc="white", linestyle="", label=kind))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), frameon=False, fontsize=10)
    notes = []
    if records[-1].step is not None:
        notes.append(f"step {latest(neighbours(records[-1], node, ntype)).step.iloc[0]}")
    own = [data["weight"] for src, _, data in graph.in_edges(centre, data=True) if src == centre]
    if own:  # of softmaxes of their own, which have no sum
        mean = sum(own) / len(own)
        notes.append("to itself: " + (f"{mean:.2g}" if abs(mean) >= NOTHING else "0"))
        notes[-1] += f", a mean over {len(own)} edges" if len(own) > 1 else ""
    if left_out:
        notes.append(f"{left_out} less attended neighbours left out")
    axis.set_title("; ".join(notes), fontsize=10)
    _head(figure, title)
    save(figure, Path(path))


def _layout(graph, centre):
    """The node in the middle, what is near it in the graph around it; the same picture every time."""
    near = [name for name, hop in graph.nodes(data="hop") if hop == 1]
    far = [name for name, hop in graph.nodes(data="hop") if hop == 2]
    plain = nx.Graph(graph.to_undirected())
    plain.remove_edges_from(list(nx.selfloop_edges(plain)))
    begin = nx.shell_layout(plain, [shell for shell in ([centre], near, far) if shell])
    return nx.kamada_kawai_layout(plain, pos=begin, weight=None) if len(plain) > 1 else begin


def _alike(graph, centre):
    """{(whether they enter the node, curvature, whether the weight is negative): edges}, without those to themselves.

    Edges between the same two nodes are bent, so that they do not lie on one another.
    """
    found: dict[tuple[bool, float, bool], list] = {}
    for (src, dst, key), data in graph.edges.items():
        if src != dst:
            others = graph.number_of_edges(src, dst) + graph.number_of_edges(dst, src)
            turn = 0.0 if others == 1 else 0.1 + 0.12 * key
            found.setdefault((dst == centre, turn, data["weight"] < 0), []).append((src, dst, key))
    return found


def _write_names(axis, graph, place, centre, alone):
    """Names on the far side of what a node is drawn beside; along the line where there are too many around one."""
    around = Counter(dst for _, dst in set(graph.edges()))
    for name, data in graph.nodes(data=True):
        ends = [place[dst] for dst in graph.successors(name) if dst != name]
        away = place[name] - sum(ends) / len(ends) if ends else place[name] * 0 + (0.0, 1.0)
        turn = math.degrees(math.atan2(away[1], away[0]))
        size = max(math.hypot(*away), 1e-9)
        x, y = away / size
        crowded = len(ends) == 1 and around[next(iter(graph.successors(name)))] > CROWD
        options = {"ha": "left" if x > 0.4 else "right" if x < -0.4 else "center"}
        options["va"] = "center" if abs(x) > 0.4 else "bottom" if y > 0 else "top"
        if crowded:
            options = {"ha": "right" if x < 0 else "left", "va": "center", "rotation_mode": "anchor"}
            options["rotation"] = turn - 180 if x < 0 else turn
        bold = name == centre
        axis.annotate(
            short(str(name[1]) if alone and data["plain"] else data["name"]),
            place[name],
            (9 * x, 9 * y),
            textcoords="offset points",
            fontsize=11 if bold else 8.5,
            fontweight="bold" if bold else "normal",
            color=INK,
            zorder=9,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
            **options,
        )


def _frame(axis, place):
    """A square around all nodes, of a half side of 1 at least: one neighbour, or several in a row, span no height."""
    sides = [(min(values), max(values)) for values in zip(*place.values(), strict=True)]
    half = 1.12 * max(1.0, *((high - low) / 2 for low, high in sides))
    for limit, (low, high) in zip((axis.set_xlim, axis.set_ylim), sides, strict=True):
        limit((low + high) / 2 - half, (low + high) / 2 + half)


def draw_spread(records: Sequence[EdgeAttention], path: str | Path, title: str = "") -> None:
    """Draw how many neighbours every node looks at in effect against how many it has, layer by layer, into a file.

    A dot is a node, or one of its softmaxes where it has several, heads averaged; on the line attention is uniform.
    Raises as `draw_neighbourhood`.
    """
    records = [record for record in records if bool((evenness(record)[0] > 1).any())]
    if not records:
        raise HgatError("figures: expected attention over edges of which several enter a node, got none")
    Figure = figure_class()
    columns = min(len(records), 3)
    rows = -(-len(records) // columns)
    figure = Figure(figsize=(3.9 * columns, 3.9 * rows + 0.6), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, record in zip(axes, records, strict=False):
        size, entropy, effective = evenness(record)
        several = size > 1
        degree, wide = size[several].double(), effective[several].mean(1)
        share = (entropy[several].mean(1) / degree.log()).mean()
        shown = torch.randperm(len(degree), generator=torch.Generator().manual_seed(0))[:3000]
        most = float(degree.max()) * 1.2
        axis.plot([1, most], [1, most], color=INK, linewidth=1, linestyle=":", label="uniform")
        axis.scatter(degree[shown], wide[shown], s=9, c=COLOURS[0], alpha=0.35, linewidths=0, rasterized=True)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("in-edges of a node" if by_node(record) else "edges of a softmax")
        axis.set_ylabel("looked at in effect")
        axis.set_title(f"{record.layer or 'the model'}: entropy {100 * share:.0f} % of uniform's", fontsize=10)
        axis.legend(frameon=False, loc="upper left", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        _plain_ticks(axis, most)
    for axis in axes[len(records) :]:
        axis.set_visible(False)
    _head(figure, title)
    save(figure, Path(path))


def _plain_ticks(axis, most):
    from matplotlib.ticker import NullLocator

    steps = (1,) if most > 200 else (1, 2, 5)
    ticks = [step * 10**k for k in range(8) for step in steps if step * 10**k <= most]
    for one in (axis.xaxis, axis.yaxis):
        one.set_ticks(ticks, [f"{tick:,}" for tick in ticks])
        one.set_minor_locator(NullLocator())


def _head(figure, title):
    """The title, in as many lines as the figure is narrow."""
    if title:
        figure.suptitle("\n".join(textwrap.wrap(title, int(9 * figure.get_figwidth()))), fontsize=12)


def draw_heads(records: Sequence[EdgeAttention], path: str | Path, title: str = "") -> None:
    """Draw head against head: how far apart the weights of two heads are, in each layer of several, into a file.

    0: they look at the same; 1: never at the same neighbour. Raises as `draw_neighbourhood`, HgatError for one head.
    """
    records = [record for record in records if record.weight.shape[1] > 1][:6]
    if not records:
        raise HgatError("figures: expected a layer of several heads, got none")
    Figure = figure_class()
    columns = min(len(records), 3)
    rows = -(-len(records) // columns)
    figure = Figure(figsize=(4.2 * columns + 0.6, 3.9 * rows + 0.5), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    found = [heads_apart(record) for record in records]
    most = max(0.1, *(float(apart.max()) for apart in found))  # a scale of tiny differences would make them look large
    for axis, record, apart in zip(axes, records, found, strict=False):
        image = axis.imshow(100 * apart.numpy(), cmap="cividis", vmin=0, vmax=100 * most)
        heads = len(apart)
        for row in range(heads if heads <= 10 else 0):
            for column in range(heads):
                bright = float(apart[row, column]) > 0.6 * most
                text = f"{100 * float(apart[row, column]):.0f}" if row != column else "–"
                axis.text(column, row, text, ha="center", va="center", fontsize=8, color=INK if bright else "white")
        axis.set_xticks(range(heads))
        axis.set_yticks(range(heads))
        axis.set_xlabel("head")
        axis.set_ylabel("head")
        axis.set_title(record.layer or "the model", fontsize=10)
    for axis in axes[len(records) :]:
        axis.set_visible(False)
    figure.colorbar(image, ax=axes[: len(records)].tolist(), shrink=0.8, label="mean total variation in percent")
    _head(figure, title)
    save(figure, Path(path))


def draw_over_time(records: Sequence[EdgeAttention], path: str | Path, title: str = "") -> None:
    """Draw attention inside snapshots, step by step: neighbours looked at in effect beside how many there are.

    Raises as `draw_neighbourhood`, and HgatError for attention without steps.
    """
    rows = over_time(records)
    if rows.empty:
        raise HgatError("figures: expected attention inside snapshots, got none")
    Figure = figure_class()
    layers = list(dict.fromkeys(rows.layer))
    figure = Figure(figsize=(6.2 * len(layers), 3.8), layout="constrained", facecolor="white")
    for axis, layer in zip(figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True):
        part = rows[(rows.layer == layer) & (rows.nodes > 0)]
        axis.plot(part.step, part.in_edges, color=OTHER, linestyle=":", marker="s", markersize=4, label="uniform")
        axis.plot(part.step, part.effective, color=COLOURS[0], marker="o", markersize=4, label="learned")
        axis.set_xlabel("step")
        axis.set_ylabel("neighbours looked at in effect")
        axis.set_title(layer, fontsize=10)
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    _head(figure, title)
    save(figure, Path(path))
