"""DySAT as a whole: no embedding knows the future, one more step costs one step, and a task that needs the past."""

import re

import dgl
import pytest
import torch
import torch.nn.functional as F

from hgat import graph as hgraph
from hgat import models, ops
from hgat.errors import GraphError, HgatError, RecipeError, ShapeError
from hgat.graph import from_events, snapshots
from hgat.models import Facts
from hgat.models.dysat import DySAT
from hgat.nn import HANConv, RGATConv, SnapshotGATConv, TemporalAttention

N, T, IN = 13, 5, 7
SIZES = {"film": 7, "tag": 3, "user": 11}
ETYPES = [("user", "likes", "film"), ("user", "knows", "user"), ("tag", "marks", "film")]
PATHS = {"co-liked": ["likes^-1", "likes"], "tagged": [["film", "marks^-1", "tag"], ("tag", "marks", "film")]}
SMALL = {"heads": [4], "hidden": 3, "temporal_heads": [2], "embed": 6}
STILL = {"feat_drop": 0.0, "attn_drop": 0.0, "temporal_drop": 0.0}

PLAIN = [
    {},
    {"structural": "dot"},
    {"structural": "none"},
    {"structural": "none", "heads": [2, 4]},
    {"temporal": False},
    {"temporal": False, "combine": "concat"},
    {"combine": "concat"},
    {"combine": "concat", "structural": "none", "mask_absent": False},
    {"position": "time"},
    {"position": "none", "temporal_scale": "sqrt_T"},
    {"heads": [3, 2], "temporal_heads": [3, 1], "temporal_residual": True},
    {"structural": "dot", "heads": [3, 2], "position": "time", "mask_absent": False},
    {"mask_absent": False},
]
TYPED = [
    {"structural": "rgat"},
    {"structural": "rgat", "temporal": False},
    {"structural": "rgat", "combine": "concat", "heads": [3, 2]},
    {"structural": "rgat", "position": "time", "mask_absent": False},
    {"structural": "han", "paths": PATHS},
    {"structural": "han", "paths": PATHS, "temporal": False},
    {"structural": "han", "paths": PATHS, "combine": "concat", "heads": [3, 2]},
]
FORMS = [(kind, settings) for kind, forms in (("plain", PLAIN), ("typed", TYPED)) for settings in forms]
BY_KIND = [(kind, with_feat, settings) for kind, settings in FORMS for with_feat in (True, False)]
every_form = pytest.mark.parametrize(("kind", "settings"), FORMS, ids=str)
every_case = pytest.mark.parametrize(("kind", "with_feat", "settings"), BY_KIND, ids=str)


def random_events(kind, seed=1):
    """{edge type: (src, dst, step)}; the last node of every type has none, the one before appears in step 3."""
    generator = torch.Generator().manual_seed(seed)

    def draw(num_src, num_dst, count):
        step = torch.randint(0, T, (count,), generator=generator)
        ends = []
        for size in (num_src, num_dst):
            end = torch.randint(0, max(size - 2, 1), (count,), generator=generator)
            ends.append(torch.where((step == 3) & (end == 0) & (size > 3), size - 2, end))
        return *ends, step

    if kind == "plain":
        return {("_N", "_E", "_N"): draw(N, N, 83)}
    return {e: draw(SIZES[e[0]], SIZES[e[2]], 61) for e in ETYPES}


def cut(kind, events=None, **settings):
    events = events or random_events(kind)
    sizes = {"_N": N} if kind == "plain" else SIZES
    graph = from_events(events, sizes)
    return snapshots(graph, boundaries=range(T + 1), **settings)


def feat_of(kind, with_feat=True):
    sizes = {"_N": N} if kind == "plain" else SIZES
    return {t: torch.randn(n, IN + k) if with_feat else None for k, (t, n) in enumerate(sizes.items())}


def model_of(found, feat, **settings):
    return DySAT.for_graph(found, feat, **{**SMALL, **STILL, **settings})


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


def extended(model, found, feat):
    """The embeddings by `extend`, one step after the other, [N, T, F]."""
    rows, state = [], None
    for step in found:
        row, state = model.extend(step, feat, state)
        rows.append(row)
    return torch.stack(rows, 1)


