"""Classification of whole graphs: trained, chosen and scored on the split that the data give, in batches of graphs."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import dgl
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hgat.data import GraphData
from hgat.errors import GraphError, RecipeError
from hgat.graph.batches import members
from hgat.models import Batch, Facts, System
from hgat.tasks import _metrics
from hgat.tasks._fitted import Boosted, Linear
from hgat.tasks._metrics import score
from hgat.tasks._task import PARTS, Control, Task, check_finite, without_columns
from hgat.tasks.nodes import Majority

__all__ = ["Graphs"]

RANKED = ("auc", "average_precision")  # metrics that may leave out labels that are unknown


class Frequencies(Majority):
    """The class frequencies of the training graphs: the same learned logits for every graph."""

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "Frequencies":
        return cls(shown.graph.batch_size, shown.num_classes)


def bag(shown: Facts) -> tuple:
    """([graphs, 2 F + 2],): means and sums of a graph's node features, ln(1 + nodes) and ln(1 + edges)."""
    _, owner = (end.long() for end in members(shown.graph).edges(order="eid"))
    feat, graphs = shown.feat[shown.target], shown.graph.batch_size
    sizes, edges = shown.graph.batch_num_nodes().long(), shown.graph.batch_num_edges().long()
    counts = torch.stack([sizes, edges], 1).float().log1p()
    if feat is None:
        return (counts,)
    sums = torch.zeros(graphs, feat.shape[1])
    for rows, of in zip(feat.split(1 << 16), owner.split(1 << 16), strict=True):
        sums.index_add_(0, of, rows.float())
    return (torch.cat([sums / sizes.clamp(min=1).unsqueeze(1), sums, counts], 1),)


class LinearBag(Linear):
    """Logistic regression on the bag of a graph's nodes: what they are without what joins them."""

    title = "linear on the bag of nodes"
    prepare = staticmethod(bag)


class BoostedBag(Boosted):
    """Boosted trees on the bag of a graph's nodes."""

    title = "boosted trees on the bag of nodes"
    prepare = staticmethod(bag)


