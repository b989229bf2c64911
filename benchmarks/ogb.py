"""Training on data of OGB's real shapes, read from OGB's format: whole graphs, and sampled blocks taken apart.

Where a data set is missing under --root, a stand-in with the real numbers of nodes and edges is written there
(ogbn-arxiv; ogbn-mag at a tenth of its size; --scale for less).

- Whole graph: epochs as in `epochs`, on the graph, features, labels and training nodes of the data set.
- Sampled: batches of DGL's DataLoader, the same for all libraries; forward, cross-entropy, backward and a step of Adam
  of GAT (3 layers, 4 x 32, 10 neighbours a layer) on ogbn-arxiv, and of RGAT within relations (2 layers, 4 x 16, 15
  neighbours a relation and layer) on ogbn-mag, which DGL has as HeteroGraphConv of GATConv and PyG as HeteroConv of
  GATConv. One batch is compared, outputs and gradients, before any is timed. Taken apart: sampling; copying the rows
  of features; building structure (hgat: sorted edges of the blocks; DGL: its sparse formats; PyG: lists of edges);
  computing.
"""

import time
from collections import defaultdict
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import hgat
import dgl
from benchmarks import graphs, timing
from benchmarks.memory import Spec
from benchmarks.peers import HOMOGENEOUS, TypedEdges, relational
from hgat.graph import csr

__all__ = ["SAMPLED", "Sampled", "run", "sampled_arxiv", "sampled_mag", "specs"]

PARTS = ("sampling", "features", "structure", "compute")
BATCH, BATCHES = 1024, 12  # seeds of a batch; batches of a round
LIMIT = 1e-4  # of the largest entry, as in timing


