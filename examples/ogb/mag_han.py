"""ogbn-mag: the venue of a paper, by HAN on meta-paths that are walked, never built.

    python examples/ogb/mag_han.py [--sample] [--root DIR]

Paper-field-paper alone has a billion walks, so the meta-path graphs are not built: as in DGL's sampled example of HAN,
random walks draw the neighbours of a batch. One layer, as in the paper; a second one would read nearly every paper.

Published: no number of HAN on ogbn-mag was at hand that could be checked.
"""

import hgat  # before dgl
import dgl
import torch
import torch.nn.functional as F
from hgat.nn import HANConv
from hgat.train import Runs, attention, load_ogb, options
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
    parser = options(__doc__, layers=1, lr=0.005, epochs=20, batch=1024, fanout=20, dropout=0.3, on_sample=small)
    args = parser.parse_args(arguments)
    data = load_ogb("ogbn-mag", args)
    graph, x = hgat.graph.add_inverse(data.graph), data.feat["paper"]
    label, device = data.label, torch.device(args.device)
    walks = 0 if args.control == "mlp" else args.fanout

    def batches(part, fanout, shuffle):
        sampler, ids = Walks(PATHS, fanout, args.layers), data.split[part]
        for papers, seeds, blocks in dgl.dataloading.DataLoader(
            graph, ids, sampler, batch_size=args.batch, shuffle=shuffle
        ):
            yield [block.to(device) for block in blocks], x[papers].to(device), seeds

    runs = Runs(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        sizes = args.hidden, data.num_outputs, args.layers, args.heads, args.dropout
        model = Net(x.shape[1], *sizes, len(PATHS)).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention(args):
                model.train()
                for blocks, on_papers, seeds in batches("train", walks, True):
                    loss = F.cross_entropy(model(blocks, on_papers), label[seeds].to(device))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                model.eval()
                scores = {}
                with torch.no_grad():
                    for part in data.split:
                        found = [model(b, z).cpu() for b, z, _ in batches(part, 2 * walks, False)]
                        scores[part] = data.evaluate(part, torch.cat(found))
            run.record(loss.item(), **scores)
            print(f"run {run.seed}, epoch {epoch}: loss {loss.item():.3f}, valid {100 * scores['valid']:.2f}")
    return runs.summary()


if __name__ == "__main__":
    main()
