"""Data of one's own: a graph, labels and a split become NodeData; a graph with times becomes EventData."""

from collections.abc import Mapping, Sequence
from typing import Any

import dgl
import networkx
import numpy as np
import pandas
import torch
from torch import Tensor

from hgat.data.sets import PARTS, EventData, NodeData
from hgat.data.split import class_counts, shares
from hgat.errors import DataError, GraphError, brief
from hgat.graph import from_networkx, from_pandas, from_pyg
from hgat.graph.events import TIME, event_times

__all__ = ["event_data", "node_data", "own_graph"]

SHARES = (0.6, 0.2, 0.2)
KEPT = (TIME, "step")  # columns of edges that tasks know
Split = Mapping[str, Any] | Sequence[float] | None


def node_data(
    graph: Any,
    label: Any = None,
    *,
    feat: Any = None,
    target: str | None = None,
    split: Split = None,
    split_seed: int = 0,
    draws: int = 10,
    class_names: Sequence[str] | None = None,
    name: str = "own",
) -> NodeData:
    """NodeData of a graph of one's own, for the tasks nodes and numbers.

    graph: a DGLGraph; PyG's Data or HeteroData; a graph of NetworkX; (src, dst), two arrays of node ids [E]; or (nodes,
    edges), tables as hgat.graph.from_pandas takes them, whose other columns of numbers are the features. Nodes without
    edges stay: there are as many as the graph has, or, of arrays, as there are labels.
    label: [N], whole numbers or texts, the class of each node of the type `target`; [N, C], zeros and ones, several
    classes; [N] floats, numbers to predict. A negative number, NaN or None stands for an unlabelled node. Or the name
    of a column of the graph's ndata that has it. None: no labels, which the task links needs none of.
    feat: features [N, F] of the target type, {node type: [N, F] or None}, or the name of a column of ndata; None, the
    column "feat" of every node type that has one.
    split: {"train", "val", "test"}: ids [K] or masks [N]; or masks [N, S], S splits, of which seed k takes number k; or
    three shares, as in (0.6, 0.2, 0.2), drawn at random with all classes alike, `draws` times by split_seed and on.
    None: the masks train_mask, val_mask and test_mask of ndata where they are there, else those shares.
    class_names: of the classes; by default the texts, or the numbers.
    Of the columns of edges the times are kept, and "feat" of a graph of one relation is edge_feat; notes name others.
    Raises DataError for what does not fit.
    """
    ids: Mapping[str, Sequence] = {}
    if _are_tables(graph):
        graph, label, target, ids = _of_tables(graph[0], graph[1], label, target)
    elif isinstance(graph, networkx.Graph):
        graph, label, target, ids = _of_networkx(graph, label, target)
    names_of = {t: tuple(map(str, names)) for t, names in ids.items() if list(names) != list(range(len(names)))}
    graph, frames, of_edges = own_graph(graph, label, feat)
    edge_feat = _edge_features(of_edges)
    target = _target(graph, frames, label, target)
    found = frames[target].get(label) if isinstance(label, str) else label
    if isinstance(label, str) and found is None:
        raise DataError(f"label: expected a column of ndata of {target!r}, {_known(frames[target])}, got {label!r}")
    nodes = graph.num_nodes(target)
    if found is None:
        found = torch.zeros(nodes, dtype=torch.int64)
        split = {part: [k] for k, part in enumerate(PARTS)} if split is None else split  # nothing reads them
    rows, numeric, names = _labels(found, nodes)
    multilabel = rows.dim() == 2
    classes = 1 if numeric else rows.shape[1] if multilabel else max(len(names), int(rows.max()) + 1 if nodes else 0)
    names = tuple(map(str, class_names)) if class_names is not None else names
    if numeric and not names:
        names = (str(label if isinstance(label, str) else getattr(label, "name", None) or "number"),)
    splits, notes = _splits(split, frames[target], rows, numeric, split_seed, draws)
    if not numeric and not multilabel and label is not None and all((rows[s[p]] >= 0).all() for s in splits for p in s):
        notes = (*notes, class_counts(rows, splits, classes))
    notes = (*notes, *_left_out(of_edges, edge_feat is not None))
    return NodeData(
        name=name,
        graph=graph,
        feat=_features(frames, feat, target),
        target=target,
        label=rows,
        **splits[0],
        num_classes=classes,
        class_names=names,
        multilabel=multilabel,
        numeric=numeric,
        splits=tuple(splits) if len(splits) > 1 else (),
        notes=notes,
        edge_feat=edge_feat,
        ids=names_of or None,
    )


