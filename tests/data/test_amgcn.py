import zipfile

import pytest
import torch

import hgat.data
from hgat.data import amgcn
from hgat.errors import DataError
from hgat.graph import knn_graph

NODES = 7
FILES = {
    "toy.feature": "1 0 0.5\n0\t1\t0\n0 0 0\n1 1 1\n2e-1 0 -1\n1 0 0\n0 0 1\n",
    "toy.label": "0\n1\n0\n1\n0\n1\n2\n",
    "toy.edge": "0 1\n1 0\n2 3\n3 2\n3 3\n4 5\n",
    "train1.txt": "1\n0\n6\n",
    "test1.txt": "3\n",
    "train2.txt": "0\n1\n",
    "test2.txt": "3\n2\n",
    "notes.txt": "not read\n",
}


@pytest.fixture(params=["zip", "zip of a folder", "folder"])
def load(request, small, tmp_path):
    def run(changes=(), name="amgcn-acm", **options):
        files = {**FILES, **dict(changes)}
        files = {file: text for file, text in files.items() if text is not None}
        card = small(name)
        if request.param == "folder":
            for file, text in files.items():
                (tmp_path / file).write_bytes(text.encode())
            (tmp_path / "knn").mkdir(exist_ok=True)
            (tmp_path / "knn" / "c2.txt").write_text("?")
            return amgcn.load(card, tmp_path, path=str(tmp_path), **{"label_rate": 1, "val": 2, **options})
        with zipfile.ZipFile(tmp_path / "acm.zip", "w") as archive:
            for file, text in {**files, "knn/c2.edge": "?"}.items():
                archive.writestr(f"toy/{file}" if request.param == "zip of a folder" else file, text)
        return amgcn.load(card, tmp_path, **{"label_rate": 1, "val": 2, **options})

    return run


def test_what_the_files_say(load):
    data = load()
    assert data.feat["_N"].tolist() == [[1, 0, 0.5], [0, 1, 0], [0, 0, 0], [1, 1, 1], [pytest.approx(0.2), 0, -1],
                                        [1, 0, 0], [0, 0, 1]]  # fmt: skip
    assert data.label.tolist() == [0, 1, 0, 1, 0, 1, 2] and data.num_classes == 3
    pairs = list(zip(*(ends.tolist() for ends in data.graph.edges()), strict=True))
    assert pairs == [(0, 1), (1, 0), (2, 3), (3, 2), (3, 3), (4, 5), (5, 4)]
    assert (data.train.tolist(), data.test.tolist()) == ([1, 0, 6], [3])
    assert load(label_rate=2).test.tolist() == [3, 2]


def test_validation_is_cut_from_outside_train_and_test_and_said(load):
    drawn = set()
    for seed in range(20):
        data = load(val_seed=seed)
        assert len(data.val) == 2 and set(data.val.tolist()) <= {2, 4, 5}
        assert torch.equal(data.val, load(val_seed=seed).val)
        drawn |= set(data.val.tolist())
    assert drawn == {2, 4, 5}
    assert "2 of the 3 nodes outside train and test were drawn." in data.notes[-2]
    of_val = data.label[data.val].bincount(minlength=3).tolist()
    assert data.notes[-1] == f"Nodes of each class: train 1, 1, 1; val {str(of_val)[1:-1]}; test 0, 1, 0."
    assert load(val=3).val.tolist() == [2, 4, 5]
    for wrong in (0, 4):
        with pytest.raises(
            DataError, match=f"amgcn-acm.val: expected 1 to 3 nodes outside train and test, got {wrong}"
        ):
            load(val=wrong)


def test_a_class_without_training_nodes_is_counted_and_kept(load):
    assert load({"train1.txt": "1\n0\n"}).notes[-1].startswith("Nodes of each class: train 1, 1, 0; val ")


def test_any_folder_is_read_by_the_name_of_the_form(load, tmp_path):
    load()
    where = tmp_path if (tmp_path / "toy.edge").exists() else tmp_path / "acm.zip"
    data = hgat.data.load("amgcn", path=str(where), label_rate=1, val=2)
    assert data.name == (where.stem if where == tmp_path else "acm") and data.num_classes == 3
    assert all("card" not in note for note in data.notes) and len(data.notes) == 2


