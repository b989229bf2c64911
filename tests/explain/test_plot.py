import errno
import os
import stat
import struct
import sys

import pytest
import torch

from hgat import files
from hgat.errors import HgatError, OutputError
from hgat.explain import Past, Shares, draw, draw_past, draw_shares, plot
from hgat.graph import from_events, metapaths, snapshots
from hgat.graph.recent import recent_neighbours
from hgat.models import find
from zoo import homogeneous, typed_graph

matplotlib = pytest.importorskip("matplotlib", reason="missing the package matplotlib")


def entry(count=3, title="attention of film nodes, layer 1"):
    total = count * (count + 1) / 2
    names = tuple(f"relation {k}" for k in range(count))
    return Shares(title, names, tuple((k + 1) / total for k in range(count)), (1 / count,) * count)


def size(path):
    """(width, height) of a PNG file, whose parts are all there."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[12:16] == b"IHDR" and content[-8:-4] == b"IEND"
    return struct.unpack(">II", content[16:24])


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    from matplotlib.figure import Figure

    figures, real = [], Figure.savefig

    def savefig(figure, *arguments, **options):
        figures.append(figure)
        return real(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def test_the_picture_grows_with_its_panels(tmp_path):
    sizes = []
    for panels in (1, 2, 3, 5):
        draw_shares([entry()] * panels, tmp_path / "p.png", "a title")
        sizes.append(size(tmp_path / "p.png"))
    (one, two, three, five) = sizes
    assert two[0] > one[0] and two[1] == one[1], "two side by side"
    assert three[0] == two[0] and three[1] > two[1], "then below"
    assert five[0] == three[0] and five[1] > three[1]
    draw_shares([entry(9)], tmp_path / "p.png")
    assert size(tmp_path / "p.png")[1] > one[1], "and with its bars"
    assert os.listdir(tmp_path) == ["p.png"]


def test_the_bars_are_the_shares(tmp_path, drawn):
    found = [entry(3, "one"), entry(2, "other")]
    draw_shares(found, str(tmp_path / "p.png"), "RGAT on AIFB")
    (figure,) = drawn
    assert figure.get_suptitle() == "RGAT on AIFB"
    for axis, shares in zip(figure.axes, found, strict=True):
        assert axis.get_title() == shares.title
        # What gets the most above uniform attention stands first.
        assert [label.get_text() for label in axis.get_yticklabels()] == list(shares.names)[::-1]
        even, learned = ([bar.get_width() for bar in bars] for bars in axis.containers)
        assert learned == pytest.approx(shares.attention[::-1]) and even == pytest.approx(shares.uniform)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "learned",
        "if all edges counted alike",
    ]


def test_an_odd_panel_leaves_no_empty_axis(tmp_path, drawn):
    draw_shares([entry()] * 3, tmp_path / "p.png")
    assert [axis.get_visible() for axis in drawn[0].axes] == [True, True, True, False]


def test_inverse_relations_are_called_so_and_hops_keep_their_order(tmp_path, drawn):
    names = ("likes^-1", "likes^-1 (film)", "self")
    draw_shares([Shares("layer 1", names, (0.2, 0.5, 0.3), (0.3, 0.3, 0.4))], tmp_path / "p.png")
    shown = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert shown == ["inverse of likes (film)", "inverse of likes", "self"]
    hops = Shares("hops", ("hop 0", "hop 1", "hop 2"), (0.2, 0.5, 0.3), (1 / 3,) * 3, ordered=True)
    draw_shares([hops], tmp_path / "p.png")
    assert [label.get_text() for label in drawn[1].axes[0].get_yticklabels()] == list(hops.names)


def test_many_names_show_those_that_differ_most(tmp_path, drawn):
    count = plot.MOST_BARS + 7
    uniform = (1 / count,) * count
    # The differences grow from both ends to the middle: 7 names at the ends are left out.
    change = [min(k, count - 1 - k) for k in range(count)]
    attention = tuple(
        u + (0.001 * c if k % 2 else -0.001 * c) for k, (u, c) in enumerate(zip(uniform, change, strict=True))
    )
    names = tuple(f"relation {k}" for k in range(count))
    draw_shares([Shares("attention of entities, layer 1", names, attention, uniform)], tmp_path / "p.png")
    (axis,) = drawn[0].axes
    assert axis.get_title() == "attention of entities, layer 1\n(7 smaller differences left out)"
    title, whole = axis.title.get_window_extent(), drawn[0].bbox
    assert whole.x0 <= title.x0 and title.x1 <= whole.x1  # no letter is cut
    shown = [int(label.get_text().split()[1]) for label in axis.get_yticklabels()]
    gains = [attention[k] - uniform[k] for k in shown]
    assert len(shown) == plot.MOST_BARS and gains == sorted(gains, reverse=True)
    assert min(change[k] for k in shown) >= max(change[k] for k in range(count) if k not in shown)


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(HgatError) as error:
        draw_shares([entry()], tmp_path / "p.png")
    assert str(error.value) == 'figures: expected matplotlib, got none; pip install "hgat[plot]"'
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for path in (
        tmp_path / "none" / "p.png",
        tmp_path / "file" / "p.png",
        tmp_path / "folder.png",
        "/proc/p.png",
    ):
        with pytest.raises(OutputError) as error:
            draw_shares([entry()], path)
        text = str(error.value)
        assert "\n" not in text and ".png: expected to write " in text and "None" not in text
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_is_full_leaves_the_old_picture_and_nothing_else(step, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "p.png"
    draw_shares([entry()], path)
    before = path.read_bytes()
    monkeypatch.setattr(files.os, step, full)
    sentence = f"^p.png: expected to write [0-9,]+ bytes to {tmp_path}, got: No space left on device$"
    with pytest.raises(OutputError, match=sentence):
        draw_shares([entry(5)], path)
    monkeypatch.undo()
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["p.png"]


def test_the_picture_is_readable_for_others_as_any_file_is(tmp_path):
    (tmp_path / "plain").write_text("")
    draw_shares([entry()], tmp_path / "p.png")
    assert stat.S_IMODE((tmp_path / "p.png").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_nothing_to_draw_is_a_sentence(tmp_path):
    with pytest.raises(HgatError):
        draw_shares([], tmp_path / "p.png")


def a_past(nodes=7, steps=5, title="temporal attention, layer 1"):
    """Node v comes at step v % 3; what it attends to rises with the step."""
    generator = torch.Generator().manual_seed(nodes)
    present = torch.arange(steps).unsqueeze(1) >= torch.arange(nodes) % 3
    by_step = 2 * torch.rand(steps, steps, generator=generator).tril()
    return Past(title, by_step, torch.rand(nodes, steps, generator=generator) * present.t(), present)


def cells(axis):
    """The values of a heatmap, NaN where nothing is shown."""
    values = axis.images[0].get_array()
    return torch.tensor(values.filled(float("nan")))


def test_heatmaps_are_the_past(tmp_path, drawn):
    found = [a_past(), a_past(11, title="temporal attention, layer 2")]
    draw_past(found, str(tmp_path / "p.png"), "DySAT on Enron", names=[f"person {k}" for k in range(11)])
    (figure,) = drawn
    assert figure.get_suptitle() == "DySAT on Enron"
    panels = [axis for axis in figure.axes if axis.get_xlabel() == "step that is looked at"]
    for entry, (left, right) in zip(found, (panels[:2], panels[2:]), strict=True):
        nodes = entry.present.shape[1]
        assert left.get_title() == entry.title and right.get_title() == f"the last step of {nodes} nodes"
        lower = torch.ones(5, 5).tril().bool()
        assert torch.equal(cells(left)[lower], entry.by_step[lower]) and cells(left)[~lower].isnan().all()
        order = sorted(range(nodes), key=lambda v: (v % 3, v))  # those who came first
        assert [label.get_text() for label in right.get_yticklabels()] == [f"person {v}" for v in order]
        there = entry.present.t()[order]
        assert torch.equal(cells(right)[there], entry.by_node[order][there]) and cells(right)[~there].isnan().all()
        for axis in (left, right):
            assert axis.images[0].norm.vcenter == 1, "what uniform attention gives is the middle of the colours"
    assert size(tmp_path / "p.png")[1] > 1.9 * size_of_one(tmp_path)


def size_of_one(folder):
    draw_past([a_past()], folder / "one.png")
    return size(folder / "one.png")[1]


def test_the_nodes_that_are_shown_have_been_there_longest(tmp_path, drawn):
    entry = a_past(plot.MOST_NODES + 13)
    entry.present[:, 3] = False  # never there
    draw_past([entry], tmp_path / "p.png")
    right = drawn[0].axes[1]
    shown = [int(label.get_text()) for label in right.get_yticklabels()]
    age = entry.present.sum(0).tolist()
    left_out = set(range(len(age))) - set(shown)
    assert len(set(shown)) == plot.MOST_NODES and 3 in left_out
    assert min(age[v] for v in shown) >= max(age[v] for v in left_out)


def test_attention_that_is_uniform_is_drawn(tmp_path):
    """All values are the middle of the colours."""
    present = torch.ones(3, 5, dtype=torch.bool)
    draw_past([Past("even", torch.ones(3, 3).tril(), torch.ones(5, 3), present)], tmp_path / "p.png")
    assert size(tmp_path / "p.png")


def test_a_past_without_matplotlib_or_layers(tmp_path, monkeypatch):
    with pytest.raises(HgatError, match="figures: expected attention of at least one temporal layer, got none"):
        draw_past([], tmp_path / "p.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(HgatError) as error:
        draw_past([a_past()], tmp_path / "p.png")
    assert str(error.value) == 'figures: expected matplotlib, got none; pip install "hgat[plot]"'
    assert os.listdir(tmp_path) == []


def test_what_there_is_to_draw_depends_on_the_model(tmp_path, drawn):
    """Bars for relations and meta-paths, heatmaps for the past, nothing for the rest."""
    random = torch.Generator().manual_seed(0)
    src, dst = (torch.randint(0, 11, (53,), generator=random) for _ in range(2))
    events = from_events((src, dst, torch.arange(53)), num_nodes=11)
    views = metapaths(typed_graph(), {"one": ["follows"], "two": ["follows"] * 2})
    steps, recent, plain = snapshots(events, windows=3), recent_neighbours(events), homogeneous()
    feat = {"film": torch.randn(11, 5), "user": None}
    plain_feat = {"_N": torch.randn(plain.num_nodes(), 5)}
    small, none = {"heads": [2], "hidden": 3}, {"_N": None}
    shown = [
        ("bars", find("han").for_graph(views, feat, 3, "film", **small), views, feat),
        ("heat", find("dysat").for_graph(steps, none, temporal_heads=[1], **small), steps, none),
        (None, find("dysat").for_graph(steps, none, temporal_heads=[1], temporal=False, **small), steps, none),
        (None, find("gat").for_graph(plain, plain_feat, 3, "_N"), plain, plain_feat),
        (None, find("tgat").for_graph(recent), recent, None),
    ]
    for number, (kind, model, structure, feat) in enumerate(shown):
        path = tmp_path / f"{number}.png"
        drawn.clear()
        assert draw(model, (structure, feat), path, "a title") == (kind is not None) == path.exists()
        if kind:
            (figure,) = drawn
            assert figure.get_suptitle() == "a title" and size(path)
            assert bool(figure.axes[0].images) == (kind == "heat")


def test_a_call_as_it_was_before_draws_the_same_and_says_so(tmp_path, drawn):
    views = metapaths(typed_graph(), {"one": ["follows"], "two": ["follows"] * 2})
    feat = {"film": torch.randn(11, 5), "user": None}
    model = find("han").for_graph(views, feat, 3, "film", heads=[2], hidden=3)
    with pytest.warns(FutureWarning, match=r"is now called draw\(model, \(structure, feat\), path, title\)"):
        assert draw(model, views, feat, tmp_path / "old.png", "a title")
    assert draw(model, (views, feat), tmp_path / "new.png", "a title")
    assert [figure.get_suptitle() for figure in drawn] == ["a title", "a title"]
    assert (tmp_path / "old.png").read_bytes() == (tmp_path / "new.png").read_bytes()


def test_the_words_of_a_figure_are_those_of_what_it_shows(tmp_path, drawn):
    own = Shares("hops", ("a", "b"), (0.3, 0.7), (0.5, 0.5), what="share of hops", even="if all hops counted alike")
    for entry_, axis, even in (
        (own, "share of hops", "if all hops counted alike"),
        (entry(), "mean share of a node's attention", "if all edges counted alike"),
    ):
        drawn.clear()
        draw_shares([entry_], tmp_path / "p.png")
        (figure,) = drawn
        assert figure.axes[0].get_xlabel() == axis
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["learned", even]
