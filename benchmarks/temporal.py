"""Graphs that change: DySAT beside a loop over snapshots, and the sampler of recent neighbours beside a loop over
nodes.

- DySAT: 20,000 nodes, 16 snapshots, a million links (two million edges and the self-loops), 128 features, structural
  attention of 16 heads x 8. "DGL" runs dgl.nn.GATConv on one snapshot after the other, as ports of DySAT do, and stacks
  what comes out; everything behind it is the same module for both. An epoch is forward, the loss of 50,000 links of the
  next snapshots against as many random pairs, backward, and a step of Adam. The row "structural" is the part that
  differs.
- recent neighbours: the 20 events before the time of each of 5,000 queries, among a million events; the loop bisects
  every node's own list of times.
"""

import bisect

import dgl
import numpy as np
import torch
import torch.nn.functional as F

import hgat
from benchmarks.graphs import place
from benchmarks.memory import Spec
from benchmarks.timing import Candidate, Case

__all__ = ["dysat", "recent", "specs"]

NODES, STEPS, LINKS, WIDTH = 20_000, 16, 1_000_000, 128
SMALL = 10_000  # links of the float64 proof (see timing.Case)


def _events(nodes, count, seed=0):
    """Sources and destinations with skewed degrees, and times in [0, 1)."""
    rng = np.random.default_rng(seed)
    src, dst = ((nodes * rng.random(count) ** 2).astype(np.int64) for _ in range(2))
    return rng.permutation(nodes)[src], rng.permutation(nodes)[dst], rng.random(count)


class _Loop(torch.nn.Module):
    """DGL's layer on one snapshot after the other, with the parameters of hgat's."""

    def __init__(self, ours, snapshots):
        super().__init__()
        self.layer = dgl.nn.GATConv(WIDTH, 8, 16, bias=False, allow_zero_in_degree=True)
        self.layer.fc, self.layer.attn_l, self.layer.attn_r = ours.fc, ours.attn_l, ours.attn_r
        self.graphs = [snapshots[t].graph for t in range(len(snapshots))]

    def forward(self, feat):
        return torch.stack([F.elu(self.layer(graph, feat).flatten(1)) for graph in self.graphs])


def dysat(scale=1.0, whole=True, dtype="float32"):
    """The case of DySAT's epoch, or of its structural part alone."""
    nodes, dtype = max(int(NODES * scale), 20), getattr(torch, dtype)
    graph = hgat.graph.from_events(_events(nodes, int(LINKS * scale)), nodes)
    snapshots = hgat.graph.snapshots(graph, windows=STEPS, weight="none")
    feat = place(torch.randn(nodes, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype))
    torch.manual_seed(0)
    ours = place(hgat.nn.SnapshotGATConv(WIDTH, 8, 16).to(dtype))
    past = place(hgat.nn.TemporalAttention(WIDTH, 16, STEPS).to(dtype))
    theirs = place(_Loop(ours, snapshots))
    present = place(snapshots.present)
    structural = {"hgat": lambda: ours(snapshots, feat), "DGL": lambda: theirs(feat)}
    leaves = dict(ours.named_parameters())

    def small():
        return dysat(SMALL / LINKS, whole, "float64")

    proof = None if dtype is torch.float64 else small
    if not whole:
        candidates = [Candidate(name, call, leaves) for name, call in structural.items()]
        return Case("DySAT structural, 16 x 8, 16 steps", candidates, proof=proof)
    leaves |= {f"past {name}": p for name, p in past.named_parameters()}
    links = next(iter(snapshots.links.values()))
    generator = torch.Generator().manual_seed(2)
    later = (links.step > 0).nonzero().flatten()
    drawn = later[torch.randint(0, len(later), (50_000,), generator=generator)]
    other = torch.randint(0, nodes, (len(drawn),), generator=generator)
    step, src, dst, other = (place(x) for x in (links.step[drawn] - 1, links.src[drawn], links.dst[drawn], other))
    candidates = []
    for name, call in structural.items():

        def embed(call=call):
            return past(call().transpose(0, 1), present)

        optimizer = torch.optim.Adam(list(leaves.values()), lr=1e-5)

        def train(embed=embed, optimizer=optimizer):
            optimizer.zero_grad(set_to_none=True)
            rows = embed().flatten(0, 1)
            own, near, far = (rows.index_select(0, node * STEPS + step) for node in (src, dst, other))
            (F.softplus(-(own * near).sum(1)).mean() + F.softplus((own * far).sum(1)).mean()).backward()
            optimizer.step()

        candidates.append(Candidate(name, embed, leaves, step=train))
    return Case("DySAT, 16 x 8, 16 steps", candidates, ("epoch",), proof)


def recent(scale=1.0, count=20):
    """The case of the sampler; times of neighbours are compared, since they are distinct."""
    nodes, events = int(NODES * scale), int(LINKS * scale)
    graph = hgat.graph.from_events(_events(nodes, events), nodes)
    sampler = hgat.graph.recent_neighbours(graph)
    rng = np.random.default_rng(3)
    asked, when = torch.from_numpy(rng.integers(0, nodes, 5_000)), torch.from_numpy(rng.random(5_000))
    src, dst = (end.tolist() for end in graph.edges())
    lists = [[] for _ in range(nodes)]
    for u, v, moment in zip(src, dst, graph.edata["time"].tolist(), strict=True):
        lists[u].append(moment)
        if u != v:
            lists[v].append(moment)
    none = torch.zeros((), requires_grad=True)

    def vectorised():
        _, time, _, mask = sampler.before(asked, when, count)
        return time.where(mask, 0.0).sort(1).values + none

    def looped():
        found = np.zeros((len(asked), count))
        for row, (node, moment) in enumerate(zip(asked.tolist(), when.tolist(), strict=True)):
            times = lists[node]
            end = bisect.bisect_left(times, moment)
            part = times[max(end - count, 0) : end]
            found[row, count - len(part) :] = part
        return torch.from_numpy(found) + none

    candidates = [Candidate("hgat", vectorised, {"none": none}), Candidate("loop", looped, {"none": none})]
    return Case("20 recent neighbours of 5,000", candidates, ("forward",))


def specs(scale=1.0, root=None):
    """Every case."""
    here = "benchmarks.temporal:"
    edges = int(2.3 * LINKS * scale)
    yield Spec(here + "dysat", {"scale": scale, "whole": False}, edges * WIDTH * 4)
    yield Spec(here + "dysat", {"scale": scale}, edges * WIDTH * 4)
    yield Spec(here + "recent", {"scale": scale}, memory=False)
