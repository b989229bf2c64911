"""Whole training epochs on the full graph: forward, cross-entropy on the training nodes, backward, one step of Adam.

All libraries train the same model from equal parameters on the same features, labels and training nodes: the stack
around the layers is the same, only the layers differ. Outputs and parameter gradients are compared before the first
step; for several layers also in float64 on a small graph (see `timing.Case`). Dropout and normalisation are off: they
would draw other numbers in each library, and cost all of them the same.

- GAT: ogbn-arxiv's shape: 3 layers, 3 heads x 250 and 40 classes at the end, 128 features, no residuals.
- GATv2: 3 layers of 4 x 32.
- RGAT: 2 layers of 4 x 16 across relations, then a linear map, on typed graphs; DGL and PyG as in `layers`. Within
  relations (in `ogb`) DGL has HeteroGraphConv and PyG HeteroConv, both of GATConv.
- Simple-HGN: 3 layers, two of 8 x 8 and one head at the end, the second with the attention of the first, on the typed
  graph with self-loops; DGL's functions as the authors' code strings them, but the score of each type of edge computed
  once for each type: once for each edge, as there, would take 9 GB a layer.
- HAN: one layer of 8 x 8 and a linear map on HAN's ACM; DGL in the way of its HAN example.
"""

import copy

import dgl
import dgl.function as fn
import torch
import torch.nn.functional as F
from torch import nn

import hgat
from benchmarks import graphs
from benchmarks.layers import DGLHan, han_views, rgat_trio
from benchmarks.memory import Spec
from benchmarks.peers import HOMOGENEOUS, TypedEdges, relational
from benchmarks.timing import Candidate, Case

__all__ = ["han", "rgat", "rgat_within", "simple_hgn", "specs", "stack"]

CLASSES = 40
SMALL = 20_000  # edges of the float64 proof, about


def _candidate(name, logits, leaves, common, label, train):
    """A candidate whose epoch is one optimiser step on cross-entropy."""
    optimizer = torch.optim.Adam(list(leaves.values()), lr=0.001)

    def step():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits()[train], label[train]).backward()
        optimizer.step()

    return Candidate(name, logits, leaves, common, step=step)


def _labels(count, classes=CLASSES):
    """Random labels, and a little more than half of the nodes to train on, as in ogbn-arxiv."""
    generator = torch.Generator().manual_seed(2)
    label = torch.randint(0, classes, (count,), generator=generator)
    train = torch.randperm(count, generator=generator)[: max(int(0.54 * count), 1)]
    return graphs.place(label), graphs.place(train)


def stack(layer, heads, width, scale=1.0, depth=3, in_feats=128, dtype="float32", root=None):
    """The case of `depth` layers of one kind, ELU between them, one head at the end, on the power-law graph.

    root: on ogbn-arxiv in OGB's format there instead.
    """
    dtype = getattr(torch, dtype)
    if root is None:
        structure = graphs.arxiv(scale)
        feat = torch.randn((structure.num_src, in_feats), generator=torch.Generator().manual_seed(1))
        feat = graphs.place(feat.to(dtype))
        label, train = _labels(structure.num_dst)
    else:
        structure, data = graphs.ogb_arxiv(root, scale)
        feat, label, train = data.feat["_N"], data.label, data.split["train"]
    widths = [(in_feats, width, heads)]
    widths += [(heads * width, width, heads)] * (depth - 2) + [(heads * width, CLASSES, 1)]
    peers = [HOMOGENEOUS[layer](*sizes) for sizes in widths]
    candidates = []
    for name in peers[0]:
        layers = [peer[name] for peer in peers]
        for peer in layers:
            peer.layer.to(dtype)
        leaves = {f"{number} {key}": p for number, peer in enumerate(layers) for key, p in peer.leaves.items()}

        def logits(layers=layers):
            h = feat
            for peer in layers[:-1]:
                h = F.elu(peer.apply(structure, h).flatten(1))
            return layers[-1].apply(structure, h).mean(1)

        candidates.append(_candidate(name, logits, leaves, None, label, train))

    def proof():
        return stack(layer, heads, width, min(scale, SMALL / graphs.ARXIV[1]), depth, in_feats, "float64")

    title = f"{layer} {depth} layers, {heads} x {width}, {'arxiv' if root is None else 'ogbn-arxiv'}"
    return Case(title, candidates, ("epoch",), None if dtype is torch.float64 else proof)


def _mag(share, in_feats, scale, dtype, root):
    """(graph, feat of all nodes, rows of the papers, label, train, classes) of a part of ogbn-mag."""
    classes = CLASSES
    if root is None:
        graph = graphs.typed(share * scale)
        label, train = _labels(graph.num_nodes("paper"))
    else:
        graph, data = graphs.ogb_mag(root, share * scale)
        label, train, classes = data.label, data.split["train"], data.num_classes
    feat = torch.randn((graph.num_nodes(), in_feats), generator=torch.Generator().manual_seed(1))
    feat = graphs.place(feat.to(dtype))
    before = sum(graph.num_nodes(ntype) for ntype in graph.ntypes[: graph.ntypes.index("paper")])
    return graph, feat, slice(before, before + graph.num_nodes("paper")), label, train, classes


