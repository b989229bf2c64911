"""Pictures of attention and the page, which a real Chromium opens."""

import dataclasses
import itertools
import os
import shutil

import networkx as nx
import pytest
import torch

from hgat.errors import GraphError, HgatError
from hgat.explain import EdgeAttention, draw_heads, draw_neighbourhood, draw_over_time, draw_spread, page, write_page
from hgat.explain.pictures import COLOURS, first_relations, neighbourhood, palette, short

pytest.importorskip("matplotlib")
RELATIONS = (("_N", "likes", "_N"), ("_N", "</script><b>hates", "_N"))


def records(nodes=120, edges=1500, heads=3, step=None):
    generator = torch.Generator().manual_seed(0)
    src, dst = torch.randint(0, nodes, (2, edges), generator=generator)
    src[:60], dst[:60] = torch.arange(60) + 1, 0  # a hub
    dst = torch.where(dst == nodes - 1, 0, dst)  # and one that nothing enters
    relation = torch.arange(edges) % 2
    found = []
    for layer in ("layers.0", "layers.1"):
        weight = torch.rand(edges, heads, generator=generator) ** 3
        weight = weight / torch.zeros(nodes, heads).index_add(0, dst, weight)[dst]
        found.append(EdgeAttention(layer, RELATIONS, relation, src, dst, weight, dst, "softmax", step))
    return found


def test_a_neighbourhood_has_the_most_attended_and_forty_names_at_most():
    graph, left_out = neighbourhood(records(), 0)
    last = records()[-1]
    own = last.only(last.dst == 0)
    assert len(graph) <= 40 and nx.number_weakly_connected_components(graph) == 1
    near = {n for (_, n), hop in graph.nodes(data="hop") if hop == 1}
    assert len(near | {0}) + left_out == len(set(own.src.tolist()) | {0})
    order = own.src[own.weight.mean(1).argsort(descending=True)]
    first = list(dict.fromkeys(n for n in order.tolist() if n))[: len(near)]
    assert near == set(first)
    for (kind, number), _, data in graph.in_edges(("_N", 0), data=True):
        weights = own.weight.mean(1)[own.src == number]
        assert kind == "_N" and any(abs(data["weight"] - w) < 1e-6 for w in weights)
    assert {hop for _, hop in graph.nodes(data="hop")} == {0, 1, 2}
    assert all(dst == ("_N", 0) or graph.nodes[src]["hop"] == 2 for src, dst in graph.edges())  # a tree can be read
    with pytest.raises(GraphError, match="expected a node with in-edges in layers.1, got node 119 with none"):
        neighbourhood(records(), 119)


