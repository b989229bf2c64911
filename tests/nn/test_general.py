"""The general attention model, over padded sets and over graphs, against its equations, one query and set at a time.

What a set's oracle says of a row of a batch it says of the in-edges of a node, too.
"""

import itertools
import math
import re

import dgl
import pytest
import torch
from torch import nn

from hgat import ops
from hgat.errors import ShapeError
from hgat.nn import DotGatConv, GATConv, GATv2Conv, GeneralAttention, GeneralAttentionConv
from hgat.nn import general as parts
from hgat.nn.general import SCORES, log_probs, reinforce
from zoo import build

F_KEY, F_QUERY, D, HEADS = 5, 4, 3, 2
WINDOW = {"alignment": "local", "window": 2.0}
ALIGNMENTS = {
    "global": {},
    "best": {"alignment": "local", "top_k": 2},
    "window": WINDOW,
    "plain window": WINDOW | {"gaussian": False},
    "predictive": WINDOW | {"centre": "predictive"},
    "predictive, span": WINDOW | {"centre": "predictive", "span": 7.5},
    "hard": {"alignment": "hard", "temperature": 0.7},
    "reinforced": {"alignment": "reinforced"},
}
# Every score, every alignment, and where one meets another.
FORMS = (
    [(score, "global") for score in SCORES]
    + [("scaled", name) for name in ALIGNMENTS if name != "global"]
    + [("additive", name) for name in ("best", "predictive", "hard", "reinforced")]
    + [("euclidean", "window"), ("linear", "best")]
)


def layer_of(kind, score="scaled", align="global", **options):
    torch.manual_seed(3)
    options = ALIGNMENTS[align] | {"score": score, "num_heads": HEADS} | options
    layer = kind(options.pop("in_feats", (F_KEY, F_QUERY)), options.pop("out_feats", D), **options).double().eval()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return layer


def oracle_score(p, score, h, q, k):
    """e of one query [D_q] and one key [D_k], from the table of the survey; p: the attention model's parameters."""
    if score == "additive":
        return p["attn"][h] @ torch.tanh(q + k + p["bias"][h])
    if score == "linear":
        e = p["attn_query"][h] @ q + p["attn_key"][h] @ k + p["bias"][h]
        return e if e > 0 else 0.2 * e
    if score in ("multiplicative", "scaled"):
        return q @ k / (math.sqrt(len(k)) if score == "scaled" else 1)
    if score == "cosine":
        return q @ k / (q.norm() * k.norm())
    if score == "euclidean":
        return -torch.sqrt(((q - k) ** 2).sum())
    if score == "general":
        return k @ p["weight"][h] @ q
    if score == "biased_general":
        return k @ (p["weight"][h] @ q + p["bias"][h])
    return torch.tanh(k @ p["weight"][h] @ q + p["bias"][h])


def oracle_weights(p, score, options, h, q, keys, place):
    """a of one query and n keys in evaluation; place: where they stand."""
    e = torch.stack([oracle_score(p, score, h, q, k) for k in keys])
    if "window" in options:
        reach, centre = options["window"], 0.0
        if options.get("centre") == "predictive":
            hidden = torch.tanh(p["centre_weight"][h] @ q)
            centre = options.get("span", len(keys)) / (1 + torch.exp(-(p["centre_attn"][h] @ hidden)))
        if options.get("gaussian", True):
            e = e - (place - centre) ** 2 / (2 * (reach / 2) ** 2)
        e = torch.where((place - centre).abs() <= reach, e, -math.inf)
    elif "top_k" in options:
        e = torch.where(e >= e.sort(descending=True)[0][: options["top_k"]][-1], e, -math.inf)
    elif options.get("alignment") == "hard":
        return (e == e.max()).to(e)
    elif options.get("alignment") == "reinforced":
        keep = keys @ p["policy_key"][h] + q @ p["policy_query"][h] + p["policy_bias"][h]
        e = torch.where(keep >= 0, e, -math.inf)
    a = torch.exp(e - (0.0 if torch.isinf(e).all() else e.max()))
    return a / a.sum() if a.sum() > 0 else a


def oracle(layer, query, keys, place, options):
    """(context [H, D], a [n, H]) of one query [F_q] and n items [n, F_k]."""
    p = dict(layer.attention_model.named_parameters())
    if not len(keys):
        return torch.zeros(HEADS, D, dtype=torch.float64), torch.zeros(0, HEADS, dtype=torch.float64)
    q = (layer.query_model.fc_query.weight @ query).view(HEADS, -1)
    k, v = ((keys @ fc.weight.T).view(len(keys), HEADS, -1) for fc in layer.feature_model.children())
    rows = [oracle_weights(p, layer.attention_model.score, options, h, q[h], k[:, h], place) for h in range(HEADS)]
    a = torch.stack(rows, 1)
    return torch.einsum("nh,nhd->hd", a, v), a


def a_batch(queries=3, sets=4, items=6):
    torch.manual_seed(1)
    mask = torch.rand(sets, items) < 0.6
    mask[0], mask[1] = False, True
    query = torch.randn(sets, queries, F_QUERY, dtype=torch.float64, requires_grad=True)
    return query, torch.randn(sets, items, F_KEY, dtype=torch.float64, requires_grad=True), mask


