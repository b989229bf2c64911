"""edge_softmax as a drop-in for DGL's: every form of its arguments, beside DGL's own function."""

import dgl
import pytest
import torch
from backends import ON_CPU
from dgl.base import ALL
from dgl.nn.functional import edge_softmax as of_dgl

from hgat import ops
from hgat.errors import BackendError, GraphError, HgatError, ShapeError
from zoo import ZOO, build, typed_graph


@pytest.fixture(params=ON_CPU)
def backend(request):
    with ops.use_backend(request.param):
        yield request.param


def _same(ours, theirs, logits, **close):
    torch.testing.assert_close(ours, theirs, **close)
    if ours.requires_grad and ours.numel():
        cotangent = torch.randn_like(theirs)
        (mine,) = torch.autograd.grad(ours, logits, cotangent, retain_graph=True)
        (wanted,) = torch.autograd.grad(theirs, logits, cotangent, retain_graph=True)
        torch.testing.assert_close(mine, wanted, **close)


@pytest.mark.parametrize("tail", [(), (1,), (3,), (3, 1), (2, 3), (2, 3, 1), (2, 1, 2, 1)], ids=str)
@pytest.mark.parametrize("norm_by", ["dst", "src"])
@pytest.mark.parametrize("name", ZOO)
def test_every_shape_on_every_graph(backend, name, norm_by, tail):
    graph = build(name)
    logits = torch.randn(graph.num_edges(), *tail, requires_grad=True)
    ours = ops.edge_softmax(graph, logits, norm_by=norm_by)
    assert ours.shape == logits.shape and ours.dtype == logits.dtype
    if graph.num_edges():
        _same(ours, of_dgl(graph, logits, norm_by=norm_by), logits)


@pytest.mark.parametrize("norm_by", ["dst", "src"])
@pytest.mark.parametrize("name", ["homogeneous", "bipartite", "block", "multi_edges", "hub", "relation_slice"])
@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=str)
def test_some_edges(backend, name, norm_by, idtype):
    graph = build(name, idtype)
    for eids in (
        torch.arange(10),
        torch.tensor([7, 3, 5]),
        torch.randperm(graph.num_edges())[:9].int(),
        torch.tensor([0.0, 1.0, 4.0]),  # as in DGL's documentation
        torch.tensor([2]),
        torch.tensor([1, 1, 2, 5, 1]),  # an edge counts as often as it is listed
    ):
        logits = torch.randn(len(eids), 2, 1, requires_grad=True)
        ours = ops.edge_softmax(graph, logits, eids, norm_by)
        _same(ours, of_dgl(graph, logits, eids=eids, norm_by=norm_by), logits)
    logits = torch.randn(graph.num_edges(), 2)
    for every in (ALL, None):
        torch.testing.assert_close(ops.edge_softmax(graph, logits, eids=every), of_dgl(graph, logits))
    some = torch.tensor([4, 0, 2])
    torch.testing.assert_close(ops.edge_softmax(graph, logits[:3], some.tolist()), of_dgl(graph, logits[:3], some))
    assert ops.edge_softmax(graph, logits[:0], torch.tensor([], dtype=torch.int64)).shape == (0, 2)


def _typed():
    return dgl.heterograph(
        {
            ("a", "x", "b"): (torch.randint(0, 5, (11,)), torch.randint(0, 3, (11,))),
            ("b", "y", "b"): (torch.randint(0, 3, (7,)), torch.randint(0, 3, (7,))),
            ("b", "z", "a"): (torch.randint(0, 3, (6,)), torch.randint(0, 5, (6,))),
        },
        {"a": 5, "b": 3},
    )


@pytest.mark.parametrize("tail", [(2,), (2, 1), (1,)], ids=str)
def test_relations_share_one_softmax(backend, tail):
    graph = _typed()
    logits = {e: torch.randn(graph.num_edges(e), *tail, requires_grad=True) for e in graph.canonical_etypes}
    ours = ops.edge_softmax(graph, logits)
    theirs = of_dgl(graph, logits)
    assert set(ours) == set(theirs)
    for etype in logits:
        _same(ours[etype], theirs[etype], logits[etype])
    by_name = ops.edge_softmax(graph, {etype[1]: value for etype, value in logits.items()})
    for etype in logits:
        assert torch.equal(by_name[etype], ours[etype])
        ours[etype] += 1  # what is returned may be overwritten, one by one


def test_relations_by_source(backend):
    graph = _typed()
    logits = {e: torch.randn(graph.num_edges(e), 2) for e in graph.canonical_etypes}
    ours = ops.edge_softmax(graph, logits, norm_by="src")
    # By the definition, over all edges that leave a node.
    for etype, alpha in ours.items():
        src = graph.edges(etype=etype)[0]
        for edge, node in enumerate(src.tolist()):
            total = sum(
                logits[other][graph.edges(etype=other)[0] == node].exp().sum(0)
                for other in graph.canonical_etypes
                if other[0] == etype[0]
            )
            torch.testing.assert_close(alpha[edge], logits[etype][edge].exp() / total)


