"""OGB's data sets by OGB's own loaders and evaluators, and small stand-ins for them in OGB's format.

`load("ogbn-arxiv")` reads the folder `ogbn_arxiv` under the root of all data sets. It downloads nothing unless told to
and never asks on the terminal, as OGB's loaders do. `python -m hgat.data.ogb sample NAME DIR` writes a small data set
with NAME's schema, which `load` reads as it reads the real one.

Traps of OGB, closed here:
- The loaders ask whether to update a folder of another version and whether to download more than 1 GB.
- MRR ranks a score that is not a number first, and Hits@K is 1 where there are fewer than K negatives.
- An interrupted first read leaves half a cache in `processed/`, which DGL takes for a whole one: relations lose their
  names, features are what memory held. Caches are walked through before they are read, and written beside the data set
  and moved in when they are whole.
"""

import argparse
import itertools
import os
import pickle
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import dgl
import numpy as np
import pandas as pd
import torch
from ogb import graphproppred, linkproppred, nodeproppred
from ogb.utils.features import get_atom_feature_dims, get_bond_feature_dims
from ogb.utils.url import download_url, extract_zip
from torch import Tensor

from hgat.data.dgl_file import check_graphs
from hgat.data.memmap import mapped as on_disk
from hgat.errors import DataError, OutputError, check_shape

__all__ = ["Graphs", "Link", "Node", "folder_of", "load", "main", "names", "write_sample"]

PACKAGES = {"ogbn": nodeproppred, "ogbl": linkproppred, "ogbg": graphproppred}
PARTS = ("train", "valid", "test")
STAND_IN = "Stand-in for"  # how the release note of a sample begins
CACHE = "dgl_data_processed"  # what OGB keeps in `processed/`
ADVICE = "remove its folder processed if an earlier read was interrupted, else write the data set anew"


# ---- what is read ----


@dataclass(frozen=True, eq=False)
class Node:
    """A graph whose nodes of type `target` have labels.

    `graph` keeps the columns that are not features: ndata "year", "species", edata "reltype". `feat` maps every node
    type to [N, F] float32, or to None; a graph of one type has the type `_N`. `edge_feat` is [E, F] float32, or None.
    `label` is [N] int64 with -1 for an unlabelled node where the metric is "acc", and [N, C] as OGB gives it, one
    column of zeros and ones per task, where it is "rocauc". `split` holds int64 ids under "train", "valid", "test".
    `notes` are sentences that belong under every table of results.
    """

    name: str
    graph: dgl.DGLGraph
    feat: dict[str, Tensor | None]
    edge_feat: Tensor | None
    target: str
    label: Tensor
    split: dict[str, Tensor]
    num_outputs: int
    metric: str
    notes: tuple[str, ...] = ()

    def evaluate(self, part, prediction):
        """OGB's score of a part, from 0 to 1; prediction: [its nodes, C], in the order of its ids."""
        truth = self.label[_part(self, part)]
        return _score(self, truth[:, None] if self.metric == "acc" else truth, prediction)


@dataclass(frozen=True, eq=False)
class Link:
    """A graph some of whose links are to be predicted.

    `graph` holds the training links and OGB's columns of them: edata "weight", "year", "reltype", "feat". `feat` is as
    in Node. `split` is as OGB gives it: of each part "edge" or "head", "relation", "tail" and others, and the
    negatives of "valid" and "test".
    """

    name: str
    graph: dgl.DGLGraph
    feat: dict[str, Tensor | None]
    split: dict[str, dict]
    metric: str
    notes: tuple[str, ...] = ()

    def evaluate(self, positive, negative):
        """OGB's scores by name, from 0 to 1; positive: [B], negative: [any], or [B, any] where the metric is "mrr".

        "mrr" comes with "hits@1", "hits@3" and "hits@10". Raises DataError for fewer than K negatives of hits@K.
        """
        positive, negative = _scores("positive", positive), _scores("negative", negative)
        check_shape("positive", positive, ("B", None))
        if self.metric == "mrr":
            check_shape("negative", negative, ("B", len(positive)), ("negatives", None))
        else:
            check_shape("negative", negative, ("negatives", None))
        least = int(self.metric[5:]) if self.metric.startswith("hits@") else 1
        if len(positive) == 0 or negative.shape[-1] < least:
            got = f"{len(positive)} and {negative.shape[-1]}"
            raise DataError(f"{self.metric}: expected 1 link or more and {least} negatives or more, got {got}")
        found = linkproppred.Evaluator(self.name).eval({"y_pred_pos": positive, "y_pred_neg": negative})
        return {name.removesuffix("_list"): float(np.mean(np.asarray(score))) for name, score in found.items()}


