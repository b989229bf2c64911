"""Events from a CSV file: what stands in the graph, and one sentence with file and line for every file that is none."""

import gzip
import hashlib
import re

import pytest
import torch

import hgat.data
from hgat.errors import DataError

HEADER = "snapshot,u,v,unix_time"
# Out of order, with a pair that meets twice at one time, one that meets itself, and negative times.
LINES = ["1,13,7,5", "0,7,11,-3", "2,101,101,30", "1,7,13,5", "0,7,11,-3", "2,7,13,29"]
IN_ORDER = [(7, 11, -3, 0), (7, 11, -3, 0), (13, 7, 5, 1), (7, 13, 5, 1), (7, 13, 29, 2), (101, 101, 30, 2)]


@pytest.fixture
def load(tmp_path):
    """Enron's loader on a file of these lines."""

    def run(lines=LINES, header=HEADER, name="mails.csv", **options):
        path = tmp_path / name
        text = lines if isinstance(lines, bytes) else "\n".join([header, *lines, ""]).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return hgat.data.load("enron", tmp_path, path=str(path), **options)

    return run


def rows(task):
    """[(name, name, time, step)] in the graph's order."""
    graph, names = task.graph, task.ids["_N"]
    src, dst = (end.tolist() for end in graph.edges(order="eid"))
    steps = graph.edata["step"].tolist() if "step" in graph.edata else [None] * len(src)
    times = graph.edata["time"].tolist()
    return [(names[u], names[v], t, s) for u, v, t, s in zip(src, dst, times, steps, strict=True)]


@pytest.mark.parametrize("name", ["mails.csv", "mails.csv.gz"])
def test_every_line_is_an_event_in_order_of_time(load, name):
    task = load(name=name)
    assert rows(task) == IN_ORDER
    assert task.ids["_N"] == (7, 11, 13, 101) and task.feat == {"_N": None}
    assert task.graph.edata["time"].dtype == torch.int64 and task.notes == ()
    assert task.counts() == {"nodes": 4, "edges": 6, "relations": 1}


def test_names_as_text_are_sorted_as_text(load):
    task = load(["0,Zoë,b,1", "0,b,10,2", "1,10,Zoë,3"])
    assert task.ids["_N"] == ("10", "Zoë", "b")
    assert rows(task) == [("Zoë", "b", 1, 0), ("b", "10", 2, 0), ("10", "Zoë", 3, 1)]


def test_numbers_as_names_are_sorted_by_value_up_to_64_bits(load):
    assert load(["0,100,9,1", "0,9,9223372036854775807,1"]).ids["_N"] == (9, 100, 2**63 - 1)
    assert load(["0,100,9,1", "0,9,9223372036854775808,1"]).ids["_N"] == ("100", "9", "9223372036854775808")


def test_one_decimal_makes_all_times_decimals(load):
    task = load(["0,1,2,1.5", "0,2,3,-2", "0,3,1,1e3", "0,3,1,.25"])
    assert task.graph.edata["time"].tolist() == [-2.0, 0.25, 1.5, 1000.0]
    assert task.graph.edata["time"].dtype == torch.float64


def test_nanoseconds_keep_every_digit(load):
    first = 1_700_000_000_123_456_789
    times = load([f"0,1,2,{first + 1}", f"0,2,1,{first}"]).graph.edata["time"]
    assert times.tolist() == [first, first + 1]


def test_other_columns_and_delimiter(load):
    lines = ["5; x;a, b;1.0", "", "1; x;y ;2.0"]
    task = load(lines, "when;what;to;worth", src="to", dst="what", time="when", step=None, delimiter=";")
    assert rows(task) == [("y", "x", 1, None), ("a, b", "x", 5, None)]


def test_without_a_step_the_column_is_not_read(load):
    task = load(["x,1,2,3", ",2,1,4"], step=None)
    assert rows(task) == [(1, 2, 3, None), (2, 1, 4, None)]


