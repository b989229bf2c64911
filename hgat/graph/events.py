"""Events as timed graphs: one edge an event, its time in edata["time"], edges in order of time."""

from numbers import Integral

import dgl
import numpy as np
import torch

from hgat.errors import GraphError

__all__ = ["TIME", "event_times", "from_events", "from_frame"]

TIME = "time"


def from_events(events, num_nodes=None):
    """A DGLGraph with one edge per event, sorted by time, the times in edata["time"].

    events: (src, dst, time) or (src, dst, time, feat), arrays, lists or tensors of one length, feat [E, F] into
    edata["feat"]; or, for several node or event types, a dict of them by canonical edge type, as dgl.heterograph takes
    it. time: whole numbers (kept as int64), floats (float64) or datetime64 (float64, seconds since 1970); negative ones
    are times like any other. num_nodes: an int, or {node type: int}; by default the largest number plus one.
    Events at one time keep the order in which they came; equal events stay as many edges as they are.
    Raises GraphError for arrays of different lengths, nodes that are no whole numbers or out of range, and times that
    are not finite.
    """
    typed = isinstance(events, dict)
    if num_nodes is not None and not isinstance(num_nodes, dict if typed else Integral):
        raise GraphError(f"num_nodes: expected {'{node type: int}' if typed else 'an int'}, got {num_nodes!r}")
    if typed:
        for etype in events:
            if not isinstance(etype, tuple) or len(etype) != 3:
                raise GraphError(f"events: expected edge types (source type, name, destination type), got {etype!r}")
        checked = {etype: _checked(f"events of {etype}", columns) for etype, columns in events.items()}
        if not checked:
            raise GraphError("events: expected at least one edge type, got none")
    else:
        checked = {("_N", "_E", "_N"): _checked("events", events)}
        num_nodes = None if num_nodes is None else {"_N": num_nodes}
    sizes = _sizes(checked, num_nodes)
    ends = {etype: (src, dst) for etype, (src, dst, _, _) in checked.items()}
    graph = dgl.heterograph(ends, sizes) if typed else dgl.graph(next(iter(ends.values())), num_nodes=sizes["_N"])
    for etype, (_, _, time, feat) in checked.items():
        graph.edges[etype].data[TIME] = time
        if feat is not None:
            graph.edges[etype].data["feat"] = feat
    return graph


def from_frame(frame, src, dst, time):
    """(graph, ids) of a data frame or a dict of columns: from_events, with nodes of any names numbered from 0.

    src, dst, time: names of columns. Both ends are one node type; ids is the array of names, sorted, so that node k is
    ids[k]. Raises GraphError for a column that is missing and for names that are missing (NaN, None) or of mixed kinds.
    """
    columns = {}
    for name in (src, dst, time):
        try:
            columns[name] = _column(frame[name])
        except (KeyError, IndexError, TypeError, ValueError):
            known = [str(k) for k in (frame.keys() if hasattr(frame, "keys") else [])]
            raise GraphError(
                f"events: expected a column {name!r}, got {', '.join(known) or type(frame).__name__}"
            ) from None
        if columns[name].ndim != 1:
            raise GraphError(f"events: expected one column {name!r}, got an array {list(columns[name].shape)}")
    ends = [columns[src], columns[dst]]
    if len({end.dtype.kind in "US" for end in ends}) > 1:  # NumPy would write numbers as text
        ends = [end.astype(object) for end in ends]
    names = np.concatenate(ends)
    if names.dtype.kind == "f" and np.isnan(names).any() or names.dtype == object and any(map(_is_missing, names)):
        raise GraphError(f"events: expected a name at both ends of every event, got none in {src!r} or {dst!r}")
    try:
        ids, number = np.unique(names, return_inverse=True)
    except TypeError:
        kinds = sorted({type(n).__name__ for n in names})
        raise GraphError(f"events: expected names of one kind in {src!r} and {dst!r}, got {', '.join(kinds)}") from None
    number = number.reshape(-1)
    half = len(columns[src])
    return from_events((number[:half], number[half:], columns[time]), num_nodes=len(ids)), ids