@dataclass(frozen=True, eq=False)
class Graphs:
    """Many small graphs with labels.

    `graphs` have OGB's columns: ndata "feat" [N, F] and edata "feat" [E, F], numbers of categories in molecules.
    `label` is as OGB gives it: [graphs, tasks], NaN where unknown, or for ogbg-code2 a list of lists of words.
    `split` holds int64 ids under "train", "valid", "test".
    """

    name: str
    graphs: list[dgl.DGLGraph]
    label: Tensor | list
    split: dict[str, Tensor]
    num_outputs: int
    metric: str
    notes: tuple[str, ...] = ()

    def evaluate(self, part, prediction):
        """OGB's score of a part; prediction: [its graphs, C], or for F1 as many lists of words."""
        ids = _part(self, part)
        if self.metric != "F1":
            return _score(self, self.label[ids], prediction)
        if len(prediction) != len(ids):
            raise DataError(f"{self.name}: prediction: expected {len(ids)} lists of words, got {len(prediction)}")
        words = [self.label[number] for number in ids.tolist()]
        evaluator = graphproppred.Evaluator(self.name)
        return float(evaluator.eval({"seq_ref": words, "seq_pred": list(prediction)})["F1"])


def names():
    """The names of all data sets that OGB knows, sorted."""
    return sorted(itertools.chain.from_iterable(_master(package) for package in PACKAGES.values()))


def load(name, root=None, download=False, mapped=False):
    """Read one of OGB's data sets from `root/ogbn_arxiv` and the like: a Node, a Link or a Graphs.

    root: else the environment variable HGAT_DATA, else `~/.cache/hgat`. download: fetch it from OGB's address if its
    folder is not there; without it nothing is fetched. mapped: features of nodes and edges lie in memory-mapped files
    in the folder's `mapped/` (hgat.data.mapped); OGB's loader itself still reads them once into memory. OGB keeps what
    it read in the folder's `processed/`. Raises DataError for an unknown name and for files that are missing, damaged
    or unsafe to read.
    """
    facts = _facts(name)
    root = Path(root or os.environ.get("HGAT_DATA") or "~/.cache/hgat").expanduser()
    folder = folder_of(name, root)
    if download and not folder.exists():
        _download(name, facts, folder)
    _find(name, facts, folder)
    package = PACKAGES[name[:4]]
    loader = {"ogbn": "DglNodePropPredDataset", "ogbl": "DglLinkPropPredDataset", "ogbg": "DglGraphPropPredDataset"}
    with _reading(name, folder), _cached(name, folder) as root:
        dataset = getattr(package, loader[name[:4]])(name, root=str(root))
        split = dataset.get_edge_split() if name.startswith("ogbl") else dataset.get_idx_split()
        if not isinstance(split, dict) or set(split) != set(PARTS):
            raise DataError(f"{name}: split: expected the parts {', '.join(PARTS)}, got {str(split)[:80]}")
        data = _BUILD[name[:4]](name, facts, dataset, split, _notes(folder, facts))
    return _on_disk(data, folder / "mapped") if mapped else data


def _on_disk(data, folder):
    """The data with its features in files; those of many small graphs stay where they are."""
    if isinstance(data, Graphs):
        return data
    feat = {t: x if x is None else on_disk(folder / f"{t}.npy", x) for t, x in data.feat.items()}
    found = replace(data, feat=feat)
    if getattr(data, "edge_feat", None) is not None:
        found = replace(found, edge_feat=on_disk(folder / "edge.npy", data.edge_feat))
    return found


def _node(name, facts, dataset, split, notes):
    graph, label = dataset[0]
    target = "_N"
    if facts["is hetero"] == "True":
        ((target, label),) = label.items()
        split = {part: ids[target] for part, ids in split.items()}
    feat = _pop_features(graph)
    edge_feat = graph.edata.pop("feat").float() if facts["has_edge_attr"] == "True" else None
    nodes, tasks = graph.num_nodes(target), int(facts["num tasks"])
    check_shape(f"{name}: label", label, ("N", nodes), ("tasks", tasks))
    outputs = tasks
    if facts["eval metric"] == "acc":
        label = label[:, 0].nan_to_num(-1).long()  # ogbn-papers100M says NaN of an unlabelled node
        outputs = int(facts["num classes"])
        if len(label) and not -1 <= label.min() <= label.max() < outputs:
            raise DataError(f"{name}: label: expected classes below {outputs}, got {label.min()} to {label.max()}")
    split = _ids(name, split, nodes)
    return Node(name, graph, feat, edge_feat, target, label, split, outputs, facts["eval metric"], notes)


def _link(name, facts, dataset, split, notes):
    graph = dataset[0]
    return Link(name, graph, _pop_features(graph), split, facts["eval metric"], notes)


def _graphs(name, facts, dataset, split, notes):
    split = _ids(name, split, len(dataset.graphs))
    if len(dataset.labels) != len(dataset.graphs):
        raise DataError(f"{name}: label: expected {len(dataset.graphs)} rows, got {len(dataset.labels)}")
    outputs = int(facts["num classes" if facts["eval metric"] == "acc" else "num tasks"])
    return Graphs(name, dataset.graphs, dataset.labels, split, outputs, facts["eval metric"], notes)


_BUILD = {"ogbn": _node, "ogbl": _link, "ogbg": _graphs}


def _pop_features(graph):
    feat = {ntype: graph.nodes[ntype].data.pop("feat", None) for ntype in graph.ntypes}
    return {ntype: None if columns is None else columns.float() for ntype, columns in feat.items()}


