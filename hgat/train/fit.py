"""The only training loop: epochs, selection on validation, a state to save after every epoch.

`Fit` itself classifies nodes on a full graph; what else is learned overrides its `losses`, `evaluate` and `results`.
"""

import copy
import math
import time

import dgl
import torch
import torch.nn.functional as F

from hgat.errors import GraphError, TrainingError
from hgat.train import checkpoint, state
from hgat.train.metrics import knn_micro_f1, score

__all__ = ["Fit", "evaluate"]

_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def loss_of(logits, label, multilabel):
    """Cross-entropy of one class per node, or the mean binary cross-entropy of several."""
    if multilabel:
        return F.binary_cross_entropy_with_logits(logits, label)
    return F.cross_entropy(logits, label)


def _run(model, inputs):
    try:
        return model(*inputs)
    except dgl.DGLError as error:
        raise GraphError(f"graph: expected one that the model can run on, got: {error}") from error


@torch.no_grad()
def evaluate(model, inputs, task, metric, part):
    """(metric in percent, loss) of a model on the task's train, val or test nodes, in evaluation mode.

    Raises TrainingError where the loss is not finite: the metric would be one of chance.
    """
    model.eval()
    logits = _run(model, inputs)
    ids = getattr(task, part).to(logits.device)
    logits, label = logits[ids], task.label.to(logits.device)[ids]
    loss = finite(float(loss_of(logits, label, task.multilabel)), f"on the {part} nodes", task)
    return score(metric, logits, label, task.multilabel), loss


def finite(loss, where, task):
    """The loss, or a TrainingError with the likeliest cause: features that are not finite, else the step."""
    if math.isfinite(loss):
        return loss
    cause = "; a smaller train.lr may help"
    for ntype, feat in task.feat.items():
        rows = [] if feat is None else (~torch.isfinite(feat).all(1)).nonzero().flatten()
        if len(rows):
            cause = f": the features of {len(rows)} {ntype!r} nodes are not finite, first node {int(rows[0])}"
            break
    raise TrainingError(f"training: expected a finite loss, got {loss} {where}{cause}")


