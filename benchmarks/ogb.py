"""Training on data of OGB's real shapes, read from OGB's format: whole graphs, and sampled blocks taken apart.

Where a data set is missing under --root, a stand-in with the real numbers of nodes and edges is written there
(ogbn-arxiv; ogbn-mag at a tenth of its size; --scale for less).

- Whole graph: epochs as in `epochs`, on the graph, features, labels and training nodes of the data set.
- Sampled: batches of DGL's DataLoader, the same for both libraries; forward, cross-entropy, backward and a step of Adam
  of GAT (3 layers, 4 x 32, 10 neighbours a layer) on ogbn-arxiv, and of RGAT within relations (2 layers, 4 x 16, 15
  neighbours a relation and layer) on ogbn-mag, which DGL has as HeteroGraphConv of GATConv. One batch is compared,
  outputs and gradients, before any is timed. Taken apart: sampling; copying the rows of features; building structure
  (hgat: sorted edges of the blocks; DGL: its sparse formats); computing.
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
from hgat.graph import csr

__all__ = ["SAMPLED", "Sampled", "run", "sampled_arxiv", "sampled_mag", "specs"]

PARTS = ("sampling", "features", "structure", "compute")
BATCH, BATCHES = 1024, 12  # seeds of a batch; batches of a round
LIMIT = 1e-4  # of the largest entry, as in timing


class Sampled:
    """Two models that train on the same batches.

    models: {"hgat", "DGL"} -> a module, (blocks, features) -> logits. structure: {name: builds what the model needs of
    the blocks}. features: (input nodes) -> features. seeds: (output nodes) -> ids of labels. common: brings DGL's
    gradients into hgat's names and shapes.
    """

    def __init__(self, title, graph, ids, sampler, features, label, models, structure, seeds, common):
        self.title, self.graph, self.ids, self.sampler = title, graph, ids, sampler
        self.features, self.label, self.models, self.structure = features, label, models, structure
        self.seeds, self.common = seeds, common

    def batches(self, round_number):
        """The same seeds for every library, and on one thread the same neighbours: all generators are set anew."""
        torch.manual_seed(round_number)
        np.random.seed(round_number)
        dgl.seed(round_number)
        loader = dgl.dataloading.DataLoader(self.graph, self.ids, self.sampler, batch_size=BATCH, shuffle=True)
        return iter(loader)

    def _loss(self, name, blocks, feat, seeds):
        return F.cross_entropy(self.models[name](blocks, feat), self.label[self.seeds(seeds)])

    def check(self):
        """Raise timing.Unequal unless both give equal outputs and gradients on one batch; gives the difference."""
        inputs, seeds, blocks = next(self.batches(0))
        found = {}
        for name, model in self.models.items():
            out = model(blocks, self.features(inputs))
            along = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
            # The last block holds no edge into other types than papers.
            grads = torch.autograd.grad(out, list(model.parameters()), along, allow_unused=True, materialize_grads=True)
            named = dict(zip(dict(model.named_parameters()), grads, strict=True))
            found[name] = {"output": out.detach(), **(self.common(named) if name == "DGL" else named)}
        worst = 0.0
        for name, expected in found["hgat"].items():
            difference = float((found["DGL"][name] - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
            # Gradients through several layers: see timing.Case.proof.
            if not difference <= (LIMIT if name == "output" else 100 * LIMIT):
                raise timing.Unequal(
                    f"{self.title}: {name} differs by {difference:.2g} of its largest entry: not timed"
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
            self.structure[name](blocks)
            marks.append(time.perf_counter())
            optimizer.zero_grad(set_to_none=True)
            self._loss(name, blocks, feat, seeds).backward()
            optimizer.step()
            marks.append(time.perf_counter())
            for part, start, end in zip(PARTS, marks, marks[1:], strict=False):
                spent[part] += end - start
            done += 1
        return {part: value / max(done, 1) for part, value in spent.items()}


def _formats(blocks):
    for block in blocks:
        block.create_formats_()


class _Stack(nn.Module):
    """GATConv layers with ELU, one head at the end."""

    def __init__(self, conv, in_feats, classes, heads=4, width=32, depth=3):
        super().__init__()
        sizes = [(in_feats, width, heads)] + [(heads * width, width, heads)] * (depth - 2)
        self.layers = nn.ModuleList(conv(*size) for size in [*sizes, (heads * width, classes, 1)])

    def forward(self, blocks, h):
        for layer, block in zip(self.layers[:-1], blocks, strict=False):
            h = F.elu(layer(block, h).flatten(1))
        return self.layers[-1](blocks[-1], h).mean(1)


def sampled_arxiv(root, share=1.0):
    """GAT on blocks of ogbn-arxiv."""
    structure, data = graphs.ogb_arxiv(root, share)
    torch.manual_seed(0)
    x = data.feat["_N"]
    models = {"hgat": _Stack(hgat.nn.GATConv, x.shape[1], data.num_outputs)}
    models["DGL"] = _Stack(dgl.nn.GATConv, x.shape[1], data.num_outputs)
    models["DGL"].load_state_dict(models["hgat"].state_dict())

    def sort(blocks):
        for block in blocks:
            csr.structure(block)

    return Sampled(
        "GAT 3 layers, 4 x 32, ogbn-arxiv",
        structure.graph,
        data.split["train"],
        dgl.dataloading.NeighborSampler([10, 10, 10]),
        lambda inputs: x[inputs],
        data.label,
        models,
        {"hgat": sort, "DGL": _formats},
        lambda seeds: seeds,
        lambda grads: grads,
    )


class _Relational(nn.Module):
    """A linear map of papers and learned rows of the other types, two relational layers, a linear map."""

    def __init__(self, layers, sizes, in_feats, width, classes):
        super().__init__()
        self.paper = nn.Linear(in_feats, width)
        self.row = nn.ModuleDict({t: nn.Embedding(count, width) for t, count in sizes.items() if t != "paper"})
        self.layers = nn.ModuleList(layers)
        self.classify = nn.Linear(width, classes)

    def forward(self, blocks, feat):
        rows, on_papers = feat
        h = {t: self.paper(on_papers) if t == "paper" else self.row[t](ids) for t, ids in rows.items()}
        for layer, block in zip(self.layers, blocks, strict=True):
            h = {t: F.relu(z.flatten(1)) for t, z in layer(block, h).items()}
        return self.classify(h["paper"])


def sampled_mag(root, share=0.1, heads=4, width=16):
    """RGAT within relations on blocks of ogbn-mag; DGL's form is HeteroGraphConv over GATConv."""
    graph, data = graphs.ogb_mag(root, share)
    torch.manual_seed(0)
    x, etypes, size = data.feat["paper"], graph.canonical_etypes, heads * width
    ours = [hgat.nn.RGATConv(size, width, heads, etypes, softmax="within") for _ in range(2)]
    theirs, by_layer = [], []
    for layer in ours:
        convs = {}
        for number, etype in enumerate(etypes):
            conv = dgl.nn.GATConv(size, width, heads, bias=False, allow_zero_in_degree=True)
            with torch.no_grad():
                conv.fc.weight.copy_(layer.weight[number].T)
                conv.attn_r.copy_(layer.attn[number, :, :, 0])
                conv.attn_l.copy_(layer.attn[number, :, :, 1])
            convs[etype] = conv
        theirs.append(dgl.nn.HeteroGraphConv(convs, aggregate="sum"))
        by_layer.append([convs[etype] for etype in etypes])
    sizes = {t: graph.num_nodes(t) for t in graph.ntypes}
    models = {"hgat": _Relational(ours, sizes, x.shape[1], size, data.num_outputs)}
    models["DGL"] = _Relational(theirs, sizes, x.shape[1], size, data.num_outputs)
    shared = {k: v for k, v in models["hgat"].state_dict().items() if not k.startswith("layers")}
    models["DGL"].load_state_dict(shared, strict=False)

    def common(grads):
        found = {name: grad for name, grad in grads.items() if not name.startswith("layers")}
        name = {id(parameter): key for key, parameter in models["DGL"].named_parameters()}
        for depth, convs in enumerate(by_layer):
            found[f"layers.{depth}.weight"] = torch.stack([grads[name[id(conv.fc.weight)]].T for conv in convs])
            both = [(grads[name[id(c.attn_r)]][0], grads[name[id(c.attn_l)]][0]) for c in convs]
            found[f"layers.{depth}.attn"] = torch.stack([torch.stack(pair, -1) for pair in both])
        return found

    def joined(blocks):
        for block in blocks:
            together = hgat.graph.join(block)
            csr.structure(together.within)

    return Sampled(
        "RGAT within, 2 layers, 4 x 16, ogbn-mag",
        graph,
        {"paper": data.split["train"]},
        dgl.dataloading.NeighborSampler([15, 15]),
        lambda inputs: (inputs, x[inputs["paper"]]),
        data.label,
        models,
        {"hgat": joined, "DGL": _formats},
        lambda seeds: seeds["paper"],
        common,
    )


SAMPLED = (sampled_arxiv, sampled_mag)


def run(report, root, scale=1.0):
    """Time every sampled case and print its parts."""
    report.say(
        f"\n{'sampled training, a batch of ' + str(BATCH):<44}{'DGL/hgat':>9}   share of the batch's time, percent"
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
            first = f"{case.title:<44}{whole['DGL'] / whole['hgat']:>9.2f}" if name == "hgat" else f"{'':<53}"
            shares = "".join(f"{100 * parts[part] / whole[name]:>11.0f}" for part in PARTS)
            report.say(f"{first}   {name:<6}{shares}")
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