@pytest.mark.parametrize("options", [{}, {"step": ""}, {"step": None}])
def test_a_file_of_ones_own_needs_no_column_of_steps(load, options):
    task = load(["1,2,3", "2,1,4"], "u,v,unix_time", **options)
    assert rows(task) == [(1, 2, 3, None), (2, 1, 4, None)]


def test_an_empty_step_is_none(load):
    assert rows(load(["x,1,2,3", ",2,1,4"], step="")) == [(1, 2, 3, None), (2, 1, 4, None)]


def test_the_cards_own_file_needs_its_column(tmp_path):
    (tmp_path / "enron").mkdir()
    (tmp_path / "enron" / "enron_events.csv").write_text("u,v,unix_time\n1,2,3\n")
    with pytest.raises(DataError, match="expected one column 'snapshot' .data.step., got the columns u, v, unix_time"):
        hgat.data.load("enron", tmp_path, verify=False)


def test_numbers_with_leading_zeros_are_text(load):
    assert load(["0,7,007,1", "0,0,7,2"]).ids["_N"] == ("0", "007", "7")
    assert load(["0,7,10,1", "0,0,7,2"]).ids["_N"] == (0, 7, 10)


def test_what_spreadsheets_write(load):
    """Quoted names with delimiters, a byte order mark, lines that end in CRLF, and no newline at the end."""
    task = load(('\ufeff"snapshot","u",v,unix_time\r\n0,"Ann, B.",c,1\r\n\r\n0,c,"say ""x""",2').encode())
    assert rows(task) == [("Ann, B.", "c", 1, 0), ("c", 'say "x"', 2, 0)]


def test_a_file_of_ones_own_may_have_the_name_of_a_data_set(load):
    """Its counts are not those of the card, and are not compared."""
    for name in ("enron.csv", "enron"):
        assert load(name=name).counts()["edges"] == 6


def test_the_cards_own_file(tmp_path):
    (tmp_path / "enron").mkdir()
    (tmp_path / "enron" / "enron_events.csv").write_text("\n".join([HEADER, *LINES]))
    got = hashlib.sha256("\n".join([HEADER, *LINES]).encode()).hexdigest()
    with pytest.raises(DataError, match=f"enron_events.csv: expected the SHA-256 [0-9a-f]{{64}}, got {got}; verify=F"):
        hgat.data.load("enron", tmp_path)
    task = hgat.data.load("enron", tmp_path, verify=False)
    assert rows(task) == IN_ORDER and task.name == "enron" and len(task.notes) == 1


def test_a_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match="enron: expected the file enron_events.csv in .*, got none there.*write a CSV"):
        hgat.data.load("enron", tmp_path)
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match=f"data.path: expected a CSV file, got {path}, which is none"):
            hgat.data.load("enron", tmp_path, path=str(path))


