"""Graphs of other libraries, PyTorch Geometric, NetworkX and pandas, as DGLGraphs, and back.

Nodes without an edge stay, whatever their number, and edges keep their order. Columns keep their names but for those
that each library calls in its own way.
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import dgl
import networkx
import numpy as np
import pandas
import torch
from torch import Tensor

from hgat.errors import GraphError, brief
from hgat.graph.csr import check_graph
from hgat.graph.events import _numbers as plain
from hgat.graph.events import _seconds

__all__ = ["from_networkx", "from_pandas", "from_pyg", "to_networkx", "to_pandas", "to_pyg"]

EType = tuple[str, str, str]
PLAIN = ("_N", "_E", "_N")
NODES = {"x": "feat", "y": "label"}  # PyG's names of columns, and DGL's
EDGES = {"edge_attr": "feat"}
COUNTED = ("x", "feat", "pos", "batch", "node_type", "n_id")  # by which PyG counts nodes
ID = "eid"  # the attribute of NetworkX's edges that is their place

WIDE = re.compile(r"(.+)\.(\d+)")  # how tables call the numbers of one column


# ---- PyTorch Geometric ----


def from_pyg(data: Any) -> dgl.DGLGraph:
    """A DGLGraph of PyG's Data, or, with its types, of HeteroData.

    x and edge_attr become the column "feat" of nodes and of edges, y "label"; edge_weight becomes "weight", and so do
    others whose name begins with edge_; all other tensors keep their names. Of Data, those whose name begins otherwise
    are columns of the nodes where there are as many rows, else of the edges. Nodes are as many as num_nodes says; else
    as x has rows, else y and masks, else another column, of Data one that has not as many rows as there are edges; else
    as the largest number in an edge says, plus one.
    Raises GraphError for other objects, and for an attribute that is no column of nodes or edges.
    """
    pyg = _pyg()
    if not isinstance(data, (pyg.Data, pyg.HeteroData)):
        raise GraphError(f"from_pyg: expected a Data or HeteroData of torch_geometric, got {brief(data)}")
    typed = isinstance(data, pyg.HeteroData)
    stores = dict(zip(data.edge_types, data.edge_stores, strict=True)) if typed else {PLAIN: data._store}
    ends = {etype: _ends(etype, store) for etype, store in stores.items()}
    nodes = dict(zip(data.node_types, data.node_stores, strict=True)) if typed else {"_N": data._store}
    for etype in ends:
        for ntype in (etype[0], etype[2]):
            nodes.setdefault(ntype, {})
    sizes = {ntype: _count(ntype, store, ends, typed) for ntype, store in nodes.items()}
    columns: dict[Any, dict[str, Tensor]] = {place: {} for place in [*nodes, *ends]}
    if typed and len(data._global_store):
        raise _whole("from_pyg", next(iter(data._global_store)))
    for place, store in [*nodes.items(), *(stores.items() if typed else ())]:
        for key, value in store.items():
            if key in ("edge_index", "num_nodes"):
                continue
            if not isinstance(value, Tensor) or not value.dim():
                raise _whole("from_pyg", key)
            at = place if typed else _place(key, len(value), sizes["_N"], len(ends[PLAIN][0]))
            name = _named(at, key)
            if name in columns[at]:
                raise GraphError(
                    f"from_pyg: expected one attribute for the column {name!r}, got {key!r} beside another"
                )
            columns[at][name] = value
    return _built("from_pyg", ends, sizes, columns)


def _whole(where, key):
    return GraphError(
        f"{where}: expected tensors with a row for every node or edge, got {key!r}, which is none; leave it out before"
    )


def _named(place, key):
    """What an attribute of PyG is called as a column of nodes or edges."""
    return EDGES.get(key, key.removeprefix("edge_")) if isinstance(place, tuple) else NODES.get(key, key)


def _place(key, rows, nodes, edges):
    if not key.startswith("edge_") and rows == nodes:
        return "_N"
    if rows == edges:
        return PLAIN
    raise _whole("from_pyg", key)


def _ends(etype, store):
    index = store.get("edge_index") if hasattr(store, "get") else None
    if index is None and "edge_index" in store:
        index = store["edge_index"]
    if index is None:
        other = next((key for key in ("adj_t", "adj") if key in store), None)
        if other is not None:
            raise GraphError(f"from_pyg: expected edges of {etype[1]!r} in edge_index, got {other}")
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    if not isinstance(index, Tensor) or index.dim() != 2 or len(index) != 2 or index.is_floating_point():
        got = list(index.shape) if isinstance(index, Tensor) else brief(index)
        raise GraphError(f"from_pyg: expected edge_index [2, E] of whole numbers for {etype[1]!r}, got {got}")
    return index[0].long().cpu(), index[1].long().cpu()


def _count(ntype, store, ends, typed):
    """How many nodes a type has."""
    if "num_nodes" in store:
        return int(store["num_nodes"])
    found = [end for etype, pair in ends.items() for of, end in zip(etype[::2], pair, strict=True) if of == ntype]
    least = max((int(end.max()) + 1 for end in found if end.numel()), default=0)
    rows = {key: len(value) for key, value in store.items() if isinstance(value, Tensor) and value.dim()}
    for key in sorted(rows, key=_rank):
        # Of Data's other attributes, some may be of edges, or of the whole graph.
        if typed or _rank(key) == 0:
            return rows[key]
        if not key.startswith("edge_") and rows[key] >= least and (_rank(key) == 1 or rows[key] != len(found[0])):
            return rows[key]
    return least


def _rank(key):
    """How surely an attribute has a row for every node: 0, features and what PyG counts by; 1, labels and masks."""
    return 0 if key in COUNTED else 1 if key == "y" or key.endswith("_mask") and not key.startswith("edge_") else 2


def to_pyg(graph: dgl.DGLGraph) -> Any:
    """PyG's Data of a DGLGraph, or HeteroData where its node or edge types have names; the inverse of `from_pyg`.

    Columns of edges but "feat", which is edge_attr, get edge_ before their names. Raises GraphError for a block, and
    for a column that would come back under another name or in another place.
    """
    pyg = _pyg()
    _check("to_pyg", graph)
    typed = (graph.ntypes, graph.canonical_etypes) != (["_N"], [PLAIN])
    data = pyg.HeteroData() if typed else pyg.Data()
    back = {name: key for key, name in NODES.items()}
    for ntype in graph.ntypes:
        store = data[ntype] if typed else data._store  # Data itself takes no name that begins with _
        store["num_nodes"] = graph.num_nodes(ntype)
        for key, value in graph.nodes[ntype].data.items():
            _put(store, ntype, key, back.get(key, key), value, moved=not typed and key.startswith("edge_"))
    for etype in graph.canonical_etypes:
        store = data[etype] if typed else data._store
        store["edge_index"] = torch.stack([end.long() for end in graph.edges(etype=etype, order="eid")])
        for key, value in graph.edges[etype].data.items():
            _put(store, etype, key, "edge_attr" if key == "feat" else f"edge_{key}", value)
    return data


def _put(store, place, key, name, value, moved=False):
    """A column of nodes or edges, under PyG's name for it."""
    if moved or name in (*store, "edge_index") or _named(place, name) != key:
        what = f"edges of {place[1]!r}" if isinstance(place, tuple) else f"{place!r} nodes"
        raise GraphError(f"to_pyg: expected columns whose names come back, got {key!r} of {what}; call it otherwise")
    store[name] = value


