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

import itertools
import os
import pickle
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
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
from hgat.data.sets import PARTS, STAND_IN, NodeData
from hgat.errors import DataError, check_shape, meant
from hgat.renamed import OldKeys, old_names, warn

__all__ = ["GraphsData", "LinkData", "OGBNodeData", "folder_of", "load", "names"]

PACKAGES = {"ogbn": nodeproppred, "ogbl": linkproppred, "ogbg": graphproppred}
OGB_PARTS = ("train", "valid", "test")
METRICS = {"acc": "accuracy", "rocauc": "auc", "ap": "average_precision", "F1": "f1"}  # others keep OGB's name
OGB_METRICS = {ours: theirs for theirs, ours in METRICS.items()}
CACHE = "dgl_data_processed"  # what OGB keeps in `processed/`
ADVICE = "remove its folder processed if an earlier read was interrupted, else write the data set anew"


# ---- what is read ----


class _Outputs:
    """The name that num_classes had."""

    num_classes: int

    @property
    def num_outputs(self) -> int:
        warn("num_outputs", "num_classes")
        return self.num_classes


@dataclass(frozen=True, eq=False)
class OGBNodeData(_Outputs, NodeData):
    """NodeData as OGB gives it, with OGB's evaluator.

    `graph` keeps the columns that are not features: ndata "year", "species", edata "reltype". A graph of one type has
    the node type `_N`. Where `metric` is "auc" the labels are `multilabel`, else it is "accuracy".
    """

    metric: str = "accuracy"

    @property
    def split(self) -> Mapping[str, Tensor]:
        """The split in force, {"train", "val", "test"}: int64 ids of nodes of type `target`."""
        return _split(super().split)

    def evaluate(self, part: str, prediction: Tensor) -> float:
        """OGB's score of a part, in percent; prediction: [its nodes, C], in the order of its ids.

        Raises DataError for NaN and for another part than "train", "val" and "test", ShapeError for another shape.
        """
        truth = self.label[_part(self, part)]
        return _score(self, truth if self.multilabel else truth[:, None], prediction)


@dataclass(frozen=True, eq=False)
class LinkData:
    """A graph some of whose links are to be predicted.

    `graph` holds the training links and OGB's columns of them: edata "weight", "year", "reltype", "feat". `feat` maps
    every node type to [N, F] float32, or to None. `split` has "train", "val" and "test": of each what OGB gives, "edge"
    or "head", "relation", "tail" and others, and the negatives of "val" and "test". `notes` are sentences that belong
    under every table of results.
    """

    name: str
    graph: dgl.DGLGraph
    feat: dict[str, Tensor | None]
    split: Mapping[str, dict]
    metric: str
    notes: tuple[str, ...] = ()

    def evaluate(self, positive: Tensor, negative: Tensor) -> dict[str, float]:
        """OGB's scores by name, in percent; positive: [B], negative: [any], or [B, any] where the metric is "mrr".

        "mrr" comes with "hits@1", "hits@3" and "hits@10". Raises DataError for NaN and for fewer than K negatives of
        hits@K, ShapeError for another shape.
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
        found = {name.removesuffix("_list"): float(np.mean(np.asarray(score))) for name, score in found.items()}
        return {METRICS.get(name, name): 100.0 * score for name, score in found.items()}


@dataclass(frozen=True, eq=False)
class GraphsData(_Outputs):
    """Many small graphs with labels.

    `graphs` have OGB's columns: ndata "feat" [N, F] and edata "feat" [E, F], numbers of categories in molecules.
    `label` is [graphs, C] float32 of zeros and ones, NaN where unknown, where `multilabel`; [graphs] int64 where the
    metric is "accuracy"; [graphs, C] float32 of numbers where it is "rmse"; a list of lists of words where it is "f1".
    `train`, `val` and `test` are int64 numbers of graphs.
    """

    name: str
    graphs: list[dgl.DGLGraph]
    label: Tensor | list
    train: Tensor
    val: Tensor
    test: Tensor
    num_classes: int
    metric: str
    multilabel: bool = False
    notes: tuple[str, ...] = ()

    @property
    def split(self) -> Mapping[str, Tensor]:
        """{"train", "val", "test"}: int64 numbers of graphs."""
        return _split({part: getattr(self, part) for part in PARTS})

    def evaluate(self, part: str, prediction: Tensor | list) -> float:
        """OGB's score of a part, in percent, of "rmse" as it is; prediction: [its graphs, C], of "f1" lists of words.

        Raises DataError for NaN and for another part than "train", "val" and "test", ShapeError for another shape.
        """
        ids = _part(self, part)
        if self.metric != "f1":
            truth = self.label[ids]
            return _score(self, truth[:, None] if self.metric == "accuracy" else truth, prediction)
        if len(prediction) != len(ids):
            raise DataError(f"{self.name}: prediction: expected {len(ids)} lists of words, got {len(prediction)}")
        words = [self.label[number] for number in ids.tolist()]
        evaluator = graphproppred.Evaluator(self.name)
        return 100.0 * float(evaluator.eval({"seq_ref": words, "seq_pred": list(prediction)})["F1"])


def _split(parts):
    """The parts by name, with one release's memory of what OGB calls "val"."""
    return OldKeys(parts, "split", {"valid": "val"})