def same_gradients(got, want, leaves):
    """Of `got` and `want` by a random cotangent, for every leaf."""
    cotangent = torch.randn_like(want)
    options = {"allow_unused": True, "materialize_grads": True}
    found = [torch.autograd.grad((out * cotangent).sum(), leaves, **options) for out in (got, want)]
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("score", "align"), FORMS, ids=str)
def test_sets_follow_the_equations(score, align):
    layer, options = layer_of(GeneralAttention, score, align), ALIGNMENTS[align]
    query, keys, mask = a_batch()
    found, weights = layer(query, keys, mask=mask, get_attention=True)
    want, alpha = torch.zeros_like(found), torch.zeros_like(weights)
    for b, i in itertools.product(range(4), range(3)):
        place = torch.arange(6)[mask[b]] - (0 if "centre" in options else i)
        out, a = oracle(layer, query[b, i], keys[b, mask[b]], place, options)
        want[b, i], alpha[b, i, mask[b]] = out.flatten(), a
    torch.testing.assert_close(weights, alpha)
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(layer(query, keys, mask=mask), want)  # by PyTorch's own attention, where it serves
    assert (found[0] == 0).all()
    if align != "hard":
        same_gradients(layer(query, keys, mask=mask), want, [query, keys, *layer.parameters()])


def with_position(graph, options):
    """The keywords of a call: where edges stand, from -3 to 4."""
    torch.manual_seed(5)
    place = torch.randint(-3, 5, (graph.num_edges(),))
    return {"position": place} if "window" in options else {}


@pytest.mark.parametrize(("score", "align"), FORMS, ids=str)
def test_graphs_follow_the_equations(score, align):
    layer, options = layer_of(GeneralAttentionConv, score, align, allow_zero_in_degree=True), ALIGNMENTS[align]
    src, dst = torch.tensor([[0, 1, 2, 3, 4, 2, 0, 5], [0, 0, 0, 1, 1, 3, 3, 3]])
    graph = dgl.heterograph({("a", "to", "b"): (src, dst)}, {"a": 6, "b": 4})
    feat = [torch.randn(n, f, dtype=torch.float64, requires_grad=True) for n, f in ((6, F_KEY), (4, F_QUERY))]
    given = with_position(graph, options)
    mask = torch.tensor([True] * 5 + [False, True, True])
    place = given.get("position", torch.zeros(8))
    found, weights = layer(graph, feat, get_attention=True, edge_mask=mask, **given)
    want, alpha = torch.zeros_like(found), torch.zeros_like(weights.squeeze(-1))
    for v in range(4):
        edges = [e for e in range(8) if dst[e] == v and mask[e]]
        want[v], alpha[edges] = oracle(layer, feat[1][v], feat[0][src[edges]], place[edges], options)
    torch.testing.assert_close(weights.squeeze(-1), alpha)
    torch.testing.assert_close(found, want)
    assert (found[2] == 0).all()
    if align != "hard":
        same_gradients(layer(graph, feat, edge_mask=mask, **given), want, [*feat, *layer.parameters()])


def padded(graph, x):
    """(rows of sources [N_dst, n, *], their edges [N_dst, n], mask [N_dst, n]) of the in-edges of every node."""
    src, dst = graph.edges(order="eid")
    own = [torch.nonzero(dst == v).flatten() for v in range(graph.num_dst_nodes())]
    edges = nn.utils.rnn.pad_sequence(own, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones(len(e)) for e in own], batch_first=True) > 0
    return x[src[edges]], edges, mask


@pytest.mark.parametrize("options", [{}, {"multi_dimensional": True}], ids=["single", "multi"])
@pytest.mark.parametrize("name", ["bipartite", "block", "zero_in_degree"])
@pytest.mark.parametrize("align", ALIGNMENTS)
def test_a_graph_is_its_neighbourhoods_as_padded_sets(align, name, options):
    graph, options = build(name), {**options, "score": "additive", "in_feats": F_KEY}
    layer = layer_of(GeneralAttentionConv, align=align, allow_zero_in_degree=True, residual=True, bias=True, **options)
    sets = layer_of(GeneralAttention, align=align, residual=True, bias=True, **options)
    sets.load_state_dict(layer.state_dict())
    h = torch.randn(graph.num_src_nodes(), F_KEY, dtype=torch.float64)
    h_dst = h[: graph.num_dst_nodes()]
    given = with_position(graph, ALIGNMENTS[align])
    out, alpha = layer(graph, (h, h_dst), get_attention=True, **given)
    rows, edges, mask = padded(graph, h)
    given = {key: value[edges] for key, value in given.items()}
    want, weights = sets(h_dst, rows, mask=mask, get_attention=True, **given)
    torch.testing.assert_close(out.flatten(1), want)
    found = torch.zeros_like(weights)
    found[mask] = alpha[edges[mask]] if options.get("multi_dimensional") else alpha[edges[mask]].squeeze(-1)
    torch.testing.assert_close(found, weights)


# ---- layers that are settings of it ----


def copied(layer, other, names):
    state = {mine: other.state_dict()[theirs].view_as(layer.state_dict()[mine]) for mine, theirs in names.items()}
    assert set(state) == set(layer.state_dict())
    layer.load_state_dict(state)
    return layer