def test_found_by_name_with_what_it_solves():
    assert models.find("dysat") is DySAT is models.DySAT and DySAT.solves == ("snapshot_links",)


def test_prepares_the_snapshots_that_are_shown():
    """Cut where the task cut; a step without events at the end is a step, too."""
    columns = random_events("plain")["_N", "_E", "_N"]
    graph = from_events(columns, N)
    graph.edata["step"] = graph.edata["time"]
    feat = feat_of("plain")
    for settings in ({}, {"cumulative": True, "self_loops": False, "both_ways": False, "weight": "normalized"}):
        found, given = DySAT.prepare(Facts(graph, feat, steps=T + 2), **settings)
        expected = cut("plain", **settings)
        assert len(found) == T + 2 and given == feat
        for t in range(T):
            ends = [sorted(zip(*(x.tolist() for x in x[t].graph.edges()), strict=True)) for x in (found, expected)]
            assert ends[0] == ends[1]
        assert torch.equal(found.present[:T], expected.present)
        assert found.weight == expected.weight and found[:T].graph.num_edges() == expected.graph.num_edges()


@every_case
def test_shape(kind, with_feat, settings):
    found, feat = cut(kind), feat_of(kind, with_feat)
    model = model_of(found, feat, **settings)
    width = 3 * settings.get("heads", [4])[-1]
    wide = width * 2 if settings.get("combine") == "concat" and settings.get("temporal", True) else width
    out = model(found, feat)
    assert out.shape == (found.total_nodes, T, wide) and torch.isfinite(out).all()
    assert torch.equal(out, model.embed(found, feat))
    assert model(found[:2], feat).shape == (found.total_nodes, 2, wide)


def later_changes(events, t):
    """The events with links of step t moved, deleted, added, or all of steps from t on deleted."""
    more = torch.tensor([2, 2, 1])
    for etype, (src, dst, step) in events.items():
        late = step == t
        yield {**events, etype: (torch.where(late, (src + 1) % 3, src), dst, step)}
    yield {etype: tuple(x[columns[2] != t] for x in columns) for etype, columns in events.items()}
    added = (torch.cat([src, more]), torch.cat([dst, more % 2]), torch.cat([step, 0 * more + t]))
    yield {**events, etype: added}
    yield {etype: tuple(x[columns[2] < t] for x in columns) for etype, columns in events.items()}


@pytest.mark.slow
@every_case
def test_no_embedding_knows_a_later_snapshot(kind, with_feat, settings):
    feat, events, t = feat_of(kind, with_feat), random_events(kind), 3
    cutting = {"cumulative": not with_feat, "weight": "normalized"}
    found = cut(kind, **cutting)
    model = model_of(found, feat, **settings).eval()
    with torch.no_grad():
        out = model(found, feat)
        seen = False
        for changed in later_changes(events, t):
            other = cut(kind, changed, **cutting)
            got = model(other, feat)
            close(got[:, :t], out[:, :t])
            seen = seen or (got[:, t:] - out[:, t:]).abs().max() > 1e-3
            close(extended(model, other[:t], feat), extended(model, found[:t], feat))
    assert seen  # of the change itself the rows of its own step know


# With "concat" the temporal layers read the input and with "none" there is no other: no links to see in the future.
LOOK = [(k, s) for k, s in FORMS if s.get("combine") != "concat" and s.get("structural") != "none"]


@pytest.mark.parametrize(("kind", "settings"), LOOK, ids=str)
def test_the_mask_as_printed_is_found_out(kind, settings, monkeypatch):
    """With the paper's mask, upside down, the same check sees the future in every model that has temporal layers."""
    feat, events = feat_of(kind), random_events(kind)
    monkeypatch.setattr(torch.Tensor, "tril", torch.Tensor.triu)
    found = cut(kind)
    model = model_of(found, feat, **settings).eval()
    out = model(found, feat)
    ahead = [(model(cut(kind, changed), feat) - out)[:, :3].abs().max() > 1e-3 for changed in later_changes(events, 3)]
    assert any(ahead) == settings.get("temporal", True)