def _pyg():
    try:
        from torch_geometric import data
    except ImportError:
        raise GraphError("torch_geometric: expected the package, got none; pip install torch_geometric") from None
    return data


# ---- NetworkX ----


def from_networkx(
    graph: networkx.Graph,
    *,
    node_type: str = "ntype",
    edge_type: str = "etype",
    node_attrs: Sequence[str] | None = None,
    edge_attrs: Sequence[str] | None = None,
) -> tuple[dgl.DGLGraph, dict[str, tuple]]:
    """(DGLGraph, {node type: names of its nodes, in their order}) of a graph of NetworkX.

    node_type, edge_type: the attributes that say of what type a node or an edge is, where any has them. node_attrs,
    edge_attrs: those that become columns, numbers or arrays of one shape; None, all others. The time of an edge, its
    attribute "time", may be a date, which becomes seconds since 1970. An edge without a direction becomes two, a loop
    one. Edges keep NetworkX's order, or, of a graph that `to_networkx` made, that of their attribute "eid".
    Raises GraphError for an attribute that some have and others lack, or that makes no column of numbers.
    """
    if not isinstance(graph, networkx.Graph):
        raise GraphError(f"from_networkx: expected a graph of NetworkX, got {brief(graph)}")
    types = _types("node", graph.nodes.items(), node_type, "_N")
    of = {node: ntype for (node, _), ntype in zip(graph.nodes.items(), types, strict=True)}
    nodes: dict[str, list] = {str(ntype): [] for ntype in graph.graph.get("ntypes", ())}
    number: dict[Hashable, int] = {}
    rows: dict[str, list] = {}
    for node, attributes in graph.nodes.items():
        members = nodes.setdefault(of[node], [])
        number[node] = len(members)
        members.append(node)
        rows.setdefault(of[node], []).append((node, attributes))
    listed = [((u, v), attributes) for u, v, attributes in graph.edges(data=True)]
    types = _types("edge", listed, edge_type, "_E")
    ours = graph.graph.get("order") == ID  # others may call something else so
    if ours and all(ID in attributes for _, attributes in listed):
        order = sorted(range(len(listed)), key=lambda k: listed[k][1][ID])
        listed, types = [listed[k] for k in order], [types[k] for k in order]
    of_type: dict[Any, list] = {_canonical(etype): [] for etype in graph.graph.get("etypes", ())}
    for ((u, v), attributes), name in zip(listed, types, strict=True):
        both = not graph.is_directed() and u != v
        for src, dst in ((u, v), (v, u)) if both else ((u, v),):
            of_type.setdefault((of[src], name, of[dst]), []).append(((src, dst), attributes))
    if not of_type:  # a graph without edges has a relation all the same
        for ntype in nodes or {"_N": []}:
            of_type[ntype, "_E", ntype] = []
    ends, columns = {}, {}
    for etype, edges in of_type.items():
        ends[etype] = tuple(torch.tensor([number[pair[k]] for pair, _ in edges], dtype=torch.int64) for k in (0, 1))
        columns[etype] = _columns("edges", etype, edges, edge_attrs, {edge_type, ID} if ours else {edge_type})
    for ntype, found in rows.items():
        columns[ntype] = _columns("nodes", ntype, found, node_attrs, {node_type})
    sizes = {ntype: len(members) for ntype, members in nodes.items()}
    built = _built("from_networkx", ends, sizes, columns)
    return built, {ntype: tuple(nodes.get(ntype, ())) for ntype in built.ntypes}


