"""Planetoid's citation graphs: Cora, Citeseer, Pubmed, with the public split.

Format: files `ind.<name>.<part>`, Python 2 pickles but for the last. `allx` (CSR, features) and `ally`
(one-hot labels) hold all nodes but the test nodes, in the order of their ids; `tx` and `ty` the test
nodes, in the order of the text file `test.index`; `graph` a dict from node to list of neighbours. `y` is
read only for its length: the first len(y) nodes are the training set, and the next `layout.val` of the
card (500) the validation set. `x` repeats the first rows of `allx` and is not read.

Traps:
- `test.index` is not sorted: row 0 of `tx` is not the test node with the lowest id.
- Citeseer's test ids have gaps: 15 nodes without links have no row in `tx`. Their ids must exist for the
  others to be right, so they get features of zeros, the label -1, and are in no part of the split.
- `graph` lists some links twice and some from a node to itself. Here each link appears once in each
  direction, and self-loops are left to the graph preparation.
- Some documents have no words: their rows stay zero when features are normalised.
"""

import os
from pathlib import Path
from typing import Literal

import dgl
import numpy as np
import scipy.sparse as sp
import torch

from hgat.data import labels, pickles, tables
from hgat.data.card import Card
from hgat.data.files import find_all
from hgat.data.sets import NodeData
from hgat.data.split import Drawn, class_counts, drawn
from hgat.errors import DataError

LARGEST = 1 << 33  # elements of the features; Pubmed has 10 million


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    normalize: Literal["row", "none"] = "row",
    split: Drawn | None = None,
    draws: int = 10,
) -> NodeData:
    """Load a citation graph.

    `normalize`: "row" divides each node's features by their sum, as GAT does; "none" leaves them.
    `split`: None for the public one, or `draws` at random with the sizes of a paper, of which seed k takes number k in
    turn; see hgat.data.split.drawn.
    """
    path = find_all(card, folder, verify)
    test = _test_ids(path["test"])
    allx, tx = pickles.matrix(path["allx"]), pickles.matrix(path["tx"])
    ally, ty, y = (_rows(path[part]) for part in ("ally", "ty", "y"))
    known, nodes = allx.shape[0], int(test.max()) + 1
    for what, expected, got in (
        ("rows in allx as in ally", len(ally), known),
        ("rows in tx as in ty", len(ty), tx.shape[0]),
        ("test ids as rows in tx", tx.shape[0], len(test)),
        ("features in tx as in allx", allx.shape[1], tx.shape[1]),
        ("classes in ty as in ally", ally.shape[1:], ty.shape[1:]),
    ):
        if expected != got:
            raise DataError(f"{card.name}: expected as many {what}, {expected}, got {got}")
    if test.min() < known:
        raise DataError(f"{path['test']}: expected ids from {known} on, as allx holds the others, got {test.min()}")
    # Some ids have no row, and not most of them.
    if nodes > 2 * (known + len(test)):
        raise DataError(f"{path['test']}: expected ids of {known + len(test)} nodes, got {test.max()}")
    if nodes * allx.shape[1] > LARGEST:
        raise DataError(
            f"{path['allx']}: expected at most {LARGEST:,} features of all nodes, got {nodes} * {allx.shape[1]}"
        )

    feat = torch.zeros(nodes, allx.shape[1])
    feat[:known] = _dense(allx, normalize)
    feat[test] = _dense(tx, normalize)
    label = torch.full((nodes,), -1)
    label[:known] = labels.from_one_hot(ally, path["ally"])
    label[test] = labels.from_one_hot(ty, path["ty"])
    first = len(y)
    second = first + card.layout["val"]
    if second > known:
        raise DataError(f"{path['y']}: expected at most {known - card.layout['val']} rows, got {first}")
    source, target = _links(path["graph"], nodes)
    classes = ally.shape[1]
    splits: tuple = ()
    public, notes = {"train": torch.arange(first), "val": torch.arange(first, second), "test": test}, card.notes
    if split is not None:
        splits, note = drawn(label, classes, split, draws, card.name)
        notes = (*notes, note, class_counts(label, splits, classes))
    return NodeData(
        name=card.name,
        graph=dgl.graph((source, target), num_nodes=nodes),
        feat={"_N": feat},
        target="_N",
        label=label,
        **(splits[0] if splits else public),
        num_classes=classes,
        class_names=labels.class_names(card, classes),
        notes=notes,
        splits=splits,
    )


def _test_ids(path):
    """The ids of test.index in the file's order, int64."""
    ids = [tables.integer(text, path, number) for number, text in tables.lines(path)]
    if not ids or len(set(ids)) != len(ids):
        raise DataError(f"{path}: expected distinct ids, got {len(ids)} lines with {len(set(ids))} ids")
    return torch.tensor(ids)


def _rows(path):
    """The array in a pickle, of two dimensions."""
    value = pickles.read(path, np.ndarray)
    if value.ndim != 2:
        raise DataError(f"{path}: expected an array of two dimensions, got {value.ndim}")
    return value


def _dense(matrix, normalize):
    """float32 tensor of a CSR matrix, its rows divided by their sums if asked."""
    if normalize == "row":
        total = np.asarray(matrix.sum(axis=1)).ravel()
        scale = np.divide(1.0, total, out=np.zeros(len(total)), where=total != 0)
        matrix = sp.diags(scale) @ matrix
    return torch.from_numpy(matrix.toarray().astype(np.float32))


def _ids(values):
    found = np.array(values) if values else np.zeros(0, dtype=np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise TypeError(f"others than whole numbers, {found.dtype} {list(found.shape)}")
    return found.astype(np.int64)


def _links(path, nodes):
    """Both directions of each distinct link between two nodes, sorted by source: two int64 tensors."""
    graph = pickles.read(path, dict)
    try:
        degree = [len(near) for near in graph.values()]
        if sum(degree) > os.path.getsize(path):  # one list under many keys takes little room there and much here
            raise ValueError(f"{sum(degree):,} neighbours in a file of {os.path.getsize(path):,} bytes")
        source = np.repeat(_ids(list(graph)), degree)
        target = _ids([node for near in graph.values() for node in near])
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: expected a dict from node to list of nodes, got {error}") from error
    both = np.stack([np.concatenate([source, target]), np.concatenate([target, source])])
    if both.size and not 0 <= both.min() <= both.max() < nodes:
        raise DataError(f"{path}: expected node ids from 0 to {nodes - 1}, got {both.min()} to {both.max()}")
    both = np.unique(both[:, both[0] != both[1]], axis=1)
    return torch.from_numpy(both[0].copy()), torch.from_numpy(both[1].copy())
