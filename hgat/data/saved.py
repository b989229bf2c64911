"""A data set of one's own in one file, as `save` writes it: safetensors, whose reading runs no code.

Format: the tensors of the data set, and in the metadata's entry "hgat" a JSON object {"kind": the class, "fields":
what its fields are}. Numbers, texts and null stand for themselves; {"tensor": name}, {"tuple": [...]}, {"dict": [[key,
value], ...]} and {"graph": {...}} for the others. The class checks all of it again when it is made.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dgl
import torch
from safetensors.torch import load as unpack
from safetensors.torch import save as packed
from torch import Tensor

from hgat.data import files, sets
from hgat.data.card import Card
from hgat.errors import DataError
from hgat.files import write_bytes

__all__ = ["load", "pack", "save"]

KINDS = {name: getattr(sets, name) for name in sets.__all__ if name != "PARTS"}


def save(data: Any, path: str | Path) -> None:
    """Write a data set of hgat.data as one file, which `hgat.data.load("saved", path=...)` reads back.

    Raises DataError for what no file can hold: a function that fits labels to a split, places for a map.
    """
    write_bytes(path, pack(data))


def pack(data: Any) -> bytes:
    """The content of the file that `save` writes; equal data give equal bytes."""
    if type(data).__name__ not in KINDS:
        raise DataError(f"save: expected one of {', '.join(KINDS)}, got {type(data).__name__}")
    tensors: dict[str, Tensor] = {}
    fields = {f.name: _encode(getattr(data, f.name), f.name, tensors) for f in dataclasses.fields(data)}
    about = json.dumps({"kind": type(data).__name__, "fields": fields})
    # The format refuses tensors that share memory: every name gets its own copy.
    content = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return packed(content, metadata={"hgat": about})


def load(card: Card, folder: Path, *, verify: bool = True, path: str | None = None, sha256: str | None = None) -> Any:
    """The data set of a file that `save` wrote, at `path`; sha256: what the file's must be, where `verify`.

    Raises DataError for another file.
    """
    file = Path(path or "").expanduser()
    if not file.is_file():
        raise DataError(f"data.path: expected a file of data that hgat saved, got {file}, which is none")
    if verify and sha256 not in (None, files.sha256(file)):
        raise DataError(f"{file}: expected the SHA-256 {sha256}, got {files.sha256(file)}: these are other data")
    try:
        content = file.read_bytes()
        tensors = unpack(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header["__metadata__"]["hgat"])
        found = {name: _decode(value, tensors) for name, value in about["fields"].items()}
        return KINDS[about["kind"]](**found)
    except DataError:
        raise
    except Exception as error:  # safetensors, JSON and DGL promise no list
        got = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise DataError(f"{file}: expected a file of data that hgat saved, got another: {got}") from None


def _encode(value, where, tensors):
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        tensors[where] = value
        return {"tensor": where}
    if isinstance(value, dgl.DGLGraph):
        return {"graph": _encode_graph(value, where, tensors)}
    if isinstance(value, (tuple, list)):
        return {"tuple": [_encode(item, f"{where}.{k}", tensors) for k, item in enumerate(value)]}
    if isinstance(value, Mapping):
        items = enumerate(value.items())
        return {"dict": [[key, _encode(item, f"{where}.{k}", tensors)] for k, (key, item) in items]}
    raise DataError(
        f"save: expected tensors, graphs, numbers and texts in a data set, got {type(value).__name__} in {where}"
    )


def _encode_graph(graph, where, tensors):
    def columns(frame, place):
        return [
            [name, _encode(value, f"{place}.{k}", tensors)] for k, (name, value) in enumerate(sorted(frame.items()))
        ]

    nodes, edges = [], []
    for k, ntype in enumerate(graph.ntypes):
        nodes.append([ntype, graph.num_nodes(ntype), columns(graph.nodes[ntype].data, f"{where}.node.{k}")])
    for k, etype in enumerate(graph.canonical_etypes):
        place = f"{where}.edge.{k}"
        ends = [
            _encode(end, f"{place}.{side}", tensors)
            for side, end in zip(("src", "dst"), graph.edges(etype=etype, order="eid"), strict=True)
        ]
        edges.append([list(etype), *ends, columns(graph.edges[etype].data, place)])
    found = {"nodes": nodes, "edges": edges}
    if graph.batch_size != 1:
        found["batch_nodes"] = [graph.batch_num_nodes(ntype).tolist() for ntype in graph.ntypes]
        found["batch_edges"] = [graph.batch_num_edges(etype).tolist() for etype in graph.canonical_etypes]
    return found


def _decode(value, tensors):
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content}
    return _decode_graph({"graph": content}[kind], tensors)


def _decode_graph(content, tensors):
    sizes, ends = {ntype: count for ntype, count, _ in content["nodes"]}, {}
    for etype, src, dst, _ in content["edges"]:
        ends[tuple(etype)] = tuple(_decode(end, tensors) for end in (src, dst))
        if any(end.numel() and end.min() < 0 for end in ends[tuple(etype)]):  # DGL looks at the largest alone
            raise DataError("edges: expected nodes from 0, got a negative one")
    graph = dgl.heterograph(ends, sizes)
    if "batch_nodes" in content:
        graph.set_batch_num_nodes(dict(zip(sizes, map(torch.tensor, content["batch_nodes"]), strict=True)))
        graph.set_batch_num_edges(dict(zip(ends, map(torch.tensor, content["batch_edges"]), strict=True)))
    for ntype, _, columns in content["nodes"]:
        for name, column in columns:
            graph.nodes[ntype].data[name] = _decode(column, tensors)
    for etype, _, _, columns in content["edges"]:
        for name, column in columns:
            graph.edges[tuple(etype)].data[name] = _decode(column, tensors)
    return graph
