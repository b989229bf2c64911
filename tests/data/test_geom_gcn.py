import dataclasses
import hashlib
import io
import struct
import zipfile

import numpy as np
import pytest
import torch
from hostile import hostile

import hgat.data
from hgat.data import card as cards
from hgat.data import geom_gcn
from hgat.errors import DataError
from hgat.tasks import find

NODES = 6
PARTS = ("train_mask", "val_mask", "test_mask")

# Nodes out of order; node 3 has no features. The edge 4 to 1 is listed twice, and 2 has a loop.
BINARY = """node_id\tfeature\tlabel
2\t0,1,1,0\t0
0\t1,0,0,0\t1
1\t1,1,1,1\t2
5\t0,0,0,1\t0
3\t0,0,0,0\t1
4\t0,0,1,0\t2
"""
INDICES = """node_id\tfeature(feature_amount:3)\tlabel
2\t2,1,2\t0
0\t0\t1
1\t0,1,2,3\t2
5\t3\t0
3\t1,2\t1
4\t2\t2
"""
EDGES = "node_id\tnode_id\n4\t1\n0\t5\n4\t1\n1\t4\n2\t2\n"


def with_one(text, line, other):
    assert line in text
    return text.replace(line, other)


def masks(split=0, dtype=bool):
    """The masks of a split: nodes 0 to 2 train, 3 validates, 4 tests, 5 is in no part; the next ones are shifted."""
    rows = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]])
    return dict(zip(PARTS, np.roll(rows, split, axis=1).astype(dtype), strict=True))


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def packed(member, name="val_mask.npy", method=zipfile.ZIP_DEFLATED):
    """An archive of good masks but one, whose bytes are these."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for part, mask in masks().items():
            good = io.BytesIO()
            np.save(good, mask)
            file.writestr(f"{part}.npy", member if f"{part}.npy" == name else good.getvalue())
    return buffer.getvalue()


def npy(header, content=b"", version=(1, 0)):
    """A .npy file whose header says this."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + content


def described(descr, shape=(NODES,)):
    return repr({"descr": descr, "fortran_order": False, "shape": shape})


@pytest.fixture
def load(small, tmp_path):
    def run(changes=(), name="texas", **options):
        binary = name == "texas"
        files = {"out1_node_feature_label.txt": BINARY if binary else INDICES, "out1_graph_edges.txt": EDGES}
        files.update({f"split_{k}.npz": archive(**masks(k)) for k in range(10)})
        for file, value in {**files, **dict(changes)}.items():
            (tmp_path / file).write_bytes(value if isinstance(value, bytes) else value.encode())
        layout = {"num_classes": 3} if binary else {"num_classes": 3, "width": 4}
        return geom_gcn.load(small(name, **layout), tmp_path, **options)

    return run


