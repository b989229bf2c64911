"""ogbn-arxiv: GATv2, GAT or dot-product attention on the whole graph.

    python examples/ogb/arxiv.py [--sample] [--conv GATConv] [--root DIR]

Published, 8 heads: GATv2 71.87 ± 0.25, GAT 71.54 ± 0.30 (Brody et al. 2022, arXiv:2105.14491, table 1, on GraphSAINT
samples; here every epoch is one step on the whole graph).
"""

from contextlib import nullcontext

import hgat  # before dgl
import dgl
import torch
import torch.nn.functional as F
from common import Options  # beside this file
from hgat.data import ogb
from hgat.train import Seeds
from torch import nn

MODEL = {"conv": ("GATv2Conv", "GATConv", "DotGatConv"), "hidden": 256, "heads": 8, "layers": 3, "dropout": 0.25}
TRAINING = {"lr": 0.01, "epochs": 500, "runs": 10}
# What --sample changes.
SAMPLE = {"hidden": 64, "layers": 2, "epochs": 50, "runs": 1}


class Net(nn.Module):
    """Attention layers with residuals and LayerNorm, one head at the end, as in GATv2's code."""

    def __init__(self, conv, in_feats, hidden, classes, layers, heads, dropout):
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for _ in range(layers - 1):
            self.convs.append(conv(in_feats, hidden // heads, heads))
            self.norms.append(nn.LayerNorm(hidden))
            in_feats = hidden
        self.convs.append(conv(in_feats, classes, 1))
        self.dropout = dropout

    def forward(self, graph, x):
        for conv, norm in zip(self.convs, self.norms, strict=False):
            out = F.relu(conv(graph, x).flatten(1))
            x = F.dropout(norm(out + x if out.shape == x.shape else out), self.dropout, self.training)
        return self.convs[-1](graph, x).squeeze(1)


def main(arguments=None):
    args = Options(__doc__, "runs/ogb/ogbn-arxiv", MODEL | TRAINING, SAMPLE).parse_args(arguments)
    data = ogb.load("ogbn-arxiv", args.root, mapped=args.mapped, sample=args.sample)
    graph = dgl.add_self_loop(dgl.remove_self_loop(dgl.to_bidirected(data.graph)))
    if args.control == "mlp":
        graph = dgl.add_self_loop(dgl.graph(([], []), num_nodes=graph.num_nodes()))
    device = torch.device(args.device)
    x, label = data.feat["_N"].to(device), data.label.to(device)
    train = data.split["train"].to(device)

    attention = hgat.ops.uniform_attention if args.control == "uniform" else nullcontext
    runs = Seeds(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        conv = getattr(hgat.nn, args.conv)
        model = Net(conv, x.shape[1], args.hidden, data.num_classes, args.layers, args.heads, args.dropout).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention():
                model.train()
                loss = F.cross_entropy(model(graph, x)[train], label[train])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                model.eval()
                with torch.no_grad():
                    out = model(graph, x)
            scores = {part: data.evaluate(part, out[ids.to(device)]) for part, ids in data.split.items()}
            run.record(loss.item(), **scores)
            if epoch % 10 == 0:
                print(f"run {run.seed}, epoch {epoch}: loss {loss.item():.3f}, valid {scores['val']:.2f}")
    return runs.summary()


if __name__ == "__main__":
    main()