class Fit:
    """Trains one model on one task by a recipe's [train], an epoch at a time.

    `step()` runs one epoch and says whether another follows. `state()` and `restore()` carry everything that
    the next epoch depends on, the random generator included, so that a run that was killed ends as if it had
    not been.
    """

    def __init__(self, model, inputs, task, train):
        self.model, self.inputs, self.task, self.train = model, inputs, task, train
        self.device = next(model.parameters()).device
        self.optimizer = _OPTIMIZERS[train.optimizer](model.parameters(), lr=train.lr, weight_decay=train.weight_decay)
        self.epoch, self.waited, self.seconds = 0, 0, 0.0
        self.best_metric, self.best_loss, self.best_epoch = -float("inf"), float("inf"), 0
        self.kept = None
        self.loss = self.val_metric = self.val_loss = float("nan")

    def step(self):
        """One epoch. Returns False when the recipe's rule says that it was the last one."""
        started = time.perf_counter()
        self.model.train()
        found = []
        for loss in self.losses():
            found.append(finite(loss.item(), f"at epoch {self.epoch + 1}", self.task))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.train.clip is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.clip)
            self.optimizer.step()
        self.loss = sum(found) / len(found)
        self.epoch += 1
        self.val_metric, self.val_loss = self.evaluate("val")
        self._select()
        self.seconds += time.perf_counter() - started
        return self.more

    @property
    def more(self):
        """Whether the recipe's rule asks for another epoch."""
        return self.epoch < self.train.epochs and self.waited < self.train.patience

    def losses(self):
        """The loss of every step of one epoch; each is stepped on before the next is asked for."""
        ids = self.task.train.to(self.device)
        label = self.task.label.to(self.device)[ids]
        yield loss_of(_run(self.model, self.inputs)[ids], label, self.task.multilabel)

    def evaluate(self, part):
        """(metric in percent, loss) of the model as it is, in evaluation mode."""
        return evaluate(self.model, self.inputs, self.task, self.train.metric, part)

    def results(self):
        """{"test": metric in percent} of the kept weights, and whatever else is to be reported."""
        more = {}
        if self.train.knn_share is not None and hasattr(self.model, "embed"):
            more["knn"] = self._knn()
        return {**more, "test": self.evaluate("test")[0]}

    def _select(self):
        rule = self.train.stop
        higher, lower = self.val_metric > self.best_metric, self.val_loss < self.best_loss
        if rule == "metric":
            better = higher or (self.val_metric == self.best_metric and lower)
            keep = better
        elif rule == "loss":
            better = keep = lower
        elif rule == "either":
            at_top, at_bottom = self.val_metric >= self.best_metric, self.val_loss <= self.best_loss
            better, keep = at_top or at_bottom, at_top and at_bottom
        else:
            better = keep = True
        if rule == "either":
            self.best_metric = max(self.best_metric, self.val_metric)
            self.best_loss = min(self.best_loss, self.val_loss)
        elif better:
            self.best_metric, self.best_loss = self.val_metric, self.val_loss
        self.waited = 0 if better else self.waited + 1
        if keep:
            self.best_epoch = self.epoch
            self.kept = copy.deepcopy(self.model.state_dict())

    def finish(self):
        """Put the kept epoch's weights back and give the result: test and validation scores, epochs."""
        self.model.load_state_dict(self.kept)
        val, val_loss = self.evaluate("val")
        return {
            **self.results(),
            "val": val,
            "val_loss": val_loss,
            "best_epoch": self.best_epoch,
            "epochs": self.epoch,
            "seconds": self.seconds,
        }

    @torch.no_grad()
    def _knn(self):
        ids = self.task.test
        embedding = self.model.embed(*self.inputs).cpu()[ids].numpy()
        return knn_micro_f1(embedding, self.task.label[ids].numpy(), self.train.knn_share)

    def state(self):
        """({name: tensor}, numbers): everything that the next epoch depends on."""
        moments, counts = checkpoint.pack_optimizer(self.optimizer)
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"kept.{k}": v for k, v in (self.kept or {}).items()}
        tensors |= {f"optimizer.{k}": v for k, v in moments.items()}
        tensors["generator"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        numbers = {
            "epoch": self.epoch,
            "waited": self.waited,
            "seconds": self.seconds,
            "best_metric": self.best_metric,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "optimizer": counts,
        }
        return tensors, numbers

    def restore(self, tensors, numbers):
        """Continue where `state()` was taken. Raises state.Unfit, and changes nothing, where it cannot have been."""
        self._check(tensors, numbers)
        self.model.load_state_dict(state.part(tensors, "model."))
        self.kept = {k: v.to(self.device) for k, v in state.part(tensors, "kept.").items()} or None
        checkpoint.unpack_optimizer(self.optimizer, state.part(tensors, "optimizer."), numbers["optimizer"])
        torch.set_rng_state(tensors["generator"])
        if "generator.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["generator.cuda"], self.device)
        self.epoch, self.waited, self.seconds = numbers["epoch"], numbers["waited"], numbers["seconds"]
        self.best_metric, self.best_loss = numbers["best_metric"], numbers["best_loss"]
        self.best_epoch = numbers["best_epoch"]

    def _check(self, tensors, numbers):
        keys = ("epoch", "waited", "seconds", "best_metric", "best_loss", "best_epoch", "optimizer")
        state.record("fit", numbers, keys)
        state.whole("epoch", numbers["epoch"], 0, self.train.epochs)
        for key in ("waited", "best_epoch"):
            state.whole(key, numbers[key], 0, numbers["epoch"])
        state.number("seconds", numbers["seconds"], 0)
        nothing = numbers["best_epoch"] == 0
        state.number("best_metric", numbers["best_metric"], 0, 100, also=("-inf",) if nothing else ())
        state.number("best_loss", numbers["best_loss"], 0, also=("inf",) if nothing else ())
        since = numbers["epoch"] - numbers["best_epoch"]  # with "either" what is kept may be older than what is better
        state.whole("waited", numbers["waited"], 0 if self.train.stop == "either" else since, since)
        weights, kept = self.model.state_dict(), state.part(tensors, "kept.")
        state.check_tensors("model.", state.part(tensors, "model."), weights)
        state.check_tensors("kept.", kept, weights if numbers["best_epoch"] else {})
        moments = state.part(tensors, "optimizer.")
        state.check_optimizer(self.optimizer, moments, numbers["optimizer"])
        steps = max((int(value) for name, value in moments.items() if name.endswith(".step")), default=0)
        if steps % max(numbers["epoch"], 1) or (steps and not numbers["epoch"]):  # every epoch has as many
            raise state.Unfit("optimizer", f"steps of {numbers['epoch']} epochs", steps)
        if "generator" not in tensors:
            raise state.Unfit("generator", "the state of the random generator", "none")
        state.check_generator("generator", tensors["generator"])
        rest = [
            name for name in tensors if not name.startswith(("model.", "kept.", "optimizer.")) and name != "generator"
        ]
        for name in rest:
            if name != "generator.cuda" or self.device.type != "cuda":
                raise state.Unfit(name, "no such tensor", tensors[name])
            state.check_generator(name, tensors[name], cuda=True)