SAME = {
    "GATConv": (
        lambda: GATConv(F_KEY, D, HEADS, residual=True),
        dict(values="keys", query="keys", score="linear", score_bias=False, bias=True, residual=True),
        {"feature_model.fc_key.weight": "fc.weight", "attention_model.attn_key": "attn_l",
         "attention_model.attn_query": "attn_r", "output_model.res_fc.weight": "res_fc.weight",
         "output_model.res_fc.bias": "res_fc.bias"},
    ),
    "GATConv, bias": (
        lambda: GATConv(F_KEY, D, HEADS, activation=torch.tanh),
        dict(values="keys", query="keys", score="linear", score_bias=False, bias=True, activation=torch.tanh),
        {"feature_model.fc_key.weight": "fc.weight", "attention_model.attn_key": "attn_l",
         "attention_model.attn_query": "attn_r", "output_model.bias": "bias"},
    ),
    "GATv2Conv": (
        lambda: GATv2Conv(F_KEY, D, HEADS),
        dict(values="keys", score="additive", score_activation=nn.LeakyReLU(0.2), score_bias=False, map_bias=True),
        {"feature_model.fc_key.weight": "fc_src.weight", "feature_model.fc_key.bias": "fc_src.bias",
         "query_model.fc_query.weight": "fc_dst.weight", "query_model.fc_query.bias": "fc_dst.bias",
         "attention_model.attn": "attn"},
    ),
    "DotGatConv": (
        lambda: DotGatConv(F_KEY, D, HEADS),
        dict(values="keys", query="keys"),
        {"feature_model.fc_key.weight": "fc.weight"},
    ),
    "DotGatConv, keys": (
        lambda: DotGatConv(F_KEY, D, HEADS, key_feats=7, bias=True),
        dict(key_feats=7, map_bias=True),
        {f"{part}.{fc}.{name}": f"{fc}.{name}" for name in ("weight", "bias") for part, fc in
         (("feature_model", "fc_key"), ("feature_model", "fc_value"), ("query_model", "fc_query"))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_gat_gatv2_and_dot_gat_are_settings(name):
    build_other, options, names = SAME[name]
    other = build_other().double()
    with torch.no_grad():
        [p.normal_() for key, p in other.named_parameters() if key.endswith("bias")]
    layer = copied(GeneralAttentionConv(F_KEY, D, HEADS, **options).double(), other, names)
    for kind in ("homogeneous", "block", "multi_edges"):
        graph = build(kind)
        feat = torch.randn(graph.num_src_nodes(), F_KEY, dtype=torch.float64, requires_grad=True)
        mask = torch.rand(graph.num_edges()) < 0.8
        (out, alpha), (want, weights) = (f(graph, feat, get_attention=True, edge_mask=mask) for f in (layer, other))
        torch.testing.assert_close(out, want)
        torch.testing.assert_close(alpha, weights)
        same_gradients(out, want, [feat])


OPERATORS = {
    "additive": ["additive_logits", "additive_attention"],
    "linear": ["additive_attention"],
    "activated_general": ["dot_product_logits", "additive_attention"],
    "euclidean": ["additive_logits", "dot_product_logits", "additive_attention"],
}


@pytest.mark.parametrize("score", SCORES)
def test_a_score_is_one_or_two_operators_over_edges(score, monkeypatch):
    graph, called = build("homogeneous"), []
    layer, feat = layer_of(GeneralAttentionConv, score, in_feats=F_KEY), torch.randn(23, F_KEY, dtype=torch.float64)
    for name in [n for n in ops.__all__ if n.split("_")[0] in ("additive", "dot", "gatv2", "edge", "weighted", "copy")]:
        real = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *a, _r=real, _n=name, **o: (called.append(_n), _r(*a, **o))[1])
    layer(graph, feat)
    assert called == OPERATORS.get(score, ["dot_product_attention"])
    if score == "additive":
        called.clear()
        options = {"values": "keys", "score_activation": nn.ReLU()}
        layer_of(GeneralAttentionConv, score, in_feats=F_KEY, **options)(graph, feat)
        assert called == ["gatv2_attention"]


# ---- the limits ----


def forms_of(one, two, **options):
    """Two sets of settings with the same parameters over sets and over a graph: pairs of (out, weights)."""
    graph, (query, keys, mask) = build("homogeneous"), a_batch()
    h = torch.randn(23, F_KEY, dtype=torch.float64)
    calls = {
        GeneralAttention: lambda layer, **o: layer(query, keys, mask=mask, get_attention=True, **o),
        GeneralAttentionConv: lambda layer, **o: layer(graph, (h, h[:, :F_QUERY]), get_attention=True, **o),
    }
    for kind, call in calls.items():
        first, second = (layer_of(kind, **{**options, **more}) for more in (one, two))
        second.load_state_dict(first.state_dict(), strict=False)
        found = []
        for layer in (first, second):
            on_graph = kind is GeneralAttentionConv and layer.attention_model.window
            found.append(call(layer, **({"position": torch.arange(graph.num_edges()) % 7} if on_graph else {})))
        yield found


@pytest.mark.parametrize("score", ["scaled", "additive"])
@pytest.mark.parametrize(
    "wide",
    [WINDOW | {"window": 1e9}, WINDOW | {"window": 1e9, "centre": "predictive"}, {"alignment": "local", "top_k": 99}],
    ids=["monotonic", "predictive", "top_k"],
)
def test_local_with_a_wide_window_is_global(wide, score):
    for (out, alpha), (want, weights) in forms_of(wide, {}, score=score):
        torch.testing.assert_close(out, want)
        torch.testing.assert_close(alpha, weights)


@pytest.mark.parametrize("gradient", ["straight_through", "reinforce"])
def test_hard_at_temperature_zero_is_the_best_also_in_training(gradient):
    hard = {"alignment": "hard", "temperature": 0.0, "gradient": gradient}
    for one, _ in forms_of(hard, {}):
        assert ((one[1] == 0) | (one[1] == 1)).all()
    query, keys, mask = a_batch()
    layer, best = layer_of(GeneralAttention, **hard), layer_of(GeneralAttention, alignment="local", top_k=1)
    layer.train()
    torch.testing.assert_close(layer(query, keys, mask=mask), best(query, keys, mask=mask))
    with log_probs() as found:
        out = layer(query, keys, mask=mask)
    assert found == []
    slots = torch.autograd.grad(out.sum(), query, allow_unused=True)[0]
    assert slots is None or not slots.any()
    # And what is drawn comes near to it.
    cold = layer_of(GeneralAttention, alignment="hard", temperature=1e-3).train()
    torch.testing.assert_close(cold(query, keys, mask=mask), best(query, keys, mask=mask))


def test_one_feature_makes_multi_dimensional_single():
    multi, query, keys, mask = {"multi_dimensional": True}, *a_batch()
    layers = [layer_of(GeneralAttention, "additive", out_feats=1, key_feats=3, **o) for o in (multi, {})]
    state = layers[0].state_dict()
    state["attention_model.attn"] = state["attention_model.attn"].squeeze(-1)
    layers[1].load_state_dict(state)
    (out, alpha), (want, weights) = (f(query, keys, mask=mask, get_attention=True) for f in layers)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(alpha.squeeze(-1), weights)


@pytest.mark.parametrize("align", ["global", "best", "window"])
def test_every_feature_has_a_softmax_of_its_own(align):
    layer, (query, keys, mask) = layer_of(GeneralAttention, "additive", align, multi_dimensional=True), a_batch()
    out, alpha = layer(query, keys, mask=mask, get_attention=True)
    assert alpha.shape == (4, 3, 6, HEADS, D)
    for d in range(D):
        one = layer_of(GeneralAttention, "additive", align)
        state = layer.state_dict() | {"attention_model.attn": layer.attention_model.attn[..., d]}
        one.load_state_dict(state)
        want, weights = one(query, keys, mask=mask, get_attention=True)
        torch.testing.assert_close(alpha[..., d], weights)
        torch.testing.assert_close(out.unflatten(-1, (HEADS, D))[..., d], want.unflatten(-1, (HEADS, D))[..., d])


# ---- gradients, and what is drawn ----


@pytest.mark.parametrize(("score", "align"), [f for f in FORMS if f[1] not in ("hard", "reinforced")], ids=str)
def test_gradients_in_double_precision(score, align):
    layer = layer_of(GeneralAttention, score, align, num_heads=1)
    query, keys = torch.randn(2, 2, F_QUERY).double(), torch.randn(2, 3, F_KEY).double()
    mask = torch.tensor([[True, True, False], [True, True, True]])
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def call(query, keys, *values):
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, given, (query, keys), {"mask": mask})

    inputs = [x.detach().requires_grad_() for x in (query, keys, *parameters)]
    torch.autograd.gradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("kind", [GeneralAttention, GeneralAttentionConv], ids=["sets", "graph"])
def test_straight_through_has_the_backward_of_the_softmax(kind):
    hard, soft = (layer_of(kind, align=a, **o) for a, o in (("hard", {"temperature": 1.0}), ("global", {})))
    hard.train()
    if kind is GeneralAttention:
        q, k = torch.randn(2, 3, HEADS, D).double().requires_grad_(), torch.randn(2, 5, HEADS, D).double()
        graph = None
    else:
        graph = build("homogeneous")
        q, k = torch.randn(23, HEADS, D).double().requires_grad_(), torch.randn(23, HEADS, D).double()
    found, want = (layer.attention_model(q, k, graph=graph) for layer in (hard, soft))
    assert ((found == 0) | (found == 1)).all() and not torch.equal(found, want)
    ones = found.sum(2) if graph is None else dgl.ops.copy_e_sum(graph, found.detach())
    assert torch.equal(ones, torch.ones_like(ones))
    same_gradients(found, want, [q])


@pytest.mark.parametrize("options", [{}, {"score": "additive", "multi_dimensional": True}], ids=["one", "every value"])
@pytest.mark.parametrize("kind", [GeneralAttention, GeneralAttentionConv], ids=["sets", "graph"])
def test_a_hook_sees_the_choice_and_can_put_another_there(kind, options):
    layer = layer_of(kind, align="hard", **options)
    if kind is GeneralAttention:
        inputs, calls = a_batch()[:2], []
    else:
        graph, calls = build("bipartite"), []
        ends = graph.num_src_nodes(), graph.num_dst_nodes()
        inputs = graph, tuple(torch.randn(n, width).double() for n, width in zip(ends, (F_KEY, F_QUERY), strict=True))
    with ops.attention_hook(calls.append):
        out, alpha = layer(*inputs, get_attention=True)
    (call,) = calls
    assert ((call.weights == 0) | (call.weights == 1)).all()
    assert torch.equal(call.weights.flatten(), alpha.flatten())
    assert (call.kind, call.graph) == (("axis", None) if kind is GeneralAttention else ("edges", graph))
    with ops.attention_hook(lambda call: call.weights * 2):
        torch.testing.assert_close(layer(*inputs), 2 * out)


@pytest.mark.parametrize("kind", [GeneralAttention, GeneralAttentionConv], ids=["sets", "graph"])
def test_what_is_drawn_follows_the_softmax(kind):
    torch.manual_seed(0)
    layer = layer_of(kind, alignment="hard", in_feats=F_KEY, temperature=2.0, gradient="reinforce").train()
    copies, items = 4000, torch.randn(3, F_KEY).double()
    if kind is GeneralAttention:
        query = items[:1].expand(copies, 1, -1)
        weights = lambda f: f(query, items.expand(copies, 3, -1), get_attention=True)[1][:, 0]  # noqa: E731
    else:
        dst = torch.arange(copies).repeat_interleave(3)
        graph = dgl.heterograph({("a", "to", "b"): (torch.arange(3).repeat(copies), dst)}, {"a": 3, "b": copies})
        pair = items, items[:1].expand(copies, -1)
        weights = lambda f: f(graph, pair, get_attention=True)[1].view(copies, 3, HEADS)  # noqa: E731
    with log_probs() as found:
        drawn = weights(layer)
    q, k = layer.query_model.fc_query(items[0]).view(HEADS, D), layer.feature_model.key(items)
    chances = torch.softmax((q * k).sum(-1) / math.sqrt(D) / 2.0, 0)
    assert ((drawn.mean(0) - chances).abs() < 4 * (chances * (1 - chances) / copies).sqrt()).all()
    want = (drawn * chances).sum(1).log()
    torch.testing.assert_close(found[0].view(copies, HEADS), want)
    layer.eval()
    assert torch.equal(weights(layer)[0], (chances == chances.max(0)[0]).to(chances))


def expected(layer, outcomes, chosen, monkeypatch, **options):
    """sum over the outcomes of p * (the gradient of REINFORCE's term), and that of minus the expected reward."""
    query, keys = torch.randn(1, F_KEY).double(), torch.randn(1, 3, F_KEY).double()
    rewards = torch.linspace(-1, 2, len(outcomes)).double()
    parameters = [p for n, p in layer.named_parameters() if "value" not in n]
    total, mean = 0.0, 0.0
    for outcome, reward in zip(outcomes, rewards, strict=True):
        monkeypatch.setattr(*chosen(torch.tensor(outcome)))
        with log_probs() as found:
            layer(query, keys)
        p = found[0].exp().squeeze()
        mean = mean + p * reward
        grad = torch.autograd.grad(
            reinforce(found, reward.view(1), **options), parameters, retain_graph=True,
            allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        total = total + p.detach() * nn.utils.parameters_to_vector(grad)
    want = torch.autograd.grad(-mean, parameters, allow_unused=True, materialize_grads=True)
    return total, nn.utils.parameters_to_vector(want)


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_reinforce_is_unbiased_over_all_choices(baseline, monkeypatch):
    options = {"num_heads": 1, "in_feats": F_KEY}
    hard = layer_of(GeneralAttention, alignment="hard", gradient="reinforce", temperature=0.5, **options).train()
    got, want = expected(
        hard, torch.eye(3).bool().tolist(), lambda one: (parts, "_best", lambda *_: one.view(1, 1, 3, 1)), monkeypatch,
        baseline=baseline,
    )  # fmt: skip
    torch.testing.assert_close(got, want)
    assert want.abs().max() > 1e-3
    monkeypatch.undo()
    kept = layer_of(GeneralAttention, align="reinforced", **options).train()
    subsets = list(itertools.product([True, False], repeat=3))
    draw = lambda one: (torch, "rand_like", lambda x: torch.where(one.view(1, 1, 3, 1), 0.0, 1.0).to(x))  # noqa: E731
    got, want = expected(kept, subsets, draw, monkeypatch, baseline=baseline)
    torch.testing.assert_close(got, want)
    assert want.abs().max() > 1e-3


def test_the_reward_of_reinforce():
    found = [torch.tensor([[0.5, 1.0], [2.0, 4.0]])]
    assert reinforce(found, torch.tensor([1.0, 3.0])) == -(1.5 * 1 + 6 * 3) / 2
    assert reinforce(found * 2, torch.tensor(2.0), 1.0) == -15.0
    assert reinforce([], torch.tensor(2.0)) == 0 and reinforce([torch.zeros(0, 2)], torch.zeros(0)) == 0
    with pytest.raises(ShapeError, match=r"reward: expected a scalar or \[2\] as of log p number 0, got \[3\]"):
        reinforce(found, torch.zeros(3))
    with pytest.raises(ShapeError, match="reward: expected a tensor, got float"):
        reinforce(found, 1.0)
    three = [torch.ones(3, 1)]
    assert (
        reinforce(three, torch.ones(3), torch.tensor(3.0))
        == reinforce(three, torch.ones(3), torch.full((3,), 3.0))
        == 2
    )
    for reward, baseline, sentence in (
        (torch.ones(3), torch.ones(3, 1), r"numbers \[3\] as the reward's, got torch.float32 \[3, 1\]"),
        (torch.ones(3), torch.ones(4), r"baseline: expected a number, or .*, got torch.float32 \[4\]"),
        (torch.ones(3), "mean", "baseline: expected a finite number, got 'mean'"),
        (torch.ones(3) > 0, 0.5, "reward: expected numbers, got torch.bool"),
    ):
        with pytest.raises(ShapeError, match=sentence):
            reinforce(three, reward, baseline)


def test_distances_from_no_node_at_all():
    graph = dgl.heterograph({("a", "to", "b"): ([], [])}, {"a": 0, "b": 3})
    layer, h = GeneralAttentionConv(4, 4, score="euclidean", allow_zero_in_degree=True), torch.randn(3, 4)
    out = layer(graph, (h[:0], h.requires_grad_()))
    out.sum().backward()
    assert (out == 0).all() and (h.grad == 0).all()


def test_distances_far_from_zero_keep_their_digits():
    """On a graph as in the sets that its neighbours make, and as in double precision."""
    torch.manual_seed(0)
    graph = dgl.graph((torch.arange(6).repeat(6), torch.arange(6).repeat_interleave(6)))
    layers = [
        kind(4, 4, score="euclidean", keys="input", values="input", query="input")
        for kind in (GeneralAttention, GeneralAttentionConv)
    ]
    h = 100 + 0.1 * torch.randn(6, 4)
    _, of_sets = layers[0](h.unsqueeze(0), h.unsqueeze(0), get_attention=True)
    _, of_edges = layers[1](graph, h, get_attention=True)
    torch.testing.assert_close(of_edges.view(6, 6), of_sets[0], atol=1e-5, rtol=1e-4)
    exact = torch.softmax(-torch.cdist(h.double(), h.double(), compute_mode="donot_use_mm_for_euclid_dist"), 1)
    torch.testing.assert_close(of_edges.view(6, 6).double(), exact, atol=1e-5, rtol=1e-4)


# ---- queries, masks, and what is left out ----


def test_a_query_of_its_own():
    keys = torch.randn(2, 4, F_KEY).double()
    none = layer_of(GeneralAttention, "additive", query="none", in_feats=F_KEY)
    p, h = dict(none.named_parameters()), none.feature_model.key(keys)
    e = (torch.tanh(h + p["attention_model.bias"]) * p["attention_model.attn"]).sum(-1)  # w . act(W k + b)
    a = e.exp() / e.exp().sum(1, keepdim=True)
    out, alpha = none(None, keys, get_attention=True)
    torch.testing.assert_close(alpha, a)
    torch.testing.assert_close(out, torch.einsum("bnh,bnhd->bhd", a, none.feature_model(keys)[1]).flatten(1))
    ends = layer_of(GeneralAttention, "linear", query="none", in_feats=F_KEY)
    part = ends.attention_model
    e = nn.functional.leaky_relu((ends.feature_model.key(keys) * part.attn_key).sum(-1) + part.bias, 0.2)
    torch.testing.assert_close(ends(None, keys, get_attention=True)[1], e.exp() / e.exp().sum(1, keepdim=True))
    trained = layer_of(GeneralAttention, query="trained", in_feats=F_KEY)
    e = (trained.feature_model.key(keys) * trained.query_model.trained).sum(-1) / math.sqrt(D)
    torch.testing.assert_close(trained(None, keys, get_attention=True)[1], e.exp() / e.exp().sum(1, keepdim=True))
    for name in ("none", "trained"):
        conv = layer_of(GeneralAttentionConv, "additive", query=name, in_feats=F_KEY)
        graph = build("bipartite")
        h = torch.randn(19, F_KEY).double()
        torch.testing.assert_close(conv(graph, h), conv(graph, (h, torch.randn(13, F_KEY).double())))


def test_items_as_they_are_and_values_apart():
    query, keys, mask = a_batch()
    raw = layer_of(GeneralAttention, "general", keys="input", query="input", values="input", out_feats=F_KEY)
    out, alpha = raw(query, keys, mask=mask, get_attention=True)
    assert [n for n, _ in raw.named_parameters()] == ["attention_model.weight"]
    torch.testing.assert_close(out, torch.einsum("bqnh,bnd->bqhd", alpha, keys).flatten(2))
    apart = layer_of(GeneralAttention, values="input", value_feats=2, out_feats=2, key_feats=D, num_heads=1)
    values = torch.randn(4, 6, 2).double()
    out, alpha = apart(query[:, 0], keys, values, mask, get_attention=True)
    assert out.shape == (4, 2) and alpha.shape == (4, 6)
    torch.testing.assert_close(out, torch.einsum("bn,bnd->bd", alpha, values))
    joined = layer_of(GeneralAttention, output_feats=7, bias=True, residual=True)
    part = joined.output_model
    context = layer_of(GeneralAttention)
    context.load_state_dict(joined.state_dict(), strict=False)
    want = part.fc_out(context(query, keys)) + part.res_fc(query)
    torch.testing.assert_close(joined(query, keys), want)


@pytest.mark.parametrize("get_attention", [False, True])
@pytest.mark.parametrize("score", ["scaled", "additive"])
def test_padding_is_never_used(score, get_attention):
    layer, (query, keys, mask) = layer_of(GeneralAttention, score), a_batch()
    spoiled = keys.detach().masked_fill(~mask.unsqueeze(-1), torch.nan).requires_grad_()
    for each in (mask, mask.unsqueeze(1).expand(-1, 3, -1)):
        found = layer(query, spoiled, mask=each, get_attention=get_attention)
        out = found[0] if get_attention else found
        torch.testing.assert_close(out, layer(query, keys, mask=mask))
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.sum(), [query, spoiled]))
    one = mask.unsqueeze(1).repeat(1, 3, 1)
    one[1, 2] = False  # one query of a set sees nothing
    assert (layer(query, keys, mask=one)[1, 2] == 0).all() and (layer(query, keys, mask=one)[1, 1] != 0).any()


