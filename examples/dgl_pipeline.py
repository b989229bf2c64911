"""A DGL training script with one import changed.

Everything but the line that imports GATConv is DGL as its users write it: the graph, the model, the loop.
"""

import hgat  # noqa: F401  (first, so that `import dgl` works on today's PyTorch)
import dgl
import torch
import torch.nn.functional as F
from torch import nn

from hgat.nn import GATConv  # was: from dgl.nn import GATConv


class GAT(nn.Module):
    def __init__(self, in_feats, hidden, classes, heads=4):
        super().__init__()
        self.hidden = GATConv(in_feats, hidden, heads, feat_drop=0.2, attn_drop=0.2, activation=F.elu)
        self.output = GATConv(hidden * heads, classes, 1, feat_drop=0.2, attn_drop=0.2)

    def forward(self, graph, feat):
        return self.output(graph, self.hidden(graph, feat).flatten(1)).mean(1)


def communities(per_class=60, classes=3, seed=0):
    """Three communities whose features are mostly noise: the neighbours have to be asked."""
    torch.manual_seed(seed)
    label = torch.arange(classes).repeat_interleave(per_class)
    count = label.numel()
    alike = label[:, None] == label[None, :]
    src, dst = (torch.rand(count, count) < torch.where(alike, 0.10, 0.01)).nonzero(as_tuple=True)
    graph = dgl.add_self_loop(dgl.remove_self_loop(dgl.graph((src, dst), num_nodes=count)))
    graph.ndata["feat"] = F.one_hot(label, classes) + 1.5 * torch.randn(count, classes)
    graph.ndata["label"] = label
    graph.ndata["train"] = torch.rand(count) < 0.3
    return graph


def main():
    graph = communities()
    feat, label, train = (graph.ndata[key] for key in ("feat", "label", "train"))
    model = GAT(feat.shape[1], 8, int(label.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    for _ in range(100):
        model.train()
        loss = F.cross_entropy(model(graph, feat)[train], label[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    found = model(graph, feat).argmax(1)
    accuracy = float((found == label)[~train].float().mean())
    print(f"test accuracy {accuracy:.2f}; by its own noisy features alone {own(feat, label, train):.2f}")
    return accuracy


def own(feat, label, train):
    """How often the largest feature names the class."""
    return float((feat.argmax(1) == label)[~train].float().mean())


if __name__ == "__main__":
    main()