@every_case
def test_extend_gives_the_columns_of_embed(kind, with_feat, settings):
    found, feat = cut(kind, cumulative=not with_feat, weight="normalized"), feat_of(kind, with_feat)
    model = model_of(found, feat, **settings).eval()
    with torch.no_grad():
        out, got = model(found, feat), extended(model, found, feat)
        if settings.get("temporal_scale") == "sqrt_T":  # T is the number of steps so far
            out = torch.stack([model(found[: t + 1], feat)[:, t] for t in range(T)], 1)
        close(got, out)
        # From a later step on, as on a slice from there.
        if settings.get("temporal_scale") != "sqrt_T":
            close(extended(model, found[2:], feat), model(found[2:], feat))


@every_case
def test_every_parameter_gets_a_finite_gradient(kind, with_feat, settings):
    found, feat = cut(kind, weight="normalized"), feat_of(kind, with_feat)
    rates = dict.fromkeys(STILL, 0.1)
    model = model_of(found, feat, **{**settings, **rates}).train()
    out = model(found, feat)
    out.backward(torch.randn_like(out))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name


@every_form
def test_permuted_nodes_give_permuted_rows(kind, settings):
    found, feat, events = cut(kind, weight="normalized"), feat_of(kind), random_events(kind)
    model = model_of(found, feat, **settings).eval()
    order = {t: torch.randperm(n) for t, n in found.num_nodes.items()}
    place = {t: o.argsort() for t, o in order.items()}
    moved = {}
    for etype, (src, dst, step) in events.items():
        shuffled = torch.randperm(len(src))
        moved[etype] = place[etype[0]][src][shuffled], place[etype[2]][dst][shuffled], step[shuffled]
    got = model(cut(kind, moved, weight="normalized"), {t: x[order[t]] for t, x in feat.items()})
    sizes = list(found.num_nodes.values())
    for permuted, expected, ntype in zip(got.split(sizes), model(found, feat).split(sizes), order, strict=True):
        close(permuted, expected[order[ntype]])


@every_form
def test_state_dict_round_trip(kind, settings):
    found, feat = cut(kind), feat_of(kind)
    model, other = (model_of(found, feat, **settings).eval() for _ in range(2))
    assert not torch.equal(model(found, feat), other(found, feat))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(found, feat), other(found, feat))


@pytest.mark.parametrize("rate", STILL)
@pytest.mark.parametrize(("kind", "settings"), [("plain", {}), ("typed", TYPED[0]), ("typed", TYPED[4])], ids=str)
def test_dropout_acts_in_training_only(kind, settings, rate):
    found, feat = cut(kind), feat_of(kind)
    model = model_of(found, feat, **settings, **{rate: 0.5})
    assert not torch.equal(model(found, feat), model(found, feat))
    model.eval()
    assert torch.equal(model(found, feat), model(found, feat))


@every_form
def test_absent_steps_are_hidden_unless_they_are_to_be_seen(kind, settings):
    found, feat = cut(kind), feat_of(kind)
    absent = ~found.present.t()
    assert absent[-1].all() and absent.any(1).sum() > absent.all(1).sum()  # some never appear, some later
    out = model_of(found, feat, **settings)(found, feat)
    assert out[~absent].any(-1).all()
    if settings.get("mask_absent", True) or not settings.get("temporal", True):
        assert not out[absent].any()
    else:
        assert out[absent].any(-1).all()


@every_form
def test_attention_of_every_temporal_layer(kind, settings):
    found, feat = cut(kind), feat_of(kind)
    model = model_of(found, feat, **settings).eval()
    betas = model.attention(found, feat)
    assert len(betas) == len(model.past)
    for beta, layer in zip(betas, model.past, strict=True):
        assert beta.shape == (found.total_nodes, layer._num_heads, T, T) and not beta.requires_grad
        total = found.present.t().float() if settings.get("mask_absent", True) else torch.ones(found.total_nodes, T)
        close(beta.sum(-1), total.unsqueeze(1).expand(-1, layer._num_heads, -1))
        assert not beta.triu(1).any()