WRONG = [
    ({"toy.feature": "1 0 1\n0 1\n"}, "toy.feature: line 2: expected 3 numbers as in the first row, got 2"),
    ({"toy.feature": "1 0 1\n0 x 1\n"}, "toy.feature: line 2: expected numbers between blanks"),
    ({"toy.feature": "\n"}, "toy.feature: expected a row for each node, got none"),
    ({"toy.feature": None}, "expected one file whose name ends in .feature, got none"),
    ({"other.edge": "0 1\n"}, "expected one file whose name ends in .edge, got other.edge, toy.edge"),
    ({"toy.label": "0\n1\n"}, "expected a label for each of the 7 rows of features, got 2"),
    ({"toy.label": "0\n-1\n"}, "toy.label: line 2: expected an integer, got '-1'"),
    ({"toy.label": "0\n7\n"}, "toy.label: line 2: expected numbers from 0 to 6, as there are nodes, got 7"),
    ({"toy.edge": "0 1\n1 7\n"}, "toy.edge: line 2: expected numbers from 0 to 6, as there are nodes, got 7"),
    ({"toy.edge": "0 1 2\n"}, "toy.edge: line 1: expected 2 whole numbers"),
    ({"toy.edge": ""}, "toy.edge: expected at least one line, got none"),
    ({"train1.txt": "1\n1\n"}, "train: expected distinct ids, got 1 repeated"),
    ({"test1.txt": "1\n"}, "test: expected no id of train, got id 1 in both"),
    ({"test1.txt": None}, "expected the file test1.txt, got none"),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG, ids=lambda x: x if isinstance(x, str) else "")
def test_what_does_not_fit_is_one_sentence(load, changes, sentence):
    with pytest.raises(DataError) as error:
        load(changes)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_label_rate_without_files_is_refused(load):
    with pytest.raises(DataError, match=r"label_rate: expected one of those in .*, 1, 2, got 60"):
        load(label_rate=60)


def test_no_archive_is_one_sentence(small, tmp_path):
    for content in (None, b"no archive", b"PK\x03\x04 and no more"):
        path = tmp_path / "a.zip"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match="a.zip: expected a folder or a zip of AM-GCN's form, got"):
            amgcn.load(small("amgcn-acm"), tmp_path, path=str(path))


def test_an_archive_that_lies_of_its_sizes_is_refused(small, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "acm.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file, text in FILES.items():
            archive.writestr(file, text)
    content = bytearray((tmp_path / "acm.zip").read_bytes())
    content[60:70] = bytes(10)  # inside the first member
    (tmp_path / "acm.zip").write_bytes(content)
    with pytest.raises(DataError, match="toy.feature: expected readable data, got"):
        amgcn.load(small("amgcn-acm"), tmp_path, label_rate=1, val=2)
    monkeypatch.setattr(amgcn, "LARGEST", 10)
    with pytest.raises(DataError, match="toy.feature: expected at most 10 bytes"):
        amgcn.load(small("amgcn-acm"), tmp_path, label_rate=1, val=2)


@pytest.mark.parametrize(("name", "sizes"), [("amgcn-acm", (60, 120, 180)), ("amgcn-uai", (380, 760, 1140))])
def test_the_real_files(real, name, sizes):
    root = real(name)
    data = hgat.data.load(name, root, label_rate=20)
    assert len(data.train) == sizes[0] and not set(data.val.tolist()) & set(data.test.tolist())
    again = hgat.data.load(name, root, path=str(root / "amgcn" / f"{name[6:]}.zip"))
    assert (again.name, len(again.train)) == (name[6:], sizes[2])
    if name == "amgcn-acm":
        pairs = {
            form: knn_graph(data.feat["_N"], 5, symmetrize=form).num_edges() // 2 for form in ("union", "official")
        }
        # The authors' list has 7,282: which of several equally alike papers is taken is each program's own.
        assert abs(pairs["official"] - 7282) < 30 and abs(pairs["union"] - 12526) < 30, pairs
