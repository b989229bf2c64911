"""Leaders: graphs in which one node decides, the one that its neighbours vote for most.

Format: none, the data are generated. Every node has a vote, uniform from -1 to 1, and one of `classes` words, drawn at
random. A node's standing is the mean vote of its neighbours; the class of a graph is the word of the node with the
greatest standing, its leader. So neither a node without its edges nor the bag of a graph's nodes tells the class, and a
mean over the nodes drowns the one word that counts: what is to be learned is whose row to read.
Graphs have `least` to `most` nodes, a ring through all of them and as many chords again, each in both directions.

Traps:
- Where two nodes stand nearly alike the answer is a matter of rounding: a graph is drawn anew, edges and votes, until
  its leader is ahead of the next by `MARGIN`. Nodes with the same neighbours always stand alike.
"""

from pathlib import Path

import dgl
import numpy as np
import torch

from hgat.data.card import Card
from hgat.data.sets import GraphData
from hgat.errors import DataError

__all__ = ["load"]

MARGIN = 0.1
USUAL = {"graphs": 2000, "least": 10, "most": 20, "classes": 4}


def load(
    card: Card,
    folder: Path,
    *,
    verify: bool = True,
    graphs: int = 2000,
    least: int = 10,
    most: int = 20,
    classes: int = 4,
    draw: int = 0,
) -> GraphData:
    """Draw the graphs, 60/20/20 for training, validation and test.

    graphs: how many. least, most: nodes of a graph. classes: C, words. draw: the number of the draw. `folder` and
    `verify` are not used. Raises DataError for numbers out of range.
    """
    given = {"graphs": graphs, "least": least, "most": most, "classes": classes}
    for (name, value), floor in zip(given.items(), (10, 4, least, 2), strict=True):
        if value < floor:
            raise DataError(f"{card.name}.{name}: expected {floor} or more, got {value}")
    rng = np.random.RandomState(draw)  # NumPy promises that its stream never changes
    drawn = [_drawn(rng, rng.randint(least, most + 1), classes) for _ in range(graphs)]
    pairs, votes, words, leader = zip(*drawn, strict=True)
    sizes, counts = np.array([len(v) for v in votes]), np.array([len(p) for p in pairs])
    ends = np.concatenate(pairs) + (np.cumsum(sizes) - sizes).repeat(counts)[:, None]
    graph = dgl.graph(tuple(torch.from_numpy(ends).T.contiguous()), num_nodes=int(sizes.sum()))
    graph.set_batch_num_nodes(torch.from_numpy(sizes))
    graph.set_batch_num_edges(torch.from_numpy(counts))
    feat = np.concatenate([np.concatenate(votes)[:, None], np.eye(classes)[np.concatenate(words)]], 1)
    label = [words[k][leader[k]] for k in range(graphs)]
    order = torch.from_numpy(rng.permutation(graphs))
    held = graphs // 5
    others = [f"{key} = {value}" for key, value in given.items() if value != USUAL[key]]
    return GraphData(
        name=f"{card.name} with {', '.join(others)}" if others else card.name,
        graph=graph,
        feat={"_N": torch.from_numpy(feat).float()},
        label=torch.tensor(label),
        train=order[2 * held :],
        val=order[:held],
        test=order[held : 2 * held],
        num_classes=classes,
        notes=card.notes,
    )


def _drawn(rng, nodes, classes):
    """(pairs [E, 2], votes [N], words [N], the leader) of one graph."""
    ring = np.arange(nodes)
    while True:
        chords = rng.randint(0, nodes, (nodes, 2))
        chords = chords[chords[:, 0] != chords[:, 1]]
        pairs = np.concatenate([np.stack([ring, (ring + 1) % nodes], 1), chords])
        pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
        src, dst = pairs.T
        votes = rng.uniform(-1, 1, nodes)
        standing = np.bincount(dst, votes[src], nodes) / np.bincount(dst)
        second, first = np.sort(standing)[-2:]
        if first - second >= MARGIN:
            return pairs, votes, rng.randint(0, classes, nodes), int(standing.argmax())
