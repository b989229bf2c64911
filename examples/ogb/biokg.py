"""ogbl-biokg: RGAT over all 51 relations and their inverses, DistMult on triples.

    python examples/ogb/biokg.py [--sample] [--root DIR]

Published: no number of RGAT on ogbl-biokg was at hand that could be checked.
"""

from contextlib import nullcontext

import hgat  # before dgl
import dgl
import torch
import torch.nn.functional as F
from common import Options  # beside this file
from hgat.data import ogb
from hgat.nn import RGATConv
from hgat.train import Seeds
from torch import nn

MODEL = {"hidden": 128, "heads": 4, "layers": 1, "dropout": 0.5, "bases": 16}
TRAINING = {"lr": 0.005, "epochs": 100, "batch": 65536, "negatives": 32, "runs": 10}
# What --sample changes.
SAMPLE = {"hidden": 64, "dropout": 0.0, "epochs": 30, "batch": 1024, "negatives": 4, "bases": 8, "runs": 1}


class Net(nn.Module):
    """A learned row per entity and its degree, RGAT layers with residuals; score(h, r, t) = sum of h * r * t."""

    def __init__(self, joined, relations, hidden, layers, heads, bases, dropout):
        super().__init__()
        self.sizes, self.dropout = joined.num_src, dropout
        self.row = nn.ParameterDict({t: nn.Parameter(torch.randn(n, hidden)) for t, n in self.sizes.items()})
        self.start = nn.Linear(hidden + 1, hidden)
        few = {"num_bases": bases, "num_attn_bases": bases}
        self.convs = nn.ModuleList(
            RGATConv(hidden, hidden // heads, heads, joined.etypes, **few) for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.relation = nn.Parameter(torch.full((relations, hidden), hidden**-0.5))
        # All relations begin alike, so that what they say of two entities can be compared from the start.
        for conv in self.convs:
            for table in (conv.coefficient, conv.attn_coefficient):
                table.data[1:] = table.data[0]

    def encode(self, joined):
        degree = joined.across.in_degrees().to(self.relation).log().split(list(self.sizes.values()))
        x = {
            t: self.start(torch.cat([self.row[t], d.unsqueeze(1)], 1)) for t, d in zip(self.sizes, degree, strict=True)
        }
        for conv, norm in zip(self.convs, self.norms, strict=True):
            out = conv(joined, x)
            x = {t: norm(x[t] + F.dropout(out[t].flatten(1), self.dropout, self.training)) for t in self.sizes}
        return torch.cat([x[t] for t in self.sizes])

    def forward(self, z, head, relation, tail):
        """head, tail: [B] or [B, n], numbers over all types; relation: [B]."""
        r = self.relation[relation]
        if head.dim() + tail.dim() > 2:
            known, others = (tail, head) if head.dim() == 2 else (head, tail)
            return (z[others] @ (z[known] * r).unsqueeze(-1)).squeeze(-1)
        return (z[head] * r * z[tail]).sum(-1)


def main(arguments=None):
    args = Options(__doc__, "runs/ogb/ogbl-biokg", MODEL | TRAINING, SAMPLE).parse_args(arguments)
    data = ogb.load("ogbl-biokg", args.root, mapped=args.mapped, sample=args.sample)
    device = torch.device(args.device)
    sizes = {ntype: data.graph.num_nodes(ntype) for ntype in data.graph.ntypes}
    start = dict(zip(sizes, torch.tensor([0, *sizes.values()]).cumsum(0).tolist(), strict=False))
    number = {int(data.graph.edges[etype].data["reltype"][0]): etype for etype in data.graph.canonical_etypes}

    parts = {}
    for part, found in data.split.items():
        ids = {key: torch.as_tensor(found[key]) for key in found if not key.endswith("_type")}
        for end in ("head", "tail"):  # entities are counted over all types
            first = torch.tensor([start[ntype] for ntype in found[f"{end}_type"]])
            ids |= {key: (ids[key].T + first).T for key in (end, f"{end}_neg") if key in ids}
            # A negative of training is drawn among the entities of the same type.
            ids[f"{end}_first"] = first
            ids[f"{end}_size"] = torch.tensor([sizes[ntype] for ntype in found[f"{end}_type"]])
        parts[part] = {key: values.to(device) for key, values in ids.items()}
    train = parts["train"]
    head, relation, tail = (train[key].cpu() for key in ("head", "relation", "tail"))
    of_relation = {etype: torch.nonzero(relation == k).squeeze(1) for k, etype in number.items()}

    def among(shown):
        """The graph of these triples and their inverses, in which every entity sees itself, too."""
        if args.control == "mlp":
            shown = torch.zeros_like(shown)
        edges = {}
        for etype, rows in of_relation.items():
            rows = rows[shown[rows]]
            edges[etype] = head[rows] - start[etype[0]], tail[rows] - start[etype[2]]
        return hgat.graph.join_relations(hgat.graph.add_inverse(dgl.heterograph(edges, sizes), self_relation=True))

    def replaced(model, z, ids, end, others):
        """Scores of triples with other entities at one end."""
        return model(z, *(others if key == end else ids[key] for key in ("head", "relation", "tail")))

    def mrr(model, z, ids):
        """The mean over replaced heads and replaced tails."""
        ranks = []
        for end in ("head", "tail"):
            found = []
            for rows in torch.arange(len(ids["head"])).split(512):
                some = {key: values[rows] for key, values in ids.items()}
                found.append([replaced(model, z, some, end, some[key]) for key in (end, f"{end}_neg")])
            ranks.append(data.evaluate(*(torch.cat(scores) for scores in zip(*found, strict=True)))["mrr"])
        return sum(ranks) / 2

    whole = among(torch.ones(len(head), dtype=torch.bool))
    attention = hgat.ops.uniform_attention if args.control == "uniform" else nullcontext
    runs = Seeds(args.out, args.runs, resume=args.resume, settings={**vars(args), "resume": None})
    for run in runs:
        model = Net(whole, len(number), args.hidden, args.layers, args.heads, args.bases, args.dropout).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        for epoch in run.epochs(args.epochs, model, optimizer):
            with attention():
                model.train()
                for rows in torch.randperm(len(head)).split(args.batch):
                    shown = torch.ones(len(head), dtype=torch.bool)
                    shown[rows] = False  # what is asked for is not shown
                    z = model.encode(among(shown))
                    some = {key: values[rows] for key, values in train.items()}
                    loss = F.softplus(-replaced(model, z, some, "head", some["head"])).mean()
                    for end in ("head", "tail"):
                        share = torch.rand(len(rows), args.negatives, device=device)
                        other = (share.T * some[f"{end}_size"]).long() + some[f"{end}_first"]
                        loss = loss + F.softplus(replaced(model, z, some, end, other.T)).mean() / 2
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                model.eval()
                with torch.no_grad():
                    z = model.encode(whole)
                    scores = {part: mrr(model, z, parts[part]) for part in ("val", "test")}
            run.record(loss.item(), **scores)
            print(f"run {run.seed}, epoch {epoch}: loss {loss.item():.3f}, valid {scores['val']:.2f}")
    return runs.summary()


if __name__ == "__main__":
    main()
