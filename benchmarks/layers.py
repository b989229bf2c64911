"""Whole layers with shared parameters: projection, scores, softmax, sum, bias.

- GATConv, GATv2Conv, DotGatConv: hgat, DGL, and PyG's GATConv, GATv2Conv and TransformerConv, on the power-law graph of
  ogbn-arxiv's size, on Cora, and on one block of a NeighborSampler (kept, so that its structure is built already; the
  command `blocks` has new blocks).
- SuperGATConv, MX: hgat and PyG, on the same graphs but blocks, which PyG's layer does not take.
- HGTConv: hgat and DGL on the typed graph made homogeneous; PyG on the typed graph. PyG applies GELU before the output
  projection, DGL and hgat do not: it is taken out of PyG's layer, and its biases are zero.
- RGATConv: hgat, DGL's hetero edge softmax (DGL has no such layer: `DGLRelational` below is what its users write), and
  PyG's RGATConv, across relations, additive. PyG has one score vector for all relations where hgat has one for each:
  all relations get the same one, and its gradients are compared summed over relations. PyG copies a matrix for every
  edge, so there is a smaller typed graph for it beside the large one.
- FAConv: hgat; PyG's layer with the same weights of edges, given to it, so that it normalises nothing and adds no
  self-loops; DGL's built-in message functions on a score for each end; and "authors", the message passing of FAGCN's
  authors in DGL, which concatenates both ends' rows on every edge. On the arxiv graph, beside the operators' floor.
- SiGATConv: hgat; 38 of DGL's and of PyG's GATConv, one for each motif's graph, in a loop. On Bitcoin-Alpha's training
  edges. hgat's bias, which its score sees, is zero and not compared.
- HANConv: hgat and PyG with one projection for all meta-paths and ReLU; hgat and DGL, in the way of DGL's HAN example,
  with a projection for each and ELU. On HAN's ACM, and on two power-law graphs of ogbn-arxiv's size together.

Gradients are taken of the parameters and of the input, as in any layer but the first.
"""

from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

import hgat
import dgl
import dgl.function as fn
from benchmarks import graphs
from benchmarks.graphs import Missing
from benchmarks.memory import Spec
from benchmarks.operators import FLOOR
from benchmarks.peers import HOMOGENEOUS, pyg, supergat
from benchmarks.timing import Candidate, Case
from dgl.nn.functional import edge_softmax

__all__ = ["DGLHan", "DGLRelational", "frequency", "han", "hgt", "homogeneous", "rgat", "signed", "specs"]


def _input(rows, width):
    return graphs.place(torch.randn((rows, width), generator=torch.Generator().manual_seed(1)).requires_grad_())


# ---------------------------------------------------------------------------------------- GAT, GATv2, dot product


PROOF = 0.01  # of the size, for a proof in float64


def homogeneous(layer, where, heads=4, width=32, in_feats=128, scale=1.0, root=None, dtype="float32"):
    """The case of a layer with one relation; where: "arxiv", "block" or "cora"."""
    dtype = getattr(torch, dtype)
    if where == "cora":
        structure, task = graphs.cora(root)
        (feat,) = (graphs.place(x.clone().requires_grad_()) for x in task.feat.values())
        in_feats = feat.shape[1]
    else:
        structure = graphs.arxiv(scale) if where == "arxiv" else graphs.block(scale=scale)
        feat = _input(structure.num_src, in_feats).detach().to(dtype).requires_grad_()
    candidates = []
    for name, peer in {**HOMOGENEOUS, "SuperGATConv": supergat}[layer](in_feats, width, heads).items():
        peer.layer.to(dtype)
        leaves = {"feat": feat, **peer.leaves}
        candidates.append(Candidate(name, lambda apply=peer.apply: apply(structure, feat), leaves))
    proof = None
    if (layer, where, dtype) == ("SuperGATConv", "arxiv", torch.float32):
        # Of ten million products of two scores a few are so near zero that rounding says on which side.
        def proof():
            return homogeneous(layer, where, heads, width, in_feats, min(scale, PROOF), dtype="float64")

    return Case(f"{layer} {heads} x {width}, {where}", candidates, proof=proof)


