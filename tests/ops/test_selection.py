"""The largest logits of each node, and along an axis."""

import pytest
import torch

from hgat import ops
from hgat.errors import GraphError, ShapeError
from zoo import build, typed_graph


@pytest.mark.parametrize("k", [1, 2, 100])
@pytest.mark.parametrize("name", ["homogeneous", "block", "zero_in_degree", "hub", "empty", "no_nodes"])
def test_the_largest_of_each_node(name, k):
    graph = build(name)
    logits = torch.randint(0, 5, (graph.num_edges(), 3)).float()  # many are equal
    logits[::4, 1] = -torch.inf
    want = torch.zeros_like(logits, dtype=torch.bool)
    dst = graph.edges(order="eid")[1].tolist()
    for head in range(3):
        for node in set(dst):
            mine = [e for e, v in enumerate(dst) if v == node and logits[e, head] != -torch.inf]
            want[sorted(mine, key=lambda e: (-float(logits[e, head]), e))[:k], head] = True
    assert torch.equal(ops.top_k_mask(logits, k, graph=graph), want)
    assert torch.equal(ops.top_k_mask(logits[:, 0], k, graph=graph), want[:, 0])


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_the_largest_along_an_axis(dim):
    logits = torch.tensor([[2.0, 2.0, 1.0], [-torch.inf, 0.0, torch.nan], [2.0, 3.0, -torch.inf]])
    want = {
        0: [[True, False, False], [False, False, True], [False, True, False]],
        1: [[True, False, False], [False, False, True], [False, True, False]],
    }
    assert ops.top_k_mask(logits, 1, dim=dim).tolist() == want[abs(dim)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dim": 0}, "top_k_mask: expected a graph or an axis dim, got both"),
        ({"graph": None}, "top_k_mask: expected a graph or an axis dim, got none"),
        ({"k": 0}, "k: expected 1 or more, got 0"),
        ({"k": None}, "k: expected a whole number, 1 or more, got None"),
        ({"logits": torch.zeros(3)}, r"logits: expected \[E, \*\] with E = 120, got \[3\]"),
        ({"logits": torch.zeros(120, dtype=torch.int64)}, "logits: expected a floating-point tensor, got torch.int64"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_wrong_calls(change, sentence):
    arguments = {"logits": torch.zeros(120), "k": 1, "graph": build("homogeneous")} | change
    with pytest.raises(ShapeError, match=sentence):
        ops.top_k_mask(**arguments)
    with pytest.raises(GraphError, match="one relation"):
        ops.top_k_mask(torch.zeros(3), 1, graph=typed_graph())