def names() -> list[str]:
    """The names of all data sets that OGB knows, sorted."""
    return sorted(itertools.chain.from_iterable(_master(package) for package in PACKAGES.values()))


def categories() -> tuple[list[int], list[int]]:
    """How many categories each column of a molecule's atoms has, and of its bonds."""
    return get_atom_feature_dims(), get_bond_feature_dims()


def load(
    name: str, root: str | Path | None = None, download: bool = False, mapped: bool = False, sample: bool = False
) -> OGBNodeData | LinkData | GraphsData:
    """Read one of OGB's data sets from `root/ogbn_arxiv` and the like: OGBNodeData, LinkData or GraphsData.

    root: else the environment variable HGAT_DATA, else `~/.cache/hgat`. download: fetch it from OGB's address if its
    folder is not there; without it nothing is fetched. mapped: features of nodes and edges lie in memory-mapped files
    in the folder's `mapped/` (hgat.data.mapped); OGB's loader itself still reads them once into memory. OGB keeps what
    it read in the folder's `processed/`. sample: of the data set a small stand-in instead, which is written for this
    alone and read into memory (hgat.data.ogb_samples). Raises DataError for an unknown name and for files that are
    missing, damaged or unsafe to read.
    """
    if sample:
        from hgat.data.ogb_samples import write_sample  # which stands on this file

        with tempfile.TemporaryDirectory() as folder:
            write_sample(name, folder)
            return load(name, folder)
    facts = facts_of(name)
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
        if not isinstance(split, dict) or set(split) != set(OGB_PARTS):
            raise DataError(f"{name}: split: expected the parts {', '.join(OGB_PARTS)}, got {str(split)[:80]}")
        split = {ours: split[theirs] for ours, theirs in zip(PARTS, OGB_PARTS, strict=True)}
        data = _BUILD[name[:4]](name, facts, dataset, split, _notes(folder, facts))
    return _on_disk(data, folder / "mapped") if mapped else data


def _on_disk(data, folder):
    """The data with its features in files; those of many small graphs stay where they are."""
    if isinstance(data, GraphsData):
        return data
    feat = {t: x if x is None else on_disk(folder / f"{t}.npy", x) for t, x in data.feat.items()}
    edge_feat = getattr(data, "edge_feat", None)
    edge = {} if edge_feat is None else {"edge_feat": on_disk(folder / "edge.npy", edge_feat)}
    return replace(data, feat=feat, **edge)


def _node(name, facts, dataset, split, notes):
    graph, label = dataset[0]
    target = "_N"
    if facts["is hetero"] == "True":
        ((target, label),) = label.items()
        split = {part: ids[target] for part, ids in split.items()}
    return OGBNodeData(
        name=name,
        graph=graph,
        feat=_pop_features(graph),
        edge_feat=graph.edata.pop("feat").float() if facts["has_edge_attr"] == "True" else None,
        target=target,
        label=_labels(name, facts, label, graph.num_nodes(target)),
        # Copies: the ids lie in pandas' own memory.
        **{part: ids.clone() for part, ids in split.items()},
        num_classes=_classes(facts),
        multilabel=facts["eval metric"] != "acc",
        notes=notes,
        metric=_metric(facts),
    )


