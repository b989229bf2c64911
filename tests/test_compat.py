"""hgat.compat: DGL and OGB on a torch that they were not built for, and untouched on one that they were."""

import doctest
import importlib
import importlib.util
import inspect
import json
import os
import pickle
import pydoc
import re
import subprocess
import sys
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from hgat import compat

dgl = importlib.import_module("dgl")  # not before hgat, which lets it be imported

TORCH = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
NATIVE = compat.unavailable("graphbolt") is None

needs_stub = pytest.mark.skipif(NATIVE, reason="DGL ships GraphBolt for this torch")
needs_native = pytest.mark.skipif(not NATIVE, reason="DGL ships no GraphBolt for this torch")


def run(code, *flags, **environment):
    """Run code in a fresh Python process; its standard output."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load_copy():
    """Another copy of the module, loaded by path as the start-up hook does."""
    spec = importlib.util.spec_from_file_location("compat_copy", compat.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shipped(folder):
    """The torch versions in the names of DGL's library files."""
    files = os.listdir(os.path.join(dgl.__path__[0], folder))
    return [re.search(r"pytorch_([\d.]+\d)\.", name)[1] for name in files if "pytorch_" in name]


# ---- the finder ----


def test_needs_neither_torch_nor_dgl():
    # -S hides site-packages: DGL is not installed as far as this process knows.
    code = f"""
import sys
from importlib.machinery import SourceFileLoader
before = set(sys.modules)
compat = type(sys)("compat")
SourceFileLoader("compat", {compat.__file__!r}).exec_module(compat)
compat.install()
print(sorted(set(sys.modules) - before))
import json, decimal
for name in ("dgl", "dgl.graphbolt", "ogb", "ogb.nodeproppred"):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(error)
"""
    lines = run(code, "-S", "-E").splitlines()
    assert lines[0] == "[]"
    assert lines[1:] == [f"No module named '{name}'" for name in ("dgl", "dgl", "ogb", "ogb")]


def test_install_is_idempotent_and_replaces_other_copies(monkeypatch):
    others = [finder for finder in sys.meta_path if not hasattr(finder, "hgat_compat")]
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = list(sys.meta_path)
    compat.install()
    assert sys.meta_path == before
    copy = load_copy()
    copy.install()
    copy.install()
    assert type(sys.meta_path[0]) is copy._Finder
    assert sys.meta_path[1:] == others


def test_other_modules_pass_the_finder():
    finder = compat._Finder()
    for name in ("ogb", "dgl.nn", "dglx.graphbolt", "dgl_x", "graphbolt", "ogb.utils", "json", "torch.nn"):
        assert finder.find_spec(name) is None


@pytest.mark.slow
def test_failed_import_is_forgotten():
    """`import dgl` fails, then `import hgat`: DGL must be whole, and OGB must have its DGL loaders."""
    code = """
import sys
sys.modules["outdated"] = None  # no question to PyPI from the OGB that hgat has not seen yet
sys.meta_path[:] = [finder for finder in sys.meta_path if not hasattr(finder, "hgat_compat")]
class Break:
    def find_spec(self, name, path=None, target=None):
        if name == "dgl.graphbolt":
            raise ImportError("broken on purpose")
sys.meta_path.insert(0, Break())
try:
    import dgl
except ImportError as error:
    print(error)
import ogb.nodeproppred
print(hasattr(ogb.nodeproppred, "DglNodePropPredDataset"), "dgl.backend" in sys.modules)
del sys.meta_path[0]
import hgat
import dgl
import dgl.backend, dgl.distributed.rpc, dgl.ndarray
loaded = [name.rpartition(".") for name in sys.modules if name.startswith("dgl.")]
print([name for name in loaded if not hasattr(sys.modules[name[0]], name[2])])
print(dgl.rand_graph(5, 7).num_edges())
from ogb.nodeproppred import DglNodePropPredDataset
"""
    assert run(code).splitlines() == ["broken on purpose", "False True", "[]", "7"]


# ---- GraphBolt and dgl.sparse ----


