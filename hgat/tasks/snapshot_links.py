"""Prediction of the next snapshot's links from embeddings of the snapshots before it, as DySAT's paper does it.

For every target step t a new model is trained on the steps before t. Links of step t among nodes that have appeared
before it, and as many pairs without a link in it, are split 20/20/60: a logistic regression on the element-wise product
of both ends' embeddings is fitted on the first part, the epoch is chosen by its AUC on the second, and the rest is
scored. Macro is the mean of the steps' AUC, micro the AUC of all steps' examples in one.
Paper: Sankar et al. 2019 (DySAT), arXiv:1812.09430, section 5; what macro and micro mean is not said there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import dgl
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from torch import Tensor

from hgat.data import EventData
from hgat.errors import RecipeError, TrainingError
from hgat.graph import snapshots, walks
from hgat.graph.snapshots import Snapshots, step_of_events
from hgat.graph.walks import Walks
from hgat.models import Batch, Facts, System
from hgat.tasks._task import Control, Task, without_columns

__all__ = ["SnapshotLinks"]

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]

FEWEST = 5  # links of a step below which there is nothing to split
RIVALS = 100  # other partners that a link is ranked among
FIT, VAL, TEST = 0, 1, 2
NUMBERS = {"train": FIT, "val": VAL, "test": TEST}
METRICS = ("macro_auc", "micro_auc", "average_precision", "mrr")
# What is scored besides the recipe's own choice: strict is without self-links and without ends that nobody could know.
SCOPES = {
    "all": "all links",
    "no_self": "without self-links",
    "strict": "without self-links and unseen nodes",
    "new": "new links",
    "new_strict": "new links without unseen nodes",
}
STEP = "step"


class Counting(Control):
    """Pairs that were linked before, most often first, then by the product of degrees: nothing is trained."""

    title = "counting, untrained"
    solutions = 0

    @staticmethod
    def prepare(shown: Facts) -> tuple:
        """(the distinct pairs of all steps that are shown,)."""
        cut = snapshots(shown.graph, column=STEP, steps=shown.steps, both_ways=not shown.directed, self_loops=False)
        return (_Pairs(cut),)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple) -> "Counting":
        return cls()

    def forward(self, pairs: "_Pairs") -> Score:
        """f(src, dst) -> how often a pair was linked, ties broken by the product of degrees."""
        return pairs.history()


class SnapshotLinks(Task):
    """Which pairs are linked in the next snapshot: timed events cut into steps, and one training per step to predict.

    boundaries, windows, width, events, column: how time is cut, exactly one of them; see hgat.graph.snapshots.
    both_ways: links have no direction.
    first_target: the first step to predict; all from there to the last are. self_links: events of a node with itself
    are links to be predicted, too. unseen_nodes: pairs without a link may have ends that appear in the target step
    only, which is easy to tell. Self-links are links in the paper's code; the scores without either are reported, too.
    ahead: how many steps ahead to look with one training, on all but that many steps. loss: what is to be alike,
    "walks", nodes that random walks meet near each other (paper), or "links", both ends of the next step's links.
    noise: what is to be unlike. "known": every node that has appeared by a step, and others that have and that it may
    be linked with, all alike: the pairs without a link that are scored. "linked", the paper's code: nodes with links in
    the step, and others by their degree there, to the power 3/4; silent nodes are then in no term of the loss, and what
    they are like in a silent step is left to chance.
    num_walks, walk_length, window: the walks. positives, negatives: drawn per node, step and epoch.
    negative_weight: of the negatives' mean loss. batch: nodes in a step of the optimiser, None for all at once.
    The answer of a system: [N, T, F], every node at every step that is shown, or a function of the two ends of pairs.
    """

    kind = EventData
    data: EventData
    unit = "pairs"
    metrics = METRICS
    controls = {"counting": Counting}

    def __init__(
        self,
        data: Any,
        *,
        boundaries: list[float] | None = None,
        windows: int | None = None,
        width: float | None = None,
        events: int | None = None,
        column: str | None = None,
        both_ways: bool = True,
        first_target: int = 1,
        self_links: bool = False,
        unseen_nodes: bool = False,
        ahead: int = 1,
        loss: Literal["walks", "links"] = "walks",
        noise: Literal["known", "linked"] = "known",
        num_walks: int = 10,
        walk_length: int = 40,
        window: int = 10,
        positives: int = 10,
        negatives: int = 10,
        negative_weight: float = 1.0,
        batch: int | None = None,
    ) -> None:
        super().__init__(data)
        numbers = {"num_walks": num_walks, "walk_length": walk_length, "window": window, "ahead": ahead}
        for name, number in {**numbers, "positives": positives, "negatives": negatives, "batch": batch}.items():
            if number is not None and number < 1:
                raise RecipeError(f"task.{name}: expected 1 or more, got {number}")
        way: dict[str, Any] = {
            "boundaries": boundaries,
            "windows": windows,
            "width": width,
            "events": events,
            "column": column,
        }
        if all(value is None for value in way.values()):
            raise RecipeError(f"task: expected one of task.{', task.'.join(way)}, as in task.windows = 5, got none")
        self.snapshots = snapshots(data.graph, **way, both_ways=both_ways, self_loops=False)
        self.event_steps = step_of_events(data.graph, **way)[0]
        steps = len(self.snapshots)
        if steps < 2:
            raise RecipeError(f"task: expected two snapshots or more, to learn from and to predict, got {steps}")
        if not 1 <= first_target < steps:
            raise RecipeError(f"task.first_target: expected a step from 1 to {steps - 1}, got {first_target}")
        self.self_links, self.unseen_nodes, self.ahead = self_links, unseen_nodes, ahead
        self.kind_of_loss, self.noise = loss, noise
        self.scopes = ["all", "new"]
        self.scopes += (
            ["no_self"] * self_links + ["strict"] * (self_links or unseen_nodes) + ["new_strict"] * unseen_nodes
        )
        self.walk_settings = {"num_walks": num_walks, "length": walk_length, "window": window}
        self.positives, self.negatives, self.negative_weight = positives, negatives, negative_weight
        self.batch = batch
        self.pairs = _Pairs(self.snapshots)
        found = [t for t in range(first_target, steps) if self.pairs.count(t) >= FEWEST]
        self.targets = [t for t in found if self.examples(t, "all", 0) is not None]
        if not self.targets:
            raise RecipeError(
                f"task.first_target: expected a step from {first_target} on with {FEWEST} links or more among "
                "nodes that have appeared before, and as many pairs without one, got none"
            )
        if ahead > 1 and steps - ahead not in self.targets:
            least, most = steps - self.targets[-1], steps - self.targets[0]
            raise RecipeError(f"task.ahead: expected 1, or {least} to {most} with links enough, got {ahead}")
        if loss == "links" and self.targets[0] < 2:
            raise RecipeError(f"task.first_target: expected 2 or more with loss = 'links', got {first_target}")
        self._facts: dict[int, Facts] = {}

    def sizes(self) -> dict[str, int]:
        """Examples of all targets, half of them links."""
        parts = [self._all(t, 0).part for t in self.targets]
        found = np.concatenate(parts)
        return {name: int((found == number).sum()) for name, number in NUMBERS.items()}

    def examples(self, target: int, scope: str, seed: int, known_at: int | None = None) -> "_Examples | None":
        """Pairs of step `target` to score, the same for every variant of a seed; None where there are too few.

        known_at: the step before which both ends have appeared, by default `target`.
        """
        options = {
            "self_links": self.self_links and scope == "all",
            "unseen_nodes": self.unseen_nodes and "strict" not in scope,
            "new": scope.startswith("new"),
        }
        return self.pairs.examples(target, seed, **options, known_at=known_at)

    def _all(self, target: int, seed: int) -> "_Examples":
        """The examples of all links of a step to predict, of which there are enough."""
        return cast(_Examples, self.examples(target, "all", seed))

    def rounds(self) -> Sequence[Task]:
        """A training for every step to predict."""
        return [_Round(self, target) for target in self.targets]

    def shown(self) -> Facts:
        """The events before the last step to predict."""
        return self.shown_before(self.targets[-1])

    def shown_before(self, target: int) -> Facts:
        """The events before step `target`, each with its step."""
        if target not in self._facts:
            graph = without_columns(self.data.graph)
            before = {e: (step >= 0) & (step < target) for e, step in self.event_steps.items()}
            past = dgl.edge_subgraph(graph, before, relabel_nodes=False, store_ids=False)
            for etype, here in before.items():
                past.edges[etype].data[STEP] = self.event_steps[etype][here]
            self._facts[target] = Facts(past, self.data.feat, steps=target, directed=not self.snapshots.both_ways)
        return self._facts[target]

    def combine(self, found: Sequence[tuple[dict, dict[str, Tensor]]], metric: str) -> dict:
        """{"test": the metric on all links, "more": every other one}."""
        kept = {name: tensor for _, tensors in found for name, tensor in tensors.items()}

        def of(name):
            return tuple(kept[f"{name}.{what}"].numpy() for what in ("label", "score", "rank"))

        more: dict[str, float] = {}
        for scope, title in SCOPES.items():
            scored = [of(f"{scope}.{t}") for t in self.targets if f"{scope}.{t}.label" in kept]
            told = METRICS if scope in ("all", "strict") else METRICS[:2]
            if scored:
                more |= {f"{title}, {name}": value for name, value in _summary(scored).items() if name in told}
        for step in range(1, self.ahead + 1):
            if self.ahead > 1 and f"ahead.{step}.label" in kept:
                auc = _summary([of(f"ahead.{step}")])["macro_auc"]
                more[f"{step} step{'s' if step > 1 else ''} ahead, auc"] = auc
        return {"test": more[f"{SCOPES['all']}, {metric}"], "more": more}

    def scored(self, metric: str) -> str:
        """What `scores` gives, in words."""
        return f"auc of step {self.targets[-1]} alone"

    def scores(self, model: System, inputs: Mapping[str, tuple], metric: str) -> dict[str, tuple[float, int]]:
        """AUC of the model of the last target, on that step alone."""
        examples = self._all(self.targets[-1], self.seed)
        logits = _scorer(_answer(model, inputs["test"]), examples)(examples.src, examples.dst)
        masks = {name: examples.part == number for name, number in NUMBERS.items()}
        return {name: (_auc(examples.label, logits, mask), int(mask.sum())) for name, mask in masks.items()}


class _Round(Task):
    """One step to predict, from those before it."""

    kind = EventData
    unit, metrics = SnapshotLinks.unit, SnapshotLinks.metrics

    data: EventData

    def __init__(self, task: SnapshotLinks, target: int) -> None:
        self.task, self.target, self.data, self.seed = task, target, task.data, task.seed

    @property
    def first_state(self) -> int:
        return self.seed * 1_000_003 + self.target

    def shown(self) -> Facts:
        return self.task.shown_before(self.target)

    def sizes(self) -> dict[str, int]:
        return {name: int((self.own.part == number).sum()) for name, number in NUMBERS.items()}

    @cached_property
    def own(self) -> "_Examples":
        """The pairs that are fitted on, chosen by and scored."""
        return self.task._all(self.target, self.seed)

    @cached_property
    def pool(self) -> Walks:
        """Walks on the past, and the nodes that they meet."""
        return walks(self.past, **self.task.walk_settings, seed=self.seed)

    @property
    def past(self) -> Snapshots:
        return self.task.snapshots[: self.target]

    @cached_property
    def links(self) -> tuple[Tensor, Tensor]:
        """(source, destination) rows t * N + v of the links of step t + 1 whose ends have both appeared by t."""
        pairs, past = self.task.pairs, self.past
        here = (pairs.step >= past.start + 1) & (pairs.step < past.stop)
        step, key = pairs.step[here] - 1, pairs.key[here]
        src, dst = key // pairs.num, key % pairs.num
        known = pairs.present[step, src] & pairs.present[step, dst] & (src != dst)
        # A step without links has no nodes to draw negatives from.
        known &= np.isin(step - past.start, (self.pool.nodes // pairs.num).numpy())
        base = (step - past.start)[known] * pairs.num
        return torch.from_numpy(base + src[known]), torch.from_numpy(base + dst[known])

    def batches(self, model: System, inputs: tuple) -> Iterator[Batch]:
        if self.task.batch is None:
            yield self._batch(None)
            return
        nodes = self.task.pairs.num
        for part in torch.randperm(nodes).split(self.task.batch):
            chosen = torch.zeros(nodes, dtype=torch.bool)
            chosen[part] = True
            yield self._batch(chosen)

    def _batch(self, chosen):
        """What is to be alike and what unlike; chosen: [N] which nodes this step is about, None for all."""
        num = self.task.pairs.num
        if self.task.kind_of_loss == "walks":
            nodes = self.pool.nodes
            nodes = nodes if chosen is None else nodes[chosen[nodes % num]]
            near = self.pool.contexts(nodes, self.task.positives)
        else:
            nodes, near = self.links
            if chosen is not None:
                here = chosen[nodes % num]
                nodes, near = nodes[here], near[here]
            near = near.unsqueeze(1)
        others, far = self._noise(nodes, chosen)
        return Batch(more={"nodes": nodes, "near": near, "others": others, "far": far})

    def _noise(self, nodes, chosen):
        """(nodes [B], others [B, negatives]) that are to be unlike; nodes: those with links or contexts."""
        num, steps = self.task.pairs.num, self.target
        if self.task.noise == "linked":
            return nodes, self.pool.negatives(nodes, self.task.negatives)
        known = self.pool.known
        if chosen is not None:
            known = known[chosen[known % num]]
        # A step without positive pairs teaches nothing: all of it would be pushed apart.
        known = known[torch.bincount(nodes // num, minlength=steps)[known // num] > 0]
        return known, self.pool.strangers(known, self.task.negatives)

    def loss(self, answer: Tensor, batch: Batch) -> Tensor:
        """softplus(-z_v . z_u) of near and softplus(z_v . z_u) of far pairs, means over a step, summed over steps."""
        nodes, near, others, far = (batch.more[name] for name in ("nodes", "near", "others", "far"))
        num, steps = answer.shape[:2]
        rows = answer.flatten(0, 1)  # row v * T + t
        if not len(nodes):
            return rows.sum() * 0.0

        def logits(mine, others):
            mine, others = mine.to(rows.device), others.to(rows.device)
            at = (others % num) * steps + others // num
            own = rows.index_select(0, (mine % num) * steps + mine // num)
            return (rows.index_select(0, at.flatten()).view(*at.shape, rows.shape[1]) @ own.unsqueeze(-1)).squeeze(-1)

        def mean(loss, nodes):
            """The mean over a step's pairs, added up over the steps."""
            step = nodes // num
            share = 1.0 / torch.bincount(step, minlength=steps).clamp_min(1)
            return (share[step].to(rows.device) * loss.mean(1)).sum()

        loss = mean(F.softplus(-logits(nodes, near)), nodes)
        return loss + self.task.negative_weight * mean(F.softplus(logits(others, far)), others)

    def evaluate(self, model: System, inputs: tuple, part: str, metric: str) -> tuple[float, float]:
        """(AUC in percent, log loss) of the regression on the part."""
        here = self.own.part == NUMBERS[part]
        logits = _scorer(_answer(model, inputs), self.own)(self.own.src, self.own.dst)
        label = self.own.label
        return _auc(label, logits, here), float(log_loss(label[here], 1 / (1 + np.exp(-logits[here]))))

    def _due(self):
        """(name, examples) of all that is scored at this target."""
        task = self.task
        for scope in task.scopes:
            examples = task.examples(self.target, scope, self.seed)
            if examples is not None:
                yield f"{scope}.{self.target}", examples
        if self.target == len(task.snapshots) - task.ahead:
            for step in range(self.target, len(task.snapshots)):
                examples = task.examples(step, "all", self.seed, known_at=self.target)
                if examples is not None:
                    yield f"ahead.{step - self.target + 1}", examples

    def results(self, model: System, inputs: tuple, metric: str, **more: Any) -> tuple[dict, dict[str, Tensor]]:
        """({}, labels, scores and reciprocal ranks of the test part in every scope)."""
        answer, kept = _answer(model, inputs), {}
        for name, examples in self._due():
            score = _scorer(answer, examples)
            here = examples.part == TEST
            logits = score(examples.src[here], examples.dst[here])
            kept[f"{name}.label"] = torch.from_numpy(examples.label[here])
            kept[f"{name}.score"] = torch.from_numpy(np.ascontiguousarray(logits, dtype=np.float64))
            kept[f"{name}.rank"] = torch.from_numpy(_ranks(score, examples))
        return {}, kept

    def expected(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, examples in self._due():
            label = torch.from_numpy(examples.label[examples.part == TEST])
            score, rank = (torch.zeros(count, dtype=torch.float64) for count in (len(label), int((label == 1).sum())))
            found |= {f"{name}.label": label, f"{name}.score": score, f"{name}.rank": rank}
        return found


@dataclass(frozen=True)
class _Examples:
    """Pairs, links first: src, dst, label, part, [M] each; rivals: [test links, RIVALS] other ends, or -1."""

    src: np.ndarray
    dst: np.ndarray
    label: np.ndarray
    part: np.ndarray
    rivals: np.ndarray


class _Pairs:
    """The distinct pairs of every step over stacked nodes, whatever their relation, and who may be one."""

    def __init__(self, snapshots):
        self.num, self.snapshots = snapshots.total_nodes, snapshots
        self.present = snapshots.present.numpy()
        offset, first = {}, 0
        for ntype, count in snapshots.num_nodes.items():
            offset[ntype], first = first, first + count
        self.ends = sorted({(e[0], e[2]) for e in snapshots.links})  # pairs of node types that may be linked
        self.offset = offset
        links = snapshots.links
        self.step = torch.cat([x.step for x in links.values()]).numpy()
        src = torch.cat([x.src + offset[e[0]] for e, x in links.items()]).numpy()
        dst = torch.cat([x.dst + offset[e[2]] for e, x in links.items()]).numpy()
        self.events = torch.cat([x.count for x in links.values()]).numpy()
        self.key = src * self.num + dst
        self.both_ways = snapshots.both_ways and not snapshots.is_typed

    def of(self, step):
        """The keys of a step's pairs, sorted."""
        return np.unique(self.key[self.step == step])

    def known(self, step, self_links, known_at=None):
        """The keys of a step's pairs among nodes that have appeared before it."""
        key = self.of(step)
        src, dst = key // self.num, key % self.num
        before = self.present[(step if known_at is None else known_at) - 1]
        keep = before[src] & before[dst]
        return key[keep & (src != dst) if not self_links else keep]

    def count(self, step):
        """How many links of two different nodes there are to predict."""
        return len(self.known(step, self_links=False))

    def examples(self, target, seed, *, self_links, unseen_nodes, new, known_at=None):
        """Links of a step and as many pairs without one, split 20/20/60; None where there are too few of either."""
        random = np.random.RandomState([seed, target, int(new), int(self_links)])
        links = self.known(target, self_links, known_at)
        if new:
            links = links[~np.isin(links, self.of(target - 1))]
        if len(links) < FEWEST:
            return None
        taken = self.of(target)
        before = self.present[(target if known_at is None else known_at) - 1]
        others = self._without_link(len(links), taken, self.present[target] if unseen_nodes else before, random)
        if len(others) < FEWEST:
            return None
        links = random.permutation(links)[: len(others)]
        key = np.concatenate([links, others])
        half = len(links)
        # Both classes are split alike, so that none is missing where there are few.
        part = np.full(half, TEST)
        part[: max(1, round(0.2 * half))] = FIT
        part[max(1, round(0.2 * half)) : max(2, round(0.4 * half))] = VAL
        src, dst = key // self.num, key % self.num
        label = np.concatenate([np.ones(half, int), np.zeros(len(others), int)])
        part = np.concatenate([part, part[: len(others)]])
        rivals = self._rivals(src[:half][part[:half] == TEST], dst[:half][part[:half] == TEST], taken, before, random)
        return _Examples(src, dst, label, part, rivals)

    def _candidates(self, before):
        """[(sources, destinations)] that may be linked, one for every pair of node types."""
        found = []
        for srctype, dsttype in self.ends:
            nodes = []
            for ntype in (srctype, dsttype):
                start = self.offset[ntype]
                nodes.append(start + before[start : start + self.snapshots.num_nodes[ntype]].nonzero()[0])
            found.append(nodes)
        return found

    def _draw(self, count, candidates, random):
        sizes = np.array([float(len(s)) * len(d) for s, d in candidates])
        which = random.choice(len(candidates), count, p=sizes / sizes.sum())
        src, dst = np.empty(count, np.int64), np.empty(count, np.int64)
        for number, (sources, targets) in enumerate(candidates):
            here = which == number
            src[here], dst[here] = random.choice(sources, here.sum()), random.choice(targets, here.sum())
        if self.both_ways:
            src, dst = np.minimum(src, dst), np.maximum(src, dst)
        return src, dst

    def _without_link(self, count, taken, before, random):
        """Keys of `count` different pairs without a link, fewer where there are not as many."""
        candidates = self._candidates(before)
        found = np.empty(0, np.int64)
        for _ in range(50):
            src, dst = self._draw(2 * count + 10, candidates, random)
            key = (src * self.num + dst)[src != dst]
            found = np.concatenate([found, key[~np.isin(key, taken) & ~np.isin(key, found)]])
            found = found[np.sort(np.unique(found, return_index=True)[1])]
            if len(found) >= count:
                break
        return found[:count]

    def _rivals(self, src, dst, taken, before, random):
        """[links, RIVALS] ends that dst is ranked among for src; -1 where one is a link or a node itself."""
        found = np.full((len(src), RIVALS), -1)
        for srctype, dsttype in self.ends:
            low = self.offset[srctype], self.offset[dsttype]
            here = (src >= low[0]) & (src < low[0] + self.snapshots.num_nodes[srctype])
            here &= (dst >= low[1]) & (dst < low[1] + self.snapshots.num_nodes[dsttype])
            nodes = low[1] + before[low[1] : low[1] + self.snapshots.num_nodes[dsttype]].nonzero()[0]
            found[here] = random.choice(nodes, (here.sum(), RIVALS))
        own = np.broadcast_to(src[:, None], found.shape)
        first, second = (np.minimum(own, found), np.maximum(own, found)) if self.both_ways else (own, found)
        found[np.isin(first * self.num + second, taken) | (found == own)] = -1
        return found

    def history(self):
        """f(src, dst) -> how often a pair was linked in all steps, ties broken by the product of degrees."""
        keys, place = np.unique(self.key, return_inverse=True)
        often = np.bincount(place, self.events, len(keys)) if len(keys) else np.zeros(0)
        degree = np.bincount(keys // self.num, minlength=self.num) + np.bincount(keys % self.num, minlength=self.num)
        most = float(degree.max()) ** 2 + 1 if len(keys) else 1.0

        def score(src, dst):
            if self.both_ways:
                src, dst = np.minimum(src, dst), np.maximum(src, dst)
            key = src * self.num + dst
            at = np.searchsorted(keys, key).clip(max=max(len(keys) - 1, 0))
            count = np.where(keys[at] == key, often[at], 0.0) if len(keys) else np.zeros(key.shape)
            return count + degree[src] * degree[dst] / most

        return score


@torch.no_grad()
def _answer(model, inputs):
    """A function of pairs, or [N, F]: every node at the last step, in evaluation mode, as NumPy."""
    model.eval()
    answer = model(*inputs)
    if callable(answer):
        return answer
    found = answer[:, -1].cpu().double().numpy()
    if not np.isfinite(found).all():
        raise TrainingError("training: expected finite embeddings, got others; a smaller train.lr may help")
    return found


def _scorer(answer, examples) -> Callable:
    """f(src, dst) -> scores of pairs: a logistic regression fitted on the examples' first part, log odds."""
    if callable(answer):
        return answer
    here = examples.part == FIT
    product = answer[examples.src[here]] * answer[examples.dst[here]]
    model = LogisticRegression(solver="liblinear").fit(product, examples.label[here])

    def score(src, dst):
        return (answer[src] * answer[dst]) @ model.coef_[0] + model.intercept_[0]

    return score


def _auc(label, logits, here):
    return 100.0 * float(roc_auc_score(label[here], logits[here]))


def _ranks(score, examples):
    """Reciprocal ranks of the test part's links among their rivals, ties by halves."""
    here = (examples.part == TEST) & (examples.label == 1)
    src, dst = examples.src[here], examples.dst[here]
    own = score(src, dst)[:, None]
    rivals = examples.rivals
    others = score(np.broadcast_to(src[:, None], rivals.shape), np.where(rivals < 0, 0, rivals))
    counted = rivals >= 0
    return 1.0 / (1 + ((others > own) & counted).sum(1) + 0.5 * ((others == own) & counted).sum(1))


def _summary(found):
    """The metrics of a list of (label, score, rank), one for each target."""
    labels, scores = (np.concatenate([row[k] for row in found]) for k in (0, 1))
    return {
        "macro_auc": float(np.mean([100.0 * roc_auc_score(label, score) for label, score, _ in found])),
        "micro_auc": 100.0 * float(roc_auc_score(labels, scores)),
        "average_precision": float(np.mean([100.0 * average_precision_score(y, x) for y, x, _ in found])),
        "mrr": float(np.mean([100.0 * rank.mean() for _, _, rank in found])),
    }
