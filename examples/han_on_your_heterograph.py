"""HAN on a heterograph of your own: name the meta-paths, get embeddings and the weight of each meta-path."""

import hgat
import dgl
import torch
import torch.nn.functional as F

from hgat.models.han import HAN


def library(papers=240, topics=3, seed=0):
    """Papers, their authors and their venues. Authors stay in their topic; venues take everything."""
    torch.manual_seed(seed)
    topic = torch.arange(papers) % topics
    authors = 20 * topics
    wrote = torch.randint(0, authors // topics, (2, papers)) * topics + topic  # two authors of the paper's topic
    venue = torch.randint(0, 6, (papers,))
    every = torch.arange(papers)
    graph = dgl.heterograph(
        {
            ("author", "wrote", "paper"): (wrote.flatten(), every.repeat(2)),
            ("paper", "written by", "author"): (every.repeat(2), wrote.flatten()),
            ("paper", "published in", "venue"): (every, venue),
            ("venue", "published", "paper"): (venue, every),
        }
    )
    feat = F.one_hot(topic, topics) + 1.5 * torch.randn(papers, topics)
    return graph, feat, topic


def main():
    graph, feat, label = library()
    # Structure is built once, before training.
    views = hgat.graph.metapaths(
        graph,
        {"same author": ["written by", "wrote"], "same venue": ["published in", "published"]},
    )
    train = torch.rand(len(label)) < 0.3
    model = HAN(feat.shape[1], 3, views.names, hidden=8, heads=[4], feat_drop=0.2, attn_drop=0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3)
    for _ in range(100):
        model.train()
        loss = F.cross_entropy(model(views, feat)[train], label[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    accuracy = float((model(views, feat).argmax(1) == label)[~train].float().mean())
    _, beta = model.attention(views, feat)[-1]
    weights = dict(zip(views.names, beta.tolist(), strict=True))
    print(f"test accuracy {accuracy:.2f}; attention by meta-path:", {k: round(v, 2) for k, v in weights.items()})
    return accuracy, weights


if __name__ == "__main__":
    main()
