"""HGTConv against dgl.nn.HGTConv: parameters, outputs, every gradient; and what it must not build or keep."""

import inspect
import io

import dgl
import dgl.nn as dglnn
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hgat import ops
from hgat.errors import GraphError, ShapeError
from hgat.nn import HGTConv
from zoo import ZOO, build, typed_graph

IN, HEAD, HEADS, NTYPES, ETYPES = 7, 5, 3, 3, 4
GRAPHS = [name for name in ZOO if name not in ("bipartite", "relation_slice")]


def _types(graph, is_sorted=False):
    ntype, etype = torch.randint(NTYPES, (graph.num_src_nodes(),)), torch.randint(ETYPES, (graph.num_edges(),))
    return (ntype.sort()[0], etype.sort()[0]) if is_sorted else (ntype, etype)


def _pair(in_size=IN, **options):
    """DGL's layer with parameters away from their constants, and hgat's with the same."""
    options.setdefault("dropout", 0.0)
    theirs = dglnn.HGTConv(in_size, HEAD, HEADS, NTYPES, ETYPES, **options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    ours = HGTConv(in_size, HEAD, HEADS, NTYPES, ETYPES, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def _same(got, expected, what):
    scale = max(1.0, float(expected.detach().abs().max()) if expected.numel() else 1.0)
    torch.testing.assert_close(got, expected, atol=1e-5 * scale, rtol=0, msg=lambda m: f"{what}: {m}")


def _compare(theirs, ours, graph, types, **options):
    x = torch.randn(graph.num_src_nodes(), ours.in_size, requires_grad=True)
    expected, got = theirs(graph, x, *types, **options), ours(graph, x, *types, **options)
    assert got.shape == (graph.num_dst_nodes(), HEAD * HEADS)
    _same(got, expected, "output")
    cotangent = torch.randn_like(expected)
    names = [name for name, _ in theirs.named_parameters()]
    by_name = dict(ours.named_parameters())
    assert set(by_name) == set(names)
    of_theirs = torch.autograd.grad(expected, [x, *theirs.parameters()], cotangent, allow_unused=True)
    of_ours = torch.autograd.grad(got, [x, *(by_name[n] for n in names)], cotangent, allow_unused=True)
    for name, mine, yours in zip(["x", *names], of_ours, of_theirs, strict=True):
        # Without edges DGL's graph of gradients ends before the relations: no gradient is a gradient of zero.
        mine, yours = (torch.zeros_like(by_name[name]) if g is None else g for g in (mine, yours))
        _same(mine, yours, f"gradient of {name}")


@pytest.mark.filterwarnings("ignore:The input graph for the user-defined edge function")
@pytest.mark.parametrize("idtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("name", GRAPHS)
def test_outputs_and_gradients_equal_dgl(name, idtype):
    graph = build(name, idtype)
    types = _types(graph)
    theirs, ours = _pair()
    _compare(theirs, ours, graph, types)
    # and back again: what hgat trained loads into DGL's layer
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.load_state_dict(ours.state_dict())
    _compare(theirs, ours, graph, types)


@pytest.mark.parametrize("use_norm", [False, True])
@pytest.mark.parametrize("in_size", [IN, HEAD * HEADS])
@pytest.mark.parametrize("name", ["homogeneous", "block", "zero_in_degree"])
def test_options_equal_dgl(name, in_size, use_norm):
    graph = build(name)
    theirs, ours = _pair(in_size, use_norm=use_norm)
    assert (in_size == HEAD * HEADS) == ("residual_w" not in ours.state_dict())
    _compare(theirs, ours, graph, _types(graph))


@pytest.mark.parametrize("presorted", [False, True])
@pytest.mark.parametrize("name", ["homogeneous", "multi_edges", "hub", "block"])
def test_sorted_types_equal_dgl(name, presorted):
    graph = build(name)
    theirs, ours = _pair()
    _compare(theirs, ours, graph, _types(graph, is_sorted=True), presorted=presorted)


def test_presorted_is_no_promise_that_can_break():
    graph, (_, ours) = build("homogeneous"), _pair()
    x, types = torch.randn(23, IN), _types(graph)
    assert torch.equal(ours(graph, x, *types, presorted=True), ours(graph, x, *types))


@pytest.mark.parametrize("presorted", [False, True])
def test_typed_graph_made_homogeneous_equals_dgl(presorted):
    graph = dgl.to_homogeneous(typed_graph())
    theirs, ours = _pair()
    _compare(theirs, ours, graph, (graph.ndata[dgl.NTYPE], graph.edata[dgl.ETYPE]), presorted=presorted)


def test_sampled_blocks_equal_dgl():
    graph = dgl.to_homogeneous(typed_graph())
    sampler = dgl.dataloading.NeighborSampler([3])
    loader = dgl.dataloading.DataLoader(graph, torch.arange(graph.num_nodes()), sampler, batch_size=5)
    theirs, ours = _pair()
    for _, _, (block,) in loader:
        _compare(theirs, ours, block, (block.srcdata[dgl.NTYPE], block.edata[dgl.ETYPE]))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_types_of_any_whole_number(dtype):
    graph, (_, ours) = build("homogeneous"), _pair()
    types, x = _types(graph), torch.randn(23, IN)
    assert torch.equal(ours(graph, x, *(t.to(dtype) for t in types)), ours(graph, x, *types))


def test_double_precision_equals_dgl():
    graph, (theirs, ours) = build("homogeneous"), _pair()
    types, x = _types(graph), torch.randn(23, IN, dtype=torch.float64)
    torch.testing.assert_close(
        ours.double()(graph, x, *types), theirs.double()(graph, x, *types), atol=1e-12, rtol=1e-12
    )


def test_same_seed_drops_what_dgl_drops():
    graph, (theirs, ours) = build("homogeneous"), _pair(dropout=0.5)
    types, x = _types(graph), torch.randn(23, IN)
    torch.manual_seed(3)
    expected = theirs(graph, x, *types)
    torch.manual_seed(3)
    _same(ours(graph, x, *types), expected, "output in training")
    _same(ours.eval()(graph, x, *types), theirs.eval()(graph, x, *types), "output in evaluation")
    assert not torch.allclose(ours(graph, x, *types), expected)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.7, "use_norm": True}, {"in_size": HEAD * HEADS}], ids=str)