@pytest.mark.parametrize("align", ["global", "window", "plain window"])
def test_pytorch_is_never_asked_for_a_softmax_over_nothing(align, monkeypatch):
    layer, (query, keys, mask) = layer_of(GeneralAttention, align=align), a_batch()
    seen, real = [], ops.scaled_dot_product_attention
    monkeypatch.setattr(ops, "scaled_dot_product_attention", lambda *a, **o: (seen.append(a[3]), real(*a, **o))[1])
    assert (layer(query, keys, mask=mask)[0] == 0).all()
    part = seen[0] if seen[0].dtype == torch.bool else seen[0] > -torch.inf
    assert part.any(-1).all()


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_a_number_that_is_none_is_not_hidden(align):
    graph, h = build("homogeneous"), torch.randn(23, F_KEY).double()
    at_dst = h.clone()
    at_dst[3] = torch.nan
    given = with_position(graph, ALIGNMENTS[align])
    given = {key: value * 0 for key, value in given.items()}
    out = layer_of(GeneralAttentionConv, align=align, in_feats=F_KEY)(graph, (h, at_dst), **given)
    assert torch.isnan(out[3]).all() and torch.isfinite(out[torch.arange(23) != 3]).all()


def test_nodes_without_edges():
    graph, h = build("zero_in_degree"), torch.randn(29, F_KEY).double()
    layer = layer_of(GeneralAttentionConv, in_feats=F_KEY)
    with pytest.raises(dgl.DGLError, match="0-in-degree"):
        layer(graph, h)
    layer.set_allow_zero_in_degree(True)
    assert (layer(graph, h)[graph.in_degrees() == 0] == 0).all()


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_uniform_attention(align):
    layer, (query, keys, mask) = layer_of(GeneralAttention, "additive", align), a_batch()
    conv, graph = layer_of(GeneralAttentionConv, "additive", align, in_feats=F_KEY), build("homogeneous")
    given = with_position(graph, ALIGNMENTS[align])
    with ops.uniform_attention():
        on_sets = layer(query, keys, mask=mask, get_attention=True)[1]
        on_graph = conv(graph, torch.randn(23, F_KEY).double(), get_attention=True, **given)[1].squeeze(-1)
    for weights, part in ((on_sets, on_sets.movedim(2, 0)), (on_graph, None)):
        count = (weights > 0).double()
        total = count.sum(2, keepdim=True) if part is not None else conv_counts(graph, count)
        torch.testing.assert_close(weights, count / total.clamp(min=1))
    if align == "global":
        assert (on_graph > 0).all()


