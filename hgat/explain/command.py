"""The command `hgat explain`: what the model of a run attends to, as tables, pictures and a page."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hgat.errors import GraphError, HgatError
from hgat.explain import pictures, plot, tables
from hgat.explain.edges import Attended, EdgeAttention, observe
from hgat.explain.page import check_page, write_page
from hgat.files import write_bytes
from hgat.models import Batch, Past, Shares
from hgat.models._system import resting

__all__ = ["SECTIONS", "Explained", "run"]

FOLDER = "explain"  # inside the run's
MOST_ROWS = 10  # of a printed table
SAMPLED = 1000  # test nodes that are looked at where a model is trained in batches
SAME = 1e-6  # the difference of two shares that are one
LEAST_EDGES = 3  # of the node that is shown where none is named


@dataclass(eq=False)
class Explained:
    """A run that is being explained: what was opened, what it attends to, and what the command line asks for.

    found: hgat.train.open_folder's. target, node: the node that is shown, None where no edges are attended to. sizes:
    {node type: N}. ids: {node type: names}, of those that have any. part: which part of the data was looked at, in
    words. files: what has been written so far.
    """

    found: Any
    attended: Attended
    arguments: argparse.Namespace
    out: Path
    target: str
    sizes: dict[str, int]
    ids: dict[str, Sequence[object]]
    part: str
    node: int | None = None
    files: list[Path] = field(default_factory=list)

    @property
    def named(self) -> list[EdgeAttention]:
        """The attention over edges, calls of one module told apart."""
        return tables.numbered(self.attended.edges)

    @property
    def last(self) -> EdgeAttention:
        """The last layer whose attention ends at nodes of the target type."""
        return [r for r in self.attended.edges if any(etype[2] == self.target for etype in r.relations)][-1]

    def picture(self, name: str, draw: Callable[[Path], Any]) -> None:
        """Draw a picture into the run's folder."""
        path = self.out / f"{name}.{'svg' if self.arguments.svg else 'png'}"
        draw(path)
        self.files.append(path)


def run(arguments: argparse.Namespace) -> None:
    """Print what the model of a run attends to and write its tables, pictures and page."""
    from hgat.train.checkpoint import make_folder
    from hgat.train.run import open_folder

    plot.figure_class()  # without which there is little to write
    out = Path(arguments.out or Path(arguments.folder) / FOLDER)
    if arguments.html is not None:
        check_page(arguments.html, out)
    found = open_folder(arguments.folder, arguments.root, device=arguments.device)
    explained = look(found, arguments, out)
    make_folder(explained.out)
    lines = [f"{found.recipe.title}, seed {found.about['seed']}: what it attends to{explained.part}"]
    lines += [line for section in SECTIONS for line in section(explained)]
    print("\n".join([*lines, "", *map(str, explained.files)]))


def look(found: Any, arguments: argparse.Namespace, out: Path) -> Explained:
    """Run the model once and see what it attends to."""
    task, model, inputs = found.task.rounds()[-1], found.model, found.inputs["test"]
    shown = task.shown()
    graph, target = shown.graph, shown.target or shown.graph.ntypes[0]
    sizes, ids = {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes}, _ids(task.data, target)
    wanted = None if arguments.node is None else _node(arguments.node, target, sizes, ids)
    target, node = (target, None) if wanted is None else wanted
    batch, part = _asked(task, model, inputs, node)
    attended = observe(model, inputs, batch, target)
    if not attended.edges and not attended.axes:
        raise HgatError(
            f"explain: expected a model that attends, got {type(model).__name__} whose settings leave it out"
        )
    explained = Explained(found, attended, arguments, out, target, sizes, ids, part, node)
    ends = [record for record in attended.edges if any(etype[2] == target for etype in record.relations)]
    if node is None and ends:
        explained.node = _typical(ends[-1], target, getattr(task.data, "test", None))
    elif node is not None and not ends:
        raise GraphError(
            f"node: expected a model that attends to the neighbours of {target!r} nodes, got {type(model).__name__}, "
            "which does not"
        )
    return explained


