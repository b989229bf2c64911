"""Several queries to one set or graph: capsules and hops against their equations, written here for one set."""

import pytest
import torch
from batches import batch
from batches import SIZES as NODES
from padded import SIZES, padded_sets

from hgat import ops
from hgat.errors import ShapeError
from hgat.graph import padded
from hgat.nn import CapsuleAttention, CapsulePooling

F, C = 5, 3


def softmax(e):
    return e.exp() / e.exp().sum()


def capsules(layer, x):
    """(p [C], r [C, F], alpha [n, C]) of one set."""
    alpha = torch.stack([softmax(x @ q) for q in layer.query], 1)
    found = alpha.T @ x
    p = 1 / (1 + (-(found * layer.weight).sum(1) - layer.bias).exp())
    return p, p.unsqueeze(1) * found, alpha


def test_capsules_of_sets():
    torch.manual_seed(0)
    layer = CapsuleAttention(F, C).double()
    x, mask = padded_sets(F)
    found, weights = layer(x, mask, get_attention=True)
    for b, n in enumerate(SIZES):
        p, r, alpha = capsules(layer, x[b, :n])
        torch.testing.assert_close((found.probability[b], found.reconstruction[b], weights[b, :n]), (p, r, alpha))
        torch.testing.assert_close(found.mean[b], x[b, :n].sum(0) / max(n, 1))
    assert (found.reconstruction[1] == 0).all() and (weights[~mask] == 0).all()


def test_capsules_of_graphs_are_those_of_their_nodes_as_sets():
    torch.manual_seed(0)
    layer, (graph, feat) = CapsulePooling(F, C).double(), batch(F)
    sets = CapsuleAttention(F, C).double()
    sets.load_state_dict(layer.state_dict())
    x, mask = padded(graph, feat.double())
    found, alpha = layer(graph, feat.double(), get_attention=True)
    wanted, weights = sets(x, mask, get_attention=True)
    torch.testing.assert_close(tuple(found), tuple(wanted))
    torch.testing.assert_close(alpha, weights[mask])


def test_the_loss_of_capsules():
    torch.manual_seed(0)
    layer, (x, mask), target = CapsuleAttention(F, C).double(), padded_sets(F), torch.tensor([2, 0, 1, 1])
    found = layer(x, mask)
    wanted = 0.0
    for b, right in enumerate(target.tolist()):
        y = [-1.0 if c == right else 1.0 for c in range(C)]
        of_p = 1 + sum(y[c] * found.probability[b, c] for c in range(C))
        of_r = 1 + sum(y[c] * (found.reconstruction[b, c] @ found.mean[b]) for c in range(C))
        wanted = wanted + max(of_p, 0 * of_p) + 0.5 * max(of_r, 0 * of_r)
    torch.testing.assert_close(found.loss(target, 0.5), wanted / len(target))
    right = found._replace(probability=torch.eye(C).double()[target], reconstruction=0 * found.reconstruction)
    assert right.loss(target, 0.0) == 0.0
    with pytest.raises(ShapeError, match=r"target: expected \[B\] = \[4\], got \[3\]"):
        found.loss(target[1:])
    with pytest.raises(ShapeError, match="target: expected the number of a class, int64, got torch.float32"):
        found.loss(target.float())
