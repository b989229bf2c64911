"""ogbn-mag: the venue of a paper, by HAN on meta-paths that are walked, never built.

    python examples/ogb/mag_han.py [--sample] [--root DIR]
    torchrun --nproc-per-node 2 examples/ogb/mag_han.py [--sample] ...    # --batch is that of both together

Paper-field-paper alone has a billion walks, so the meta-path graphs are not built: as in DGL's sampled example of HAN,
random walks draw the neighbours of a batch. One layer, as in the paper; a second one would read nearly every paper.

Published: no number of HAN on ogbn-mag was at hand that could be checked.
"""

from contextlib import nullcontext

import hgat  # before dgl
import dgl
import torch
import torch.nn.functional as F
from common import Options  # beside this file
from hgat.data import ogb
from hgat.graph import to_device
from hgat.nn import HANConv
from hgat.train import Processes, Seeds
from torch import nn

MODEL = {"hidden": 256, "heads": 4, "layers": 1, "dropout": 0.3}
TRAINING = {"lr": 0.005, "epochs": 20, "batch": 1024, "fanout": 20, "runs": 10}
# What --sample changes.
SAMPLE = {"hidden": 64, "epochs": 10, "batch": 256, "runs": 1}

PATHS = {
    "cites": ["cites"],
    "cited by": ["cites^-1"],
    "same author": ["writes^-1", "writes"],
    "same field": ["has_topic", "has_topic^-1"],
}


class Walks(dgl.dataloading.Sampler):
    """Blocks of one relation per meta-path: the ends of `fanout` walks from each paper, each once, and the paper."""

    def __init__(self, paths, fanout, layers):
        super().__init__()
        self.paths, self.fanout, self.layers = paths, fanout, layers

    def sample(self, graph, papers):
        seeds, blocks, count = papers, [], graph.num_nodes("paper")
        for _ in range(self.layers):
            edges = {}
            for name, path in self.paths.items():
                start = papers.repeat_interleave(self.fanout)
                ends = dgl.sampling.random_walk(graph, start, metapath=path)[0][:, -1]
                pairs = (ends * count + start)[ends >= 0]  # -1: a walk that found no way
                pairs = torch.cat([pairs, papers * (count + 1)]).unique()
                edges["paper", name, "paper"] = pairs // count, pairs % count
            joined = dgl.heterograph(edges, {"paper": count})
            blocks.insert(0, dgl.to_block(joined, {"paper": papers}))
            papers = blocks[0].srcdata[dgl.NID]
        return papers, seeds, blocks


class Net(nn.Module):
    """HAN layers, one beta per paper so that no batch decides it, a linear map."""

    def __init__(self, in_feats, hidden, classes, layers, heads, dropout, paths):
        super().__init__()
        widths = [in_feats] + [hidden] * (layers - 1)
        self.convs = nn.ModuleList(
            HANConv(width, hidden // heads, heads, paths, dropout, semantic="per_node") for width in widths
        )
        self.end = nn.Linear(hidden, classes)

    def forward(self, blocks, x):
        for conv, block in zip(self.convs, blocks, strict=True):
            x = conv(block, x)
        return self.end(x)


def main(arguments=None):
    parser = Options(__doc__, "runs/ogb/ogbn-mag-han", MODEL | TRAINING, SAMPLE)
    args = parser.parse_args(arguments)
    if args.fanout < 1:
        parser.error(f"argument --fanout: expected 1 or more walks, got {args.fanout}")
    with Processes(args.device) as processes:
        return train(args, processes)


def train(args, processes):
    with processes.first():
        data = ogb.load("ogbn-mag", args.root, mapped=args.mapped, sample=args.sample)
    graph, x = hgat.graph.add_inverse(data.graph), data.feat["paper"]
    label, device = data.label, processes.device
    walks = 0 if args.control == "mlp" else args.fanout

    def batches(ids, fanout, size, **loading):
        sampler = Walks(PATHS, fanout, args.layers)
        for papers, seeds, blocks in dgl.dataloading.DataLoader(graph, ids, sampler, batch_size=size, **loading):
            yield *to_device((blocks, x[papers]), device), seeds

    attention = hgat.ops.uniform_attention if args.control == "uniform" else nullcontext
    runs = Seeds(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        sizes = args.hidden, data.num_classes, args.layers, args.heads, args.dropout
        model = Net(x.shape[1], *sizes, list(PATHS)).to(device)
        # Uniform attention leaves the scores' parameters out.
        parallel = processes.wrap(model, find_unused_parameters=args.control == "uniform")
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention():
                model.train()
                share, size = processes.shares(data.split["train"], args.batch), args.batch // processes.size
                for *inputs, seeds in batches(share, walks, size, use_ddp=processes.size > 1):
                    loss = F.cross_entropy(parallel(*inputs), label[seeds].to(device))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                model.eval()
                out = torch.zeros(graph.num_nodes("paper"), data.num_classes)
                with torch.no_grad():
                    for ids in data.split.values():
                        for *inputs, seeds in batches(processes.part(ids, args.batch), 2 * walks, args.batch):
                            out[seeds] = model(*inputs).cpu()
                out = processes.sum(out)
            scores = {part: data.evaluate(part, out[ids]) for part, ids in data.split.items()}
            loss = processes.mean(loss.detach()).item()
            run.record(loss, **scores)
            did = f"loss {loss:.3f}, valid {scores['val']:.2f}, {run.seconds:.2f} s"
            processes.print(f"run {run.seed}, epoch {epoch}: {did}")
    return runs.summary()


if __name__ == "__main__":
    main()
