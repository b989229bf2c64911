"""Prediction of events one by one, in order of time, as TGAT's paper does it.

Events are cut in time: training, validation, test. Some nodes that occur behind the cut are hidden from training with
all their events; what involves one of them is the inductive part, all else the transductive one. A link is scored at
its own time from strictly earlier events, against one negative at that time; scores of a whole part are ranked at once,
and the negatives of an evaluation are drawn once per seed, the same for every variant.
Paper: Xu et al. 2020 (TGAT), arXiv:2002.07962. Historical and inductive negatives: Poursafaei et al. 2022,
arXiv:2207.10128. Differs from TGAT's code: see hgat.graph.recent for its neighbour finder; its metrics are means over
batches, and its negatives are drawn anew at every evaluation.
"""

import time
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, roc_auc_score

from hgat import ops
from hgat.data import EventData
from hgat.errors import RecipeError, TrainingError
from hgat.graph import from_events
from hgat.train import state
from hgat.train.loop import Fit
from hgat.train.protocols._experiment import Base

__all__ = ["Experiment"]

PARTS = ("train", "val", "test")
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


class Experiment(Base):
    """Timed events in order, one model for all of them.

    val_share, test_share: of the events, the last ones. new_nodes: the share of all nodes that is hidden from training,
    drawn among those that occur behind it; drawn once, by new_nodes_seed. batch: events in a step of the optimiser.
    """

    kind = EventData
    graph_kinds = ("recent",)
    unit = "events"
    metrics = ("average_precision", "auc")
    controls = ("counting", "no_time", "uniform")

    def __init__(
        self,
        recipe,
        root,
        device,
        *,
        val_share: float = 0.15,
        test_share: float = 0.15,
        new_nodes: float = 0.1,
        new_nodes_seed: int = 0,
        batch: int = 200,
    ):
        super().__init__(recipe, root, device)
        if recipe.train.refit:
            raise RecipeError("train.refit: expected false with events in order of time, got true")
        if not (0 < val_share and 0 < test_share and val_share + test_share < 1 and 0 <= new_nodes < 1):
            raise RecipeError(
                "protocol: expected shares above 0 that leave something to train on, got "
                f"val_share = {val_share}, test_share = {test_share}, new_nodes = {new_nodes}"
            )
        if batch < 1:
            raise RecipeError(f"protocol.batch: expected 1 or more, got {batch}")
        if not 0 <= new_nodes_seed < 2**32:
            raise RecipeError(f"protocol.new_nodes_seed: expected a number from 0 to {2**32 - 1}, got {new_nodes_seed}")
        self.batch = batch
        self.graph = self.task.graph
        self.events = _stacked(self.graph)
        time_, events = self.events.time, self.events
        # Moments of events, in the times' own type: whole numbers compared with a float are rounded to float32.
        val, test = (time_[int(q * (len(time_) - 1))] for q in (1 - val_share - test_share, 1 - test_share))
        late = time_ > val
        self.is_new = self._hidden(late, new_nodes, new_nodes_seed)
        touches = self.is_new[events.src] | self.is_new[events.dst]
        masks = {"train": ~late & ~touches, "val": late & (time_ <= test), "test": time_ > test}
        self.masks, self.touches = masks, touches
        for part, mask in masks.items():
            known = int((mask & ~touches).sum())
            if known < 2:
                raise RecipeError(
                    "protocol: expected two events or more in every part among nodes that are not hidden, "
                    f"got {known} for {part}"
                )
        self.recent = recipe.prepare(self.graph).to(self.device)
        self.known = recipe.prepare(_without(self.graph, masks["train"])).to(self.device)
        self.inputs = (self.recent, None)

    def _hidden(self, late, share, seed):
        total = sum(self.graph.num_nodes(t) for t in self.graph.ntypes)
        nodes = torch.unique(torch.cat([self.events.src[late], self.events.dst[late]]))
        chosen = torch.from_numpy(np.random.RandomState(seed).permutation(len(nodes))[: int(share * total)])
        hidden = torch.zeros(total, dtype=torch.bool)
        hidden[nodes[chosen]] = True
        return hidden

    def sizes(self):
        """Events of every part."""
        return {part: int(mask.sum()) for part, mask in self.masks.items()}

    def model(self, **changes):
        """The recipe's model with fresh weights."""
        return self.build(self.recent, None, **changes)

    def fit(self, variant, seed, refit_epochs=None):
        """(the training, context in which it runs) of one variant."""
        if variant == "counting":
            return _Counting(self, seed), nullcontext()
        torch.manual_seed(seed)
        # Where an hour and a year are the same, only the order of events is left.
        changes = {"time_unit": 1e30} if variant == "no_time" else {}
        context = ops.uniform_attention() if variant == "uniform" else nullcontext()
        return _StreamFit(self, self.model(**changes), seed), context

    def scores(self, model, seed):
        """{part: (score in percent, on how many events)} against random negatives, old and new nodes together."""
        model.eval()
        found, sizes = {}, self.sizes()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for part in PARTS:
                label, logits = self.ranked(lambda e: _logits(model, self.recent, e), part, "random", seed)
                found[part] = _measures(label, logits)[self.recipe.train.metric], sizes[part]
        return found

    def ranked(self, score, part, kind, seed, new=None):
        """(labels, scores) of a part's events and their negatives. new: True or False for one half of the part."""
        mask = self.masks[part]
        if new is not None:
            mask = mask & (self.touches == new)
        events = self.events[mask]
        if not len(events):
            return None
        other = self.negatives(events, kind, np.random.RandomState([seed, PARTS.index(part), KINDS.index(kind)]))
        label = np.concatenate([np.ones(len(events), int), np.zeros(len(other), int)])
        return label, np.concatenate([score(events), score(other)])

    def negatives(self, events, kind, random):
        """One event that did not happen for each of `events`, at its time.

        random: the same source, and any destination of the same type. historical: a pair of the training events.
        inductive: a pair that occurs behind training and not in it. A pair that meets at that very time is drawn again.
        """
        total, every = len(self.is_new), self.events
        key = every.src * total + every.dst
        trained = torch.unique(key[self.masks["train"]])
        if kind == "random":
            start = torch.tensor(list(self.recent.start.values()))
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

    def results(self, score, seed):
        """{"test": the metric on transductive events against random negatives, "more": every other one}."""
        more = {}
        for new, half in ((False, "transductive"), (True, "inductive")):
            for kind in KINDS:
                found = self.ranked(score, "test", kind, seed, new)
                if found is not None:
                    for name, value in _measures(*found).items():
                        more[f"{half}, {kind} negatives, {name}"] = value
        return {"test": more[f"transductive, random negatives, {self.recipe.train.metric}"], "more": more}


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


