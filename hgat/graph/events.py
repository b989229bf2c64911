"""Events as timed graphs: one edge an event, its time in edata["time"], edges in order of time."""

from datetime import timezone
from numbers import Integral
from typing import Any

import dgl
import numpy as np
import torch

from hgat.errors import GraphError
from hgat.graph.csr import check_graph, check_whole, shown

__all__ = ["TIME", "event_times", "from_events", "from_frame"]

TIME = "time"


def from_events(
    events: tuple | list | dict[tuple[str, str, str], Any],
    num_nodes: int | dict[str, int] | None = None,
) -> dgl.DGLGraph:
    """A DGLGraph with one edge per event, sorted by time, the times in edata["time"].

    events: (src, dst, time) or (src, dst, time, feat), arrays, lists or tensors of one length, feat [E, F] into
    edata["feat"]; or, for several node or event types, a dict of them by canonical edge type, as dgl.heterograph takes
    it. time: whole numbers (kept as int64), floats (float64), dates (float64, seconds since 1970, in UTC without a time
    zone) or spans of time (float64, seconds), as NumPy, pandas or Python have them; negative ones are times like any
    other. num_nodes: an int, or {node type: int}; by default the largest number plus one.
    Events at one time keep the order in which they came; equal events stay as many edges as they are.
    Raises GraphError for arrays of different lengths, nodes that are no whole numbers or out of range, and times that
    are text, missing, or not finite.
    """
    typed = isinstance(events, dict)
    sizes = [num_nodes] if not isinstance(num_nodes, dict) else num_nodes.values()
    wrong = any(not isinstance(size, Integral) or isinstance(size, bool) for size in sizes)
    if num_nodes is not None and (isinstance(num_nodes, dict) != typed or wrong):
        raise GraphError(f"num_nodes: expected {'{node type: int}' if typed else 'an int'}, got {shown(num_nodes)}")
    if isinstance(events, dict):
        for etype in events:
            if not isinstance(etype, tuple) or len(etype) != 3:
                got = shown(etype)
                raise GraphError(f"events: expected edge types (source type, name, destination type), got {got}")
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


def from_frame(frame: Any, src: str, dst: str, time: str) -> tuple[dgl.DGLGraph, np.ndarray]:
    """(graph, ids) of a data frame or a dict of columns: from_events, with nodes of any names numbered from 0.

    src, dst, time: names of columns. Both ends are one node type; ids is the array of names, sorted, so that node k is
    ids[k]. Raises GraphError for a column that is missing and for names that are missing (NaN, None) or of mixed kinds.
    """
    columns = {}
    for name in (src, dst, time):
        try:
            column = frame[name] if not isinstance(frame, (list, tuple, str, torch.Tensor)) else None
        except Exception:  # tables of other libraries have errors of their own
            column = None
        if column is None:
            known = [str(k) for k in (frame.keys() if hasattr(frame, "keys") else [])]
            raise GraphError(f"events: expected a column {shown(name)}, got {', '.join(known) or type(frame).__name__}")
        try:
            columns[name] = _column(column)
        except (TypeError, ValueError, RuntimeError):  # lists of different lengths, tensors without numbers
            raise GraphError(f"events: expected one column {name!r}, got values that make no array") from None
        if columns[name].ndim != 1:
            raise GraphError(f"events: expected one column {name!r}, got an array {list(columns[name].shape)}")
    names = _together(columns[src], columns[dst], f"{src!r} and {dst!r}")
    if _any_missing(names):
        raise GraphError(f"events: expected a name at both ends of every event, got none in {src!r} or {dst!r}")
    try:
        ids, number = np.unique(names, return_inverse=True)
    except (TypeError, ValueError):
        raise _kinds(names, f"{src!r} and {dst!r}") from None
    number = number.reshape(-1)
    half = len(columns[src])
    return from_events((number[:half], number[half:], columns[time]), num_nodes=len(ids)), ids


def event_times(graph: dgl.DGLGraph, etype: str | tuple[str, str, str] | None = None) -> torch.Tensor:
    """The time of every event of one relation, [E] int64 or float64, in the graph's order.

    Raises GraphError for an unknown relation, or none where there are several, and where edata["time"] is missing, not
    one number per edge, or not finite.
    """
    check_graph(graph)
    known = graph.canonical_etypes
    if etype is None and len(known) != 1:
        raise GraphError(f"etype: expected one of {known}, got none")
    found = [e for e in known if etype is None or _named(etype, e)]
    if len(found) != 1:
        raise GraphError(f"etype: expected one of {known}, got {shown(etype)}")
    data = graph.edges[found[0]].data
    if TIME not in data:
        of = "" if etype is None else f" of {etype}"
        raise GraphError(f"graph: expected the time of every edge in edata[{TIME!r}]{of}, got {sorted(data) or 'none'}")
    return _times("graph", data[TIME])


def _named(etype, canonical):
    return isinstance(etype, (str, tuple)) and etype in (canonical, canonical[1])


def _column(values):
    """The column as an array; a list of text and other things stays what it is, where NumPy would write all as text."""
    array = np.asarray(values)
    listed = list(values) if isinstance(values, (list, tuple)) else ()
    # NumPy would also write True beside numbers as 1.
    if array.dtype.kind in "US" and not isinstance(values, np.ndarray) or any(type(v) is bool for v in listed):
        array = np.empty(len(values), dtype=object)
        array[:] = list(values)
    return array


