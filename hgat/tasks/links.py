"""Links of one graph: which pairs of its nodes are joined by an edge that is not shown.

The links are split once for each seed, both directions of an undirected one together, or as the data's own files say.
What is shown is the message graph: the training links, and no other. The pairs without a link that validation and test
are scored against are drawn once for each seed from all pairs that are no link in any part; those of training are fresh
in every epoch, and drawn from all that are no training link, so that nothing held out is avoided.
Papers: Kipf and Welling 2016, arXiv:1611.07308 (shares 85/5/10); Hu et al. 2020 (OGB), arXiv:2005.00687 (Hits@k, MRR).
Adamic-Adar: Adamic and Adar 2003; the other counts: Liben-Nowell and Kleinberg 2003.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import dgl
import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from dgl import DGLGraph
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from hgat.data import NodeData, PairData
from hgat.errors import GraphError, RecipeError, ShapeError, TrainingError
from hgat.graph import NonEdges
from hgat.models import GAT, Batch, Facts, System
from hgat.models._stack import feature_width
from hgat.models._system import pieces
from hgat.tasks._task import PARTS, Control, Task, numbered, without_columns
from hgat.tasks.nodes import NoGraph

__all__ = ["Links"]

AT_ONCE = 2048  # pairs that are scored in one piece
HITS = (1, 3, 10, 20, 50, 100)
METRICS = ("auc", "average_precision", "mrr", *(f"hits@{k}" for k in HITS))


class _Counted(Control):
    """A score of a pair that is counted in the message graph, its edges in both directions, once, without loops."""

    solutions = 0

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        """(adjacency matrix,), in SciPy's compressed rows."""
        src, dst = (end.long().numpy() for end in shown.graph.edges(order="eid"))
        apart, size = src != dst, shown.graph.num_nodes()
        ends = np.concatenate([src[apart], dst[apart]]), np.concatenate([dst[apart], src[apart]])
        found = scipy.sparse.csr_matrix((np.ones(len(ends[0])), ends), shape=(size, size))
        found.data[:] = 1.0  # of an edge that is there several times
        return (found,)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "_Counted":
        return cls()

    def paired(self, inputs: tuple, src: Tensor, dst: Tensor) -> tuple:
        return inputs, (src, dst)


class CommonNeighbours(_Counted):
    """How many neighbours both ends have in common: nothing is trained."""

    title = "common neighbours"

    def forward(self, links: scipy.sparse.csr_matrix, src: Tensor, dst: Tensor) -> Tensor:
        """links [N, N], src, dst [B] -> [B]. Raises nothing: the ids are the task's own."""
        return self.shared(links, src, dst, np.ones(links.shape[0]))

    def shared(self, links: Any, src: Tensor, dst: Tensor, weight: np.ndarray) -> Tensor:
        """The sum of the weights [N] of the common neighbours of both ends, [B]."""
        return torch.from_numpy(links[src.numpy()].multiply(links[dst.numpy()]) @ weight)


class AdamicAdar(CommonNeighbours):
    """sum over common neighbours w of 1 / log(degree of w): nothing is trained."""

    title = "Adamic-Adar"

    def forward(self, links: scipy.sparse.csr_matrix, src: Tensor, dst: Tensor) -> Tensor:
        """links [N, N], src, dst [B] -> [B]. Raises nothing: the ids are the task's own."""
        degree = np.asarray(links.sum(1)).ravel()
        # Two different nodes share none with fewer neighbours than two; a node and itself do.
        return self.shared(links, src, dst, np.divide(1.0, np.log(np.maximum(degree, 2.0))))


class PreferentialAttachment(_Counted):
    """The product of both ends' degrees: nothing is trained."""

    title = "preferential attachment"

    def forward(self, links: scipy.sparse.csr_matrix, src: Tensor, dst: Tensor) -> Tensor:
        """links [N, N], src, dst [B] -> [B]. Raises nothing: the ids are the task's own."""
        degree = torch.from_numpy(np.asarray(links.sum(1)).ravel())
        return degree[src] * degree[dst]