OPENED = "expected fields without line ends or unclosed quotes, got "
BAD = {
    "too few fields": (["0,1,2,3", "0,1,2"], "line 3: expected 4 fields, got 3 in '0,1,2'"),
    "too many fields": (["0,1,2,3,4"], "line 2: expected 4 fields, got 5 in '0,1,2,3,4'"),
    "too few after an empty line": (["0,1,2,3", "", "0,1"], "line 4: expected 4 fields, got 2 in '0,1'"),
    "an unclosed quote": (['0,"1,2,3', "0,1,2,3", "0,1,2,3"], f"line 2: {OPENED}unexpected end of data"),
    "a name over two lines": (['0,"1', '",2,3'], f"line 2: {OPENED}unexpected end of data"),
    "text behind a quote": (['0,"1"x,2,3'], f"line 2: {OPENED}',' expected after '\"'"),
    "a time that is none": (["0,1,2,3", "0,1,2,noon"], "line 3: expected a time in the column 'unix_time', got 'noon'"),
    "no time": (["0,1,2,"], "line 2: expected a time in the column 'unix_time', got ''"),
    "NaN": (["0,1,2,NaN"], "line 2: expected a time in the column 'unix_time', got 'NaN'"),
    "infinity": (["0,1,2,-inf"], "line 2: expected a time in the column 'unix_time', got '-inf'"),
    "a time beyond floats": (["0,1,2,1e999"], "line 2: expected a time in the column 'unix_time', got '1e999'"),
    "no source": (["0,1,2,3", "0, ,2,3"], "line 3: expected a name in the column 'u', got an empty field"),
    "no destination": (["0,1,,3"], "line 2: expected a name in the column 'v', got an empty field"),
    "a step of half": (["1.5,1,2,3"], "line 2: expected a whole number from 0 in the column 'snapshot', got '1.5'"),
    "a negative step": (["-1,1,2,3"], "line 2: expected a whole number from 0 in the column 'snapshot', got '-1'"),
    "no step": ([",1,2,3"], "line 2: expected a whole number from 0 in the column 'snapshot', got ''"),
    "a header only": ([], ": expected at least one event, got none"),
    "an empty file": (b"", ": expected a line with the names of the columns, got an empty file"),
    "a header of one quote": (b'"u,v\n1,2\n', f"line 1: {OPENED}unexpected end of data"),
    "no text": (HEADER.encode() + b"\n0,\xff,2,3\n", "line 2: expected utf-8 text, got the byte 0xff"),
    "a column twice": (b"snapshot,u,v,u,unix_time\n", "one column 'u' (data.src), got the columns snapshot, u, v, u, "),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_a_file_that_is_none(load, bad):
    lines, sentence = BAD[bad]
    with pytest.raises(DataError, match=f"^.*mails.csv: (?:.*){re.escape(sentence.removeprefix(': '))}"):
        load(lines)


@pytest.mark.parametrize("role, name", [("src", "from"), ("dst", "to"), ("time", "unix_time "), ("step", "week")])
def test_an_unknown_column_lists_those_there_are(load, role, name):
    sentence = f"mails.csv: expected one column '{name}' (data.{role}), got the columns snapshot, u, v, unix_time"
    with pytest.raises(DataError, match=re.escape(sentence)):
        load(**{role: name})


@pytest.mark.parametrize("delimiter", ["", ",,", "\n", '"'])
def test_a_delimiter_is_one_character(load, delimiter):
    with pytest.raises(DataError, match="data.delimiter: expected one character, got "):
        load(delimiter=delimiter)


@pytest.mark.parametrize("option", [{"step": 3}, {"source": "u"}, {"path": 5}, {"delimiter": None}])
def test_options_of_another_kind(load, option):
    with pytest.raises(DataError, match=f"enron(: expected only the keys .*|[.]{next(iter(option))}: expected )"):
        hgat.data.load("enron", **option)


def test_a_damaged_gzip(load, tmp_path):
    whole = gzip.compress("\n".join([HEADER, *(LINES * 997)]).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[:-99])
    with pytest.raises(DataError, match=r"cut.csv.gz: line \d+: expected readable data, got "):
        hgat.data.load("enron", tmp_path, path=str(tmp_path / "cut.csv.gz"))


def test_enron_is_what_the_card_says(real):
    task = hgat.data.load("enron", real("enron"))
    graph = task.graph
    assert (graph.num_nodes(), graph.num_edges()) == (143, 22784)
    step, time = graph.edata["step"], graph.edata["time"]
    assert (step.min(), step.max()) == (0, 15) and (time.diff() >= 0).all() and (step.diff() >= 0).all()
    src, dst = graph.edges(order="eid")
    assert int((src == dst).sum()) == 1584
    pairs = {(int(s), *sorted((int(u), int(v)))) for s, u, v in zip(step, src, dst, strict=True)}
    # As the paper counts links: 2,347 in all, those of a node with itself among them.
    assert [sum(s == k for s, _, _ in pairs) for k in range(16)] == [
        24, 22, 21, 64, 77, 93, 143, 197, 212, 220, 221, 258, 173, 128, 256, 238
    ]  # fmt: skip
    assert "counting" in task.notes[0]
