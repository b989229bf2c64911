"""Planted truth: which neighbours decide the label is known, and how they are known.

Format: none, the data are generated. Every node has one in-edge from each of `size` other nodes and carries a payload,
one of `classes` marks. The label of a node is the payload of one of those neighbours, and `gold` says which:

- planted-feature: the one whose key is what the node asks for. Nodes come in groups of `size` that ask for different
  keys and have the same in-neighbours, one of each key: different destinations have to rank the same neighbours
  differently. A ranking that is the same for every destination, as GAT's is (Brody et al. 2022, theorem 1), gives the
  neighbour of rank r at most 1 / r of a destination's attention, so that its correctness is at most
  (1 + 1/2 + ... + 1/size) / size.
- planted-relation: the one that is a neighbour under the relation that the node asks for. There are `size` relations.
- planted-recency: the one whose edge is the latest. Edges have times, and neighbours tell nothing of them.
- planted-path: the marked one of those that a walk "item -to 0- middle -from 0- item" joins with the node. Every node
  reads from `size` others along each of `PATHS` paths, one of them marked, and one path decides for all nodes. The
  genre of a neighbour is the path that it is on. The path is gold where both of its edges are.

In two of the sets attention is decoration. Graph and features are as in planted-feature, and gold there is none:

- planted-own: the label is the node's own payload.
- planted-mean: payloads are numbers, one of each class, and the label is the greatest of their means over the
  neighbours, which a plain mean tells as well.

Split at random, 50/25/25. That every node has the same number of in-edges is why the uniform share is 1 / size.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dgl
import numpy as np
import torch
from torch import Tensor

from hgat.data.card import Card
from hgat.data.sets import NodeData
from hgat.errors import DataError

__all__ = ["PATHS", "answers", "load"]

PATHS = 3
USUAL = {"size": 5, "groups": 240, "classes": 3}  # of the cards
PARTS = (0.5, 0.75)  # where training ends, and validation


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    size: int = 5,
    groups: int = 240,
    classes: int = 3,
    split_seed: int = 0,
) -> NodeData:
    """Draw the graph, its payloads and the split.

    size: in-neighbours of a node, one of which decides; of planted-path along each path. groups: of `size` nodes each.
    classes: C. split_seed: of edges, features and the split. `folder` and `verify` are not used. Raises DataError for
    numbers out of range.
    """
    given = {"size": size, "groups": groups, "classes": classes}
    for (name, value), least in zip(given.items(), (2, 4, 2), strict=True):
        if value < least:
            raise DataError(f"{card.name}.{name}: expected {least} or more, got {value}")
    if not 0 <= split_seed < 2**32:
        raise DataError(f"{card.name}.split_seed: expected a number from 0 to 2**32 - 1, got {split_seed}")
    kind = card.layout["kind"]
    rng = np.random.RandomState(split_seed)  # NumPy promises that its stream never changes
    graph, rows, columns, gold = DRAWN[kind](rng, size, groups, classes)
    target, count = graph.ntypes[0], size * groups
    feat: dict[str, Tensor | None] = dict.fromkeys(graph.ntypes)
    feat[target] = torch.from_numpy(np.concatenate(rows, 1)).float()
    ends = [round(part * count) for part in PARTS]
    train, val, test = torch.from_numpy(rng.permutation(count)).tensor_split(ends)
    others = [f"{key} = {value}" for key, value in given.items() if value != USUAL[key]]
    return NodeData(
        name=f"{card.name} with {', '.join(others)}" if others else card.name,
        graph=graph,
        feat=feat,
        target=target,
        label=answers(kind, graph, feat, columns),
        train=train.sort().values,
        val=val.sort().values,
        test=test.sort().values,
        num_classes=classes,
        columns={target: columns},
        notes=card.notes,
        gold=gold,
    )


def answers(kind: str, graph: dgl.DGLGraph, feat: Mapping[str, Tensor | None], columns: tuple[str, ...]) -> Tensor:
    """The labels [N] that the rule of a kind gives, read from graph and features alone, whatever is gold.

    kind: "feature", "relation", "recency", "path", "own" or "mean". feat: {node type: [N, F] or None}, whose first node
    type is asked for; columns: F names, those of planted sets.
    """
    rows: Any = feat[graph.ntypes[0]]

    def named(name):
        return rows[:, [place for place, column in enumerate(columns) if column.split(" ")[0] == name]]

    said, label = named("payload"), torch.full((len(rows),), -1)
    if kind == "own":
        return said.argmax(1)
    if kind == "mean":
        src, dst = graph.edges(order="eid")
        return torch.zeros_like(said).index_add_(0, dst, said[src]).argmax(1)
    if kind == "feature":
        src, dst = graph.edges(order="eid")
        here = named("key")[src].argmax(1) == named("ask")[dst].argmax(1)
        src, dst = src[here], dst[here]
    elif kind == "relation":
        found = [graph.edges(etype=etype, order="eid") for etype in graph.canonical_etypes]
        asks = named("ask").argmax(1)
        pairs = [torch.stack(pair)[:, asks[pair[1]] == place] for place, pair in enumerate(found)]
        src, dst = torch.cat(pairs, 1)
    elif kind == "recency":
        src, dst = graph.edges(order="eid")
        time = graph.edata["time"]
        latest = torch.zeros(len(rows), dtype=time.dtype).scatter_reduce_(0, dst, time, "amax")
        here = time == latest[dst]
        src, dst = src[here], dst[here]
    else:
        (first, middle), (through, last) = (graph.edges(etype=name, order="eid") for name in ("to 0", "from 0"))
        marked = named("mark")[first, 0] > 0
        teller = torch.empty(graph.num_nodes("middle 0"), dtype=torch.int64)
        teller[middle[marked]] = first[marked]
        src, dst = teller[through], last
    label[dst] = said[src].argmax(1)
    return label


def _one_hot(values, count):
    return np.eye(count)[values]


def _names(**widths):
    """Names of columns, "payload 0" and so on."""
    return tuple(f"{name} {place}" for name, width in widths.items() for place in range(width))


def _others(rng, count, size):
    """[count, size]: for every node as many different others, none of them itself."""
    ahead = np.stack([rng.choice(count - 1, size, replace=False) for _ in range(count)])
    return (np.arange(count)[:, None] + 1 + ahead) % count


def _edges(src, count):
    """(src, dst) as tensors, of src [N, size], the in-neighbours of every node."""
    return torch.from_numpy(src.ravel()), torch.arange(count).repeat_interleave(src.shape[1])


def _feature(rng, size, groups, classes):
    """The groups of nodes that share their neighbours and ask for different keys."""
    count = size * groups
    ask, key = (np.argsort(rng.random_sample((groups, size)), 1) for _ in range(2))
    bearer = np.argsort(key, 1) + size * np.arange(groups)[:, None]  # [groups, key]: the node
    ahead = (np.arange(groups)[:, None] + 1 + rng.randint(0, groups - 1, (groups, size))) % groups  # never its own
    shared = bearer[ahead, np.arange(size)]
    src = np.take_along_axis(shared, np.argsort(rng.random_sample((groups, size)), 1), 1).repeat(size, 0)
    graph = dgl.graph(_edges(src, count), num_nodes=count)
    gold = torch.from_numpy(key.ravel()[src] == ask.ravel()[:, None]).flatten()
    rows = [_one_hot(part, width) for part, width in (
        (ask.ravel(), size), (key.ravel(), size), (rng.randint(0, classes, count), classes)
    )]  # fmt: skip
    return graph, rows, _names(ask=size, key=size, payload=classes), gold


def _decoration(rng, size, groups, classes):
    return *_feature(rng, size, groups, classes)[:3], None


def _mean(rng, size, groups, classes):
    graph, rows, columns, _ = _feature(rng, size, groups, classes)
    return graph, [*rows[:2], rng.standard_normal((size * groups, classes))], columns, None


def _relation(rng, size, groups, classes):
    count = size * groups
    src, ask = _others(rng, count, size), rng.randint(0, size, count)
    ends = {
        ("node", f"r{place}", "node"): (torch.from_numpy(src[:, place]), torch.arange(count)) for place in range(size)
    }
    graph = dgl.heterograph(ends, num_nodes_dict={"node": count})
    gold = {etype: torch.from_numpy(ask == place) for place, etype in enumerate(ends)}
    rows = [_one_hot(ask, size), _one_hot(rng.randint(0, classes, count), classes)]
    return graph, rows, _names(ask=size, payload=classes), gold


def _recency(rng, size, groups, classes):
    count = size * groups
    src = _others(rng, count, size)
    time = np.argsort(rng.random_sample((count, 4 * size)), 1)[:, :size]  # no two alike
    graph = dgl.graph(_edges(src, count), num_nodes=count)
    graph.edata["time"] = torch.from_numpy(time.ravel())
    gold = torch.from_numpy(time == time.max(1, keepdims=True)).flatten()
    return graph, [_one_hot(rng.randint(0, classes, count), classes)], _names(payload=classes), gold


def _path(rng, size, groups, classes):
    count, ends, gold = size * groups, {}, {}
    genre = rng.permutation(np.arange(count) % PATHS)
    mark = np.zeros(count, dtype=bool)
    sizes = {"item": count}
    for path in range(PATHS):
        here = rng.permutation(np.flatnonzero(genre == path))
        marked, plain = np.split(here, [len(here) // size])
        mark[marked] = True
        # As many middles as groups; each is entered by one marked item and by others that are not.
        first = np.concatenate([marked[rng.randint(0, len(marked), (groups, 1))],
                                plain[_distinct(rng, groups, len(plain), size - 1)]], 1)  # fmt: skip
        first = np.take_along_axis(first, np.argsort(rng.random_sample((groups, size)), 1), 1)
        middle = f"middle {path}"
        sizes[middle] = groups
        ends["item", f"to {path}", middle] = _edges(first, groups)
        read = rng.randint(0, groups, count)
        ends[middle, f"from {path}", "item"] = torch.from_numpy(read), torch.arange(count)
        gold["item", f"to {path}", middle] = torch.from_numpy(mark[first].ravel() & (path == 0))
        gold[middle, f"from {path}", "item"] = torch.full((count,), path == 0)
    graph = dgl.heterograph(ends, num_nodes_dict=sizes)
    rows = [_one_hot(genre, PATHS), mark[:, None], _one_hot(rng.randint(0, classes, count), classes)]
    return graph, rows, _names(genre=PATHS, mark=1, payload=classes), gold


def _distinct(rng, rows, count, size):
    """[rows, size]: different numbers below `count` in every row."""
    return np.stack([rng.choice(count, size, replace=False) for _ in range(rows)])


KINDS = ("feature", "relation", "recency", "path", "own", "mean")
DRAWN = {
    "feature": _feature,
    "relation": _relation,
    "recency": _recency,
    "path": _path,
    "own": _decoration,
    "mean": _mean,
}