def _link(name, facts, dataset, split, notes):
    graph = dataset[0]
    return LinkData(name, graph, _pop_features(graph), _split(split), _metric(facts), notes)


def _graphs(name, facts, dataset, split, notes):
    count, label = len(dataset.graphs), dataset.labels
    if len(label) != count:
        raise DataError(f"{name}: label: expected {count} rows, got {len(label)}")
    if isinstance(label, Tensor):
        label = _labels(name, facts, label, count)
    metric, parts = _metric(facts), _ids(name, split, count)
    multilabel = metric in ("auc", "average_precision")
    return GraphsData(
        name, dataset.graphs, label, **parts, num_classes=_classes(facts), metric=metric, multilabel=multilabel,
        notes=notes,
    )  # fmt: skip


def _metric(facts):
    return METRICS.get(facts["eval metric"], facts["eval metric"])


def _classes(facts):
    return int(facts["num classes" if facts["eval metric"] == "acc" else "num tasks"])


def _labels(name, facts, label, count):
    """[N] int64 with -1 of the unlabelled where one class is asked for, else [N, tasks] float32."""
    check_shape(f"{name}: label", label, ("N", count), ("tasks", int(facts["num tasks"])))
    if facts["eval metric"] != "acc":
        return label.float()
    return label[:, 0].nan_to_num(-1).long()  # ogbn-papers100M says NaN of an unlabelled node


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
    """The ids of a part."""
    if part == "valid":
        warn('evaluate("valid", ...)', 'evaluate("val", ...), and gives percent', 4)
        part = "val"
    if part not in PARTS:
        raise DataError(f"{task.name}: part: expected one of {', '.join(PARTS)}, got {part!r}")
    return task.split[part]


def _scores(name, scores):
    """float64 on the CPU, without NaN: what every evaluator of OGB can take."""
    scores = torch.as_tensor(scores).detach().cpu().double()
    if scores.isnan().any():
        raise DataError(f"{name}: expected numbers, got NaN in {int(scores.isnan().sum())} of {scores.numel()} scores")
    return scores


def _score(task, truth, prediction):
    """OGB's score of [n, C] against the true [n, tasks], in percent; "rmse" has a unit of its own."""
    prediction = _scores("prediction", prediction)
    check_shape("prediction", prediction, ("n", len(truth)), ("C", task.num_classes))
    if task.metric == "accuracy":
        prediction = prediction.argmax(1, keepdim=True)
    try:
        found = PACKAGES[task.name[:4]].Evaluator(task.name).eval({"y_true": truth, "y_pred": prediction})
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{task.name}: {task.metric}: expected labels of both kinds, got: {error}") from error
    score = float(found[OGB_METRICS.get(task.metric, task.metric)])
    return score if task.metric == "rmse" else 100.0 * score


# ---- where it lies ----


def _master(package):
    """OGB's own table: a column of facts, all of them text, per data set."""
    return pd.read_csv(Path(package.__file__).with_name("master.csv"), index_col=0, keep_default_na=False)


def facts_of(name):
    """OGB's own row on a data set, all of it text."""
    if name not in names():
        raise DataError(f"data set: expected one of {', '.join(names())}, got {name!r}{meant(name, names())}")
    return _master(PACKAGES[name[:4]])[name].to_dict()


def folder_of(name: str, root: str | Path) -> Path:
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
    from hgat.data.ogb_samples import SAMPLES  # which stands on this file

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


_SAMPLES = {name: f"hgat.data.ogb_samples.{name}" for name in ("SAMPLES", "main", "write_sample")}
__getattr__ = old_names(globals(), {"Node": "OGBNodeData", "Link": "LinkData", "Graphs": "GraphsData", **_SAMPLES})

if __name__ == "__main__":
    from hgat.data.ogb_samples import main

    sys.exit(main())