class Graphs(Task):
    """Which class, or which classes, a graph has: cross-entropy over the training graphs, `batch` of them in a step.

    What is shown are all graphs and their features, and the labels of the training graphs alone. A label that is
    unknown (NaN) has no part in the loss and in the scores, which are means over the classes then, as OGB's are.
    The answer of a system: logits [B, C] of the graphs of a batch, which its `sampled` makes, or of all of them.
    """

    kind = GraphData
    data: GraphData
    unit = "graphs"
    metrics = tuple(_metrics.names())
    controls: ClassVar[Mapping[str, type[Control]]] = {
        "majority": Frequencies,
        "bag": LinearBag,
        "boosted_bag": BoostedBag,
    }

    def __init__(self, data: Any, *, batch: int = 64) -> None:
        super().__init__(data)
        if batch < 1:
            raise RecipeError(f"task.batch: expected 1 or more, got {batch}")
        self.batch = batch
        self._refitted: list[Graphs] = []
        self._show(self.data.train)

    def _show(self, train: Tensor) -> None:
        """Show the labels of these graphs and of no others."""
        data = self.data
        label = torch.full_like(data.label, float("nan") if data.multilabel else -1)
        label[train] = data.label[train]
        (target,) = data.graph.ntypes
        graph = _bare(data.graph)
        self._facts = Facts(
            graph,
            data.feat,
            edge_feat=data.edge_feat,
            target=target,
            label=label,
            train=train,
            num_classes=data.num_classes,
            multilabel=data.multilabel,
        )

    def refitted(self) -> "Graphs":
        """The task with the validation graphs among the training graphs."""
        if not self._refitted:
            found = copy.copy(self)
            found._show(torch.cat([self.data.train, self.data.val]))
            self._refitted.append(found)
        found = copy.copy(self._refitted[0])
        found.seed = self.seed
        return found

    def check(self, metric: str, controls: Sequence[str]) -> None:
        """Raise RecipeError where a part leaves the metric, or a control, undefined."""
        data = self.data
        unknown = data.multilabel and bool(torch.cat([data.label[data.split[part]] for part in PARTS]).isnan().any())
        where = f"where labels are unknown, as in {data.name}"
        if unknown and metric not in RANKED:
            raise RecipeError(f"train.metric: expected {' or '.join(RANKED)} {where}, got {metric}")
        solved = [name for name in controls if name in self.controls and self.controls[name].solutions]
        if unknown and solved:
            raise RecipeError(f"train.controls: expected none that is solved {where}, got {solved[0]!r}")
        for part in PARTS[1:]:
            label = data.label[data.split[part]]
            self._score(metric, torch.zeros(len(label), data.num_classes), label)

    def shown(self) -> Facts:
        """All graphs, and the labels of the training graphs."""
        return self._facts

    def sizes(self) -> dict[str, int]:
        """{part: graphs}."""
        return {part: len(self.data.split[part]) for part in PARTS}

    def batches(self, model: System, inputs: tuple) -> Iterator[Batch]:
        """`batch` training graphs in a step, in a new random order."""
        ids = self._facts.train
        for part in ids[torch.randperm(len(ids))].split(self.batch):
            found = model.sampled(inputs, part, None)
            own = {"rows": part} if found is None else {"inputs": found[0], "query": found[1]}
            yield Batch(**own, label=self.data.label[part])

    def loss(self, answer: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of one class per graph, or the mean binary cross-entropy of the labels that are known."""
        if batch.rows is not None:
            answer = answer[batch.rows.to(answer.device)]
        return self._loss(answer, cast(Tensor, batch.label).to(answer.device))

    def _loss(self, answer: Tensor, label: Tensor) -> Tensor:
        if not self.data.multilabel:
            return F.cross_entropy(answer, label)
        known = ~label.isnan()
        terms = F.binary_cross_entropy_with_logits(answer, label.nan_to_num(), reduction="none")
        return (terms * known).sum() / known.sum().clamp(min=1)

    def _score(self, metric: str, logits: Tensor, label: Tensor) -> float:
        """A metric in percent; of labels of which some are unknown the mean over the classes that have both kinds."""
        if not self.data.multilabel or not label.isnan().any():
            return score(metric, logits, label, self.data.multilabel)
        found = []
        for k in range(label.shape[1]):
            known = ~label[:, k].isnan()
            truth = label[known, k : k + 1]
            if len(truth.unique()) == 2:
                found.append(score(metric, logits[known, k : k + 1], truth, True))
        if not found:
            raise RecipeError(f"train.metric: {metric}: expected a class with known labels of both kinds, got none")
        return float(np.mean(found))

    @torch.no_grad()
    def evaluate(self, model: System, inputs: tuple, part: str, metric: str) -> tuple[float, float]:
        """(metric in percent, loss) on the graphs of a part; GraphError for graphs that the model cannot run on."""
        model.eval()
        ids = self.data.split[part]
        try:
            logits = model.rows(inputs, ids, self.batch).cpu()
        except dgl.DGLError as error:
            raise GraphError(f"graph: expected graphs that the model can run on, got: {error}") from error
        label = self.data.label[ids]
        loss = float(self._loss(logits, label))
        check_finite(loss, f"on the {part} graphs", self.data.feat)
        return self._score(metric, logits, label), loss


def _bare(graph: dgl.DGLGraph) -> dgl.DGLGraph:
    """The batch without what is written on nodes and edges, where a label may stand, its sizes kept."""
    sizes, edges = graph.batch_num_nodes(), graph.batch_num_edges()
    found = without_columns(graph).local_var()
    for name in list(found.edata):
        del found.edata[name]
    found.set_batch_num_nodes(sizes)
    found.set_batch_num_edges(edges)
    return found