@torch.no_grad()
def _logits(model, recent, events):
    found = []
    for first in range(0, len(events), AT_ONCE):
        part = events[slice(first, first + AT_ONCE)]
        found.append(model(recent, part.src, part.dst, part.time).cpu())
    logits = torch.cat(found).double().numpy()
    if not np.isfinite(logits).all():
        raise TrainingError("training: expected finite scores, got others; a smaller train.lr may help")
    return logits


class _StreamFit(Fit):
    """Training on the events in order of time."""

    def __init__(self, experiment, model, seed):
        super().__init__(model, experiment.inputs, experiment.task, experiment.recipe.train)
        self.experiment, self.seed = experiment, seed
        self.events = experiment.events[experiment.masks["train"]]
        self.targets = torch.unique(self.events.dst)

    def losses(self):
        for first in range(0, len(self.events), self.experiment.batch):
            part = self.events[slice(first, first + self.experiment.batch)]
            other = self.targets[torch.randint(0, len(self.targets), (len(part),))]
            src, dst, times = part.src.repeat(2), torch.cat([part.dst, other]), part.time.repeat(2)
            met, not_met = self.model(self.experiment.known, src, dst, times).chunk(2)
            yield F.softplus(-met).mean() + F.softplus(not_met).mean()

    def _score(self, events):
        return _logits(self.model, self.experiment.recent, events)

    def evaluate(self, part):
        """(metric in percent, loss) on the part's transductive events against random negatives."""
        self.model.eval()
        # Sampled neighbours would make an evaluation a matter of luck, and of how many there were before it.
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            label, logits = self.experiment.ranked(self._score, part, "random", self.seed, new=False)
        loss = float(F.binary_cross_entropy_with_logits(torch.from_numpy(logits), torch.from_numpy(label).double()))
        return _measures(label, logits)[self.train.metric], loss

    def results(self):
        self.model.eval()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return self.experiment.results(self._score, self.seed)


class _Counting:
    """The control without training: how often the pair met before, ties by how often both ends met anyone."""

    model, loss, epoch = None, 0.0, 0

    def __init__(self, experiment, seed):
        self.experiment, self.seed = experiment, seed
        self.train, self.val_metric = experiment.recipe.train, float("nan")
        events, total = experiment.events, len(experiment.is_new)
        self.pairs = _Earlier(events.src * total + events.dst, events.time)
        self.sources, self.targets = _Earlier(events.src, events.time), _Earlier(events.dst, events.time)
        self.total = total
        # The same for links and negatives, which are scored apart.
        self.most = float(events.src.bincount().max() * events.dst.bincount().max()) + 1.0

    def score(self, events):
        met = self.pairs.count(events.src * self.total + events.dst, events.time)
        degree = self.sources.count(events.src, events.time) * self.targets.count(events.dst, events.time)
        return met + degree / self.most

    def step(self):
        self.started = time.perf_counter()
        found = self.experiment.ranked(self.score, "val", "random", self.seed, new=False)
        self.val_metric = _measures(*found)[self.train.metric]
        return False

    def finish(self):
        results = self.experiment.results(self.score, self.seed)
        seconds = time.perf_counter() - self.started
        more = {"val": self.val_metric, "val_loss": float("nan"), "best_epoch": 0, "epochs": 0}
        return {**results, **more, "seconds": seconds}

    more = False

    def state(self):
        return {}, {}

    def restore(self, tensors, numbers):
        state.check_tensors("", tensors, {})
        state.record("fit", numbers, ())
        self.step()  # a state is only saved behind it


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