def _types(what, items, attribute, usual):
    found = [attributes.get(attribute) for _, attributes in items]
    if all(kind is None for kind in found):
        return [usual] * len(found)
    if None in found:
        got = next(name for (name, _), kind in zip(items, found, strict=True) if kind is None)
        raise GraphError(f"from_networkx: expected {attribute!r} of every {what}, got none of {got!r}")
    return [str(kind) for kind in found]


def _canonical(etype):
    if not isinstance(etype, (tuple, list)) or len(etype) != 3:
        raise GraphError(f"from_networkx: expected graph['etypes'] of (source, name, destination), got {brief(etype)}")
    return tuple(map(str, etype))


def _columns(what, place, rows, wanted, not_columns):
    """{name: column} of nodes or edges and their attributes."""
    where = f"from_networkx: {what} of {place[1] if isinstance(place, tuple) else place!r}"
    names: Iterable[Hashable] = wanted if wanted is not None else dict.fromkeys(k for _, row in rows for k in row)
    found = {}
    for name in names:
        if name in not_columns:
            continue
        lacking = [key for key, row in rows if name not in row]
        if lacking:
            raise GraphError(f"{where}: expected the attribute {name!r} of all, got none of {lacking[0]!r}")
        found[str(name)] = _stacked(f"{where}: {name!r}", [row[name] for _, row in rows])
    return found