def _ids(name, split, count):
    """Copies of the ids, which are distinct and below `count`."""
    ids = torch.cat([split[part] for part in PARTS])
    if len(ids) and not 0 <= ids.min() <= ids.max() < count:
        raise DataError(f"{name}: split: expected ids from 0 to {count - 1}, got {ids.min()} to {ids.max()}")
    if len(ids.unique()) != len(ids):
        raise DataError(f"{name}: split: expected distinct ids, got {len(ids) - len(ids.unique())} repeated")
    return {part: split[part].clone() for part in PARTS}


def _part(task, part):
    if part not in task.split:
        raise DataError(f"{task.name}: part: expected one of {', '.join(task.split)}, got {part!r}")
    return task.split[part]


def _scores(name, scores):
    """float64 on the CPU, without NaN: what every evaluator of OGB can take."""
    scores = torch.as_tensor(scores).detach().cpu().double()
    if scores.isnan().any():
        raise DataError(f"{name}: expected numbers, got NaN in {int(scores.isnan().sum())} of {scores.numel()} scores")
    return scores


def _score(task, truth, prediction):
    """OGB's score of [n, C] against the true [n, tasks]."""
    prediction = _scores("prediction", prediction)
    check_shape("prediction", prediction, ("n", len(truth)), ("C", task.num_outputs))
    if task.metric == "acc":
        prediction = prediction.argmax(1, keepdim=True)
    try:
        found = PACKAGES[task.name[:4]].Evaluator(task.name).eval({"y_true": truth, "y_pred": prediction})
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{task.name}: {task.metric}: expected labels of both kinds, got: {error}") from error
    return float(found[task.metric])


# ---- where it lies ----


def _master(package):
    """OGB's own table: a column of facts, all of them text, per data set."""
    return pd.read_csv(Path(package.__file__).with_name("master.csv"), index_col=0, keep_default_na=False)


def _facts(name):
    if name not in names():
        raise DataError(f"data set: expected one of {', '.join(names())}, got {name!r}")
    return _master(PACKAGES[name[:4]])[name].to_dict()


def folder_of(name, root):
    """Where OGB's loader will look, which prefers the folder of its earlier releases."""
    folder = Path(root) / name.replace("-", "_")
    older = folder.with_name(f"{folder.name}_dgl")
    return older if older.exists() else folder


def _find(name, facts, folder):
    """Raise DataError where OGB's loader would ask a question or download."""
    release = f"RELEASE_v{facts['version']}.txt"
    hetero, binary = facts.get("is hetero") == "True", facts["binary"] == "True"
    edges = {
        (False, False): "edge.csv.gz",
        (False, True): "data.npz",
        (True, False): "triplet-type-list.csv.gz",
        (True, True): "edge_index_dict.npz",
    }[hetero, binary]
    if not folder.is_dir():
        got = "no such folder"
    elif not (folder / release).is_file():
        got = f"no {release}, so another version or none"
    elif not any((folder / path).is_file() for path in (f"raw/{edges}", f"processed/{CACHE}")):
        got = f"no raw/{edges}"
    else:
        return
    sample = f", or write a small stand-in: python -m hgat.data.ogb sample {name} DIR" if name in SAMPLES else ""
    raise DataError(
        f"{name}: expected OGB's files in {folder}, got {got}; download {facts['url']} and unpack it there "
        f"(its folder {facts['download_name']} becomes {folder.name}), or pass download=True where nothing lies"
        f"{sample}"
    )


