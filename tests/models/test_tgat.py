"""TGAT as a whole: against a plain recursion, never ahead of its time, and a task that needs the recent events."""

import io
import re

import pytest
import torch
import torch.nn.functional as F

from hgat import models
from hgat.errors import HgatError
from hgat.graph.events import from_events
from hgat.graph.recent import RecentNeighbours, recent_neighbours
from hgat.models import Batch, Facts
from hgat.models.tgat import TGAT

NODES, EVENTS, IN, EDGE = 13, 97, 7, 3
SMALL = {"hidden": 6, "time_feats": 4, "neighbours": 3, "sample": "recent"}
STILL = {"attn_drop": 0.0, "out_drop": 0.0}
FORMS = [
    {},
    {"sample": "uniform"},
    {"node_input": "learned", "layers": 1},
    {"node_input": "feat", "heads": 3, "norm": False},
    {"node_input": "feat", "time_encoding": "sincos", "time_unit": 60.0, "layers": 3},
]


def events():
    """(src, dst, time, feat) with equal times; node 12 has no event."""
    src, dst = torch.randint(0, NODES - 1, (2, EVENTS))
    return src, dst, torch.randint(0, 50, (EVENTS,)).sort().values, torch.randn(EVENTS, EDGE)


def stage(columns=None, **settings):
    """(model, what it is called with after the nodes and times)."""
    graph = from_events(columns or events(), num_nodes=NODES)
    recent, feat, edge_feat = recent_neighbours(graph), torch.randn(NODES, IN), graph.edata["feat"]
    return TGAT.for_graph(recent, feat, edge_feat=edge_feat, **{**SMALL, **settings}).eval(), recent, feat, edge_feat


def queries():
    return torch.arange(NODES).repeat(3), torch.tensor([20, 33, 60]).repeat_interleave(NODES)


def test_found_by_name_with_what_it_solves():
    assert models.find("tgat") is TGAT is models.TGAT and TGAT.solves == ("stream_links",)


@pytest.mark.parametrize("both_ways", [True, False])
def test_prepares_the_events_by_node(both_ways):
    src, dst, time, _ = events()
    graph = from_events((src, dst, time), num_nodes=NODES)
    (recent,) = TGAT.prepare(Facts(graph, {"_N": None}), both_ways=both_ways)
    expected = recent_neighbours(graph, both_ways)
    for name in ("indptr", "neighbour", "time", "edge"):
        assert torch.equal(getattr(recent, name), getattr(expected, name)), name
    with pytest.raises(HgatError, match="graph: expected at least one event, got none"):
        TGAT.prepare(Facts(from_events((src[:0], dst[:0], time[:0]), num_nodes=NODES), {"_N": None}))


@pytest.mark.parametrize("settings", [f for f in FORMS if f.get("sample") != "uniform"], ids=str)
def test_equals_a_plain_recursion(settings):
    model, recent, feat, edge_feat = stage(**settings)

    def h(depth, node, t):
        if depth == 0:
            if model.node_input == "learned":
                return model.node.weight[node]
            return feat[node] if model.node_input == "feat" else torch.zeros(6)
        neighbour, time, edge, mask = (x[0] for x in recent.before([node], [t], 3))
        own = h(depth - 1, node, t)
        there = list(zip(neighbour.tolist(), time.tolist(), mask.tolist(), strict=True))
        found = torch.stack([h(depth - 1, n, s) if m else torch.zeros_like(own) for n, s, m in there])
        elapsed = (t - time) / settings.get("time_unit", 1.0)
        return model.layers[depth - 1](own[None], found[None], elapsed[None], mask[None], edge_feat[edge][None])[0]

    nodes, times = queries()
    with torch.no_grad():
        expected = torch.stack([h(len(model.layers), *q) for q in zip(nodes.tolist(), times.tolist(), strict=True)])
        out = model.embed(recent, nodes, times, feat, edge_feat)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_settings_reach_the_layers():
    model, recent, *rest = stage(norm=False, heads=3, time_encoding="sincos", sample="uniform", neighbours=1)
    assert [layer.norm for layer in model.layers] == [None] * 2
    assert {layer.time.form for layer in model.layers} == {"sincos"}
    drawn = {tuple(model.attention(recent, *queries(), *rest)[3].flatten().tolist()) for _ in range(3)}
    assert len(drawn) == 3 and model.attention(recent, *queries(), *rest)[0].shape[1] == 3


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_link_is_scored_from_both_ends_at_its_time(settings):
    model, *rest = stage(**settings)
    (src, times), dst = queries(), torch.randint(0, NODES, (3 * NODES,))
    torch.manual_seed(5)
    out = model(rest[0], src, dst, times, *rest[1:])
    torch.manual_seed(5)
    z = model.embed(rest[0], torch.cat([src, dst]), torch.cat([times, times]), *rest[1:])
    hidden = torch.relu(torch.cat(z.chunk(2), 1) @ model.link[0].weight.T + model.link[0].bias)
    torch.testing.assert_close(out, (hidden @ model.link[2].weight.T + model.link[2].bias)[:, 0])
    assert out.shape == (3 * NODES,) and torch.isfinite(out).all()
    assert model(rest[0], [], [], [], *rest[1:]).shape == (0,)


