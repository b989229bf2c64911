"""Files of dgl.save_graphs: whole ones pass, of every form; a torn or a made up one is one sentence."""

import os
import struct
import subprocess
import sys

import dgl
import pytest
import torch

from hgat.data.dgl_file import check_graphs
from hgat.errors import DataError


def typed():
    links = {("a", "r", "b"): ([0, 1], [1, 2]), ("b", "s", "b"): ([0, 1, 2], [1, 2, 0]), ("a", "t", "a"): ([], [])}
    graph = dgl.heterograph(links)
    graph.nodes["a"].data["x"] = torch.ones(2, 3)
    graph.edges["s"].data["w"] = torch.arange(3)
    return graph


def plain(device_ids=torch.int64):
    graph = dgl.graph(([0, 1, 3], [1, 2, 3]), num_nodes=5, idtype=device_ids)
    graph.ndata["x"], graph.edata["half"] = torch.ones(5, 2), torch.ones(3).half()
    return graph


GRAPHS = {
    "typed": [typed()],
    "plain": [plain()],
    "int32": [plain(torch.int32)],
    "several": [plain(), typed(), plain(torch.int32)],
    "no edges": [dgl.graph(([], []), num_nodes=3)],
    "no nodes": [dgl.graph(([], []))],
    "many edges between two": [dgl.graph(([0, 0, 0], [1, 1, 1]))],
}


def refused(path):
    with pytest.raises(DataError) as error:
        check_graphs(path)
    message = str(error.value)
    assert message.startswith(f"{path}: expected ") and ", got" in message and "\n" not in message
    return message


@pytest.mark.parametrize("formats", [None, ["coo"], ["csr"], ["csc"], ["coo", "csr", "csc"]])
@pytest.mark.parametrize("what", GRAPHS)
def test_what_dgl_writes_is_whole(tmp_path, what, formats):
    path = tmp_path / "g"
    dgl.save_graphs(str(path), GRAPHS[what], {"label": torch.arange(7), "mask": torch.zeros(0, 2)}, formats=formats)
    check_graphs(path)
    dgl.save_graphs(str(path), GRAPHS[what], formats=formats)
    check_graphs(path)


def test_a_file_that_lacks_anything_from_its_end(tmp_path):
    path = tmp_path / "g"
    dgl.save_graphs(str(path), [typed(), plain()], {"label": torch.arange(7)})
    whole = path.read_bytes()
    for size in [*range(0, 4096, 97), *range(4096, len(whole), 3), *range(len(whole) - 100, len(whole))]:
        path.write_bytes(whole[:size])
        refused(path)
    for more in (b"\0", whole[-8:], whole):
        path.write_bytes(whole + more)
        refused(path)
    path.write_bytes(whole[:5000] + bytes(len(whole) - 5000))  # a machine that lost its power
    refused(path)


def test_dgl_takes_a_torn_file_for_a_whole_one(tmp_path):
    """Why it must be looked at before."""
    path = tmp_path / "g"
    graph = typed()
    dgl.save_graphs(str(path), [graph])
    path.write_bytes(path.read_bytes()[:-48])
    ((found,), _) = dgl.load_graphs(str(path))
    assert found.etypes != graph.etypes
    refused(path)


@pytest.mark.parametrize("content", [b"", b"x", b"<html>not found</html>" * 999, b"\0" * 9999, b"\xff" * 9999])
def test_a_file_of_another_kind(tmp_path, content):
    (tmp_path / "g").write_bytes(content)
    refused(tmp_path / "g")


def test_nothing_and_a_folder(tmp_path):
    assert "got none that can be read: No such file" in refused(tmp_path / "none")
    assert "got none that can be read: Is a directory" in refused(tmp_path)


DAMAGE = """
import sys
from pathlib import Path
import hgat, dgl
from hgat.data.dgl_file import check_graphs
from hgat.errors import DataError
whole, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
refused = read = 0
for place in range(0, len(whole)):
    if 32 <= place < 4096:
        continue
    for other in (b"\\xff", b"\\x7f", bytes([whole[place] ^ 1])):
        path.write_bytes(whole[:place] + other + whole[place + 1 :])
        try:
            check_graphs(path)
        except DataError as error:
            refused += 1
            continue
        read += 1
        try:
            graphs, labels = dgl.load_graphs(str(path))
            for graph in graphs:
                for etype in graph.canonical_etypes:
                    graph.in_degrees(etype=etype), graph.adj_tensors("csc", etype=etype)
        except Exception:
            pass  # an error of DGL's is no end of the process
print(refused > 600, read > 100)
"""


@pytest.mark.slow
def test_no_damage_ends_the_process(tmp_path):
    """Every byte of a file, twice another: refused, or read by DGL."""
    graph = dgl.heterograph({("a", "r", "b"): ([0, 1, 1], [1, 2, 0])})
    graph.nodes["a"].data["x"] = torch.ones(2)
    dgl.save_graphs(str(tmp_path / "whole"), [graph], {"l": torch.arange(2)}, formats=["coo", "csr", "csc"])
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(tmp_path / "whole"), str(tmp_path / "other")],
        capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr[-800:]


def test_ids_that_no_graph_has(tmp_path):
    """DGL itself takes them as they stand."""
    path = tmp_path / "g"
    for formats in (["coo"], ["csr"], ["csc"]):
        dgl.save_graphs(str(path), [plain()], formats=formats)
        whole = path.read_bytes()
        ids = struct.pack("<3q", *({"coo": (1, 2, 3), "csr": (1, 2, 3), "csc": (0, 1, 3)}[formats[0]]))
        place = whole.index(ids)
        for bad in (5, -1, 1 << 40):
            path.write_bytes(whole[:place] + struct.pack("<q", bad) + whole[place + 8 :])
            assert "are known" in refused(path)
