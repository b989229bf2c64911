"""ogbn-mag: the venue of a paper, by HAN on meta-paths that are walked, never built.

    python examples/ogb/mag_han.py [--sample] [--root DIR]
    torchrun --nproc-per-node 2 examples/ogb/mag_han.py [--sample] ...    # --batch is that of both together

Paper-field-paper alone has a billion walks, so the meta-path graphs are not built: as in DGL's sampled example of HAN,
random walks draw the neighbours of a batch. One layer, as in the paper; a second one would read nearly every paper.

Published: no number of HAN on ogbn-mag was at hand that could be checked.
"""

import hgat  # before dgl
import dgl
import torch
import torch.nn.functional as F
from hgat.nn import HANConv
from hgat.train import Processes, Runs, attention, load_ogb, options
from torch import nn

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
    small = {"hidden": 64, "epochs": 10, "batch": 256}
    defaults = {"layers": 1, "lr": 0.005, "epochs": 20, "batch": 1024, "fanout": 20, "dropout": 0.3}
    parser = options(__doc__, out="runs/ogb/ogbn-mag-han", **defaults, on_sample=small)
    args = parser.parse_args(arguments)
    if args.fanout < 1:
        parser.error(f"argument --fanout: expected 1 or more walks, got {args.fanout}")
    with Processes(args.device) as processes:
        return train(args, processes)


def train(args, processes):
    data = load_ogb("ogbn-mag", args)
    graph, x = hgat.graph.add_inverse(data.graph), data.feat["paper"]
    label, device = data.label, processes.device
    walks = 0 if args.control == "mlp" else args.fanout

    def batches(ids, fanout, size, **loading):
        sampler = Walks(PATHS, fanout, args.layers)
        for papers, seeds, blocks in dgl.dataloading.DataLoader(graph, ids, sampler, batch_size=size, **loading):
            yield [block.to(device) for block in blocks], x[papers].to(device), seeds

    runs = Runs(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        sizes = args.hidden, data.num_outputs, args.layers, args.heads, args.dropout
        model = Net(x.shape[1], *sizes, list(PATHS)).to(device)
        # Uniform attention leaves the scores' parameters out.
        parallel = processes.wrap(model, find_unused_parameters=args.control == "uniform")
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention(args):
                model.train()
                share, size = processes.shares(data.split["train"], args.batch), args.batch // processes.size
                for *inputs, seeds in batches(share, walks, size, use_ddp=processes.size > 1):
                    loss = F.cross_entropy(parallel(*inputs), label[seeds].to(device))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                model.eval()
                out = torch.zeros(graph.num_nodes("paper"), data.num_outputs)
                with torch.no_grad():
                    for ids in data.split.values():
                        for *inputs, seeds in batches(processes.part(ids, args.batch), 2 * walks, args.batch):
                            out[seeds] = model(*inputs).cpu()
                out = processes.sum(out)
            scores = {part: data.evaluate(part, out[ids]) for part, ids in data.split.items()}
            loss = processes.mean(loss.detach()).item()
            run.record(loss, **scores)
            did = f"loss {loss:.3f}, valid {100 * scores['valid']:.2f}, {run.seconds:.2f} s"
            processes.print(f"run {run.seed}, epoch {epoch}: {did}")
    return runs.summary()


if __name__ == "__main__":
    main()