# ---------------------------------------------------------------------------------------- FAGCN


def frequency(width=64, scale=1.0):
    """The case of FAConv, one layer of the stack: its own input is where the stack began."""
    structure = graphs.arxiv(scale)
    graph, feat, initial = structure.graph, _input(structure.num_src, width), _input(structure.num_src, width)
    weight = hgat.graph.normalized(graph)
    torch.manual_seed(0)
    ours = graphs.place(hgat.nn.FAConv(width, bias=False))
    gate = ours.gate.weight
    leaves = {"feat": feat, "initial": initial, "gate": gate}

    def scored(edges):
        return {"e": torch.tanh(edges.data["e"]) * edges.data["w"]}

    def concatenated(edges):
        score = torch.cat([edges.dst["h"], edges.src["h"]], 1) @ gate.T
        return {"e": torch.tanh(score) * edges.data["w"]}

    def theirs(built_in):
        with graph.local_scope():
            graph.ndata["h"], graph.edata["w"] = feat, weight.unsqueeze(1)
            if built_in:
                graph.ndata["er"], graph.ndata["el"] = (feat @ part.unsqueeze(1) for part in gate[0].chunk(2))
                graph.apply_edges(fn.u_add_v("el", "er", "e"))
                graph.apply_edges(scored)
            else:
                graph.apply_edges(concatenated)
            graph.update_all(fn.u_mul_e("h", "e", "m"), fn.sum("m", "out"))
            return graph.ndata["out"] + ours.eps * initial

    candidates = [
        Candidate("hgat", lambda: ours(graph, feat, initial, weight), leaves),
        Candidate("DGL", lambda: theirs(built_in=True), leaves),
        Candidate("authors", lambda: theirs(built_in=False), leaves),
    ]
    if pyg() is not None:
        candidates.append(_pyg_frequency(structure, ours, feat, initial, weight))
    floor = Candidate(FLOOR, lambda: dgl.ops.copy_u_sum(graph, feat), {"feat": feat}, compared=False)
    return Case(f"FAConv {width}, arxiv", [*candidates, floor])


def _pyg_frequency(structure, ours, feat, initial, weight):
    """PyG's FAConv with the gate of hgat's layer, whose halves are its att_r and att_l."""
    layer = graphs.place(pyg().nn.FAConv(feat.shape[1], ours.eps, add_self_loops=False, normalize=False))
    ends = layer.att_r.weight, layer.att_l.weight
    with torch.no_grad():
        for end, part in zip(ends, ours.gate.weight.chunk(2, 1), strict=True):
            end.copy_(part)
    edges = structure.edge_index
    sorted_weight = graphs.place(weight[torch.argsort(structure.graph.edges(order="eid")[1], stable=True)])

    def common(grads):
        return {name: grads[name] for name in ("feat", "initial")} | {
            "gate": torch.cat([grads["dst"], grads["src"]], 1)
        }

    leaves = {"feat": feat, "initial": initial, "dst": ends[0], "src": ends[1]}
    return Candidate("PyG", lambda: layer(feat, initial, edges, sorted_weight), leaves, common)


# ---------------------------------------------------------------------------------------- RGAT