@every_form
def test_one_more_step_reads_that_step_alone(kind, settings, monkeypatch):
    """The operators see no more edges, and the projections no more rows, than one step has."""
    found, feat = cut(kind), feat_of(kind)
    model = model_of(found, feat, **settings).eval()
    edges, rows = [], []
    for name in ("additive_attention", "dot_product_attention"):
        real = getattr(ops, name)

        def spy(graph, *args, _real=real, **options):
            edges.append(graph.num_edges())
            return _real(graph, *args, **options)

        monkeypatch.setattr(ops, name, spy)
    for layer in model.past:
        layer.qkv.register_forward_hook(lambda module, given, out: rows.append(given[0].shape[:2]))
    model(found, feat)
    whole, edges[:], rows[:] = list(edges), [], []
    layers = 0 if settings.get("structural") == "none" else len(settings.get("heads", [4]))
    assert len(whole) == layers  # all snapshots in one call per layer
    state, total = None, 0
    for t in range(T):
        _, state = model.extend(found[t], feat, state)
        assert rows == [(found.total_nodes, 1)] * len(model.past)
        assert len(edges) == layers
        if settings.get("structural") != "han":
            assert edges == [found[t].graph.num_edges()] * layers
        total += sum(edges)
        edges.clear()
        rows.clear()
    assert total == sum(whole)  # every edge once
    assert [cache[0].shape[2] for cache in state] == [T] * len(model.past)


def own_graph(events, t):
    """Snapshot t as a typed graph by itself, and {node type: who has appeared}; inverse and self relations by hand."""
    data, there = {}, {n: set() for n in SIZES}
    for (srctype, name, dsttype), (src, dst, step) in events.items():
        for u, v, s in zip(src.tolist(), dst.tolist(), step.tolist(), strict=True):
            if s <= t:
                there[srctype].add(u)
                there[dsttype].add(v)
        pairs = sorted({(u, v) for u, v, s in zip(src.tolist(), dst.tolist(), step.tolist(), strict=True) if s == t})
        data[srctype, name, dsttype] = [u for u, _ in pairs], [v for _, v in pairs]
        data[dsttype, f"{name}^-1", srctype] = [v for _, v in pairs], [u for u, _ in pairs]
    for ntype, nodes in there.items():
        data[ntype, "self", ntype] = sorted(nodes), sorted(nodes)
    tensors = {e: tuple(torch.tensor(x, dtype=torch.int64) for x in ends) for e, ends in data.items()}
    return dgl.heterograph(tensors, SIZES), there


@pytest.mark.parametrize("heads", [[4], [3, 2]])
def test_rgat_is_rgatconv_on_every_snapshot_by_itself(heads):
    events, feat = random_events("typed"), feat_of("typed")
    found = cut("typed")
    model = model_of(found, feat, structural="rgat", heads=heads, temporal=False)
    out = model(found, feat).split(list(SIZES.values()))
    width = 6
    convs = []
    for inner, count in zip(model.structure.layers, heads, strict=True):
        conv = RGATConv(width, 3, count, inner.etypes)
        conv.load_state_dict(inner.state_dict())
        convs.append(conv)
        width = 3 * count
    for t in range(T):
        graph, _ = own_graph(events, t)
        h = {n: layer(feat[n]) for n, layer in zip(SIZES, model.structure.inputs, strict=True)}
        for conv in convs:
            h = {n: F.elu(x.flatten(1)) for n, x in conv(graph, h).items()}
        for ntype, rows in zip(SIZES, out, strict=True):
            close(rows[:, t], h[ntype])


@pytest.mark.parametrize("heads", [[4], [3, 2]])
def test_han_is_hanconv_on_every_snapshot_by_itself(heads):
    events, feat = random_events("typed"), feat_of("typed")
    found = cut("typed")
    model = model_of(found, feat, structural="han", paths=PATHS, heads=heads, temporal=False)
    with torch.no_grad():
        for inner in model.structure.layers:
            inner.bias.normal_()  # zero at the start
    out = dict(zip(SIZES, model(found, feat).split(list(SIZES.values())), strict=True))
    for t in range(T):
        graph, there = own_graph(events, t)
        present = {n: torch.tensor([v in there[n] for v in range(c)]).float().unsqueeze(1) for n, c in SIZES.items()}
        h = {n: layer(feat[n]) for n, layer in zip(SIZES, model.structure.inputs, strict=True)}
        views, z, width = hgraph.metapaths(graph, PATHS), h["film"], 6
        for inner, count in zip(model.structure.layers, heads, strict=True):
            conv = HANConv(width, 3, count, 2, semantic="per_node")
            conv.load_state_dict(inner.state_dict())
            z, width = conv(views, z), 3 * count
        close(out["film"][:, t], z * present["film"])
        for ntype in ("user", "tag"):
            close(out[ntype][:, t], model.structure.widen(h[ntype]) * present[ntype])


