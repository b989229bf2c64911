"""Prediction of the next snapshot's links from embeddings of the snapshots before it, as DySAT's paper does it.

For every target step t a new model is trained on the steps before t. Links of step t among nodes that have appeared
before it, and as many pairs without a link in it, are split 20/20/60: a logistic regression on the element-wise product
of both ends' embeddings is fitted on the first part, the epoch is chosen by its AUC on the second, and the rest is
scored. Macro is the mean of the steps' AUC, micro the AUC of all steps' examples in one.
Paper: Sankar et al. 2019 (DySAT), arXiv:1812.09430, section 5; what macro and micro mean is not said there.
"""

import dataclasses
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from hgat import ops
from hgat.data import EventData
from hgat.errors import RecipeError, TrainingError
from hgat.graph import walks
from hgat.train import state
from hgat.train.loop import Fit
from hgat.train.protocols._experiment import Base

__all__ = ["Experiment"]

FEWEST = 5  # links of a step below which there is nothing to split
RIVALS = 100  # other partners that a link is ranked among
FIT, VAL, TEST = 0, 1, 2
METRICS = ("macro_auc", "micro_auc", "average_precision", "mrr")
# What is scored besides the recipe's own choice: strict is without self-links and without ends that nobody could know.
VIEWS = {
    "all": "all links",
    "no_self": "without self-links",
    "strict": "without self-links and unseen nodes",
    "new": "new links",
    "new_strict": "new links without unseen nodes",
}


class Experiment(Base):
    """Timed events cut into snapshots, and one training per target step.

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
    """

    kind = EventData
    graph_kinds = ("snapshots",)
    unit = "pairs"
    metrics = METRICS
    controls = ("counting", "no_structural", "no_temporal", "uniform")

    def __init__(
        self,
        recipe,
        root,
        device,
        *,
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
    ):
        super().__init__(recipe, root, device)
        if recipe.train.refit:
            raise RecipeError("train.refit: expected false with links, whose validation part is no part of the past")
        numbers = {"num_walks": num_walks, "walk_length": walk_length, "window": window, "ahead": ahead}
        for name, number in {**numbers, "positives": positives, "negatives": negatives, "batch": batch}.items():
            if number is not None and number < 1:
                raise RecipeError(f"protocol.{name}: expected 1 or more, got {number}")
        self.snapshots = recipe.prepare(self.task.graph)
        self.feat = {t: None if f is None else f.to(self.device) for t, f in self.task.feat.items()}
        steps = len(self.snapshots)
        if steps < 2:
            raise RecipeError(f"graph: expected two snapshots or more, to learn from and to predict, got {steps}")
        if not 1 <= first_target < steps:
            raise RecipeError(f"protocol.first_target: expected a step from 1 to {steps - 1}, got {first_target}")
        self.self_links, self.unseen_nodes, self.ahead = self_links, unseen_nodes, ahead
        self.loss, self.noise = loss, noise
        self.views = ["all", "new"]
        self.views += (
            ["no_self"] * self_links + ["strict"] * (self_links or unseen_nodes) + ["new_strict"] * unseen_nodes
        )
        self.walk_settings = {"num_walks": num_walks, "length": walk_length, "window": window}
        self.positives, self.negatives, self.negative_weight = positives, negatives, negative_weight
        self.batch = batch
        pairs = _Pairs(self.snapshots)
        self.pairs = pairs
        found = [t for t in range(first_target, steps) if pairs.count(t) >= FEWEST]
        self.targets = [t for t in found if self.examples(t, "all", 0) is not None]
        if not self.targets:
            raise RecipeError(
                f"protocol.first_target: expected a step from {first_target} on with {FEWEST} links or more among "
                "nodes that have appeared before, and as many pairs without one, got none"
            )
        if ahead > 1 and steps - ahead not in self.targets:
            least, most = steps - self.targets[-1], steps - self.targets[0]
            raise RecipeError(f"protocol.ahead: expected 1, or {least} to {most} with links enough, got {ahead}")
        if loss == "links" and self.targets[0] < 2:
            raise RecipeError(f"protocol.first_target: expected 2 or more with loss = 'links', got {first_target}")
        if self.snapshots.is_typed and "no_structural" in recipe.train.controls:
            raise RecipeError("train.controls: expected 'no_structural' with one type of nodes and events, got several")
        self.past = self.snapshots[: self.targets[-1]]
        self.inputs = (self.past, self.feat)

    def sizes(self):
        """Examples of all targets, half of them links."""
        parts = [self.examples(t, "all", 0).part for t in self.targets]
        found = np.concatenate(parts)
        return {name: int((found == part).sum()) for name, part in (("train", FIT), ("val", VAL), ("test", TEST))}

    def examples(self, target, view, seed, known_at=None):
        """Pairs of step `target` to score, the same for every variant of one seed."""
        options = {
            "self_links": self.self_links and view == "all",
            "unseen_nodes": self.unseen_nodes and "strict" not in view,
            "new": view.startswith("new"),
        }
        return self.pairs.examples(target, seed, **options, known_at=known_at)

    def model(self, past=None, **changes):
        """The recipe's model for the steps up to the last target, or for other ones, with fresh weights."""
        return self.build(past or self.past, self.feat, **changes)

    def fit(self, variant, seed, refit_epochs=None):
        """(one training per target step in a row, context in which it runs) of one variant."""
        if variant == "counting":
            return _Counting(self, seed), nullcontext()
        return _Targets(self, variant, seed), ops.uniform_attention() if variant == "uniform" else nullcontext()

    @property
    def scored(self):
        return f"auc of step {self.targets[-1]} alone"

    def scores(self, model, seed):
        """{part: (AUC in percent, on how many pairs)} of the model of the last target, on that step alone."""
        examples = self.examples(self.targets[-1], "all", seed)
        logits = _regression(_embedding(model, self.past, self.feat), examples)
        masks = {name: examples.part == part for name, part in (("train", FIT), ("val", VAL), ("test", TEST))}
        return {name: (_auc(examples.label, logits, mask), int(mask.sum())) for name, mask in masks.items()}


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

    def history(self, target):
        """f(src, dst) -> how often a pair was linked before step `target`, ties broken by the product of degrees."""
        before = self.step < target
        keys, place = np.unique(self.key[before], return_inverse=True)
        often = np.bincount(place, self.events[before], len(keys)) if len(keys) else np.zeros(0)
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


