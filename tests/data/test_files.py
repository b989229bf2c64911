import dataclasses
import hashlib
import http.server
import sys
import threading

import pytest

from hgat.data import card as cards
from hgat.data import files
from hgat.errors import DataError

BODY = b"some bytes of a data set\n" * 1000
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(scope="module")
def server():
    """A server on this machine: /whole, /short (fewer bytes than announced), /page (HTML), else 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            kind = "text/html; charset=utf-8" if self.path == "/page" else "application/octet-stream"
            found = self.path in ("/whole", "/short", "/page")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(BODY) if found else 0))
            self.end_headers()
            self.wfile.write(b"" if not found else BODY[:100] if self.path == "/short" else BODY)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def card():
    return dataclasses.replace(cards.read("cora"), how="ask the authors")


def test_a_missing_file_without_an_address_says_what_where_and_how(card, tmp_path):
    with pytest.raises(DataError) as caught:
        files.find(card, cards.File("a.txt", "a"), tmp_path / "cora")
    sentence = str(caught.value)
    assert sentence == (
        f"cora: expected the file a.txt in {tmp_path / 'cora'}, got none there, "
        "and its card has no address to fetch it from; ask the authors"
    )


def test_a_file_may_have_its_own_way_to_get_it(card, tmp_path):
    with pytest.raises(DataError, match="; unpack b.zip"):
        files.find(card, cards.File("b.txt", "b", how="unpack b.zip"), tmp_path)


def test_a_file_is_fetched_once_and_whole(card, server, tmp_path):
    file = cards.File("a.bin", "a", sha256=SHA, url=f"{server}/whole")
    path = files.find(card, file, tmp_path / "new")
    assert path.read_bytes() == BODY
    assert [entry.name for entry in path.parent.iterdir()] == ["a.bin"]
    there = dataclasses.replace(file, url="http://127.0.0.1:1/never")
    assert files.find(card, there, tmp_path / "new") == path


def test_a_terminal_shows_how_far_a_file_is(card, server, tmp_path, capsys, monkeypatch):
    for shown in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda shown=shown: shown)
        files.find(card, cards.File("a.bin", "a", sha256=SHA, url=f"{server}/whole"), tmp_path / str(shown))
        err = capsys.readouterr().err
        assert ("a.bin" in err and f"{len(BODY) / 1000:.1f}k" in err) if shown else err == ""


@pytest.mark.parametrize(
    "path, sha, reason",
    [
        ("/none", SHA, "could not be fetched .*404"),
        ("/short", None, f"gave 100 of {len(BODY)} bytes"),
        ("/page", None, "answered with a web page"),
        ("/whole", "0" * 64, f"gave another file, with the SHA-256 {SHA} and not {'0' * 64}"),
    ],
)
def test_a_failed_fetch_leaves_nothing_behind(card, server, tmp_path, path, sha, reason):
    file = cards.File("a.bin", "a", sha256=sha, url=server + path)
    with pytest.raises(DataError, match=f"got none there, and {server}{path} {reason}.*; ask the authors"):
        files.find(card, file, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_one_sentence(card, tmp_path):
    file = cards.File("a.bin", "a", url="http://127.0.0.1:1/a.bin")
    with pytest.raises(DataError, match="could not be fetched .*; ask the authors"):
        files.find(card, file, tmp_path / "mistyped")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(card, server, tmp_path):
    (tmp_path / "blocked").write_text("a file")
    file = cards.File("a.bin", "a", url=f"{server}/whole")
    with pytest.raises(DataError, match="could not be fetched"):
        files.find(card, file, tmp_path / "blocked" / "cora")


def test_a_changed_file_is_refused_before_it_is_read_unless_verify_is_off(card, tmp_path):
    file = cards.File("a.bin", "a", sha256=SHA)
    (tmp_path / "a.bin").write_bytes(BODY[:-1] + b"!")
    got = hashlib.sha256(BODY[:-1] + b"!").hexdigest()
    with pytest.raises(DataError, match=f"a.bin: expected the SHA-256 {SHA}, got {got}; verify=False"):
        files.find(card, file, tmp_path)
    assert files.find(card, file, tmp_path, verify=False) == tmp_path / "a.bin"


def test_verify_off_also_accepts_another_version_from_the_address(card, server, tmp_path):
    file = cards.File("a.bin", "a", sha256="0" * 64, url=f"{server}/whole")
    assert files.find(card, file, tmp_path, verify=False).read_bytes() == BODY