def event_data(graph: dgl.DGLGraph, *, feat: Any = None, name: str = "own") -> EventData:
    """EventData of a graph with edata["time"], for the tasks snapshot_links and stream_links; feat: as in node_data.

    Raises DataError or GraphError for a graph without times.
    """
    graph, frames, of_edges = own_graph(graph, None, feat)
    ends, columns = {}, {}
    for etype in graph.canonical_etypes:
        time = event_times(graph, etype)
        order = torch.argsort(time, stable=True)
        ends[etype] = tuple(end[order] for end in graph.edges(etype=etype, order="eid"))
        columns[etype] = {key: value[order] for key, value in graph.edges[etype].data.items()} | {TIME: time[order]}
    sizes = {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes}
    timed = dgl.heterograph(ends, sizes)
    for etype, found in columns.items():
        timed.edges[etype].data.update(found)
    target = graph.ntypes[0]
    names = {ntype: tuple(range(count)) for ntype, count in sizes.items()}
    return EventData(name, timed, _features(frames, feat, target), names, notes=_left_out(of_edges, with_feat=False))


def own_graph(
    graph: Any, label: Any, feat: Any
) -> tuple[dgl.DGLGraph, dict[str, dict[str, Tensor]], dict[tuple[str, str, str], dict[str, Tensor]]]:
    """(the graph with the times of its edges and no other column, {node type: the columns that its nodes had},
    {relation: the columns of its edges that are no times}).

    Arrays (src, dst) have as many nodes as there are rows of `label`, or of `feat`.
    """
    if isinstance(graph, networkx.Graph):
        graph = from_networkx(graph)[0]
    elif type(graph).__module__.startswith("torch_geometric."):
        graph = from_pyg(graph)
    elif isinstance(graph, (tuple, list)) and len(graph) == 2:
        count = next((len(x) for x in (label, feat) if x is not None and not isinstance(x, (str, Mapping))), None)
        try:
            ends = [torch.as_tensor(np.asarray(end)) for end in graph]
            if len({end.shape for end in ends}) != 1 or ends[0].dim() != 1:
                raise GraphError(f"shapes {list(ends[0].shape)} and {list(ends[1].shape)}")
            other = [end.dtype for end in ends if end.numel() and not _is_whole(end)]
            if other:
                raise GraphError(f"ids of {str(other[0]).removeprefix('torch.')}, which are no whole numbers")
            src, dst = (end.long() for end in ends)
            if src.numel() and min(int(src.min()), int(dst.min())) < 0:
                raise GraphError("expected ids from 0, got a negative one")
            graph = dgl.graph((src, dst), num_nodes=count)
        except (TypeError, ValueError, RuntimeError, dgl.DGLError) as error:
            got = " ".join(str(error).split())
            raise DataError(f"graph: expected two arrays of node ids [E], got others: {got}") from None
    if not isinstance(graph, dgl.DGLGraph):
        raise DataError(f"graph: expected a DGLGraph, PyG's, NetworkX's, arrays or tables, got {brief(graph)}")
    frames = {ntype: dict(graph.nodes[ntype].data) for ntype in graph.ntypes}
    graph = graph.local_var()
    for ntype in graph.ntypes:
        for key in list(graph.nodes[ntype].data):
            del graph.nodes[ntype].data[key]
    of_edges: dict[tuple[str, str, str], dict[str, Tensor]] = {etype: {} for etype in graph.canonical_etypes}
    for etype, taken in of_edges.items():
        for key in sorted(set(graph.edges[etype].data) - set(KEPT)):
            taken[key] = graph.edges[etype].data.pop(key)
    return graph, frames, of_edges


def _edge_features(of_edges):
    """[E, F] of the edges' column "feat", of a graph of one relation; else None."""
    (feat,) = (taken.get("feat") for taken in of_edges.values()) if len(of_edges) == 1 else (None,)
    return None if feat is None or feat.dim() > 2 else _rows(feat, "_E")


def _left_out(of_edges, with_feat):
    """A note of the columns of edges that no task reads."""
    names = [
        f"{key!r} of {etype[1]!r}" if len(of_edges) > 1 else repr(key)
        for etype, taken in of_edges.items()
        for key in taken
        if not (with_feat and key == "feat")
    ]
    return (f"Columns of edges that are left out: {', '.join(names)}.",) if names else ()


def _is_whole(ids):
    return not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)


def _are_tables(graph):
    kinds = (pandas.DataFrame, Mapping)
    return isinstance(graph, (tuple, list)) and len(graph) == 2 and isinstance(graph[1], kinds)


