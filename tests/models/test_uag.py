"""UAG's reconstruction: its equations, what it is uncertain of, and edges that were planted to mislead."""

import dgl
import pytest
import torch
from sklearn.metrics import roc_auc_score
from systems import IN, accuracy
from toys import neighbours

from hgat import ops
from hgat.errors import RecipeError, ShapeError
from hgat.explain import shares
from hgat.models import GAT, UAG, Batch, Facts
from hgat.nn import UAGConv
from hgat.tasks import find
from zoo import build

CLASSES, OUT, HEADS = 3, 5, 2
STILL = {"feat_drop": 0.0, "attn_drop": 0.0, "value_drop": 0.0}


def restated(layer, graph, h, of_node, of_edge, even=False):
    """The layer's equations edge by edge: (out [N, H, D], alpha [E, H])."""
    src, dst = graph.edges()
    heads, width = layer._shape
    value = (h @ layer.fc.weight.T).view(len(h), heads, width)
    score = (layer.attn_l * value).sum(-1)[src] + (layer.attn_r * value).sum(-1)[dst]
    e = torch.where(score > 0, score, 0.2 * score)
    e = e - (layer.alpha_tau * of_node[src] + layer.beta_tau * of_edge)[:, None]
    alpha = torch.ones_like(e) if even else e.exp()
    alpha = alpha / torch.zeros(graph.num_nodes(), heads).index_add(0, dst, alpha)[dst]
    out = torch.zeros(graph.num_nodes(), heads, width).index_add(0, dst, alpha[..., None] * value[src])
    return out + layer.bias.view(heads, width), alpha