class DGLRelational(nn.Module):
    """ARGAT in DGL's own message passing: a loop over relations, one softmax over all of them by DGL's edge_softmax.

    Takes and gives {node type: ...}; the parameters are hgat's RGATConv's: weight [R, F, H * D], attn [R, H, D, 2].
    """

    def __init__(self, layer, etypes):
        super().__init__()
        self.etypes = etypes
        self.weight = nn.Parameter(layer.weight.detach().clone())
        self.attn = nn.Parameter(layer.attn.detach().clone())

    def forward(self, graph, feat):
        heads, width = self.attn.shape[1:3]
        with graph.local_scope():
            logits, messages = {}, {}
            for number, etype in enumerate(self.etypes):
                query, key = self.attn[number].unbind(-1)
                value = (feat[etype[0]] @ self.weight[number]).view(-1, heads, width)
                at_dst = (feat[etype[2]] @ self.weight[number]).view(-1, heads, width)
                relation = graph[etype]
                relation.srcdata[f"value {number}"] = value
                relation.srcdata["el"] = (value * key).sum(-1, keepdim=True)
                relation.dstdata["er"] = (at_dst * query).sum(-1, keepdim=True)
                relation.apply_edges(fn.u_add_v("el", "er", "e"))
                logits[etype] = F.leaky_relu(relation.edata.pop("e"), 0.2)
                graph.nodes[etype[0]].data[f"value {number}"] = value
                messages[etype] = (fn.u_mul_e(f"value {number}", "a", "m"), fn.sum("m", "out"))
            graph.edata["a"] = edge_softmax(graph, logits)
            graph.multi_update_all(messages, "sum")
            return dict(graph.ndata["out"])


def joined_edges(graph):
    """PyG's view of a typed graph: (edge_index over all nodes, relation of each edge), sorted by destination."""
    start, total = {}, 0
    for ntype in graph.ntypes:
        start[ntype] = total
        total += graph.num_nodes(ntype)
    ends, kinds = [], []
    for number, etype in enumerate(graph.canonical_etypes):
        src, dst = graph.edges(etype=etype, order="eid")
        ends.append(torch.stack([src + start[etype[0]], dst + start[etype[2]]]))
        kinds.append(torch.full((src.numel(),), number))
    ends, kinds = torch.cat(ends, 1), torch.cat(kinds)
    order = torch.argsort(ends[1], stable=True)
    return ends[:, order].contiguous(), kinds[order]


def rgat_trio(graph, in_feats, width, heads):
    """{"hgat", "DGL", "PyG"} -> (module, apply, leaves, common): ARGAT with one score vector for all relations.

    apply: one tensor over all nodes, by type in the graph's order -> the same, [N, H * D].
    """
    torch.manual_seed(0)
    counts = [graph.num_nodes(ntype) for ntype in graph.ntypes]
    ours = hgat.nn.RGATConv(in_feats, width, heads, graph.canonical_etypes)
    with torch.no_grad():
        ours.attn.copy_(ours.attn[:1].expand_as(ours.attn).clone())
    ours = graphs.place(ours)
    theirs = DGLRelational(ours, graph.canonical_etypes)

    def on_graph(layer):
        def apply(x):
            out = layer(graph, dict(zip(graph.ntypes, x.split(counts), strict=True)))
            return torch.cat([out[ntype].flatten(1) for ntype in graph.ntypes])

        return apply

    def summed(grads):
        return {**grads, "attn": grads["attn"].sum(0)}

    found = {
        name: (layer, on_graph(layer), {"weight": layer.weight, "attn": layer.attn}, summed)
        for name, layer in (("hgat", ours), ("DGL", theirs))
    }
    if pyg() is not None:
        edges, kinds = (graphs.place(x) for x in joined_edges(graph))
        layer = pyg().nn.RGATConv(
            in_feats,
            width,
            len(graph.canonical_etypes),
            attention_mechanism="across-relation",
            attention_mode="additive-self-attention",
            heads=heads,
            bias=False,
        )
        # PyG's q and k are [H * D, H]: every head could read every head's numbers. The paper's form is on the diagonal.
        diagonal = torch.arange(heads)
        with torch.no_grad():
            layer.weight.copy_(ours.weight)
            for number, matrix in enumerate((layer.q, layer.k)):
                matrix.zero_()
                matrix.view(heads, width, heads)[diagonal, :, diagonal] = ours.attn[0, :, :, number].to(matrix.device)
        layer = graphs.place(layer)

        def own_heads(grads):
            q, k = (grads.pop(name).view(heads, width, heads)[diagonal, :, diagonal] for name in ("q", "k"))
            return {**grads, "attn": torch.stack([q, k], -1)}

        leaves = {"weight": layer.weight, "q": layer.q, "k": layer.k}
        found["PyG"] = (layer, lambda x: layer(x, edges, kinds), leaves, own_heads)
    return found