def _small(share, scale):
    """The part of ogbn-mag for the float64 proof."""
    return min(share * scale, SMALL / (2 * sum(graphs.MAG_EDGES.values())))


def _two_layers(kind, layers, settings, data):
    """The case of two relational layers with ReLU and a linear map of the papers, which all have labels.

    layers: two of {library: (module, run, leaves, common)}; run: rows of all nodes, by type in the graph's order -> the
    same.
    """
    share, heads, width, dtype, root = settings
    _, feat, papers, label, train, classes = data
    start = nn.Linear(heads * width, classes).state_dict()
    first, second = layers
    candidates = []
    for name in first:
        layer_first, run_first, leaves_first, common = first[name]
        layer_second, run_second, leaves_second, common_second = second[name]
        classify = graphs.place(nn.Linear(heads * width, classes))
        classify.load_state_dict(start)
        for module in (layer_first, layer_second, classify):
            module.to(dtype)
        leaves = {f"0 {key}": p for key, p in leaves_first.items()}
        leaves |= {f"1 {key}": p for key, p in leaves_second.items()}
        leaves |= {f"classify {key}": p for key, p in classify.named_parameters()}

        def logits(run_first=run_first, run_second=run_second, classify=classify):
            return classify(F.relu(run_second(F.relu(run_first(feat))))[papers])

        def both(grads, commons=(common, common_second)):
            found = {key: grad for key, grad in grads.items() if key.startswith("classify")}
            for number, common in zip("01", commons, strict=True):
                part = common({key[2:]: grad for key, grad in grads.items() if key.startswith(number)})
                found |= {f"{number} {key}": grad for key, grad in part.items()}
            return found

        candidates.append(_candidate(name, logits, leaves, both, label, train))
    title = f"{kind} 2 layers, {heads} x {width}, {'' if root is None else 'ogbn-'}mag / {round(1 / share)}"
    return Case(title, candidates, ("epoch",))


def rgat(share, heads=4, width=16, in_feats=16, scale=1.0, dtype="float32", root=None):
    """The case of relational layers with one softmax across all relations.

    root: on ogbn-mag in OGB's format there; every node has random features.
    """
    dtype = getattr(torch, dtype)
    data = _mag(share, in_feats, scale, dtype, root)
    layers = [rgat_trio(data[0], size, width, heads) for size in (in_feats, heads * width)]
    case = _two_layers("RGATConv", layers, (share, heads, width, dtype, root), data)
    if dtype is not torch.float64:
        case.proof = lambda: rgat(_small(share, scale), heads, width, in_feats, dtype="float64")
    return case


def rgat_within(share, heads=4, width=16, in_feats=16, scale=1.0, dtype="float32", root=None):
    """The case of relational layers with a softmax for each relation: GATConv by GATConv in DGL and PyG."""
    dtype = getattr(torch, dtype)
    data = _mag(share, in_feats, scale, dtype, root)
    graph, counts = data[0], [data[0].num_nodes(ntype) for ntype in data[0].ntypes]
    torch.manual_seed(0)

    def run(layer, reads):
        def apply(x):
            out = layer(reads, dict(zip(graph.ntypes, x.split(counts), strict=True)))
            return torch.cat([out[ntype].flatten(1) for ntype in graph.ntypes])

        return apply

    layers = []
    for size in (in_feats, heads * width):
        found = {}
        for name, (layer, common) in relational(size, width, heads, graph.canonical_etypes).items():
            leaves = dict(layer.named_parameters())

            def by_name(grads, leaves=leaves, common=common):
                return common({leaves[key]: grad for key, grad in grads.items()})

            found[name] = layer, run(layer, TypedEdges(graph) if name == "PyG" else graph), leaves, by_name
        layers.append(found)
    case = _two_layers("RGAT within", layers, (share, heads, width, dtype, root), data)
    if dtype is not torch.float64:
        case.proof = lambda: rgat_within(_small(share, scale), heads, width, in_feats, dtype="float64")
    return case


def _dgl_simple_hgn(layer, graph, h, etype, past):
    """The authors' forward of a SimpleHGNConv in DGL's functions: (out, alpha)."""
    heads = layer._num_heads
    with graph.local_scope():
        feat = layer.fc(h).unflatten(-1, (heads, -1))
        of_type = (layer.fc_e(layer.edge_emb.weight).unflatten(-1, (heads, -1)) * layer.attn_e).sum(-1, keepdim=True)
        graph.ndata["feat"] = feat
        graph.ndata["el"] = (feat * layer.attn_l).sum(-1, keepdim=True)
        graph.ndata["er"] = (feat * layer.attn_r).sum(-1, keepdim=True)
        graph.apply_edges(fn.u_add_v("el", "er", "e"))
        alpha = dgl.nn.functional.edge_softmax(graph, layer.leaky_relu(graph.edata.pop("e") + of_type[etype]))
        if past is not None:
            alpha = alpha * (1 - layer.beta) + past * layer.beta
        graph.edata["a"] = alpha
        graph.update_all(fn.u_mul_e("feat", "a", "m"), fn.sum("m", "out"))
        out = graph.ndata["out"]
    if layer.res_fc is not None:
        out = out + layer.res_fc(h).unflatten(-1, (heads, -1))
    return (layer.activation(out) if layer.activation else out), alpha.detach()


