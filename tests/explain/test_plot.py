import errno
import os
import stat
import struct
import sys

import pytest

from hgat import files
from hgat.errors import HgatError, OutputError
from hgat.explain import Shares, draw_shares, plot

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
        assert [label.get_text() for label in axis.get_yticklabels()] == list(shares.names)
        even, learned = ([bar.get_width() for bar in bars] for bars in axis.containers)
        assert learned == pytest.approx(shares.attention) and even == pytest.approx(shares.uniform)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "learned",
        "if all edges counted alike",
    ]


def test_an_odd_panel_leaves_no_empty_axis(tmp_path, drawn):
    draw_shares([entry()] * 3, tmp_path / "p.png")
    assert [axis.get_visible() for axis in drawn[0].axes] == [True, True, True, False]


def test_many_names_show_those_that_differ_most_in_their_order(tmp_path, drawn):
    count = plot.MOST_BARS + 7
    uniform = (1 / count,) * count
    # The differences grow from both ends to the middle: 7 names at the ends are left out.
    change = [min(k, count - 1 - k) for k in range(count)]
    attention = tuple(
        u + (0.001 * c if k % 2 else -0.001 * c) for k, (u, c) in enumerate(zip(uniform, change, strict=True))
    )
    names = tuple(f"relation {k}" for k in range(count))
    draw_shares([Shares("many", names, attention, uniform)], tmp_path / "p.png")
    (axis,) = drawn[0].axes
    assert axis.get_title() == "many (7 smaller differences left out)"
    shown = [int(label.get_text().split()[1]) for label in axis.get_yticklabels()]
    assert len(shown) == plot.MOST_BARS and shown == sorted(shown)
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