def test_masks_of_every_form(backend):
    graph = build("homogeneous")
    logits = torch.randn(graph.num_edges(), 3, 1)
    keep = torch.rand(graph.num_edges()) < 0.5
    eids = keep.nonzero().flatten()
    want = torch.zeros_like(logits).index_copy(0, eids, of_dgl(graph, logits[eids], eids=eids))
    for mask in (keep, keep[:, None, None].expand_as(logits)):
        torch.testing.assert_close(ops.edge_softmax(graph, logits, edge_mask=mask), want)
    typed = _typed()
    logits = {e: torch.randn(typed.num_edges(e), 2) for e in typed.canonical_etypes}
    keep = {e: torch.rand(typed.num_edges(e)) < 0.5 for e in typed.canonical_etypes}
    got = ops.edge_softmax(typed, logits, edge_mask=keep)
    want = ops.edge_softmax(typed, {e: x.masked_fill(~keep[e][:, None], -torch.inf) for e, x in logits.items()})
    assert all(torch.equal(got[e], want[e]) for e in logits)


class Elsewhere(torch.Tensor):
    """A tensor that says it is on another device, and that comes from there when it is asked to."""

    device = torch.device("meta")

    def to(self, *arguments):
        return self.as_subclass(torch.Tensor)


def test_numbers_of_edges_that_come_from_a_gpu_are_checked_beside_logits_of_the_cpu():
    graph, logits = build("homogeneous"), torch.randn(2, 3)
    there = torch.tensor([1, 120]).as_subclass(Elsewhere)
    with pytest.raises(GraphError, match="eids: expected edges from 0 to 119, got 1 to 120"):
        ops.edge_softmax(graph, logits, there)
    some = torch.tensor([1, 119])
    found = ops.edge_softmax(graph, logits, some.as_subclass(Elsewhere))
    assert torch.equal(found, ops.edge_softmax(graph, logits, some))


@pytest.mark.parametrize("named", ["native", "triton"])
def test_listed_edges_off_the_cpu_run_on_no_other_backend_than_the_named_one(named):
    graph, listed = build("homogeneous"), torch.tensor([5, 3], device="meta")
    there = torch.randn(2, 3, device="meta")
    for runs in ("torch", "dgl", "auto"):
        with ops.use_backend(runs):
            assert ops.edge_softmax(graph, there, listed).device.type == "meta"
    with ops.use_backend(named), pytest.raises(BackendError, match=f"edge_softmax: no backend .*{named}: "):
        ops.edge_softmax(graph, there, listed)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda g, e: ops.edge_softmax(g, e, norm_by="both"), ShapeError, "norm_by: expected 'dst' or 'src'"),
        (
            lambda g, e: ops.edge_softmax(g, e.sum()),
            ShapeError,
            r"logits: expected a floating-point tensor \[E, \*\], got \[\]",
        ),
        (lambda g, e: ops.edge_softmax(g, e[:3]), ShapeError, r"logits: expected \[E, H\] = \[120, 2\], got \[3, 2\]"),
        (lambda g, e: ops.edge_softmax(g, e[:3], torch.tensor([1, 2])), ShapeError, "eids: expected"),
        (lambda g, e: ops.edge_softmax(g, e[:2], torch.tensor([1, 120])), GraphError, "eids: expected edges from 0"),
        (lambda g, e: ops.edge_softmax(g, e[:2], torch.tensor([1, -1])), GraphError, "eids: expected edges from 0"),
        (lambda g, e: ops.edge_softmax(g, e[:2], "some"), ShapeError, "eids: expected"),
        (lambda g, e: ops.edge_softmax(typed_graph(), e), GraphError, "graph: expected one relation, got 4"),
        (lambda g, e: ops.edge_softmax(_typed(), {"x": torch.ones(11, 1)}), GraphError, "a tensor for every relation"),
        (lambda g, e: ops.edge_softmax(_typed(), {"w": torch.ones(11, 1)}), GraphError, "expected relations of the"),
        (lambda g, e: ops.edge_softmax(g, {"_E": e[:3]}), ShapeError, "logits of"),
        (lambda g, e: ops.edge_softmax(None, {"_E": e}), GraphError, "graph: expected"),
        (lambda g, e: ops.edge_softmax(g, e.long()), ShapeError, "logits: expected a floating-point tensor"),
    ],
)
def test_wrong_calls(call, error, match):
    with pytest.raises(error, match=match) as caught:
        call(build("homogeneous"), torch.randn(120, 2))
    assert isinstance(caught.value, HgatError) and "\n" not in str(caught.value)
