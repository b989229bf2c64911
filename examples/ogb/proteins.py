"""ogbn-proteins: GAT whose scores read the eight kinds of evidence on every edge, on sampled neighbourhoods.

    python examples/ogb/proteins.py [--sample] [--root DIR]

Published, without edge features in the scores, 8 heads: GAT 78.63 ± 1.62, GATv2 79.52 ± 0.55 ROC-AUC (Brody et al.
2022, arXiv:2105.14491, table 1).
"""

from contextlib import nullcontext

import hgat  # before dgl
import dgl
import dgl.function as fn
import torch
import torch.nn.functional as F
from common import Options  # beside this file
from hgat.data import ogb
from hgat.graph import to_device
from hgat.nn import EdgeGATConv
from hgat.train import Seeds
from torch import nn

MODEL = {"hidden": 64, "heads": 8, "layers": 6, "dropout": 0.5}
TRAINING = {"lr": 0.01, "epochs": 100, "batch": 1024, "fanout": 16, "runs": 10}
# What --sample changes.
SAMPLE = {"hidden": 32, "heads": 4, "layers": 2, "dropout": 0.0, "lr": 0.03, "epochs": 14, "batch": 256, "runs": 1}


class Net(nn.Module):
    """EdgeGATConv layers with LayerNorm, then a linear map per function."""

    def __init__(self, in_feats, edge_feats, hidden, outputs, layers, heads, dropout):
        super().__init__()
        self.start = nn.Linear(in_feats, hidden)
        self.convs = nn.ModuleList(EdgeGATConv(hidden, edge_feats, hidden // heads, heads) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.end = nn.Linear(hidden, outputs)
        self.dropout = dropout

    def forward(self, blocks, x, evidence):
        x = F.relu(self.start(x))
        for conv, norm, block, edge in zip(self.convs, self.norms, blocks, evidence, strict=True):
            out = F.relu(norm(conv(block, x, edge).flatten(1)))
            x = x[: block.num_dst_nodes()] + F.dropout(out, self.dropout, self.training)
        return self.end(x)


def main(arguments=None):
    args = Options(__doc__, "runs/ogb/ogbn-proteins", MODEL | TRAINING, SAMPLE).parse_args(arguments)
    data = ogb.load("ogbn-proteins", args.root, mapped=args.mapped, sample=args.sample)
    # Every protein sees itself, by an edge without evidence.
    graph, nodes = data.graph, data.graph.num_nodes()
    evidence = torch.cat([data.edge_feat, torch.zeros(nodes, data.edge_feat.shape[1])])
    graph.edata["evidence"] = data.edge_feat
    graph.update_all(fn.copy_e("evidence", "m"), fn.mean("m", "x"))  # proteins have no features of their own
    x = graph.ndata.pop("x")
    graph = dgl.add_self_loop(dgl.graph(graph.edges(order="eid"), num_nodes=nodes))
    if args.control == "mlp":
        graph, evidence = dgl.add_self_loop(dgl.graph(([], []), num_nodes=nodes)), evidence[-nodes:]
    label, device = data.label.float(), torch.device(args.device)

    def loader(ids, fanout, shuffle):
        sampler = dgl.dataloading.NeighborSampler([fanout] * args.layers)
        return dgl.dataloading.DataLoader(graph, ids, sampler, batch_size=args.batch, shuffle=shuffle)

    def run_on(model, inputs, blocks):
        on_edges = [evidence[block.edata[dgl.EID]] for block in blocks]
        return model(*to_device((blocks, x[inputs], on_edges), device))

    attention = hgat.ops.uniform_attention if args.control == "uniform" else nullcontext
    runs = Seeds(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        sizes = x.shape[1], evidence.shape[1], args.hidden, data.num_classes
        model = Net(*sizes, args.layers, args.heads, args.dropout).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention():
                model.train()
                for inputs, seeds, blocks in loader(data.split["train"], args.fanout, True):
                    logits = run_on(model, inputs, blocks)
                    loss = F.binary_cross_entropy_with_logits(logits, label[seeds].to(device))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                model.eval()
                scores = {}
                for part, ids in data.split.items():
                    with torch.no_grad():
                        found = [run_on(model, i, b).cpu() for i, _, b in loader(ids, 4 * args.fanout, False)]
                    scores[part] = data.evaluate(part, torch.cat(found))
            run.record(loss.item(), **scores)
            print(f"run {run.seed}, epoch {epoch}: loss {loss.item():.3f}, valid {scores['val']:.2f}")
    return runs.summary()


if __name__ == "__main__":
    main()
