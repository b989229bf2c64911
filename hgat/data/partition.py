"""Parts of one graph for several machines: DGL's own partitions with features, labels and masks of the split in them.

`partition(load("cora"), 2, "parts")` writes what `dgl.distributed` reads: `parts/cora.json`, the configuration, and
a folder per part with the structure and the rows of its own nodes in DGL's binary form, which holds no pickles.
"""

import contextlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dgl
import torch

from hgat.errors import DataError, OutputError
from hgat.files import reason
from hgat.graph import add_inverse, homogeneous
from hgat.graph.csr import rebuilt

__all__ = ["Parts", "about", "check", "partition"]

METHODS = ("metis", "random")
ABOUT = "hgat"  # the key of the configuration that holds what DGL has no place for


@dataclass(frozen=True)
class Parts:
    """What was written. nodes: {node type: per part}; edges: per part; cut: edges whose ends lie in two parts."""

    config: Path
    nodes: dict[str, list[int]]
    edges: list[int]
    cut: int


def partition(
    task: Any,
    parts: int,
    out: str | os.PathLike[str],
    *,
    method: Literal["metis", "random"] = "metis",
    hops: int = 1,
    inverse: bool = False,
    balance_train: bool = False,
    balance_edges: bool = False,
) -> Parts:
    """Cut the graph of NodeData, into parts and write them to the folder `out`, whole or not at all.

    Node data: "feat" where a type has features, "orig_id", the node's id in the task, and for the target "label" and
    "train_mask", "val_mask", "test_mask". method: "metis", few cut edges and as many nodes of each type in every part,
    or "random". hops: how far a part also knows its neighbours. inverse: with the inverse of every relation and a
    self relation (hgat.graph.add_inverse), on a plain graph with both directions and self-loops. balance_train: METIS
    also spreads the training nodes evenly; balance_edges: and the in-edges.
    DGL's talk goes to stderr. Raises DataError for what cannot be cut so, OutputError for a folder with content.
    """
    out = check(parts, out, method, hops)
    graph = _graph(task, parts, inverse)
    label, masks = task.label, _masks(task)
    noted = {"data": task.name, "target": task.target, "outputs": task.num_classes, "notes": list(task.notes)}
    for ntype in graph.ntypes:
        columns = graph.nodes[ntype].data
        columns.update(task.graph.nodes[ntype].data)  # add_inverse and DGL's to_bidirected leave them out
        columns["orig_id"] = torch.arange(graph.num_nodes(ntype))
        if task.feat[ntype] is not None:
            columns["feat"] = task.feat[ntype]
    if task.edge_feat is not None:
        if inverse:
            raise DataError(f"{task.name}: --inverse: expected edges without features, got edge features")
        graph.edata["feat"] = task.edge_feat
    graph.nodes[task.target].data.update(label=label, **masks)
    balance = {task.target: masks["train_mask"]} if balance_train else None
    with _whole(out) as folder, contextlib.redirect_stdout(sys.stderr):
        try:
            order, _ = dgl.distributed.partition_graph(
                graph, task.name, parts, str(folder), num_hops=hops, part_method=method,
                balance_ntypes=balance, balance_edges=balance_edges, return_mapping=True,
            )  # fmt: skip
        except IndexError:  # DGL looks at the first node and edge of each type in each part
            raise DataError(
                f"{task.name}: expected nodes and edges of every type in every part, got a part without; "
                "fewer parts or another method may help"
            ) from None
        except dgl.DGLError as error:
            first = str(error).split("\n")[0].split("] ")[-1]
            raise DataError(f"{task.name}: expected a graph that DGL can cut by {method}, got: {first}") from None
        config = folder / f"{task.name}.json"
        content = json.loads(config.read_text(encoding="utf-8"))
        config.write_text(json.dumps({**content, ABOUT: noted}, indent=4), encoding="utf-8")
    sizes = {ntype: [end - start for start, end in content["node_map"][ntype]] for ntype in graph.ntypes}
    edges = [sum(end - start for start, end in column) for column in zip(*content["edge_map"].values(), strict=True)]
    return Parts(out / config.name, sizes, edges, _cut(graph, order, sizes))


