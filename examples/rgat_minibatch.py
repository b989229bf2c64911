"""Mini-batch RGAT on a typed graph with DGL's NeighborSampler and DataLoader."""

import hgat
import dgl
import torch
import torch.nn.functional as F
from torch import nn

from hgat.nn import RGATConv


class SampledRGAT(nn.Module):
    """Two RGAT layers over blocks; users have no features and get a learned row each."""

    def __init__(self, graph, in_feats, hidden, classes, heads=2):
        super().__init__()
        self.user = nn.Embedding(graph.num_nodes("user"), hidden)
        self.item = nn.Linear(in_feats, hidden)
        self.first = RGATConv(hidden, hidden // heads, heads, graph.canonical_etypes)
        self.second = RGATConv(hidden, classes, 1, graph.canonical_etypes)

    def forward(self, blocks, feat):
        nodes = blocks[0].srcdata[dgl.NID]
        h = {"user": self.user(nodes["user"]), "item": self.item(feat[nodes["item"]])}
        h = {t: F.relu(z.flatten(1)) for t, z in self.first(blocks[0], h).items()}
        return self.second(blocks[1], h)["item"].mean(1)


def shop(users=150, items=200, seed=0):
    """Users like items of their own taste and dislike others; the taste of an item is what is asked for."""
    torch.manual_seed(seed)
    taste, kind = torch.randint(0, 2, (users,)), torch.randint(0, 2, (items,))
    match = taste[:, None] == kind[None, :]
    likes = (torch.rand(users, items) < torch.where(match, 0.06, 0.01)).nonzero(as_tuple=True)
    dislikes = (torch.rand(users, items) < torch.where(match, 0.01, 0.06)).nonzero(as_tuple=True)
    graph = dgl.heterograph(
        {("user", "likes", "item"): likes, ("user", "dislikes", "item"): dislikes},
        num_nodes_dict={"user": users, "item": items},
    )
    return hgat.graph.add_inverse(graph, self_relation=True), torch.randn(items, 3), kind


def main():
    graph, feat, label = shop()
    ids = torch.randperm(len(label))
    train, test = ids[:120], ids[120:]
    sampler = dgl.dataloading.NeighborSampler([8, 8])
    batches = dgl.dataloading.DataLoader(graph, {"item": train}, sampler, batch_size=40, shuffle=True)
    model = SampledRGAT(graph, feat.shape[1], 16, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        for _, seeds, blocks in batches:
            loss = F.cross_entropy(model(blocks, feat), label[seeds["item"]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    every = dgl.dataloading.DataLoader(
        graph, {"item": test}, dgl.dataloading.MultiLayerFullNeighborSampler(2), batch_size=len(test)
    )
    for _, seeds, blocks in every:
        with torch.no_grad():
            accuracy = float((model(blocks, feat).argmax(1) == label[seeds["item"]]).float().mean())
    print(f"test accuracy {accuracy:.2f} (chance {float(label[test].float().mean().sub(0.5).abs().add(0.5)):.2f})")
    return accuracy


if __name__ == "__main__":
    main()