def into_first(sources, weight, group=None, relation=None, relations=RELATIONS):
    """A layer in which nodes 1, 2, ... look at node 0's place: edges from each of `sources` into 0."""
    src, dst = torch.tensor(sources), torch.zeros(len(sources), dtype=torch.int64)
    group = dst if group is None else torch.tensor(group)
    relation = dst if relation is None else torch.tensor(relation)
    return EdgeAttention("one", relations, relation, src, dst, torch.tensor(weight).unsqueeze(1), group, "softmax")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn."""
    figures = []
    monkeypatch.setattr("hgat.explain.pictures.save", lambda figure, path: figures.append(figure))
    return figures


@pytest.mark.parametrize("sources", [[0, 1], [1, 2]], ids=["one", "in a row"])
def test_all_nodes_lie_inside_a_square(sources, drawn):
    draw_neighbourhood([into_first(sources, [0.5, 0.5])], 0, "a.png")
    drawn[0].draw_without_rendering()
    (axis,) = drawn[0].axes
    assert axis.bbox.width == pytest.approx(axis.bbox.height) and axis.bbox.width > 400
    markers = [part for part in axis.collections if len(part.get_offsets())]
    assert sum(len(part.get_offsets()) for part in markers) == len({0, *sources})
    for part in (*markers, *axis.patches):
        assert not part.get_clip_on()
        inside = part.get_window_extent()
        assert axis.bbox.x0 < inside.x0 and inside.x1 < axis.bbox.x1
        assert axis.bbox.y0 < inside.y0 and inside.y1 < axis.bbox.y1


def test_what_goes_to_the_node_itself_is_no_sum_of_softmaxes(drawn):
    draw_neighbourhood([into_first([0, 1, 0, 2], [0.6, 0.4, 0.9, 0.1], [0, 0, 1, 1], [0, 0, 1, 1])], 0, "a.png")
    draw_neighbourhood([into_first([0, 1], [8.4e-20, 1.0])], 0, "a.png")
    titles = [figure.axes[0].get_title() for figure in drawn]
    assert titles == ["to itself: 0.75, a mean over 2 edges", "to itself: 0"]


def test_an_edge_of_the_layer_before_that_is_alone_comes_last():
    last = dataclasses.replace(into_first([1, 2], [0.5, 0.5]), layer="two")
    src = torch.tensor([3, *range(4, 10)])
    dst = torch.tensor([1] + [2] * 6)
    weight = torch.tensor([[1.0], *[[1 / 6]] * 6])
    before = EdgeAttention("one", RELATIONS, torch.zeros_like(dst), src, dst, weight, dst, "softmax")
    graph, _ = neighbourhood([before, last], 0, most=6)
    assert {n for _, n in graph} == {0, 1, 2, 4, 5, 6}


def test_what_is_counted_is_named(drawn):
    draw_spread([into_first([0, 1], [0.5, 0.5]), into_first([0, 1, 2], [0.5, 0.5, 1.0], [0, 0, 1])], "a.png")
    assert [axis.get_xlabel() for axis in drawn[0].axes] == ["in-edges of a node", "edges of a softmax"]


def test_heads_apart_are_percent_on_the_scale_too(drawn):
    weight = torch.rand(4, 12, generator=torch.Generator().manual_seed(0))
    draw_heads([dataclasses.replace(into_first([0, 1, 2, 3], [0.0] * 4), weight=weight / weight.sum(0))], "a.png")
    axis, bar = drawn[0].axes
    assert axis.images[0].get_clim()[1] > 10 and bar.get_ylabel() == "mean total variation in percent"
    assert axis.get_title() == "one" and not axis.texts  # twelve heads: no cell is labelled


def test_a_relation_has_one_colour_in_the_picture_and_on_the_page(drawn):
    relations = tuple(("_N", name, "_N") for name in "abc")
    one = into_first([1, 2, 3], [0.1, 0.2, 0.7], relation=[0, 1, 2], relations=relations)
    many = dataclasses.replace(one, dst=torch.ones_like(one.dst), group=torch.ones_like(one.dst), relation=1 - one.dst)
    both = {name: torch.cat([getattr(one, name), getattr(many, name)]) for name in ("src", "dst", "weight", "group")}
    both = dataclasses.replace(one, relation=torch.cat([one.relation, many.relation]), **both)
    draw_neighbourhood([both], 0, "a.png")
    shown = {line.get_label(): line.get_color() for line in drawn[0].legends[0].get_lines()}
    first = first_relations(neighbourhood([both], 0)[0], ("_N", 0))
    legend = dict(page._rows([both], [0, 1], "_N", None, first)[3])
    assert first == ["c", "b", "a"] and legend == {name: shown[name] for name in "abc"}
    assert dict(page._rows([both], [0, 1], "_N", None, ())[3]) != legend


def test_of_snapshots_the_last_with_a_choice_is_drawn():
    step = torch.arange(1500) % 7
    last, earlier = records(step=step)[-1], 0
    for node in range(1, 12):
        here = last.dst == node
        count = torch.bincount(step[here], minlength=7)
        chosen = int((count > 1).nonzero().max())
        earlier += bool((count[chosen + 1 :] == 1).any())
        graph, _ = neighbourhood([last], node)
        assert {n for _, n in graph} - {node} == set(last.src[here & (step == chosen)].tolist()) - {node}
    assert earlier  # nodes whose last step has one in-edge alone


def test_colours_are_okabe_and_itos_and_differ_in_brightness_or_hue():
    assert len(set(COLOURS)) == 7
    assert list(palette("abcdefghi").values()) == [*COLOURS, *[palette("abcdefghi")["i"]] * 2]

    def seen(colour):  # as without red cones: the projection of Vienot et al. 1999, in linear light
        red, green, blue = ((int(colour[k : k + 2], 16) / 255) ** 2.2 for k in (1, 3, 5))
        mixed = 0.11238 * red + 0.88762 * green
        return mixed ** (1 / 2.2), (0.00401 * red - 0.00401 * green + blue) ** (1 / 2.2)

    for one, other in itertools.combinations([*COLOURS, palette("abcdefgh")["h"]], 2):
        assert sum(abs(a - b) for a, b in zip(seen(one), seen(other), strict=True)) > 0.1, (one, other)
    assert short("x" * 30) == "x" * 23 + "…"


@pytest.mark.parametrize(
    "draw", [draw_neighbourhood, draw_spread, draw_heads, draw_over_time], ids=lambda f: f.__name__
)
def test_pictures_are_written(draw, tmp_path):
    given = records(step=torch.arange(1500) % 7 if draw is draw_over_time else None)
    more = (0,) if draw is draw_neighbourhood else ()
    draw(given, *more, tmp_path / "a.png", "A title")
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 3000
    with pytest.raises(HgatError, match="figures: expected"):
        draw([], *more, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_same_picture_is_the_same_file(tmp_path):
    for name in ("a.svg", "b.svg"):
        draw_heads(records(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<?xml")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def chromium():
    for name in (os.environ.get("HGAT_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("missing a Chromium: Debian's `chromium`, Google Chrome, or its path in HGAT_CHROMIUM")


WHERE = """() => {
    const model = Bokeh.documents[0].get_model_by_name("plot")
    const view = Bokeh.index.find_one(model), box = view.el.getBoundingClientRect()
    const edges = model.renderers[0].data_source.data
    const at = (x, y) => [box.x + view.frame.x_scale.compute(x), box.y + view.frame.y_scale.compute(y)]
    return {lines: edges.xs.map((xs, k) => at((xs[0] + xs[1]) / 2, (edges.ys[k][0] + edges.ys[k][1]) / 2)),
            ends: edges.xs.map((xs, k) => at(xs[0], edges.ys[k][0])),
            names: edges.name, told: edges.told, relation: edges.relation, width: edges.width}
}"""


def test_a_page_in_which_a_node_is_picked_and_an_edge_hovered(tmp_path):
    pytest.importorskip("bokeh")
    sync = pytest.importorskip("playwright.sync_api")
    path, given = tmp_path / "page.html", records()
    names = {"_N": [f"name {k}" for k in range(120)]}
    assert write_page(given, [0, 7, *range(120)], path, "A <b>title", ids=names) == 119
    assert path.stat().st_size < 2.5e6
    options = {"args": ["--no-sandbox"]} if os.geteuid() == 0 else {}
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), **options)
        tab = browser.new_context(offline=True, viewport={"width": 1200, "height": 950}).new_page()
        wrong, asked = [], []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_function(
            "() => Bokeh.documents[0].get_model_by_name('plot').renderers[0].data_source.data.xs.length"
        )
        assert tab.inner_text("h2") == "A <b>title"
        # The first node is there; another is picked.
        tab.select_option("select", "name 7")
        last = given[-1].only(given[-1].dst == 7)
        found = tab.evaluate(WHERE)
        weights = last.weight.mean(1).sort(descending=True)
        assert found["names"] == [f"name {k}" for k in last.src[weights.indices].tolist()]
        assert found["told"] == [f"{w:.4f}" for w in weights.values.tolist()]
        assert found["width"] == sorted(found["width"], reverse=True) and found["width"][0] == 10
        # An edge is hovered: who, over what, how much, head by head.
        tab.mouse.move(*found["lines"][1])
        tab.wait_for_selector(".bk-tooltip-content:visible")
        said = tab.inner_text(".bk-tooltip-content")
        assert found["names"][1] in said and found["told"][1] in said and "name 7" in said
        assert found["relation"][1] in said  # a name is text, whatever it holds
        own = ", ".join(f"{w:.3f}" for w in last.weight[weights.indices[1]].tolist())
        assert own in said
        # The layer below has other weights, and a click on a neighbour goes there.
        tab.click("text=layers.0")
        below = given[0].only(given[0].dst == 7)
        assert tab.evaluate(WHERE)["told"][0] == f"{below.weight.mean(1).max():.4f}"
        place = tab.evaluate(WHERE)
        tab.mouse.click(*place["ends"][0])
        tab.wait_for_function(
            f"() => document.title && Bokeh.documents[0].get_model_by_name('node').value == '{place['names'][0]}'"
        )
        # The first one has more neighbours than can be read.
        tab.select_option("select", "name 0")
        assert len(tab.evaluate(WHERE)["names"]) == page.MOST_NEIGHBOURS
        tab.wait_for_selector(r"text=/\d+ less attended neighbours are left out/")
        browser.close()
    assert wrong == [] and [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_page_without_in_edges_or_records_is_refused(tmp_path):
    pytest.importorskip("bokeh")
    with pytest.raises(GraphError, match="node: expected one with in-edges in layers.1, got none"):
        write_page(records(), [119], tmp_path / "a.html")
    with pytest.raises(HgatError, match="expected attention over edges for a page, got none"):
        write_page([], [0], tmp_path / "a.html")