def about(config: str | os.PathLike[str]) -> dict[str, Any]:
    """What `partition` noted in its configuration: {"data", "target", "outputs", "notes"}, and DGL's own "graph_name".

    Raises DataError for a file that is missing or that it did not write.
    """
    try:
        content = json.loads(Path(config).read_text(encoding="utf-8"))
        return {**content[ABOUT], "graph_name": content["graph_name"]}
    except OSError as error:
        raise DataError(
            f"partition: expected the file NAME.json of a partition, got {config}: {reason(error)}"
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DataError(f"partition: expected a file that `hgat partition` wrote, got {config}") from None


def check(parts: int, out: str | os.PathLike[str], method: str = "metis", hops: int = 1) -> Path:
    """What can be checked before any data is read; gives `out` as a path."""
    if method not in METHODS:
        raise DataError(f"--method: expected one of {', '.join(METHODS)}, got {method!r}")
    for name, value in (("--parts", parts), ("--hops", hops)):
        if value < 1:
            raise DataError(f"{name}: expected 1 or more, got {value}")
    out = Path(out).absolute()
    try:
        if out.exists() and any(out.iterdir()):
            raise OutputError(f"--out: expected a new or an empty folder, got {out}, which has content")
    except NotADirectoryError:
        raise OutputError(f"--out: expected a new or an empty folder, got {out}, which is none") from None
    return out


def _graph(task, parts, inverse):
    """A copy of the task's graph as it is cut."""
    if not hasattr(task, "target"):
        raise DataError(f"{task.name}: expected a data set of nodes with labels, got {type(task).__name__}")
    graph = rebuilt(task.graph).long()
    if inverse and graph.is_homogeneous:
        graph = homogeneous.prepare(graph, undirected=True)
    elif inverse:
        graph = add_inverse(graph, self_relation=True)
    for name in (*graph.ntypes, *graph.etypes):
        if set(name) & set(":/~"):  # DGL joins names with these
            raise DataError(f"{task.name}: expected names of types without : / and ~, got {name!r}")
    sizes = {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes}
    sizes |= {etype[1]: graph.num_edges(etype) for etype in graph.canonical_etypes}
    least = min(sizes, key=sizes.get)
    if sizes[least] < parts:
        raise DataError(f"--parts: expected at most {sizes[least]}, the number of {least}, got {parts}")
    return graph.local_var()


def _masks(task):
    """Where the split has the node: {"train_mask", "val_mask", "test_mask"}, [N_target] bool each."""
    masks = {}
    for part, ids in task.split.items():
        mask = torch.zeros(len(task.label), dtype=torch.bool)
        mask[ids] = True
        masks[f"{part}_mask"] = mask
    return masks


def _cut(graph, order, sizes):
    """How many edges join two parts; order: {node type: old ids, part after part}."""
    order = order if isinstance(order, dict) else {graph.ntypes[0]: order}
    part = {}
    for ntype, old in order.items():
        part[ntype] = torch.empty_like(old)
        part[ntype][old] = torch.repeat_interleave(torch.arange(len(sizes[ntype])), torch.tensor(sizes[ntype]))
    count = 0
    for etype in graph.canonical_etypes:
        src, dst = graph.edges(etype=etype)
        count += int((part[etype[0]][src] != part[etype[2]][dst]).sum())
    return count


@contextlib.contextmanager
def _whole(out):
    """A folder to write to, which becomes `out` when all has gone well and is gone if not."""
    # One fixed name: what a killed process leaves behind is overwritten by the next.
    temporary = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, out)
    except OSError as error:
        raise OutputError(f"--out: expected a folder that can be written to, got {out}: {reason(error)}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