def test_same_seed_draws_dgls_parameters(options):
    sizes = {"in_size": IN, "head_size": HEAD, "num_heads": HEADS, "num_ntypes": NTYPES, "num_etypes": ETYPES} | options
    torch.manual_seed(5)
    theirs = dglnn.HGTConv(**sizes)
    torch.manual_seed(5)
    ours = HGTConv(**sizes)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, parameter in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], parameter), name
    assert ours.drop.p == theirs.drop.p


def test_reset_draws_the_same_distribution():
    layer = HGTConv(48, 8, 8, 3, 4, use_norm=True).requires_grad_(False)
    before = {name: p.clone() for name, p in layer.named_parameters()}
    for parameter in layer.parameters():
        parameter.fill_(7.0)
    layer.reset_parameters()
    for name, parameter in layer.named_parameters():
        assert float(parameter.mean()) == pytest.approx(float(before[name].mean()), abs=0.05), name
        assert float(parameter.std()) == pytest.approx(float(before[name].std()), rel=0.1, abs=1e-6), name


def test_constructor_and_forward_take_dgls_arguments():
    for method in ("__init__", "forward"):
        ours, theirs = (inspect.signature(getattr(layer, method)).parameters for layer in (HGTConv, dglnn.HGTConv))
        ours, more = list(ours.values())[: len(theirs)], list(ours.values())[len(theirs) :]
        assert [(p.name, p.default, p.kind) for p in ours] == [(p.name, p.default, p.kind) for p in theirs.values()]
        assert all(p.kind is p.KEYWORD_ONLY and p.default is None for p in more)


def test_every_parameter_gets_a_gradient():
    graph = build("homogeneous")
    ours = HGTConv(IN, HEAD, HEADS, NTYPES, ETYPES, use_norm=True)
    out = ours(graph, torch.randn(23, IN), *_types(graph))
    out.backward(torch.randn_like(out))
    for name, parameter in ours.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name


def test_node_without_in_edges_keeps_its_gated_skip():
    graph, (_, ours) = build("zero_in_degree"), _pair(HEAD * HEADS)
    x, (ntype, etype) = torch.randn(29, HEAD * HEADS), _types(graph)
    alone = graph.in_degrees() == 0
    assert alone.any()
    expected = (1 - torch.sigmoid(ours.skip[ntype]))[:, None] * x
    torch.testing.assert_close(ours(graph, x, ntype, etype)[alone], expected[alone])


def test_nodes_in_another_order_give_outputs_in_that_order():
    graph, (_, ours) = build("multi_edges"), _pair()
    x, (ntype, etype) = torch.randn(11, IN), _types(graph)
    order = torch.randperm(11)
    place = torch.argsort(order)
    src, dst = graph.edges(order="eid")
    moved = dgl.graph((place[src], place[dst]), num_nodes=11)
    _same(ours(moved, x[order], ntype[order], etype), ours(graph, x, ntype, etype)[order], "output")


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_graph_restricted_to_one_sparse_format(form):
    graph, (_, ours) = build("homogeneous"), _pair()
    x, types = torch.randn(23, IN), _types(graph)
    _same(ours(graph.formats(form), x, *types), ours(graph, x, *types), form)


def test_layer_survives_save_and_leaves_the_graph_alone():
    graph, (_, ours) = build("homogeneous"), _pair()
    graph.ndata["mine"] = torch.ones(23)
    x, types = torch.randn(23, IN), _types(graph)
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    assert torch.equal(again(graph, x, *types), ours(graph, x, *types))
    assert set(graph.ndata) == {"mine"} and not graph.edata