@needs_stub
@pytest.mark.parametrize(
    "statement, error",
    [
        ("import dgl.graphbolt as gb; gb.ItemSet", AttributeError),
        ("from dgl import graphbolt; graphbolt.fused_csc_sampling_graph(1, 2)", AttributeError),
        ("from dgl.graphbolt import ItemSet", ImportError),
        ("from dgl.graphbolt import *", ImportError),
        ("import dgl.graphbolt.impl", ImportError),
        ("from dgl.graphbolt.impl import NeighborSampler", ImportError),
        ("import dgl; dgl.graphbolt.FusedCSCSamplingGraph(None)", ImportError),
        ("import dgl; dgl.graphbolt.FusedCSCSamplingGraph.csc_indptr", AttributeError),
    ],
)
def test_stub_says_which_torch_graphbolt_needs(statement, error):
    with pytest.raises(error) as caught:
        exec(statement, {})
    message = str(caught.value)
    assert message == compat.unavailable("graphbolt")
    assert re.findall(r"[\d.]+\d", message.partition("for torch ")[2].partition(" only")[0]) == sorted(
        shipped("graphbolt")
    )
    assert f"this is torch {torch.__version__}" in message
    assert message.count(". ") == 0 and message.endswith(".") and "\n" not in message


@needs_stub
def test_stub_answers_probes():
    """What inspect, pickle, doctest and others ask of every module must not raise."""
    gb = dgl.graphbolt
    for name in ("ItemSet", "__file__", "__wrapped__", "__getstate__no", "_repr_html_"):
        assert not hasattr(gb, name)
    assert getattr(gb, "ItemSet", None) is None
    assert inspect.getmodule(gb) is gb and inspect.unwrap(gb) is gb
    assert inspect.getmodule(dgl.DGLGraph).__name__ == "dgl.heterograph"
    assert not any(test.examples for test in doctest.DocTestFinder().find(gb))
    assert "torch" in pydoc.render_doc(gb) and "stub" in repr(gb)
    lost = types.FunctionType((lambda: 0).__code__, {}, "lost")
    lost.__module__ = None
    assert pickle.whichmodule(lost, "lost") == "__main__"  # asks every module for its attribute `lost`
    with pytest.raises(AttributeError, match="has no attribute '__file__'"):
        _ = gb.__file__
    assert importlib.import_module("dgl.graphbolt") is gb


@pytest.mark.slow
def test_partition_server_formats_a_graph():
    """DGL's server asks isinstance(graph, graphbolt.FusedCSCSamplingGraph) of graphs that are DGL's own."""
    from dgl.distributed.dist_graph import _format_partition

    assert _format_partition(dgl.rand_graph(5, 7), ["csc"]).num_edges() == 7


@needs_stub
@pytest.mark.parametrize("statement", ["import dgl.sparse", "from dgl.sparse import spmatrix", "graph.adj()"])
def test_sparse_is_refused_with_one_sentence(statement):
    with pytest.raises(ImportError) as caught:
        exec(statement, {"graph": dgl.rand_graph(3, 5)})
    assert str(caught.value) == compat.unavailable("sparse")
    assert shipped("dgl_sparse")[0] in str(caught.value) and torch.__version__ in str(caught.value)


@pytest.mark.slow
@needs_native
def test_native_graphbolt_samples():
    gb = dgl.graphbolt
    assert gb.__file__.startswith(dgl.__path__[0])
    items = gb.ItemSet(torch.arange(20), names="seed_nodes")
    batches = [batch.seed_nodes.tolist() for batch in gb.ItemSampler(items, batch_size=7)]
    assert sum(batches, []) == list(range(20)) and len(batches) == 3
    # In-edges of 0: 1 and 2; of 1: 0; of 2: 0 and 1.
    graph = gb.fused_csc_sampling_graph(torch.tensor([0, 2, 3, 5]), torch.tensor([1, 2, 0, 0, 1]))
    sampled = graph.sample_neighbors(torch.tensor([0, 2]), torch.LongTensor([-1])).sampled_csc
    assert sampled.indptr.tolist() == [0, 2, 4] and sampled.indices.tolist() == [1, 2, 0, 1]
    assert gb.from_dglgraph(dgl.rand_graph(5, 7), is_homogeneous=True).total_num_edges == 7
    assert dgl.rand_graph(5, 7).adj().shape == (5, 5)  # by dgl.sparse


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """A folder that DGL takes its libraries from; gives a function that adds one for a torch version."""
    libinfo = sys.modules["dgl._ffi.libinfo"]
    monkeypatch.setattr(libinfo, "find_lib_path", lambda: [str(tmp_path / "libdgl.so")])
    for part in ("graphbolt", "sparse"):
        monkeypatch.delitem(sys.modules, f"dgl.{part}", raising=False)

    def add(version, folder="graphbolt"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"lib{folder}_pytorch_{version}.so").touch()

    return add


