"""Random partition graphs: how many neighbours are of one's own class, and how many there are, is set. Generated.

5,000 nodes of 10 classes, 500 each; nodes 500 c to 500 c + 499 are of class c. Every pair of nodes is joined by itself
with a probability that depends on whether both are of one class: with delta = degree / 500,

    p_in = homophily * delta;   p_out = (1 - homophily) * delta / 9

so that a node has `degree` neighbours on average, of which the share `homophily` is of its own class. Edges go both
ways; there are no self-loops, and with few edges there are nodes alone.

Features are a point of the plane: those of class c are normal about the point of a circle of radius 300 at the angle
2 pi c / 10, with a variance of 24,500 along the circle and 7,000 across it. One mean and one deviation over both
columns make them standard. Classes overlap: the features alone do not tell them apart.
Of each class 20 nodes are for training, 50 for validation, 100 for test.

Paper: Kim and Oh 2021, arXiv:2204.04879, whose synthetic study this is; what it does not say is as in the authors'
code, which draws by NetworkX. Features after Abu-El-Haija et al. 2019, arXiv:1905.00067.
"""

from pathlib import Path

import dgl
import numpy as np
import torch

from hgat.data.card import Card
from hgat.data.sets import NodeData
from hgat.errors import DataError

__all__ = ["load"]

CLASSES, SIZE = 10, 500
PARTS = (20, 50, 100)  # nodes of a class in train, val and test
RADIUS, ALONG, ACROSS = 300.0, 24_500.0, 7_000.0  # of the circle, and variances
USUAL = {"homophily": 0.5, "degree": 10.0}  # of the card


def load(
    card: Card, folder: Path, *, verify: bool = True, homophily: float = 0.5, degree: float = 10.0, split_seed: int = 0
) -> NodeData:
    """Make a graph; homophily: of 0 to 1; degree: above 0, at most 500; split_seed: of edges, features and the split.

    Nothing is read: `folder` and `verify` say nothing here. Raises DataError for numbers out of range.
    """
    if not 0 <= homophily <= 1:
        raise DataError(f"homophily: expected a number from 0 to 1, got {homophily}")
    if not 0 < degree <= SIZE:
        raise DataError(f"degree: expected a number above 0, at most {SIZE}, got {degree}")
    if not 0 <= split_seed < 2**32:
        raise DataError(f"split_seed: expected a number from 0 to 2**32 - 1, got {split_seed}")
    rng = np.random.RandomState(split_seed)  # NumPy promises that its stream never changes
    ends = _edges(homophily * degree / SIZE, (1 - homophily) * degree / SIZE / (CLASSES - 1), rng)
    graph = dgl.graph((torch.cat([ends[0], ends[1]]), torch.cat([ends[1], ends[0]])), num_nodes=CLASSES * SIZE)
    feat = torch.from_numpy(_points(rng)).float()
    order = np.stack([rng.permutation(SIZE) for _ in range(CLASSES)]) + SIZE * np.arange(CLASSES)[:, None]
    first, second, last = np.cumsum(PARTS)
    parts = order[:, :first], order[:, first:second], order[:, second:last]
    train, val, test = (torch.from_numpy(np.sort(part, None)) for part in parts)
    label = torch.arange(CLASSES).repeat_interleave(SIZE)
    given = {"homophily": homophily, "degree": degree}
    others = [f"{key} = {value:g}" for key, value in given.items() if value != USUAL[key]]
    name = f"{card.name} with {', '.join(others)}" if others else card.name
    return NodeData(name, graph, {"_N": feat}, "_N", label, train, val, test, num_classes=CLASSES, notes=card.notes)


def _edges(inside, outside, rng):
    """[2, E / 2]: every pair of nodes that is joined, once."""
    found = []
    for a in range(CLASSES):
        for b in range(a, CLASSES):
            joined = rng.random_sample((SIZE, SIZE)) < (inside if a == b else outside)
            if a == b:
                joined = np.triu(joined, 1)
            src, dst = joined.nonzero()
            found.append(np.stack([src + a * SIZE, dst + b * SIZE]))
    return torch.from_numpy(np.concatenate(found, 1))


def _points(rng):
    """[N, 2], standard."""
    angle = 2 * np.pi * np.repeat(np.arange(CLASSES), SIZE) / CLASSES
    out = np.stack([np.cos(angle), np.sin(angle)], 1)
    on = np.stack([-np.sin(angle), np.cos(angle)], 1)
    across, along = rng.standard_normal((2, len(angle), 1)) * np.sqrt([ACROSS, ALONG])[:, None, None]
    points = (RADIUS + across) * out + along * on
    return (points - points.mean()) / points.std()
