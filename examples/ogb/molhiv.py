"""ogbg-molhiv: does a molecule inhibit HIV, by GAT whose scores read the bonds, and attention over the atoms.

    python examples/ogb/molhiv.py [--sample] [--root DIR]

Published: no number of a plain GAT on ogbg-molhiv was at hand that could be checked.
"""

from contextlib import nullcontext

import hgat  # before dgl
import dgl
import torch
import torch.nn.functional as F
from common import Options  # beside this file
from hgat.data import ogb
from hgat.graph import to_device
from hgat.train import Seeds
from ogb.graphproppred.mol_encoder import AtomEncoder, BondEncoder
from torch import nn

MODEL = {"hidden": 256, "heads": 4, "layers": 4, "dropout": 0.3}
TRAINING = {"lr": 0.001, "epochs": 100, "batch": 256, "runs": 10}
# What --sample changes.
SAMPLE = {"hidden": 64, "layers": 2, "dropout": 0.0, "lr": 0.005, "epochs": 10, "batch": 64, "runs": 1}


def molecules_of(graph):
    """The bipartite graph from every atom of a batch to its molecule."""
    atoms, molecules = torch.arange(graph.num_nodes()), torch.arange(graph.batch_size)
    owner = molecules.repeat_interleave(graph.batch_num_nodes())
    sizes = {"atom": len(atoms), "molecule": len(molecules)}
    return dgl.heterograph({("atom", "of", "molecule"): (atoms, owner)}, sizes)


def readout(star, x, score):
    """A softmax of scores [N, 1] over the atoms of each molecule and the sum of their rows [N, F]: [molecules, F].

    Molecules attend to their atoms, so that attention's own operators serve it, on any device.
    """
    return hgat.ops.weighted_sum(star, x.unsqueeze(1), hgat.ops.edge_softmax(star, score)).flatten(1)


class Net(nn.Module):
    """EdgeGATConv layers with BatchNorm and residuals, a softmax over each molecule's atoms or a mean, a linear map."""

    def __init__(self, hidden, outputs, layers, heads, dropout, mean):
        super().__init__()
        self.atom, self.bond = AtomEncoder(hidden), BondEncoder(hidden)
        sizes = hidden, hidden, hidden // heads, heads
        # A molecule of one atom has no bond.
        self.convs = nn.ModuleList(hgat.nn.EdgeGATConv(*sizes, allow_zero_in_degree=True) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(layers))
        self.gate = None if mean else nn.Linear(hidden, 1)
        self.end = nn.Linear(hidden, outputs)
        self.dropout = dropout

    def forward(self, graph, star, atoms, bonds):
        """star: from every atom to its molecule."""
        x, edge = self.atom(atoms), self.bond(bonds)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + F.dropout(F.relu(norm(conv(graph, x, edge).flatten(1))), self.dropout, self.training)
        return self.end(readout(star, x, x.new_zeros(len(x), 1) if self.gate is None else self.gate(x)))


def main(arguments=None):
    args = Options(__doc__, "runs/ogb/ogbg-molhiv", MODEL | TRAINING, SAMPLE).parse_args(arguments)
    data = ogb.load("ogbg-molhiv", args.root, mapped=args.mapped, sample=args.sample)
    device = torch.device(args.device)
    graphs = data.graphs
    if args.control == "mlp":
        graphs = [dgl.remove_edges(graph, torch.arange(graph.num_edges())) for graph in graphs]

    def batches(ids, shuffle):
        for part in (ids[torch.randperm(len(ids))] if shuffle else ids).split(args.batch):
            graph = dgl.batch([graphs[k] for k in part.tolist()])
            inputs = graph, molecules_of(graph), graph.ndata["feat"], graph.edata["feat"]
            yield to_device(inputs, device), data.label[part].to(device)

    attention = hgat.ops.uniform_attention if args.control == "uniform" else nullcontext
    runs = Seeds(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        sizes = args.hidden, data.num_classes, args.layers, args.heads, args.dropout
        model = Net(*sizes, mean=args.control == "uniform").to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention():
                model.train()
                for inputs, label in batches(data.split["train"], True):
                    known = label == label
                    loss = F.binary_cross_entropy_with_logits(model(*inputs)[known], label[known].float())
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                model.eval()
                scores = {}
                with torch.no_grad():
                    for part, ids in data.split.items():
                        found = [model(*inputs).cpu() for inputs, _ in batches(ids, False)]
                        scores[part] = data.evaluate(part, torch.cat(found))
            run.record(loss.item(), **scores)
            print(f"run {run.seed}, epoch {epoch}: loss {loss.item():.3f}, valid {scores['val']:.2f}")
    return runs.summary()


if __name__ == "__main__":
    main()
