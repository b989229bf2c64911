"""ogbn-products: GAT on sampled neighbourhoods, scored by exact inference layer by layer.

    python examples/ogb/products.py [--sample] [--conv GATv2Conv] [--root DIR]

Published: GAT 79.04 ± 1.54, GATv2 80.63 ± 0.70 with 1 head (Brody et al. 2022, arXiv:2105.14491, table 1).
"""

import hgat  # before dgl
import dgl
import torch
import torch.nn.functional as F
from hgat.train import Runs, attention, load_ogb, options
from torch import nn


class Net(nn.Module):
    """Attention layers with residuals and LayerNorm, one head at the end; a layer at a time or on blocks."""

    def __init__(self, conv, in_feats, hidden, classes, layers, heads, dropout):
        super().__init__()
        self.convs, self.skips, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for depth in range(layers):
            last = depth == layers - 1
            out, count = (classes, 1) if last else (hidden // heads, heads)
            self.convs.append(conv(in_feats, out, count))
            self.skips.append(nn.Linear(in_feats, out * count))
            self.norms.append(nn.Identity() if last else nn.LayerNorm(hidden))
            in_feats = hidden
        self.dropout = dropout

    def layer(self, depth, block, x):
        h = self.norms[depth](self.convs[depth](block, x).flatten(1) + self.skips[depth](x[: block.num_dst_nodes()]))
        return h if depth == len(self.convs) - 1 else F.dropout(F.relu(h), self.dropout, self.training)

    def forward(self, blocks, x):
        for depth, block in enumerate(blocks):
            x = self.layer(depth, block, x)
        return x

    @torch.no_grad()
    def inference(self, graph, x, batch, device):
        """What forward gives with every neighbour, for all nodes: each layer is finished before the next begins."""
        self.eval()
        sampler = dgl.dataloading.MultiLayerFullNeighborSampler(1)
        nodes = torch.arange(graph.num_nodes())
        for depth in range(len(self.convs)):
            parts = []
            for inputs, _, (block,) in dgl.dataloading.DataLoader(graph, nodes, sampler, batch_size=batch):
                parts.append(self.layer(depth, block.to(device), x[inputs].to(device)).cpu())
            x = torch.cat(parts)
        return x


def main(arguments=None):
    small = {"hidden": 64, "heads": 4, "layers": 2, "batch": 256, "epochs": 15, "lr": 0.01}
    parser = options(
        __doc__, conv="GATConv", hidden=128, heads=1, lr=0.001, epochs=100, batch=1024, fanout=10, on_sample=small
    )
    args = parser.parse_args(arguments)
    data = load_ogb("ogbn-products", args)
    graph = dgl.add_self_loop(dgl.remove_self_loop(data.graph))
    if args.control == "mlp":
        graph = dgl.add_self_loop(dgl.graph(([], []), num_nodes=graph.num_nodes()))
    x, label, device = data.feat["_N"], data.label, torch.device(args.device)
    train, sampler = data.split["train"], dgl.dataloading.NeighborSampler([args.fanout] * args.layers)

    runs = Runs(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        conv = getattr(hgat.nn, args.conv)
        model = Net(conv, x.shape[1], args.hidden, data.num_outputs, args.layers, args.heads, args.dropout).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention(args):
                model.train()
                batches = dgl.dataloading.DataLoader(graph, train, sampler, batch_size=args.batch, shuffle=True)
                for inputs, seeds, blocks in batches:
                    out = model([block.to(device) for block in blocks], x[inputs].to(device))
                    loss = F.cross_entropy(out, label[seeds].to(device))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                out = model.inference(graph, x, 8 * args.batch, device)
            scores = {part: data.evaluate(part, out[ids]) for part, ids in data.split.items()}
            run.record(loss.item(), **scores)
            print(f"run {run.seed}, epoch {epoch}: loss {loss.item():.3f}, valid {100 * scores['valid']:.2f}")
    return runs.summary()


if __name__ == "__main__":
    main()
