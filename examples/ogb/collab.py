"""ogbl-collab: who will work together, by a GAT encoder that reads how often two authors did, and a link decoder.

    python examples/ogb/collab.py [--sample] [--root DIR]

Published, without the weights in the scores, 8 heads, validation links in the graph at test time: GAT 46.63 ± 2.80,
GATv2 49.70 ± 3.08 Hits@50 (Brody et al. 2022, arXiv:2105.14491). Here validation links are left out of the graph.
"""

from contextlib import nullcontext

import hgat  # before dgl
import dgl
import torch
import torch.nn.functional as F
from common import Options  # beside this file
from hgat.data import ogb
from hgat.nn import EdgeGATConv
from hgat.train import Seeds
from torch import nn

MODEL = {"hidden": 64, "heads": 8, "layers": 3, "dropout": 0.0}
TRAINING = {"lr": 0.001, "epochs": 400, "batch": 65536, "runs": 10}
# What --sample changes.
SAMPLE = {"layers": 1, "lr": 0.01, "epochs": 50, "batch": 1024, "runs": 1}


class Net(nn.Module):
    """EdgeGATConv layers, which have residuals, with LayerNorm; a perceptron on the product of a pair's ends."""

    def __init__(self, in_feats, hidden, layers, heads, dropout):
        super().__init__()
        sizes = [in_feats] + [hidden] * (layers - 1)
        self.convs = nn.ModuleList(EdgeGATConv(size, 1, hidden // heads, heads) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in sizes)
        self.end = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.dropout = dropout

    def encode(self, graph, x):
        weight = graph.edata["weight"].to(x.device)
        for depth, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if depth:
                x = F.dropout(F.relu(x), self.dropout, self.training)
            x = norm(conv(graph, x, weight).flatten(1))
        return x

    def forward(self, z, pairs):
        return self.end(z[pairs[:, 0]] * z[pairs[:, 1]]).squeeze(1)


def main(arguments=None):
    args = Options(__doc__, "runs/ogb/ogbl-collab", MODEL | TRAINING, SAMPLE).parse_args(arguments)
    data = ogb.load("ogbl-collab", args.root, mapped=args.mapped, sample=args.sample)
    nodes, device = data.graph.num_nodes(), torch.device(args.device)
    x, links, weight = data.feat["_N"].to(device), data.split["train"]["edge"], data.split["train"]["weight"].float()

    def among(shown):
        """The graph of these links, one for every year, in which every author sees himself, too."""
        if args.control == "mlp":
            shown = torch.zeros_like(shown)
        u, v = links[shown].T
        graph = dgl.graph((torch.cat([u, v]), torch.cat([v, u])), num_nodes=nodes)
        graph.edata["weight"] = weight[shown].log1p().repeat(2).unsqueeze(1)
        return dgl.add_self_loop(graph, fill_data=0.0)

    whole = among(torch.ones(len(links), dtype=torch.bool))
    attention = hgat.ops.uniform_attention if args.control == "uniform" else nullcontext
    runs = Seeds(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        model = Net(x.shape[1], args.hidden, args.layers, args.heads, args.dropout).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention():
                model.train()
                for rows in torch.randperm(len(links)).split(args.batch):
                    shown = torch.ones(len(links), dtype=torch.bool)
                    shown[rows] = False  # what is asked for is not shown
                    z = model.encode(among(shown), x)
                    other = torch.randint(0, nodes, (len(rows), 2), device=device)
                    # A pair counts as often as it worked together.
                    times = weight[rows].to(device)
                    loss = (times * F.softplus(-model(z, links[rows].to(device)))).sum() / times.sum()
                    loss = loss + F.softplus(model(z, other)).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                model.eval()
                scores = {}
                with torch.no_grad():
                    z = model.encode(whole, x)
                    for part in ("val", "test"):
                        pairs = (data.split[part][key].to(device) for key in ("edge", "edge_neg"))
                        scores[part] = data.evaluate(*(model(z, found) for found in pairs))["hits@50"]
            run.record(loss.item(), **scores)
            print(f"run {run.seed}, epoch {epoch}: loss {loss.item():.3f}, valid {scores['val']:.2f}")
    return runs.summary()


if __name__ == "__main__":
    main()