def test_pairs_asked_for_twice_are_computed_once():
    model, *rest = stage()
    rows = []
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda _, tensors: rows.append(len(tensors[0])))
    nodes, times = queries()
    once = model.embed(rest[0], nodes, times, *rest[1:])
    alone = list(rows)
    twice = model.embed(rest[0], nodes.repeat(2), times.repeat(2), *rest[1:])
    assert rows == alone * 2 and torch.equal(twice, once.repeat(2, 1))


@pytest.mark.parametrize("settings", FORMS, ids=str)
@pytest.mark.parametrize("by", [pytest.param(0, id="strictly before"), pytest.param(1, id="at the time, too")])
def test_never_looks_ahead(settings, by, monkeypatch):
    """Events from t on are deleted, moved or given other features: no bit changes. A sampler with <= is found out."""
    before = RecentNeighbours.before
    monkeypatch.setattr(RecentNeighbours, "before", lambda self, n, t, *rest: before(self, n, t + by, *rest))
    src, dst, time, edge_feat = events()
    t = int(time[EVENTS // 2])
    late = time >= t
    assert (time == t).any() and (time > t).any()
    model, recent, feat, _ = stage((src, dst, time, edge_feat), **settings)
    nodes, times = torch.arange(NODES), torch.full((NODES,), t)
    results = []
    for columns in [
        (src, dst, time, edge_feat),
        (src[~late], dst[~late], time[~late], edge_feat[~late]),
        (src, torch.where(late, (dst + 1) % 12, dst), time, edge_feat),
        (src, dst, time, torch.where(late[:, None], -edge_feat, edge_feat)),
    ]:
        graph = from_events(columns, num_nodes=NODES)
        torch.manual_seed(5)
        results.append(model.embed(recent_neighbours(graph), nodes, times, feat, graph.edata["feat"]))
    assert [torch.equal(results[0], other) for other in results[1:]] == [by == 0] * 3


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_shift_of_all_times_changes_no_bit(settings):
    src, dst, time, edge_feat = events()
    model, recent, feat, _ = stage((src, dst, time, edge_feat), **settings)
    nodes, times = queries()
    results = []
    for shift in (0, 2**60 + 1, -(2**40)):
        shifted = recent_neighbours(from_events((src, dst, time + shift), num_nodes=NODES))
        torch.manual_seed(5)
        results.append(model.embed(shifted, nodes, times + shift, feat, edge_feat))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_fractions_of_a_second_count_even_late():
    """float64 seconds since 1970: in float32 they would be equal for two minutes."""
    now = 1.7e9
    graph = from_events(([0, 0], [1, 2], [now, now + 0.25]))
    model = TGAT.for_graph(recent_neighbours(graph), **SMALL).eval()
    at = [model.embed(recent_neighbours(graph), [0], [now + later])[0] for later in (0.2, 0.3, 0.7)]
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(at, at[1:], strict=False))


def test_time_unit_scales_elapsed_time():
    src, dst, time, edge_feat = events()
    model, recent, *rest = stage((src, dst, time, edge_feat))
    other = TGAT.for_graph(recent, rest[0], edge_feat=rest[1], **SMALL, time_unit=64.0).eval()
    other.load_state_dict(model.state_dict())
    slow = recent_neighbours(from_events((src, dst, time * 64), num_nodes=NODES))
    nodes, times = queries()
    assert torch.equal(other.embed(slow, nodes, times * 64, *rest), model.embed(recent, nodes, times, *rest))
    assert not torch.equal(other.embed(recent, nodes, times, *rest), model.embed(recent, nodes, times, *rest))


@pytest.mark.parametrize("settings", [f for f in FORMS if f.get("node_input") == "feat"] + [{}], ids=str)
def test_other_numbers_of_the_nodes_give_the_same_rows(settings):
    src, dst, time, edge_feat = events()
    model, recent, feat, _ = stage((src, dst, time, edge_feat), **settings)
    order = torch.randperm(NODES)
    place = torch.argsort(order)
    moved = recent_neighbours(from_events((place[src], place[dst], time), num_nodes=NODES))
    nodes, times = queries()
    expected = model.embed(recent, nodes, times, feat, edge_feat)
    got = model.embed(moved, place[nodes], times, feat[order], edge_feat)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_typed_graph():
    """Users and films in one line: the model sees a homogeneous graph with the same numbers."""
    src, dst, time = torch.randint(0, 5, (40,)), torch.randint(0, 7, (40,)), torch.arange(40)
    typed = recent_neighbours(from_events({("user", "rates", "film"): (src, dst, time)}))
    plain = recent_neighbours(from_events((src + typed.start["user"], dst + typed.start["film"], time)))
    model = TGAT.for_graph(typed, node_input="learned", **SMALL).eval()
    links = src + typed.start["user"], dst + typed.start["film"], time
    assert torch.equal(model(typed, *links), model(plain, *links))


def test_attention_names_what_it_stands_on():
    model, *rest = stage(heads=2)
    nodes, times = queries()
    alpha, neighbour, time, edge, mask = model.attention(rest[0], nodes, times, *rest[1:])
    for got, expected in zip((neighbour, time, edge, mask), rest[0].before(nodes, times, 3), strict=True):
        assert torch.equal(got, expected)
    assert alpha.shape == (3 * NODES, 2, 3) and not alpha[~mask.unsqueeze(1).expand_as(alpha)].any()
    torch.testing.assert_close(alpha.sum(-1), mask.any(1, keepdim=True).float().expand(-1, 2))


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_every_parameter_gets_a_finite_gradient(settings):
    model, recent, *rest = stage(**settings)
    nodes, times = queries()
    out = model.train()(recent, nodes, nodes.flip(0), times, *rest)
    out.backward(torch.randn_like(out))
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), name


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_state_dict_round_trip(settings):
    model, recent, *rest = stage(**settings)
    other = TGAT.for_graph(recent, rest[0], edge_feat=rest[1], **{**SMALL, **settings}).eval()
    nodes, times = queries()

    def run(which):
        torch.manual_seed(5)
        return which.embed(recent, nodes, times, *rest)

    assert not torch.equal(run(other), run(model))
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer))
    assert torch.equal(run(other), run(model))