@pytest.mark.parametrize("name", ["homogeneous", "multi_edges", "zero_in_degree"])
def test_the_layer_is_its_equations(name):
    graph = build(name)
    x, u = torch.randn(graph.num_nodes(), IN, requires_grad=True), torch.rand(graph.num_nodes()) / 9
    doubt, layer = torch.rand(graph.num_edges()), UAGConv(IN, OUT, HEADS)
    torch.nn.init.normal_(layer.bias)
    out, alpha = layer(graph, x, u, doubt, get_attention=True)
    want, weights = restated(layer, graph, x, u, doubt)
    torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alpha.squeeze(-1), weights, atol=1e-5, rtol=1e-5)
    cotangent, leaves = torch.randn_like(want), [x, *layer.parameters()]
    for one, other in zip(*(torch.autograd.grad(z, leaves, cotangent) for z in (out, want)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    with ops.uniform_attention():
        got = layer(graph, x, u, doubt)
    torch.testing.assert_close(got, restated(layer, graph, x, u, doubt, even=True)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("estimator", ["dropout", "head"])
def test_the_model_is_its_layers(estimator):
    """Side by side with ELU, and in the last layer averaged; at rest a head gives its means."""
    shown = Facts(build("homogeneous"), {"_N": torch.randn(23, IN)}, target="_N", num_classes=CLASSES)
    graph, feat, *_ = UAG.prepare(shown)
    model = UAG(IN, CLASSES, hidden=5, heads=[3, 2], estimator=estimator).eval()
    u, doubt = torch.rand(23) / 9, torch.rand(graph.num_edges())
    h = torch.nn.functional.elu(restated(model.layers[0], graph, feat["_N"], u, doubt)[0].flatten(1))
    want = restated(model.layers[1], graph, h, u, doubt)[0].mean(1)[:, :CLASSES]
    torch.testing.assert_close(model(graph, feat, u, doubt), want, atol=1e-5, rtol=1e-5)


def test_certain_neighbours_are_gats_and_no_gradient_goes_into_what_is_uncertain():
    graph, x = build("homogeneous"), torch.randn(23, IN)
    gat, uag = GAT(IN, CLASSES).eval(), UAG(IN, CLASSES, stages=1).eval()
    uag.load_state_dict(gat.state_dict())
    torch.testing.assert_close(uag(graph, x), gat(graph, x))
    torch.testing.assert_close(uag(graph, x, torch.full((23,), 0.2), torch.ones(graph.num_edges())), gat(graph, x))
    u = torch.rand(23, requires_grad=True)
    assert not uag(graph, x, u).isnan().any() and torch.autograd.grad(uag(graph, x, u).sum(), u, allow_unused=True) == (
        None,
    )


def test_blocks_and_pairs():
    layer, block = UAGConv(IN, OUT, HEADS), build("block")
    feat, u = torch.randn(block.num_src_nodes(), IN), torch.rand(block.num_src_nodes())
    out = layer(block, feat, u)
    torch.testing.assert_close(out, layer(block, (feat, feat[: block.num_dst_nodes()]), u))
    whole = build("homogeneous")
    x = torch.randn(23, IN)
    every = torch.rand(23)
    part = layer(block, x[block.srcdata[dgl.NID]], every[block.srcdata[dgl.NID]])
    torch.testing.assert_close(part, layer(whole, x, every)[block.dstdata[dgl.NID]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("estimator", ["dropout", "head"])
@pytest.mark.parametrize("kind", ["votes", "probabilities"])
def test_uncertainty_is_that_of_the_answers(kind, estimator, multilabel):
    graph, x = dgl.add_self_loop(dgl.graph(([0, 1, 2, 3], [1, 2, 3, 0]), num_nodes=5)), torch.randn(5, IN)
    model = UAG(IN, CLASSES, multilabel, edges="answers", estimator=estimator, answers=kind, samples=7).eval()
    before = [module.training for module in model.modules()]
    torch.manual_seed(3)
    of_node, of_edge = model.uncertainty(graph, x)
    assert [module.training for module in model.modules()] == before
    torch.manual_seed(3)
    model.train()
    if estimator == "head":
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
    answers = torch.stack([model(graph, x).detach() for _ in range(7)])
    p = answers.sigmoid() if multilabel else answers.softmax(-1)
    if kind == "votes":
        p = (answers > 0).float() if multilabel else torch.eye(CLASSES)[answers.argmax(-1)]
    src, dst = graph.edges()
    agree = p[:, src] * p[:, dst]
    agree = (agree + (1 - p[:, src]) * (1 - p[:, dst])).mean(-1) if multilabel else agree.sum(-1)
    torch.testing.assert_close(of_node, p.var(0, unbiased=False).mean(-1), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(of_edge, (1 - agree.mean(0)) * (src != dst), atol=1e-6, rtol=1e-4)
    assert (of_node <= 0.25).all() and (of_edge <= 1).all()  # no variance of what is from 0 to 1 is larger
    assert (of_node > 0).any() and (of_edge[:4] > 0).any() and (of_edge[4:] == 0).all()


def test_an_edge_is_in_doubt_where_the_features_of_its_ends_speak_against_it():
    graph, x = dgl.add_self_loop(dgl.graph(([0, 1, 2, 3], [1, 2, 3, 0]), num_nodes=5)), torch.randn(5, IN)
    model = UAG(IN, CLASSES, feat_drop=0.0, attn_drop=0.3, samples=4).eval()
    of_edge = model.uncertainty(graph, x)[1]
    first, second = (layer.weight for layer in model.pairs.net if isinstance(layer, torch.nn.Linear))
    z = (x @ first.T).relu() @ second.T
    z, (src, dst) = z / z.norm(dim=1, keepdim=True), graph.edges()
    want = 1 - 1 / (1 + (-4.0 * (z[src] * z[dst]).sum(1)).exp())
    torch.testing.assert_close(of_edge, want * (src != dst), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.uncertainty(graph, 7 * x)[1], of_edge, atol=1e-6, rtol=1e-5)
    assert not torch.equal(UAG(IN, CLASSES, samples=4).uncertainty(graph, x)[1], of_edge)
    given = torch.rand(graph.num_edges())
    assert torch.equal(model.uncertainty(graph, x, None, given)[1], given)


def test_the_first_stage_alone_learns_which_pairs_are_edges():
    data = neighbours()
    shown = Facts(data.graph, data.feat, target="_N", label=data.label, train=data.train, num_classes=3)
    inputs = UAG.prepare(shown)
    batch = Batch(rows=data.train, label=data.label[data.train])

    def loss(answer, batch):
        return torch.nn.functional.cross_entropy(answer[batch.rows], batch.label)

    model = UAG.build(shown, inputs, feat_drop=0.0, attn_drop=0.0, value_drop=0.0)
    torch.manual_seed(5)
    both = model.objective(loss, inputs, batch)
    own, (src, dst) = loss(model(*inputs), batch), inputs[0].edges()
    src, dst = src[src != dst], dst[src != dst]
    torch.manual_seed(5)
    pairs = torch.cat([torch.stack([src, dst]), torch.randint(180, (2, len(src)))], 1)
    p = model.pairs(data.feat["_N"], *pairs).sigmoid()
    half = len(src)
    torch.testing.assert_close(both - own, -(p[:half].log().mean() + (1 - p[half:]).log().mean()) / 2)
    assert torch.equal(model.eval().objective(loss, inputs, batch), own)
    later, given = model.again(shown, inputs, 1)
    assert later.pairs is None
    torch.testing.assert_close(later.train().objective(loss, given, batch), loss(later(*given), batch))
    assert UAG.build(shown, inputs, stages=1).pairs is None


def test_a_head_draws_in_training_and_gives_the_mean_at_rest():
    graph, x = build("homogeneous"), torch.randn(23, IN)
    model = UAG(IN, CLASSES, estimator="head", **STILL)
    first, second = model(graph, x), model(graph, x)
    assert first.shape == (23, CLASSES) and not torch.equal(first, second)
    mean = model.eval()(graph, x)
    torch.testing.assert_close(mean, model(graph, x))
    drawn = torch.stack([model.train()(graph, x) for _ in range(600)]).mean(0)
    torch.testing.assert_close(drawn, mean, atol=0.3, rtol=0.0)


def test_a_stage_begins_anew_and_heeds_what_the_one_before_is_uncertain_of():
    data = neighbours()
    shown = Facts(data.graph, data.feat, target="_N", label=data.label, train=data.train, num_classes=3)
    inputs = UAG.prepare(shown)
    assert inputs[2:] == (None, None)
    model = UAG.build(shown, inputs, stages=2, samples=3, alpha_tau=1.5, hidden=7).eval()
    torch.manual_seed(0)
    other, later = model.again(shown, inputs, 1)
    assert other.again(shown, later, 2) is None and UAG.build(shown, inputs, stages=1).again(shown, inputs, 1) is None
    assert later[:2] == inputs[:2] and later[2].shape == (180,) and later[3].shape == (inputs[0].num_edges(),)
    assert other.layers[0].alpha_tau == 1.5 and other.layers[0].fc.weight.shape == model.layers[0].fc.weight.shape
    assert not torch.equal(other.layers[0].fc.weight, model.layers[0].fc.weight)
    (share, _) = shares(other.eval(), *later)
    assert share.names == ("little doubt", "much doubt") and share.attention[0] > share.uniform[0] + 0.02
    assert shares(model, *inputs) == []


def test_edges_that_an_attack_added_are_found_and_weighed_down():
    """The toy's neighbours tell the class; as many again that an attack adds tell nothing."""
    data = neighbours()
    task = find("nodes")(data, add_edges=1.0, attack_seed=2)
    inputs = UAG.prepare(task.shown())
    torch.manual_seed(0)
    model = UAG.build(
        task.shown(), inputs, feat_drop=0.2, attn_drop=0.2, value_drop=0.2, alpha_tau=0.0, edges="answers"
    )
    accuracy(model, *inputs[:2], data.label[data.train], data.train, epochs=60, lr=0.02)
    after, later = model.again(task.shown(), inputs, 1)
    src, dst = inputs[0].edges()
    added = ~data.graph.has_edges_between(src, dst) & (src != dst)
    others = ~added & (src != dst)
    assert roc_auc_score(added[src != dst], later[3][src != dst]) > 0.75
    assert later[3][added].mean() > 1.3 * later[3][others].mean()
    weighed, even = (float(after.eval().attention(*given)[0][added].sum()) for given in (later, inputs))
    assert weighed < 0.8 * even, (weighed, even)


def test_edges_between_ends_that_look_unlike_are_found():
    """Edges within classes, whose features say the class, and half as many that run anywhere."""
    torch.manual_seed(1)
    kind = torch.arange(120) % CLASSES
    x = 2 * torch.nn.functional.one_hot(kind, IN).float() + torch.randn(120, IN) / 2
    src = torch.randint(120, (600,))
    dst = (src + CLASSES * torch.randint(1, 40, (600,))) % 120
    anywhere = torch.randint(120, (2, 300))
    graph = dgl.to_simple(
        dgl.remove_self_loop(dgl.graph((torch.cat([src, anywhere[0]]), torch.cat([dst, anywhere[1]]))))
    )
    model, (src, dst) = UAG(IN, CLASSES, feat_drop=0.2), graph.edges()
    optimiser = torch.optim.Adam(model.pairs.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        model.pairs.loss(graph, x).backward()
        optimiser.step()
    assert roc_auc_score(kind[src] != kind[dst], model.uncertainty(graph, x)[1]) > 0.95


def test_wrong_calls_are_one_sentence():
    graph, x = build("homogeneous"), torch.randn(23, IN)
    with pytest.raises(RecipeError, match="model.estimator: expected 'dropout' or 'head', got 'flip'"):
        UAG(IN, CLASSES, estimator="flip")
    with pytest.raises(RecipeError, match="model.edges: expected 'pairs' or 'answers', got 'all'"):
        UAG(IN, CLASSES, edges="all")
    with pytest.raises(RecipeError, match="model.answers: expected 'votes' or 'probabilities', got 'words'"):
        UAG(IN, CLASSES, answers="words")
    with pytest.raises(ShapeError, match="samples: expected 2 or more, got 1"):
        UAG(IN, CLASSES, samples=1)
    with pytest.raises(ShapeError, match="beta_tau: expected 0 or more, got -1"):
        UAG(IN, CLASSES, beta_tau=-1)
    with pytest.raises(ShapeError, match="of_node: expected"):
        UAG(IN, CLASSES)(graph, x, torch.ones(22))
    with pytest.raises(ShapeError, match="of_edge: expected"):
        UAG(IN, CLASSES)(graph, x, None, torch.ones(22))
    with pytest.raises(ShapeError, match="feat: expected"):
        UAG(IN + 1, CLASSES)(graph, x)
