"""Knowledge graphs of the sizes of WN18RR and FB15k-237, drawn at random, each case in a process of its own.

- ranks: all entities ranked behind both directions of WN18RR's 3,134 test triples, filtered, with rows 200 wide: every
  decoder on learned rows, and RGHAT with ConvE, whose layers are in it.
- epoch: every tenth step of an epoch of RGHAT and DistMult, 96 wide, at FB15k-237's size, 1,024 queries a step, on the
  whole message graph: a tenth of the time, and all of the memory.

With hgat alone: seconds are those of the fastest of the rounds and of this machine, and memory is the peak above what
was there before (see benchmarks.memory).
"""

import sys
from itertools import islice

from benchmarks import preparation

__all__ = ["CASES", "run"]

# Sizes, and how uneven entities are: at WN18RR's the groups of a head and a relation are as many as its own.
WN18RR = {"entities": 40_943, "relations": 11, "train": 86_835, "val": 3_034, "test": 3_134, "power": 3}
FB15K_237 = {"entities": 14_541, "relations": 237, "train": 272_115, "val": 17_535, "test": 20_466, "power": 8}
CASES = {
    "distmult": "ranks at WN18RR's size, DistMult",
    "transe": "ranks at WN18RR's size, TransE",
    "conve": "ranks at WN18RR's size, ConvE",
    "rghat": "ranks at WN18RR's size, RGHAT and ConvE",
    "epoch": "a tenth of an epoch at FB15k-237's size, RGHAT",
}


def run(report, rounds, scale):
    """Measure every case and print its row."""
    preparation.run(report, rounds, scale, CASES, "triples")


def drawn(sizes, scale):
    """Triples of these sizes whose entities and relations are as uneven as powers of even numbers, each triple once."""
    import torch

    from hgat.data import TripleData

    generator = torch.Generator().manual_seed(0)
    entities, relations = max(10, int(sizes["entities"] * scale)), sizes["relations"]
    parts = {part: max(10, int(sizes[part] * scale)) for part in ("train", "val", "test")}
    count, key = sum(parts.values()), torch.empty(0, dtype=torch.int64)

    def draw(size, power):
        return (size * torch.rand(2 * count, generator=generator) ** power).long()

    while len(key) < count:
        head, relation, tail = draw(entities, sizes["power"]), draw(relations, 4), draw(entities, sizes["power"])
        key = torch.cat([key, (head * relations + relation) * entities + tail]).unique()
    key = key[torch.randperm(len(key), generator=generator)[:count]]
    of_pair = key // entities
    rows = torch.stack([of_pair // relations, of_pair % relations, key % entities], 1).split(list(parts.values()))
    names = (tuple(map(str, range(size))) for size in (entities, relations))
    return TripleData("drawn", dict(zip(parts, rows, strict=True)), *names)


def _call(name, scale, place):
    """A function that does what the case measures; what it needs is made here, outside the clock."""
    import torch

    from hgat.models import RGHAT
    from hgat.tasks.triples import Triples

    decoder = {"rghat": "conve", "epoch": "distmult"}.get(name, name)
    width = 96 if name == "epoch" else 200
    task = Triples(drawn(FB15K_237 if name == "epoch" else WN18RR, scale), decoder=decoder, out_feats=width, batch=1024)
    system = RGHAT if name in ("rghat", "epoch") else task.controls["no_graph"]
    inputs = system.prepare(task.shown())
    settings = {"hidden": width} if system is RGHAT else {}
    model = task.completed(system.build(task.shown(), inputs, **settings))
    if name != "epoch":
        return lambda: list(task.ranks(model, inputs, "test"))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

    def epoch():
        model.train()
        for batch in islice(task.batches(model, inputs), 0, None, 10):
            loss = model.objective(task.loss, inputs, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return []

    return epoch


if __name__ == "__main__":
    preparation.main(_call, *sys.argv[1:])