@pytest.mark.parametrize("heads", [[4], [3, 2]])
@pytest.mark.parametrize("structural", ["gat", "dot", "none"])
def test_the_layers_are_those_of_hgat_nn_one_after_the_other(structural, heads):
    found, feat = cut("plain", weight="normalized"), feat_of("plain")
    settings = {"structural": structural, "heads": heads, "temporal_heads": [3, 2], "temporal_scale": "sqrt_T"}
    model = model_of(found, feat, **settings, temporal_residual=True)
    h, width, there = feat["_N"], IN, found.present.unsqueeze(-1)
    for inner, count in zip(model.structure.layers, heads, strict=True):
        if structural == "none":
            h = F.elu(h @ inner.fc.weight.t()) * there
        else:
            layer = SnapshotGATConv(width, 3, count, score=structural)
            layer.load_state_dict(inner.state_dict())
            h, width = layer(found, h), 3 * count
    close(model_of_structure(model, found, feat), h)
    h = h.transpose(0, 1)
    for inner, count in zip(model.past, (3, 2), strict=True):
        layer = TemporalAttention(3 * heads[-1], count, T, scale="sqrt_T", residual=True)
        layer.load_state_dict(inner.state_dict())
        h = layer(h, found.present)
    close(model(found, feat), h)


def model_of_structure(model, found, feat):
    kept, model.past = model.past, torch.nn.ModuleList()
    out, model.past = model(found, feat), kept
    return out.transpose(0, 1)


@pytest.mark.parametrize("mask_absent", [True, False])
@pytest.mark.parametrize("kind", ["plain", "typed"])
def test_side_by_side_is_each_on_the_input(kind, mask_absent):
    """Left what structural attention gives, right the temporal one of the projected input, zeros before it appeared."""
    found, feat = cut(kind), feat_of(kind)
    structural = "gat" if kind == "plain" else "rgat"
    model = model_of(found, feat, structural=structural, combine="concat", mask_absent=mask_absent)
    left, right = model(found, feat).split(12, -1)
    close(left, model_of_structure(model, found, feat).transpose(0, 1))
    if kind == "plain":
        rows = feat["_N"] @ model.structure.layers[0].fc.weight.t()
    else:
        inputs = zip(feat.values(), model.structure.inputs, strict=True)
        rows = torch.cat([x @ layer.weight.t() + layer.bias for x, layer in inputs]) @ model.structure.widen.weight.t()
    rows = rows.unsqueeze(1) * found.present.t().unsqueeze(-1)
    close(right, model.past[0](rows, found.present if mask_absent else None))


@pytest.mark.parametrize("structural", ["gat", "rgat"])
def test_a_time_is_the_number_of_the_step_also_on_a_slice(structural):
    kind = "plain" if structural == "gat" else "typed"
    found, feat = cut(kind), feat_of(kind)
    model = model_of(found, feat, structural=structural, position="time")
    h = model_of_structure(model, found, feat)[2:5].transpose(0, 1)
    time = torch.tensor([2, 3, 4])
    close(model(found[2:5], feat), model.past[0](h, found.present[2:5], time))


def test_uniform_attention_covers_both_levels():
    found, feat = cut("plain"), feat_of("plain")
    model = model_of(found, feat, position="none").eval()
    layer, past = model.structure.layers[0], model.past[0]
    with ops.uniform_attention():
        out = model(found, feat)
    degree = found.graph.in_degrees().clamp_min(1).unsqueeze(1)
    h = (feat["_N"] @ layer.fc.weight.t()).repeat(T, 1)
    h = F.elu(dgl.ops.copy_u_sum(found.graph, h) / degree).view(T, N, -1).transpose(0, 1)
    there = found.present.t().unsqueeze(-1)
    z = (h @ past.qkv.weight[24:].t() * there).cumsum(1) / there.cumsum(1).clamp_min(1)
    close(out, (torch.relu(past.feed_forward(z)) + z) * there)


