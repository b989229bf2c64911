"""ogbn-mag: the venue of a paper, by RGAT on sampled typed neighbourhoods.

    python examples/ogb/mag.py [--sample] [--root DIR]

Published: DGL's example "rgat" (3 layers, 4 heads, one softmax per relation) says about 36.5 percent in its README; on
papers alone GATv2 has 32.52 ± 0.39 with 8 heads (Brody et al. 2022, arXiv:2105.14491, table 1).
"""

import hgat  # before dgl
import dgl
import torch
import torch.nn.functional as F
from hgat.nn import RGATConv
from hgat.train import Runs, attention, load_ogb, options
from torch import nn


class Net(nn.Module):
    """A linear map of features or a learned row per node, RGAT layers with residuals, a linear map."""

    def __init__(self, graph, feat, hidden, classes, layers, heads, dropout):
        super().__init__()
        self.inputs = nn.ModuleDict()
        for ntype in graph.ntypes:
            rows = nn.Embedding(graph.num_nodes(ntype), hidden) if feat[ntype] is None else None
            self.inputs[ntype] = rows or nn.Linear(feat[ntype].shape[1], hidden)
        etypes = graph.canonical_etypes
        self.convs = nn.ModuleList(RGATConv(hidden, hidden // heads, heads, etypes) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.end = nn.Linear(hidden, classes)
        self.dropout = dropout

    def forward(self, blocks, nodes, feat):
        """nodes: {type: ids of the first block's sources}; feat: their features, None for a type without."""
        x = {t: self.inputs[t](ids if feat[t] is None else feat[t]) for t, ids in nodes.items()}
        for conv, norm, block in zip(self.convs, self.norms, blocks, strict=True):
            out = {t: F.relu(norm(z.flatten(1))) for t, z in conv(block, x).items()}
            x = {t: x[t][: len(z)] + F.dropout(z, self.dropout, self.training) for t, z in out.items()}
        return self.end(x["paper"])


def main(arguments=None):
    small = {"hidden": 64, "epochs": 10, "batch": 256}
    parser = options(__doc__, layers=2, lr=0.005, epochs=20, batch=1024, fanout=15, dropout=0.3, on_sample=small)
    args = parser.parse_args(arguments)
    data = load_ogb("ogbn-mag", args)
    graph = hgat.graph.add_inverse(data.graph, self_relation=True)
    if args.control == "mlp":
        graph = graph.edge_type_subgraph([etype for etype in graph.canonical_etypes if etype[1] == "self"])
    feat = {ntype: data.feat.get(ntype) for ntype in graph.ntypes}
    label, device = data.label, torch.device(args.device)

    def batches(part, fanout, shuffle):
        sampler = dgl.dataloading.NeighborSampler([fanout] * args.layers)
        ids = {"paper": data.split[part]}
        for nodes, seeds, blocks in dgl.dataloading.DataLoader(
            graph, ids, sampler, batch_size=args.batch, shuffle=shuffle
        ):
            on_nodes = {t: None if feat[t] is None else feat[t][ids].to(device) for t, ids in nodes.items()}
            nodes = {t: ids.to(device) for t, ids in nodes.items()}
            yield [block.to(device) for block in blocks], nodes, on_nodes, seeds["paper"]

    runs = Runs(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        sizes = args.hidden, data.num_outputs, args.layers, args.heads, args.dropout
        model = Net(graph, feat, *sizes).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention(args):
                model.train()
                for blocks, nodes, on_nodes, seeds in batches("train", args.fanout, True):
                    loss = F.cross_entropy(model(blocks, nodes, on_nodes), label[seeds].to(device))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                model.eval()
                scores = {}
                with torch.no_grad():
                    for part in data.split:
                        found = [model(b, n, x).cpu() for b, n, x, _ in batches(part, 2 * args.fanout, False)]
                        scores[part] = data.evaluate(part, torch.cat(found))
            run.record(loss.item(), **scores)
            print(f"run {run.seed}, epoch {epoch}: loss {loss.item():.3f}, valid {100 * scores['valid']:.2f}")
    return runs.summary()


if __name__ == "__main__":
    main()
