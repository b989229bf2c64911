"""Prediction of events one by one, in order of time, as TGAT's paper does it.

Events are cut in time: training, validation, test. Some nodes that occur behind the cut are hidden from training with
all their events; what involves one of them is the inductive part, all else the transductive one. A link is scored at
its own time from strictly earlier events, against one negative at that time; scores of a whole part are ranked at once,
and the negatives of an evaluation are drawn once per seed, the same for every variant.
Paper: Xu et al. 2020 (TGAT), arXiv:2002.07962. Historical and inductive negatives: Poursafaei et al. 2022,
arXiv:2207.10128. Differs from TGAT's code: see hgat.graph.recent for its neighbour finder; its metrics are means over
batches, and its negatives are drawn anew at every evaluation.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from hgat.data import EventData
from hgat.errors import RecipeError, TrainingError
from hgat.graph import from_events
from hgat.models import Batch, Facts, System
from hgat.tasks._task import PARTS, Control, Task, without_columns

__all__ = ["StreamLinks"]

KINDS = ("random", "historical", "inductive")
AT_ONCE = 2_000  # links scored in one forward pass of an evaluation


@dataclass(frozen=True)
class _Events:
    """Events in order of time, nodes of all types in one line: src, dst, time [E]."""

    src: torch.Tensor
    dst: torch.Tensor
    time: torch.Tensor

    def __len__(self):
        return len(self.src)

    def __getitem__(self, which):
        return _Events(self.src[which], self.dst[which], self.time[which])


class Counting(Control):
    """How often the pair met before, ties by how often both ends met anyone: nothing is trained."""

    title = "counting, untrained"
    solutions = 0

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        """(how many events of a pair, of a source and of a destination lie before a time, what normalises ties)."""
        events, total = _stacked(shown.graph), shown.graph.num_nodes()
        pairs = _Earlier(events.src * total + events.dst, events.time)
        ends = _Earlier(events.src, events.time), _Earlier(events.dst, events.time)
        # The same for links and negatives, which are scored apart.
        most = float(events.src.bincount().max() * events.dst.bincount().max()) + 1.0
        return total, pairs, *ends, most

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "Counting":
        return cls()

    def forward(
        self,
        total: int,
        pairs: "_Earlier",
        sources: "_Earlier",
        targets: "_Earlier",
        most: float,
        src: Tensor,
        dst: Tensor,
        times: Tensor,
    ) -> Tensor:
        """src, dst, times [B] each -> how often the pair met before, ties broken, [B]."""
        met = pairs.count(src * total + dst, times)
        return torch.from_numpy(met + sources.count(src, times) * targets.count(dst, times) / most)


class StreamLinks(Task):
    """Which pairs meet next: timed events in order, one model for all of them.

    val_share, test_share: of the events, the last ones. new_nodes: the share of all nodes that is hidden from training,
    drawn among those that occur behind it; drawn once, by new_nodes_seed. batch: events in a step of the optimiser.
    The answer of a system: logits [B] that src [B] meets dst [B] at times [B], which come behind its inputs, from
    strictly earlier events.
    """

    kind = EventData
    data: EventData
    unit = "events"
    metrics = ("average_precision", "auc")
    controls = {"counting": Counting}

    def __init__(
        self,
        data: Any,
        *,
        val_share: float = 0.15,
        test_share: float = 0.15,
        new_nodes: float = 0.1,
        new_nodes_seed: int = 0,
        batch: int = 200,
    ) -> None:
        super().__init__(data)
        if not (0 < val_share and 0 < test_share and val_share + test_share < 1 and 0 <= new_nodes < 1):
            raise RecipeError(
                "task: expected shares above 0 that leave something to train on, got "
                f"val_share = {val_share}, test_share = {test_share}, new_nodes = {new_nodes}"
            )
        if batch < 1:
            raise RecipeError(f"task.batch: expected 1 or more, got {batch}")
        if not 0 <= new_nodes_seed < 2**32:
            raise RecipeError(f"task.new_nodes_seed: expected a number from 0 to {2**32 - 1}, got {new_nodes_seed}")
        self.batch = batch
        self.events = _stacked(data.graph)
        time, events = self.events.time, self.events
        # Moments of events, in the times' own type: whole numbers compared with a float are rounded to float32.
        val, test = (time[int(q * (len(time) - 1))] for q in (1 - val_share - test_share, 1 - test_share))
        late = time > val
        self.is_new = self._hidden(late, new_nodes, new_nodes_seed)
        touches = self.is_new[events.src] | self.is_new[events.dst]
        masks = {"train": ~late & ~touches, "val": late & (time <= test), "test": time > test}
        self.masks, self.touches = masks, touches
        for part, mask in masks.items():
            known = int((mask & ~touches).sum())
            if known < 2:
                raise RecipeError(
                    "task: expected two events or more in every part among nodes that are not hidden, "
                    f"got {known} for {part}"
                )
        first = torch.tensor([0, *(data.graph.num_nodes(t) for t in data.graph.ntypes)]).cumsum(0)[:-1]
        self.start = first  # of the nodes of every type in one line
        self._facts = {
            "shown": Facts(_without(data.graph, masks["train"]), data.feat, directed=True),
            "val": Facts(_without(data.graph, time <= test), data.feat, directed=True),
            "test": Facts(without_columns(data.graph), data.feat, directed=True),
        }

    def shown(self) -> Facts:
        """The training events."""
        return self._facts["shown"]

    def shown_at(self, part: str) -> Facts:
        """All events up to the end of the part, those of hidden nodes, too: what is earlier may be read."""
        return self._facts["test" if part == "test" else "val"]

    @cached_property
    def trained(self) -> tuple[_Events, Tensor]:
        """(events, the nodes that negatives are drawn from) of training."""
        events = self.events[self.masks["train"]]
        return events, torch.unique(events.dst)

    def batches(self, model: System, inputs: tuple) -> Iterator[Batch]:
        """`batch` training events in a step, in order of time, and as many pairs that did not meet behind them."""
        events, targets = self.trained
        for first in range(0, len(events), self.batch):
            part = events[slice(first, first + self.batch)]
            other = targets[torch.randint(0, len(targets), (len(part),))]
            yield Batch(query=(part.src.repeat(2), torch.cat([part.dst, other]), part.time.repeat(2)))

    def loss(self, answer: Tensor, batch: Batch) -> Tensor:
        """softplus(-logit) of events plus softplus(logit) of as many that did not happen, means over the batch."""
        met, not_met = answer.chunk(2)
        return F.softplus(-met).mean() + F.softplus(not_met).mean()

    def _hidden(self, late, share, seed):
        total = self.data.graph.num_nodes()
        nodes = torch.unique(torch.cat([self.events.src[late], self.events.dst[late]]))
        chosen = torch.from_numpy(np.random.RandomState(seed).permutation(len(nodes))[: int(share * total)])
        hidden = torch.zeros(total, dtype=torch.bool)
        hidden[nodes[chosen]] = True
        return hidden

    def sizes(self) -> dict[str, int]:
        """Events of every part."""
        return {part: int(mask.sum()) for part, mask in self.masks.items()}

    def ranked(
        self,
        score: Callable[[_Events], np.ndarray],
        part: str,
        kind: str,
        seed: int,
        new: bool | None = None,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """(labels, scores) of a part's events and their negatives; None where there are none.

        new: True or False for one half of the part.
        """
        mask = self.masks[part]
        if new is not None:
            mask = mask & (self.touches == new)
        events = self.events[mask]
        if not len(events):
            return None
        other = self.negatives(events, kind, np.random.RandomState([seed, PARTS.index(part), KINDS.index(kind)]))
        label = np.concatenate([np.ones(len(events), int), np.zeros(len(other), int)])
        return label, np.concatenate([score(events), score(other)])

    def negatives(self, events: _Events, kind: str, random: np.random.RandomState) -> _Events:
        """One event that did not happen for each of `events`, at its time.

        random: the same source, and any destination of the same type. historical: a pair of the training events.
        inductive: a pair that occurs behind training and not in it. A pair that meets at that very time is drawn again.
        """
        total, every = len(self.is_new), self.events
        key = every.src * total + every.dst
        trained = torch.unique(key[self.masks["train"]])
        if kind == "random":
            start = self.start
            type_of = torch.searchsorted(start, events.dst, right=True) - 1
            pools = [
                torch.unique(every.dst[(torch.searchsorted(start, every.dst, right=True) - 1) == k])
                for k in range(len(start))
            ]

            def draw(rows):
                dst = torch.empty(len(rows), dtype=torch.int64)
                for k, pool in enumerate(pools):
                    here = type_of[rows] == k
                    if here.any():
                        dst[here] = pool[torch.from_numpy(random.randint(0, len(pool), int(here.sum())))]
                return events.src[rows], dst

        else:
            pool = trained
            if kind == "inductive":
                behind = torch.unique(key[self.masks["val"] | self.masks["test"]])
                pool = behind[~torch.isin(behind, trained)]
            pool = pool if len(pool) else torch.unique(key)

            def draw(rows):
                pair = pool[torch.from_numpy(random.randint(0, len(pool), len(rows)))]
                return pair // total, pair % total

        moments, moment = torch.unique(every.time, return_inverse=True)
        taken = torch.unique(key * len(moments) + moment)
        at = torch.searchsorted(moments, events.time)
        rows = torch.arange(len(events))
        src, dst = draw(rows)
        for _ in range(20):
            rows = torch.isin((src * total + dst) * len(moments) + at, taken).nonzero().flatten()
            if not len(rows):
                break
            src[rows], dst[rows] = draw(rows)
        return _Events(src, dst, events.time)

    def evaluate(self, model: System, inputs: tuple, part: str, metric: str) -> tuple[float, float]:
        """(metric in percent, loss) on the part's transductive events against random negatives."""
        with _alike(self.seed):
            found = self.ranked(_scorer(model, inputs), part, "random", self.seed, new=False)
        label, logits = cast(tuple[np.ndarray, np.ndarray], found)  # no part is empty
        loss = float(F.binary_cross_entropy_with_logits(torch.from_numpy(logits), torch.from_numpy(label).double()))
        return _measures(label, logits)[metric], loss

    def results(self, model: System, inputs: tuple, metric: str, **_: Any) -> tuple[dict, dict[str, Tensor]]:
        """{"test": the metric on transductive events against random negatives, "more": every other one}."""
        more = {}
        with _alike(self.seed):
            score = _scorer(model, inputs)
            for new, half in ((False, "transductive"), (True, "inductive")):
                for kind in KINDS:
                    found = self.ranked(score, "test", kind, self.seed, new)
                    if found is not None:
                        for name, value in _measures(*found).items():
                            more[f"{half}, {kind} negatives, {name}"] = value
        return {"test": more[f"transductive, random negatives, {metric}"], "more": more}, {}

    def scores(self, model: System, inputs: Mapping[str, tuple], metric: str) -> dict[str, tuple[float, int]]:
        """Against random negatives, old and new nodes together."""
        found, sizes = {}, self.sizes()
        with _alike(self.seed):
            for part in PARTS:
                ranked = self.ranked(_scorer(model, inputs[part]), part, "random", self.seed)
                found[part] = _measures(*cast(tuple[np.ndarray, np.ndarray], ranked))[metric], sizes[part]
        return found