def _of_networkx(graph, label, target):
    """(DGLGraph, label, node type to predict, names of the nodes); a label that is text is no column of the graph."""
    rows = dict(graph.nodes(data=label)) if isinstance(label, str) else {}
    if not any(isinstance(row, str) for row in rows.values()):
        found, ids = from_networkx(graph)
        return found, label, target, ids
    graph = graph.copy()
    for _, attributes in graph.nodes(data=True):
        attributes.pop(label, None)
    found, ids = from_networkx(graph)
    having = [ntype for ntype, names in ids.items() if any(rows[name] is not None for name in names)]
    target = having[0] if target is None and len(having) == 1 else target
    if target not in having:
        raise DataError(f"target: expected the node type to predict, one of {', '.join(having)}, got {target!r}")
    return found, pandas.Series([rows[name] for name in ids[target]], dtype=object, name=label), target, ids


def _refuse_text(ntype, table):
    """Raise DataError where columns but the id are text, and name them."""
    text = [
        str(name)
        for name, column in (table.items() if isinstance(table, pandas.DataFrame) else ())
        if name != "id" and pandas.api.types.infer_dtype(column, skipna=True) == "string"
    ]
    if text:
        expected = "numbers in all columns but the id and the label"
        raise DataError(f"nodes of {ntype!r}: expected {expected}, got text in {', '.join(text)}; leave them out")


def _of_tables(nodes, edges, label, target):
    """(graph with the features and masks of its tables, label, node type to predict, names of the nodes)."""
    nodes = {"_N": nodes} if isinstance(nodes, pandas.DataFrame) else dict(nodes)
    having = [t for t, table in nodes.items() if label in table.columns] if isinstance(label, str) else []
    if target is None and len(having) == 1:
        (target,) = having
    if isinstance(label, str):
        if target not in having:
            known = {t: ", ".join(map(str, table.columns)) for t, table in nodes.items()}
            raise DataError(f"label: expected a column of one table of nodes, {known}, got {label!r}")
        nodes[target], label = nodes[target].drop(columns=label), nodes[target][label]
    for ntype, table in nodes.items():
        _refuse_text(ntype, table)
    graph, ids = from_pandas(nodes, edges)
    for ntype in graph.ntypes:
        frame = graph.nodes[ntype].data
        masks = [f"{part}_mask" for part in PARTS]
        found = [frame.pop(key) for key in list(frame) if key not in masks]
        if found:
            frame["feat"] = torch.cat([rows.float().reshape(len(rows), -1) for rows in found], 1)
    return graph, label, target, ids


def _known(frame):
    return ", ".join(sorted(frame)) or "which has none"


def _target(graph, frames, label, target):
    """The node type that is predicted: the only one, or the only one that has the label."""
    if target is not None:
        if target not in graph.ntypes:
            raise DataError(f"target: expected one of {', '.join(graph.ntypes)}, got {target!r}")
        return target
    having = [t for t in graph.ntypes if len(graph.ntypes) == 1 or isinstance(label, str) and label in frames[t]]
    if len(having) != 1:
        got = f"{len(having)} node types with {label!r}" if isinstance(label, str) else "none"
        raise DataError(f"target: expected the node type to predict, one of {', '.join(graph.ntypes)}, got {got}")
    return having[0]


def _labels(label, nodes):
    """(label as NodeData has it, whether it is a number, names of the classes where labels are texts)."""
    if isinstance(label, Tensor):
        rows = label.detach().cpu()
    elif _may_be_missing(label):
        rows = torch.from_numpy(label.astype("Int64").to_numpy(dtype=np.int64, na_value=-1))
    else:
        array = np.asarray(label)
        if array.dtype.kind in "OUSV" or isinstance(label, pandas.Series) and array.dtype.kind not in "biuf":
            return _named(label, nodes)
        rows = torch.as_tensor(np.array(array))  # pandas' may not be written to
    rows = rows.squeeze(1) if rows.dim() == 2 and rows.shape[1] == 1 else rows
    if rows.dim() not in (1, 2) or len(rows) != nodes:
        raise DataError(f"label: expected [N] or [N, C] with N = {nodes}, got {list(rows.shape)}")
    if rows.dim() == 2:
        return rows.float(), False, ()
    if rows.is_floating_point():
        return rows.float(), True, ()
    return rows.long().clamp(min=-1), False, ()


def _may_be_missing(label):
    """Whether these are whole numbers or truth values of pandas that may be NA, which NumPy would make floats of."""
    kind = label.dtype if isinstance(label, pandas.Series) else None
    return pandas.api.types.is_extension_array_dtype(kind) and getattr(kind, "kind", "O") in "biu"


def _named(label, nodes):
    """Classes by their names, sorted."""
    number, names = pandas.factorize(pandas.Series(list(label), dtype=object), use_na_sentinel=True)
    texts = [str(name) for name in names]
    if len(number) != nodes or len(set(texts)) != len(texts):
        raise DataError(f"label: expected {nodes} names of classes of one kind, got {len(number)} of {len(texts)}")
    order = sorted(range(len(texts)), key=texts.__getitem__)
    place = np.full(len(texts) + 1, -1, dtype=np.int64)
    place[order] = np.arange(len(texts))
    return torch.from_numpy(place[number]), False, tuple(texts[k] for k in order)


