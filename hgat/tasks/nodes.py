"""Classification of nodes: trained, chosen and scored on the split that the data give."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import dgl
import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from hgat.data import NodeData
from hgat.data.split import shuffled
from hgat.errors import GraphError, RecipeError, ShapeError
from hgat.graph import attacked_edges, flipped_features
from hgat.models import Batch, Facts, System
from hgat.models._gold import attended, beside_gold, correctness, supervision
from hgat.tasks import _metrics
from hgat.tasks._fitted import (
    ITERATIONS,
    STRENGTHS,
    Boosted,
    BoostedMeans,
    Linear,
    LinearMeans,
    log_odds,
    one_by_one,
)
from hgat.tasks._metrics import knn_micro_f1, score
from hgat.tasks._task import PARTS, Control, Task, check_finite, numbered, without_columns

__all__ = ["Nodes"]


class Majority(Control):
    """The class frequencies of the training nodes: the same learned logits for every node."""

    title = "majority class"

    def __init__(self, num_nodes: int, num_classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_classes))
        self.num_nodes = num_nodes

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        return ()

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "Majority":
        return cls(shown.graph.num_nodes(shown.target), shown.num_classes)

    def forward(self) -> Tensor:
        """The same logits for every node, [N, C]."""
        return self.logits.expand(self.num_nodes, -1)


class NoGraph(Control):
    """A two-layer perceptron on the target's own features; the class frequencies where it has none."""

    title = "no graph"

    def __init__(self, in_feats: int, num_classes: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(drop),
            nn.Linear(in_feats, hidden),
            nn.ReLU(),
            nn.Dropout(drop),
            nn.Linear(hidden, num_classes),
        )

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        feat = shown.feat[shown.target]
        return () if feat is None else (feat,)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, *, hidden: int = 64, feat_drop: float = 0.5) -> Control:
        if not inputs:
            return Majority.build(shown, inputs)
        return cls(inputs[0].shape[1], shown.num_classes, hidden, feat_drop)

    def forward(self, feat: Tensor) -> Tensor:
        """feat [N, F] -> logits [N, C]."""
        return self.layers(feat)

    def sampled(self, inputs: tuple, ids: Tensor, fanout: Sequence[int] | None) -> tuple:
        return (inputs[0][ids.to(inputs[0].device)],), ()


class Neighbours(Control):
    """Logistic regression on the list of a node's neighbours, each row scaled to length one: no message passing.

    scikit-learn's LogisticRegression, solved, so that no choice of steps can make it weak; validation chooses among
    the strengths C. Each class is solved by itself, against the rest; one that all training nodes have, or none, keeps
    its frequency. The class frequencies where no relation ends at the target.
    """

    title = "linear on neighbours"
    solutions = len(STRENGTHS)

    def __init__(self, num_neighbours: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_neighbours, num_classes))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        graph, width, rows, columns = shown.graph, 0, [], []
        start = {}
        for ntype in graph.ntypes:
            start[ntype], width = width, width + graph.num_nodes(ntype)
        for etype in graph.canonical_etypes:
            if etype[2] == shown.target:
                src, dst = graph.edges(etype=etype, order="eid")
                rows.append(dst.long())
                columns.append(src.long() + start[etype[0]])
        if not rows:
            return ()
        place = torch.unique(torch.stack([torch.cat(rows), torch.cat(columns)]), dim=1)
        nodes = graph.num_nodes(shown.target)
        value = torch.bincount(place[0], minlength=nodes)[place[0]].float().rsqrt()
        return (torch.sparse_coo_tensor(place, value, (nodes, width), is_coalesced=True, check_invariants=True),)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> Control:
        if not inputs:
            return Majority.build(shown, inputs)
        return cls(inputs[0].shape[1], shown.num_classes)

    def forward(self, bag: Tensor) -> Tensor:
        """bag [N, M], sparse -> logits [N, C]."""
        return torch.sparse.mm(bag, self.weight) + self.bias

    def solve(self, shown: Facts, inputs: tuple, number: int) -> None:
        bag = inputs[0].cpu()
        rows = scipy.sparse.csr_matrix((bag.values(), bag.indices()), shape=tuple(bag.shape))
        train, known = shown.train, shown.label
        rows, label = rows[train.numpy()], known[train].numpy()
        weight, bias = (np.zeros(p.shape, dtype=np.float32) for p in (self.weight, self.bias))
        for k, has in one_by_one(label, weight.shape[1], shown.multilabel):
            bias[k] = log_odds(has)
            if 0 < has.sum() < len(has):
                solved = LogisticRegression(C=STRENGTHS[number], max_iter=ITERATIONS).fit(rows, has)
                weight[:, k], bias[k] = solved.coef_[0], solved.intercept_[0]
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(weight))
            self.bias.copy_(torch.from_numpy(bias))