def conv_counts(graph, count):
    return dgl.ops.copy_e_sum(graph, count)[graph.edges()[1]]


def test_dropout_acts_on_the_sum_and_not_on_what_is_shown():
    query, keys, mask = a_batch()
    graph, h = build("homogeneous"), torch.randn(23, F_KEY).double()
    for score in ("scaled", "additive"):
        layer = layer_of(GeneralAttention, score, attn_drop=0.5).train()
        conv = layer_of(GeneralAttentionConv, score, in_feats=F_KEY, attn_drop=0.5).train()
        multi = {"multi_dimensional": True} if score == "additive" else {}
        wide = layer_of(GeneralAttentionConv, score, in_feats=F_KEY, attn_drop=0.5, **multi).train()
        for call in (
            lambda f=layer: f(query, keys, mask=mask, get_attention=True),
            lambda f=conv: f(graph, h, get_attention=True),
            lambda f=wide: f(graph, h, get_attention=True),
        ):
            (one, alpha), (two, again) = call(), call()
            assert not torch.allclose(one, two) and torch.equal(alpha, again)


# ---- what cannot be ----


WRONG = [
    ({"top_k": 3}, "top_k: expected none without its alignment, got 3 with 'global'"),
    ({"alignment": "hard", "window": 2.0}, "window: expected none without its alignment, got 2.0 with 'hard'"),
    ({"alignment": "local", "top_k": 2, "span": 2.0}, "span: expected none without a window, got 2.0 with 'local'"),
    ({"alignment": "local"}, "alignment: expected top_k or window with 'local', got neither"),
    ({"alignment": "local", "top_k": 1, "window": 1.0}, "alignment: expected top_k or window with 'local', got both"),
    ({"alignment": "local", "top_k": 0}, "top_k: expected 1 or more, got 0"),
    ({"alignment": "local", "window": 0.0}, "window: expected a number above 0, got 0.0"),
    ({"alignment": "local", "window": math.inf}, "window: expected a finite number, got inf"),
    ({"alignment": "local", "window": 1.0, "centre": "left"}, "centre: expected 'monotonic' or 'predictive', got"),
    (WINDOW | {"centre": "predictive", "gaussian": False}, "gaussian: expected True with a predictive centre"),
    ({"alignment": "hard", "gradient": "gumbel"}, "gradient: expected 'straight_through' or 'reinforce', got 'gumbel'"),
    ({"alignment": "hard", "temperature": -1.0}, "temperature: expected 0 or more, got -1.0"),
    ({"multi_dimensional": True}, "multi_dimensional: expected the score 'additive', got 'scaled'"),
    ({"score_activation": torch.tanh}, "score_activation: expected None of the score 'scaled', q . k / sqrt(d_k), got"),
    ({"score": "additive", "score_activation": "tanh"}, "score_activation: expected a function or None, got 'tanh'"),
    ({"score_bias": True}, "score_bias: expected a score with or without one, got 'scaled', always without b"),
    ({"score": "biased_general", "score_bias": False}, "got 'biased_general', always with b"),
    ({"values": "input"}, "out_feats: expected 5, the width of values 'input', got 3"),
    ({"values": "keys", "key_feats": 4}, "out_feats: expected 4, the width of values 'keys', got 3"),
    ({"query": "keys", "in_feats": (5, 4)}, "in_feats: expected one width for both ends with query 'keys', got 5 and"),
    ({"query": "input"}, "score: expected one width of queries and keys with 'scaled', got 5 and 3"),
    ({"query": "none"}, "query: expected the score 'additive' or 'linear' without a query, got 'scaled'"),
    ({"query": "none", "score": "linear", "residual": True}, "residual: expected a query that is given, got query"),
    (WINDOW | {"query": "none", "score": "linear", "centre": "predictive"}, "centre: expected 'monotonic' without a"),
    ({"score": "aditive"}, "or 'euclidean', got 'aditive'; did you mean 'additive'?"),
    ({"activation": "relu"}, "activation: expected a function or None, got 'relu'"),
]