def _asked(task: Any, model: Any, inputs: tuple, node: int | None) -> tuple[Batch | None, str]:
    """(what is asked of the model, None for everything at once, and which part of the data that is, in words)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        batch = next(iter(task.batches(model, inputs)))
    if batch.inputs is None and not batch.query:
        return None, ""
    fanout = getattr(task, "fanout", None)
    if batch.inputs is None or fanout is None:
        return batch, ", in one batch"
    nodes = task.data.test[:SAMPLED]
    if node is not None:  # all of their neighbours, none left to chance
        nodes = torch.cat([torch.tensor([node]), nodes[nodes != node]])
    sampled = model.sampled(inputs, nodes, [-1] * len(fanout))
    return Batch(inputs=sampled[0], query=sampled[1]), f", for {len(nodes):,} nodes and all that they read"


def _ids(data: Any, target: str) -> dict[str, Sequence[object]]:
    """{node type: names} of the types whose nodes have names in the data."""
    if isinstance(known := getattr(data, "ids", None), dict):
        return known
    if entities := getattr(data, "entities", None):
        return {target: entities}
    places = getattr(data, "places", None)
    if places is None:
        return {}
    return {ntype: [places.names[k] if k >= 0 else "?" for k in of.tolist()] for ntype, of in places.of.items()}


def _node(text: str, target: str, sizes: dict[str, int], ids: dict[str, Sequence[object]]) -> tuple[str, int]:
    """(node type, number) that --node names; GraphError for one that does not exist."""
    ntype, _, rest = text.rpartition(":")
    if ntype in sizes:
        target, text = ntype, rest
    named = [k for k, name in enumerate(ids.get(target, ())) if str(name) == text]
    if len(named) == 1:
        return target, named[0]
    if not text.lstrip("-").isdigit():
        also = " or a name" if target in ids else ""
        raise GraphError(f"node: expected a number from 0 to {sizes[target] - 1}{also}, got {text!r}")
    tables.check_node([int(text)], sizes, target)
    return target, int(text)


def _typical(record: EdgeAttention, target: str, first: Tensor | None) -> int:
    """A node to show where none is named: the first of the test part, or of all, with three edges in one softmax."""
    choices = _choices(record, target)
    order = torch.arange(len(choices)) if first is None or first.dtype != torch.int64 else first
    order = order[order < len(choices)]
    for least in (LEAST_EDGES, 2, 1):
        for among in (order, torch.arange(len(choices))):
            enough = among[choices[among] >= least]
            if len(enough):
                return int(enough[0])
    raise GraphError(f"node: expected one with in-edges in {record.layer}, got none")


def _choices(record: EdgeAttention, target: str) -> Tensor:
    """[N], the edges in the largest softmax of each node, at the step that is shown (hgat.explain.pictures.latest)."""
    part = record.only(torch.tensor([etype[2] == target for etype in record.relations])[record.relation])
    size, count = torch.bincount(part.group)[part.group], int(part.dst.max()) + 1
    if part.step is not None:
        steps = int(part.step.max()) + 1
        key = part.dst * steps + part.step
        rank = torch.where(torch.bincount(key)[key] > 1, part.step + steps, part.step)
        shown = torch.zeros(count, dtype=rank.dtype).scatter_reduce(0, part.dst, rank, "amax")
        size = size * (rank == shown[part.dst])
    return torch.zeros(count, dtype=size.dtype).scatter_reduce(0, part.dst, size, "amax")


def _layers(explained: Explained) -> list[str]:
    """How widely every layer looks."""
    edges = explained.named
    if not edges:
        return []
    whole = all(map(tables.by_node, edges))
    counted = ("nodes", "in-edges") if whole else ("softmaxes", "edges each")
    rows: list[tuple[str, ...]] = [("layer", "heads", *counted, "in effect", "entropy", "heads apart")]
    for record in edges:
        own = tables.spread([record]).mean(numeric_only=True)
        apart = tables.heads_apart(record)
        heads = len(apart)
        between = f"{100 * float(apart.sum()) / (heads * (heads - 1)):.0f} %" if heads > 1 else "–"
        counts = [str(heads), f"{int(own.nodes):,}", f"{own.in_edges:.1f}", f"{own.effective:.1f}"]
        rows.append((record.layer or "model", *counts, f"{100 * own.of_uniform:.1f} %", between))
    of = "nodes with two in-edges" if whole else "softmaxes over two edges"
    lines = ["", *_aligned(rows), f"  of {of} or more; entropy: of uniform attention's"]
    explained.picture("spread", lambda path: pictures.draw_spread(edges, path, explained.found.recipe.title))
    if any(record.weight.shape[1] > 1 for record in edges):
        explained.picture("heads", lambda path: pictures.draw_heads(edges, path, explained.found.recipe.title))
    if any(record.step is not None for record in edges):
        explained.picture("over_time", lambda path: pictures.draw_over_time(edges, path, explained.found.recipe.title))
    return lines


def _relations(explained: Explained) -> list[str]:
    """The share of every relation, where there are several."""
    shares = [
        entry
        for entry in tables.by_relation(explained.named)
        if max(abs(ours - even) for ours, even in zip(entry.attention, entry.uniform, strict=True)) > SAME
    ]  # a relation with a softmax of its own has the same share whatever is learned
    if shares:
        explained.picture("relations", lambda path: plot.draw_shares(shares, path, explained.found.recipe.title))
    return _shares(shares)


def _axes(explained: Explained) -> list[str]:
    """The share of every place along an axis: views, hops, channels, events, moments."""
    table, shares = tables.axis_table(explained.attended.axes), []
    ordered = {record.layer: record.ordered for record in explained.attended.axes}
    for layer in dict.fromkeys(table.layer):
        part = table[table.layer == layer]
        if len(part) < 2:
            continue
        ours, even = (tuple(part[name].abs() / part[name].abs().sum()) for name in ("weight", "uniform"))
        title = "attention along an axis" + (f", {layer}" if layer else "")
        names, alike = tuple(part["name"]), "if all counted alike"
        shares.append(Shares(title, names, ours, even, even=alike, ordered=ordered[layer]))
    if shares:
        explained.picture("axes", lambda path: plot.draw_shares(shares, path, explained.found.recipe.title))
    model, inputs = explained.found.model, explained.found.inputs["test"]
    told = resting(model, lambda: model.attended(*inputs)) if not explained.part else []
    past = [entry for entry in told if isinstance(entry, Past)]
    if past:
        title, names = explained.found.recipe.title, explained.ids.get(explained.target)
        explained.picture("past", lambda path: plot.draw_past(past, path, title, names))
    return _shares(shares)


def _shares(shares: Sequence[Shares]) -> list[str]:
    """Tables of shares: those that differ most from uniform's come first, or stay in an order of their own."""
    lines = []
    for entry in shares:
        order = list(zip(entry.names, entry.attention, entry.uniform, strict=True))
        apart = [abs(ours - even) for _, ours, even in order]
        most = sorted(range(len(order)), key=apart.__getitem__, reverse=True)[:MOST_ROWS]
        rows = [(entry.title, "share", "uniform")]
        for k in sorted(most) if entry.ordered else most:
            rows.append((order[k][0], f"{100 * order[k][1]:.1f} %", f"{100 * order[k][2]:.1f} %"))
        lines += ["", *_aligned(rows)]
        if len(order) > MOST_ROWS:
            lines.append(f"  {len(order) - MOST_ROWS} smaller differences left out")
    return lines