class Nodes(Task):
    """Which class, or which classes, a node has: cross-entropy over the training nodes.

    batch: nodes in a step of the optimiser; None, one step on the whole graph. fanout: neighbours that are sampled in
    each layer, one number for each, -1 for all, of a system that samples neighbourhoods. Scores of a task in batches
    are exact: no neighbour is left out.
    add_edges, remove_edges, flip_features: an attack at random, shares of the edges and of the target's features that
    are not zero; see hgat.graph.attacked_edges and flipped_features. It is drawn once, by attack_seed, before anything
    else: every system, control and seed trains and is scored on the same graph, and a note says so.
    gold: the share of the edges whose gold is shown, of data that have it, drawn by gold_seed among those that enter
    training nodes or nodes of another type than the target; 0, none. What is shown is learned from: the loss has
    gold_weight times the mean over these edges, heads and layers of -g log w - (1 - g) log(1 - w), where w is the
    attention and g is 1 for a gold edge, else 0. Gold that is not shown is measured alone: the results have the share
    of the test nodes' attention that is on gold edges, "correctness".
    The answer of a system: logits [N, C] of the nodes of the target type, or of a batch's own.
    """

    kind = NodeData
    data: NodeData
    unit = "nodes"
    numeric = False
    controls: ClassVar[Mapping[str, type[Control]]]
    _shown: Facts
    _label: Tensor
    metrics = tuple(_metrics.names())
    controls = {
        "majority": Majority,
        "neighbours": Neighbours,
        "no_graph": NoGraph,
        "linear": Linear,
        "linear_means": LinearMeans,
        "boosted": Boosted,
        "boosted_means": BoostedMeans,
    }

    def __init__(
        self,
        data: Any,
        *,
        batch: int | None = None,
        fanout: list[int] | None = None,
        add_edges: float = 0.0,
        remove_edges: float = 0.0,
        flip_features: float = 0.0,
        attack_seed: int = 0,
        gold: float = 0.0,
        gold_weight: float = 1.0,
        gold_seed: int = 0,
    ) -> None:
        super().__init__(data)
        if add_edges or remove_edges or flip_features:
            self.data = _attacked(self.data, add_edges, remove_edges, flip_features, attack_seed)
            data = self.data
        if self.data.numeric != self.numeric:
            kinds = ("classes", "numbers")
            got = f"{kinds[self.data.numeric]} of {self.data.name}"
            raise RecipeError(f"task.name: expected labels that are {kinds[self.numeric]} for {self.name()}, got {got}")
        if batch is None and fanout is not None:
            raise RecipeError(f"task.fanout: expected it beside batch, got {fanout} without")
        if batch is not None and batch < 1:
            raise RecipeError(f"task.batch: expected 1 or more, got {batch}")
        if fanout is not None and (not fanout or any(count < 1 and count != -1 for count in fanout)):
            raise RecipeError(f"task.fanout: expected numbers from 1 on, or -1 for all neighbours, got {fanout}")
        if not 0 <= gold <= 1 or not 0 < gold_weight < float("inf") or not 0 <= gold_seed < 2**32:
            got = f"{gold}, {gold_weight} and {gold_seed}"
            raise RecipeError(f"task.gold: expected a share from 0 to 1, a weight above 0 and a seed, got {got}")
        if gold and self.data.gold is None:
            raise RecipeError(f"task.gold: expected data of which gold edges are known, got {self.data.name}")
        self.batch, self.fanout = batch, fanout
        self.gold, self.gold_weight, self.gold_seed = gold, gold_weight, gold_seed
        self._of_split: dict[int, Nodes] = {}
        self._refitted: list[Nodes] = []  # once it is asked for, so that its facts are the same object every time
        first = self.with_training_nodes(data.train)
        self._shown, self._label = first._shown, first._label

    def for_seed(self, seed: int) -> "Nodes":
        """The task with split number `seed` of the data's, in turn."""
        number = seed % max(len(self.data.splits), 1)
        if number not in self._of_split:
            found = copy.copy(self)
            found.data, found._refitted = self.data.with_split(number), []
            self._of_split[number] = found.with_training_nodes(found.data.train)
        found = copy.copy(self._of_split[number])
        found.seed = seed
        return found

    def refitted(self) -> "Nodes":
        """The task with the validation nodes among the training nodes."""
        if not self._refitted:
            self._refitted.append(self.with_training_nodes(torch.cat([self.data.train, self.data.val])))
        found = copy.copy(self._refitted[0])
        found.seed = self.seed
        return found

    def with_training_nodes(self, train: Tensor) -> "Nodes":
        """The task in which these nodes are learned from, and the labels of no other are shown."""
        data, found = self.data, copy.copy(self)
        found._label = found._known(train)
        label = torch.full_like(found._label, float("nan") if found._label.is_floating_point() else -1)
        label[train] = found._label[train]
        found._shown = Facts(
            without_columns(data.graph),
            data.feat,
            edge_feat=data.edge_feat,
            target=data.target,
            label=label,
            train=train,
            num_classes=data.num_classes,
            multilabel=data.multilabel,
            numeric=data.numeric,
            columns=data.columns,
            gold=self._told(train) if self.gold else None,
        )
        return found

    def _told(self, train: Tensor) -> Any:
        """The share of gold that is shown where these are the training nodes, as Facts have it."""
        data = self.data
        free = torch.zeros(data.graph.num_nodes(data.target), dtype=torch.bool).index_fill_(0, train, True)
        etypes, gold = data.graph.canonical_etypes, cast(Any, data.gold)
        marks = {etypes[0]: gold} if isinstance(gold, Tensor) else gold
        may, known = [], []
        for etype in etypes:
            dst = data.graph.edges(etype=etype, order="eid")[1].long()
            may.append(free[dst] if etype[2] == data.target else torch.ones(len(dst), dtype=torch.bool))
            known.append(marks[etype].float() if etype in marks else torch.zeros(len(dst)))
        flat, count = torch.cat(may).nonzero().flatten(), round(self.gold * sum(map(len, may)))
        if not 0 < count <= len(flat):
            got = f"{self.gold}, which is {count}"
            raise RecipeError(f"task.gold: expected a share that is 1 to {len(flat)} edges of {data.name}, got {got}")
        told = torch.full((sum(map(len, may)),), torch.nan)
        chosen = shuffled(flat, self.gold_seed)[:count]
        told[chosen] = torch.cat(known)[chosen]
        parts = told.split(list(map(len, may)))
        return parts[0] if isinstance(gold, Tensor) else dict(zip(etypes, parts, strict=True))

    def _known(self, train: Tensor) -> Tensor:
        """Labels as they are learned from and scored, where the training nodes are these."""
        return self.data.label

    def check(self, metric: str, controls: Sequence[str]) -> None:
        """Raise RecipeError where the validation or the test nodes of any split leave the metric undefined."""
        for part, label in self._asked():
            if part != "train":
                score(metric, torch.zeros(len(label), self.data.num_classes), label, self.data.multilabel)

    def _asked(self) -> Iterator[tuple[str, Tensor]]:
        """(part, labels of its nodes) of every part of every split."""
        for split in self.data.splits or (self.data.split,):
            label = self.data.label if self.data.fitted is None else self.data.fitted(split["train"])[0]
            for part in PARTS:
                yield part, label[split[part]]

    def shown(self) -> Facts:
        """The whole graph, and the labels of the training nodes alone."""
        return self._shown

    def sizes(self) -> dict[str, int]:
        """{part: nodes}."""
        return {part: len(getattr(self.data, part)) for part in PARTS}

    def batches(self, model: System, inputs: tuple) -> Iterator[Batch]:
        """All training nodes at once, or `batch` of them in a step, in a new random order."""
        ids, label = self._shown.train, self._label
        if self.batch is None:
            yield Batch(rows=ids, label=label[ids])
            return
        order = ids[torch.randperm(len(ids))]
        # DGL's samplers have a generator of their own, in several threads: what they draw repeats on one.
        dgl.seed(int(torch.randint(2**31, ())))
        for part in order.split(self.batch):
            found = model.sampled(inputs, part, self.fanout)
            if found is None:
                yield Batch(rows=part, label=label[part])
            else:
                yield Batch(inputs=found[0], query=found[1], label=label[part])

    def loss(self, answer: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of one class per node, or the mean binary cross-entropy of several."""
        if batch.rows is not None:
            answer = answer[batch.rows.to(answer.device)]
        return self._loss(answer, cast(Tensor, batch.label).to(answer.device))

    def objective(self, model: System, inputs: tuple, batch: Batch) -> Tensor:
        """The model's objective, and the attention on edges whose gold is shown, a scalar."""
        if self._shown.gold is None:
            return super().objective(model, inputs, batch)
        with attended() as calls:
            loss = super().objective(model, inputs, batch)
        if isinstance(model, Control):  # which attends to nothing
            return loss
        given = inputs if batch.inputs is None else batch.inputs
        return loss + self.gold_weight * supervision(calls, given, self._shown)

    def _loss(self, answer: Tensor, label: Tensor) -> Tensor:
        if self.data.multilabel:
            return F.binary_cross_entropy_with_logits(answer, label)
        return F.cross_entropy(answer, label)

    def _score(self, metric: str, answer: Tensor, label: Tensor) -> float:
        """A metric of rows of the answer beside the labels of these nodes."""
        return score(metric, answer, label, self.data.multilabel)

    @torch.no_grad()
    def predict(self, model: System, inputs: tuple, nodes: Any = None, *, probabilities: bool = False) -> Tensor:
        """The class of each node, [K] int64, a number in data.class_names; [K, C] bool where nodes have several.

        nodes: ids [K], names [K] where the data have them, or a mask [N] of nodes of the target type; None, all.
        probabilities: [K, C] of each class instead. Raises ShapeError for nodes that there are not.
        """
        logits = self._said_of(model, inputs, nodes)
        if self.data.multilabel:
            return logits.sigmoid() if probabilities else logits > 0
        return logits.softmax(1) if probabilities else logits.argmax(1)

    def _said_of(self, model: System, inputs: tuple, nodes: Any) -> Tensor:
        nodes = numbered("nodes", nodes, (self.data.ids or {}).get(self.data.target))
        ids = _chosen(nodes, self.data.graph.num_nodes(self.data.target))
        return model.eval().rows(inputs, ids, self.batch).cpu()

    @torch.no_grad()
    def evaluate(self, model: System, inputs: tuple, part: str, metric: str) -> tuple[float, float]:
        """(metric in percent, loss) on the nodes of a part; GraphError for a graph that the model cannot run on."""
        model.eval()
        try:
            ids = getattr(self.data, part)
            logits = model.rows(inputs, ids, self.batch)
        except dgl.DGLError as error:
            raise GraphError(f"graph: expected one that the model can run on, got: {error}") from error
        loss = float(self._loss(logits, self._label[ids].to(logits.device)))
        check_finite(loss, f"on the {part} nodes", self.data.feat)
        return self._score(metric, logits, self.data.label[ids].to(logits.device)), loss

    def results(
        self, model: System, inputs: tuple, metric: str, *, knn_share: float | None = None, **more: Any
    ) -> tuple[dict, dict[str, Tensor]]:
        """({"test": metric in percent}, {}).

        knn_share: of the test nodes, to fit 5 nearest neighbours with; then the result has "knn", too, of a model that
        embeds nodes. Of data with gold edges, and a model that attends over edges of the graph, the result has "more":
        {"correctness": the share of the test nodes' attention that is on gold edges in percent, mean over layers}.
        """
        found: dict[str, Any] = self._measured(model, inputs)
        embed: Any = getattr(model, "embed", None)
        if knn_share is not None and embed is not None:
            with torch.no_grad():
                embedding = embed(*inputs).cpu()[self.data.test].numpy()
            found["knn"] = knn_micro_f1(embedding, self.data.label[self.data.test].numpy(), knn_share)
        return {**found, "test": self.evaluate(model, inputs, "test", metric)[0]}, {}

    @torch.no_grad()
    def _measured(self, model, inputs):
        """{"more": {"correctness": percent}}, or nothing where there is no gold or no attention over its edges."""
        if self.data.gold is None:
            return {}
        with attended() as calls:
            model.eval()(*inputs)
        found = []
        for call, gold, ends in beside_gold(calls, inputs, self.data):
            marks = gold == 1
            if torch.isin(ends[marks], self.data.test).any():
                found.append(100 * correctness(call.weights, marks, ends, self.data.test))
        return {"more": {"correctness": float(np.mean(found))}} if found else {}


def _chosen(nodes, count):
    """Ids of the nodes that are asked for, all by default."""
    if nodes is None:
        return torch.arange(count)
    ids = torch.as_tensor(nodes)
    if ids.dtype == torch.bool and ids.shape == (count,):
        return ids.nonzero().flatten()
    if ids.dim() != 1 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ShapeError(f"nodes: expected ids [K], or [N] bool with N = {count}, got {ids.dtype} {list(ids.shape)}")
    wrong = ids[(ids < 0) | (ids >= count)]
    if len(wrong):
        raise ShapeError(f"nodes: expected ids from 0 to {count - 1}, got {int(wrong[0])}")
    return ids.long()


def _attacked(data, add, remove, flip, seed):
    """The data with edges added and removed, features flipped, and a note of it; RecipeError where they cannot be."""
    graph, feat = data.graph, data.feat
    try:
        if data.gold is not None:
            raise GraphError("graph: expected edges of which no gold is known to attack, got some")
        if add or remove:
            if data.edge_feat is not None or {"time", "step"} & set(graph.edges[graph.canonical_etypes[0]].data):
                raise GraphError("graph: expected edges without features or times to attack, got some")
            graph = attacked_edges(graph, add=add, remove=remove, seed=seed)
        if flip:
            feat = {**feat, data.target: flipped_features(feat[data.target], flip, seed=seed)}
    except (GraphError, ShapeError) as error:
        raise RecipeError(f"task: expected data that the attack fits, got {data.name}: {error}") from error
    parts = [f"{share:.0%} {what}" for share, what in
             ((add, "edges added"), (remove, "edges removed"), (flip, "features flipped")) if share]  # fmt: skip
    note = f"Attacked at random, the same for every row, seed {seed}: {', '.join(parts)}."
    return replace(data, graph=graph, feat=feat, notes=(*data.notes, note))