def _together(src, dst, where):
    """The names of both ends as one array, in which no two that differ have become one."""
    kinds = {"U" if end.dtype.kind in "US" else end.dtype.kind for end in (src, dst)}
    if len(kinds) == 1 and "O" not in kinds:
        return np.concatenate([src, dst])
    if kinds == {"i", "u"} and all(not end.size or end.max() < 2**63 for end in (src, dst)):
        return np.concatenate([src.astype(np.int64), dst.astype(np.int64)])
    if kinds in ({"i", "f"}, {"u", "f"}) and all(not end.size or abs(end).max() <= 2**53 for end in (src, dst)):
        return np.concatenate([src.astype(np.float64), dst.astype(np.float64)])
    names = np.concatenate([src.astype(object), dst.astype(object)])
    bools = [isinstance(name, (bool, np.bool_)) for name in names]
    if any(bools) and not all(bools):  # True is equal to 1
        raise _kinds(names, where)
    return names


def _kinds(names, where):
    kinds = sorted({type(n).__name__ for n in names})
    return GraphError(f"events: expected names of one kind in {where}, got {', '.join(kinds)}")


def _any_missing(names):
    if names.dtype.kind == "f":
        return bool(np.isnan(names).any())
    if names.dtype.kind in "mM":
        return bool(np.isnat(names).any())
    return names.dtype == object and any(map(_is_missing, names))


def _is_missing(name):
    try:
        return name is None or bool(name != name)
    except TypeError:  # pandas' NA is neither equal to itself nor unequal
        return True
    except ValueError:  # an array
        return False


def _array(what, values):
    kind = getattr(values, "dtype", type(values).__name__)
    if isinstance(values, torch.Tensor):
        if values.layout != torch.strided or values.is_meta:
            raise GraphError(f"{what}: expected numbers, got {kind} in {values.layout} on {values.device}")
        return values.detach().cpu()
    try:
        array = np.array(values)
    except (TypeError, ValueError, RuntimeError):
        raise GraphError(f"{what}: expected numbers, got {kind}") from None
    try:
        return torch.from_numpy(_numbers(what, array))
    except TypeError:
        raise GraphError(f"{what}: expected numbers, got {kind}") from None


def _numbers(what, array):
    """An array whose numbers, dates or spans of time are objects of Python or pandas, as one of NumPy's types."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # PyTorch has no such floats
        return array.astype(np.float64)
    if array.dtype == object and not array.ndim:
        raise GraphError(f"{what}: expected numbers, got {type(array.item()).__name__}")
    if array.dtype.kind == "u" and array.size and array.max() >= 2**63:
        raise GraphError(f"{what}: expected numbers below 2^63, got {array.max()}")
    if array.dtype != object or array.ndim != 1 or not array.size:
        return array
    import pandas  # DGL needs it, too; most columns do not

    missing = pandas.isna(array).nonzero()[0]
    if len(missing):
        raise GraphError(f"{what}: expected numbers, got none at event {missing[0]}")
    kind = pandas.api.types.infer_dtype(array, skipna=False)
    if kind == "integer":
        most = max(array, key=abs)
        if not -(2**63) <= most < 2**63:
            raise GraphError(f"{what}: expected numbers below 2^63, got {most}")
        return array.astype(np.int64)
    if kind in ("floating", "mixed-integer-float", "decimal"):
        return array.astype(np.float64)
    try:
        if kind in ("datetime", "datetime64", "date"):
            return pandas.to_datetime(array, utc=True).tz_localize(None).to_numpy()
        if kind in ("timedelta", "timedelta64"):
            return pandas.to_timedelta(array).to_numpy()
    except (OverflowError, ValueError) as error:
        if kind in ("datetime", "date"):  # too far away for pandas' nanoseconds
            return np.array([_without_zone(moment) for moment in array], dtype="datetime64[us]")
        raise GraphError(f"{what}: expected dates or spans of time, got {str(error).splitlines()[0]}") from None
    names = sorted({type(value).__name__ for value in array})
    raise GraphError(f"{what}: expected numbers, got {', '.join(names)}")


def _without_zone(moment):
    """A date or a datetime as one of UTC that says so no more."""
    if getattr(moment, "tzinfo", None) is None:
        return moment
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


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
    """Dates as seconds since 1970 and spans of time as seconds, a missing one as NaN; anything else as it is."""
    if isinstance(time, torch.Tensor):
        return time
    try:
        time = np.asarray(time)
    except ValueError:
        raise GraphError(f"{what}: time: expected [E] numbers, got lists of different lengths") from None
    time = _numbers(f"{what}: time", time)
    if time.dtype.kind not in "mM":
        return time
    try:
        if time.dtype.kind == "m":
            return time / np.timedelta64(1, "s")
        second = time.astype("datetime64[s]")  # nanoseconds would end in 2262
        part = (time - second) / np.timedelta64(1, "s")
    except (TypeError, OverflowError):  # years and months are no number of seconds, attoseconds are too many
        raise GraphError(f"{what}: time: expected dates or spans of time in seconds, got {time.dtype}") from None
    return np.where(np.isnat(second), 0, second.astype(np.int64)) + part


def _times(what, values):
    time = _array(f"{what}: time", values)
    if time.dim() != 1 or time.dtype == torch.bool or time.is_complex():
        raise GraphError(f"{what}: time: expected [E] numbers, got {time.dtype} {list(time.shape)}")
    unsigned = time.dtype == getattr(torch, "uint64", None)
    time = time.double() if time.is_floating_point() else time.long()
    if unsigned and time.numel() and time.min() < 0:
        raise GraphError(f"{what}: time: expected numbers below 2^63, got {int(time.min()) % 2**64}")
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
    check_whole(0, **{f"num_nodes of {ntype!r}": size for ntype, size in num_nodes.items()})
    for ntype, least in largest.items():
        if num_nodes.get(ntype, least) < least:
            raise GraphError(f"num_nodes: expected {least} or more of {ntype!r}, got {num_nodes[ntype]}")
    return {**largest, **num_nodes}