def _features(frames, feat, target):
    """{node type: [N, F] float32 or None}."""
    found = dict.fromkeys(frames)
    if feat is None or isinstance(feat, str):
        name = feat or "feat"
        found |= {ntype: frame.get(name) for ntype, frame in frames.items()}
        if feat is not None and all(rows is None for rows in found.values()):
            known = sorted({key for frame in frames.values() for key in frame})
            raise DataError(f"feat: expected a column of ndata, {', '.join(known) or 'which has none'}, got {feat!r}")
    elif isinstance(feat, Mapping):
        unknown = [ntype for ntype in feat if ntype not in frames]
        if unknown:
            raise DataError(f"feat: expected the node types {', '.join(frames)}, got {unknown[0]!r}")
        found |= feat
    else:
        found[target] = feat
    return {ntype: None if rows is None else _rows(rows, ntype) for ntype, rows in found.items()}


def _rows(rows, ntype):
    try:
        rows = torch.as_tensor(rows if isinstance(rows, Tensor) else np.asarray(rows)).detach().cpu().float()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"feat: expected numbers [N, F] of {ntype!r} nodes, got {brief(rows)}") from None
    return rows.unsqueeze(1) if rows.dim() == 1 else rows


def _splits(split, frame, label, numeric, seed, draws):
    """([{"train", "val", "test"}: ids], one or several; notes)."""
    masks = {part: f"{part}_mask" for part in PARTS}
    if split is None and set(masks.values()) <= set(frame):
        split = {part: frame[column] for part, column in masks.items()}
    if split is None or not isinstance(split, Mapping):
        parts = SHARES if split is None else split
        return _drawn(parts, label, numeric, seed, draws)
    split = {"val" if part == "valid" else part: ids for part, ids in split.items()}  # as OGB calls it
    if set(split) != set(PARTS):
        raise DataError(f"split: expected the parts {', '.join(PARTS)}, got {', '.join(map(str, split)) or 'none'}")
    found = {part: _ids(part, ids, len(label)) for part, ids in split.items()}
    count = max(len(ids) for ids in found.values())
    if any(len(ids) not in (1, count) for ids in found.values()):
        raise DataError(f"split: expected as many splits in every part, got {[len(ids) for ids in found.values()]}")
    return [{part: ids[k % len(ids)] for part, ids in found.items()} for k in range(count)], ()


def _ids(part, given, nodes):
    """Ids of a part, one tensor for each split."""
    try:
        ids = torch.as_tensor(given if isinstance(given, Tensor) else np.asarray(given)).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"split: expected ids or a mask of {part}, got {brief(given)}") from None
    if ids.dim() in (1, 2) and len(ids) == nodes and (ids.dtype == torch.bool or ids.dim() == 2):
        return [column.nonzero().flatten() for column in ids.bool().reshape(nodes, -1).T]
    if ids.dim() != 1 or ids.numel() and not _is_whole(ids):
        got = f"{str(ids.dtype).removeprefix('torch.')} {list(ids.shape)}"
        raise DataError(f"split: expected ids [K], or a mask [{nodes}] of bool, of {part}, got {got}")
    ids = ids.long()
    if len(ids) == nodes > 2 and ((ids == 0) | (ids == 1)).all():  # ids would be there twice
        return [ids.nonzero().flatten()]
    wrong = ids[(ids < 0) | (ids >= nodes)]
    if len(wrong):
        raise DataError(f"split: expected ids of {part} from 0 to {nodes - 1}, got {int(wrong[0])}")
    return [ids]


def _drawn(parts, label, numeric, seed, draws):
    try:
        parts = tuple(float(share) for share in parts)
    except (TypeError, ValueError):
        parts = ()
    if len(parts) != 3 or not all(0 < share < 1 for share in parts) or sum(parts) > 1 + 1e-9:
        raise DataError(f"split: expected three shares above 0, at most 1 together, got {parts}")
    if draws < 1:
        raise DataError(f"draws: expected 1 or more, got {draws}")
    if label.dim() == 2:
        known, group = torch.arange(len(label)), None
    else:
        known = (~label.isnan() if numeric else label >= 0).nonzero().flatten()
        group = None if numeric else label
    found = [shares(known, group, parts, seed + k) for k in range(draws)]
    text = ", ".join(f"{100 * share:g} %" for share in parts)
    alike = "" if group is None else ", of all classes alike"
    return found, (f"Splits drawn at random, {text} of the labelled nodes{alike}, {draws} of them.",)