@pytest.mark.parametrize("rate", STILL)
def test_dropout_acts_in_training_only(rate):
    model, *rest = stage(**{**STILL, rate: 0.5})
    call = rest[0], *queries(), *rest[1:]
    assert not torch.equal(model.train().embed(*call), model.embed(*call))
    assert torch.equal(model.eval().embed(*call), model.embed(*call))


@pytest.mark.parametrize("node_input", ["learned", "feat"])
def test_learns_that_recent_partners_meet_again(node_input):
    """A user meets its last film again, now and then another, which is then its last; tested on later events."""
    users, films, count, early = 8, 16, 3000, 2500
    generator = torch.Generator().manual_seed(3)
    src = torch.randint(0, users, (count,), generator=generator)
    other = torch.randint(0, films, (count,), generator=generator)
    change = torch.rand(count, generator=generator) < 0.15
    last, dst = dict(enumerate(range(users))), []
    for user, film, new in zip(src.tolist(), other.tolist(), change.tolist(), strict=True):
        last[user] = film if new else last[user]
        dst.append(users + last[user])
    dst = torch.tensor(dst)
    time = torch.arange(count)
    recent = recent_neighbours(from_events((src, dst, time)))
    empty = recent_neighbours(from_events((src[:0], dst[:0], time[:0]), num_nodes=users + films))
    feat = torch.eye(users + films)
    settings = {"hidden": 32, "layers": 1, "neighbours": 3, "sample": "recent", "time_feats": 8}
    model = TGAT(users + films, users + films, node_input=node_input, **settings, **STILL)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def links(rows):
        """Logits of the links that are and, behind them, of as many that lead to any other film."""
        wrong = users + (dst[rows] - users + torch.randint(1, films, dst[rows].shape, generator=generator)) % films
        return src[rows].repeat(2), torch.cat([dst[rows], wrong]), time[rows].repeat(2)

    for _ in range(120):
        rows = torch.randperm(early, generator=generator)[:400]
        logits = model(recent, *links(rows), feat)
        loss = F.binary_cross_entropy_with_logits(logits, (torch.arange(800) < 400).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def ranked(structure):
        """Share of pairs of a true and a false link in which the true one has the higher logit."""
        true, false = model(structure, *links(torch.arange(early, count)), feat).detach().chunk(2)
        return (true > false).double().mean().item()

    # 15 in 100 meet a film that nothing foretells.
    assert ranked(recent) > 0.85 and ranked(empty) < 0.65


def test_wrong_calls_are_one_sentence():
    model, recent, feat, edge_feat = stage(node_input="feat")
    call = [0], [9], feat, edge_feat
    for wrong, sentence in [
        (lambda: model.embed(recent, *call[:2]), "feat: expected [N, F], got none"),
        (lambda: model.embed(recent, *call[:2], feat[:, 1:]), "feat: expected [N, F] = [13, 7], got [13, 6]"),
        (lambda: model.embed(recent, *call[:3]), "edge_feat: expected [E, Fe], got none"),
        (
            lambda: model.embed(recent, *call[:3], edge_feat[:, 1:]),
            "edge_feat: expected [E, Fe] = [97, 3], got [97, 2]",
        ),
        (
            lambda: model.embed(recent, *call[:3], edge_feat[1:]),
            "edge_feat: expected [E, Fe] = [97, 3], got [96, 3]",
        ),
        (lambda: model.embed(recent, [13], *call[1:]), "nodes: expected numbers from 0 to 12, got 13"),
        (lambda: model(recent, [0], [1, 2], *call[1:]), "times: expected one for each of 2 nodes, got [1]"),
        (lambda: model(feat, [0], [1], [9]), "recent: expected what hgat.graph.recent gives, got Tensor"),
        (lambda: model.embed(feat, *call), "recent: expected what hgat.graph.recent gives, got Tensor"),
        (lambda: TGAT(7)(recent, [0], [1], [9]), "recent: expected 7 nodes, got 13"),
        (
            lambda: TGAT(13)(recent, [0], [1], [9], None, edge_feat),
            "edge_feat: expected [E, Fe] = [97, 0], got [97, 3]",
        ),
        (lambda: TGAT(7, node_input="feat"), "model.node_input: expected features of the nodes for 'feat', got none"),
        (lambda: TGAT(7, node_input="one"), "model.node_input: expected 'zeros', 'learned' or 'feat', got 'one'"),
        (lambda: TGAT(7, sample="last"), "model.sample: expected 'recent' or 'uniform', got 'last'"),
        (lambda: TGAT(7, time_unit=0.0), "model.time_unit: expected a number above 0, got 0.0"),
        (lambda: TGAT(7, layers=0), "layers: expected 1 or more, got 0"),
        (lambda: TGAT(7, hidden=0), "hidden: expected 1 or more, got 0"),
        (lambda: TGAT(7, attn_drop=1.5), "attn_drop: expected a number from 0 to 1, got 1.5"),
    ]:
        with pytest.raises(HgatError, match=re.escape(sentence)):
            wrong()


def test_features_of_the_data_reach_the_model_behind_the_query():
    """node_input = "feat" of a recipe reads what the task shows, of all node types in one line."""
    torch.manual_seed(0)
    events = from_events({("a", "meets", "b"): ([0, 1, 2, 0], [0, 1, 0, 1], [1, 2, 3, 4])}, {"a": 3, "b": 2})
    feat = {"a": torch.randn(3, 5), "b": torch.randn(2, 5)}
    inputs = TGAT.prepare(Facts(events, feat))
    assert torch.equal(inputs[1], torch.cat([feat["a"], feat["b"]]))
    model = TGAT.build(Facts(events, feat), inputs, node_input="feat", hidden=4, heads=1, time_feats=3).eval()
    query = torch.tensor([0, 2]), torch.tensor([3, 4]), torch.tensor([5, 5])
    got = model.answer(inputs, Batch(query=query))
    assert torch.equal(got, model(inputs[0], *query, feat=inputs[1]))
    assert len(TGAT.prepare(Facts(events, {"a": feat["a"], "b": None}))) == 1