def rgat(share, heads=4, width=16, in_feats=16, scale=1.0):
    """The case of RGATConv on a `share` of ogbn-mag's size."""
    graph = graphs.typed(share * scale)
    feat = _input(graph.num_nodes(), in_feats)
    candidates = [
        Candidate(name, lambda apply=apply: apply(feat), {"feat": feat, **leaves}, common)
        for name, (_, apply, leaves, common) in rgat_trio(graph, in_feats, width, heads).items()
    ]
    return Case(f"RGATConv {heads} x {width}, mag / {round(1 / share)}", candidates)


# ---------------------------------------------------------------------------------------- HGT


def hgt(share, heads=4, width=16, scale=1.0):
    """The case of HGTConv on a `share` of ogbn-mag's size; in width = out width = heads * width, so that all skip."""
    if not hasattr(hgat.nn, "HGTConv"):
        raise Missing("HGTConv left out: this version of hgat has none")
    graph = graphs.typed(share * scale)
    counts = [graph.num_nodes(ntype) for ntype in graph.ntypes]
    size = heads * width
    flat = dgl.to_homogeneous(graph)
    flat.create_formats_()
    ntype, etype = flat.ndata[dgl.NTYPE], flat.edata[dgl.ETYPE]
    torch.manual_seed(0)
    sizes = (size, width, heads, len(graph.ntypes), len(graph.canonical_etypes))
    theirs = dgl.nn.HGTConv(*sizes, dropout=0.0)
    with torch.no_grad():  # all ones as made: then a gradient that ends at the wrong relation would not show
        for parameter in (theirs.skip, *theirs.relation_pri):
            parameter.uniform_(0.5, 1.5)
    ours = hgat.nn.HGTConv(*sizes, dropout=0.0)
    ours.load_state_dict(theirs.state_dict())
    feat = _input(sum(counts), size)
    candidates = []
    for name, layer in (("hgat", ours), ("DGL", theirs)):
        leaves = {"feat": feat, **dict(layer.named_parameters())}
        candidates.append(Candidate(name, lambda layer=layer: layer(flat, feat, ntype, etype, presorted=True), leaves))
    if pyg() is not None:
        candidates.append(_pyg_hgt(graph, theirs, feat, counts, heads, width))
    return Case(f"HGTConv {heads} x {width}, mag / {round(1 / share)}", candidates)