def _download(name, facts, folder):
    """Fetch and unpack OGB's archive; the folder appears whole."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            with redirect_stdout(sys.stderr):
                extract_zip(download_url(facts["url"], temporary), temporary)
            os.replace(Path(temporary) / facts["download_name"], folder)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(f"{name}: expected an archive from {facts['url']}, got: {error}") from error


@contextmanager
def _reading(name, folder):
    """OGB's loaders with torch's safe loading, their talk on stderr and every failure as one DataError."""
    switches = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": None}
    before = {switch: os.environ.get(switch) for switch in switches}
    _set(switches)  # torch before 2.6 trusts every file, and a user may have told a newer one to
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            # The ids of a split lie in pandas' own memory, until _ids copies them.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            yield
    except DataError:
        raise
    except pickle.UnpicklingError as error:  # its own text advises to trust the file
        raise DataError(f"{name}: expected arrays and lists in {folder}, got a damaged or unsafe file") from error
    except Exception as error:  # OGB, pandas, NumPy, zlib and DGL raise what they like
        got = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise DataError(f"{name}: expected whole files in OGB's format in {folder}, got {got}; {ADVICE}") from error
    finally:
        _set(before)


@contextmanager
def _cached(name, folder):
    """The root that OGB's loader is to read from, with a cache that is whole or none.

    Without one it reads through a folder of links, so that what it writes appears in the data set when it is whole.
    """
    cache = folder / "processed" / CACHE
    if cache.exists():
        _check_cache(name, cache)
        yield folder.parent
        return
    with ExitStack() as stack:
        try:
            for left in folder.glob(".first-read.*"):  # by a process that was killed
                if time.time() - left.stat().st_mtime > 86_400:
                    shutil.rmtree(left, ignore_errors=True)
            aside = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=".first-read.")))
            linked = aside / folder.name
            linked.mkdir()
            for entry in folder.iterdir():
                if entry.name != "processed" and not entry.name.startswith("."):
                    os.symlink(entry.absolute(), linked / entry.name)
        except OSError:  # a folder that cannot be written to, a system without links: OGB may know better
            yield folder.parent
            return
        yield aside
        fresh = linked / "processed"
        _check_cache(name, fresh / CACHE)  # DGL writes to a full disk without an error
        cache.parent.mkdir(exist_ok=True)
        # What the graphs need beside them first: a cache is taken for whole where its graphs are there.
        for path in sorted(fresh.iterdir(), key=lambda path: path.name == CACHE):
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(path, cache.parent / path.name)


def _check_cache(name, path):
    try:
        check_graphs(path)
    except DataError as error:
        raise DataError(f"{name}: {error}; {ADVICE}") from None


def _set(switches):
    for switch, value in switches.items():
        if value is None:
            os.environ.pop(switch, None)
        else:
            os.environ[switch] = value


def _notes(folder, facts):
    release = folder / f"RELEASE_v{facts['version']}.txt"
    first = release.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return (first,) if first.startswith(STAND_IN) else ()


# ---- stand-ins ----
#
# Each has the schema of the real data set and a planted structure: what decides a node's label, or which links exist,
# stands beside as much that is false, and a mark on nodes or edges, the relation, or the number of a node's links tells
# one from the other. A mean over all neighbours mixes the two.

CIRCLE = 12  # nodes that share a label and are linked among themselves
GROUPS = 4  # of a circle: one group shows the true class and is trusted, each other group shows one false class
YEARS = {"train": (2005, 2018), "valid": (2018, 2019), "test": (2019, 2021)}


def write_sample(name, folder, nodes=None, seed=0, share=None):
    """Write a small data set with the schema of `name` into `folder/ogbn_arxiv` and the like; that path.

    nodes: of the labelled type, of all types, or for ogbg graphs; 120 or more. share: instead of nodes, the part of
    the real data set's nodes and edges that are written, of every type, for ogbn-arxiv and ogbn-mag. The same seed
    gives the same files.
    Raises DataError for a name without a sample or too few nodes, OutputError where the data set exists already.
    """
    if name not in SAMPLES:
        raise DataError(f"sample: expected one of {', '.join(SAMPLES)}, got {name!r}")
    make, usual = SAMPLES[name]
    if share is not None:
        if name not in REAL or nodes is not None:
            expected = f"one of {', '.join(REAL)} and no number of nodes"
            raise DataError(f"share: expected {expected}, got {name} and {nodes}")
        counts = {part: {key: round(count * share) for key, count in of.items()} for part, of in REAL[name].items()}
        make, nodes = partial(make, counts=counts), counts["nodes"][LABELLED[name]]
    nodes = usual if nodes is None else nodes
    if nodes < 120:
        raise DataError(f"nodes: expected 120 or more, got {nodes}")
    facts, folder = _facts(name), folder_of(name, folder)
    if folder.exists():
        raise OutputError(f"{name}: expected no data set in {folder}, got one; remove it or name another folder")
    size = f"nodes {nodes}" if share is None else f"{share:g} of its size"
    note = f"{STAND_IN} {name} written by hgat ({size}, seed {seed}): not OGB's data."
    files = make(np.random.default_rng(seed), nodes, facts)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            whole = Path(temporary) / folder.name
            for path, content in files.items():
                _write(whole / path, content)
            (whole / f"RELEASE_v{facts['version']}.txt").write_text(f"{note}\n", encoding="utf-8")
            os.rename(whole, folder)
    except OSError as error:
        raise OutputError(f"{name}: expected to write {folder}, got: {error.strerror or error}") from None
    return folder


def _write(path, content):
    """A dict of arrays as OGB's splits of links, a DataFrame with its header, any other array without one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save(content, path)
        return
    header = isinstance(content, pd.DataFrame)
    # mtime: else the same table gives another file every second.
    compression = {"method": "gzip", "compresslevel": 6, "mtime": 1}
    pd.DataFrame(content).to_csv(path, index=False, header=header, compression=compression)


def _column(values):
    return np.asarray(values).reshape(-1, 1)


def _one_graph(nodes, edge):
    return {
        "raw/edge.csv.gz": edge,
        "raw/num-node-list.csv.gz": [[nodes]],
        "raw/num-edge-list.csv.gz": [[len(edge)]],
    }


def _typed_graph(sizes, edges):
    """sizes: {node type: nodes}; edges: {relation: [E, 2]}, whose columns "reltype" are numbers in OGB's order."""
    files = {
        "raw/num-node-dict.csv.gz": pd.DataFrame({ntype: [size] for ntype, size in sorted(sizes.items())}),
        "raw/triplet-type-list.csv.gz": sorted(edges),
    }
    for number, relation in enumerate(sorted(edges)):
        folder = f"raw/relations/{'___'.join(relation)}"
        files[f"{folder}/edge.csv.gz"] = edges[relation]
        files[f"{folder}/num-edge-list.csv.gz"] = [[len(edges[relation])]]
        files[f"{folder}/edge_reltype.csv.gz"] = np.full((len(edges[relation]), 1), number)
    return files


def _split(facts, part, below=""):
    """Files of ids; part: [N] of 0, 1, 2."""
    return {
        f"split/{facts['split']}/{below}{name}.csv.gz": _column(np.flatnonzero(part == number))
        for number, name in enumerate(PARTS)
    }


