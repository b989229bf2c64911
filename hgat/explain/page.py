"""One HTML page of a run, readable without internet: pick a node, see what it attends to, hover an edge.

Bokeh comes with `pip install "hgat[explain]"` and is imported only when a page is written.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hgat.errors import GraphError, HgatError, OutputError
from hgat.explain.edges import EdgeAttention
from hgat.explain.pictures import INK, OTHER, palette
from hgat.explain.tables import Ids, called, name_of, neighbours
from hgat.files import reason, write_bytes

__all__ = ["check_page", "write_page"]

MISSING = 'explain: expected Bokeh for a page, got none; pip install "hgat[explain]"'

MOST_NEIGHBOURS = 40  # names around a node
MOST_NODES = 200  # to choose among

# The place of a node's neighbours: a circle, most attended on top and then clockwise.
PICK = """
const [first, end, left] = spans[nodes.options.indexOf(nodes.value)][layers.active]
const count = end - first, found = {}
for (const key of Object.keys(every.data)) found[key] = every.data[key].slice(first, end)
const angle = [...Array(count).keys()].map(k => Math.PI / 2 - 2 * Math.PI * k / Math.max(count, 1))
const x = angle.map(Math.cos), y = angle.map(Math.sin)
const most = Math.max(...found.weight.map(Math.abs), 1e-30)
edges.data = {...found, xs: x.map(end => [end, 0]), ys: y.map(end => [end, 0]),
    width: found.weight.map(w => 1 + 9 * Math.abs(w) / most), to: found.name.map(_ => nodes.value)}
around.data = {x, y, name: found.name, label: found.label, colour: found.colour,
    angle: angle.map(a => Math.cos(a) < -1e-9 ? a + Math.PI : a),
    align: angle.map(a => Math.cos(a) < -1e-9 ? "right" : "left"),
    shift: angle.map(a => Math.cos(a) < -1e-9 ? -9 : 9)}
