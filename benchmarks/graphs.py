"""The graphs that everything is timed on: synthetic ones from a fixed seed, real ones where their files are there."""

import contextlib
import io
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, lru_cache

import hgat
import dgl
import numpy as np
import torch
from hgat.graph.homogeneous import prepare

__all__ = [
    "ARXIV",
    "Missing",
    "Structure",
    "arxiv",
    "bitcoin_alpha",
    "block",
    "cora",
    "ogb_arxiv",
    "ogb_mag",
    "on_device",
    "place",
    "power_law",
    "two_views",
    "typed",
    "views_of_acm",
]

# Nodes and edges of ogbn-arxiv with reverse edges and self-loops, as close as makes no difference.
ARXIV = (169_343, 2_469_328)
# ogbn-mag: nodes by type; edges by relation.
MAG_NODES = {"paper": 736_389, "author": 1_134_649, "institution": 8_740, "field_of_study": 59_965}
MAG_EDGES = {
    ("author", "affiliated_with", "institution"): 1_043_998,
    ("author", "writes", "paper"): 7_145_660,
    ("paper", "cites", "paper"): 5_416_271,
    ("paper", "has_topic", "field_of_study"): 7_505_078,
}


class Missing(Exception):
    """Something that a case needs is not here: a data set, a package, memory. The message says what."""


_device = ContextVar("benchmarks_device", default="cpu")


@contextlib.contextmanager
def on_device(device):
    """Inside the block `place` moves to this device; graphs of DGL stay where they are."""
    token = _device.set(device)
    try:
        yield
    finally:
        _device.reset(token)


def place(what):
    """A tensor, still a leaf, or a module, on the device that is timed."""
    if isinstance(what, torch.Tensor):
        return what.detach().to(_device.get()).requires_grad_(what.requires_grad)
    return what.to(_device.get())


@dataclass(frozen=True)
class Structure:
    """One graph in the form of each library; neither form is built or changed while a clock runs.

    PyG gets `edge_index` with the edges sorted by destination: the form of its documentation, in the order that suits
    its scatter best. Its EdgeIndex and sparse forms were tried and were no faster.
    """

    graph: dgl.DGLGraph
    edges: torch.Tensor | None = None

    @cached_property
    def edge_index(self):
        return place(by_destination(*self.graph.edges(order="eid")) if self.edges is None else self.edges)

    @property
    def num_dst(self):
        return self.graph.num_dst_nodes()

    @property
    def num_src(self):
        return self.graph.num_src_nodes()


def by_destination(src, dst):
    """PyG's [2, E] with the edges sorted by destination."""
    order = torch.argsort(dst, stable=True)
    return torch.stack([src[order], dst[order]]).long().contiguous()


def _skewed(rng, count, size):
    """`count` draws from 0 to size - 1 with probability ~ rank^-0.7, ranks dealt at random: a power law of degrees."""
    weight = np.cumsum(np.arange(1, size + 1, dtype=np.float64) ** -0.7)
    rank = np.searchsorted(weight, rng.random(count) * weight[-1])
    return rng.permutation(size)[np.minimum(rank, size - 1)]