def _stacked(where, values):
    if all(isinstance(value, Tensor) for value in values):
        if len({value.shape for value in values}) == 1:
            return torch.stack([value.detach().cpu() for value in values])
        raise GraphError(f"{where}: expected tensors of one shape, got others")
    try:
        return _numbers(where, np.asarray(values))
    except ValueError:
        raise GraphError(f"{where}: expected numbers or arrays of one shape, got others") from None


def _numbers(where, array):
    """A column of numbers, or of dates as seconds, as a tensor."""
    array = plain(where, array)
    if array.dtype.kind in "mM":
        array = _seconds(where, array)
    if array.dtype.kind not in "biuf":
        raise GraphError(f"{where}: expected numbers, got {'text' if array.dtype.kind in 'US' else array.dtype}")
    return torch.from_numpy(np.array(array))


def to_networkx(graph: dgl.DGLGraph, ids: Mapping[str, Sequence[Hashable]] | None = None) -> networkx.MultiDiGraph:
    """A MultiDiGraph of a DGLGraph; the inverse of `from_networkx`.

    Nodes are called by their numbers, (type, number) where there are several node types, or as ids says. The columns of
    nodes and edges are their attributes, tensors, beside "ntype" and "etype", and "eid", the place of an edge. A column
    of a type without nodes or without edges has nowhere to stand and is left out.
    Raises GraphError for a block, for columns that have one of these three names, and for ids that are not one
    different name for each node.
    """
    _check("to_networkx", graph)
    found = networkx.MultiDiGraph(ntypes=list(graph.ntypes), etypes=list(graph.canonical_etypes), order=ID)
    names: dict[str, list] = {}
    for ntype in graph.ntypes:
        count = range(graph.num_nodes(ntype))
        names[ntype] = list(count) if len(graph.ntypes) == 1 else [(ntype, k) for k in count]
        if ids is not None:
            names[ntype] = list(ids.get(ntype, ()))
        if len(names[ntype]) != len(count):
            raise GraphError(f"ids: expected {len(count)} names of {ntype!r} nodes, got {len(names[ntype])}")
        columns = _free("nodes", graph.nodes[ntype].data, ("ntype",))
        for k, name in enumerate(names[ntype]):
            found.add_nodes_from([(name, {"ntype": ntype, **{key: column[k] for key, column in columns.items()}})])
    if len(found) != graph.num_nodes():
        raise GraphError(f"ids: expected a name of its own for each of {graph.num_nodes()} nodes, got {len(found)}")
    place = 0
    for etype in graph.canonical_etypes:
        columns = _free("edges", graph.edges[etype].data, ("etype", ID))
        pairs = zip(*(end.tolist() for end in graph.edges(etype=etype, order="eid")), strict=True)
        for k, (src, dst) in enumerate(pairs):
            more = {key: column[k] for key, column in columns.items()}
            found.add_edges_from([(names[etype[0]][src], names[etype[2]][dst], {"etype": etype[1], ID: place, **more})])
            place += 1
    return found


def _free(what, columns, taken):
    for key in taken:
        if key in columns:
            raise GraphError(f"to_networkx: expected columns of {what} with other names than {key!r}, got that one")
    return columns


# ---- pandas ----