def test_features_and_labels_are_those_of_the_ids(load):
    task = load(normalize="none")
    rows = [[1, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert task.feat["_N"].tolist() == rows and task.feat["_N"].dtype == torch.float32
    assert task.label.tolist() == [1, 2, 0, 1, 2, 0]
    assert (task.num_classes, task.class_names) == (3, ("class 0", "class 1", "class 2"))
    rows[3] = [0, 1, 1, 0]
    assert load(name="actor", normalize="none").feat["_N"].tolist() == rows  # the list 2,1,2 of node 2 too


def test_rows_of_features_sum_to_one_or_stay_zero(load):
    feat = load().feat["_N"]
    assert feat.sum(1).tolist() == [1, 1, 1, 0, 1, 1] and feat[2].tolist() == [0, 0.5, 0.5, 0]


def test_edges_keep_their_direction_and_loops_and_lose_their_repeats(load):
    source, target = load().graph.edges()
    assert list(zip(source.tolist(), target.tolist(), strict=True)) == [(0, 5), (1, 4), (2, 2), (4, 1)]


def test_all_splits_are_there_and_one_is_in_force(load):
    task = load()
    assert len(task.splits) == 10
    for number, parts in enumerate(task.splits):
        assert list(parts) == ["train", "val", "test"]
        for ids, mask in zip(parts.values(), masks(number).values(), strict=True):
            assert ids.dtype == torch.int64 and ids.tolist() == np.flatnonzero(mask).tolist()
    for part, ids in task.split.items():
        assert torch.equal(ids, task.splits[0][part])


def test_one_split_can_be_asked_for_alone(load):
    for split in (0, 3, 9):
        task = load(split=split)
        assert (task.train.tolist(), task.val.tolist(), task.test.tolist()) == tuple(
            np.flatnonzero(mask).tolist() for mask in masks(split).values()
        )
        assert task.splits == () and task.with_split(4) is task


@pytest.mark.parametrize("split", [-1, 10])
def test_a_split_that_is_not_there_is_refused(load, split):
    with pytest.raises(DataError, match=f"texas.split: expected 0 to 9, got {split}"):
        load(split=split)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", ">i4"])
def test_masks_of_integers_are_masks(load, dtype):
    task = load({"split_0.npz": archive(**masks(dtype=dtype))})
    assert (task.train.tolist(), task.val.tolist(), task.test.tolist()) == ([0, 1, 2], [3], [4])


def test_masks_are_read_uncompressed_too(load):
    load({"split_0.npz": packed(npy(described("|b1"), b"\0\0\0\1\0\0"), method=zipfile.ZIP_STORED)})


COUNTED = INDICES.replace("feature(feature_amount:3)", "feature(feature_amount:931)")


@pytest.fixture
def own(tmp_path):
    """Writes a folder of the form under a name, with files changed or left out, and loads it by its path."""

    def run(changes=(), name="mine", splits=("split_0.npz",), **options):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        files = {"out1_node_feature_label.txt": BINARY, "out1_graph_edges.txt": EDGES}
        files |= {file: archive(**masks(k)) for k, file in enumerate(splits)}
        for file, value in {**files, **dict(changes)}.items():
            if value is not None:
                (folder / file).write_bytes(value if isinstance(value, bytes) else value.encode())
        return hgat.data.load("geom_gcn", path=str(folder), **options)

    return run


def test_any_folder_of_the_form_is_read_by_its_path(own, load):
    data, known = own(), load()
    assert data.name == "mine" and (data.num_classes, data.class_names) == (3, ("0", "1", "2"))
    assert torch.equal(data.feat["_N"], known.feat["_N"]) and torch.equal(data.label, known.label)
    assert [e.tolist() for e in data.graph.edges()] == [e.tolist() for e in known.graph.edges()]
    assert data.notes == ("Nodes of each class: train 1, 1, 1; val 0, 1, 0; test 0, 0, 1.",)
    assert own(name="other", normalize="none").feat["_N"].sum() == 9
    assert not own(name="texas").notes[0].startswith("A test part")  # the name of a card alone is none of its facts


def test_a_header_that_counts_features_says_that_they_are_indices(own, load):
    data = own({"out1_node_feature_label.txt": COUNTED}, normalize="none")
    assert torch.equal(data.feat["_N"], load(name="actor", normalize="none").feat["_N"])
    with pytest.raises(DataError, match="line 2: expected a list of 0 and 1 between commas, got '2,1,2'"):
        own({"out1_node_feature_label.txt": COUNTED.replace("(feature_amount:931)", "")})


def test_as_many_splits_as_lie_there_and_seed_k_takes_one_in_turn(own):
    names = [f"split_{k}.npz" for k in (0, 1, 2, 10)] + ["split_last.npz"]  # 10 stands behind 2, and a word behind all
    data = own(splits=names)
    task = find("nodes")(data)
    for seed in (0, 3, 4, 5, 7, 13):
        expected = np.flatnonzero(masks(seed % 5)["train_mask"]).tolist()
        assert data.with_split(seed).train.tolist() == task.for_seed(seed).shown().train.tolist() == expected
    assert "in the 5 splits: train 1, 1, 1; val 0-1" in data.notes[-1]
    alone = own(splits=names, split=3)
    assert alone.splits == () and alone.test.tolist() == np.flatnonzero(masks(3)["test_mask"]).tolist()
    with pytest.raises(DataError, match="mine.split: expected 0 to 4, got 5"):
        own(splits=names, split=5)


def test_splits_are_drawn_where_they_are_asked_for(own, load):
    for data in (own(splits=(), split="uag", draws=3, name="bare"), load(split="uag", draws=3)):
        assert len(data.splits) == 3 and torch.equal(data.test, data.splits[0]["test"])
        assert [len(ids) for ids in data.splits[1].values()] == [1, 1, 4]
        assert data.notes[-2].startswith("Splits drawn at random with the sizes of uag, 3 of them")
        assert data.notes[-1].startswith("Nodes of each class in the 3 splits: train 0-1")


OWN = {
    "out1_node_feature_label.txt, got none": {"out1_node_feature_label.txt": None},
    "out1_graph_edges.txt, got none": {"out1_graph_edges.txt": None},
    "expected splits, split_0.npz and on, or data.split to draw some, got none": {"split_0.npz": None},
    "expected labels below its 6 nodes, got 6": {"out1_node_feature_label.txt": BINARY.replace("\t2\n", "\t6\n")},
    "line 3: expected 4 features as in the line before, got 3": {
        "out1_node_feature_label.txt": with_one(BINARY, "0\t1,0,0,0\t1", "0\t1,0,0\t1")
    },
    "line 3: expected an integer, got ''": {"out1_node_feature_label.txt": with_one(COUNTED, "0\t0\t1", "0\t\t1")},
    "expected at most 1,073,741,824 features of all nodes, got 6 . 1000000000": {
        "out1_node_feature_label.txt": with_one(COUNTED, "0\t0\t1", "0\t999999999\t1")
    },
    "expected at least one node, got none": {"out1_node_feature_label.txt": ""},
    "line 2: expected node ids from 0 to 5, got 6": {"out1_graph_edges.txt": "node_id\tnode_id\n0\t6\n"},
    "split_0.npz: expected the array val_mask, got none": {"split_0.npz": archive(train_mask=masks()["train_mask"])},
    "split_0.npz: expected an archive of NumPy arrays, got a damaged one": {"split_0.npz": b"PK"},
}


@pytest.mark.parametrize("sentence", OWN)
def test_a_folder_that_is_none_is_one_sentence(own, sentence):
    changes = OWN[sentence]
    with pytest.raises(DataError, match=sentence) as error:
        own(changes, splits=() if "split_0.npz" in changes else ("split_0.npz",))
    assert "\n" not in str(error.value)


def test_a_path_that_is_no_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for path in ("file", "none"):
        with pytest.raises(DataError, match=f"data.path: expected a folder of Geom-GCN's form, got .*{path}, which is"):
            hgat.data.load("geom_gcn", path=str(tmp_path / path))


def test_texas_under_another_name_is_told(own, monkeypatch):
    """By the checksum of the nodes' file where the edges are others, and by the name of Cornell."""
    known = {role: hashlib.sha256(text.encode()).hexdigest() for role, text in (("nodes", BINARY), ("edges", EDGES))}
    texas = cards.read("texas")
    files = tuple(dataclasses.replace(file, sha256=known.get(file.role)) for file in texas.files)
    monkeypatch.setattr(cards, "read", lambda name, read=cards.read: dataclasses.replace(read(name), files=files)
                        if name == "texas" else read(name))  # fmt: skip
    others = {"out1_graph_edges.txt": EDGES.replace("4\t1", "3\t1")}
    for name in ("cornell", "a"):
        assert own(others, name=name).notes[0].startswith("The features and labels of this folder are those of Texas")
    assert len(own(name="b").notes) == 1  # its edges, too: Texas
    changed = {"out1_node_feature_label.txt": BINARY.replace("2\t0,1", "2\t1,1")}
    assert own(changed, name="Cornell").notes[0].endswith("under the name of Cornell; these differ.")
    assert len(own(changed, name="c").notes) == 1


def with_line(text, number, line):
    lines = text.split("\n")
    lines[number - 1] = line
    return "\n".join(lines)


@pytest.mark.parametrize(
    "number, line, sentence",
    [
        (1, "2\t0,1,1,0\t0", r"line 1: expected the header from node_id to label, got '2\\t0,1,1,0\\t0'"),
        (3, "0\t1,0,0,0", "line 3: expected 3 columns, got 2"),
        (3, "0\t1,0,0\t1", "line 3: expected 4 features as in the line before, got 3"),
        (3, "0\t1,0,2,0\t1", "line 3: expected a list of 0 and 1 between commas, got '1,0,2,0'"),
        (3, "0\t1,0,0,\t1", "line 3: expected a list of 0 and 1 between commas, got '1,0,0,'"),
        (3, "0\t1;0,0,0\t1", "line 3: expected a list of 0 and 1 between commas"),
        (3, "0\t1,0,\0,0\t1", "line 3: expected a list of 0 and 1 between commas"),
        (3, "0\t1,0,\1,0\t1", "line 3: expected a list of 0 and 1 between commas"),
        (3, "0\t\t1", "line 3: expected a list of 0 and 1 between commas, got ''"),
        (3, "2\t1,0,0,0\t1", "line 3: expected a node id that no line before has, got 2"),
        (3, "6\t1,0,0,0\t1", "expected the ids 0 to 5 for its 6 nodes, got none that is 0"),
        (3, "9223372036854775807\t1,0,0,0\t1", "expected the ids 0 to 5 for its 6 nodes, got none that is 0"),
        (3, "-1\t1,0,0,0\t1", "line 3: expected an integer, got '-1'"),
        (3, "0\t1,0,0,0\t3", "line 3: expected a label from 0 to 2, got 3"),
        (3, "0\t1,0,0,0\t-1", "line 3: expected an integer, got '-1'"),
        (3, "", "line 3: expected 3 columns, got 1"),
    ],
)
def test_lines_of_nodes_that_are_none_are_refused(load, number, line, sentence):
    with pytest.raises(DataError, match=f"out1_node_feature_label.txt: {sentence}"):
        load({"out1_node_feature_label.txt": with_line(BINARY, number, line)})


@pytest.mark.parametrize(
    "line, sentence",
    [
        ("0\t4\t1", "line 3: expected features from 0 to 3, got 4"),
        ("0\t\t1", "line 3: expected an integer, got ''"),
        ("0\t1,\t1", "line 3: expected an integer, got ''"),
        ("0\t-1\t1", "line 3: expected an integer, got '-1'"),
        ("0\t" + "1," * 1000 + "1\t1", "line 3: expected a list of at most 8 features, got 1001"),
    ],
)
def test_lists_of_features_that_are_not_there_are_refused(load, line, sentence):
    with pytest.raises(DataError, match=f"out1_node_feature_label.txt: {sentence}"):
        load({"out1_node_feature_label.txt": with_line(INDICES, 3, line)}, name="actor")


@pytest.mark.parametrize("name", ["texas", "actor"])
def test_features_beyond_memory_are_refused(load, monkeypatch, name):
    monkeypatch.setattr(geom_gcn, "LARGEST", 23)
    with pytest.raises(DataError, match=r"expected at most 23 features of all nodes, got 6 \* 4"):
        load(name=name)


@pytest.mark.parametrize(
    "edges, sentence",
    [
        ("4\t1\n0\t5\n", r"line 1: expected the header from node_id to node_id, got '4\\t1'"),
        ("node_id\tnode_id\n0\t6\n", "line 2: expected node ids from 0 to 5, got 6"),
        ("node_id\tnode_id\n6\t0\n", "line 2: expected node ids from 0 to 5, got 6"),
        ("node_id\tnode_id\n0\t-1\n", "line 2: expected an integer, got '-1'"),
        ("node_id\tnode_id\n0\t1\n0\n", "line 3: expected 2 columns, got 1"),
        ("node_id\tnode_id\n0\t1\t2\n", "line 2: expected 2 columns, got 3"),
        ("node_id\tnode_id\n", "expected at least one edge, got none"),
        ("", "expected at least one edge, got none"),
        (b"node_id\tnode_id\n\xff\t1\n", "line 2: expected utf-8 text, got the byte 0xff"),
    ],
)
def test_edges_that_are_none_are_refused(load, edges, sentence):
    with pytest.raises(DataError, match=f"out1_graph_edges.txt: {sentence}"):
        load({"out1_graph_edges.txt": edges})


@pytest.mark.parametrize("text", ["", "node_id\tfeature\tlabel\n"])
def test_no_nodes_are_refused(load, text):
    with pytest.raises(DataError, match="expected at least one node, got none"):
        load({"out1_node_feature_label.txt": text})


BAD = masks()
SPLITS = {
    "a mask is missing": (archive(train_mask=BAD["train_mask"]), "expected the array val_mask, got none"),
    "masks overlap": (
        archive(**{**BAD, "test_mask": BAD["train_mask"]}),
        "test: expected no id of train, got id 0 in both",
    ),
    "masks overlap further on": (
        archive(**{**BAD, "val_mask": np.array([0, 0, 1, 1, 1, 0], bool)}),
        "val: expected no id of train, got id 2 in both",
    ),
    "a mask is empty": (
        archive(**{**BAD, "val_mask": np.zeros(NODES, bool)}),
        "val: expected a non-empty list of int64 ids",
    ),
    "fewer nodes": (
        archive(**{**BAD, "val_mask": np.ones(5, bool)}),
        r"val_mask: expected a mask \[6\] of bool or integers, got bool \[5\]",
    ),
    "two dimensions": (
        archive(**{**BAD, "val_mask": np.ones((6, 1), bool)}),
        r"expected a mask \[6\] .* got bool \[6, 1\]",
    ),
    "a number": (archive(**{**BAD, "val_mask": np.array(True)}), r"expected a mask \[6\] .*, got bool \[\]"),
    "floats": (archive(**{**BAD, "val_mask": np.ones(6)}), r"expected a mask \[6\] .*, got float64 \[6\]"),
    "text": (archive(**{**BAD, "val_mask": np.array(["1"] * 6)}), r"expected a mask \[6\] .*, got <U1 \[6\]"),
    "ids and no mask": (archive(**{**BAD, "val_mask": np.arange(6)}), "val_mask: expected only 0 and 1, got 2"),
    "negative": (archive(**{**BAD, "val_mask": -np.ones(6, np.int8)}), "val_mask: expected only 0 and 1, got -1"),
    "a bool that is none": (packed(npy(described("|b1"), b"\2" * 6)), "val_mask: expected only 0 and 1, got 2"),
    "fields": (
        packed(npy(described([("a", "u1")]), b"\1" * 6)),
        r"expected a mask \[6\] .*, got \[\('a', 'u1'\)\] \[6\]",
    ),
    "a shape without end": (
        packed(npy(described("|b1", (1 << 62,)), b"\1" * 6)),
        r"expected a mask \[6\] of bool or integers, got bool \[4611686018427387904\]",
    ),
    "sizes that overflow": (packed(npy(described("|b1", (1 << 32, 1 << 32)))), r"expected a mask \[6\] .* got bool"),
    "a negative size": (packed(npy(described("|b1", (-6,)), b"\1" * 6)), r"expected a mask \[6\] .*, got bool \[-6\]"),
    "too few bytes": (packed(npy(described("|b1"), b"\1" * 3)), "val_mask: expected 6 bytes as its header says, got 3"),
    "zeros without end": (
        packed(npy(described("|b1"), bytes(1 << 24))),
        "val_mask: expected 6 bytes as its header says, got more",
    ),
    "a header of another form": (packed(npy(described("|b1"), b"\1" * 6, (2, 0))), "got a damaged one .*another form"),
    "a header that is code": (packed(npy("__import__('os')._exit(1)")), "expected an archive of NumPy arrays, got"),
    "a header without end": (packed(npy("(" * 60000)), "expected an archive of NumPy arrays, got a damaged one"),
    "no array": (packed(b"train"), "expected an archive of NumPy arrays, got a damaged one"),
    "nothing in a mask": (packed(b""), "expected an archive of NumPy arrays, got a damaged one"),
    "compressed otherwise": (
        packed(npy(described("|b1"), b"\0\0\0\1\0\0"), method=zipfile.ZIP_LZMA),
        "expected an archive of NumPy arrays, got a damaged one .*compressed",
    ),
    "an array and no archive": (npy(described("|b1"), b"\1" * 6), "expected an archive of NumPy arrays, got"),
    "no archive": (b"PK\3\4 and so on", "expected an archive of NumPy arrays, got a damaged one"),
    "nothing": (b"", "expected an archive of NumPy arrays, got a damaged one"),
}


@pytest.mark.parametrize("what", SPLITS)
def test_splits_that_are_none_are_refused_be_they_in_force_or_not(load, what):
    content, sentence = SPLITS[what]
    with pytest.raises(DataError, match=rf"(split_7.npz: .*|texas: splits\[7\].){sentence}") as error:
        load({"split_7.npz": content})
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("protocol", [2, 4])
def test_no_pickle_is_read(load, protocol):
    for what, content in hostile(protocol).items():
        objects = packed(npy(described("|O"), content))
        for file in (objects, packed(content), content):
            with pytest.raises(DataError, match="split_7.npz: .*expected"):
                load({"split_7.npz": file})
                pytest.fail(what)


def test_a_damaged_archive_is_refused_or_says_the_same(load):
    whole = archive(**masks(7))
    for size in range(0, len(whole), 7):
        with pytest.raises(DataError, match="split_7.npz: expected"):
            load({"split_7.npz": whole[:size]})
    expected = [ids.tolist() for ids in load().splits[7].values()]
    refused = 0
    for place in range(0, len(whole), 3):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        try:
            task = load({"split_7.npz": bytes(broken)})
        except DataError:
            refused += 1
        else:
            assert [ids.tolist() for ids in task.splits[7].values()] == expected
    assert refused > len(whole) / 6


def test_the_checksum_is_of_every_file(small, load, tmp_path):
    load()
    files = [
        {
            "name": file.name,
            "role": file.role,
            "sha256": hashlib.sha256((tmp_path / file.name).read_bytes()).hexdigest(),
        }
        for file in small("texas").files
    ]
    card = cards.Card(
        **{
            **vars(small("texas", num_classes=3)),
            "files": tuple(cards.File(**file) for file in files),
        }
    )
    assert len(geom_gcn.load(card, tmp_path).splits) == 10
    for file in files:
        content = (tmp_path / file["name"]).read_bytes()
        (tmp_path / file["name"]).write_bytes(content + b"\n")
        with pytest.raises(DataError, match=f"{file['name']}: expected the SHA-256 {file['sha256']}, got"):
            geom_gcn.load(card, tmp_path)
        (tmp_path / file["name"]).write_bytes(content)


@pytest.mark.parametrize("name", ["texas", "actor"])
def test_the_real_folders_are_read_alike_by_their_paths(real, name):
    root, card = real(name), cards.read(name)
    one, other = hgat.data.load(name, root), hgat.data.load("geom_gcn", path=str(root / card.folder))
    assert other.name == card.folder and other.num_classes == one.num_classes
    assert torch.equal(one.feat["_N"], other.feat["_N"]) and torch.equal(one.label, other.label)
    for mine, theirs in zip(one.splits, other.splits, strict=True):
        assert all(torch.equal(mine[part], theirs[part]) for part in mine)
    assert (*card.notes, *card.split_notes, *other.notes) == one.notes and len(other.notes) == 1
    drawn = hgat.data.load(name, root, split="gpr_gnn")
    assert not set(card.split_notes) & set(drawn.notes) and len(drawn.notes) == len(card.notes) + 2
    classes = torch.bincount(one.label)
    cap = round(0.6 * len(one.label) / 5)
    for split in drawn.splits:
        assert torch.equal(torch.bincount(one.label[split["train"]], minlength=5), classes.clamp(max=cap))
    assert (len(drawn.train), len(drawn.val), len(drawn.test)) == {
        "texas": (85, 37, 61),
        "actor": (4501, 1520, 1579),
    }[name]


def same_label(task):
    source, target = task.graph.edges()
    apart = source != target
    return (task.label[source] == task.label[target])[apart].float().mean()


def test_texas_is_what_the_card_says(real):
    assert len(cards.read("texas").split_notes) == 2
    task = hgat.data.load("texas", real("texas"))
    assert (task.graph.num_nodes(), task.graph.num_edges(), task.num_classes) == (183, 325, 5)
    assert torch.bincount(task.label).tolist() == [33, 1, 18, 101, 30]
    source, target = task.graph.edges()
    assert int((source == target).sum()) == 16
    assert int(task.graph.has_edges_between(target, source)[source != target].sum()) == 60
    assert len(task.splits) == 10
    for parts in task.splits:
        assert [len(ids) for ids in parts.values()] == [87, 59, 37]
        assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(183))
    # The class of one node trains in six splits alone.
    alone = (task.label == 1).nonzero().item()
    assert [k for k, parts in enumerate(task.splits) if alone not in parts["train"]] == [0, 1, 2, 7]
    assert torch.allclose(task.feat["_N"].sum(1), torch.ones(183))
    assert same_label(task) < 0.1


def test_actor_is_what_the_card_says(real):
    task = hgat.data.load("actor", real("actor")).with_split(9)
    assert (task.graph.num_nodes(), task.graph.num_edges(), task.num_classes) == (7600, 30019, 5)
    assert torch.bincount(task.label).tolist() == [853, 1337, 1630, 1815, 1965]
    source, target = task.graph.edges()
    assert int((source == target).sum()) == 93
    assert torch.equal(task.train, task.splits[9]["train"]) and not torch.equal(task.train, task.splits[0]["train"])
    for parts in task.splits:
        assert [len(ids) for ids in parts.values()] == [3648, 2432, 1520]
        assert len(torch.cat(list(parts.values())).unique()) == 7600
    feat = hgat.data.load("actor", real("actor"), normalize="none").feat["_N"]
    assert feat.shape == (7600, 932) and set(feat.unique().tolist()) == {0.0, 1.0}
    assert feat[4873].nonzero().ravel().tolist() == [77, 92, 111, 521, 770]  # the file's first line
    last = feat[:, 931] == 1
    assert int(last.sum()) == 172 and feat[last].sum() == 172
    assert abs(same_label(task) - 0.22) < 0.01
    assert torch.bincount(task.label[task.train]).tolist() == [415, 660, 804, 861, 908]  # ids, not lines


@pytest.mark.parametrize("name", ["texas", "actor", "cornell", "wisconsin", "chameleon", "squirrel"])
def test_every_card_of_the_form_is_complete(name):
    card = cards.read(name)
    assert [file.role for file in card.files] == ["nodes", "edges", *(f"split{k}" for k in range(10))]
    assert card.layout["features"] in ("binary", "indices") and card.layout["num_classes"] == card.counts["classes"]
    assert sum(card.counts[part] for part in ("train", "val", "test")) == card.counts["nodes"]
    for file in card.files:
        assert file.url.startswith("https://raw.githubusercontent.com/graphdml-uiuc-jlu/geom-gcn/master/")
        assert f"/{card.folder}" in file.url and (file.sha256 is not None) == (name in ("texas", "actor"))
