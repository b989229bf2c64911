"""The same layer three times: hgat's, DGL's and PyG's, with equal parameters under equal names."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

import hgat
import dgl
from benchmarks.graphs import place

__all__ = ["HOMOGENEOUS", "Peer", "TypedEdges", "dot", "gat", "gatv2", "pyg", "relational", "supergat"]


@lru_cache(maxsize=1)
def pyg():
    """PyTorch Geometric, or None where it is not installed."""
    try:
        import torch_geometric
        import torch_geometric.nn  # noqa: F401
    except ImportError:
        return None
    return torch_geometric


@dataclass
class Peer:
    """A layer of one library. apply: (structure, feat) -> [N_dst, H, D]; leaves: its parameters by common name."""

    layer: nn.Module
    apply: Callable
    leaves: dict[str, torch.Tensor]


def _on_graph(layer):
    return lambda structure, feat: layer(structure.graph, feat)


def _on_edges(layer, heads, width):
    """PyG's layer; on a block the destinations are the first sources, which PyG takes as a pair."""

    def apply(structure, feat):
        if structure.num_dst != structure.num_src:
            feat = (feat, feat[: structure.num_dst])
        return layer(feat, structure.edge_index).view(-1, heads, width)

    return apply


def _copy(targets, sources):
    """Give every tensor of `targets` the values of the one of the same name in `sources`."""
    with torch.no_grad():
        for name, tensor in targets.items():
            tensor.copy_(sources[name])


def _peers(ours, theirs, heads, width, pyg_layer, pyg_leaves):
    """{"hgat", "DGL", "PyG"} -> Peer. DGL's parameters have hgat's names: the state dict goes over as it is."""
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = place(ours), place(theirs)
    found = {
        "hgat": Peer(ours, _on_graph(ours), dict(ours.named_parameters())),
        "DGL": Peer(theirs, _on_graph(theirs), dict(theirs.named_parameters())),
    }
    if pyg_layer is not None:
        _copy(pyg_leaves, found["hgat"].leaves)
        pyg_layer = place(pyg_layer)
        found["PyG"] = Peer(pyg_layer, _on_edges(pyg_layer, heads, width), pyg_leaves)
    return found


def gat(in_feats, width, heads):
    """GATConv of all three, with a bias behind the sum; PyG adds no self-loops of its own, the graph has them."""
    torch.manual_seed(0)
    ours, theirs = hgat.nn.GATConv(in_feats, width, heads), dgl.nn.GATConv(in_feats, width, heads)
    layer, leaves = None, None
    if pyg() is not None:
        layer = pyg().nn.GATConv(in_feats, width, heads, add_self_loops=False)
        leaves = {"fc.weight": layer.lin.weight, "attn_l": layer.att_src, "attn_r": layer.att_dst, "bias": layer.bias}
    return _peers(ours, theirs, heads, width, layer, leaves)


def gatv2(in_feats, width, heads):
    """GATv2Conv of all three, with a projection for each end; without biases, which stand in other places in PyG."""
    torch.manual_seed(0)
    ours = hgat.nn.GATv2Conv(in_feats, width, heads, bias=False)
    theirs = dgl.nn.GATv2Conv(in_feats, width, heads, bias=False)
    layer, leaves = None, None
    if pyg() is not None:
        layer = pyg().nn.GATv2Conv(in_feats, width, heads, add_self_loops=False, bias=False)
        leaves = {"fc_src.weight": layer.lin_l.weight, "fc_dst.weight": layer.lin_r.weight, "attn": layer.att}
    return _peers(ours, theirs, heads, width, layer, leaves)


def dot(in_feats, width, heads):
    """DotGatConv of hgat and DGL; PyG's TransformerConv with one matrix as query, key and value projection.

    With that matrix the results are equal, but PyG's layer multiplies by it three times: its own design, and a small
    part of its time. The operator rows have no projections.
    """
    torch.manual_seed(0)
    ours, theirs = hgat.nn.DotGatConv(in_feats, width, heads), dgl.nn.DotGatConv(in_feats, width, heads)
    layer, leaves = None, None
    if pyg() is not None:
        layer = pyg().nn.TransformerConv(in_feats, width, heads, bias=False, root_weight=False)
        layer.lin_query = layer.lin_value = layer.lin_key
        leaves = {"fc.weight": layer.lin_key.weight}
    return _peers(ours, theirs, heads, width, layer, leaves)