def from_pandas(
    nodes: Any, edges: Any, *, id: str = "id", src: str = "src", dst: str = "dst"
) -> tuple[dgl.DGLGraph, dict[str, tuple]]:
    """(DGLGraph, {node type: ids of its nodes, in their order}) of tables, as data frames of pandas.

    nodes: {node type: table with a row for every node}, or one table; id: its column of names, numbers or text. A type
    without a table has the nodes that its edges name, sorted. edges: {(source type, name, destination type): table with
    a row for every edge}, or one table; src, dst: its columns of ids. All other columns become columns of the graph:
    numbers, truth values, and dates, as seconds since 1970; "feat.0", "feat.1", ... become one column "feat" [N, F].
    Raises GraphError for a column that is missing or is text, ids that are missing or there twice, and edges with ids
    that no node has.
    """
    tables = {"_N": nodes} if isinstance(nodes, pandas.DataFrame) else nodes
    links = {PLAIN: edges} if isinstance(edges, pandas.DataFrame) else edges
    for what, found in (("nodes", tables), ("edges", links)):
        if not isinstance(found, Mapping) or not all(isinstance(t, pandas.DataFrame) for t in found.values()):
            raise GraphError(f"{what}: expected a data frame or a dict of them, got {brief(found)}")
    for etype in links:
        if not isinstance(etype, tuple) or len(etype) != 3:
            raise GraphError(f"edges: expected (source type, name, destination type), got {etype!r}")
    named, columns = {}, {}
    for ntype, table in tables.items():
        where = f"nodes of {ntype!r}"
        names = _column(where, table, id)
        if names.isna().any():
            raise GraphError(f"{where}: expected an id in every row, got none in row {int(names.isna().argmax())}")
        if names.duplicated().any():
            got = names[names.duplicated()].iloc[0]
            raise GraphError(f"{where}: expected each id once, got {got!r} twice")
        named[ntype], columns[ntype] = pandas.Index(names), _of_table(where, table, {id})
    for ntype in dict.fromkeys(t for etype in links for t in (etype[0], etype[2]) if t not in named):
        named[ntype] = _from_edges(ntype, links, src, dst)
    ends = {}
    for etype, table in links.items():
        where = f"edges of {etype[1]!r}"
        ends[etype] = tuple(
            _place_of(where, table, name, ntype, named[ntype]) for name, ntype in ((src, etype[0]), (dst, etype[2]))
        )
        columns[etype] = _of_table(where, table, {src, dst})
    sizes = {ntype: len(names) for ntype, names in named.items()}
    ends = ends or {(ntype, "_E", ntype): (torch.empty(0).long(), torch.empty(0).long()) for ntype in sizes}
    built = _built("from_pandas", ends, sizes, columns)
    return built, {ntype: tuple(names.tolist()) for ntype, names in named.items()}


def _column(where, table, name):
    if name not in table.columns:
        known = ", ".join(map(str, table.columns)) or "none"
        raise GraphError(f"{where}: expected the column {name!r}, got {known}")
    return table[name]


def _from_edges(ntype, links, src, dst):
    """The ids that edges name, of a type without a table."""
    found = []
    for etype, table in links.items():
        for name, of in ((src, etype[0]), (dst, etype[2])):
            if of == ntype:
                found.append(_column(f"edges of {etype[1]!r}", table, name))
    names = pandas.concat(found).dropna().unique()
    try:
        return pandas.Index(names).sort_values()
    except TypeError:
        raise GraphError(f"edges: expected ids of {ntype!r} nodes of one kind, got numbers beside text") from None


def _place_of(where, table, name, ntype, names):
    """The numbers of the nodes in one column of edges."""
    column = _column(where, table, name)
    place = names.get_indexer(column)
    if (place < 0).any():
        got = column.iloc[int((place < 0).argmax())]
        raise GraphError(f"{where}: expected ids of {ntype!r} nodes in the column {name!r}, got {got!r}")
    return torch.from_numpy(place.astype(np.int64))


def _of_table(where, table, not_columns):
    """{name: column} of a table: "feat.0" and its followers side by side."""
    found, wide = {}, {}
    for name in table.columns:
        if name in not_columns:
            continue
        series, parts = table[name], WIDE.fullmatch(str(name))
        if isinstance(series, pandas.DataFrame):
            raise GraphError(f"{where}: expected one column {name!r}, got {series.shape[1]}")
        column = _numbers(f"{where}: the column {name!r}", _array(series))
        if parts:
            wide.setdefault(parts[1], {})[int(parts[2])] = column
        else:
            found[str(name)] = column
    for name, columns in wide.items():
        if name in found or sorted(columns) != list(range(len(columns))):
            expected = f"{name}.0 to {name}.{len(columns) - 1}"
            raise GraphError(f"{where}: expected the columns {expected}, got {sorted(columns)}")
        found[name] = torch.stack([columns[k] for k in range(len(columns))], 1)
    return found