@pytest.fixture
def torchdata(tmp_path, monkeypatch):
    """Gives a function that installs a torchdata with the given files instead of the real one."""

    def install(**files):
        package = tmp_path / "path" / "torchdata"
        package.mkdir(parents=True)
        for name, text in {"__init__": "", **files}.items():
            file = package / (name.replace("__in__", "/") + ".py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchdata"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(str(package.parent))

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchdata"]:
        del sys.modules[name]


def test_library_for_this_torch_leaves_dgl_alone(libraries, torchdata):
    libraries(torch.__version__.partition("+")[0])
    libraries(torch.__version__.partition("+")[0], "dgl_sparse")
    torchdata(datapipes="", dataloader2="")
    finder = compat._Finder()
    assert finder.find_spec("dgl.graphbolt") is None
    assert finder.find_spec("dgl.graphbolt.impl") is None
    assert finder.find_spec("dgl.sparse") is None


def test_versions_are_read_from_the_files(libraries):
    libraries("9.10.0")
    libraries("9.9.1")
    libraries("9.9.0")
    assert compat._Finder().find_spec("dgl.graphbolt") is not None
    reason = compat.unavailable("graphbolt")
    assert "for torch 9.9.0, 9.9.1 and 9.10.0 only" in reason
    assert "ships no sparse-matrix library" in compat.unavailable("sparse")


@pytest.mark.parametrize(
    "files, sentence",
    [
        ({}, r"GraphBolt needs torchdata\.datapipes, which torchdata \S+ lacks and 0\.9 and earlier have\."),
        (
            {"datapipes": "import a_module_of_torch_that_is_gone", "dataloader2": ""},
            r"GraphBolt needs torchdata\.datapipes, which .* cannot import: "
            r"No module named 'a_module_of_torch_that_is_gone'\.",
        ),
        ({"__init__": "raise RuntimeError('damaged')"}, r"GraphBolt needs .* cannot import: damaged\."),
    ],
)
def test_package_that_graphbolt_needs(libraries, torchdata, files, sentence):
    libraries(torch.__version__.partition("+")[0])
    torchdata(**files)
    assert compat._Finder().find_spec("dgl.graphbolt").loader is not None
    assert re.fullmatch(sentence, compat.unavailable("graphbolt"))


def test_package_that_is_not_installed(libraries, torchdata, monkeypatch):
    libraries(torch.__version__.partition("+")[0])
    torchdata(datapipes="", dataloader2="")
    monkeypatch.setattr(compat, "_GRAPHBOLT_NEEDS", ("absent_package",))
    monkeypatch.setitem(compat._PARTS, "graphbolt", ("GraphBolt", "graphbolt", ("torchdata.datapipes", "absent")))
    assert compat.unavailable("graphbolt") == "GraphBolt needs the package absent, which is not installed."


# ---- what DGL says at its first import ----


def first_import(home, **environment):
    """Import hgat and DGL in a fresh process of a user without a past: (standard output, standard error)."""
    code = "import os, hgat, dgl; print(dgl.backend.backend_name, 'DGLBACKEND' in os.environ)"
    kept = {key: value for key, value in os.environ.items() if key not in ("DGLBACKEND", "DGLDEFAULTDIR")}
    environment = {**kept, "HOME": str(home), "USERPROFILE": str(home), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment, check=True
    )
    return done.stdout, done.stderr


@pytest.mark.slow
def test_first_import_says_nothing_and_writes_nothing(tmp_path):
    assert first_import(tmp_path) == ("pytorch False\n", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_backend_that_was_chosen_stays_chosen(tmp_path):
    (tmp_path / "config.json").write_text('{"backend": "pytorch"}')
    assert first_import(tmp_path, DGLDEFAULTDIR=str(tmp_path)) == ("pytorch False\n", "")
    assert first_import(tmp_path, DGLBACKEND="pytorch") == ("pytorch True\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_backend_that_dgl_does_not_know_is_still_reported(where, tmp_path):
    (tmp_path / "config.json").write_text('{"backend": "abacus"}')
    chosen = {"DGLBACKEND": "abacus"} if where == "environment" else {}
    out, errors = first_import(tmp_path, DGLDEFAULTDIR=str(tmp_path), **chosen)
    assert "DGL backend not selected or invalid" in errors and out.startswith("Setting the default backend")


# ---- what newer releases of DGL's dependencies no longer take ----


def downloads(monkeypatch, dataset, write):
    """Let a data set of DGL's find the files that `write(folder)` makes, instead of asking the network."""

    def download(self):
        Path(self.raw_path).mkdir(parents=True)
        write(Path(self.raw_path))

    monkeypatch.setattr(dataset, "download", download)


@pytest.mark.parametrize("links", ["links", "edges"])  # NetworkX wrote the one before 3.6 and writes the other since
@pytest.mark.parametrize("name", ["PPIDataset", "LegacyPPIDataset"])
def test_ppi(name, links, tmp_path, monkeypatch):
    nodes, dataset = 24 * 3, getattr(dgl.data, name)

    def write(folder):
        ring = [{"source": k, "target": k // 3 * 3 + (k + 1) % 3} for k in range(nodes)]
        content = {"directed": True, "multigraph": False, "graph": {}, "nodes": [{"id": k} for k in range(nodes)]}
        for mode in ("train", "valid", "test"):
            (folder / f"{mode}_graph.json").write_text(json.dumps({**content, links: ring}))
            np.save(folder / f"{mode}_labels.npy", np.ones((nodes, 121), bool))
            np.save(folder / f"{mode}_feats.npy", np.arange(nodes * 50.0).reshape(nodes, 50))
            np.save(folder / f"{mode}_graph_id.npy", 1 + np.arange(nodes) // 3)

    downloads(monkeypatch, dataset, write)
    for mode, count in {"train": 20, "valid": 2, "test": 2}.items():
        for _ in ("from the files", "from DGL's cache"):
            data = dataset(mode, raw_dir=str(tmp_path))
            assert len(data) == count
            graph = data[1] if name == "PPIDataset" else data[1][0]
            src, dst = graph.edges()
            assert sorted(zip(src.tolist(), dst.tolist(), strict=True)) == [(0, 1), (1, 2), (2, 0)]


@pytest.mark.parametrize("name", ["TUDataset", "LegacyTUDataset"])
def test_tu(name, tmp_path, monkeypatch):
    dataset = getattr(dgl.data, name)

    def write(folder):
        for part in (folder, folder / "TINY"):
            part.mkdir(exist_ok=True)
            for file, text in {
                "A": "1, 2\n2, 1\n3, 4\n4, 3\n5, 3\n",
                "graph_indicator": "1\n1\n2\n2\n2\n",
                "graph_labels": "1\n2\n",
                "node_labels": "1\n2\n1\n2\n1\n",
            }.items():
                (part / f"TINY_{file}.txt").write_text(text)

    downloads(monkeypatch, dataset, write)
    for options in [{}] if name == "TUDataset" else [{}, {"use_pandas": True}]:
        data = dataset("TINY", raw_dir=str(tmp_path), force_reload=True, **options)
        assert len(data) == 2 and data.num_labels == 2 and data.max_num_node == 3
        assert [(graph.num_nodes(), graph.num_edges(), int(label)) for graph, label in data] == [(2, 2, 0), (3, 3, 1)]


class SumOf(torch.nn.Module):
    """Class 1 is the more likely the more features one node of the graph, or of its first type, has."""

    def __init__(self, node):
        super().__init__()
        self.node = node

    def forward(self, graph, feat):
        at = feat["u"] if isinstance(feat, dict) else feat
        score = at[self.node].sum()
        return torch.stack([-score, score]).unsqueeze(0)


def test_subgraphx_finds_the_node_that_decides():
    torch.manual_seed(0), np.random.seed(0)
    graph = dgl.to_bidirected(dgl.graph(([0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6])))
    explainer = dgl.nn.SubgraphX(SumOf(5), num_hops=1, num_rollouts=10, shapley_steps=20, node_min=2)
    assert 5 in explainer.explain_graph(graph, torch.ones(7, 2), target_class=1).tolist()


def test_heterosubgraphx_finds_the_node_that_decides():
    torch.manual_seed(0), np.random.seed(0)
    ring = [0, 1, 2, 3], [1, 2, 3, 0]
    graph = dgl.heterograph({("u", "f", "u"): ring, ("u", "p", "g"): ring, ("g", "q", "u"): ring})
    explainer = dgl.nn.HeteroSubgraphX(SumOf(2), num_hops=1, num_rollouts=10, shapley_steps=20, node_min=2)
    feat = {"u": torch.ones(4, 2), "g": torch.ones(4, 2)}
    assert 2 in explainer.explain_graph(graph, feat, target_class=1)["u"].tolist()


def loader(**options):
    sampler = dgl.dataloading.NeighborSampler([2])
    return dgl.dataloading.DataLoader(dgl.rand_graph(7, 11), torch.arange(7), sampler, batch_size=4, **options)


def test_a_loader_without_workers_is_not_told_to_pin_them():
    batches = loader()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(batches)) == len(list(batches)) == 2
    assert batches.cpu_affinity_enabled is False


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(psutil.Process, "cpu_affinity"), reason="DGL does not advise it here")
def test_a_loader_with_workers_is_told_what_it_can_do():
    with pytest.warns(UserWarning, match="CPU affinity opt is not enabled"):
        iter(loader(num_workers=1))


def test_mending_twice_changes_nothing():
    """The start-up hook's copy of the file has been there before, or DGL was imported first."""
    copy = load_copy()
    assert set(copy._MENDS) <= set(sys.modules)
    for name, mend in copy._MENDS.items():
        before = dict(vars(sys.modules[name]))
        mend(sys.modules[name])
        assert dict(vars(sys.modules[name])) == before


@pytest.mark.slow
def test_modules_that_came_first_are_mended():
    code = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if not hasattr(finder, "hgat_compat")]
from importlib.machinery import SourceFileLoader
import hgat
names = list(hgat.compat._MENDS)
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "_Finder"]
sys.modules["dgl.graphbolt"] = type(sys)("dgl.graphbolt")
import dgl
def mended():
    found = [vars(sys.modules[name]) for name in names]
    loader = sys.modules["dgl.dataloading.dataloader"].DataLoader
    return [type(found[0]["json_graph"]).__name__, "max" in found[1], loader.__iter__.__module__, "int" in found[3]]
print(mended())
hgat.compat.install()
print(mended())
"""
    before, after = run(code).splitlines()
    assert before == "['module', False, 'dgl.dataloading.dataloader', False]"
    assert after == "['SimpleNamespace', True, 'hgat.compat', True]"


# ---- OGB ----


@pytest.mark.slow
def test_importing_ogb_stays_off_the_network(tmp_path):
    """OGB must not even import `outdated`, and leaves it to others as it was."""
    (tmp_path / "outdated.py").write_text("print('outdated imported')\ndef check_outdated(*args): print('asked')")
    code = """
import os, socket, sys, threading
os.environ.pop("OUTDATED_IGNORE", None)
def refuse(*args, **kwargs):
    print("network")
    raise OSError("no network in this test")
socket.socket.connect = socket.getaddrinfo = refuse
import hgat
started = threading.Thread.start
def start(thread):
    print("thread", thread)
    started(thread)
threading.Thread.start = start
import ogb, ogb.nodeproppred, ogb.linkproppred, ogb.graphproppred
threading.Thread.start = started
print(ogb.__version__ == ogb.version.__version__ != "", ogb.version.check_outdated)
print("outdated" in sys.modules, "OUTDATED_IGNORE" in os.environ, type(ogb.version.__loader__).__name__)
import outdated
"""
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    lines = run(code, PYTHONPATH=path).splitlines()
    assert lines == ["True None", "False False SourceFileLoader", "outdated imported"]


@pytest.fixture
def ogb(tmp_path, monkeypatch):
    """Tiny data sets written by OGB's own DatasetSaver; gives a function name -> meta dictionary."""
    from ogb.io import DatasetSaver

    def refuse(*args, **kwargs):
        raise AssertionError("OGB tried to ask or to download")

    monkeypatch.setattr("builtins.input", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    edges = np.array([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]])
    labels = np.arange(11).reshape(-1, 1) % 3
    split = {"train": np.arange(5), "valid": np.arange(5, 8), "test": np.arange(8, 11)}
    mapping = tmp_path / "mapping"
    mapping.mkdir()
    (mapping / "README.md").touch()

    def save(name):
        hetero, kind = name == "ogbn-typed", name.partition("-")[0]
        feat = np.arange(33, dtype="float32").reshape(11, 3)
        saver = DatasetSaver(name, hetero, version=1, root=str(tmp_path / "written"))
        if hetero:
            graph = {
                "edge_index_dict": {("a", "r", "b"): edges},
                "num_nodes_dict": {"a": 11, "b": 5},
                "node_feat_dict": {"a": feat},
                "edge_feat_dict": None,
            }
        else:
            graph = {"edge_index": edges, "num_nodes": 11, "node_feat": feat, "edge_feat": None}
        saver.save_graph_list([graph] * (11 if kind == "ogbg" else 1))
        parts = split
        if hetero:
            parts = {key: {"a": part} for key, part in split.items()}
        if kind == "ogbl":
            parts = {
                key: {"edge": np.stack([part, part], 1), "weight": part.astype("float32"), "type": ["a", "b"]}
                for key, part in split.items()
            }
        else:
            saver.save_target_labels({"a": labels} if hetero else labels)
        saver.save_split(parts, "random")
        saver.copy_mapping_dir(str(mapping))
        saver.save_task_info("multiclass classification", "acc", num_classes=3)
        return saver.get_meta_dict(), parts

    return save


LOADERS = [
    ("ogbn-tiny", "ogb.nodeproppred", "NodePropPredDataset", "get_idx_split"),
    ("ogbn-typed", "ogb.nodeproppred", "NodePropPredDataset", "get_idx_split"),
    ("ogbl-tiny", "ogb.linkproppred", "LinkPropPredDataset", "get_edge_split"),
    ("ogbg-tiny", "ogb.graphproppred", "GraphPropPredDataset", "get_idx_split"),
]


def equal(one, other):
    if isinstance(one, dict):
        return set(one) == set(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("protocol", [2, 4])  # OGB's published splits hold both
@pytest.mark.parametrize("flavour", ["Dgl", ""])
@pytest.mark.parametrize("name, module, loader, split_of", LOADERS)
def test_ogb_reads_what_it_wrote(ogb, name, module, loader, split_of, flavour, protocol):
    meta, split = ogb(name)
    written = list(Path(meta["dir_path"], "split").rglob("*.pt"))
    for file in written:
        torch.save(torch.load(file, weights_only=False), file, pickle_protocol=protocol)
    assert written
    load = getattr(importlib.import_module(module), flavour + loader)
    first, again = load(name, meta_dict=meta), load(name, meta_dict=meta)  # the second from OGB's own cache
    for dataset in (first, again):
        assert equal(getattr(dataset, split_of)(), split)
        graph = dataset[0] if name == "ogbl-tiny" else dataset[0][0]
        if flavour == "Dgl":
            assert graph.num_edges() == 5 and isinstance(graph, dgl.DGLGraph)
        elif name == "ogbn-typed":
            assert graph["edge_index_dict"]["a", "r", "b"].shape == (2, 5)
        else:
            assert graph["edge_index"].tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]]
            assert graph["node_feat"].dtype == np.float32 and graph["node_feat"][10, 2] == 32


class Payload:
    """Unpickled by a loader that trusts its file, it makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"mkdir '{self.path}'",)


@pytest.mark.parametrize("loader", ["DglNodePropPredDataset", "NodePropPredDataset"])
def test_ogb_still_refuses_a_split_that_runs_code(ogb, tmp_path, loader):
    meta, _ = ogb("ogbn-tiny")
    dataset = getattr(importlib.import_module("ogb.nodeproppred"), loader)("ogbn-tiny", meta_dict=meta)
    torch.save({"train": Payload(tmp_path / "ran")}, f"{meta['dir_path']}/split/random/split_dict.pt")
    with pytest.raises(pickle.UnpicklingError):
        dataset.get_idx_split()
    assert not (tmp_path / "ran").exists()


UNSAFE = {
    "code": Payload("PATH"),
    "objects": np.array([{}, None], dtype=object),
    "structured": np.zeros(2, dtype=[("a", "O")]),
    "text": np.array(["a"]),
    "class": torch.nn.Linear,
    "module": torch.nn.Linear(1, 1),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("what", UNSAFE)
def test_ogb_refuses_an_unsafe_cache(ogb, tmp_path, what, protocol):
    from ogb.nodeproppred import NodePropPredDataset

    meta, _ = ogb("ogbn-tiny")
    NodePropPredDataset("ogbn-tiny", meta_dict=meta)
    value = UNSAFE[what]
    if isinstance(value, Payload):
        value.path = str(tmp_path / "ran")
    cache = f"{meta['dir_path']}/processed/data_processed"
    torch.save({"graph": value, "labels": 0}, cache, pickle_protocol=protocol)
    with pytest.raises(pickle.UnpicklingError, match="expected "):
        NodePropPredDataset("ogbn-tiny", meta_dict=meta)
    assert not (tmp_path / "ran").exists()


def ogbs_readers():
    """OGB's modules that call torch.load, found in its source: none may be forgotten."""
    home = Path(importlib.import_module("ogb").__file__).parent
    for path in sorted(home.rglob("*.py")):
        if "torch.load(" in path.read_text():
            yield ".".join(["ogb", *path.relative_to(home).with_suffix("").parts])


def test_every_reader_of_ogbs_has_its_own_load():
    names = list(ogbs_readers())
    assert len(names) > 12
    for name in names:
        loader = compat._Finder().find_spec(name, importlib.import_module(name.rpartition(".")[0]).__path__).loader
        assert isinstance(loader, compat._WrappingLoader), name


HOSTILE = """
import os, subprocess, sys, zipfile
sys.path.insert(0, {tests!r})
{first}
import torch
from hostile import hostile
for protocol in range(6):
    for what, content in hostile(protocol).items():
        with zipfile.ZipFile({file!r}, "w") as archive:
            archive.writestr("a/data.pkl", content)
            archive.writestr("a/version", "3")
            archive.writestr("a/byteorder", sys.byteorder)
        for load in {loads}:
            try:
                load({file!r})
            except Exception as error:
                if type(error).__name__ != "UnpicklingError":
                    print(protocol, what, type(error), error)
            else:
                print(protocol, what, "read")
print("whole")
"""


@pytest.mark.slow
def test_no_file_ends_the_process(tmp_path):
    """OGB's readers in a process of their own, where a signal would show."""
    modules = [
        "ogb.nodeproppred.dataset",
        "ogb.linkproppred.dataset_dgl",
        "ogb.graphproppred.dataset",
        "ogb.lsc.mag240m",
    ]
    first = "import hgat, " + ", ".join(modules)
    loads = f"[{', '.join(f'{name}.torch.load' for name in modules)}]"
    code = HOSTILE.format(tests=str(Path(__file__).parent), first=first, file=str(tmp_path / "a.pt"), loads=loads)
    assert run(code) == "whole\n"


@pytest.mark.slow
def test_torch_stays_as_it_is(tmp_path):
    """What torch alone refuses, it refuses after hgat, and its list of safe types is its own."""
    torch.save({"a": np.arange(3)}, tmp_path / "array.pt")
    torch.save({"a": torch.arange(3)}, tmp_path / "tensor.pt")
    code = f"""
import torch
get = getattr(torch.serialization, "get_safe_globals", list)
load = torch.load
before = list(get())
import hgat, dgl
middle = list(get())
import ogb.nodeproppred, ogb.linkproppred, ogb.graphproppred, ogb.io, ogb.lsc
import ogb.nodeproppred.dataset as module
ours = [item for item in get() if item not in middle and "numpy" in str(item)]
print(middle == before, ours, torch.load is load, module.torch is torch, module.torch.tensor is torch.tensor)
print(torch.load({str(tmp_path / "tensor.pt")!r}, weights_only=True))
print(module.torch.load({str(tmp_path / "array.pt")!r}))
try:
    print(torch.load({str(tmp_path / "array.pt")!r}, weights_only=True))
except Exception as error:
    print(type(error).__name__)
"""
    alone = f"""
import torch
try:
    print(torch.load({str(tmp_path / "array.pt")!r}, weights_only=True))
except Exception as error:
    print(type(error).__name__)
"""
    lines = run(code).splitlines()
    assert lines[0] == "True [] True False True"
    assert lines[1:3] == ["{'a': tensor([0, 1, 2])}", "{'a': array([0, 1, 2])}"]
    assert lines[3:] == run(alone).splitlines()


def test_a_caller_who_trusts_a_file_is_asked_no_more(ogb, tmp_path):
    """And PyG's files, which hold PyG's classes, are torch's own to judge."""
    import ogb.nodeproppred.dataset as loader

    torch.save({"a": torch.nn.Linear}, tmp_path / "a.pt")
    assert loader.torch.load(tmp_path / "a.pt", weights_only=False) == {"a": torch.nn.Linear}
    with open(tmp_path / "a.pt", "rb") as file:
        assert loader.torch.load(file, weights_only=False) == {"a": torch.nn.Linear}
    asked = []
    fake = types.SimpleNamespace(load=lambda *args, **kwargs: asked.append((args, kwargs)), __name__="x_pyg")
    module = types.SimpleNamespace(torch=fake, __name__="ogb.nodeproppred.dataset_pyg")
    compat._read_safely(module)
    module.torch.load(tmp_path / "a.pt", "cpu")
    assert asked == [((tmp_path / "a.pt", "cpu"), {})]
    torch.save({"a": np.array([None])}, tmp_path / "b.pt")
    with pytest.raises(pickle.UnpicklingError):
        module.torch.load(tmp_path / "b.pt")


@pytest.mark.parametrize("written_by", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_arrays_of_numpy_1_and_2(ogb, tmp_path, written_by, protocol):
    """NumPy 2 renamed the module that a pickled array names: files of either can be read by either."""
    import ogb.nodeproppred.dataset as loader

    value = {
        "ids": np.arange(3),
        "flags": np.array([True, False]),
        "scalar": np.float32(1.5),
        **{letter: np.zeros(2, dtype=letter) for letter in "bhilqBHILQefdFD"},
    }
    source, target = tmp_path / "source.pt", tmp_path / "target.pt"
    torch.save(value, source, pickle_protocol=protocol)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry.endswith("data.pkl"):
                assert data[1] == protocol and b"multiarray\n_reconstruct" in data
                data = re.sub(rb"numpy\._?core\.multiarray", written_by.encode(), data)
            new.writestr(entry, data)
    assert equal(loader.torch.load(target), value)


@pytest.mark.slow
def test_the_hooks_copy_reads_ogbs_files_without_hgat(tmp_path):
    torch.save({"a": np.arange(3)}, tmp_path / "a.pt", pickle_protocol=4)
    code = f"""
import sys
from importlib.machinery import SourceFileLoader
sys.meta_path[:] = [finder for finder in sys.meta_path if not hasattr(finder, "hgat_compat")]
compat = type(sys)("_hgat_compat")
compat.__file__ = {compat.__file__!r}
SourceFileLoader("_hgat_compat", compat.__file__).exec_module(compat)
compat.install()
import ogb.nodeproppred.dataset as module
print(module.torch.load({str(tmp_path / "a.pt")!r}), "hgat" in sys.modules)
"""
    assert run(code) == "{'a': array([0, 1, 2])} False\n"