def _embedding(model, past, feat):
    """[N, F]: every node at the last step, in evaluation mode, as NumPy."""
    model.eval()
    with torch.no_grad():
        found = model(past, feat)[:, -1].cpu().double().numpy()
    if not np.isfinite(found).all():
        raise TrainingError("training: expected finite embeddings, got others; a smaller train.lr may help")
    return found


def _regression(table, examples):
    """Log odds of all examples by a logistic regression fitted on the first part."""
    return _fitted(table, examples)(examples.src, examples.dst)


def _fitted(table, examples):
    here = examples.part == FIT
    product = table[examples.src[here]] * table[examples.dst[here]]
    model = LogisticRegression(solver="liblinear").fit(product, examples.label[here])

    def score(src, dst):
        return (table[src] * table[dst]) @ model.coef_[0] + model.intercept_[0]

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


class _Tally:
    """Test scores of one variant and seed, target by target: kept as tensors, so that a run can go on from them."""

    def __init__(self, experiment, seed):
        self.experiment, self.seed, self.kept = experiment, seed, {}

    def add(self, target, score_of):
        """score_of(examples) -> f(src, dst), the scores of pairs; fitted on the examples' first part."""
        for name, examples in self._due(target):
            self._keep(name, examples, score_of(examples))

    def _due(self, target):
        """(name, examples) of all that is scored at a target."""
        experiment = self.experiment
        for view in experiment.views:
            examples = experiment.examples(target, view, self.seed)
            if examples is not None:
                yield f"{view}.{target}", examples
        if target == len(experiment.snapshots) - experiment.ahead:
            for step in range(target, len(experiment.snapshots)):
                examples = experiment.examples(step, "all", self.seed, known_at=target)
                if examples is not None:
                    yield f"ahead.{step - target + 1}", examples

    def check(self, kept, targets):
        """Raise state.Unfit unless `kept` may be what these targets gave."""
        expected = {}
        for name, examples in (due for target in targets for due in self._due(target)):
            label = torch.from_numpy(examples.label[examples.part == TEST])
            score, rank = (torch.zeros(count, dtype=torch.float64) for count in (len(label), int((label == 1).sum())))
            expected |= {f"{name}.label": label, f"{name}.score": score, f"{name}.rank": rank}
        state.check_tensors("tally.", kept, expected)
        for name, tensor in kept.items():
            if name.endswith(".label") and not torch.equal(tensor, expected[name]):
                raise state.Unfit(f"tally.{name}", "the labels of this seed's pairs", "others")
            if name.endswith(".rank") and not ((tensor > 0) & (tensor <= 1)).all():
                raise state.Unfit(f"tally.{name}", "reciprocal ranks", "others")

    def _keep(self, name, examples, score):
        here = examples.part == TEST
        logits = score(examples.src[here], examples.dst[here])
        self.kept[f"{name}.label"] = torch.from_numpy(examples.label[here])
        self.kept[f"{name}.score"] = torch.from_numpy(np.ascontiguousarray(logits, dtype=np.float64))
        self.kept[f"{name}.rank"] = torch.from_numpy(_ranks(score, examples))

    def results(self, metric):
        """{"test": the metric on all links, "more": every other one}."""
        more = {}
        for view, title in VIEWS.items():
            found = [self._of(f"{view}.{t}") for t in self.experiment.targets if f"{view}.{t}.label" in self.kept]
            shown = METRICS if view in ("all", "strict") else METRICS[:2]
            if found:
                more |= {f"{title}, {name}": value for name, value in _summary(found).items() if name in shown}
        for step in range(1, self.experiment.ahead + 1):
            if self.experiment.ahead > 1 and f"ahead.{step}.label" in self.kept:
                more[f"{step} step{'s' if step > 1 else ''} ahead, auc"] = _summary([self._of(f"ahead.{step}")])[
                    "macro_auc"
                ]
        return {"test": more[f"{VIEWS['all']}, {metric}"], "more": more}

    def _of(self, name):
        return tuple(self.kept[f"{name}.{what}"].numpy() for what in ("label", "score", "rank"))


