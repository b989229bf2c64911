"""Node classification by RGAT on a graph in parts: DistDGL samples and serves features, every trainer has the model.

    hgat partition ogbn-mag --sample --inverse --parts 2 --out parts
    python examples/distributed/launch.py --hosts HOSTS --config parts/ogbn-mag.json examples/distributed/rgat.py

HOSTS has a line `address [port]` per part. On one part it also runs without a launcher: `rgat.py --config NAME.json`.
As examples/ogb/mag.py, with one learned row per node type without features, in place of one per node. The first
machine keeps the checkpoint, from which --resume goes on.
"""

import argparse
import os

import hgat  # before dgl
import dgl
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hgat.data import partition
from hgat.train import Seeds, machines
from torch import nn


class Net(nn.Module):
    """A linear map of features or a learned row per type, RGAT layers with residuals, a linear map."""

    def __init__(self, etypes, widths, target, hidden, classes, layers, heads, dropout):
        super().__init__()
        self.inputs = nn.ModuleDict({t: nn.Linear(width, hidden) for t, width in widths.items()})
        self.convs = nn.ModuleList(hgat.nn.RGATConv(hidden, hidden // heads, heads, etypes) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.end = nn.Linear(hidden, classes)
        self.target, self.dropout = target, dropout

    def forward(self, blocks, feat):
        """feat: {type: [N, F]} of the first block's sources, ones [N, 1] for a type without features."""
        x = {t: self.inputs[t](rows) for t, rows in feat.items()}
        for conv, norm, block in zip(self.convs, self.norms, blocks, strict=True):
            out = {t: F.relu(norm(z.flatten(1))) for t, z in conv(block, x).items()}
            x = {t: x[t][: len(z)] + F.dropout(z, self.dropout, self.training) for t, z in out.items()}
        return self.end(x[self.target])


def main(arguments=None):
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--config", default=os.environ.get("DGL_CONF_PATH"), help="NAME.json of the partition")
    parser.add_argument("--out", default="runs/distributed", help="folder of the checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    defaults = {"runs": 1, "epochs": 20, "lr": 0.005, "hidden": 64, "heads": 4, "layers": 2, "dropout": 0.3}
    for name, default in {**defaults, "batch": 256, "fanout": 15}.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    args = parser.parse_args(arguments)
    processes = machines.enter()  # a server stays in there
    about = partition.about(args.config)
    graph = dgl.distributed.DistGraph(about["graph_name"], part_config=args.config)
    target, data = about["target"], {t: graph.nodes[t].data for t in graph.ntypes}
    ids = {
        part: dgl.distributed.node_split(
            data[target][f"{part}_mask"], graph.get_partition_book(), ntype=target, force_even=True
        )
        for part in ("train", "val", "test")
    }
    # A step is one of all trainers, so that none may have a batch more than another.
    least = torch.tensor(len(ids["train"]))
    if processes.size > 1:
        dist.all_reduce(least, dist.ReduceOp.MIN)
    ids["train"] = ids["train"][:least]

    def batches(part, fanout, shuffle):
        sampler = dgl.dataloading.NeighborSampler([fanout] * args.layers)
        seeds = {target: ids[part]} if len(graph.ntypes) > 1 else ids[part]
        loader = dgl.dataloading.DistNodeDataLoader(graph, seeds, sampler, batch_size=args.batch, shuffle=shuffle)
        for nodes, seeds, blocks in loader:
            nodes = nodes if isinstance(nodes, dict) else {target: nodes}
            seeds = seeds[target] if isinstance(seeds, dict) else seeds
            feat = {t: data[t]["feat"][n] if "feat" in data[t] else torch.ones(len(n), 1) for t, n in nodes.items()}
            yield blocks, feat, data[target]["label"][seeds]

    def accuracy(model, part):
        """In percent, over the nodes of all trainers."""
        right = torch.zeros(2, dtype=torch.int64)
        for blocks, feat, label in batches(part, 2 * args.fanout, False):
            right += torch.tensor([(model(blocks, feat).argmax(1) == label).sum(), len(label)])
        right, count = processes.sum(right).tolist()
        return 100 * right / count

    # A run may go on for more epochs, and where the parts have moved to.
    settings = {key: value for key, value in vars(args).items() if key not in ("config", "epochs", "resume")}
    runs = Seeds(args.out, args.runs, resume=args.resume, settings=settings)
    for run in runs:
        widths = {t: data[t]["feat"].shape[1] if "feat" in data[t] else 1 for t in graph.ntypes}
        sizes = args.hidden, about["outputs"], args.layers, args.heads, args.dropout
        model = Net(graph.canonical_etypes, widths, target, *sizes)
        parallel = processes.wrap(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, parallel, optimizer):
            model.train()
            for blocks, feat, label in batches("train", args.fanout, True):
                loss = F.cross_entropy(parallel(blocks, feat), label)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                val, test = accuracy(model, "val"), accuracy(model, "test")
            run.record(loss.item(), val=val, test=test)
            processes.print(f"run {run.seed}, epoch {epoch}: loss {loss.item():.3f}, valid {val:.2f}")
    return runs.summary()


if __name__ == "__main__":
    main()
