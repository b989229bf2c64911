"""GAMLP as a whole: its equations once more, what its labels may say, its stages, and a class that one hop tells."""

import copy
import dataclasses
from pathlib import Path

import dgl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import CASES

import citations
from hgat import ops, tasks, train
from hgat.data import NodeData, ogb_samples
from hgat.errors import HgatError
from hgat.models import GAMLP, Batch
from hgat.models._system import resting
from hgat.train import run
from hgat.train.fit import Training
from hgat.train.recipe import Train

NODES, IN, CLASSES = 37, 5, 3
REFERENCES = ["jk", "recursive", "smoothing"]
STILL = dict.fromkeys(["feat_drop", "attn_drop", "hidden_drop", "label_drop"], 0.0)
(CASE,) = [case for case in CASES if case.system == "gamlp"]


def data(seed=0, label=None):
    """A connected graph whose edges go both ways, with features and labels that mean nothing."""
    generator = torch.Generator().manual_seed(seed)
    ring = torch.arange(NODES)
    src, dst = torch.cat(
        [torch.stack([ring, (ring + 1) % NODES]), torch.randint(NODES, (2, 40), generator=generator)], 1
    )
    graph = dgl.to_simple(dgl.add_reverse_edges(dgl.graph((src, dst), num_nodes=NODES)))
    drawn = torch.randint(CLASSES, (NODES,), generator=generator)
    label = drawn if label is None else label
    order = torch.randperm(NODES, generator=generator)
    parts = {"train": order[:11], "val": order[11:20], "test": order[20:]}
    feat = {"_N": torch.randn(NODES, IN, generator=generator)}
    return NodeData("d", graph, feat, "_N", label, **parts, num_classes=CLASSES, class_names=tuple("abc"))


def shown(given=None):
    return tasks.find("nodes")(data() if given is None else given).shown()


def randomised(model):
    """The model at rest, its batch normalisations with statistics and factors that are not 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.running_mean, module.bias.data, module.weight.data):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2.0)
        if isinstance(module, nn.PReLU):
            module.weight.data.uniform_(0.1, 0.4)
    return model.eval()


def adjacency(graph, norm="both", loops=True):
    a = torch.zeros(NODES, NODES)
    src, dst = graph.edges()
    a[dst, src] = 1.0
    if loops:
        a.fill_diagonal_(1.0)
    d = a.sum(1)
    r = {"both": 0.5, "right": 0.0, "left": 1.0}[norm]
    return d.pow(r - 1).diag() @ a @ d.pow(-r).diag(), d, r


def perceptron(of, name, x, layers):
    for k in range(layers - 1):
        x = F.prelu(behind(of, name, k, x @ of[f"{name}.layers.{k}.weight"].T), of[f"{name}.prelu.weight"])
    return x @ of[f"{name}.layers.{layers - 1}.weight"].T + of[f"{name}.layers.{layers - 1}.bias"]


def behind(of, name, k, x):
    """What a layer's normalisation makes of x, or its bias."""
    if f"{name}.layers.{k}.bias" in of:
        return x + of[f"{name}.layers.{k}.bias"]
    name = f"{name}.norms.{k}"
    return (x - of[f"{name}.running_mean"]) / (of[f"{name}.running_var"] + 1e-5).sqrt() * of[f"{name}.weight"] + of[
        f"{name}.bias"
    ]


def head(of, name, x, layers, alpha):
    y = behind(of, name, 0, x @ of[f"{name}.layers.0.weight"].T)
    first = x = y + x if x.shape == y.shape else y
    for k in range(1, layers):
        x = F.prelu(x, of[f"{name}.prelu.weight"])
        given = (1 - alpha) * x + alpha * first if k < layers - 1 else x
        y = behind(of, name, k, given @ of[f"{name}.layers.{k}.weight"].T)
        x = y + x if x.shape == y.shape else y
    return x