def _summary(found):
    """The metrics of a list of (label, score, rank), one for each target."""
    labels, scores = (np.concatenate([row[k] for row in found]) for k in (0, 1))
    return {
        "macro_auc": float(np.mean([100.0 * roc_auc_score(label, score) for label, score, _ in found])),
        "micro_auc": 100.0 * float(roc_auc_score(labels, scores)),
        "average_precision": float(np.mean([100.0 * average_precision_score(y, x) for y, x, _ in found])),
        "mrr": float(np.mean([100.0 * rank.mean() for _, _, rank in found])),
    }


class _LinkFit(Fit):
    """Training for one target step."""

    def __init__(self, experiment, model, past, target, seed):
        super().__init__(model, (past, experiment.feat), experiment.task, experiment.recipe.train)
        self.experiment, self.target = experiment, target
        self.examples = experiment.examples(target, "all", seed)
        self.steps, self.nodes = len(past), past.total_nodes
        self.pool = walks(past, **experiment.walk_settings, seed=seed)
        if experiment.loss == "links":
            self.links = self._next_links(past)

    def _next_links(self, past):
        """(source, destination) rows t * N + v of the links of step t + 1 whose ends have both appeared by t."""
        pairs = self.experiment.pairs
        here = (pairs.step >= past.start + 1) & (pairs.step < past.stop)
        step, key = pairs.step[here] - 1, pairs.key[here]
        src, dst = key // pairs.num, key % pairs.num
        known = pairs.present[step, src] & pairs.present[step, dst] & (src != dst)
        # A step without links has no nodes to draw negatives from.
        known &= np.isin(step - past.start, (self.pool.nodes // self.nodes).numpy())
        base = (step - past.start)[known] * pairs.num
        return torch.from_numpy(base + src[known]), torch.from_numpy(base + dst[known])

    def losses(self):
        experiment = self.experiment
        if experiment.batch is None:
            yield self._loss(None)
            return
        for part in torch.randperm(self.nodes).split(experiment.batch):
            chosen = torch.zeros(self.nodes, dtype=torch.bool)
            chosen[part] = True
            yield self._loss(chosen)

    def _loss(self, chosen):
        """chosen: [N] which nodes this step is about, None for all."""
        experiment = self.experiment
        if experiment.loss == "walks":
            nodes = self.pool.nodes
            nodes = nodes if chosen is None else nodes[chosen[nodes % self.nodes]]
            near = self.pool.contexts(nodes, experiment.positives)
        else:
            nodes, near = self.links
            if chosen is not None:
                here = chosen[nodes % self.nodes]
                nodes, near = nodes[here], near[here]
            near = near.unsqueeze(1)
        others, far = self._noise(nodes, chosen)
        if not len(nodes):
            return sum(p.sum() for p in self.model.parameters()) * 0.0
        rows = self.model(*self.inputs).flatten(0, 1)  # row v * T + t

        def logits(mine, others):
            mine, others = mine.to(rows.device), others.to(rows.device)
            at = (others % self.nodes) * self.steps + others // self.nodes
            own = rows.index_select(0, (mine % self.nodes) * self.steps + mine // self.nodes)
            return (rows.index_select(0, at.flatten()).view(*at.shape, rows.shape[1]) @ own.unsqueeze(-1)).squeeze(-1)

        def mean(loss, nodes):
            """The mean over a step's pairs, added up over the steps."""
            step = nodes // self.nodes
            share = 1.0 / torch.bincount(step, minlength=self.steps).clamp_min(1)
            return (share[step].to(rows.device) * loss.mean(1)).sum()

        loss = mean(F.softplus(-logits(nodes, near)), nodes)
        return loss + experiment.negative_weight * mean(F.softplus(logits(others, far)), others)

    def _noise(self, nodes, chosen):
        """(nodes [B], others [B, negatives]) that are to be unlike; nodes: those with links or contexts."""
        if self.experiment.noise == "linked":
            return nodes, self.pool.negatives(nodes, self.experiment.negatives)
        known = self.pool.known
        if chosen is not None:
            known = known[chosen[known % self.nodes]]
        # A step without positive pairs teaches nothing: all of it would be pushed apart.
        known = known[torch.bincount(nodes // self.nodes, minlength=self.steps)[known // self.nodes] > 0]
        return known, self.pool.strangers(known, self.experiment.negatives)

    def evaluate(self, part):
        """(AUC in percent, log loss) of the regression on the validation part."""
        number = {"val": VAL, "test": TEST}[part]
        here = self.examples.part == number
        logits = _regression(_embedding(self.model, *self.inputs), self.examples)
        label = self.examples.label
        return _auc(label, logits, here), float(log_loss(label[here], 1 / (1 + np.exp(-logits[here]))))

    def results(self):
        return {}


class _Targets:
    """The trainings of all target steps, one after the other, in the manner of one Fit."""

    def __init__(self, experiment, variant, seed):
        self.experiment, self.variant, self.seed = experiment, variant, seed
        self.tally, self.done = _Tally(experiment, seed), []
        # A bar counts the epochs of all targets.
        self.train = dataclasses.replace(
            experiment.recipe.train, epochs=experiment.recipe.train.epochs * len(experiment.targets)
        )
        self.before = 0
        self.current = self._start()

    def _start(self):
        experiment = self.experiment
        target = experiment.targets[min(len(self.done), len(experiment.targets) - 1)]  # of all done, the last
        torch.manual_seed(self.seed * 1_000_003 + target)
        changes = {"no_temporal": {"temporal": False}, "no_structural": {"structural": "none"}}.get(self.variant, {})
        past = experiment.snapshots[:target]
        return _LinkFit(experiment, experiment.model(past, **changes), past, target, self.seed)

    model = property(lambda self: self.current.model)
    loss = property(lambda self: self.current.loss)
    val_metric = property(lambda self: self.current.val_metric)
    epoch = property(lambda self: self.before + self.current.epoch)

    def step(self):
        if self.current.step():
            return True
        fit = self.current
        self.done.append(fit.finish())
        table = _embedding(fit.model, *fit.inputs)
        self.tally.add(fit.target, lambda examples: _fitted(table, examples))
        if len(self.done) == len(self.experiment.targets):
            return False
        self.before += fit.train.epochs
        self.current = self._start()
        return True

    def finish(self):
        """Means over the targets of what is no test score."""
        mean = {key: float(np.mean([row[key] for row in self.done])) for key in ("val", "val_loss", "best_epoch")}
        total = {key: sum(row[key] for row in self.done) for key in ("epochs", "seconds")}
        return {**self.tally.results(self.train.metric), **mean, **total}

    def state(self):
        tensors, numbers = self.current.state()
        tensors = {f"fit.{k}": v for k, v in tensors.items()} | {f"tally.{k}": v for k, v in self.tally.kept.items()}
        return tensors, {"fit": numbers, "done": self.done, "before": self.before}

    @property
    def more(self):
        """Whether a target is left."""
        return len(self.done) < len(self.experiment.targets)

    def restore(self, tensors, numbers):
        state.record("fit", numbers, ("fit", "done", "before"))
        done, targets = numbers["done"], self.experiment.targets
        if type(done) is not list or len(done) > len(targets):
            raise state.Unfit("done", f"a list of at most {len(targets)}", done)
        epochs = self.current.train.epochs
        for row in done:
            state.record("done", row, ("val", "val_loss", "best_epoch", "epochs", "seconds"))
            state.number("done.val", row["val"], 0, 100)
            state.number("done.val_loss", row["val_loss"])
            state.number("done.seconds", row["seconds"], 0)
            state.whole("done.epochs", row["epochs"], 1, epochs)
            state.whole("done.best_epoch", row["best_epoch"], 0, row["epochs"])
        before = min(len(done), len(targets) - 1) * epochs
        state.whole("before", numbers["before"], before, before)
        tally, fit = state.part(tensors, "tally."), state.part(tensors, "fit.")
        if len(tally) + len(fit) != len(tensors):
            raise state.Unfit("state", "only tensors of fit. and tally.", "others")
        self.tally.check(tally, targets[: len(done)])
        self.done, self.before, self.tally.kept = done, before, tally
        self.current = self._start()
        self.current.restore(fit, numbers["fit"])


class _Counting:
    """The control without training: pairs that were linked before, most often first, then by degrees."""

    model, loss, epoch = None, 0.0, 0

    def __init__(self, experiment, seed):
        self.experiment, self.tally = experiment, _Tally(experiment, seed)
        self.train, self.val_metric = dataclasses.replace(experiment.recipe.train, epochs=1), float("nan")

    def step(self):
        self.started = time.perf_counter()
        found = []
        for target in self.experiment.targets:
            score = self.experiment.pairs.history(target)
            self.tally.add(target, lambda examples, score=score: score)
            examples = self.experiment.examples(target, "all", self.tally.seed)
            found.append(_auc(examples.label, score(examples.src, examples.dst), examples.part == VAL))
        self.val_metric = float(np.mean(found))
        return False

    def finish(self):
        seconds = time.perf_counter() - self.started
        more = {"val": self.val_metric, "val_loss": float("nan"), "best_epoch": 0, "epochs": 0, "seconds": seconds}
        return {**self.tally.results(self.train.metric), **more}

    more = False

    def state(self):
        return {}, {}

    def restore(self, tensors, numbers):
        state.check_tensors("", tensors, {})
        state.record("fit", numbers, ())
        self.step()  # a state is only saved behind it