def _circles(nodes, span=CIRCLE):
    """The circle and the part of each node, [N] each, and the links inside the circles, [E, 2]."""
    circle = np.arange(nodes) // span
    pairs = np.array(list(itertools.combinations(range(span), 2)))
    edge = (np.arange(circle[-1] + 1)[:, None, None] * span + pairs).reshape(-1, 2)
    return circle, np.array([0, 0, 0, 1, 2])[circle % 5], edge[edge[:, 1] < nodes]


def _shuffled(rng, nodes, edge, *columns):
    """Nodes and edges in any order and each edge in any direction, so that no id tells anything."""
    place = rng.permutation(nodes)
    edge = place[rng.permuted(edge, axis=1)]
    return edge[rng.permutation(len(edge))], *(column[np.argsort(place)] for column in columns)


def _skewed(rng, size, count):
    """`count` of the numbers below `size`, in a power law of how often each is drawn."""
    weight = np.cumsum(np.arange(1, size + 1) ** -0.7)
    rank = np.searchsorted(weight, rng.random(count) * weight[-1])
    return rng.permutation(size)[rank.clip(max=size - 1)]


def _trusted(rng, nodes, classes, width, links=None):
    """Labels that trusted neighbours show: features [N, width], labels [N], parts [N], links [E, 2].

    Column 0 of the features marks the trusted quarter of each circle, whose other columns show its class. The other
    three quarters show a false class each, so that the plain mean of a neighbourhood does not tell which is true.
    Links between circles join nodes that are not trusted. Only as many classes occur as training has six circles of.
    links: how many there are in all; those between circles then end at skewed degrees.
    """
    circle, part, edge = _circles(nodes)
    count = circle[-1] + 1
    occurring = min(classes, max(GROUPS, (part[::CIRCLE] == 0).sum() // 6))
    chosen = np.append(rng.permutation(classes - 1)[: occurring - 1], classes - 1)
    rank = np.array([(part[::CIRCLE][:k] == part[k * CIRCLE]).sum() for k in range(count)])
    order = rng.permutation(occurring)
    classes_of = np.stack([rng.permutation(occurring)[:GROUPS] for _ in range(count)])
    true = order[rank % occurring]
    # The true class takes the first place; where it stood already, it is swapped there, so the four stay distinct.
    for row, first in zip(classes_of, true, strict=True):
        row[row == first] = row[0]
        row[0] = first
    group = np.arange(nodes) % GROUPS
    shown = classes_of[circle, group]
    feat = rng.normal(size=(occurring, width))[shown] + rng.normal(size=(nodes, width)) / 2
    feat[:, 0] = np.where(group == 0, 6, -2)
    edge = edge[rng.random(len(edge)) < 0.7]
    doubtful = np.flatnonzero(group)
    if links is None:
        across = rng.choice(doubtful, (nodes // 4, 2))
    else:
        edge = edge[:links]
        drawn = 2 * (links - len(edge)) + 100
        across = doubtful[np.stack([rng.integers(len(doubtful), size=drawn), _skewed(rng, len(doubtful), drawn)], 1)]
    edge = np.concatenate([edge, across[circle[across[:, 0]] != circle[across[:, 1]]]])[:links]
    edge, feat, label, part = _shuffled(rng, nodes, edge, feat, chosen[true][circle], part)
    return feat.round(4), label, part, edge


def _years(rng, part):
    year = np.zeros(len(part), dtype=np.int64)
    for number, name in enumerate(PARTS):
        year[part == number] = rng.integers(*YEARS[name], (part == number).sum())
    return _column(year)


def _papers(rng, nodes, facts, width=128, counts=None):
    """ogbn-arxiv and ogbn-products."""
    links = None if counts is None else counts["edges"]["cites"]
    feat, label, part, edge = _trusted(rng, nodes, int(facts["num classes"]), width, links)
    files = {"raw/node-feat.csv.gz": feat, "raw/node-label.csv.gz": _column(label)}
    if facts["additional node files"] == "node_year":
        files["raw/node_year.csv.gz"] = _years(rng, part)
    return {**_one_graph(nodes, edge), **files, **_split(facts, part)}


def _products(rng, nodes, facts):
    return _papers(rng, nodes, facts, width=100)


def _mag(rng, nodes, facts, counts=None):
    """Papers as in ogbn-arxiv: `cites` tells the class; authors, institutions and fields are drawn at random."""
    sizes = {"paper": nodes, "author": nodes // 8, "institution": nodes // 40, "field_of_study": nodes // 10}
    links = {"affiliated_with": sizes["author"], "writes": sizes["author"] * 8, "has_topic": nodes * 3}
    if counts is not None:
        sizes, links = counts["nodes"], counts["edges"]
    feat, label, part, edge = _trusted(rng, nodes, int(facts["num classes"]), 128, links.get("cites"))

    def drawn(source, name, target):
        """As many links from each source as from the next."""
        ids = np.sort(np.arange(links[name]) % sizes[source])
        ends = rng.integers(sizes[target], size=len(ids)) if counts is None else _skewed(rng, sizes[target], len(ids))
        return np.stack([ids, ends], axis=1)

    edges = {
        ("author", "affiliated_with", "institution"): drawn("author", "affiliated_with", "institution"),
        ("author", "writes", "paper"): drawn("author", "writes", "paper"),
        ("paper", "cites", "paper"): edge,
        ("paper", "has_topic", "field_of_study"): drawn("paper", "has_topic", "field_of_study"),
    }
    has = pd.DataFrame({ntype: [ntype == "paper"] for ntype in sorted(sizes)})
    return {
        **_typed_graph(sizes, edges),
        "raw/nodetype-has-label.csv.gz": has,
        "raw/node-feat/paper/node-feat.csv.gz": feat,
        "raw/node-feat/paper/node_year.csv.gz": _years(rng, part),
        "raw/node-label/paper/node-label.csv.gz": _column(label),
        f"split/{facts['split']}/nodetype-has-split.csv.gz": has,
        **_split(facts, part, "paper/"),
    }


def _proteins(rng, nodes, facts):
    """Edges of strong evidence, column 0, join proteins of one circle; as many of weak evidence join opposite ones.

    A double circle holds proteins with seven functions and proteins with the seven opposite ones. Each shows its
    functions with 3 in 10 wrong; an edge shows in columns 1 to 7 the mean of what its two ends show.
    """
    double, part, edge = _circles(nodes, 2 * CIRCLE)
    side = np.arange(nodes) % 2
    function = rng.integers(2, size=(double[-1] + 1, 7))[double] ^ side[:, None]
    shown = function ^ (rng.random(function.shape) < 0.3)
    edge, side, function, shown, part = _shuffled(rng, nodes, edge, side, function, shown, part)
    strong = side[edge[:, 0]] == side[edge[:, 1]]
    evidence = np.concatenate([_column(np.where(strong, 0.9, 0.1)), shown[edge].mean(1)], axis=1)
    evidence = (evidence + rng.normal(size=evidence.shape) / 20).clip(0.001, 1).round(4)
    species = np.array([[3702, 4932, 6239, 7227, 9606, 511145], [7955] * 6, [10090] * 6])
    return {
        **_one_graph(nodes, edge),
        "raw/edge-feat.csv.gz": evidence,
        "raw/node_species.csv.gz": _column(species[part, rng.integers(6, size=nodes)]),
        "raw/node-label.csv.gz": function[:, np.arange(int(facts["num tasks"])) % 7],
        **_split(facts, part),
    }


def _link_split(facts, parts):
    return {f"split/{facts['split']}/{name}.pt": content for name, content in parts.items()}


def _apart(rng, side, count):
    """`count` pairs of nodes whose sides differ."""
    pairs = rng.integers(len(side), size=(4 * count + 100, 2))
    return pairs[side[pairs[:, 0]] != side[pairs[:, 1]]][:count]


def _collab(rng, nodes, facts):
    """Authors work together often (weight 5 to 9) in their circle, which shares a few words, and once with anyone."""
    circle, _, often = _circles(nodes)
    often, circle = _shuffled(rng, nodes, often, circle)
    held = len(often) // 5
    once = _apart(rng, circle, 10 * nodes)
    feat = rng.normal(size=(circle.max() + 1, 128))[circle] * 0.2 + rng.normal(size=(nodes, 128))
    edge = {
        "train": np.concatenate([often[2 * held :], once]),
        "valid": often[:held],
        "test": often[held : 2 * held],
    }
    parts = {}
    for name, pairs in edge.items():
        weight = np.where(circle[pairs[:, 0]] == circle[pairs[:, 1]], rng.integers(5, 10, len(pairs)), 1)
        year = rng.integers(*YEARS[name], len(pairs)) if name == "train" else np.full(len(pairs), YEARS[name][0])
        parts[name] = {"edge": pairs, "weight": weight, "year": year}
        if name != "train":
            parts[name]["edge_neg"] = _apart(rng, circle, 5 * nodes)
    return {
        **_one_graph(nodes, edge["train"]),
        "raw/node-feat.csv.gz": feat.round(4),
        "raw/edge_weight.csv.gz": _column(parts["train"]["weight"]),
        "raw/edge_year.csv.gz": _column(parts["train"]["year"]),
        **_link_split(facts, parts),
    }


def _ddi(rng, nodes, facts):
    """Drugs interact in their circle and with hubs, which are in none and interact with any.

    One drug in eight is a hub, and only its many partners tell it. So most neighbours say nothing of a drug's circle.
    What is to be predicted, and what is not, joins drugs that are no hubs.
    """
    circle, _, edge = _circles(nodes)
    edge, circle = _shuffled(rng, nodes, edge, circle)
    hubs = rng.permutation(nodes)[: nodes // 8]
    edge = edge[~np.isin(edge, hubs).any(axis=1)]
    held = len(edge) // 5
    drawn = np.stack([np.repeat(np.arange(nodes), 20), rng.choice(hubs, 20 * nodes)], axis=1)
    drawn = np.unique(drawn[circle[drawn[:, 0]] != circle[drawn[:, 1]]], axis=0)
    parts = {"train": {"edge": np.concatenate([edge[2 * held :], drawn])}}
    for number, name in enumerate(PARTS[1:]):
        apart = _apart(rng, circle, 5 * nodes)
        held_out = edge[number * held : (number + 1) * held]
        parts[name] = {"edge": held_out, "edge_neg": apart[~np.isin(apart, hubs).any(axis=1)]}
    return {**_one_graph(nodes, parts["train"]["edge"]), **_link_split(facts, parts)}


def _triples(rng, sizes, relations, total, circles):
    """Triples of relations: a quarter join entities of one circle, the others an entity and a hub.

    sizes: {entity type: entities}. An entity is in the circle that its number leaves over; the last tenth are hubs, in
    no circle, and only their many triples tell it. Any two types are joined by as many triples as any other two.
    Returns {"train", "valid", "test"} of relation numbers, heads and tails, [n] each; only triples of circles are held
    out; and {entity type: entities before the first hub}.
    """
    plain = {ntype: size * 9 // 10 // circles * circles for ntype, size in sizes.items()}
    joining = Counter(relations)
    parts = {name: [] for name in PARTS}
    for number, types in enumerate(relations):
        (heads, tails), (all_heads, all_tails) = ([of[ntype] for ntype in types] for of in (plain, sizes))
        count = max(16, total // len(joining) // joining[types])

        def pairs(count, head, tail):
            """`count` pairs of ids in two ranges."""
            return np.stack([rng.integers(*head, size=count), rng.integers(*tail, size=count)], axis=1)

        found = pairs(count // 4, (0, heads), (0, tails))
        found[:, 1] += found[:, 0] % circles - found[:, 1] % circles
        found = np.unique(found, axis=0)
        found = rng.permutation(found[found[:, 0] != found[:, 1]] if types[0] == types[1] else found)
        other = (
            pairs(count * 3 // 8, (0, heads), (tails, all_tails)),
            pairs(count * 3 // 8, (heads, all_heads), (0, tails)),
        )
        held = max(1, len(found) // 20)
        train = np.concatenate([found[2 * held :], np.unique(np.concatenate(other), axis=0)])
        for name, some in {"train": train, "valid": found[:held], "test": found[held : 2 * held]}.items():
            parts[name].append(np.concatenate([np.full((len(some), 1), number), some], axis=1))
    return {name: np.concatenate(rows).T for name, rows in parts.items()}, plain


def _negatives(rng, near, size, circles):
    """500 entities of other circles than `near` is in and no hubs, [n, 500]; OGB has as many for each triple."""
    drawn = rng.integers(size // circles, size=(len(near), 500)) * circles
    return drawn + (near[:, None] + rng.integers(1, circles, size=drawn.shape)) % circles


def _biokg(rng, nodes, facts):
    """Five types of entities in circles, and hubs that hide them."""
    circles = 12
    sizes = dict.fromkeys(("disease", "drug", "function", "protein", "sideeffect"), nodes // 5)
    found, plain = _triples(rng, sizes, [(head, tail) for head, _, tail in BIOKG], 24 * nodes, circles)
    parts = {}
    for name, (relation, head, tail) in found.items():
        parts[name] = {
            "head_type": [BIOKG[number][0] for number in relation],
            "head": head,
            "relation": relation,
            "tail_type": [BIOKG[number][2] for number in relation],
            "tail": tail,
        }
        if name != "train":
            parts[name]["head_neg"] = _negatives(rng, tail, plain["drug"], circles)
            parts[name]["tail_neg"] = _negatives(rng, head, plain["drug"], circles)
    relation, head, tail = found["train"]
    ends = np.stack([head, tail], axis=1)
    edges = {triple: ends[relation == number] for number, triple in enumerate(BIOKG)}
    return {**_typed_graph(sizes, edges), **_link_split(facts, parts)}


def _wikikg2(rng, nodes, facts):
    """As ogbl-biokg with one type of entity and 535 relations."""
    circles = 12
    found, plain = _triples(rng, {"entity": nodes}, [("entity", "entity")] * 535, 24 * nodes, circles)
    parts = {name: {"head": head, "relation": number, "tail": tail} for name, (number, head, tail) in found.items()}
    for name in PARTS[1:]:
        parts[name]["head_neg"] = _negatives(rng, parts[name]["tail"], plain["entity"], circles)
        parts[name]["tail_neg"] = _negatives(rng, parts[name]["head"], plain["entity"], circles)
    train = parts["train"]
    return {
        **_one_graph(nodes, np.stack([train["head"], train["tail"]], axis=1)),
        "raw/edge_reltype.csv.gz": _column(train["relation"]),
        **_link_split(facts, parts),
    }


def _molhiv(rng, graphs, facts):
    """A ring P-N-S-O on a chain of carbon, in which phosphorus doubly binds nitrogen (label 1) or oxygen (0).

    Single and double bonds take turns around the ring. So every atom of it has one of each and the same neighbours
    under either label: atoms, bonds, and any number of rounds of means over both tell nothing.
    """
    carbon, nitrogen, oxygen, phosphorus, sulfur = 5, 6, 7, 14, 15  # OGB's categories: the atomic number less one
    part = np.array([0, 0, 0, 1, 2])[np.arange(graphs) // 2 % 5]
    label = np.arange(graphs) % 2
    atoms, bonds, bonded, sizes, counts = [], [], [], [], []
    for positive in label:
        chain = int(rng.integers(8, 15))
        element = np.array([phosphorus, nitrogen, sulfur, oxygen] + [carbon] * chain)
        bond = np.array([(0, 1), (1, 2), (2, 3), (3, 0), (0, 4)] + [(k, k + 1) for k in range(4, chain + 3)])
        kind = np.zeros((len(bond), len(get_bond_feature_dims())), dtype=np.int64)
        kind[:, 0] = [*np.array([positive, 1 - positive] * 2), 0, *rng.integers(2, size=chain - 1)]
        place = rng.permutation(len(element))
        atom = np.zeros((len(element), len(get_atom_feature_dims())), dtype=np.int64)
        atom[:, 0] = element
        atom[:, 2] = np.bincount(bond.ravel())
        atom[:, 3] = 5  # no charge
        atom[:, 4] = rng.integers(4, size=len(element))
        atom[:, 6] = 2
        atom[:4, 8] = 1  # in a ring
        atoms.append(atom[np.argsort(place)])
        bonds.append(place[rng.permuted(bond, axis=1)])
        bonded.append(kind)
        sizes.append(len(element))
        counts.append(len(bond))
    return {
        "raw/edge.csv.gz": np.concatenate(bonds),
        "raw/num-node-list.csv.gz": _column(sizes),
        "raw/num-edge-list.csv.gz": _column(counts),
        "raw/node-feat.csv.gz": np.concatenate(atoms),
        "raw/edge-feat.csv.gz": np.concatenate(bonded),
        "raw/graph-label.csv.gz": _column(label),
        **_split(facts, part),
    }


def _biokg_relations():
    """The 51 relations of ogbl-biokg in OGB's order."""
    ills = """acquired_metabolic_disease bacterial_infectious_disease benign_neoplasm cancer
        cardiovascular_system_disease chromosomal_disease cognitive_disorder cryptorchidism
        developmental_disorder_of_mental_health endocrine_system_disease fungal_infectious_disease
        gastrointestinal_system_disease hematopoietic_system_disease hematopoietic_system_diseases hypospadias
        immune_system_disease inherited_metabolic_disorder integumentary_system_disease irritable_bowel_syndrome
        monogenic_disease musculoskeletal_system_disease nervous_system_disease orofacial_cleft
        parasitic_infectious_disease personality_disorder polycystic_ovary_syndrome pre-malignant_neoplasm
        psoriatic_arthritis reproductive_system_disease respiratory_system_disease sexual_disorder sleep_disorder
        somatoform_disorder struct_sim substance-related_disorder thoracic_disease urinary_system_disease
        viral_infectious_disease"""
    acts = "activation binding catalysis expression inhibition ptmod reaction"
    plain = ["disease-protein", "drug-disease", "drug-protein", "drug-sideeffect", "function-function"]
    relations = [(*name.split("-"), name) for name in [*plain, "protein-function"]]
    relations += [("drug", "drug", f"drug-drug_{ill}") for ill in ills.split()]
    relations += [("protein", "protein", f"protein-protein_{act}") for act in acts.split()]
    return sorted((head, name, tail) for head, tail, name in relations)


BIOKG = _biokg_relations()
# Nodes and edges of the real data sets, from OGB's site.
REAL = {
    "ogbn-arxiv": {"nodes": {"_N": 169_343}, "edges": {"cites": 1_166_243}},
    "ogbn-mag": {
        "nodes": {"paper": 736_389, "author": 1_134_649, "institution": 8_740, "field_of_study": 59_965},
        "edges": {"affiliated_with": 1_043_998, "writes": 7_145_660, "cites": 5_416_271, "has_topic": 7_505_078},
    },
}
LABELLED = {"ogbn-arxiv": "_N", "ogbn-mag": "paper"}
# name -> what makes it, and its usual number of nodes
SAMPLES = {
    "ogbn-arxiv": (_papers, 2400),
    "ogbn-products": (_products, 2400),
    "ogbn-proteins": (_proteins, 1200),
    "ogbn-mag": (_mag, 2400),
    "ogbl-collab": (_collab, 1200),
    "ogbl-ddi": (_ddi, 600),
    "ogbl-biokg": (_biokg, 600),
    "ogbl-wikikg2": (_wikikg2, 1000),
    "ogbg-molhiv": (_molhiv, 600),
}


def main(argv=None):
    """The command line; gives its exit status: 0, or 2 after one sentence that says what to mend."""
    parser = argparse.ArgumentParser(prog="python -m hgat.data.ogb", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sample = commands.add_parser("sample", help="write a small stand-in for a data set of OGB's")
    sample.add_argument("name", metavar="NAME", help=", ".join(SAMPLES))
    sample.add_argument("folder", metavar="DIR", help="the root of data sets; the sample is a folder in it")
    sample.add_argument("--nodes", type=int, help="labelled nodes, all nodes, or for ogbg graphs")
    sample.add_argument("--share", type=float, help="instead of --nodes: part of the real size (ogbn-arxiv, ogbn-mag)")
    sample.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    try:
        print(write_sample(arguments.name, arguments.folder, arguments.nodes, arguments.seed, arguments.share))
    except (DataError, OutputError) as error:
        print("hgat:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
