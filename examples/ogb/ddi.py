"""ogbl-ddi: which drugs interact, by a GATv2 encoder over learned rows, and a link decoder.

    python examples/ogb/ddi.py [--sample] [--root DIR]

Published: no number of a plain GAT on ogbl-ddi was at hand that could be checked.
"""

from contextlib import nullcontext

import hgat  # before dgl
import dgl
import torch
import torch.nn.functional as F
from common import Options  # beside this file
from hgat.data import ogb
from hgat.nn import GATv2Conv
from hgat.train import Seeds
from torch import nn

MODEL = {"hidden": 256, "heads": 4, "layers": 2, "dropout": 0.5}
TRAINING = {"lr": 0.005, "epochs": 200, "batch": 65536, "runs": 10}
# What --sample changes.
SAMPLE = {"hidden": 64, "layers": 1, "dropout": 0.0, "epochs": 50, "batch": 1024, "runs": 1}


class Net(nn.Module):
    """A learned row per drug and its degree, GATv2 layers with residuals and LayerNorm, a perceptron on products."""

    def __init__(self, nodes, hidden, layers, heads, dropout):
        super().__init__()
        self.row = nn.Embedding(nodes, hidden)
        self.start = nn.Linear(hidden + 1, hidden)
        self.convs = nn.ModuleList(GATv2Conv(hidden, hidden // heads, heads, residual=True) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.end = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.dropout = dropout

    def encode(self, graph):
        row = self.row.weight
        x = self.start(torch.cat([row, graph.in_degrees().to(row).log().unsqueeze(1)], 1))
        for depth, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if depth:
                x = F.dropout(F.relu(x), self.dropout, self.training)
            x = norm(conv(graph, x).flatten(1))
        return x

    def forward(self, z, pairs):
        return self.end(z[pairs[:, 0]] * z[pairs[:, 1]]).squeeze(1)


def main(arguments=None):
    args = Options(__doc__, "runs/ogb/ogbl-ddi", MODEL | TRAINING, SAMPLE).parse_args(arguments)
    data = ogb.load("ogbl-ddi", args.root, mapped=args.mapped, sample=args.sample)
    nodes, device = data.graph.num_nodes(), torch.device(args.device)
    links = data.split["train"]["edge"]

    def among(shown):
        """The graph of these links, in which every drug sees itself, too."""
        if args.control == "mlp":
            shown = torch.zeros_like(shown)
        u, v = links[shown].T
        return dgl.add_self_loop(dgl.graph((torch.cat([u, v]), torch.cat([v, u])), num_nodes=nodes))

    whole = among(torch.ones(len(links), dtype=torch.bool))
    attention = hgat.ops.uniform_attention if args.control == "uniform" else nullcontext
    runs = Seeds(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        model = Net(nodes, args.hidden, args.layers, args.heads, args.dropout).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention():
                model.train()
                for rows in torch.randperm(len(links)).split(args.batch):
                    shown = torch.ones(len(links), dtype=torch.bool)
                    shown[rows] = False  # what is asked for is not shown
                    z = model.encode(among(shown))
                    other = torch.randint(0, nodes, (len(rows), 2), device=device)
                    loss = F.softplus(-model(z, links[rows].to(device))).mean() + F.softplus(model(z, other)).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                model.eval()
                scores = {}
                with torch.no_grad():
                    z = model.encode(whole)
                    for part in ("val", "test"):
                        pairs = (data.split[part][key].to(device) for key in ("edge", "edge_neg"))
                        scores[part] = data.evaluate(*(model(z, found) for found in pairs))["hits@20"]
            run.record(loss.item(), **scores)
            print(f"run {run.seed}, epoch {epoch}: loss {loss.item():.3f}, valid {scores['val']:.2f}")
    return runs.summary()


if __name__ == "__main__":
    main()
