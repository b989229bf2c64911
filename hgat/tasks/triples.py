"""Triples of a knowledge graph: which entity stands behind a head and a relation, or before a relation and a tail.

What is shown are the training triples. A system gives a row of every entity, and a decoder, which is learned with it,
ranks all entities behind a head and a relation; heads are asked for behind the tail and the inverse of the relation,
which has a row of its own. Scores are filtered: of the entities that are known to be right only the one that is asked
for is ranked. Ties count half, which is the mean rank of all orders of those that are tied.
Papers: Bordes et al. 2013, NeurIPS 26 (filtered ranks); Dettmers et al. 2018, arXiv:1707.01476 (all tails at once);
Sun et al. 2020, arXiv:1911.03903 (ties).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Literal, cast

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat.data import TripleData
from hgat.errors import RecipeError, TrainingError
from hgat.graph.triples import ENTITY, triple_graph
from hgat.models import Batch, Facts, System
from hgat.models._decoded import Decoded, Query, decoder_of
from hgat.models._system import pieces, resting
from hgat.tasks._task import PARTS, Control, Task

__all__ = ["Triples"]

AT_ONCE = 1 << 24  # scores that are held at once where ranks are found
HITS = (1, 3, 10)


class NoGraph(Control):
    """The decoder on a learned row of every entity: no message is passed."""

    title = "no graph"

    def __init__(self, num_entities: int, out_feats: int) -> None:
        super().__init__()
        self.entity = nn.Embedding(num_entities, out_feats)
        nn.init.xavier_normal_(self.entity.weight)

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        return ()

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "NoGraph":
        return cls(shown.graph.num_nodes(), shown.num_classes)

    def forward(self) -> Tensor:
        """The rows, [N, D]. Raises nothing."""
        return self.entity.weight


class Counting(Control):
    """How many training triples have the relation and the tail, whatever their head: nothing is trained."""

    title = "relation and tail"
    solutions = 0

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        """([2 R, N] of counts,), in SciPy's compressed rows; inverse relations count heads."""
        nodes, types, found = shown.graph.num_nodes(), shown.graph.canonical_etypes, []
        for number, etype in enumerate(types):
            src, dst = (end.long().numpy() for end in shown.graph.edges(etype=etype))
            found += [(np.full(len(dst), number), dst), (np.full(len(src), number + len(types)), src)]
        row, column = (np.concatenate(side) for side in zip(*found, strict=True))
        size = 2 * len(types), nodes
        return (scipy.sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=size),)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "Counting":
        return cls()

    def forward(self, counts: scipy.sparse.csr_matrix, query: Query) -> Tensor:
        """counts [2 R, N], a query of B relations -> [B, N]. Raises nothing: the numbers are the task's own."""
        return torch.from_numpy(counts[query.relation.numpy()].toarray())

    def scorer(self, inputs: tuple) -> Callable[[Tensor, Tensor], Tensor]:
        """A function of (head, relation) [B] that gives scores [B, N]."""
        return lambda head, relation: self(*inputs, Query(head, relation))