@pytest.mark.parametrize("heads", [[2], [3, 2]], ids=str)
def test_a_type_that_no_relation_ends_at_gets_what_a_node_without_neighbours_gets(heads):
    graph = from_events({("user", "likes", "film"): (torch.arange(5) % 3, torch.arange(5), torch.arange(5))})
    found = snapshots(graph, windows=2, both_ways=False, self_loops=False)
    settings = {**SMALL, **STILL, "heads": heads, "temporal": False}
    model = DySAT(found, {"user": None, "film": None}, structural="rgat", **settings).eval()
    rows = dict(zip(found.ntypes, model(found).split(list(found.num_nodes.values())), strict=True))
    assert (rows["user"] == 0).all() and rows["user"].shape == (3, 2, heads[-1] * settings["hidden"])
    assert (rows["film"] != 0).any() == (len(heads) == 1)  # two steps away from any user's own row there is nothing


def test_a_step_without_a_pair_along_a_metapath():
    """No tag marks a film in step 2: the model goes on with what there is, in embed and in extend."""
    events, feat = random_events("typed"), feat_of("typed")
    etype = ETYPES[2]
    keep = events[etype][2] != 2
    events[etype] = tuple(x[keep] for x in events[etype])
    found = cut("typed", events)
    model = model_of(found, feat, structural="han", paths=PATHS).eval()
    out = model(found, feat)
    close(extended(model, found, feat), out)
    assert torch.isfinite(out).all()
    close(model(found[2], feat)[:, 0], model.extend(found[2], feat)[0])