class Sampled:
    """Models that train on the same batches, the first of them hgat's.

    models: {library: module (what it reads, features) -> logits}. reads: {library: what its model reads, built of the
    blocks}. common: {library: brings the gradients, {parameter: gradient}, into names and shapes that all share}.
    features: (input nodes) -> features. seeds: (output nodes) -> ids of labels.
    """

    def __init__(self, title, graph, ids, sampler, features, label, models, reads, common, seeds):
        self.title, self.graph, self.ids, self.sampler = title, graph, ids, sampler
        self.features, self.label, self.models = features, label, models
        self.reads, self.common, self.seeds = reads, common, seeds

    def batches(self, round_number):
        """The same seeds for every library, and on one thread the same neighbours: all generators are set anew."""
        torch.manual_seed(round_number)
        np.random.seed(round_number)
        dgl.seed(round_number)
        loader = dgl.dataloading.DataLoader(self.graph, self.ids, self.sampler, batch_size=BATCH, shuffle=True)
        return iter(loader)

    def check(self):
        """Raise timing.Unequal unless all give equal outputs and gradients on one batch; gives the difference."""
        inputs, _, blocks = next(self.batches(0))
        found = {}
        for name, model in self.models.items():
            out = model(self.reads[name](blocks), self.features(inputs))
            along = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
            leaves = list(model.parameters())
            # The last block holds no edge into other types than papers.
            grads = torch.autograd.grad(out, leaves, along, allow_unused=True, materialize_grads=True)
            found[name] = {"output": out.detach(), **self.common[name](dict(zip(leaves, grads, strict=True)))}
        worst, expected = 0.0, found.pop("hgat")
        for library, others in found.items():
            for name, tensor in expected.items():
                difference = float((others[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-30))
                # Gradients through several layers: see timing.Case.proof.
                if not difference <= (LIMIT if name == "output" else 100 * LIMIT):
                    raise timing.Unequal(
                        f"{self.title}: {name} of {library} differs by {difference:.2g} of its largest entry: not timed"
                    )
                worst = max(worst, difference)
        return worst

    def time(self, rounds, batches=BATCHES):
        """{library: {part: median over the rounds of seconds per batch}}, the libraries in turn."""
        optimizers = {name: torch.optim.Adam(model.parameters(), lr=1e-3) for name, model in self.models.items()}
        seconds = {name: defaultdict(list) for name in self.models}
        for number in range(-1, rounds):  # the first to warm up
            for name in self.models:
                spent = self._round(name, optimizers[name], number + 1, batches)
                for part, value in spent.items() if number >= 0 else ():
                    seconds[name][part].append(value)
        return {name: {part: median(values) for part, values in parts.items()} for name, parts in seconds.items()}

    def _round(self, name, optimizer, number, batches):
        spent = dict.fromkeys(PARTS, 0.0)
        loader, done = self.batches(number), 0
        while done < batches:
            marks = [time.perf_counter()]
            found = next(loader, None)
            if found is None:
                break
            inputs, seeds, blocks = found
            marks.append(time.perf_counter())
            feat = self.features(inputs)
            marks.append(time.perf_counter())
            reads = self.reads[name](blocks)
            marks.append(time.perf_counter())
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(self.models[name](reads, feat), self.label[self.seeds(seeds)]).backward()
            optimizer.step()
            marks.append(time.perf_counter())
            for part, start, end in zip(PARTS, marks, marks[1:], strict=False):
                spent[part] += end - start
            done += 1
        return {part: value / max(done, 1) for part, value in spent.items()}


def _formats(blocks):
    for block in blocks:
        block.create_formats_()
    return blocks


class _Stack(nn.Module):
    """GATConv layers with ELU, one head at the end, of one library."""

    def __init__(self, peers):
        super().__init__()
        self.layers, self.peers = nn.ModuleList(peer.layer for peer in peers), peers

    def forward(self, structures, h):
        for peer, structure in zip(self.peers[:-1], structures, strict=False):
            h = F.elu(peer.apply(structure, h).flatten(1))
        return self.peers[-1].apply(structures[-1], h).mean(1)

    def common(self, grads):
        return {f"{n} {name}": grads[p] for n, peer in enumerate(self.peers) for name, p in peer.leaves.items()}


def sampled_arxiv(root, share=1.0, heads=4, width=32):
    """GAT on blocks of ogbn-arxiv."""
    structure, data = graphs.ogb_arxiv(root, share)
    x = data.feat["_N"]
    sizes = [(x.shape[1], width, heads), (heads * width, width, heads), (heads * width, data.num_classes, 1)]
    layers = [HOMOGENEOUS["GATConv"](*size) for size in sizes]
    models = {name: _Stack([layer[name] for layer in layers]) for name in layers[0]}

    def sort(blocks):
        for block in blocks:
            csr.structure(block)
        return [graphs.Structure(block) for block in blocks]

    def stack(blocks):
        return [graphs.Structure(block, torch.stack(block.edges()).long()) for block in blocks]

    return Sampled(
        f"GAT 3 layers, {heads} x {width}, ogbn-arxiv",
        structure.graph,
        data.split["train"],
        dgl.dataloading.NeighborSampler([10, 10, 10]),
        lambda inputs: x[inputs],
        data.label,
        models,
        {"hgat": sort, "DGL": lambda blocks: [graphs.Structure(block) for block in _formats(blocks)], "PyG": stack},
        {name: model.common for name, model in models.items()},
        lambda seeds: seeds,
    )


class _Relational(nn.Module):
    """A linear map of papers and learned rows of the other types, two relational layers, a linear map."""

    def __init__(self, layers, sizes, in_feats, width, classes):
        super().__init__()
        self.paper = nn.Linear(in_feats, width)
        self.row = nn.ModuleDict({t: nn.Embedding(count, width) for t, count in sizes.items() if t != "paper"})
        self.layers = nn.ModuleList(layer for layer, _ in layers)
        self.classify = nn.Linear(width, classes)
        self.of_layer = [common for _, common in layers]

    def forward(self, reads, feat):
        rows, on_papers = feat
        h = {t: self.paper(on_papers) if t == "paper" else self.row[t](ids) for t, ids in rows.items()}
        for layer, read in zip(self.layers, reads, strict=True):
            h = {t: F.relu(z.flatten(1)) for t, z in layer(read, h).items()}
        return self.classify(h["paper"])

    def common(self, grads):
        found = {name: grads[p] for name, p in self.named_parameters() if not name.startswith("layers")}
        for number, common in enumerate(self.of_layer):
            found |= {f"{number} {name}": grad for name, grad in common(grads).items()}
        return found


def sampled_mag(root, share=0.1, heads=4, width=16):
    """RGAT within relations on blocks of ogbn-mag."""
    graph, data = graphs.ogb_mag(root, share)
    torch.manual_seed(0)
    x, size = data.feat["paper"], heads * width
    layers = [relational(size, width, heads, graph.canonical_etypes) for _ in range(2)]
    sizes = {t: graph.num_nodes(t) for t in graph.ntypes}
    models = {
        name: _Relational([layer[name] for layer in layers], sizes, x.shape[1], size, data.num_classes)
        for name in layers[0]
    }
    shared = {k: v for k, v in models["hgat"].state_dict().items() if not k.startswith("layers")}
    for model in models.values():
        model.load_state_dict(shared, strict=False)

    def joined(blocks):
        for block in blocks:
            csr.structure(hgat.graph.join_relations(block).within)
        return blocks

    return Sampled(
        f"RGAT within, 2 layers, {heads} x {width}, ogbn-mag",
        graph,
        {"paper": data.split["train"]},
        dgl.dataloading.NeighborSampler([15, 15]),
        lambda inputs: (inputs, x[inputs["paper"]]),
        data.label,
        models,
        {"hgat": joined, "DGL": _formats, "PyG": lambda blocks: [TypedEdges(block) for block in blocks]},
        {name: model.common for name, model in models.items()},
        lambda seeds: seeds["paper"],
    )


SAMPLED = (sampled_arxiv, sampled_mag)


def run(report, root, scale=1.0):
    """Time every sampled case and print its parts."""
    report.say(
        f"\n{'sampled training, a batch of ' + str(BATCH):<44}{'x / hgat':>9}   share of the batch's time, percent"
    )
    report.say(f"{'':<44}{'':>9}   {'':<6}" + "".join(f"{part:>11}" for part in PARTS))
    for make in SAMPLED:
        try:
            case = make(root, scale * (1.0 if make is sampled_arxiv else 0.1))
        except graphs.Missing as missing:
            report.say(str(missing))
            continue
        if report.only is not None and not report.only.search(case.title):
            continue
        try:
            worst = case.check()
        except timing.Unequal as unequal:
            report.unequal.append(str(unequal))
            report.say(f"NOT EQUAL  {unequal}")
            continue
        found = case.time(report.rounds)
        whole = {name: sum(parts.values()) for name, parts in found.items()}
        for name, parts in found.items():
            title = case.title if name == "hgat" else ""
            shares = "".join(f"{100 * parts[part] / whole[name]:>11.0f}" for part in PARTS)
            report.say(f"{title:<44}{whole[name] / whole['hgat']:>9.2f}   {name:<6}{shares}")
        report.results.append({"case": case.title, "largest_difference": worst, "seconds_per_batch": found})


def specs(scale=1.0, root=None):
    """The epochs on whole graphs."""
    edges, here = int(graphs.ARXIV[1] * scale), "benchmarks.epochs:"
    # The first two have the settings of examples/ogb/arxiv.py, the third is small enough for PyG in every layer.
    for layer, heads, width, copies in (("GATv2Conv", 8, 32, 3), ("GATConv", 8, 32, 2), ("GATConv", 4, 32, 2)):
        options = {"layer": layer, "heads": heads, "width": width, "scale": scale, "root": root}
        yield Spec(here + "stack", options, edges * heads * width * 4 * copies)
    links = int(0.2 * sum(graphs.MAG_EDGES.values()) * scale)
    yield Spec(here + "rgat", {"share": 0.1, "scale": scale, "root": root}, links * (16 + 64) * 64 * 4)
    yield Spec(here + "rgat_within", {"share": 0.1, "scale": scale, "root": root}, links * 2 * 64 * 4)
