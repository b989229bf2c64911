"""GraphHAM as a whole: with one group it is GAT, and its further losses are what they say."""

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat.errors import HgatError, RecipeError
from hgat.models import GAT, Batch, Facts, GraphHAM
from hgat.models import graphham as module
from zoo import build

IN, CLASSES = 7, 3
STILL = {"feat_drop": 0.0, "attn_drop": 0.0}


def setting(graph=None, **settings):
    """(inputs, a model in training mode) for a graph with random features."""
    graph = build("hub") if graph is None else graph
    feat = torch.randn(graph.num_nodes(), IN, generator=torch.Generator().manual_seed(5))
    shown = Facts(graph, {"_N": feat}, target="_N", num_classes=CLASSES)
    inputs = GraphHAM.prepare(shown)
    torch.manual_seed(0)
    return inputs, GraphHAM.build(shown, inputs, **{**STILL, "hidden": 4, "heads": [2, 2], **settings})


def nothing(answer, batch):
    """A question that is always answered well."""
    return 0.0 * answer.sum()


def test_one_group_in_each_layer_is_gat():
    (graph, feat), ours = setting(groups=[1, 1], context_loss=0.0, inclusion_loss=0.0)
    gat = GAT(IN, CLASSES, hidden=4, heads=[2, 2], decoder=True, feat_drop=0.0, attn_drop=0.0, value_drop=0.0)
    gat.load_state_dict({name: ours.state_dict()[name] for name in gat.state_dict()})
    torch.testing.assert_close(ours(graph, feat), gat(graph, feat), atol=1e-6, rtol=1e-6)


def test_the_loss_of_inclusion():
    inputs, model = setting(groups=[5, 3], context_loss=0.0, inclusion_loss=0.5)
    own, above = model.layers[0].groups, model.layers[1].groups
    inside = torch.softmax(own @ above.T / 8**0.5, 1)
    model.layers[0]._drawn = model.layers[1]._drawn = lambda log_pi: torch.zeros(len(log_pi), 8)
    fine, coarse = model.memberships(*inputs)
    want = sum(F.kl_div((p @ inside).log(), q, reduction="sum") for p, q in zip(fine, coarse, strict=True)) / len(fine)
    got = model.objective(nothing, inputs, Batch())
    torch.testing.assert_close(got, 0.5 * want)
    assert want > 0


def test_the_loss_of_contexts(monkeypatch):
    inputs, model = setting(groups=[1, 1], context_loss=0.5, inclusion_loss=0.0, negatives=2)
    graph = inputs[0]
    walked, drawn = [], torch.randint(graph.num_nodes(), (2, graph.num_nodes(), 2))
    step, others = module._walked, iter(drawn)
    monkeypatch.setattr(module, "_walked", lambda g, at: (walked.append(step(g, at)), walked[-1])[1])
    monkeypatch.setattr(module.torch, "randint", lambda *a, **k: next(others))
    got = model.objective(nothing, inputs, Batch())
    rows = [h for h, _ in model._states(*inputs)[1]]
    want = 0.0
    for h, near, far in zip(rows, walked, drawn, strict=True):
        logits = torch.cat([(h * h[near]).sum(1), (h.unsqueeze(1) * h[far]).sum(2).flatten()]) / 8**0.5
        label = torch.cat([torch.ones(len(h)), torch.zeros(2 * len(h))])
        want = want + F.binary_cross_entropy_with_logits(logits, label)
    torch.testing.assert_close(got, 0.5 * want)
    src, dst = graph.edges()
    edges = set(zip(src.tolist(), dst.tolist(), strict=True))
    ends = [torch.arange(graph.num_nodes()), *walked]
    for before, after in zip(ends[:-1], ends[1:], strict=True):
        assert all(pair in edges for pair in zip(after.tolist(), before.tolist(), strict=True))


def test_walks_are_uniform_over_in_edges_and_stay_where_there_are_none():
    graph = dgl.graph(([1, 2, 3, 3], [0, 0, 0, 0]), num_nodes=4)
    torch.manual_seed(0)
    found = torch.stack([module._walked(graph, torch.arange(4)) for _ in range(2000)])
    assert (found[:, 1:] == torch.arange(1, 4)).all()
    share = torch.bincount(found[:, 0], minlength=4) / 2000
    torch.testing.assert_close(share, torch.tensor([0.0, 0.25, 0.25, 0.5]), atol=0.04, rtol=0)


def test_losses_are_terms_of_training_alone():
    inputs, model = setting(groups=[5, 3])
    before = torch.get_rng_state()
    assert model.eval().objective(nothing, inputs, Batch()) == 0 and torch.equal(torch.get_rng_state(), before)
    assert model.train().objective(nothing, inputs, Batch()) > 0


def test_wrong_settings_are_one_sentence():
    for wrong, error, sentence in (
        ({"heads": [2, 4]}, RecipeError, r"model.heads: expected as many heads in every layer, got \[2, 4\]"),
        ({"groups": [4]}, RecipeError, r"model.groups: expected 2 numbers, none above the one before, got \[4\]"),
        ({"groups": [3, 4]}, RecipeError, "model.groups: expected 2 numbers, none above the one before"),
        ({"groups": [3, 0]}, HgatError, r"groups\[1\]: expected"),
        ({"context_loss": -1.0}, HgatError, "context_loss: expected"),
        ({"negatives": 0}, HgatError, "negatives: expected"),
        ({"variant": "both"}, HgatError, "variant: expected"),
    ):
        with pytest.raises(error, match=sentence):
            setting(**wrong)