def simple_hgn(share, heads=8, width=8, in_feats=64, scale=1.0, dtype="float32"):
    """The case of Simple-HGN; every node has random features."""
    dtype = getattr(torch, dtype)
    graph, feat, papers, label, train, classes = _mag(share, in_feats, scale, dtype, None)
    graph = hgat.graph.relations.extended(graph, inverse=False)
    stacked = hgat.graph.stack_types(graph, graph.ntypes, graph.canonical_etypes)
    plain, etype = stacked.graph, graphs.place(stacked.etype)
    plain.create_formats_()
    torch.manual_seed(0)
    sizes = [(in_feats, width, heads), (heads * width, width, heads), (heads * width, classes, 1)]
    options = {"num_etypes": len(graph.canonical_etypes), "negative_slope": 0.05}
    ours = nn.ModuleList(
        hgat.nn.SimpleHGNConv(*size, residual=depth > 0, activation=F.elu if depth < 2 else None, **options)
        for depth, size in enumerate(sizes)
    )
    ours = graphs.place(ours.to(dtype))
    theirs = copy.deepcopy(ours)

    def run_ours(layer, h, past=None, tells=False):
        found = layer(plain, h, etype, past, get_attention=tells)
        return found if tells else (found, None)

    def run_theirs(layer, h, past=None, tells=False):
        return _dgl_simple_hgn(layer, plain, h, etype, past)

    runs = {"hgat": (ours, run_ours), "DGL": (theirs, run_theirs)}
    candidates = []
    for name, (layers, run) in runs.items():

        def logits(layers=layers, run=run):
            h, past = run(layers[0], feat, None, True)
            h, _ = run(layers[1], h.flatten(1), past)
            out, _ = run(layers[2], h.flatten(1))
            return F.normalize(out.mean(1)[papers], dim=1)

        candidates.append(_candidate(name, logits, dict(layers.named_parameters()), None, label, train))
    proof = None if dtype is torch.float64 else lambda: simple_hgn(_small(share, scale), dtype="float64")
    return Case(f"Simple-HGN 3 layers, {heads} x {width}, mag / {round(1 / share)}", candidates, ("epoch",), proof)


def han(heads=8, width=8, where="acm", scale=1.0, root=None):
    """The case of HAN with a projection for each meta-path, on ACM's own labels and split."""
    views, structures, feat, task = han_views(where, scale, root)
    feat = feat.detach()
    if task is None:
        classes, (label, train) = CLASSES, _labels(views.num_dst)
    else:
        classes, label, train = task.num_classes, graphs.place(task.label), graphs.place(task.train)
    torch.manual_seed(0)
    ours = graphs.place(hgat.nn.HANConv(feat.shape[1], width, heads, views.num_views, share_projection=False))
    theirs = graphs.place(DGLHan(ours, feat.shape[1], width, heads, views.num_views))
    start = nn.Linear(heads * width, classes).state_dict()
    candidates = []
    for name, layer, structure in (("hgat", ours, views), ("DGL", theirs, structures)):
        classify = graphs.place(nn.Linear(heads * width, classes))
        classify.load_state_dict(start)
        leaves = {**dict(layer.named_parameters()), **{f"classify {k}": p for k, p in classify.named_parameters()}}

        def logits(layer=layer, structure=structure, classify=classify):
            return classify(layer(structure, feat))

        common = theirs.common if name == "DGL" else None
        candidates.append(_candidate(name, logits, leaves, common, label, train))
    return Case(f"HANConv {heads} x {width}, {where}, as DGL's example", candidates, ("epoch",))


def specs(scale=1.0, root=None):
    """Every training run."""
    edges = int(graphs.ARXIV[1] * scale)
    here = "benchmarks.epochs:"
    yield Spec(here + "stack", {"layer": "GATConv", "heads": 3, "width": 250, "scale": scale}, edges * 750 * 4 * 2)
    yield Spec(here + "stack", {"layer": "GATv2Conv", "heads": 4, "width": 32, "scale": scale}, edges * 128 * 4 * 3)
    for share in (0.1, 0.005):  # PyG copies [64, 64] numbers for every edge: the small graph is for it
        links = int(2 * sum(graphs.MAG_EDGES.values()) * share * scale)
        yield Spec(here + "rgat", {"share": share, "scale": scale}, links * (16 + 64) * 64 * 4)
    links = int(2 * sum(graphs.MAG_EDGES.values()) * 0.1 * scale)
    yield Spec(here + "simple_hgn", {"share": 0.1, "scale": scale}, links * 64 * 4 * 2)
    yield Spec(here + "han", {"root": root})