def event_times(graph, etype=None):
    """The time of every event of one relation, [E] int64 or float64, in the graph's order.

    Raises GraphError where edata["time"] is missing, not one number per edge, or not finite.
    """
    if getattr(graph, "canonical_etypes", None) is None:
        raise GraphError(f"graph: expected a DGLGraph, got {type(graph).__name__}")
    data = graph.edges[etype].data if etype is not None else graph.edata
    if TIME not in data:
        of = "" if etype is None else f" of {etype}"
        raise GraphError(f"graph: expected the time of every edge in edata[{TIME!r}]{of}, got {sorted(data) or 'none'}")
    return _times("graph", data[TIME])


def _column(values):
    """The column as an array; a list of text and other things stays what it is, where NumPy would write all as text."""
    array = np.asarray(values)
    if array.dtype.kind in "US" and not isinstance(values, np.ndarray):
        return np.array(list(values), dtype=object)
    return array


def _is_missing(name):
    try:
        return name is None or bool(name != name)
    except TypeError:  # pandas' NA is neither equal to itself nor unequal
        return True


def _array(what, values):
    try:
        return torch.from_numpy(np.array(values)) if not isinstance(values, torch.Tensor) else values.detach().cpu()
    except (TypeError, ValueError):
        kind = getattr(values, "dtype", type(values).__name__)
        raise GraphError(f"{what}: expected numbers, got {kind}") from None


def _checked(what, columns):
    """(src, dst, time, feat or None) sorted by time."""
    if not isinstance(columns, (tuple, list)) or len(columns) not in (3, 4):
        got = f"{len(columns)} columns" if isinstance(columns, (tuple, list)) else type(columns).__name__
        raise GraphError(f"{what}: expected (src, dst, time) or (src, dst, time, feat), got {got}")
    src, dst = (_nodes(f"{what}: {name}", values) for name, values in zip(("src", "dst"), columns[:2], strict=True))
    time = _times(what, _seconds(what, columns[2]))
    feat = _array(f"{what}: feat", columns[3]) if len(columns) == 4 and columns[3] is not None else None
    lengths = [len(x) if x.dim() else "one number" for x in (src, dst, time, feat) if x is not None]
    if len(set(lengths)) != 1:
        raise GraphError(f"{what}: expected columns of one length, got {lengths}")
    order = torch.argsort(time, stable=True)
    return src[order], dst[order], time[order], None if feat is None else feat[order]


def _nodes(what, values):
    nodes = _array(what, values)
    if nodes.dim() != 1 or (
        nodes.numel() and (nodes.is_floating_point() or nodes.is_complex() or nodes.dtype == torch.bool)
    ):
        raise GraphError(f"{what}: expected [E] whole numbers, got {nodes.dtype} {list(nodes.shape)}")
    nodes = nodes.long()
    if nodes.numel() and nodes.min() < 0:
        raise GraphError(f"{what}: expected nodes from 0, got {int(nodes.min())}")
    return nodes


def _seconds(what, time):
    """datetime64 as seconds since 1970, a missing one as NaN; anything else as it is."""
    if isinstance(time, torch.Tensor):
        return time
    try:
        time = np.asarray(time)
    except ValueError:
        raise GraphError(f"{what}: time: expected [E] numbers, got lists of different lengths") from None
    if time.dtype.kind != "M":
        return time
    second = time.astype("datetime64[s]")  # nanoseconds would end in 2262
    return second.astype(np.int64) + (time - second) / np.timedelta64(1, "s")


def _times(what, values):
    time = _array(f"{what}: time", values)
    if time.dim() != 1 or time.dtype == torch.bool or time.is_complex():
        raise GraphError(f"{what}: time: expected [E] numbers, got {time.dtype} {list(time.shape)}")
    time = time.double() if time.is_floating_point() else time.long()
    wrong = (~torch.isfinite(time)).nonzero().flatten() if time.is_floating_point() else time[:0]
    if len(wrong):
        raise GraphError(f"{what}: time: expected finite numbers, got {float(time[wrong[0]])} at event {int(wrong[0])}")
    return time


def _sizes(checked, num_nodes):
    largest = {}
    for (srctype, _, dsttype), (src, dst, _, _) in checked.items():
        for ntype, nodes in ((srctype, src), (dsttype, dst)):
            largest[ntype] = max(largest.get(ntype, 0), int(nodes.max()) + 1 if nodes.numel() else 0)
    if num_nodes is None:
        return largest
    for ntype, least in largest.items():
        if num_nodes.get(ntype, least) < least:
            raise GraphError(f"num_nodes: expected {least} or more of {ntype!r}, got {num_nodes[ntype]}")
    return {**largest, **num_nodes}