def _pyg_hgt(graph, theirs, feat, counts, heads, width):
    """PyG's HGTConv with the parameters of DGL's layer, and its gradients under DGL's names."""
    size, relations = heads * width, graph.canonical_etypes
    layer = pyg().nn.HGTConv(size, size, (graph.ntypes, relations), heads)
    edges = {etype: graphs.by_destination(*graph.edges(etype=etype, order="eid")) for etype in relations}
    leaves = {"feat": feat, "k_rel": layer.k_rel.weight, "v_rel": layer.v_rel.weight}
    with torch.no_grad():
        for number, ntype in enumerate(graph.ntypes):
            three = [getattr(theirs, f"linear_{letter}").W[number].T for letter in "kqv"]
            layer.kqv_lin.lins[ntype].weight.copy_(torch.cat(three))
            layer.kqv_lin.lins[ntype].bias.zero_()
            layer.out_lin.lins[ntype].weight.copy_(theirs.linear_a.W[number].T)
            layer.out_lin.lins[ntype].bias.zero_()
            layer.skip[ntype].fill_(float(theirs.skip[number]))
            leaves[f"kqv {number}"] = layer.kqv_lin.lins[ntype].weight
            leaves[f"a {number}"] = layer.out_lin.lins[ntype].weight
            leaves[f"skip {number}"] = layer.skip[ntype]
        for number, etype in enumerate(relations):
            prior = layer.p_rel["__".join(etype)]
            prior.copy_(torch.stack([pri[number] for pri in theirs.relation_pri]).view(1, -1))
            leaves[f"prior {number}"] = prior
        layer.k_rel.weight.copy_(torch.cat([part.W for part in theirs.relation_att]))
        layer.v_rel.weight.copy_(torch.cat([part.W for part in theirs.relation_msg]))

    def common(grads):
        count = len(graph.ntypes)
        found = {"feat": grads["feat"], "skip": torch.cat([grads[f"skip {n}"] for n in range(count)])}
        three = torch.stack([grads[f"kqv {n}"] for n in range(count)]).chunk(3, 1)
        for letter, part in zip("kqv", three, strict=True):
            found[f"linear_{letter}.W"] = part.transpose(1, 2)
        found["linear_a.W"] = torch.stack([grads[f"a {n}"].T for n in range(count)])
        priors = torch.cat([grads[f"prior {n}"] for n in range(len(relations))])
        for head in range(heads):
            rows = slice(head * len(relations), (head + 1) * len(relations))
            found[f"relation_pri.{head}"] = priors[:, head]
            found[f"relation_att.{head}.W"] = grads["k_rel"][rows]
            found[f"relation_msg.{head}.W"] = grads["v_rel"][rows]
        return found

    def call():
        with mock.patch("torch.nn.functional.gelu", lambda x: x):
            out = layer(dict(zip(graph.ntypes, feat.split(counts), strict=True)), edges)
        return torch.cat([out[ntype] for ntype in graph.ntypes])

    return Candidate("PyG", call, leaves, common)


# ---------------------------------------------------------------------------------------- HAN


class DGLHan(nn.Module):
    """HAN in the way of DGL's HAN example: one dgl.nn.GATConv per meta-path graph, then attention over meta-paths."""

    def __init__(self, layer, in_feats, width, heads, views):
        super().__init__()
        self.inner = nn.ModuleList(dgl.nn.GATConv(in_feats, width, heads, activation=F.elu) for _ in range(views))
        hidden = layer.semantic.project[0].out_features
        self.project = nn.Sequential(nn.Linear(heads * width, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))
        with torch.no_grad():
            for number, conv in enumerate(self.inner):
                conv.fc.weight.copy_(layer.fc[number].T)
                conv.attn_l.copy_(layer.attn_l[number : number + 1])
                conv.attn_r.copy_(layer.attn_r[number : number + 1])
                conv.bias.copy_(layer.bias[number])
        self.project.load_state_dict(layer.semantic.project.state_dict())

    def forward(self, structures, feat):
        pairs = zip(self.inner, structures, strict=True)
        z = torch.stack([conv(structure.graph, feat).flatten(1) for conv, structure in pairs], 1)
        beta = torch.softmax(self.project(z).mean(0), 0)
        return (beta.unsqueeze(0) * z).sum(1)

    def common(self, grads):
        """Gradients by the names of hgat's HANConv."""
        found = {name: grads.pop(name) for name in list(grads) if not name.startswith(("inner.", "project."))}
        count = range(len(self.inner))
        found["fc"] = torch.stack([grads[f"inner.{n}.fc.weight"].T for n in count])
        for name in ("attn_l", "attn_r"):
            found[name] = torch.cat([grads[f"inner.{n}.{name}"] for n in count])
        found["bias"] = torch.stack([grads[f"inner.{n}.bias"] for n in count])
        return found | {f"semantic.{name}": grad for name, grad in grads.items() if name.startswith("project.")}


def han_views(where, scale=1.0, root=None):
    """(views, structures, feat, task or None) of "acm" or of "arxiv", two power-law graphs."""
    if where == "acm":
        views, structures, task = graphs.views_of_acm(root)
        return views, structures, graphs.place(task.feat[task.target].clone().requires_grad_()), task
    views, structures = graphs.two_views(scale)
    return views, structures, _input(views.num_dst, 128), None


