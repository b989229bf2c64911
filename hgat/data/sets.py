"""The frozen descriptions of a data set: what loaders give and training takes.

Nodes, whole graphs, pairs, signed edges, timed events, a stream, triples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import dgl
import torch
from torch import Tensor

from hgat.errors import DataError
from hgat.graph.events import event_times
from hgat.graph.places import Places
from hgat.graph.recent import entities

__all__ = ["PARTS", "EventData", "GraphData", "NodeData", "PairData", "SignedData", "StreamData", "TripleData"]

PARTS = ("train", "val", "test")
STAND_IN = "Stand-in for"  # how the note of one begins
_NONE = torch.empty(0, dtype=torch.int64)


class _Short:
    """What a data set says of itself: its name and what a card may count."""

    name: str

    def counts(self) -> dict[str, int]:
        raise NotImplementedError

    def __repr__(self) -> str:
        sizes = ", ".join(f"{what}={count}" for what, count in self.counts().items())
        return f"{type(self).__name__}({self.name!r}, {sizes})"


class _Noted(_Short):
    """What the notes of a data set say of it."""

    notes: tuple[str, ...]

    @property
    def stands_in(self) -> bool:
        """Whether this is a stand-in for the data set whose name it has, which its notes say."""
        return any(note.startswith(STAND_IN) for note in self.notes)


@dataclass(frozen=True, eq=False, repr=False)
class NodeData(_Noted):
    """A graph, its features and labels, and its splits; checked once, when it is made.

    `graph` is the graph as the files state it: no self-loops and no inverse relations are added, and no
    features are stored in it (a time may be, as edge data). A homogeneous graph has DGL's node type `_N`.
    `feat` maps every node type to [N, F] float32, or to None where the nodes have no features.
    `label` is [N_target] int64 with -1 for an unlabelled node, or [N_target, C] float32 of zeros and ones
    where `multilabel`, or, where `numeric`, [N_target] float32 with NaN for an unlabelled node: `num_classes` is 1, and
    its name what the number is called.
    `train`, `val` and `test` are int64 ids of nodes of type `target`: the split in force.
    `splits` are all splits that the files have, each {"train", "val", "test"}: ids, and empty where there is one
    alone; where they are given, the first is in force unless train, val and test say another. `class_names` are the
    numbers of the classes where none are given. `edge_feat` is [E, F] float32, of a graph with one relation, or None.
    `columns` name the columns of the features, {node type: names}, where anything reads them by name. `places` says
    where nodes lie, for a map. `fitted` gives (label, feat) for the training nodes of a split, where these are computed
    from labels of training nodes, such as a difference from their mean: `with_split` asks it. `gold` says of each edge
    whether its source is among what decides the label of its destination, bool [E] of a graph with one relation, else
    {relation: [E_r]}, where that is known; a relation that is left out has no such edge. It is a truth to measure
    attention by, and no task shows it unless it is asked to. `ids` are what nodes are called, {node type: names}, of
    the types whose nodes have other names than their numbers, or None.
    `notes` are sentences that belong under every table of results on this data.

    Features that are not finite are accepted: they may come from a user's own file, and it is training
    that can say at which step they spoil the loss. Everything else that does not fit raises DataError.
    """

    name: str
    graph: dgl.DGLGraph
    feat: dict[str, Tensor | None]
    target: str
    label: Tensor
    train: Tensor = _NONE
    val: Tensor = _NONE
    test: Tensor = _NONE
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    multilabel: bool = False
    notes: tuple[str, ...] = field(default=())
    edge_feat: Tensor | None = None
    splits: tuple[Mapping[str, Tensor], ...] = ()
    numeric: bool = False
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    places: Places | None = None
    fitted: Callable[[Tensor], tuple[Tensor, dict[str, Tensor | None]]] | None = None
    gold: Tensor | Mapping[tuple[str, str, str], Tensor] | None = None
    ids: Mapping[str, tuple[str, ...]] | None = None

    @property
    def split(self) -> Mapping[str, Tensor]:
        """The split in force, {"train", "val", "test"}: int64 ids of nodes of type `target`."""
        return {part: getattr(self, part) for part in PARTS}

    def with_split(self, number: int) -> "NodeData":
        """A copy in which split `number`, counted on from the first behind the last, is in force.

        Without further splits it is the data set itself, so that every seed may ask for its own.
        """
        if not self.splits:
            return self
        split = self.splits[number % len(self.splits)]
        found: dict = {}
        if self.fitted is not None:
            found["label"], found["feat"] = self.fitted(split["train"])
        return replace(self, train=split["train"], val=split["val"], test=split["test"], **found)

    def counts(self) -> dict[str, int]:
        """What a card may count: nodes, edges, relations, features, classes and the parts of the split."""
        return {
            **_size(self.graph),
            "classes": self.num_classes,
            "features": sum(feat.shape[1] for feat in self.feat.values() if feat is not None),
            "train": len(self.train),
            "val": len(self.val),
            "test": len(self.test),
        }

    def __post_init__(self):
        if self.target not in self.graph.ntypes:
            self._refuse("target", f"one of {_listed(self.graph.ntypes)}", repr(self.target))
        if self.numeric and (self.multilabel or self.num_classes != 1):
            kind = "several labels" if self.multilabel else f"num_classes = {self.num_classes}"
            self._refuse("numeric", "one number a node, num_classes = 1", kind)
        if self.num_classes < 1:
            self._refuse("num_classes", "1 or more", self.num_classes)
        if not self.class_names:
            object.__setattr__(self, "class_names", tuple(map(str, range(self.num_classes))))
        if len(self.class_names) != self.num_classes:
            self._refuse("class_names", f"{self.num_classes} names", len(self.class_names))
        self._check_features()
        self._check_labels()
        self._check_splits()
        self._check_gold()
        for ntype, names in (self.ids or {}).items():
            if ntype not in self.graph.ntypes or len(names) != self.graph.num_nodes(ntype):
                self._refuse("ids", "a name for every node of a type of the graph", f"{len(names)} of {ntype!r}")

    def _refuse(self, what, expected, got):
        raise DataError(f"{self.name}: {what}: expected {expected}, got {got}")

    def _check_features(self):
        if set(self.feat) != set(self.graph.ntypes):
            self._refuse("feat", f"the node types {_listed(self.graph.ntypes)}", _listed(self.feat))
        for ntype, feat in self.feat.items():
            if feat is None:
                continue
            nodes = self.graph.num_nodes(ntype)
            if feat.dim() != 2 or len(feat) != nodes:
                self._refuse(f"features of {ntype}", f"[N, F] with N = {nodes}", list(feat.shape))
            if feat.dtype != torch.float32:
                self._refuse(f"features of {ntype}", "torch.float32", feat.dtype)
            names = self.columns.get(ntype)
            if names is not None and len(names) != feat.shape[1]:
                self._refuse(f"columns of {ntype}", f"{feat.shape[1]} names", len(names))
        if self.edge_feat is None:
            return
        if len(self.graph.canonical_etypes) != 1:
            self._refuse("edge_feat", "a graph of one relation", f"one of {len(self.graph.canonical_etypes)}")
        edges, feat = self.graph.num_edges(), self.edge_feat
        if feat.dim() != 2 or len(feat) != edges or feat.dtype != torch.float32:
            self._refuse("edge_feat", f"[E, F] float32 with E = {edges}", f"{feat.dtype} {list(feat.shape)}")

    def _check_labels(self):
        nodes, classes = self.graph.num_nodes(self.target), self.num_classes
        shape = [nodes, classes] if self.multilabel else [nodes]
        dtype = torch.float32 if self.multilabel or self.numeric else torch.int64
        if list(self.label.shape) != shape:
            self._refuse("label", shape, list(self.label.shape))
        if self.label.dtype != dtype:
            self._refuse("label", dtype, self.label.dtype)
        if self.multilabel:
            odd = self.label[(self.label != 0) & (self.label != 1)]
            allowed = "only 0 and 1"
        elif self.numeric:
            odd, allowed = self.label[self.label.isinf()], "finite numbers, or NaN for a node without one"
        else:
            odd = self.label[(self.label < -1) | (self.label >= classes)]
            allowed = f"values from -1 to {classes - 1}"
        if len(odd):
            self._refuse("label", allowed, odd[0].item())

    def _check_splits(self):
        for number, split in enumerate(self.splits):
            if set(split) != set(PARTS):
                self._refuse(f"splits[{number}]", f"the parts {_listed(PARTS)}", _listed(split) or "none")
            self._check_split(split, f"splits[{number}].")
        if self.splits and not any(len(ids) for ids in self.split.values()):
            for part, ids in self.splits[0].items():
                object.__setattr__(self, part, ids)
        elif not any(all(self.split[part] is split[part] for part in PARTS) for split in self.splits):
            self._check_split(self.split)

    def _check_gold(self):
        if self.gold is None:
            return
        etypes = self.graph.canonical_etypes
        single = isinstance(self.gold, Tensor)
        if single and len(etypes) != 1:
            self._refuse("gold", f"a dict by relation, of a graph with {len(etypes)}", "one tensor")
        for etype, marks in {etypes[0]: self.gold}.items() if single else self.gold.items():
            if etype not in etypes:
                self._refuse("gold", f"relations among {etypes}", etype)
            edges = self.graph.num_edges(etype)
            if marks.dtype != torch.bool or list(marks.shape) != [edges]:
                self._refuse(
                    "gold", f"torch.bool [{edges}] for the edges of {etype}", f"{marks.dtype} {list(marks.shape)}"
                )

    def _check_split(self, split, where=""):
        _check_ids(self._refuse, split, self.graph.num_nodes(self.target), where)
        for part, ids in split.items():
            bare = self.label[ids].isnan() if self.numeric else self.label[ids] < 0
            if not self.multilabel and bare.any():
                first = ids[bare][0].item()
                got = f"node {first} with label {self.label[first].item()}"
                self._refuse(f"{where}{part}", "only labelled nodes", got)


@dataclass(frozen=True, eq=False, repr=False)
class GraphData(_Noted):
    """Many graphs with labels, as one batch, and their split.

    `graph` is what dgl.batch makes of them, of one relation among nodes of one type, without data of its own. `feat`
    maps the node type to [N, F] float32, or uint8 of zeros and ones where columns are categories, of which there are
    many, or to None; `edge_feat` is [E, F] of either type, or None.
    `label` is [graphs] int64 with -1 for a graph without one, or, where `multilabel`, [graphs, C] float32 of zeros and
    ones with NaN where it is unknown. `train`, `val` and `test` are int64 numbers of graphs. `metric`: what the data's
    makers score by, "" where they do not say. `notes` are sentences that belong under every table of results.
    Graphs without nodes or edges are accepted. Raises DataError for what does not fit.
    """

    name: str
    graph: dgl.DGLGraph
    feat: dict[str, Tensor | None]
    label: Tensor
    train: Tensor
    val: Tensor
    test: Tensor
    num_classes: int
    edge_feat: Tensor | None = None
    multilabel: bool = False
    metric: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def split(self) -> Mapping[str, Tensor]:
        """{"train", "val", "test"}: int64 numbers of graphs."""
        return {part: getattr(self, part) for part in PARTS}

    def counts(self) -> dict[str, int]:
        """What a card may count: graphs, nodes and edges of all, relations, features, classes, the parts."""
        features = sum(feat.shape[1] for feat in self.feat.values() if feat is not None)
        found = {"graphs": len(self.label), **_size(self.graph), "classes": self.num_classes, "features": features}
        return found | {part: len(ids) for part, ids in self.split.items()}

    def __post_init__(self):
        if len(self.graph.ntypes) != 1 or len(self.graph.canonical_etypes) != 1:
            self._refuse("graph", "one relation among nodes of one type", self.graph.canonical_etypes)
        _check_types(self, "feat", self.feat)
        (feat,), graphs = self.feat.values(), self.graph.batch_size
        for what, rows, count in (
            ("feat", feat, self.graph.num_nodes()),
            ("edge_feat", self.edge_feat, self.graph.num_edges()),
        ):
            fits = rows is None or rows.dim() == 2 and len(rows) == count and rows.dtype in (torch.float32, torch.uint8)
            if rows is not None and not fits:
                self._refuse(what, f"float32 or uint8 of {count} rows", f"{rows.dtype} {list(rows.shape)}")
        if self.num_classes < 1:
            self._refuse("num_classes", "1 or more", self.num_classes)
        shape = [graphs, self.num_classes] if self.multilabel else [graphs]
        dtype = torch.float32 if self.multilabel else torch.int64
        if list(self.label.shape) != shape or self.label.dtype != dtype:
            self._refuse("label", f"{dtype} {shape}", f"{self.label.dtype} {list(self.label.shape)}")
        if self.multilabel:
            odd = self.label[(self.label != 0) & (self.label != 1) & ~self.label.isnan()]
            allowed = "only 0, 1 and NaN"
        else:
            odd = self.label[(self.label < -1) | (self.label >= self.num_classes)]
            allowed = f"values from -1 to {self.num_classes - 1}"
        if len(odd):
            self._refuse("label", allowed, odd[0].item())
        _check_ids(self._refuse, self.split, graphs)
        for part, ids in self.split.items():
            if not self.multilabel and (self.label[ids] < 0).any():
                self._refuse(part, "only graphs with a label", f"graph {int(ids[self.label[ids] < 0][0])} without one")

    def _refuse(self, what, expected, got):
        raise DataError(f"{self.name}: {what}: expected {expected}, got {got}")


@dataclass(frozen=True, eq=False, repr=False)
class PairData(_Noted):
    """A graph and pairs of its nodes to be told apart, some linked and some not, split as the files do.

    `graph` has one node type and one relation: what may be read, the training links and no others. `feat` maps the node
    type to [N, F] float32, or to None. `links` are {"train", "val", "test"}: (source, destination), int64 [M] each.
    `negatives` are {"val", "test"}: pairs without a link, (source, destination), [K] each, that all links of the part
    are scored against, or [M, 1] and [M, K], each link's own. `directed`: u v and v u are two links. `metric`: what the
    data's makers score by, "" where they do not say. `notes` are sentences that belong under every table of results.
    Raises DataError for what does not fit.
    """

    name: str
    graph: dgl.DGLGraph
    feat: dict[str, Tensor | None]
    links: Mapping[str, tuple[Tensor, Tensor]]
    negatives: Mapping[str, tuple[Tensor, Tensor]]
    directed: bool = False
    metric: str = ""
    notes: tuple[str, ...] = field(default=())

    def counts(self) -> dict[str, int]:
        """What a card may count: nodes, edges, relations, features and the links of the parts."""
        features = sum(feat.shape[1] for feat in self.feat.values() if feat is not None)
        return {**_size(self.graph), "features": features, **{part: len(self.links[part][0]) for part in PARTS}}

    def __post_init__(self):
        if len(self.graph.ntypes) != 1 or len(self.graph.canonical_etypes) != 1:
            got = f"{len(self.graph.ntypes)} and {len(self.graph.canonical_etypes)}"
            self._refuse("graph", "one node type and one relation", got)
        _check_types(self, "feat", self.feat)
        _check_rows(self)
        nodes = self.graph.num_nodes()
        for what, parts, given in (("links", PARTS, self.links), ("negatives", PARTS[1:], self.negatives)):
            if set(given) != set(parts):
                self._refuse(what, f"the parts {_listed(parts)}", _listed(given) or "none")
            for part in parts:
                self._check_pairs(f"{what} of {part}", given[part], nodes)
        for part in PARTS[1:]:
            src, dst = self.negatives[part]
            count = len(self.links[part][0])
            own = dst.dim() == 2 and src.shape == (count, 1) and len(dst) == count
            if not own and not (dst.dim() == 1 and src.shape == dst.shape):
                expected = f"[K] and [K], or [M, 1] and [M, K] with M = {count}"
                self._refuse(f"negatives of {part}", expected, f"{list(src.shape)} and {list(dst.shape)}")

    def _check_pairs(self, what, pairs, nodes):
        for ids in pairs:
            if ids.dtype != torch.int64 or ids.numel() == 0:
                self._refuse(what, "int64 ids, one or more", f"{ids.dtype} {list(ids.shape)}")
            if ids.min() < 0 or ids.max() >= nodes:
                wrong = ids[(ids < 0) | (ids >= nodes)]
                self._refuse(what, f"ids of nodes from 0 to {nodes - 1}", wrong[0].item())
        if what.startswith("links") and not (pairs[0].dim() == 1 and pairs[0].shape == pairs[1].shape):
            self._refuse(what, "[M] and [M]", f"{list(pairs[0].shape)} and {list(pairs[1].shape)}")

    def _refuse(self, what, expected, got):
        raise DataError(f"{self.name}: {what}: expected {expected}, got {got}")


@dataclass(frozen=True, eq=False, repr=False)
class EventData(_Short):
    """Events in time, for tasks whose answer is who meets whom next.

    `graph` has one edge per event and its time in edata["time"], sorted by time (hgat.graph.from_events). `feat` maps
    every node type to [N, F] float32, or to None. `ids` maps every node type to the names that its nodes had in the
    file. `notes` are sentences that belong under every table of results.
    Raises DataError for what does not fit.
    """

    name: str
    graph: dgl.DGLGraph
    feat: dict[str, Tensor | None]
    ids: dict[str, tuple]
    notes: tuple[str, ...] = field(default=())

    def counts(self) -> dict[str, int]:
        """What a card may count."""
        return _size(self.graph)

    def __post_init__(self):
        _check_types(self, "feat", self.feat)
        _check_types(self, "ids", self.ids)
        _check_rows(self)
        for etype in self.graph.canonical_etypes:
            event_times(self.graph, etype)


@dataclass(frozen=True, eq=False, repr=False)
class StreamData(_Short):
    """Labelled events in time that have entities in common: a stream, for tasks that ask of each event on its own.

    Events are nodes of the type `target`, entities nodes of the other types, as rows of tables with foreign keys are:
    every relation of `graph` goes from events to entities, at most one for each event, and an event whose entity is
    unknown has no edge there. edata["time"] says when the event becomes known there, `asked` [N], of the same type,
    when its label is asked for; the times of a labelled event are not before that.
    feat: {node type: [N, F] float32, or None}, of the events what is known of them when they are asked for. after:
    [N, Fa] float32 or None, what is known of an event only once it is known: what it can tell later ones, its own
    label among that. label: [N] int64, 1 or 0, -1 for events that are context alone.
    val_time, test_time: validation and test are the events asked for from then on.
    `notes` are sentences that belong under every table of results. Raises DataError for what does not fit.
    """

    name: str
    graph: dgl.DGLGraph
    feat: dict[str, Tensor | None]
    target: str
    asked: Tensor
    label: Tensor
    val_time: float
    test_time: float
    after: Tensor | None = None
    notes: tuple[str, ...] = field(default=())

    def counts(self) -> dict[str, int]:
        """What a card may count: as of nodes, and the labelled events."""
        features = sum(feat.shape[1] for feat in self.feat.values() if feat is not None)
        return {**_size(self.graph), "classes": 2, "features": features, "labelled": int((self.label >= 0).sum())}

    def known(self) -> Tensor:
        """[N], when each event is known by the last of its edges; one without edges, when it is asked for."""
        found = self.asked.clone()
        for etype in self.graph.canonical_etypes:
            src, _ = self.graph.edges(etype=etype, order="eid")
            found.scatter_reduce_(0, src.long(), event_times(self.graph, etype), "amax")
        return found

    def __post_init__(self):
        graph, target = self.graph, self.target
        if not graph.canonical_etypes or {etype[0] for etype in graph.canonical_etypes} != {target}:
            got = _listed(sorted({etype[0] for etype in graph.canonical_etypes})) or "none"
            self._refuse("graph", f"relations from {target!r} nodes alone", f"from {got}")
        if set(self.feat) != set(graph.ntypes):
            self._refuse("feat", f"the node types {_listed(graph.ntypes)}", _listed(self.feat))
        rows = {f"features of {ntype}": (feat, graph.num_nodes(ntype)) for ntype, feat in self.feat.items()}
        events = graph.num_nodes(target)
        for what, (feat, nodes) in {**rows, "after": (self.after, events)}.items():
            if feat is None:
                continue
            if feat.dim() != 2 or len(feat) != nodes or feat.dtype != torch.float32:
                self._refuse(what, f"[N, F] float32 with N = {nodes}", f"{feat.dtype} {list(feat.shape)}")
            wrong = (~torch.isfinite(feat)).any(1).nonzero().flatten()
            if len(wrong):
                self._refuse(what, "finite numbers", f"others in {len(wrong)} rows, the first {int(wrong[0])}")
        if self.label.dtype != torch.int64 or self.label.shape != (events,):
            self._refuse("label", f"[N] int64 with N = {events}", f"{self.label.dtype} {list(self.label.shape)}")
        odd = self.label[(self.label < -1) | (self.label > 1)]
        if len(odd):
            self._refuse("label", "1, 0, or -1 for an event without one", odd[0].item())
        self._check_times()

    def _check_times(self):
        for etype in self.graph.canonical_etypes:
            entities(self.graph, etype)
            time = event_times(self.graph, etype)
            if self.asked.dtype != time.dtype or self.asked.shape != self.label.shape:
                expected = f"[N] {time.dtype} with N = {len(self.label)}, as the times of {etype[1]!r},"
                self._refuse("asked", expected, f"{self.asked.dtype} {list(self.asked.shape)}")
            src, _ = self.graph.edges(etype=etype, order="eid")
            early = (self.label[src] >= 0) & (time < self.asked[src])
            if early.any():
                first = int(early.nonzero()[0])
                at, due = time[first], self.asked[src[first]]
                got = f"{early.sum()} known before, the first {src[first]}, at {at} for {due}"
                self._refuse(f"time of {etype[1]!r}", "labelled events that are known when asked for or later", got)
        wrong = (~torch.isfinite(self.asked)).nonzero().flatten()
        if len(wrong):
            self._refuse("asked", "finite times", f"{self.asked[wrong[0]]} at event {wrong[0]}")
        if not self.val_time < self.test_time:
            self._refuse("test_time", f"a time behind val_time = {self.val_time}", self.test_time)

    def _refuse(self, what, expected, got):
        raise DataError(f"{self.name}: {what}: expected {expected}, got {got}")


@dataclass(frozen=True, eq=False, repr=False)
class SignedData(_Noted):
    """A graph whose edges have signs, for tasks that ask for the sign of an edge.

    graph: one relation among nodes of one type, directed, without a pair that is there twice with one sign. sign: [E]
    int64, 1 and -1. test: ids of the edges that a file names for the test, or none. ids: what the nodes were called in
    the file. notes are sentences that belong under every table of results. Raises DataError for what does not fit.
    """

    name: str
    graph: dgl.DGLGraph
    sign: Tensor
    test: Tensor = _NONE
    ids: tuple = ()
    notes: tuple[str, ...] = field(default=())

    def counts(self) -> dict[str, int]:
        """What a card may count: nodes, edges, relations, and the edges for the test."""
        return {**_size(self.graph), "test": len(self.test)}

    def __post_init__(self):
        edges = self.graph.num_edges()
        if len(self.graph.canonical_etypes) != 1 or len(self.graph.ntypes) != 1:
            self._refuse("graph", "one relation among nodes of one type", self.graph.canonical_etypes)
        if self.sign.dtype != torch.int64 or self.sign.shape != (edges,):
            self._refuse("sign", f"[E] int64 with E = {edges}", f"{self.sign.dtype} {list(self.sign.shape)}")
        odd = self.sign[(self.sign != 1) & (self.sign != -1)]
        if len(odd):
            self._refuse("sign", "1 or -1", odd[0].item())
        if self.test.dtype != torch.int64 or self.test.dim() != 1 or len(self.test.unique()) != len(self.test):
            self._refuse("test", "distinct int64 ids of edges", f"{self.test.dtype} {list(self.test.shape)}")
        outside = self.test[(self.test < 0) | (self.test >= edges)]
        if len(outside):
            self._refuse("test", f"ids from 0 to {edges - 1}", outside[0].item())

    def _refuse(self, what, expected, got):
        raise DataError(f"{self.name}: {what}: expected {expected}, got {got}")


@dataclass(frozen=True, eq=False, repr=False)
class TripleData(_Noted):
    """A knowledge graph: triples of a head, a relation and a tail, split as the files do.

    triples: {"train", "val", "test"}: [M, 3] int64, (head, relation, tail), each triple once and in one part. entities,
    relations: their names, by their numbers; some may have no training triple. notes are sentences that belong under
    every table of results. Raises DataError for what does not fit.
    """

    name: str
    triples: Mapping[str, Tensor]
    entities: tuple[str, ...]
    relations: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    def counts(self) -> dict[str, int]:
        """What a card may count: entities, as nodes, training triples, as edges, relations, triples of the parts."""
        parts = {part: len(self.triples[part]) for part in PARTS}
        return {"nodes": len(self.entities), "edges": parts["train"], "relations": len(self.relations), **parts}

    def __post_init__(self):
        for what, names in (("entities", self.entities), ("relations", self.relations)):
            if not names or len(set(names)) != len(names):
                self._refuse(what, "names, each once", f"{len(names)} of {len(set(names))} different ones")
        if set(self.triples) != set(PARTS):
            self._refuse("triples", f"the parts {_listed(PARTS)}", _listed(self.triples) or "none")
        sizes = torch.tensor([len(self.entities), len(self.relations), len(self.entities)])
        for part in PARTS:
            rows = self.triples[part]
            if rows.dtype != torch.int64 or rows.dim() != 2 or rows.shape[1] != 3 or not len(rows):
                self._refuse(f"triples of {part}", "[M, 3] int64, M 1 or more", f"{rows.dtype} {list(rows.shape)}")
            wrong = ((rows < 0) | (rows >= sizes)).any(1)
            if wrong.any():
                expected = f"numbers of {sizes[0]} entities and {sizes[1]} relations"
                self._refuse(f"triples of {part}", expected, tuple(rows[wrong][0].tolist()))
        every = torch.cat([self.triples[part] for part in PARTS])
        if len(torch.unique(every, dim=0)) != len(every):
            got = len(every) - len(torch.unique(every, dim=0))
            self._refuse("triples", "each triple once and in one part", f"{got} that are there again")

    def _refuse(self, what, expected, got):
        raise DataError(f"{self.name}: {what}: expected {expected}, got {got}")


def _check_ids(refuse, split, count, where=""):
    """Refuse parts that are no distinct numbers below `count`, or have one in common."""
    owner = torch.full((count,), -1, dtype=torch.int8)
    for number, part in enumerate(PARTS):
        ids, part = split[part], f"{where}{part}"
        if ids.dtype != torch.int64 or ids.dim() != 1 or len(ids) == 0:
            refuse(part, "a non-empty list of int64 ids", f"{ids.dtype} {list(ids.shape)}")
        outside = ids[(ids < 0) | (ids >= count)]
        if len(outside):
            refuse(part, f"ids from 0 to {count - 1}", outside[0].item())
        if len(ids.unique()) != len(ids):
            refuse(part, "distinct ids", f"{len(ids) - len(ids.unique())} repeated")
        taken = ids[owner[ids] >= 0]
        if len(taken):
            other = PARTS[owner[taken[0]]]
            refuse(part, f"no id of {other}", f"id {taken[0].item()} in both")
        owner[ids] = number


def _check_types(data, what, by_type):
    if set(by_type) != set(data.graph.ntypes):
        expected = f"the node types {_listed(data.graph.ntypes)}"
        raise DataError(f"{data.name}: {what}: expected {expected}, got {_listed(by_type)}")


def _check_rows(data):
    for ntype, feat in data.feat.items():
        nodes = data.graph.num_nodes(ntype)
        if feat is not None and (feat.dim() != 2 or len(feat) != nodes or feat.dtype != torch.float32):
            got = f"{feat.dtype} {list(feat.shape)}"
            raise DataError(f"{data.name}: features of {ntype}: expected [N, F] float32 with N = {nodes}, got {got}")


def _size(graph):
    return {
        "nodes": graph.num_nodes(),
        "edges": graph.num_edges(),
        "relations": len(graph.canonical_etypes),
    }


def _listed(names):
    return ", ".join(str(name) for name in names)
