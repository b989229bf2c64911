"""ogbn-products: GAT on sampled neighbourhoods, scored by exact inference layer by layer.

    python examples/ogb/products.py [--sample] [--conv GATv2Conv] [--root DIR]
    torchrun --nproc-per-node 2 examples/ogb/products.py [--sample] ...    # --batch is that of both together

Published: GAT 79.04 ± 1.54, GATv2 80.63 ± 0.70 with 1 head (Brody et al. 2022, arXiv:2105.14491, table 1).
"""

from contextlib import nullcontext

import hgat  # before dgl
import dgl
import torch
import torch.nn.functional as F
from common import Options  # beside this file
from hgat.data import ogb
from hgat.graph import to_device
from hgat.train import Processes, Seeds
from torch import nn

MODEL = {"conv": ("GATConv", "GATv2Conv", "DotGatConv"), "hidden": 128, "heads": 1, "layers": 3, "dropout": 0.5}
TRAINING = {"lr": 0.001, "epochs": 100, "batch": 1024, "fanout": 10, "runs": 10}
# What --sample changes.
SAMPLE = {"hidden": 64, "heads": 4, "layers": 2, "lr": 0.01, "epochs": 15, "batch": 256, "runs": 1}


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
    def inference(self, graph, x, batch, processes):
        """What forward gives with every neighbour, for all nodes: each layer is finished before the next begins.

        The processes share the batches of a layer, and all get the whole of it.
        """
        self.eval()
        sampler = dgl.dataloading.MultiLayerFullNeighborSampler(1)
        device, nodes = processes.device, processes.part(torch.arange(graph.num_nodes()), batch)
        for depth, skip in enumerate(self.skips):
            out = torch.zeros(graph.num_nodes(), skip.out_features)
            for inputs, seeds, (block,) in dgl.dataloading.DataLoader(graph, nodes, sampler, batch_size=batch):
                out[seeds] = self.layer(depth, *to_device((block, x[inputs]), device)).cpu()
            x = processes.sum(out)
        return x


def main(arguments=None):
    args = Options(__doc__, "runs/ogb/ogbn-products", MODEL | TRAINING, SAMPLE).parse_args(arguments)
    with Processes(args.device) as processes:
        return train(args, processes)


def train(args, processes):
    with processes.first():
        data = ogb.load("ogbn-products", args.root, mapped=args.mapped, sample=args.sample)
    graph = dgl.add_self_loop(dgl.remove_self_loop(data.graph))
    if args.control == "mlp":
        graph = dgl.add_self_loop(dgl.graph(([], []), num_nodes=graph.num_nodes()))
    x, label, device = data.feat["_N"], data.label, processes.device
    sampler = dgl.dataloading.NeighborSampler([args.fanout] * args.layers)
    loading = {"batch_size": args.batch // processes.size, "use_ddp": processes.size > 1}

    attention = hgat.ops.uniform_attention if args.control == "uniform" else nullcontext
    runs = Seeds(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        conv = getattr(hgat.nn, args.conv)
        model = Net(conv, x.shape[1], args.hidden, data.num_classes, args.layers, args.heads, args.dropout).to(device)
        # Uniform attention leaves the scores' parameters out.
        parallel = processes.wrap(model, find_unused_parameters=args.control == "uniform")
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention():
                model.train()
                order = processes.shares(data.split["train"], args.batch)
                batches = dgl.dataloading.DataLoader(graph, order, sampler, **loading)
                for inputs, seeds, blocks in batches:
                    out = parallel(*to_device((blocks, x[inputs]), device))
                    loss = F.cross_entropy(out, label[seeds].to(device))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                out = model.inference(graph, x, 8 * args.batch, processes)
            scores = {part: data.evaluate(part, out[ids]) for part, ids in data.split.items()}
            loss = processes.mean(loss.detach()).item()
            run.record(loss, **scores)
            did = f"loss {loss:.3f}, valid {scores['val']:.2f}, {run.seconds:.2f} s"
            processes.print(f"run {run.seed}, epoch {epoch}: {did}")
    return runs.summary()


if __name__ == "__main__":
    main()