def han(against, where, heads=8, width=8, scale=1.0, root=None):
    """The case of HANConv against "PyG" (one projection, ReLU) or "DGL" (one for each meta-path, ELU)."""
    views, structures, feat, _ = han_views(where, scale, root)
    torch.manual_seed(0)
    sizes = (feat.shape[1], width, heads, views.num_views)
    title = f"HANConv {heads} x {width}, {where}, as {against}"
    if against == "DGL":
        ours = graphs.place(hgat.nn.HANConv(*sizes, share_projection=False))
        theirs = graphs.place(DGLHan(ours, feat.shape[1], width, heads, views.num_views))
        leaves = {"feat": feat, **dict(theirs.named_parameters())}
        other = [Candidate("DGL", lambda: theirs(structures, feat), leaves, theirs.common)]
    else:
        ours = hgat.nn.HANConv(*sizes, activation=F.relu, bias=False, semantic_feats=heads * width)
        ours = graphs.place(ours)
        other = [] if pyg() is None else [_pyg_han(ours, structures, feat, heads, width)]
    leaves = {"feat": feat, **dict(ours.named_parameters())}
    return Case(title, [Candidate("hgat", lambda: ours(views, feat), leaves), *other])


def _pyg_han(ours, structures, feat, heads, width):
    """PyG's HANConv with the parameters of hgat's layer; its projection's bias is zero and stays so."""
    relations = [("node", f"view{number}", "node") for number in range(len(structures))]
    layer = graphs.place(pyg().nn.HANConv(feat.shape[1], heads * width, (["node"], relations), heads))
    edges = {etype: structure.edge_index for etype, structure in zip(relations, structures, strict=True)}
    names = ["__".join(etype) for etype in relations]
    leaves = {"feat": feat, "fc": layer.proj["node"].weight, "q": layer.q}
    leaves |= {f"semantic.project.0.{name}": getattr(layer.k_lin, name) for name in ("weight", "bias")}
    with torch.no_grad():
        layer.proj["node"].weight.copy_(ours.fc[0].T)
        layer.proj["node"].bias.zero_()
        layer.k_lin.load_state_dict(ours.semantic.project[0].state_dict())
        layer.q.copy_(ours.semantic.project[2].weight)
        for number, name in enumerate(names):
            layer.lin_src[name].copy_(ours.attn_l[number])
            layer.lin_dst[name].copy_(ours.attn_r[number])
            leaves |= {f"l {number}": layer.lin_src[name], f"r {number}": layer.lin_dst[name]}

    def common(grads):
        found = {name: grads[name] for name in grads if name == "feat" or name.startswith("semantic.")}
        found["fc"] = grads["fc"].T.unsqueeze(0)
        found["semantic.project.2.weight"] = grads["q"]
        for letter in "lr":
            found[f"attn_{letter}"] = torch.cat([grads[f"{letter} {n}"] for n in range(len(names))])
        return found

    return Candidate("PyG", lambda: layer({"node": feat}, edges)["node"], leaves, common)


# ---------------------------------------------------------------------------------------- SiGAT