def _array(series):
    """A column as NumPy has it; what pandas calls missing is NaN."""
    if isinstance(series.dtype, pandas.DatetimeTZDtype):
        return series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    if series.dtype == object or not pandas.api.types.is_numeric_dtype(series.dtype):
        return series.to_numpy() if series.dtype.kind in "mM" else np.asarray(series.astype(object), dtype=object)
    if series.hasnans and series.dtype.kind != "f":
        return series.astype("float64").to_numpy()
    return series.to_numpy(dtype=getattr(series.dtype, "numpy_dtype", series.dtype))


def to_pandas(
    graph: dgl.DGLGraph, ids: Mapping[str, Sequence] | None = None
) -> tuple[dict[str, pandas.DataFrame], dict[EType, pandas.DataFrame]]:
    """({node type: table}, {relation: table}) of a DGLGraph; the inverse of `from_pandas`.

    ids: what the nodes are called, else their numbers. A column [N, F] becomes the columns "name.0", "name.1", ...
    Raises GraphError for a block, for ids that are not one for each node, for columns of more dimensions or of a type
    that NumPy has not, and for names that would not come back: "id", "src" and "dst", and "name.0" of [N].
    """
    _check("to_pandas", graph)
    nodes, edges = {}, {}
    for ntype in graph.ntypes:
        names = range(graph.num_nodes(ntype)) if ids is None else ids.get(ntype, ())
        if len(names) != graph.num_nodes(ntype):
            raise GraphError(f"ids: expected {graph.num_nodes(ntype)} names of {ntype!r} nodes, got {len(names)}")
        nodes[ntype] = _table({"id": pandas.Series(names)}, graph.nodes[ntype].data)
    for etype in graph.canonical_etypes:
        ends = {
            name: nodes[ntype]["id"].to_numpy()[end.long().numpy()]
            for name, ntype, end in zip(
                ("src", "dst"), (etype[0], etype[2]), graph.edges(etype=etype, order="eid"), strict=True
            )
        }
        edges[etype] = _table(ends, graph.edges[etype].data)
    return nodes, edges


def _table(first, columns):
    found = dict(first)
    for name, column in columns.items():
        if column.dtype == torch.bfloat16:
            raise GraphError(f"to_pandas: expected numbers of a type that NumPy has, got bfloat16 in {name!r}")
        rows = column.detach().cpu().numpy()
        if rows.ndim > 2 or rows.ndim == 2 and not rows.shape[1]:
            raise GraphError(f"to_pandas: expected columns [N] or [N, F], got {list(rows.shape)} in {name!r}")
        if rows.ndim == 1 and WIDE.fullmatch(name):
            raise GraphError(f"to_pandas: expected columns whose names come back, got {name!r}; call it otherwise")
        wide = {name: rows} if rows.ndim == 1 else {f"{name}.{k}": rows[:, k] for k in range(rows.shape[1])}
        taken = [key for key in wide if key in found]
        if taken:
            raise GraphError(f"to_pandas: expected columns with names of their own, got {taken[0]!r} twice")
        found |= wide
    return pandas.DataFrame(found)


# ---- all of them ----


def _check(where, graph):
    check_graph(graph)
    if graph.is_block:
        raise GraphError(f"{where}: expected a graph, got a block, whose sources and destinations are other rows")


def _built(where, ends, sizes, columns):
    """The DGLGraph of {relation: (src, dst)}, {node type: nodes} and {type or relation: its columns}."""
    for etype, pair in ends.items():
        for ntype, end in zip(etype[::2], pair, strict=True):
            if end.numel() and not 0 <= int(end.min()) <= int(end.max()) < sizes[ntype]:
                wrong = end[(end < 0) | (end >= sizes[ntype])]
                expected = f"ids of {ntype!r} nodes from 0 to {sizes[ntype] - 1} in {etype[1]!r}"
                raise GraphError(f"{where}: expected {expected}, got {int(wrong[0])}")
    try:
        graph = dgl.heterograph(ends, sizes)
        for place, found in columns.items():
            frame = graph.edges[place].data if isinstance(place, tuple) else graph.nodes[place].data
            for name, column in found.items():
                frame[name] = column
    except dgl.DGLError as error:
        raise GraphError(f"{where}: expected a column with a row for each, got: {error}") from None
    return graph