def alternating(generator, nodes=24):
    """Four steps A, B, A, B of random pairs: what is linked now was not, and will be again, two steps from now."""
    src, dst, step = [], [], []
    for k in range(2):
        pairs = torch.randperm(nodes, generator=generator).view(2, -1)
        for t in (k, k + 2):
            src.append(pairs[0])
            dst.append(pairs[1])
            step.append(torch.full_like(pairs[0], t))
    events = tuple(torch.cat(x) for x in (src, dst, step))
    found = snapshots(from_events(events, nodes), boundaries=[0, 1, 2, 3, 4], weight="none")
    return found[:3], {t: (src[t // 2 + 2 * (t % 2)], dst[t // 2 + 2 * (t % 2)]) for t in range(4)}


def _auc(model, seed, feat, nodes=24, epochs=120):
    """AUC of the links of the next step by inner product, on pairs that no training has seen."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def logits(found, links):
        out, scores = model(found, feat), []
        for t in (1, 2):  # at step t the links of step t + 1 were those of step t - 1
            src, dst = links[t + 1]
            other = torch.randint(0, nodes, (len(src),), generator=generator)
            e = out[:, t]
            scores.append(torch.stack([(e[src] * e[dst]).sum(-1), (e[src] * e[other]).sum(-1)]))
        return torch.cat(scores, 1)

    for _ in range(epochs):
        link, none = logits(*alternating(generator))
        loss = F.softplus(-link).mean() + F.softplus(none).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        rows = torch.cat([logits(*alternating(generator)) for _ in range(20)], 1)
    return (rows[0].unsqueeze(1) > rows[1].unsqueeze(0)).float().mean().item()


@pytest.mark.slow
def test_what_comes_back_after_two_steps_needs_the_past():
    feat = {"_N": F.normalize(torch.randn(24, 16), dim=1) * 3}
    found, _ = alternating(torch.Generator().manual_seed(0))
    settings = {"heads": [4], "hidden": 8, "temporal_heads": [2], **STILL}
    with_past = _auc(DySAT.for_graph(found, feat, **settings), 1, feat)
    without = _auc(DySAT.for_graph(found, feat, **settings, temporal=False), 1, feat)
    assert with_past > 0.85 and without < 0.6, (with_past, without)


@pytest.mark.parametrize(("kind", "settings", "sentence"), [
    ("plain", {"heads": []}, "model.heads: expected a number of heads per layer, each 1 or more, got []"),
    ("plain", {"heads": [2, 0]}, "model.heads: expected a number of heads per layer, each 1 or more, got [2, 0]"),
    ("plain", {"hidden": 0}, "hidden: expected 1 or more, got 0"),
    ("plain", {"temporal_heads": [5]}, "model.temporal_heads: expected divisors of the width 12, one per layer,"),
    ("plain", {"temporal_heads": [2, 0]}, "model.temporal_heads: expected divisors of the width 12, one per layer"),
    ("plain", {"temporal_heads": []}, "model.temporal_heads: expected divisors of the width 12, one per layer, got []"),
    ("plain", {"structural": "gcn"}, "model.structural: expected one of gat, dot, none, rgat, han, got 'gcn'"),
    ("plain", {"combine": "sum"}, "model.combine: expected one of stack, concat, got 'sum'"),
    ("plain", {"combine": "concat", "heads": [2, 4]}, "model.heads: expected one structural layer with"),
    ("plain", {"position": "sine"}, "position: expected 'learned', 'time' or 'none', got 'sine'"),
    ("plain", {"temporal_scale": "one"}, "scale: expected 'sqrt_d' or 'sqrt_T', got 'one'"),
    ("plain", {"paths": PATHS}, "model.paths: expected meta-paths with structural 'han' and none else, got"),
    ("typed", {"structural": "han"}, "model.paths: expected meta-paths with structural 'han' and none else, got {}"),
    ("typed", {"structural": "rgat", "paths": PATHS}, "model.paths: expected meta-paths with structural 'han'"),
    ("typed", {"structural": "rgat", "embed": 0}, "embed: expected 1 or more, got 0"),
    ("typed", {}, "model.structural: expected 'rgat' or 'han' on typed snapshots, got 'gat'"),
    *(("plain", {rate: -0.1}, f"{rate}: expected a number from 0 to 1, got -0.1") for rate in STILL),
    *(("plain", {rate: 2}, f"{rate}: expected a number from 0 to 1, got 2") for rate in STILL),
])  # fmt: skip
def test_settings_out_of_range_are_one_sentence(kind, settings, sentence):
    with pytest.raises(HgatError, match=re.escape(sentence)) as error:
        model_of(cut(kind), feat_of(kind), **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("paths", "sentence"), [
    ({"a": ["hates", "likes"]}, "meta-path: expected relations of the graph"),
    ({"a": ["likes", "likes"]}, "meta-path: expected a relation that starts at 'film' after"),
    ({"a": ["likes"]}, "meta-path: expected an end at its start 'user'"),
    ({"a": ["likes", "likes^-1"], "b": ["likes^-1", "likes"]}, "meta-paths: expected all of one node type"),
])  # fmt: skip
def test_wrong_metapaths_are_refused_when_the_model_is_built(paths, sentence):
    with pytest.raises(GraphError, match=re.escape(sentence)):
        model_of(cut("typed"), feat_of("typed"), structural="han", paths=paths)


def test_wrong_calls_are_one_sentence():
    found, feat = cut("plain"), feat_of("plain")
    model = model_of(found[:3], feat)
    with pytest.raises(ShapeError, match="snapshot: expected one step, got 5"):
        model.extend(found, feat)
    with pytest.raises(ShapeError, match="x: expected at most 3 steps, as many as positions, got 5"):
        model(found, feat)
    with pytest.raises(ShapeError, match=re.escape("feat: expected [N, F] = [13, 7], got [13, 6]")):
        model(found[:3], {"_N": feat["_N"][:, 1:]})
    with pytest.raises(TypeError, match="unknown"):
        model_of(found, feat, unknown=1)
    with pytest.raises(RecipeError, match="expected 'rgat' or 'han' on typed snapshots"):
        model_of(cut("typed"), feat_of("typed"), structural="none")


def test_features_as_a_dict_or_a_tensor():
    found, feat = cut("plain"), feat_of("plain")
    for settings in PLAIN:
        model = model_of(found, feat, **settings).eval()
        assert torch.equal(model(found, feat), model(found, feat["_N"]))