def signed(width=20, root=None):
    """The case of SiGATConv: one call for all motifs, and a loop over them."""
    graph = graphs.bitcoin_alpha(root)
    views = hgat.graph.signed_motifs(graph)
    feat = _input(views.num_dst, width)
    torch.manual_seed(0)
    ours = graphs.place(hgat.nn.SiGATConv(width, width, views.num_views))
    names = ("weight", "attn_src", "attn_dst")
    leaves = {"feat": feat, **{name: getattr(ours, name) for name in names}}
    src, dst = views.graph.edges(order="eid")
    own = [(src // views.num_dst == number).nonzero().flatten() for number in range(views.num_views)]
    ends = [(src[edges] % views.num_dst, dst[edges] % views.num_dst) for edges in own]
    candidates = [Candidate("hgat", lambda: ours(views, feat), leaves)]
    loops = {"DGL": (dgl.nn.GATConv, [dgl.graph(pair, num_nodes=views.num_dst) for pair in ends])}
    if pyg() is not None:
        loops["PyG"] = pyg().nn.GATConv, [torch.stack(pair) for pair in ends]
    for name, (layer, structures) in loops.items():
        candidates.append(_one_by_one(name, layer, structures, ours, feat, width))
    return Case(f"SiGATConv {views.num_views} motifs x {width}, Bitcoin-Alpha", candidates)


def _one_by_one(name, layer, structures, ours, feat, width):
    """A loop over the motifs with a GATConv of DGL's or PyG's for each, with the parameters of hgat's layer."""
    by_dgl = name == "DGL"
    options = {} if by_dgl else {"add_self_loops": False}
    convs = [graphs.place(layer(width, width, 1, negative_slope=0.1, bias=False, **options)) for _ in structures]
    ends = ("attn_l", "attn_r") if by_dgl else ("att_src", "att_dst")
    leaves = {"feat": feat}
    with torch.no_grad():
        for number, conv in enumerate(convs):
            project = conv.fc if by_dgl else conv.lin
            project.weight.copy_(ours.weight[number].T)
            leaves[f"weight {number}"] = project.weight
            for end, mine in zip(ends, ("attn_src", "attn_dst"), strict=True):
                getattr(conv, end).copy_(getattr(ours, mine)[number].view(1, 1, -1))
                leaves[f"{mine} {number}"] = getattr(conv, end)

    def common(grads):
        count = range(len(convs))
        found = {"feat": grads["feat"], "weight": torch.stack([grads[f"weight {n}"].T for n in count])}
        return found | {n: torch.cat([grads[f"{n} {k}"] for k in count]) for n in ("attn_src", "attn_dst")}

    def call():
        pairs = zip(convs, structures, strict=True)
        rows = [conv(part, feat) if by_dgl else conv(feat, part) for conv, part in pairs]
        return torch.stack([row.flatten(1) for row in rows], 1)

    return Candidate(name, call, leaves, common)


def specs(scale=1.0, root=None):
    """Every layer on every graph."""
    arxiv_bytes = int(graphs.ARXIV[1] * scale) * 128 * 4

    def spec(function, title, edge_bytes=0, **options):
        return Spec(f"benchmarks.layers:{function}", options, edge_bytes, title=title)

    for layer in (*HOMOGENEOUS, "SuperGATConv"):
        large, small = f"{layer} 4 x 32", f"{layer} 8 x 8, cora"
        yield spec("homogeneous", f"{large}, arxiv", arxiv_bytes, layer=layer, where="arxiv", scale=scale)
        if layer in HOMOGENEOUS:
            yield spec("homogeneous", f"{large}, block", layer=layer, where="block", scale=scale)
        yield spec("homogeneous", small, layer=layer, where="cora", heads=8, width=8, root=root)
    for width in (64, 128):
        # Both ends' rows on every edge are what the authors' form makes.
        edge_bytes = int(graphs.ARXIV[1] * scale) * 2 * width * 4
        yield spec("frequency", f"FAConv {width}, arxiv", edge_bytes, width=width, scale=scale)
    yield spec("signed", "SiGATConv 38 motifs x 20, Bitcoin-Alpha", root=root)
    for share in (0.1, 0.01):
        edges, where = int(2 * sum(graphs.MAG_EDGES.values()) * share * scale), f"mag / {round(1 / share)}"
        yield spec("hgt", f"HGTConv 4 x 16, {where}", edges * 64 * 4 * 2, share=share, scale=scale)
        yield spec("rgat", f"RGATConv 4 x 16, {where}", edges * 16 * 64 * 4, share=share, scale=scale)
    for against in ("DGL", "PyG"):
        for where, edge_bytes, options in (("arxiv", arxiv_bytes // 2, {"scale": scale}), ("acm", 0, {"root": root})):
            yield spec(
                "han", f"HANConv 8 x 8, {where}, as {against}", edge_bytes, against=against, where=where, **options
            )