@pytest.mark.parametrize(("norm", "batch_norm"), [("both", True), ("right", True), ("left", True), ("both", False)])
@pytest.mark.parametrize("reference", REFERENCES)
def test_the_equations_once_more(reference, norm, batch_norm):
    """From the graph to the logits, with a dense matrix and one hop after the other."""
    given = data()
    inputs = GAMLP.prepare(shown(given), hops=3, label_hops=4, norm=norm)
    sizes = {"hidden": 6, "layers": 4, "reference_layers": 3, "alpha": 0.3}
    model = randomised(GAMLP(IN, CLASSES, 3, reference=reference, batch_norm=batch_norm, **sizes))
    a, d, r = adjacency(given.graph, norm)
    hops = [given.feat["_N"]]
    for _ in range(3):
        hops.append(a @ hops[-1])
    label = torch.zeros(NODES, CLASSES)
    label[given.train, given.label[given.train]] = 1.0
    label = torch.linalg.matrix_power(a, 4) @ label
    of = model.state_dict()
    x = [perceptron(of, f"encode.{k}", hops[k], 2) for k in range(4)]
    score, w = [], None
    for k in range(4):
        if reference == "jk":
            beside = F.prelu(head(of, "join.0", torch.cat(x, 1), 3, 0.3), of["join.1.weight"])
        elif reference == "smoothing":
            limit = torch.outer(d**r, d ** (1 - r)) / d.sum() @ hops[0]
            beside = perceptron(of, "encode_limit", limit, 2)
        else:
            beside = x[0] if w is None else sum(w[:, j, None] * x[j] for j in range(k))
        score.append(F.leaky_relu(torch.cat([x[k], beside], 1) @ of["fuse.project.weight"][0], 0.2))
        w = torch.stack(score, 1).softmax(1)
    h = sum(w[:, k, None] * x[k] for k in range(4))
    h = F.prelu(h + hops[0] @ of["skip.weight"].T, of["after.0.weight"])
    expected = head(of, "head", h, 4, 0.3) + perceptron(of, "of_label", label, 4)
    torch.testing.assert_close(model(*inputs), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.attention(*inputs), w, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reference", REFERENCES)
def test_tiers_are_attended_to_one_by_one_and_then_together(reference):
    """Hops 0 to 5 in the tiers 0-1, 2-3 and 4-5, with one scorer for all that is attended to."""
    inputs = GAMLP.prepare(shown(), hops=5)
    model = randomised(GAMLP.build(shown(), inputs, hidden=6, reference=reference, tiers=3))
    _, x, r = model.scored(*inputs[:1], inputs[2])

    def mixed(views):
        """(rows, weights) of one attention."""
        score, w = [], None
        for k, view in enumerate(views):
            beside = r if r is not None else view if w is None else sum(w[:, j, None] * views[j] for j in range(k))
            score.append(F.leaky_relu(torch.cat([view, beside], 1) @ model.fuse.project.weight[0], 0.2))
            w = torch.stack(score, 1).softmax(1)
        return sum(w[:, k, None] * view for k, view in enumerate(views)), w

    tiers = [mixed(x[k : k + 2]) for k in (0, 2, 4)]
    h, across = mixed([rows for rows, _ in tiers])
    w = torch.cat([across[:, t, None] * tiers[t][1] for t in range(3)], 1)
    torch.testing.assert_close(model.fused(x, r)[0], h, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.attention(*inputs), w, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(w.sum(1), torch.ones(NODES))
    torch.testing.assert_close(h, sum(w[:, k, None] * x[k] for k in range(6)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reference", REFERENCES)
def test_the_weights_of_hops_sum_to_one(reference):
    inputs = GAMLP.prepare(shown(), hops=4)
    for tiers in (None, 1, 2, 5):
        w = GAMLP.build(shown(), inputs, reference=reference, tiers=tiers).eval().attention(*inputs)
        torch.testing.assert_close(w.sum(1), torch.ones(NODES))
        assert w.shape == (NODES, 5) and (w > 0).all()


def test_one_hop_is_weighed_alone():
    """K = 0: nothing to choose among, a perceptron on the features and the one on labels."""
    inputs = GAMLP.prepare(shown(), hops=0)
    for reference in REFERENCES:
        model = GAMLP.build(shown(), inputs, reference=reference).eval()
        assert torch.equal(model.attention(*inputs), torch.ones(NODES, 1)) and torch.isfinite(model(*inputs)).all()


def test_the_limit_is_what_the_hops_tend_to():
    for norm in ("both", "right", "left"):
        hops, _, (scale, row), _ = GAMLP.prepare(shown(), hops=400, norm=norm)
        torch.testing.assert_close(scale * row, hops[-1], atol=1e-4, rtol=1e-3)


def test_labels_that_are_held_out_change_nothing_that_training_sees():
    one = data()
    held_out = torch.cat([one.val, one.test])
    changed = one.label.clone()
    changed[held_out] = (changed[held_out] + 1) % CLASSES
    other = data(label=changed)
    torch.manual_seed(0)
    first, second = GAMLP.prepare(shown(one)), GAMLP.prepare(shown(other))
    model = GAMLP.build(shown(one), first, hidden=6, stages=2, threshold=0.3)
    assert torch.equal(first[1], second[1]) and (first[1] != 0).any()
    torch.manual_seed(1)
    later, after = model.again(shown(one), first, 1)
    torch.manual_seed(1)
    again, behind = model.again(shown(other), second, 1)
    assert torch.equal(after[1], behind[1]) and not torch.equal(after[1], first[1])
    assert torch.equal(later.sure, again.sure) and torch.equal(later.said, again.said)


def test_a_label_does_not_come_back_to_its_own_node():
    """Only walks that end elsewhere carry it; with own_label, as the paper has it, those that come back do, too."""
    one = data()
    node = int(one.train[0])
    changed = one.label.clone()
    changed[node] = (changed[node] + 1) % CLASSES
    rows = [GAMLP.prepare(shown(data(label=label)), own_label=False)[1] for label in (one.label, changed)]
    torch.testing.assert_close(rows[0][node], rows[1][node], atol=1e-6, rtol=0)
    assert (rows[0] - rows[1]).abs().max() > 1e-3
    own = [GAMLP.prepare(shown(data(label=label)))[1] for label in (one.label, changed)]
    assert (own[0][node] - own[1][node]).abs().max() > 1e-3
    back = torch.linalg.matrix_power(adjacency(one.graph)[0], 9).diagonal()
    label = torch.zeros(NODES, CLASSES)
    label[one.train, one.label[one.train]] = 1.0
    torch.testing.assert_close(rows[0], own[0] - back[:, None] * label, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("reference", REFERENCES)
def test_some_rows_answer_as_all_do(reference):
    inputs = GAMLP.prepare(shown())
    model = randomised(GAMLP.build(shown(), inputs, hidden=6, reference=reference))
    everything = model.whole(inputs)
    torch.testing.assert_close(model.whole(inputs, 5), everything, atol=1e-5, rtol=1e-5)
    ids = torch.tensor([3, 30, 4])
    rows, query = model.sampled(inputs, ids, None)
    torch.testing.assert_close(model(*rows, *query), everything[ids], atol=1e-5, rtol=1e-5)


def training(settings=None, task=None, **train):
    """Training on the toy, whose classes are told by the neighbours."""
    asked = tasks.find("nodes")(CASE.toy.data(0), **(task or {})).for_seed(0)
    chosen = {"hidden": 8, "hidden_drop": 0.1, **(settings or {})}

    def prepared(task):
        return dict.fromkeys(("train", "val", "test"), CASE.inputs(task.shown()))

    def build(task, inputs):
        return CASE.build(task.shown(), inputs["train"], **chosen)

    return Training(asked, Train(**{**CASE.toy.train, "epochs": 15, **train}), prepared, build)


def to_the_end(fit):
    while fit.step():
        pass
    found = fit.finish()
    return {key: found[key] for key in found if key != "seconds"}, fit.model.state_dict()


@pytest.mark.parametrize("batch", [16, 89], ids=["many", "a lone row at the end"])
def test_learns_in_batches_of_rows(batch):
    """No neighbour is sampled; the 90 training nodes leave one row over behind the 89."""
    result, _ = to_the_end(training({"stages": 2}, {"batch": batch}))
    assert result["test"] > 80


def sure_of_some(threshold=0.5, **settings):
    """(shown, inputs, a trained model): it is sure of some nodes."""
    fit = training({"stages": 2, "threshold": threshold, **STILL, **settings})
    while not fit.stages:
        fit.step()
    return fit


def test_the_second_stage_learns_from_confident_nodes_alone():
    fit = sure_of_some(0.9, temperature=0.8)
    task, model, inputs = fit.task, fit.model, fit.fit.inputs["train"]
    facts = task.shown()
    first = CASE.build(facts, CASE.inputs(facts), stages=2, hidden=8, threshold=0.9, temperature=0.8, **STILL)
    first.load_state_dict(fit.stages[0]["kept"])
    said = (resting(first, lambda: first(*CASE.inputs(facts))) / 0.8).softmax(1)
    unlabelled = torch.ones(len(said), dtype=torch.bool)
    unlabelled[facts.train] = False
    sure = [i for i in range(len(said)) if unlabelled[i] and said[i].max() > 0.9]
    assert 0 < len(sure) < unlabelled.sum()
    assert model.sure.tolist() == sure
    # What is spread: the training labels, and what was said of those nodes.
    label = F.one_hot(facts.label.clamp_min(0), 3).float()
    label[unlabelled] = 0.0
    label[sure] = said[sure]
    spread = ops.propagate(inputs[3].graph, label, inputs[3].weight, 9)
    torch.testing.assert_close(inputs[1], spread, atol=1e-5, rtol=1e-5)
    # What is minimised, on the rows of those and of the training nodes.
    ids = torch.cat([facts.train, torch.tensor(sure)])
    (batch,) = task.batches(model, inputs)
    model.train()
    with torch.no_grad():
        loss = model.objective(task.loss, inputs, batch)
        out = model([x[ids] for x in inputs[0]], inputs[1][ids], (inputs[2][0][ids], inputs[2][1]))
    n = len(facts.train)
    own, other = F.cross_entropy(out[:n], facts.label[facts.train], reduction="sum"), 0.0
    for row, i in enumerate(sure, n):
        q = out[row].softmax(0)
        other += said[i].max() * (said[i] * (said[i] / q).log()).sum()
    torch.testing.assert_close(loss, (own + 0.1 * other) / len(ids), atol=1e-5, rtol=1e-5)


def test_rows_that_no_loss_reads_get_no_gradient():
    fit = sure_of_some(0.9)
    hops, label, limit, spread = fit.fit.inputs["train"]
    hops = [x.clone().requires_grad_() for x in hops]
    inputs = hops, label, limit, spread
    (batch,) = fit.task.batches(fit.model, inputs)
    fit.model.train().objective(fit.task.loss, inputs, batch).backward()
    read = hops[0].grad.abs().sum(1).ne(0).nonzero().flatten()
    expected = torch.cat([fit.task.shown().train, fit.model.sure]).sort().values
    assert torch.equal(read, expected) and len(read) < len(label)


def test_a_batch_has_its_share_of_the_confident_nodes():
    fit = sure_of_some(0.5)
    inputs, model = fit.fit.inputs["train"], fit.model
    asked = tasks.find("nodes")(CASE.toy.data(0), batch=30)
    seen = []
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[1])))
    for batch in asked.batches(model, inputs):
        model.objective(asked.loss, inputs, batch)
    assert seen == [30 + -(-len(model.sure) // 3)] * 3


def test_stages_end_where_nothing_is_sure_and_where_the_setting_says():
    facts = shown()
    inputs = GAMLP.prepare(facts)
    assert GAMLP.build(facts, inputs, stages=2, threshold=1.0).again(facts, inputs, 1) is None
    assert GAMLP.build(facts, inputs, threshold=0.0).again(facts, inputs, 1) is None
    later, _ = GAMLP.build(facts, inputs, stages=3, threshold=0.0).again(facts, inputs, 1)
    assert later.again(facts, inputs, 2) is not None and later.again(facts, inputs, 3) is None


def test_a_stage_begins_with_weights_of_its_own():
    facts = shown()
    inputs = GAMLP.prepare(facts)
    model = GAMLP.build(facts, inputs, stages=2, threshold=0.0, hidden=7, reference="recursive")
    later, _ = model.again(facts, inputs, 1)
    assert later.state_dict().keys() == model.state_dict().keys() and later.reference == "recursive"
    assert not torch.equal(later.head.layers[0].weight, model.head.layers[0].weight)


def test_stages_repeat_and_go_on_where_they_were_killed():
    result, weights = to_the_end(training({"stages": 3, "threshold": 0.5}))
    fit = training({"stages": 3, "threshold": 0.5})
    for _ in range(22):
        fit.step()
    assert len(fit.stages) == 1
    tensors, numbers = copy.deepcopy(fit.state())
    torch.manual_seed(77)
    going_on = training({"stages": 3, "threshold": 0.5})
    going_on.restore(tensors, numbers)
    other_result, other = to_the_end(going_on)
    assert other_result == result
    assert all(torch.equal(other[name], tensor) for name, tensor in weights.items())
    assert result["epochs"] == 45


def second_hop():
    """A class that the nodes two steps away tell, and no other: a room's own flag points to them.

    A target has one hub, and the hub five rooms, which show the target's class and a flag. Targets and hubs show a
    class by chance, and louder.
    """
    generator = torch.Generator().manual_seed(3)
    targets, rooms = 120, 5
    label = torch.arange(targets) % CLASSES
    hub, room = targets + torch.arange(targets), 2 * targets + torch.arange(targets * rooms)
    src = torch.cat([torch.arange(targets), room])
    dst = torch.cat([hub, hub.repeat_interleave(rooms)])
    graph = dgl.add_reverse_edges(dgl.graph((src, dst), num_nodes=(2 + rooms) * targets))
    feat = torch.zeros(graph.num_nodes(), CLASSES + 1)
    feat[: 2 * targets, :CLASSES] = (
        2.0 * torch.eye(CLASSES)[torch.randint(CLASSES, (2 * targets,), generator=generator)]
    )
    feat[2 * targets :] = F.pad(torch.eye(CLASSES)[label.repeat_interleave(rooms)], (0, 1), value=1.0)
    every = torch.zeros(graph.num_nodes(), dtype=torch.long)
    every[:targets] = label
    order = torch.randperm(targets, generator=generator)
    split = {"train": order[:60], "val": order[60:80], "test": order[80:]}
    return NodeData("s", graph, {"_N": feat}, "_N", every, **split, num_classes=CLASSES, class_names=tuple("abc"))


@pytest.mark.parametrize("reference", REFERENCES)
def test_attention_finds_the_hop_that_tells_the_class(reference):
    given = second_hop()
    task = tasks.find("nodes")(given)

    def after(hops, epochs=100):
        # Labels go one step, to hubs, and say nothing to targets; what is seen is the features' alone.
        inputs = GAMLP.prepare(task.shown(), hops=hops, label_hops=1, norm="right", self_loops=False)
        torch.manual_seed(0)
        kind = {"encode": False, "residual": False, "layers": 1, "label_layers": 1, "reference": reference}
        model = GAMLP.build(task.shown(), inputs, **kind, **STILL)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(epochs):
            for batch in task.batches(model, inputs):
                loss = model.train().objective(task.loss, inputs, batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        beta = resting(model, lambda: model.attention(*inputs))[given.test].mean(0)
        return task.evaluate(model, inputs, "test", "accuracy")[0], beta

    found, beta = after(2)
    with ops.uniform_attention():
        uniform, _ = after(2)
    near, _ = after(1)
    assert found > 90 and uniform < 60 and near < 60, (found, uniform, near)
    assert beta.argmax() == 2, beta


WRONG = {
    "hops: expected a list of 4 tensors": lambda m, i: m(i[0][:3], *i[1:]),
    "hops: expected a list of 4 tensors, got Tensor": lambda m, i: m(torch.stack(i[0]), *i[1:]),
    r"hops\[1\]: expected \[N, F\]": lambda m, i: m([i[0][0], i[0][1][:3], *i[0][2:]], *i[1:]),
    r"label: expected \[N, C\]": lambda m, i: m(i[0], i[1][:, :2], i[2]),
    r"limit\[0\]: expected \[N, 1\]": lambda m, i: m(i[0], i[1], (i[2][0][:3], i[2][1])),
    "temperature: expected a number above 0": lambda m, i: GAMLP(IN, CLASSES, 3, temperature=0),
    "threshold: expected a number from 0 to 1": lambda m, i: GAMLP(IN, CLASSES, 3, threshold=1.1),
    "kd_weight: expected 0 or more": lambda m, i: GAMLP(IN, CLASSES, 3, kd_weight=-1.0),
    "stages: expected 1 or more": lambda m, i: GAMLP(IN, CLASSES, 3, stages=0),
    "reference: expected one of jk": lambda m, i: GAMLP(IN, CLASSES, 3, reference="mean"),
    "tiers: expected at most the 4 hops, 0 among them, got 5": lambda m, i: GAMLP(IN, CLASSES, 3, tiers=5),
    "tiers: expected 1 or more": lambda m, i: GAMLP(IN, CLASSES, 3, tiers=0),
    "score: expected one of leaky_relu": lambda m, i: GAMLP(IN, CLASSES, 3, score="tanh"),
    "label_hops: expected 0 or more": lambda m, i: GAMLP.prepare(shown(), label_hops=-1),
    "expected features of '_N' nodes": lambda m, i: GAMLP.prepare(dataclasses.replace(shown(), feat={"_N": None})),
    "model.stages: expected 1 for nodes of several classes": lambda m, i: GAMLP.build(
        dataclasses.replace(shown(), multilabel=True), i, stages=2
    ),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_calls_are_one_sentence(sentence):
    inputs = GAMLP.prepare(shown(), hops=3)
    model = GAMLP.build(shown(), inputs, reference="smoothing")
    with pytest.raises(HgatError, match=sentence):
        WRONG[sentence](model, inputs)


def test_several_classes_of_a_node_are_spread_as_they_are():
    label = torch.randint(2, (NODES, CLASSES)).float()
    given = dataclasses.replace(data(), label=label, multilabel=True)
    task = tasks.find("nodes")(given)
    inputs = GAMLP.prepare(task.shown(), label_hops=2)
    first = torch.zeros(NODES, CLASSES)
    first[given.train] = label[given.train]
    a = adjacency(given.graph)[0]
    torch.testing.assert_close(inputs[1], a @ a @ first, atol=1e-6, rtol=1e-5)
    model = GAMLP.build(task.shown(), inputs)
    (batch,) = task.batches(model, inputs)
    assert torch.isfinite(model.objective(task.loss, inputs, batch))
    assert isinstance(batch, Batch)


RECIPE = """
title = "t"
[paper]
title = "p"
authors = "a"
year = 2022
link = "l"
[data]
name = "citeseer"
verify = false
[graph]
hops = 2
[model]
system = "gamlp"
hidden = 6
stages = 2
threshold = 0.2
[train]
metric = "accuracy"
epochs = 12
lr = 0.02
seeds = 2
controls = ["uniform"]
"""


@pytest.fixture
def small(tmp_path):
    """(recipe, root, out): GAMLP with two stages on a small data set."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE)
    return recipe, citations.write(tmp_path / "data", **citations.contents()), tmp_path / "out"


def test_what_a_run_leaves_behind_scores_as_it_did(small):
    """The stages are gone through again: the labels of the last one are those that the first was sure of."""
    recipe, root, out = small
    done = train.train(recipe, root, out=out, progress=False)
    assert done.model.sure is not None and done.metrics["epochs"] == [24, 24]
    _, _, scores, about = train.evaluate_folder(out, root)
    assert scores["test"][0] == done.metrics["test"]["values"][about["seed"]]
    assert scores["val"][0] == done.metrics["val"]["values"][about["seed"]]
    assert done.task.scores(done.model, dict.fromkeys(scores, done.inputs), "accuracy") == scores


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["ours", "uniform"])
def test_a_run_that_is_killed_in_a_later_stage_ends_as_if_it_had_not_been(small, monkeypatch, variant):
    recipe, root, out = small
    expected = train.train(recipe, root, out=out, seeds=1, progress=False).metrics
    monkeypatch.setattr(run, "SAVE_EVERY", -1.0)
    step, left = Training.step, [17 + (0 if variant == "ours" else 24)]

    def killed(fit):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return step(fit)

    monkeypatch.setattr(Training, "step", killed)
    other = out.with_name("other")
    with pytest.raises(KeyboardInterrupt):
        train.train(recipe, root, out=other, seeds=1, progress=False)
    monkeypatch.setattr(Training, "step", step)
    got = train.train(recipe, root, out=other, seeds=1, resume=True, progress=False).metrics
    for found, due in ((got, expected), (got["controls"]["uniform"], expected["controls"]["uniform"])):
        assert (found["test"], found["val"], found["epochs"]) == (due["test"], due["val"], due["epochs"])


def test_learns_in_batches_from_hops_on_disk(tmp_path):
    """Training on rows of memory-mapped files gives what training in memory gives, to the bit."""
    folder = str(tmp_path / "hops")
    held = GAMLP.prepare(shown(), hops=2, hop_folder=folder), GAMLP.prepare(shown(), hops=2)
    assert folder in Path("/proc/self/maps").read_text()
    found = []
    for inputs in held:
        torch.manual_seed(0)
        model = GAMLP.build(shown(), inputs, hidden=6)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for ids in torch.arange(NODES).split(50):
            rows, query = model.sampled(inputs, ids)
            optimizer.zero_grad()
            model(*rows, *query).square().mean().backward()
            optimizer.step()
        found.append(model.eval().whole(inputs, 40))
    assert torch.equal(*found)


def test_a_fanout_is_refused_as_nothing_is_sampled():
    task = tasks.find("nodes")(data(), batch=5, fanout=[3])
    inputs = GAMLP.prepare(task.shown(), hops=1)
    model = GAMLP.build(task.shown(), inputs)
    with pytest.raises(HgatError, match=r"task.fanout: expected none for GAMLP, .*, got \[3\]"):
        next(iter(task.batches(model, inputs)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_recipe_on_ogbn_products_trains_in_batches_and_stages(tmp_path):
    """OGB's form, a stand-in of its size that learns nothing but runs as the whole would."""
    ogb_samples.write_sample("ogbn-products", tmp_path / "data")
    small = ["train.epochs=2", "model.hidden=8", "model.stages=2", "model.threshold=0.0", "task.batch=300"]
    given = [*small, "train.controls=['uniform']", "train.seeds=1"]
    done = train.train("gamlp-products", tmp_path / "data", out=tmp_path / "out", overrides=given, progress=False)
    assert done.metrics["epochs"] == [4] and done.model.reference == "recursive"
    assert done.inputs[0][0].shape[1] == 100 and len(done.inputs[0]) == 6
    assert set(done.metrics["controls"]) == {"uniform"}


def test_rows_are_those_of_the_whole_and_no_other_is_read():
    inputs = GAMLP.prepare(shown(), hops=2)
    model = randomised(GAMLP.build(shown(), inputs, hidden=6))
    expected, read, forward = model.whole(inputs), [], model.forward
    model.forward = lambda hops, *others: read.append(len(hops[0])) or forward(hops, *others)
    ids = torch.tensor([5, 30, 3])
    for size in (None, 2):
        torch.testing.assert_close(model.rows(inputs, ids, size), expected[ids])
    assert read == [3, 2, 1]
