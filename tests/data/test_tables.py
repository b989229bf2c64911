import gzip

import pytest

from hgat.data import tables
from hgat.errors import DataError


def test_lines_end_at_newlines_only(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\r\ntwo\u2028still two\x0bhere\n\nlast".encode())
    assert list(tables.lines(tmp_path / "a.txt")) == [
        (1, "one"),
        (2, "two\u2028still two\x0bhere"),
        (3, ""),
        (4, "last"),
    ]


def test_gzip_is_read_and_a_cut_one_refused(tmp_path):
    whole = gzip.compress("".join(f"{n} {hash(n * 7919)}\n" for n in range(5000)).encode())
    (tmp_path / "a.gz").write_bytes(whole)
    assert sum(1 for _ in tables.lines(tmp_path / "a.gz")) == 5000
    (tmp_path / "a.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a.gz: line \d+: expected readable data, got Compressed file ended"):
        list(tables.lines(tmp_path / "a.gz"))
    (tmp_path / "a.gz").write_bytes(whole[:10] + b"\xff" * 8 + whole[18:])
    with pytest.raises(DataError, match="expected readable data"):
        list(tables.lines(tmp_path / "a.gz"))
    (tmp_path / "a.gz").write_bytes(b"not gzip\n")
    with pytest.raises(DataError, match=r"line 1: expected readable data"):
        list(tables.lines(tmp_path / "a.gz"))


def test_bytes_that_are_no_text_name_their_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ncaf\xe9\n")
    with pytest.raises(DataError, match="a.txt: line 2: expected utf-8 text, got the byte 0xe9"):
        list(tables.lines(tmp_path / "a.txt"))
    assert list(tables.lines(tmp_path / "a.txt", "latin-1"))[1] == (2, "caf\u00e9")


def test_rows_have_the_columns_they_should(tmp_path):
    (tmp_path / "a.tsv").write_text("1\t2\n3 4\n")
    with pytest.raises(DataError, match="a.tsv: line 2: expected 2 columns, got 1 in '3 4'"):
        list(tables.rows(tmp_path / "a.tsv", 2))


@pytest.mark.parametrize("text", ["", " 7", "-7", "7.0", "7_0", "\u0667", "seven", "\u00b2"])
def test_only_plain_digits_are_integers(text, tmp_path):
    with pytest.raises(DataError, match="line 3: expected an integer, got "):
        tables.integer(text, tmp_path / "a", 3)
    assert tables.integer("070", tmp_path / "a", 3) == 70