def supergat(in_feats, width, heads):
    """SuperGATConv, MX, of hgat and PyG; DGL has none. PyG's is in eval mode, where it draws no pairs for its loss."""
    torch.manual_seed(0)
    ours = place(hgat.nn.SuperGATConv(in_feats, width, heads))
    found = {"hgat": Peer(ours, _on_graph(ours), dict(ours.named_parameters()))}
    if pyg() is not None:
        layer = pyg().nn.SuperGATConv(in_feats, width, heads, add_self_loops=False, attention_type="MX").eval()
        leaves = {"fc.weight": layer.lin.weight, "attn_l": layer.att_l, "attn_r": layer.att_r, "bias": layer.bias}
        _copy(leaves, found["hgat"].leaves)
        found["PyG"] = Peer(place(layer), _on_edges(layer, heads, width), leaves)
    return found


# Name in the table -> the function that makes the three.
HOMOGENEOUS = {"GATConv": gat, "GATv2Conv": gatv2, "DotGatConv": dot}


# ---------------------------------------------------------------------------------------- one GATConv per relation


class TypedEdges:
    """PyG's form of a typed graph or block: edges {relation: [2, E]}, num_dst {node type: N_dst}."""

    def __init__(self, graph):
        ends = {etype: graph.edges(etype=etype, order="eid") for etype in graph.canonical_etypes}
        self.edges = {etype: place(torch.stack(both).long()) for etype, both in ends.items()}
        self.num_dst = {ntype: graph.num_dst_nodes(ntype) for ntype in graph.dsttypes}


class _PyGRelational(nn.Module):
    """HeteroConv of PyG's GATConv: (TypedEdges, {node type: [N, F]}) -> {node type: [N_dst, H, D]}."""

    def __init__(self, convs, heads, width):
        super().__init__()
        self.conv, self.shape = pyg().nn.HeteroConv(convs, aggr="sum"), (heads, width)

    def forward(self, typed, h):
        ends = {etype: (h[etype[0]], h[etype[2]][: typed.num_dst[etype[2]]]) for etype in typed.edges}
        return {ntype: z.unflatten(1, self.shape) for ntype, z in self.conv(ends, typed.edges).items()}


def relational(in_feats, width, heads, etypes):
    """{"hgat", "DGL", "PyG"} -> (layer, common): GATConv for every relation, the relations added up.

    hgat's is RGATConv within relations, DGL's HeteroGraphConv, PyG's HeteroConv. layer: (graph or block, for PyG
    TypedEdges; {node type: [N, F]}) -> {node type: [N_dst, H, D]}. common: {parameter: gradient} of the layer in hgat's
    names and shapes.
    """
    ours = hgat.nn.RGATConv(in_feats, width, heads, etypes, softmax="within")
    sets = {"DGL": [dgl.nn.GATConv(in_feats, width, heads, bias=False, allow_zero_in_degree=True) for _ in etypes]}
    parts = {"DGL": [(conv.fc.weight, conv.attn_r, conv.attn_l) for conv in sets["DGL"]]}
    layers = {"DGL": dgl.nn.HeteroGraphConv(dict(zip(etypes, sets["DGL"], strict=True)), aggregate="sum")}
    if pyg() is not None:
        sets["PyG"] = [pyg().nn.GATConv(in_feats, width, heads, add_self_loops=False, bias=False) for _ in etypes]
        parts["PyG"] = [(conv.lin.weight, conv.att_dst, conv.att_src) for conv in sets["PyG"]]
        layers["PyG"] = _PyGRelational(dict(zip(etypes, sets["PyG"], strict=True)), heads, width)
    with torch.no_grad():
        for by_relation in parts.values():
            for number, (weight, to_query, to_key) in enumerate(by_relation):
                weight.copy_(ours.weight[number].T)
                to_query.copy_(ours.attn[number, :, :, 0])
                to_key.copy_(ours.attn[number, :, :, 1])

    def named(name):
        def common(grads):
            weight, to_query, to_key = zip(*[[grads[p] for p in three] for three in parts[name]], strict=True)
            attn = torch.stack([torch.cat(to_query), torch.cat(to_key)], -1)
            return {"weight": torch.stack([one.T for one in weight]), "attn": attn}

        return common

    ours, layers = place(ours), {name: place(layer) for name, layer in layers.items()}
    first = {"hgat": (ours, lambda grads: {name: grads[p] for name, p in ours.named_parameters()})}
    return first | {name: (layer, named(name)) for name, layer in layers.items()}