def test_training_after_inference_mode():
    graph, (theirs, ours) = build("homogeneous"), _pair()
    with torch.inference_mode():
        types = _types(graph)
        ours(graph, torch.randn(23, IN), *types)
    _compare(theirs, ours, graph, tuple(t.clone() for t in types))


def test_types_changed_in_place_are_seen():
    graph, (theirs, ours) = build("homogeneous"), _pair()
    x, (ntype, etype) = torch.randn(23, IN), _types(graph)
    for types in ((ntype, etype), (ntype, etype.flip(0)), (ntype.flip(0), etype)):
        _same(ours(graph, x, *types), theirs(graph, x, *types), "output")
    for tensor in (ntype, etype):
        before = ours(graph, x, ntype, etype)
        tensor.add_(1).remainder_(3)
        after = ours(graph, x, ntype, etype)
        _same(after, theirs(graph, x, ntype, etype), "output")
        assert not torch.allclose(after, before)


def test_edges_that_join_the_graph_are_seen():
    graph, (theirs, ours) = build("homogeneous"), _pair()
    x, (ntype, etype) = torch.randn(23, IN), _types(graph)
    ours(graph, x, ntype, etype)
    graph.add_edges([1, 2, 3], [4, 4, 4])
    etype = torch.cat([etype, torch.tensor([0, 1, 2])])
    _same(ours(graph, x, ntype, etype), theirs(graph, x, ntype, etype), "output")


class _Largest(TorchDispatchMode):
    """The number of elements of the largest floating-point tensor that a computation makes."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.numel = max(self.numel, tensor.numel())
        return out


def _largest(layer, graph, x, types):
    with _Largest() as largest:
        out = layer(graph, x, *types)
        out.backward(torch.ones_like(out))
    return largest.numel


def test_no_tensor_has_a_row_of_all_heads_for_every_edge():
    """Many edges between few nodes: DGL's layer holds E rows, hgat's at most one for each (node, edge type)."""
    src, dst = torch.randint(11, (3001,)), torch.randint(11, (3001,))
    graph = dgl.graph((src, dst), num_nodes=11)
    theirs, ours = _pair()
    x, types = torch.randn(11, IN), _types(graph)
    ours(graph, x, *types)
    width = HEAD * HEADS
    assert _largest(ours, graph, x, types) <= max(3001 * HEADS, 2 * 11 * ETYPES * width) < 3001 * width
    assert _largest(theirs, graph, x, types) >= 3001 * width  # the measure sees what it is meant to see


@pytest.mark.parametrize("num_etypes", [1, 2, 31])
def test_one_operator_call_for_all_relations(monkeypatch, num_etypes):
    calls = []
    for name in ("dot_product_attention", "typed_projection"):
        run = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *a, _run=run, _name=name, **k: (calls.append(_name), _run(*a, **k))[1])
    graph = build("homogeneous")
    etype = torch.randint(num_etypes, (graph.num_edges(),))
    layer = HGTConv(IN, HEAD, HEADS, NTYPES, num_etypes)
    layer(graph, torch.randn(23, IN), torch.randint(NTYPES, (23,)), etype)
    assert sorted(calls) == ["dot_product_attention"] + 3 * ["typed_projection"]


def test_wrong_arguments_are_one_sentence():
    graph, (_, ours) = build("homogeneous"), _pair()
    x, (ntype, etype) = torch.randn(23, IN), _types(graph)
    for arguments, error, message in (
        ((graph, x[:, :-1], ntype, etype), ShapeError, r"x: expected \[N, F\] = \[23, 7\], got \[23, 6\]"),
        ((graph, x[:-1], ntype, etype), ShapeError, r"x: expected \[N, F\] = \[23, 7\], got \[22, 7\]"),
        ((graph, [1.0], ntype, etype), ShapeError, "x: expected a tensor"),
        ((graph, x, ntype[:-1], etype), ShapeError, r"ntype: expected \[N\] = \[23\], got \[22\]"),
        ((graph, x, ntype, etype[:-1]), ShapeError, r"etype: expected \[E\] = \[120\], got \[119\]"),
        ((graph, x, ntype, etype.float()), ShapeError, "etype: expected a tensor of whole numbers"),
        ((graph, x, ntype, None), ShapeError, "etype: expected a tensor of whole numbers .*got NoneType"),
        ((graph, x, ntype + NTYPES, etype), GraphError, "ntype: expected numbers from 0 to 2, got"),
        ((graph, x, ntype, etype - 1), GraphError, "etype: expected numbers from 0 to 3, got -1"),
        ((typed_graph(), x, ntype, etype), GraphError, "graph: expected one relation, got 4"),
        ((build("bipartite"), torch.randn(19, IN), ntype[:19], etype[:84]), GraphError, "a homogeneous graph or a"),
        ((None, x, ntype, etype), GraphError, "graph: expected a DGLGraph, got NoneType"),
    ):
        with pytest.raises(error, match=message):
            ours(*arguments)
