"""DictionaryLookup: graphs in which the right neighbour depends on who asks. Generated, not read from files.

A dictionary of size k is a graph of 2k nodes: k queries, nodes 0 to k - 1, each with a key, and k entries, nodes k to
2k - 1, each with a key and a value. Edges go from every entry to every query. A query's class is the value that stands
under its key, and every dictionary deals the values anew: a permutation of k numbers. To answer is to rank the same
entries differently for every query.

Features are a key, one-hot, and beside it a value, one-hot, with one more place for a query, which has none.
The split is by pairs of key and value: of the k^2 pairs 0.8^(1/k) are drawn, and a dictionary with any other pair is a
test graph, so that each of these asks for something that was never seen. Validation asks for the same: of the pairs
drawn a few are held out once more, k / 10 or one, and what has one of them, about a tenth of what is left where k is 10
or more, is its part. So a state that knows the training pairs by heart is not chosen.

Where `graphs` dictionaries are as many as there are, k! or more, all are taken, else so many are drawn, and those that
are drawn again left out.
Paper: Brody et al. 2022, arXiv:2105.14491, section 4.1 and appendix B.3, which has no validation and, in its code,
up to 32,000 dictionaries, among which some are the same.
"""

from itertools import permutations
from math import factorial
from pathlib import Path

import dgl
import numpy as np
import torch

from hgat.data.card import Card
from hgat.data.sets import NodeData
from hgat.errors import DataError

__all__ = ["load"]

USUAL = {"k": 10, "graphs": 1000}  # of the card
SEEN = 0.8  # share of dictionaries whose pairs are all among those that are drawn, about


def load(
    card: Card, folder: Path, *, verify: bool = True, k: int = 10, graphs: int = 1000, split_seed: int = 0
) -> NodeData:
    """Make dictionaries of k keys, `graphs` at most; split_seed: of permutations, pairs, and the split.

    Nothing is read: `folder` and `verify` say nothing here. Raises DataError for k below 3, or for so few graphs that a
    part of the split has none.
    """
    for name, value, least in (("k", k, 3), ("graphs", graphs, 1)):
        if value < least:
            raise DataError(f"{name}: expected {least} or more, got {value}")
    if not 0 <= split_seed < 2**32:
        raise DataError(f"split_seed: expected a number from 0 to 2**32 - 1, got {split_seed}")
    rng = np.random.RandomState(split_seed)  # NumPy promises that its stream never changes
    values = _dictionaries(k, graphs, rng)
    # A pair is numbered key * k + value.
    drawn = rng.permutation(k * k)[: int(SEEN ** (1 / k) * k * k)]
    part_of = np.full(k * k, 2)
    part_of[drawn] = 0
    part_of[drawn[: max(1, round(k / 10))]] = 1
    latest = part_of[np.arange(k) * k + values].max(1)
    parts = {part: np.flatnonzero(latest == number) for number, part in enumerate(("train", "val", "test"))}
    for part, chosen in parts.items():
        if not len(chosen):
            raise DataError(f"graphs: expected enough for all parts of the split, got none for {part} of {len(values)}")
    train, val, test = (torch.from_numpy(_nodes(chosen, k, 0)).flatten() for chosen in parts.values())
    entry, query = _nodes(np.arange(len(values)), k, k), _nodes(np.arange(len(values)), k, 0)
    src, dst = np.broadcast_arrays(entry[:, None, :], query[:, :, None])
    graph = dgl.graph((torch.from_numpy(src.ravel()), torch.from_numpy(dst.ravel())), num_nodes=2 * k * len(values))
    feat = torch.zeros(graph.num_nodes(), 2 * k + 1)
    feat[torch.arange(len(feat)), torch.arange(k).repeat(2 * len(values))] = 1.0
    feat[torch.from_numpy(query.ravel()), 2 * k] = 1.0
    feat[torch.from_numpy(entry.ravel()), k + torch.from_numpy(values.ravel())] = 1.0
    label = torch.full((graph.num_nodes(),), -1)
    label[torch.from_numpy(query.ravel())] = torch.from_numpy(values.ravel())
    others = [f"{key} = {value}" for key, value in (("k", k), ("graphs", graphs)) if value != USUAL[key]]
    name = f"{card.name} with {', '.join(others)}" if others else card.name
    return NodeData(name, graph, {"_N": feat}, "_N", label, train, val, test, num_classes=k, notes=card.notes)


def _dictionaries(k, graphs, rng):
    """[G, k]: the value under each key."""
    if factorial(k) <= graphs:
        return np.array(list(permutations(range(k))))
    return np.unique(rng.random_sample((graphs, k)).argsort(1), axis=0)


def _nodes(chosen, k, first):
    """[G, k]: k nodes from `first` on of each of these dictionaries."""
    return chosen[:, None] * 2 * k + first + np.arange(k)
