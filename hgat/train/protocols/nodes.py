"""Classification of nodes on a full graph: trained, chosen and scored on the split that the data give."""

import dataclasses
from contextlib import nullcontext
from types import SimpleNamespace

import torch

from hgat.data import NodeData
from hgat.train import controls, metrics
from hgat.train.loop import Fit, evaluate
from hgat.train.metrics import score
from hgat.train.protocols._experiment import Base

__all__ = ["Experiment"]

PARTS = ("train", "val", "test")


class Experiment(Base):
    """NodeData, the structure that the model wants, and the features of its nodes."""

    kind = NodeData
    graph_kinds = ("homogeneous", "metapath", "relations")
    unit = "nodes"
    metrics = tuple(metrics.names())
    controls = tuple(controls.names())

    def __init__(self, recipe, root, device):
        super().__init__(recipe, root, device)
        self._check_metric()
        feat = {t: None if f is None else f.to(self.device) for t, f in self.task.feat.items()}
        self.inputs = (recipe.prepare(self.task.graph), feat)

    def _check_metric(self):
        """Raise RecipeError before the training, not after it, if the metric is undefined on a split's part."""
        task = self.task
        for part in ("val", "test"):
            label = task.label[getattr(task, part)]
            score(self.recipe.train.metric, torch.zeros(len(label), task.num_classes), label, task.multilabel)

    def model(self):
        """The recipe's model with fresh weights."""
        return self.build(*self.inputs, self.task.num_classes, self.task.target)

    def fit(self, variant, seed, refit_epochs=None):
        """(Fit, context in which its steps run) of one variant, seeded before the weights are drawn.

        refit_epochs: train on training and validation nodes together for so many epochs.
        """
        torch.manual_seed(seed)
        task, settings = self.task, self.recipe.train
        if refit_epochs is not None:
            task = SimpleNamespace(**{**vars(task), "train": torch.cat([task.train, task.val])})
            settings = dataclasses.replace(settings, epochs=refit_epochs, stop="last")
        model, inputs, context = None, None, nullcontext()
        if variant != "ours":
            model, inputs, context = controls.find(variant)(self.task, self.recipe)
        if model is None:
            return Fit(self.model(), self.inputs, task, settings), context
        arguments = model.to(self.device), [x.to(self.device) for x in inputs], task, settings
        if hasattr(model, "fitted_by"):
            return model.fitted_by(*arguments, refit=refit_epochs is not None), context
        return Fit(*arguments), context

    def scores(self, model, seed):
        """{part: (score in percent, on how many nodes)} of a trained model."""
        metric, sizes = self.recipe.train.metric, self.sizes()
        return {part: (evaluate(model, self.inputs, self.task, metric, part)[0], sizes[part]) for part in PARTS}

    def sizes(self):
        """{part: how many nodes}."""
        return {part: len(getattr(self.task, part)) for part in PARTS}