@lru_cache(maxsize=2)
def power_law(nodes, edges, seed=0):
    """A graph of `nodes` and exactly `edges` edges: links to skewed ends, their reverses, and a self-loop per node.

    Edges keep that order, as dgl.add_reverse_edges and dgl.add_self_loop would leave them; a pair may be linked twice.
    """
    links = max(edges - nodes, 0)
    rng = np.random.default_rng(seed)
    half = -(-links // 2)
    citing, cited = rng.integers(0, nodes, half), _skewed(rng, half, nodes)
    loops = np.arange(nodes)
    src = np.concatenate([citing, cited])[:links]
    dst = np.concatenate([cited, citing])[:links]
    graph = dgl.graph(
        (torch.from_numpy(np.concatenate([src, loops])), torch.from_numpy(np.concatenate([dst, loops]))),
        num_nodes=nodes,
    )
    graph.create_formats_()
    return Structure(graph)


def arxiv(scale=1.0):
    """A power-law graph of ogbn-arxiv's size, or a part of it."""
    nodes = max(int(ARXIV[0] * scale), 10)
    return power_law(nodes, max(int(ARXIV[1] * scale), 2 * nodes))


@lru_cache(maxsize=2)
def typed(share=0.1, seed=0):
    """A typed graph with `share` of ogbn-mag's nodes and edges, and the reverse of every relation."""
    rng = np.random.default_rng(seed)
    nodes = {ntype: max(int(count * share), 3) for ntype, count in MAG_NODES.items()}
    links = {}
    for (src_type, name, dst_type), count in MAG_EDGES.items():
        count = max(int(count * share), nodes[dst_type])
        src = rng.integers(0, nodes[src_type], count)
        src[: nodes[src_type]] = np.arange(nodes[src_type])[:count]  # every node sends at least one edge
        dst = _skewed(rng, count, nodes[dst_type])
        dst[: nodes[dst_type]] = rng.permutation(nodes[dst_type])[:count]
        src, dst = torch.from_numpy(src), torch.from_numpy(dst)
        links[src_type, name, dst_type] = (src, dst)
        links[dst_type, f"rev_{name}", src_type] = (dst, src)
    graph = dgl.heterograph(links, num_nodes_dict=nodes)
    graph.create_formats_()
    return graph


@lru_cache(maxsize=2)
def sampled(seeds, fanouts, scale):
    """(source, destination, sizes, PyG's edges) of the blocks that a NeighborSampler draws on the arxiv graph."""
    graph = arxiv(scale).graph
    torch.manual_seed(0)
    dgl.seed(0)
    chosen = torch.randperm(graph.num_nodes())[:seeds]
    found = []
    for part in dgl.dataloading.NeighborSampler(list(fanouts)).sample(graph, chosen)[2]:
        src, dst = part.edges(order="eid")
        found.append((src, dst, (part.num_src_nodes(), part.num_dst_nodes()), by_destination(src, dst)))
    return found


def block(which=0, seeds=1024, fanouts=(10, 10), scale=1.0):
    """A fresh copy of one sampled block: like the sampler's own, it holds its edges as a list and no other format.

    PyG's edges are made beforehand: a list of edges is what it takes, as the block is what DGL and hgat take.
    """
    src, dst, (num_src, num_dst), edges = sampled(seeds, tuple(fanouts), scale)[which]
    graph = dgl.create_block((src.clone(), dst.clone()), num_src_nodes=num_src, num_dst_nodes=num_dst)
    return Structure(graph, edges)


def _ogb(name, root, share):
    """OGB's data set under `root`; where there is none, a stand-in of this share of its size is written first."""
    from hgat.data import ogb, ogb_samples

    try:
        if not ogb.folder_of(name, root).exists():
            print(f"{name}: no such folder in {root}; a stand-in of {share:g} of its size is written there", flush=True)
            ogb_samples.write_sample(name, root, share=share)
        with contextlib.redirect_stderr(io.StringIO()):  # the progress bars of OGB's loader
            return ogb.load(name, root)
    except hgat.errors.HgatError as error:
        raise Missing(f"{name} left out: {error}") from None


@lru_cache(maxsize=1)
def ogb_arxiv(root, share=1.0):
    """(structure with reverse edges and self-loops, data) of ogbn-arxiv in OGB's format."""
    data = _ogb("ogbn-arxiv", root, share)
    graph = dgl.add_self_loop(dgl.remove_self_loop(dgl.add_reverse_edges(data.graph)))
    graph.create_formats_()
    return Structure(graph), data


@lru_cache(maxsize=1)
def ogb_mag(root, share=0.1):
    """(typed graph with the reverse of every relation, data) of ogbn-mag in OGB's format."""
    data = _ogb("ogbn-mag", root, share)
    links = {}
    for src, name, dst in data.graph.canonical_etypes:
        ends = data.graph.edges(etype=(src, name, dst), order="eid")
        links[src, name, dst], links[dst, f"rev_{name}", src] = ends, ends[::-1]
    graph = dgl.heterograph(links, {ntype: data.graph.num_nodes(ntype) for ntype in data.graph.ntypes})
    graph.create_formats_()
    return graph, data


def _task(name, root):
    try:
        return hgat.data.load(name, root)
    except hgat.errors.DataError as error:
        raise Missing(f"{name} left out: {error}") from None


@lru_cache(maxsize=1)
def cora(root=None):
    """(structure, task) of Cora with self-loops."""
    task = _task("cora", root)
    graph = prepare(task.graph)
    graph.create_formats_()
    return Structure(graph), task


@lru_cache(maxsize=1)
def bitcoin_alpha(root=None):
    """Bitcoin-Alpha's graph of training edges, with their signs."""
    data = _task("bitcoin-alpha", root)
    train = torch.ones(data.graph.num_edges(), dtype=torch.bool)
    train[data.test] = False
    graph = dgl.edge_subgraph(data.graph, train, relabel_nodes=False, store_ids=False)
    graph.edata["sign"] = data.sign[train]
    return graph


@lru_cache(maxsize=1)
def views_of_acm(root=None):
    """(hgat's views, one Structure per meta-path, task) of HAN's ACM."""
    task = _task("acm3025", root)
    paths = {"PAP": ["PAP"], "PSP": ["PLP"]}
    views = hgat.graph.metapaths(task.graph, paths)
    single = [Structure(hgat.graph.metapath_graph(task.graph, path)) for path in paths.values()]
    for structure in single:
        structure.graph.create_formats_()
    return views, single, task


@lru_cache(maxsize=1)
def two_views(scale=1.0):
    """(hgat's views, [Structure, Structure]): two power-law graphs over the same nodes, arxiv's size together.

    One has seven eighths of the edges, as meta-paths do differ. Two graphs of one law would look alike to the attention
    over views, whose gradients would then be small differences of large sums, and float32 could not compare them.
    """
    nodes, edges = max(int(ARXIV[0] * scale), 10), int(ARXIV[1] * scale)
    parts = enumerate((edges * 7 // 8, edges // 8), 1)
    single = [power_law.__wrapped__(nodes, max(part, nodes + nodes // 2), seed) for seed, part in parts]
    return hgat.graph.disjoint_union([s.graph for s in single], ["one", "two"]), single