centre.data = {x: [0], y: [0], name: [nodes.value]}
note.text = (count ? "" : "no in-edges in this layer") + (left ? left + " less attended neighbours are left out" : "")
"""
GO = """
const [place] = around.selected.indices
around.selected.indices = []
if (place !== undefined && nodes.options.includes(around.data.name[place])) nodes.value = around.data.name[place]
"""


def check_page(path: str | Path, later: str | Path) -> None:
    """Refuse a page that could not be written, before anything is run; later: a folder that is yet to be made.

    Raises HgatError where Bokeh is missing, OutputError for a file that cannot be written.
    """
    path, later = Path(path), Path(later)
    try:
        importlib.import_module("bokeh")
    except ImportError:
        raise HgatError(MISSING) from None
    if path.is_dir():
        raise OutputError(f"--html: expected a file, got the folder {path}")
    if path.parent.resolve() == later.resolve() and not later.exists():
        return
    probe = path.with_name(f".{path.name}.part")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"--html: expected a file that can be written, got {path}: {reason(error)}") from None


def write_page(
    records: Sequence[EdgeAttention],
    nodes: Sequence[int],
    path: str | Path,
    title: str = "",
    *,
    ntype: str = "_N",
    ids: Ids | None = None,
    first: Sequence[str] = (),
) -> int:
    """Write a self-contained HTML page in which a reader picks one of `nodes` and a layer; gives how many it offers.

    A line is an edge, as wide as its attention and coloured by relation; hovering shows its weights, head by head,
    and uniform's. A click on a neighbour that is offered goes there. The page offers at most 200 nodes of type ntype
    that have in-edges in the last layer, the first of `nodes` first, each with its 40 most attended neighbours.
    first: relations that have the first colours, by default those that are attended to most.
    Raises HgatError where Bokeh is missing, GraphError where no node has in-edges, OutputError for a file that cannot
    be written.
    """
    try:
        from bokeh.document import Document
        from bokeh.embed import file_html
        from bokeh.events import DocumentReady
        from bokeh.layouts import column, row
        from bokeh.models import ColumnDataSource, CustomJS, Div, HoverTool, RadioButtonGroup, Select, TapTool
        from bokeh.plotting import figure
        from bokeh.resources import Resources
    except ImportError:
        raise HgatError(MISSING) from None
    picked, rows, spans, colours = _rows(records, nodes, ntype, ids, first)
    every, edges, around, centre = ColumnDataSource(rows), *(ColumnDataSource() for _ in range(3))
    names = [name_of(ids, ntype, node) for node in picked]
    names = [f"{name} ({node})" if names.count(name) > 1 else name for name, node in zip(names, picked, strict=True)]
    choice = Select(title="node", options=names, value=names[0], width=260, name="node")
    layers = RadioButtonGroup(labels=[record.layer or "model" for record in records], active=len(records) - 1)
    plot = figure(
        width=760,
        height=760,
        x_range=(-1.5, 1.5),
        y_range=(-1.5, 1.5),
        tools="pan,wheel_zoom,reset,save",
        toolbar_location="below",
        name="plot",
        output_backend="canvas",
    )
    plot.axis.visible = plot.grid.visible = False
    for source, columns in (
        (edges, [*rows, "xs", "ys", "width", "to"]),
        (around, ["x", "y", "name", "label", "colour", "angle", "align", "shift"]),
        (centre, ["x", "y", "name"]),
    ):
        source.data = {name: [] for name in columns}
    lines = plot.multi_line("xs", "ys", line_width="width", line_color="colour", line_alpha=0.75, source=edges)
    lines.hover_glyph = lines.glyph.clone(line_alpha=1.0, line_color=INK)
    dots = plot.scatter("x", "y", size=13, fill_color="white", line_color=INK, source=around)
    plot.text("x", "y", "label", angle="angle", text_align="align", x_offset="shift", text_baseline="middle",
              text_font_size="12px", text_color=INK, source=around)  # fmt: skip
    plot.scatter("x", "y", size=19, fill_color=INK, line_color=INK, source=centre)
    plot.text("x", "y", "name", y_offset=-16, text_align="center", text_font_size="16px", text_font_style="bold",
              text_color=INK, background_fill_color="white", background_fill_alpha=0.7, source=centre)  # fmt: skip
    shown = [("from", "@name"), ("to", "@to"), ("relation", "@relation"), ("step", "@step"), ("attention", "@told"),
             ("uniform", "@uniform{0.0000}"), ("head by head", "@heads")]  # fmt: skip
    if all(record.step is None for record in records):
        shown = [entry for entry in shown if entry[0] != "step"]
    plot.add_tools(HoverTool(renderers=[lines], tooltips=shown, line_policy="interp"), TapTool(renderers=[dots]))
    legend = "".join(
        f'<span style="color:{colour}">&#9632;</span> {_safe(called(name))}<br>' for name, colour in colours
    )
    note = Div(text="", width=260)
    given = {"nodes": choice, "layers": layers, "every": every, "edges": edges, "around": around, "centre": centre}
    pick = CustomJS(args={**given, "note": note, "spans": spans}, code=PICK)
    choice.js_on_change("value", pick)
    layers.js_on_change("active", pick)
    around.selected.js_on_change("indices", CustomJS(args=given, code=GO))
    about = Div(width=260, text=f"Lines are as wide as the attention; heads averaged.<br>{legend}")
    head = Div(text=f"<h2>{_safe(title)}</h2>")
    document = Document(title=title or "attention")
    document.add_root(column(head, row(column(choice, layers, note, about), plot)))
    document.js_on_event(DocumentReady, pick)
    write_bytes(Path(path), file_html(document, Resources(mode="inline"), title or "attention").encode())
    return len(picked)


def _safe(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _rows(records, nodes, ntype, ids, first):
    """(the nodes on offer, columns of all their edges, [first, end, left out] by node and layer, colours)."""
    if not records:
        raise HgatError("explain: expected attention over edges for a page, got none")
    wanted = torch.tensor(list(dict.fromkeys(nodes)))
    parts = []
    for record in records:
        ends = torch.tensor([etype[2] == ntype for etype in record.relations])[record.relation]
        parts.append(record.only(torch.isin(record.dst, wanted) & ends))
    last = set(parts[-1].dst.tolist())
    picked = [node for node in wanted.tolist() if node in last][:MOST_NODES]
    if not picked:
        raise GraphError(f"node: expected one with in-edges in {records[-1].layer or 'the model'}, got none")
    found, spans, count = [], [], 0
    for node in picked:
        own = []
        for part in parts:
            try:
                rows = neighbours(part, node, ntype, ids, heads=MOST_NEIGHBOURS)
            except GraphError:
                own.append([count, count, 0])
                continue
            kept = rows[:MOST_NEIGHBOURS]
            own.append([count, count + len(kept), len(rows) - len(kept)])
            count += len(kept)
            found.append(kept)
        spans.append(own)
    rows = pd.concat(found, ignore_index=True)
    spent = rows.weight.abs().groupby(rows.relation).sum().sort_values(ascending=False, kind="stable")
    colours = palette(list(dict.fromkeys([*first, *spent.index])))
    colour = {name: shade for name, shade in colours.items() if name in spent.index}
    legend = [(name, shade) for name, shade in colour.items() if shade != OTHER]
    legend += [("other relations", OTHER)] if len(legend) < len(colour) else []
    columns: dict[str, Any] = {name: rows[name].tolist() for name in ("name", "step", "weight", "uniform", "heads")}
    columns["relation"] = [called(name) for name in rows.relation]
    columns["told"] = [f"{weight:.4f}" for weight in rows.weight]
    columns["label"] = [name if len(name) <= 22 else f"{name[:21]}…" for name in columns["name"]]
    columns["colour"] = [colour[name] for name in rows.relation]
    return picked, columns, spans, legend