@contextmanager
def _alike(seed):
    """Sampled neighbours would make an evaluation a matter of luck, and of how many there were before it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _stacked(graph):
    start, first = {}, 0
    for ntype in graph.ntypes:
        start[ntype], first = first, first + graph.num_nodes(ntype)
    parts = []
    for etype in graph.canonical_etypes:
        src, dst = graph.edges(etype=etype, order="eid")
        parts.append((src.long() + start[etype[0]], dst.long() + start[etype[2]], graph.edges[etype].data["time"]))
    src, dst, time_ = (torch.cat(part) for part in zip(*parts, strict=True))
    order = torch.argsort(time_, stable=True)
    return _Events(src[order], dst[order], time_[order])


def _without(graph, kept):
    """The graph with only the events at the True places of `kept`, in order of time over all relations."""
    times = torch.cat([graph.edges[etype].data["time"] for etype in graph.canonical_etypes])
    keep = torch.empty_like(kept)
    keep[torch.argsort(times, stable=True)] = kept
    found, first = {}, 0
    for etype in graph.canonical_etypes:
        here = keep[first : first + graph.num_edges(etype)]
        first += graph.num_edges(etype)
        src, dst = graph.edges(etype=etype, order="eid")
        found[etype] = src[here], dst[here], graph.edges[etype].data["time"][here]
    sizes = {ntype: graph.num_nodes(ntype) for ntype in graph.ntypes}
    return (
        from_events(found, sizes) if len(found) > 1 or len(sizes) > 1 else from_events(*found.values(), *sizes.values())
    )


def _measures(label, scores):
    return {
        "average_precision": 100.0 * float(average_precision_score(label, scores)),
        "auc": 100.0 * float(roc_auc_score(label, scores)),
    }


def _scorer(model, inputs):
    """f(events) -> logits of events, in evaluation mode, as NumPy."""
    model.eval()

    @torch.no_grad()
    def score(events):
        found = []
        for first in range(0, len(events), AT_ONCE):
            part = events[slice(first, first + AT_ONCE)]
            found.append(model.answer(inputs, Batch(query=(part.src, part.dst, part.time))).cpu())
        logits = torch.cat(found).double().numpy()
        if not np.isfinite(logits).all():
            raise TrainingError("training: expected finite scores, got others; a smaller train.lr may help")
        return logits

    return score


class _Earlier:
    """How many events of a key lie strictly before a time."""

    def __init__(self, keys, times):
        self.keys, key = np.unique(keys.numpy(), return_inverse=True)
        self.moments, moment = np.unique(times.numpy(), return_inverse=True)
        self.sorted = np.sort(key.astype(np.int64) * len(self.moments) + moment)

    def count(self, keys, times):
        keys, times = keys.numpy(), times.numpy()
        key = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        base = key.astype(np.int64) * len(self.moments)
        before = np.searchsorted(self.sorted, base + np.searchsorted(self.moments, times))
        return np.where(self.keys[key] == keys, before - np.searchsorted(self.sorted, base), 0).astype(np.float64)
