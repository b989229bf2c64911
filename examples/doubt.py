"""Does a battery of tests tell attention that is the mechanism from attention that is decoration? On planted truth.

    python examples/doubt.py --seeds 10

In planted-feature one in-neighbour decides the label, and attention alone can find it. In planted-own a node's own
payload decides, in planted-mean the mean of its neighbours': uniform attention does as well. GATv2 is trained on each,
and the battery is asked which it is: all of its tests but "retrained" and "seeds", which need other trainings, and
"adversary", which trains; "gold" is there in planted-feature alone.
"""

import argparse

import torch
import torch.nn.functional as F

from hgat import data
from hgat.explain import doubt
from hgat.models import GATv2

MECHANISM = {"planted-feature": True, "planted-own": False, "planted-mean": False}
TESTS = [name for name in doubt.TESTS if name != "adversary"]


def train(name, seed, epochs):
    """(model, its inputs, data, accuracy of a model on the test nodes) of the epoch that was best on validation."""
    found = data.load(name, split_seed=seed)
    feat = found.feat[found.target]
    torch.manual_seed(seed)
    model = GATv2(
        feat.shape[1],
        found.num_classes,
        hidden=64,
        heads=[1],
        decoder=True,
        share_weights=False,
        feat_drop=0.0,
        attn_drop=0.0,
        residual=name == "planted-own",
    )
    inputs, best = (found.graph, {found.target: feat}), (-1.0, {})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)

    def accuracy(model, part=found.test):
        with torch.no_grad():
            return 100 * float((model(*inputs)[part].argmax(1) == found.label[part]).float().mean())

    for epoch in range(epochs):
        model.train()
        loss = F.cross_entropy(model(*inputs)[found.train], found.label[found.train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch % 10 == 9:
            model.eval()
            score = accuracy(model, found.val)
            if score > best[0]:
                best = score, {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(best[1])
    return model.eval(), inputs, found, accuracy


def main(argv=None):
    """{task: in how many seeds the battery told what attention is there}."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--nodes", type=int, default=100)
    arguments = parser.parse_args(argv)
    print(f"{'task':<16} {'seed':>4} {'accuracy':>8} {'stood':>7}  the battery says")
    right = dict.fromkeys(MECHANISM, 0)
    for name, truth in MECHANISM.items():
        for seed in range(arguments.seeds):
            model, inputs, found, accuracy = train(name, seed, arguments.epochs)
            told = doubt.battery(
                model, inputs, nodes=arguments.nodes, seed=seed, score=accuracy, gold=found.gold, tests=TESTS
            )
            right[name] += told.mechanism == truth
            word = "mechanism" if told.mechanism else "decoration"
            stood = f"{told.stood} of {told.asked}"
            print(f"{name:<16} {seed:>4} {accuracy(model):>8.1f} {stood:>7}  {word}", flush=True)
    for name, truth in MECHANISM.items():
        word = "mechanism" if truth else "decoration"
        print(f"{name}: {word}, told in {right[name]} of {arguments.seeds} seeds")
    return right


if __name__ == "__main__":
    main()