@pytest.mark.parametrize("kind", [GeneralAttention, GeneralAttentionConv], ids=["sets", "graph"])
@pytest.mark.parametrize(("options", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
def test_settings_that_cannot_be(options, sentence, kind):
    options = {"in_feats": F_KEY, "out_feats": D} | options
    with pytest.raises(ShapeError, match=re.escape(sentence)) as error:
        kind(**options)
    assert "\n" not in str(error.value)


WRONG_SETS = [
    ({"query": None}, "query: expected a tensor [B, Q, F], got None"),
    ({"query": torch.zeros(4, 3, 5)}, "query: expected [B, Q, F] = [4, any, 4], got [4, 3, 5]"),
    ({"query": torch.zeros(3, 4)}, "query: expected [B, F] = [4, 4], got [3, 4]"),
    ({"keys": torch.zeros(4, 6)}, "keys: expected [B, N, F] = [any, any, 5], got [4, 6]"),
    ({"keys": torch.zeros(4, 6, 5).double()}, "keys: expected torch.float32 like the layer's parameters"),
    ({"values": torch.zeros(4, 5, 5)}, "values: expected [B, N, F] = [4, 6, 5], got [4, 5, 5]"),
    ({"mask": torch.ones(4, 5) > 0}, "mask: expected [B, N] = [4, 6] or [B, Q, N] = [4, 3, 6], got [4, 5]"),
    ({"mask": torch.ones(4, 6)}, "mask: expected torch.bool on cpu, True where an item stands, got torch.float32 on"),
    ({"mask": [True]}, "mask: expected torch.bool on cpu, True where an item stands, got list"),
    ({"position": torch.ones(6)}, "position: expected None of a layer without a window, got one"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG_SETS, ids=[sentence for _, sentence in WRONG_SETS])
def test_sets_that_cannot_be(change, sentence):
    layer = GeneralAttention((F_KEY, F_QUERY), D)
    given = {"query": torch.zeros(4, 3, F_QUERY), "keys": torch.zeros(4, 6, F_KEY)} | change
    with pytest.raises(ShapeError, match=re.escape(sentence)):
        layer(**given)


def test_other_calls_that_cannot_be():
    query, keys = torch.zeros(4, 3, F_KEY), torch.zeros(4, 6, F_KEY)
    with pytest.raises(ShapeError, match="query: expected None of query 'none', got one"):
        GeneralAttention(F_KEY, D, score="linear", query="none")(query, keys)
    with pytest.raises(ShapeError, match="values: expected None of a layer whose values are its keys, got some"):
        GeneralAttention(F_KEY, D, values="keys")(query, keys, keys)
    with pytest.raises(ShapeError, match=r"values: expected \[B, N, F\] with F = 2, got None"):
        GeneralAttention(F_KEY, D, value_feats=2)(query, keys)
    with pytest.raises(
        ShapeError, match=r"position: expected \[N\], \[B, N\] or \[B, Q, N\] with \[4, 3, 6\], got \[5\]"
    ):
        GeneralAttention(F_KEY, D, **WINDOW)(query, keys, position=torch.zeros(5))
    graph, h = build("homogeneous"), torch.zeros(23, F_KEY)
    layer, local = GeneralAttentionConv(F_KEY, D), GeneralAttentionConv(F_KEY, D, **WINDOW)
    for call, sentence in (
        (
            lambda: layer(graph, h, position=torch.zeros(120)),
            "position: expected None of a layer without a window, got",
        ),
        (lambda: local(graph, h), "position: expected [E] of a layer with a window, got None"),
        (lambda: local(graph, h, position=torch.zeros(3)), "position: expected [E] = [120], got [3]"),
        (lambda: layer(graph, h, edge_mask=torch.ones(120)), "edge_mask: expected a tensor of torch.bool"),
        (
            lambda: GeneralAttentionConv((F_KEY, F_QUERY), D)(graph, h),
            "feat: expected a pair (source, destination) of widths [5, 4], got one tensor",
        ),
    ):
        with pytest.raises(ShapeError, match=re.escape(sentence)):
            call()
    with pytest.raises(ShapeError, match="value_feats: expected none on a graph, .*, got 3"):
        GeneralAttentionConv(F_KEY, D, value_feats=3)
    with pytest.raises(ShapeError, match="scroe: expected a setting of GeneralAttention, .*; did you mean 'score'?"):
        GeneralAttentionConv(F_KEY, D, scroe="scaled")
