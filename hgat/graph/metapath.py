"""Meta-path graphs, and many graphs as one.

A meta-path is a list of relations, each ending where the next begins; two nodes are its neighbours if a walk
along it joins them. Attention over several meta-paths is attention over the disjoint union of their graphs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import dgl
import numpy as np
import scipy.sparse
import torch

from hgat.errors import GraphError
from hgat.graph.csr import cached, check_graph, check_whole, in_order, shown, single_relation
from hgat.graph.memory import available, enough
from hgat.renamed import old_names

__all__ = ["Views", "disjoint_union", "metapath_graph", "metapaths", "prepare", "reachable", "views"]

# Of a pair: what it takes to build its graph, and the arrays that attention sorts its edges into, in ids.
IDS_OF_A_PAIR = 6
ENTRIES = 2**22  # of the matrices that are multiplied at a time
_ADVICE = (
    "take a shorter path, or sample neighbours by walks along it (dgl.sampling.random_walk with metapath, "
    "dgl.sampling.PinSAGESampler)"
)


@dataclass(frozen=True)
class Views:
    """The disjoint union of P graphs over the same destination nodes.

    graph: DGLGraph of one relation; view p owns the sources source_start[p] to source_start[p + 1] and the
    destinations p * num_dst to (p + 1) * num_dst. names: P names. shared_source: the views have the same source
    nodes in the same order, so that one feature matrix [N_src, F] serves all. destinations_first: the destinations are
    the first sources of every view, as on blocks and on graphs from a node type to itself.
    """

    graph: dgl.DGLGraph
    names: tuple[str, ...]
    num_dst: int
    source_start: tuple[int, ...]
    shared_source: bool
    destinations_first: bool

    @property
    def num_views(self) -> int:
        """P, how many views there are."""
        return len(self.names)

    @property
    def num_src(self) -> int:
        """Source nodes of one view; only where all views share them."""
        return self.source_start[1]


def _relation(graph, etype):
    known = sorted(e[1] for e in graph.canonical_etypes)
    etype = tuple(etype) if isinstance(etype, list) else etype
    if not isinstance(etype, str) and not (isinstance(etype, tuple) and all(isinstance(part, str) for part in etype)):
        raise GraphError(f"meta-path: expected relations of the graph, {known}, got {shown(etype)}")
    found = [e for e in graph.canonical_etypes if etype in (e, e[1])]
    if len(found) == 1:
        return found[0]
    if found:
        raise GraphError(f"meta-path: expected one of the relations {found}, got the name {etype!r}")
    raise GraphError(f"meta-path: expected relations of the graph, {known}, got {etype!r}")


def metapath_graph(
    graph: dgl.DGLGraph,
    metapath: Sequence[str | tuple[str, str, str]],
    self_loops: bool = True,
    *,
    max_pairs: int | None = None,
) -> dgl.DGLGraph:
    """The graph of pairs that a walk along `metapath` joins, each pair once, and by default of every node with itself.

    metapath: relation names or canonical triples; it must end at the node type where it starts. max_pairs: how many
    pairs may be built, by default as many as the free memory holds. Raises GraphError for a block, an unknown relation,
    relations that do not follow one another, a path that has no pairs, and one that has too many.
    """
    found = reachable(graph, metapath, self_loops, max_pairs)
    # Without pairs there are loops alone.
    if found.num_edges() == (found.num_nodes() if self_loops else 0) and not _any_pair(graph, metapath):
        raise GraphError(f"meta-path: expected at least one pair along {list(metapath)}, got none")
    return found


def _any_pair(graph, metapath):
    """True if any walk leads along the whole path."""
    steps = _steps(graph, metapath)
    here = torch.ones(graph.num_nodes(steps[0][0]), dtype=torch.bool)
    for etype in steps:
        src, dst = (end.long().cpu() for end in in_order(graph, etype))
        there = torch.zeros(graph.num_nodes(etype[2]), dtype=torch.bool)
        here = there.index_fill_(0, dst[here[src]], True)
    return bool(here.any())


def _steps(graph, metapath):
    """The canonical relations of a path, checked."""
    check_graph(graph, blocks=False)
    if isinstance(metapath, str) or not isinstance(metapath, Sequence):
        raise GraphError(f"meta-path: expected a list of relations, got {shown(metapath)}")
    steps = [_relation(graph, etype) for etype in metapath]
    if not steps:
        raise GraphError("meta-path: expected at least one relation, got none")
    for here, there in zip(steps, steps[1:], strict=False):
        if here[2] != there[0]:
            raise GraphError(f"meta-path: expected a relation that starts at {here[2]!r} after {here}, got {there}")
    if steps[0][0] != steps[-1][2]:
        raise GraphError(f"meta-path: expected an end at its start {steps[0][0]!r}, got an end at {steps[-1][2]!r}")
    return steps


def reachable(
    graph: dgl.DGLGraph,
    metapath: Sequence[str | tuple[str, str, str]],
    self_loops: bool = True,
    max_pairs: int | None = None,
) -> dgl.DGLGraph:
    """As `metapath_graph`, but a path may have no pair."""
    steps = _steps(graph, metapath)
    if max_pairs is not None:
        check_whole(0, max_pairs=max_pairs)
    names = [etype[1] for etype in steps]
    with enough(f"meta-path: expected pairs along {names} that the free memory holds, got more; {_ADVICE}"):
        src, dst = _pairs(graph, steps, self_loops, max_pairs, names)
        found = dgl.heterograph(
            {(steps[0][0], "_E", steps[0][0]): (src, dst)},
            {steps[0][0]: graph.num_nodes(steps[0][0])},
            idtype=graph.idtype,
            device=graph.device,
        )
    found.ndata.update(graph.nodes[steps[0][0]].data)
    return found


def _pairs(graph, steps, self_loops, max_pairs, names):
    """(source, destination) of the pairs in order, and of loops behind them, on the CPU.

    The matrices of the relations are multiplied for some rows at a time, so that no product on the way, however large,
    is held as a whole, and what is too much is found before it is built.
    """
    factors = [_matrix(graph, etype) for etype in steps]
    num = graph.num_nodes(steps[0][0])
    each, largest = _bounds(factors)
    most, size = int(min(each.sum(), 2.0**62)), torch.empty(0, dtype=graph.idtype).element_size()
    limit = max_pairs if max_pairs is not None else available() // (IDS_OF_A_PAIR * size)
    if most <= limit:
        limit = None  # nothing to count
    counts, columns, total = np.zeros(num, np.int64), [], 0
    for first, last in _blocks(largest):
        rows = factors[0][first:last]
        for factor in factors[1:]:
            rows = rows @ factor
        rows.sort_indices()
        count, column = np.diff(rows.indptr), rows.indices
        if self_loops:
            keep = column != np.repeat(np.arange(first, last), count)
            row = np.repeat(np.arange(last - first), count)[keep]
            count, column = np.bincount(row, minlength=last - first), column[keep]
        total += len(column)
        if limit is not None and total > limit:
            holds, more = ("the free memory holds", "give") if max_pairs is None else ("max_pairs allows", "raise")
            raise GraphError(
                f"meta-path: expected at most {limit:,} pairs along {names}, which {holds}, got {total:,} from the "
                f"first {last:,} of {num:,} nodes and up to {most:,} in all; {_ADVICE}, or {more} max_pairs"
            )
        counts[first:last] = count
        columns.append(torch.from_numpy(column).to(graph.idtype))
    nodes = torch.arange(num, dtype=graph.idtype)
    loops = [nodes] if self_loops else []
    dst = torch.cat([*columns, *loops]) if columns or loops else nodes[:0]
    columns.clear()
    return torch.cat([torch.repeat_interleave(nodes, torch.from_numpy(counts)), *loops]), dst


def _matrix(graph, etype):
    src, dst = (end.cpu().numpy() for end in in_order(graph, etype))
    shape = graph.num_nodes(etype[0]), graph.num_nodes(etype[2])
    # Truth values cannot wrap round as counts of walks can.
    return scipy.sparse.csr_array((np.ones(len(src), dtype=bool), (src, dst)), shape=shape)


def _bounds(factors):
    """For every row: how many entries the product has at most, and how many any product on the way to it.

    As many as there are walks, and no more than there are columns.
    """
    largest = np.zeros(factors[0].shape[0])
    for length in range(1, len(factors) + 1):
        walks = np.ones(factors[length - 1].shape[1])
        for factor in reversed(factors[:length]):
            walks = np.diff(np.concatenate([[0.0], np.cumsum(walks[factor.indices])])[factor.indptr])
        each = np.minimum(walks, factors[length - 1].shape[1])
        largest = np.maximum(largest, each)
    return each, largest


def _blocks(entries):
    """Ranges of rows with about ENTRIES entries each."""
    ends = np.cumsum(entries)
    first = 0
    while first < len(ends):
        before = ends[first - 1] if first else 0.0
        last = max(int(np.searchsorted(ends, before + ENTRIES, side="right")), first + 1)
        yield first, last
        first = last


def disjoint_union(graphs: Iterable[dgl.DGLGraph], names: Iterable[str] | None = None) -> Views:
    """Views over several graphs (or blocks) that have the same destination nodes in the same order.

    Raises GraphError when there is no graph, one has several relations, or the numbers of destinations differ.
    """
    graphs = _listed("graphs", graphs)
    if not graphs:
        raise GraphError("disjoint_union: expected at least one graph, got none")
    names = _listed("names", names) if names is not None else [str(p) for p in range(len(graphs))]
    if not all(isinstance(name, str) for name in names):
        raise GraphError(f"disjoint_union: expected names as strings, got {shown(names)}")
    names = tuple(names)
    if len(names) != len(graphs):
        raise GraphError(f"disjoint_union: expected {len(graphs)} names, got {len(names)}")
    for graph in graphs:
        single_relation(graph)
    if len({(g.idtype, g.device) for g in graphs}) != 1:
        raise GraphError(f"disjoint_union: expected graphs of one id type on one device, got {_kinds(graphs)}")
    sizes = {g.num_dst_nodes() for g in graphs}
    if len(sizes) != 1:
        raise GraphError(f"disjoint_union: expected the same destination nodes in every graph, got {sorted(sizes)}")
    num_dst = sizes.pop()
    ids = max(num_dst * len(graphs), sum(g.num_src_nodes() for g in graphs))
    if ids > torch.iinfo(graphs[0].idtype).max:
        raise GraphError(
            f"disjoint_union: expected nodes that {graphs[0].idtype} can number, got {ids:,}; use graph.long()"
        )
    starts, sources, targets = [0], [], []
    for view, graph in enumerate(graphs):
        src, dst = in_order(graph)
        sources.append(src + starts[-1])
        targets.append(dst + view * num_dst)
        starts.append(starts[-1] + graph.num_src_nodes())
    joined = dgl.heterograph(
        {("source", "to", "target"): (torch.cat(sources), torch.cat(targets))},
        num_nodes_dict={"source": starts[-1], "target": num_dst * len(graphs)},
        idtype=graphs[0].idtype,
    )
    same_size = len({g.num_src_nodes() for g in graphs}) == 1
    blocks = any(g.is_block for g in graphs)
    first = all(g.is_block or g.is_homogeneous for g in graphs)
    return Views(joined, names, num_dst, tuple(starts), same_size and not blocks, first)


def _listed(what, values):
    # A graph and a string can be gone through, too, by relations that it has not and by letters.
    if isinstance(values, (str, dgl.DGLGraph, torch.Tensor)) or not isinstance(values, Iterable):
        raise GraphError(f"disjoint_union: expected a list of {what}, got {shown(values)}")
    return list(values)


def _kinds(graphs):
    return ", ".join(sorted({f"{g.idtype} on {g.device}" for g in graphs}))


def views(graph: dgl.DGLGraph | Views) -> Views:
    """The relations of a typed DGLGraph or block, all from one node type to one, as Views; built once per graph.

    For blocks of a graph with one relation per meta-path, as a sampler gives them: its relations share their sources.
    Views are returned as they are. Raises GraphError for relations between several pairs of node types.
    """
    if isinstance(graph, Views):
        return graph
    etypes = getattr(graph, "canonical_etypes", None)
    if etypes is None:
        raise GraphError(
            "views: expected what hgat.graph.metapaths or hgat.graph.disjoint_union gives, or a DGLGraph, "
            f"got {type(graph).__name__}"
        )
    if len({(src, dst) for src, _, dst in etypes}) != 1:
        raise GraphError(
            "views: expected what hgat.graph.metapaths or hgat.graph.disjoint_union gives, or relations between one "
            f"pair of node types, got {etypes}"
        )

    def build():
        found = disjoint_union([graph[etype] for etype in etypes], [etype[1] for etype in etypes])
        return replace(found, shared_source=True, destinations_first=etypes[0][0] == etypes[0][2])

    return cached(graph, ("views", tuple(etypes), graph.is_block), build)


def _name(path):
    return "-".join(etype if isinstance(etype, str) else etype[1] for etype in path)


def metapaths(
    graph: dgl.DGLGraph,
    paths: dict[str, Sequence[str | tuple[str, str, str]]] | Sequence[Sequence[str | tuple[str, str, str]]],
    self_loops: bool = True,
    *,
    max_pairs: int | None = None,
) -> Views:
    """Views over the graphs of several meta-paths, all of one node type.

    paths: a dict from name to meta-path, or a list of meta-paths, named by their relations. max_pairs: of each path, as
    in `metapath_graph`.
    """
    if not isinstance(paths, (dict, list, tuple)):
        raise GraphError(f"meta-paths: expected a dict from name to meta-path, or a list of them, got {shown(paths)}")
    listed = list(paths.values()) if isinstance(paths, dict) else list(paths)
    found = [metapath_graph(graph, path, self_loops, max_pairs=max_pairs) for path in listed]
    names = list(paths) if isinstance(paths, dict) else [_name(path) for path in listed]
    if len(set(names)) != len(names):
        raise GraphError(f"meta-paths: expected different names, got {names}; a dict can name them")
    ntypes = sorted({g.ntypes[0] for g in found})
    if len(ntypes) > 1:
        raise GraphError(f"meta-paths: expected all of one node type, got {ntypes}")
    with enough(f"meta-paths: expected pairs along {names} that the free memory holds together, got more; {_ADVICE}"):
        return disjoint_union(found, names)


def prepare(graph: dgl.DGLGraph, *, paths: dict, self_loops: bool = True, max_pairs: int | None = None) -> Views:
    """The structure that HAN trains on: one view per named meta-path, of at most max_pairs pairs each."""
    return metapaths(graph, paths, self_loops, max_pairs=max_pairs)


__getattr__ = old_names(globals(), {"union": "disjoint_union"})