def _neighbourhood(explained: Explained) -> list[str]:
    """What one node attends to."""
    node, target, ids = explained.node, explained.target, explained.ids
    if node is None:
        return []
    edges, last = explained.attended.edges, explained.last
    place = edges.index(last)
    found = pictures.latest(tables.neighbours(last, node, target, ids))
    rows = [("neighbour", "relation", "attention", "uniform")]
    for row in found[:MOST_ROWS].itertuples():
        rows.append((row.name, tables.called(row.relation), f"{row.weight:.4f}", f"{row.uniform:.4f}"))
    name = tables.name_of(ids, target, node)
    name = f"node {name}" if name == str(node) else name
    when = "" if last.step is None else f", step {found.step.iloc[0]}"
    lines = [
        "",
        f"{name}: the most attended of {len(found):,} in-edges in {explained.named[place].layer or 'the model'}{when}",
    ]
    lines += _aligned(rows)
    if found.uniform.nunique() > 1:
        lines.append("  in order of attention over uniform's; last are edges that are alone in their softmax")
    own = edges[: place + 1]
    title = f"{explained.found.recipe.title}: {name}"
    explained.picture(
        "neighbourhood", lambda path: pictures.draw_neighbourhood(own, node, path, title, ntype=target, ids=ids)
    )
    into = [record for record in explained.named if any(etype[2] == target for etype in record.relations)]
    every = tables.table(into, [node], ids or None)
    path = explained.out / "neighbourhood.csv"
    write_bytes(path, every[every.dst_type == target].to_csv(index=False).encode())
    explained.files.append(path)
    return lines


def _page(explained: Explained) -> list[str]:
    """The page, where it is asked for."""
    if explained.arguments.html is None:
        return []
    if explained.node is None:
        raise HgatError("explain: expected a model that attends over edges for --html, got one that does not")
    path, target = Path(explained.arguments.html), explained.target
    records = [r for r in explained.named if any(etype[2] == target for etype in r.relations)]
    test = getattr(explained.found.task.data, "test", None)
    nodes = [explained.node, *(test.tolist() if isinstance(test, Tensor) and test.dim() == 1 else [])]
    nodes += explained.last.dst.unique().tolist()
    edges, title = explained.attended.edges, explained.found.recipe.title
    own = edges[: edges.index(explained.last) + 1]
    first = pictures.first_relations(pictures.neighbourhood(own, explained.node, target)[0], (target, explained.node))
    count = write_page(records, nodes, path, title, ntype=target, ids=explained.ids, first=first)
    explained.files.append(path)
    return ["", f"the page offers {count:,} of {explained.sizes.get(target, count):,} nodes"]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table, the first column to the left."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            f"{cell:<{w}}" if not k else f"{cell:>{w}}" for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


# What is printed, in this order; each takes an Explained and gives lines.
SECTIONS: list[Callable[[Explained], list[str]]] = [_layers, _relations, _axes, _neighbourhood, _page]
