"""Attention on a map: ratios to uniform attention by place, and what one node looks at."""

import dgl
import pytest
import torch

from hgat import ops
from hgat.errors import GraphError, HgatError
from hgat.explain import draw_map, looks_at, toward
from hgat.graph.places import Places
from hgat.models import Facts
from hgat.models.rgat import RGAT

matplotlib = pytest.importorskip("matplotlib", reason="missing the package matplotlib")

NAMES = ("east", "far", "west")
PLACE = {"heard": torch.tensor([0, 2, 2, 1, -1, 0, 2]), "node": torch.tensor([2, 0, 2, 2, 1])}
EDGES = {
    ("heard", "new", "node"): ([0, 1, 2, 3, 4, 1, 5], [0, 0, 0, 1, 0, 2, 2]),
    ("heard", "old", "node"): ([6, 5, 0, 1], [0, 1, 3, 3]),
    ("node", "not read", "heard"): ([0], [0]),
}


def places(**changes):
    position = torch.tensor([[-70.0, 40.0], [-157.0, 21.0], [-120.0, 37.0]])
    land = torch.stack([torch.linspace(-120, -70, 9), torch.linspace(30, 45, 9)], 1)
    given = {
        "home": (-74.0, 41.0),
        "stars": ("west", "east"),
        "background": land,
        "value": {"heard": 1},
        "means": "height",
    }
    return Places(NAMES, position, PLACE, **{**given, **changes})


def setting():
    """(an RGAT with weights that tell neighbours apart, its inputs)."""
    graph = dgl.heterograph({e: tuple(map(torch.tensor, ends)) for e, ends in EDGES.items()}, {"heard": 7, "node": 5})
    random = torch.Generator().manual_seed(0)
    feat = {"heard": 3 * torch.randn(7, 4, generator=random), "node": 3 * torch.randn(5, 3, generator=random)}
    shown = Facts(graph, feat, target="node", num_classes=1, numeric=True)
    inputs = RGAT.prepare(shown, inverse=False, self_relation=False)
    torch.manual_seed(1)
    return RGAT.build(shown, inputs, heads=[2], score="multiplicative", readout=True), inputs


def alphas():
    """{(heard, node): alpha summed over parallel edges, heads averaged}, and the in-degrees, edge by edge."""
    model, inputs = setting()
    found, degree = [], [0] * 5
    with torch.no_grad():
        for etype, alpha in model.attention(*inputs)[-1].items():
            if etype[2] == "node":
                for u, v, a in zip(*EDGES[etype], alpha.mean(1).tolist(), strict=True):
                    found.append((u, v, a))
                    degree[v] += 1
    return found, degree


def test_ratios_are_attention_over_uniform_attention_by_place():
    model, inputs = setting()
    found, degree = alphas()
    for star in NAMES:
        ratio, count = toward(model, inputs, places(), star)
        for number in range(3):
            edges = [
                (a, v) for u, v, a in found if PLACE["node"][v] == NAMES.index(star) and PLACE["heard"][u] == number
            ]
            assert int(count[number]) == len(edges)
            if edges:
                expected = sum(a for a, _ in edges) / sum(1 / degree[v] for _, v in edges)
                assert float(ratio[number]) == pytest.approx(expected, rel=1e-5)
            else:
                assert ratio[number].isnan()
    assert (toward(model, inputs, places(), "west")[0] - 1).nan_to_num().abs().max() > 0.05


def test_uniform_attention_is_one_everywhere():
    model, inputs = setting()
    with ops.uniform_attention():
        ratio, count = toward(model, inputs, places(), "west")
    torch.testing.assert_close(ratio[count > 0], torch.ones(int((count > 0).sum()), dtype=torch.float64))


def test_the_neighbours_of_a_node_come_in_order_of_their_attention():
    model, inputs = setting()
    for node in range(5):
        ntypes, sources, alpha = looks_at(model, inputs, node)
        mine = sorted(((a, u) for u, v, a in alphas()[0] if v == node), reverse=True)
        assert alpha.tolist() == pytest.approx([a for a, _ in mine]) and sources.tolist() == [u for _, u in mine]
        assert ntypes == ["heard"] * len(mine)


@pytest.mark.parametrize("changes", [{}, {"background": None, "home": None, "value": {}}, {"stars": NAMES}])
def test_a_map_is_drawn_with_and_without_one_node(tmp_path, changes):
    from matplotlib.figure import Figure

    model, inputs = setting()
    weights, saved, real = {k: v.clone() for k, v in model.state_dict().items()}, [], Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, *a, **o: saved.append(figure) or real(figure, *a, **o))
        draw_map(model, inputs, places(**changes), tmp_path / "map.png", "a title", among=torch.tensor([0, 1, 2, 3, 4]))
        draw_map(model, inputs, places(**changes), tmp_path / "two.png")
    assert (tmp_path / "map.png").stat().st_size > (tmp_path / "two.png").stat().st_size > 10_000
    stars = changes.get("stars", ("west", "east"))
    titles = [axis.get_title() for axis in saved[1].axes if axis.get_title()]
    assert titles == [f"nodes at {star}: {what} attention" for what in ("learned", "uniform") for star in stars]
    below = [axis.get_title() for axis in saved[0].axes if axis.get_title()][len(titles) :]
    assert len(below) == 2 and below[0].startswith(f"one of the nodes at {stars[0]} and the ")
    assert model.training and all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    # A place that is far from the land stands at the border, with its name.
    texts = [text.get_text() for axis in saved[1].axes for text in axis.texts]
    assert "far" in texts or changes.get("background", 0) is None


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"stars": ("north",)}, "places: expected one of east, far, west, got 'north'"),
        (
            {"names": ("a",)},
            "places: expected a finite longitude and latitude of every place, [P, 2], got [3, 2] for 1",
        ),
        ({"of": {"node": torch.tensor([3])}}, "places of node: expected numbers from -1 to 2, got 3 to 3"),
    ],
)
def test_places_that_do_not_fit_are_one_sentence(changes, sentence):
    given = {"names": NAMES, "position": torch.zeros(3, 2), "of": PLACE, **changes}
    with pytest.raises(GraphError) as error:
        Places(**given)
    assert str(error.value).startswith(sentence)


def test_no_star_and_no_node_there_are_one_sentence(tmp_path):
    model, inputs = setting()
    with pytest.raises(HgatError, match="figures: expected places with a star, got none"):
        draw_map(model, inputs, places(stars=()), tmp_path / "p.png")
    with pytest.raises(HgatError, match="figures: expected a node at west among those to draw, got none"):
        draw_map(model, inputs, places(), tmp_path / "p.png", among=torch.tensor([1]))
