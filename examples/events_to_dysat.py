"""From a table of events to a trained DySAT: who meets whom next, and what the model looks back at.

    python examples/events_to_dysat.py [--epochs N] [FILE.csv SRC DST TIME]

Without a file: 60 people in six groups, who meet inside their group four times in five.
"""

import argparse

import hgat  # before anything that imports dgl
import numpy as np
import torch
import torch.nn.functional as F
from hgat.models.dysat import DySAT
from sklearn.metrics import roc_auc_score


def table_of(arguments):
    """A data frame or a dict of columns, and the names of its columns of source, destination and time."""
    if arguments:
        file, *columns = arguments
        return np.genfromtxt(file, delimiter=",", names=True, dtype=None, encoding="utf-8"), columns
    first, mate, any_one = torch.randint(0, 60, (2000,)), torch.randint(0, 10, (2000,)), torch.randint(0, 60, (2000,))
    second = torch.where(torch.rand(2000) < 0.8, first // 10 * 10 + mate, any_one)
    return {"a": first, "b": second, "day": torch.rand(2000) * 365}, ["a", "b", "day"]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("table", nargs="*", help="a CSV file and its columns of source, destination and time")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)

    # Twelve snapshots over one set of nodes, whatever their names; the last one is to be predicted.
    table, columns = table_of(options.table)
    graph, names = hgat.graph.from_frame(table, *columns)
    steps = hgat.graph.snapshots(graph, windows=12, weight="normalized")
    past, (src, dst) = steps[:-1], steps[-1].events().edges()
    model = DySAT(past, {"_N": None}, heads=[8], hidden=8, temporal_heads=[8])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    # Nodes that random walks meet near each other are to be alike in their snapshot; any two that are known are not.
    pool = hgat.graph.walks(past, num_walks=5, length=20)
    for _ in range(options.epochs):
        rows = model(past).transpose(0, 1).flatten(0, 1)  # node v of snapshot t is row t * N + v
        near = rows[pool.nodes].unsqueeze(1) * rows[pool.contexts(pool.nodes, 5)]
        far = rows[pool.known].unsqueeze(1) * rows[pool.strangers(pool.known, 5)]
        loss = F.softplus(-near.sum(-1)).mean() + F.softplus(far.sum(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    # The next snapshot's links against as many random pairs, by the inner product of the last embeddings.
    model.eval()
    last, other = model(past)[:, -1].detach(), torch.randint(0, len(names), (len(src),))
    score = torch.cat([(last[src] * last[dst]).sum(1), (last[src] * last[other]).sum(1)])
    auc = roc_auc_score(torch.arange(len(score)) < len(src), score)
    print(f"AUC of the next snapshot's {len(src)} links: {100 * auc:.1f} percent")
    beta = model.attention(past)[0].mean((0, 1))[-1]
    print("the last snapshot looks back at:", " ".join(f"{share:.2f}" for share in beta.tolist()))
    return auc


if __name__ == "__main__":
    main()