class Tails:
    """The tails that are known behind every head and relation: (head, relation) pairs, and a list of tails of each.

    triples [M, 3], inverse ones among them. key: [K], head * relations + relation, sorted; tail: sorted inside each,
    those of pair k from indptr[k] to indptr[k + 1].
    """

    def __init__(self, triples: Tensor, num_entities: int, num_relations: int) -> None:
        self.num_entities, self.num_relations = num_entities, num_relations
        head, relation, tail = triples.unbind(1)
        every = torch.unique((head * num_relations + relation) * num_entities + tail)
        key, self.tail = every // num_entities, every % num_entities
        self.key, count = torch.unique_consecutive(key, return_counts=True)
        self.indptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
        # Of tail i of a pair, how many entities below it are none: what NonTails are counted by.
        self._below = self.tail - (torch.arange(len(self.tail)) - self.indptr[:-1].repeat_interleave(count))
        self._below += torch.arange(len(self.key)).repeat_interleave(count) * (num_entities + 1)

    def pairs(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """(head, relation) of the pairs with these numbers."""
        key = self.key[place]
        return key // self.num_relations, key % self.num_relations

    def places(self, head: Tensor, relation: Tensor) -> Tensor:
        """The numbers of pairs, all of which are known."""
        return torch.searchsorted(self.key, head * self.num_relations + relation)

    def of(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """(row, tail) of all tails of the pairs with these numbers, row counting the pairs that are given."""
        first, count = self.indptr[place], self.indptr[place + 1] - self.indptr[place]
        row = torch.arange(len(place)).repeat_interleave(count)
        start = (first - (count.cumsum(0) - count)).repeat_interleave(count)
        return row, self.tail[start + torch.arange(len(row))]

    def others(self, place: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """(entities [B, count] that are no tails of the pairs, [B] bool: whether there are any), drawn evenly."""
        room = self.num_entities - (self.indptr[place + 1] - self.indptr[place])
        drawn = (torch.rand(len(place), count, dtype=torch.float64) * room.unsqueeze(1)).long()
        offset = (place * (self.num_entities + 1)).unsqueeze(1)
        passed = torch.searchsorted(self._below, drawn + offset, right=True) - self.indptr[place].unsqueeze(1)
        return (drawn + passed).clamp(max=self.num_entities - 1), room > 0


class Triples(Task):
    """Triples of a knowledge graph: all entities ranked behind a head and a relation, and before a relation and a tail.

        softmax    mean over (h, r) of -sum_t y_t ln softmax_t(score(h, r, .)),  y = (1 - s) / |T| on the T tails, + s/N
        binary     mean over (h, r) and t of the binary cross-entropy,           y = (1 - s) on the T tails, + s/N
        negatives  mean over triples of -ln o(score(h, r, t)) - mean over t' of ln o(-score(h, r, t'))

    o: the sigmoid. loss: one of the three; label_smoothing: s, of the first two; negatives: how many t', drawn for each
    training triple from all entities that are no known tail in training. A held-out one may be among them: who avoided
    it would tell it. batch: heads with relations in a step of the optimiser, or, with negatives, triples; each triple
    is asked for in both directions.
    decoder: "distmult", "transe" or "conve", see hgat.nn.DistMultDecoder and the others; out_feats: D, the columns of a
    row; drop: its rate of dropout; margin: TransE's; channels: ConvE's filters.
    Scores, in percent: mean reciprocal rank and Hits@k, of both directions, filtered; and the mean rank, which is a
    number of entities. Validation does not know the test triples: its filter are those of training and validation.
    The loss beside them is the mean of -ln of the softmax over what is ranked.
    The answer of a system: [N, D], a row of every entity.
    """

    kind = TripleData
    data: TripleData
    unit = "triples"
    metrics = ("mrr", *(f"hits@{k}" for k in HITS))
    controls: ClassVar[dict[str, type[Control]]] = {"no_graph": NoGraph, "counting": Counting}

    def __init__(
        self,
        data: Any,
        *,
        decoder: Literal["distmult", "transe", "conve"] = "distmult",
        out_feats: int = 64,
        loss: Literal["softmax", "binary", "negatives"] = "softmax",
        label_smoothing: float = 0.0,
        negatives: int = 32,
        batch: int = 512,
        drop: float = 0.0,
        margin: float = 9.0,
        channels: int = 32,
    ) -> None:
        super().__init__(data)
        for name, value in (("out_feats", out_feats), ("negatives", negatives), ("channels", channels)):
            if value < 1:
                raise RecipeError(f"task.{name}: expected 1 or more, got {value}")
        least = 2 if decoder == "conve" else 1  # it normalises over the batch
        if batch < least:
            raise RecipeError(f"task.batch: expected {least} or more, got {batch}")
        for name, rate in (("label_smoothing", label_smoothing), ("drop", drop)):
            if not 0 <= rate < 1:
                raise RecipeError(f"task.{name}: expected a number from 0 to below 1, got {rate}")
        self.decoder, self.kind_of_loss, self.smoothing = decoder, loss, label_smoothing
        self.negatives, self.batch, self.out_feats = negatives, batch, out_feats
        self._options: dict[str, Any] = {"drop": drop, "margin": margin, "channels": channels}
        self.num_entities, self.num_relations = len(data.entities), 2 * len(data.relations)
        graph = triple_graph(data.triples["train"], self.num_entities, data.relations)
        # Relations have the numbers that the graph gives them, which it orders by their names.
        names = [name for _, name, _ in graph.canonical_etypes]
        number = torch.tensor([names.index(name) for name in data.relations])
        self.triples = {
            part: torch.stack([rows[:, 0], number[rows[:, 1]], rows[:, 2]], 1) for part, rows in data.triples.items()
        }
        self._facts = Facts(graph, {ENTITY: None}, target=ENTITY, num_classes=out_feats, directed=True, triples=True)
        self._tails: dict[tuple[str, ...], Tails] = {}

    def shown(self) -> Facts:
        """The graph of the training triples; entities have no features."""
        return self._facts

    def sizes(self) -> dict[str, int]:
        """Triples of every part."""
        return {part: len(self.triples[part]) for part in PARTS}

    def completed(self, model: System) -> System:
        """The system with a decoder that is learned with it, or a control that ranks entities itself."""
        if hasattr(model, "scorer"):
            return model
        sizes = self.num_entities, self.num_relations, self.out_feats
        return Decoded(model, decoder_of(self.decoder, *sizes, **self._options))

    def both_ways(self, triples: Tensor) -> Tensor:
        """Triples [M, 3] and, behind them, the inverse of each, [2 M, 3]."""
        head, relation, tail = triples.unbind(1)
        return torch.cat([triples, torch.stack([tail, relation + self.num_relations // 2, head], 1)])

    def _known(self, *parts: str) -> Tails:
        """The tails that triples of the parts have, in both directions."""
        if parts not in self._tails:
            triples = self.both_ways(torch.cat([self.triples[part] for part in parts]))
            self._tails[parts] = Tails(triples, self.num_entities, self.num_relations)
        return self._tails[parts]

    def batches(self, model: System, inputs: tuple) -> Iterator[Batch]:
        """Heads and relations of training in a new random order, or with negatives triples; `batch` in a step."""
        known = self._known("train")
        triples = self.both_ways(self.triples["train"]) if self.kind_of_loss == "negatives" else None
        count = len(known.key) if triples is None else len(triples)
        # Steps as even as can be: a last one of a single query could not be normalised over.
        for part in torch.randperm(count).tensor_split(-(-count // self.batch)):
            if triples is None:
                row, tail = known.of(part)
                yield Batch((Query(*known.pairs(part)),), more={"row": row, "tail": tail})
                continue
            head, relation, tail = triples[part].unbind(1)
            others, some = known.others(known.places(head, relation), self.negatives)
            yield Batch((Query(head, relation, torch.cat([tail.unsqueeze(1), others], 1)),), more={"some": some})

    def loss(self, answer: Tensor, batch: Batch) -> Tensor:
        """The loss of a batch's scores: [B, N] of all entities, or [B, 1 + K] of a tail and the negatives."""
        if self.kind_of_loss == "negatives":
            some = batch.more["some"].to(answer)
            return (F.softplus(-answer[:, 0]) + F.softplus(answer[:, 1:]).mean(1) * some).mean()
        row, tail = (batch.more[name].to(answer.device) for name in ("row", "tail"))
        right = answer.flatten()[row * answer.shape[1] + tail]
        sum_right = answer.new_zeros(len(answer)).index_add(0, row, right)
        if self.kind_of_loss == "binary":
            aimed = (1 - self.smoothing) * sum_right + self.smoothing * answer.mean(1)
            return (F.softplus(answer).sum(1) - aimed).mean() / answer.shape[1]
        count = torch.bincount(row, minlength=len(answer)).to(answer)
        aimed = (1 - self.smoothing) * sum_right / count + self.smoothing * answer.mean(1)
        return (answer.logsumexp(1) - aimed).mean()

    @torch.no_grad()
    def ranks(self, model: System, inputs: tuple, part: str) -> tuple[Tensor, Tensor]:
        """(filtered rank, -ln of the softmax) of every triple of a part and of the inverse of each, [2 M] each.

        Exact, a ranking of all entities that ties enter by half; not more than some million scores are held at once.
        Raises TrainingError for scores that are not finite.
        """
        known = self._known(*PARTS[: PARTS.index(part) + 1])
        head, relation, tail = self.both_ways(self.triples[part]).unbind(1)
        place, found, answering = known.places(head, relation), [], cast(Decoded, model)
        score = resting(model, lambda: answering.scorer(inputs))

        def ranked(piece: slice) -> tuple[Tensor, Tensor]:
            scores = score(head[piece], relation[piece])
            if not torch.isfinite(scores).all():
                raise TrainingError("training: expected finite scores, got others; a smaller train.lr may help")
            right = tail[piece].unsqueeze(1).to(scores.device)
            own = scores.gather(1, right)
            row, other = (ids.to(scores.device) for ids in known.of(place[piece]))
            scores[row, other] = -torch.inf
            scores.scatter_(1, right, own)
            above, level = (scores > own).sum(1), (scores == own).sum(1) - 1
            return (1 + above + level / 2).double().cpu(), (scores.logsumexp(1) - own.squeeze(1)).double().cpu()

        for piece in pieces(len(head), max(1, AT_ONCE // self.num_entities)):
            found.append(resting(model, partial(ranked, piece)))
        rank, loss = (torch.cat(side) for side in zip(*found, strict=True))
        return rank, loss

    def evaluate(self, model: System, inputs: tuple, part: str, metric: str) -> tuple[float, float]:
        """(metric in percent, mean -ln of the softmax over what is ranked) of a part's triples, both directions."""
        rank, loss = self.ranks(model, inputs, part)
        return _measures(rank)[metric], float(loss.mean())

    def results(self, model: System, inputs: tuple, metric: str, **_: Any) -> tuple[dict, dict[str, Tensor]]:
        """{"test": the metric, "more": every one, and the mean rank}."""
        more = _measures(self.ranks(model, inputs, "test")[0])
        return {"test": more[metric], "more": more}, {}


def _measures(rank: Tensor) -> dict[str, float]:
    """Reciprocal rank and Hits@k in percent, and the mean rank: rank [M]."""
    found = {"mrr": 1 / rank, **{f"hits@{k}": (rank <= k).double() for k in HITS}}
    return {**{name: 100 * float(value.mean()) for name, value in found.items()}, "mean rank": float(rank.mean())}