class GATEncoder(Control):
    """Two layers of GAT that embed the nodes, four heads and one: what a pair's ends are, and nothing between them.

    hidden: width of the heads of the first layer side by side. feat_drop: dropout on features and on alpha. A link
    without a direction passes messages both ways.
    """

    title = "GAT encoder"

    def __init__(self, in_feats: int, out_feats: int, hidden: int, drop: float) -> None:
        super().__init__()
        options = {"feat_drop": drop, "attn_drop": drop, "value_drop": 0.0}
        self.encoder = GAT(in_feats, out_feats, hidden=max(1, hidden // 4), heads=(4, 1), **options)

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        return GAT.prepare(shown, undirected=not shown.directed)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, *, hidden: int = 64, feat_drop: float = 0.5) -> Control:
        return cls(feature_width(inputs[1], shown.target), shown.num_classes, hidden, feat_drop)

    def forward(self, graph: DGLGraph, feat: Mapping[str, Tensor]) -> Tensor:
        """feat {node type: [N, F]} -> rows [N, F of the task]. Raises nothing: both are the control's own."""
        return self.encoder(graph, feat)


class Links(Task):
    """Which pairs of nodes are linked: binary cross-entropy over training links and as many other pairs.

    Of PairData the split, the pairs without a link and the direction are the data's; of NodeData, a graph of one
    relation among nodes of one type, whose labels are not shown:
    val_share, test_share: of the links, by default 0.05 and 0.1. directed: u v and v u are two links; by default one,
    and both directions are in one part. A self-loop is no link; it stays in what is shown. An edge that is there
    several times is one link. As many pairs without a link as there are links are drawn for validation and for test.
    A node whose links are all held out stands alone in the message graph, and its pairs are scored like others.
    negatives: pairs without a link for each training link, fresh in every epoch. batch: training links in a step of the
    optimiser; None, all at once. out_feats: F, the columns of the rows by which a system that embeds nodes answers.
    Hits@k: the share of links above all but k - 1 of the part's pairs without a link, or, where each link has pairs of
    its own, in the first k places among them. MRR: the mean of 1 / rank, among the same; ties count half. They are in
    percent, as all scores are.
    A pair without a direction is asked for with the smaller id first.
    The answer of a system: rows [N, F] of all nodes, z_u . z_v the logit of a pair, or where links have a direction
    that of the first half of z_u and the second half of z_v; or, of a system that has `paired`, logits [B] of pairs.
    """

    kind = (NodeData, PairData)
    data: NodeData | PairData
    unit = "links"
    metrics = METRICS
    controls: ClassVar[Mapping[str, type[Control]]] = {
        "common_neighbours": CommonNeighbours,
        "adamic_adar": AdamicAdar,
        "preferential_attachment": PreferentialAttachment,
        "no_graph": NoGraph,
        "gat": GATEncoder,
    }

    def __init__(
        self,
        data: Any,
        *,
        val_share: float | None = None,
        test_share: float | None = None,
        directed: bool | None = None,
        negatives: int = 1,
        batch: int | None = None,
        out_feats: int = 64,
    ) -> None:
        super().__init__(data)
        for name, number in {"negatives": negatives, "batch": batch, "out_feats": out_feats}.items():
            if number is not None and number < 1:
                raise RecipeError(f"task.{name}: expected 1 or more, got {number}")
        self.negatives, self.batch, self.out_feats = negatives, batch, out_feats
        given = {"val_share": val_share, "test_share": test_share, "directed": directed}
        if isinstance(data, PairData):
            for name, value in given.items():
                if value is not None:
                    raise RecipeError(f"task.{name}: expected none, as {data.name} brings its own, got {value}")
            self.directed, self._split = data.directed, None
        else:
            self.directed = bool(directed)
            shares = tuple(usual if share is None else share for share, usual in ((val_share, 0.05), (test_share, 0.1)))
            self._split = _Split(data, shares, self.directed)
        if self.directed and out_feats % 2:
            raise RecipeError(f"task.out_feats: expected an even number where links have a direction, got {out_feats}")
        self._of_seed: dict[int, tuple[PairData, Facts, NonEdges]] = {}

    def _own(self) -> tuple[PairData, Facts, NonEdges]:
        """(the pairs of this seed, what is shown of them, the pairs that are no training link)."""
        seed = 0 if self._split is None else self.seed
        if seed not in self._of_seed:
            pairs = cast(PairData, self.data) if self._split is None else self._split.of(seed)
            (ntype,) = pairs.graph.ntypes
            graph = without_columns(pairs.graph)
            shown = Facts(graph, pairs.feat, target=ntype, num_classes=self.out_feats, directed=self.directed)
            others = NonEdges(graph.num_nodes(), *pairs.links["train"], directed=self.directed)
            if not len(others):
                raise RecipeError(f"task: expected pairs of nodes without a link, got none of {pairs.name}")
            self._of_seed[seed] = pairs, shown, others
        return self._of_seed[seed]

    @property
    def pairs(self) -> PairData:
        """The links of this seed's parts, and what they are scored against."""
        return self._own()[0]

    def for_seed(self, seed: int) -> "Links":
        """The task with the split that this seed draws."""
        found = copy.copy(self)
        found.seed = seed
        return found

    def check(self, metric: str, controls: Sequence[str]) -> None:
        """Raise RecipeError for Hits@k of fewer than k pairs without a link, which every answer would have."""
        for part in ("val", "test"):
            count = self.pairs.negatives[part][1].shape[-1]
            if metric.startswith("hits@") and count < int(metric[5:]):
                k = metric[5:]
                raise RecipeError(f"train.metric: {metric}: expected {k} pairs without a link, got {count} in {part}")

    def shown(self) -> Facts:
        """The graph of the training links, and the features."""
        return self._own()[1]

    def sizes(self) -> dict[str, int]:
        """Links of every part."""
        return {part: len(self.pairs.links[part][0]) for part in PARTS}

    def batches(self, model: System, inputs: tuple) -> Iterator[Batch]:
        """The training links in a new random order, `batch` in a step, each with pairs that are no training link."""
        pairs, _, others = self._own()
        src, dst = pairs.links["train"]
        for part in torch.randperm(len(src)).split(self.batch or len(src)):
            drawn = others.at(torch.randint(len(others), (len(part) * self.negatives,)))
            ends = self._ordered(torch.cat([src[part], drawn[0]]), torch.cat([dst[part], drawn[1]]))
            label = torch.zeros(len(ends[0]))
            label[: len(part)] = 1
            found = model.paired(inputs, *ends)
            own = {} if found is None else {"inputs": found[0], "query": found[1]}
            yield Batch(**own, label=label, more={"src": ends[0], "dst": ends[1]})

    def loss(self, answer: Tensor, batch: Batch) -> Tensor:
        """Mean binary cross-entropy of a batch's pairs."""
        logits = answer if answer.dim() == 1 else self._products(answer, batch.more["src"], batch.more["dst"])
        label: Any = batch.label
        return F.binary_cross_entropy_with_logits(logits, label.to(logits))

    def _ordered(self, src: Tensor, dst: Tensor) -> tuple[Tensor, Tensor]:
        """The ends as they are asked for: the order in which a file has those of an undirected pair tells nothing."""
        return (src, dst) if self.directed else (torch.minimum(src, dst), torch.maximum(src, dst))

    def _products(self, rows: Tensor, src: Tensor, dst: Tensor) -> Tensor:
        """Logits [B] of pairs by the rows [N, F] of their ends."""
        one, other = rows.chunk(2, 1) if self.directed else (rows, rows)
        return (one[src.to(rows.device)] * other[dst.to(rows.device)]).sum(1)

    def predict(self, model: System, inputs: tuple, src: Any = None, dst: Any = None) -> Tensor:
        """The probability that the pairs src, dst [K] are linked, as links and as many others were told apart, [K].

        Names of nodes serve as ids where the data have them. Raises ShapeError for ids of other nodes, or of different
        lengths.
        """
        nodes = self.pairs.graph.num_nodes()
        names = (getattr(self.data, "ids", None) or {}).get(self.pairs.graph.ntypes[0])
        src, dst = numbered("src", src, names), numbered("dst", dst, names)
        ends = [torch.as_tensor(end) for end in (src, dst) if end is not None]
        whole = all(end.dim() == 1 and not end.is_floating_point() for end in ends)
        if len(ends) != 2 or not whole or len(ends[0]) != len(ends[1]):
            raise ShapeError(f"predict: expected ids src [K] and dst [K], got {[list(end.shape) for end in ends]}")
        for name, end in zip(("src", "dst"), ends, strict=True):
            wrong = end[(end < 0) | (end >= nodes)]
            if len(wrong):
                raise ShapeError(f"{name}: expected ids from 0 to {nodes - 1}, got {int(wrong[0])}")
        with torch.no_grad():
            logits = self._scorer(model, inputs)(*(end.long() for end in ends))
        return torch.from_numpy(logits).sigmoid()

    def _scorer(self, model: System, inputs: tuple) -> Callable[[Tensor, Tensor], np.ndarray]:
        """A function of pairs (src, dst) that gives their logits, float64 of dst's shape, in evaluation mode."""
        model.eval()
        rows: list[Tensor] = []

        def score(src, dst):
            found = []
            for piece in pieces(len(dst), max(1, AT_ONCE // max(dst[:1].numel(), 1))):
                ends = self._ordered(src[piece].expand_as(dst[piece]).flatten(), dst[piece].flatten())
                own = model.paired(inputs, *ends)
                if own is not None:
                    found.append(model.answer(inputs, Batch(inputs=own[0], query=own[1])).cpu())
                    continue
                if not rows:
                    rows.append(model.whole(inputs))
                found.append(self._products(rows[0], *ends).cpu())
            logits = torch.cat(found).double().numpy().reshape(dst.shape)
            if not np.isfinite(logits).all():
                raise TrainingError("training: expected finite scores, got others; a smaller train.lr may help")
            return logits

        return score

    @torch.no_grad()
    def _scores(self, model: System, inputs: tuple, part: str) -> tuple[np.ndarray, np.ndarray]:
        """(logits of the links of a part [M], of its pairs without one, [K] or [M, K]), in evaluation mode."""
        score = self._scorer(model, inputs)
        try:
            return score(*self.pairs.links[part]), score(*self._others(part))
        except dgl.DGLError as error:
            raise GraphError(f"graph: expected one that the model can run on, got: {error}") from error

    def _others(self, part: str) -> tuple[Tensor, Tensor]:
        """The pairs without a link that a part is scored against; of training pairs that are no training link."""
        if part != "train":
            return self.pairs.negatives[part]
        pairs, _, others = self._own()
        drawn = np.random.RandomState([self.seed, 2]).randint(0, len(others), len(pairs.links["train"][0]))
        return others.at(torch.from_numpy(drawn))

    def evaluate(self, model: System, inputs: tuple, part: str, metric: str) -> tuple[float, float]:
        """(metric in percent, mean binary cross-entropy) of a model on the links of a part and the pairs without."""
        links, others = self._scores(model, inputs, part)
        return _measures(links, others)[metric], _cross_entropy(links, others)

    def results(self, model: System, inputs: tuple, metric: str, **_: Any) -> tuple[dict, dict[str, Tensor]]:
        """{"test": the metric, "more": every one that is defined}."""
        more = _measures(*self._scores(model, inputs, "test"))
        return {"test": more[metric], "more": more}, {}


class _Split:
    """Parts of a graph's links, the same for a seed on every machine."""

    def __init__(self, data, shares, directed):
        graph, self.data, self.shares, self.directed = data.graph, data, shares, directed
        if len(graph.ntypes) != 1 or len(graph.canonical_etypes) != 1:
            got = f"{len(graph.ntypes)} and {len(graph.canonical_etypes)}"
            raise RecipeError(f"task: expected a graph of one node type and one relation, got {got} of {data.name}")
        if not all(0 < share < 1 for share in shares) or sum(shares) >= 1:
            got = f"val_share = {shares[0]}, test_share = {shares[1]}"
            raise RecipeError(f"task: expected shares above 0 that leave links to train on, got {got}")
        src, dst = (end.long() for end in graph.edges(order="eid"))
        low, high = (src, dst) if directed else (torch.minimum(src, dst), torch.maximum(src, dst))
        # Self-loops are links of no part: they stay.
        self.keys, place = torch.unique(low * graph.num_nodes() + high, return_inverse=True)
        apart = self.keys // graph.num_nodes() != self.keys % graph.num_nodes()
        self.loop, self.place, self.keys = ~apart[place], (apart.cumsum(0) - 1)[place], self.keys[apart]
        count = len(self.keys)
        self.held = [max(1, round(share * count)) for share in shares]
        if count <= sum(self.held):
            raise RecipeError(f"task: expected three links of two nodes or more to split, got {count} of {data.name}")
        self.others = NonEdges(graph.num_nodes(), src, dst, directed=directed)
        if len(self.others) < sum(self.held):
            raise RecipeError(
                f"task: expected {sum(self.held)} pairs of nodes without a link, as many as links to score, "
                f"got {len(self.others)} of {data.name}"
            )

    def of(self, seed):
        """The PairData of a seed."""
        random, (val, test) = np.random.RandomState([seed, 0]), self.held
        order = torch.from_numpy(random.permutation(len(self.keys)))
        sets = dict(zip(("val", "test", "train"), order.split([val, test, len(order) - val - test]), strict=True))
        kept = torch.zeros(len(self.keys), dtype=torch.bool)
        kept[sets["train"]] = True
        # Of a loop the place is any, and does not count.
        graph = dgl.edge_subgraph(self.data.graph, kept[self.place] | self.loop, relabel_nodes=False, store_ids=False)
        nodes = graph.num_nodes()
        drawn = _distinct(len(self.others), val + test, np.random.RandomState([seed, 1]))
        wrong = dict(zip(("val", "test"), torch.from_numpy(drawn).split([val, test]), strict=True))
        keys = {part: self.keys[sets[part].sort().values] for part in PARTS}
        return PairData(
            self.data.name,
            graph,
            self.data.feat,
            {part: (key // nodes, key % nodes) for part, key in keys.items()},
            {part: self.others.at(numbers) for part, numbers in wrong.items()},
            directed=self.directed,
            notes=self.data.notes,
        )


def _distinct(limit: int, count: int, random: np.random.RandomState) -> np.ndarray:
    """`count` different numbers below `limit`, of which there are enough, int64."""
    if 2 * count > limit:
        return random.permutation(limit)[:count].astype(np.int64)
    found = np.empty(0, dtype=np.int64)
    while len(found) < count:
        found = np.concatenate([found, random.randint(0, limit, count - len(found), dtype=np.int64)])
        found = found[np.sort(np.unique(found, return_index=True)[1])]
    return found


def _cross_entropy(links, others):
    terms = np.logaddexp(0, -links).sum() + np.logaddexp(0, others).sum()
    return float(terms / (links.size + others.size))


def _measures(links: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Every metric that is defined, in percent: links [M], others [K], or [M, K] where each link has its own."""
    label = np.concatenate([np.ones(links.size, int), np.zeros(others.size, int)])
    scores = np.concatenate([links, others.ravel()])
    if others.ndim == 1:
        order = np.sort(others)
        above = len(order) - np.searchsorted(order, links, side="right")
        not_below = len(order) - np.searchsorted(order, links, side="left")
        place = not_below + 1.0
    else:
        above, not_below = (others > links[:, None]).sum(1), (others >= links[:, None]).sum(1)
        place = 1 + (above + not_below) / 2  # OGB's, which counts ties against a link only where pairs are shared
    found = {
        "auc": roc_auc_score(label, scores),
        "average_precision": average_precision_score(label, scores),
        "mrr": np.mean(1 / (1 + (above + not_below) / 2)),
        **{f"hits@{k}": np.mean(place <= k) for k in HITS if k <= others.shape[-1]},
    }
    return {name: 100.0 * float(value) for name, value in found.items()}
