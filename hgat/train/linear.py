"""Logistic regression, solved: the control that no choice of steps can make weak."""

import dataclasses
import time

import numpy as np
import scipy.sparse
import torch
from sklearn.linear_model import LogisticRegression

from hgat.train.loop import Fit, loss_of

__all__ = ["LogisticPath"]

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ITERATIONS = 1000


class LogisticPath(Fit):
    """scikit-learn's LogisticRegression on a sparse matrix, an "epoch" for each C; validation chooses among them.

    The model has `weight` [F, C] and `bias` [C], its one input is a sparse tensor [N, F]. Each class is solved by
    itself, against the rest; one that all training nodes have, or none, keeps its frequency.
    """

    def __init__(self, model, inputs, task, train, refit=False):
        """refit: end with strength number train.epochs, which was chosen before."""
        path = {"epochs": len(STRENGTHS), "patience": len(STRENGTHS), "stop": "metric"}
        super().__init__(model, inputs, task, train if refit else dataclasses.replace(train, **path))
        bag = inputs[0].cpu()
        self.rows = scipy.sparse.csr_matrix((bag.values(), bag.indices()), shape=tuple(bag.shape))[task.train.numpy()]

    def step(self):
        started = time.perf_counter()
        ids = self.task.train
        self._solve(self.task.label[ids].numpy(), STRENGTHS[self.epoch])
        with torch.no_grad():
            logits = self.model(*self.inputs).cpu()[ids]
            self.loss = loss_of(logits, self.task.label[ids], self.task.multilabel).item()
        self.epoch += 1
        self.val_metric, self.val_loss = self.evaluate("val")
        self._select()
        self.seconds += time.perf_counter() - started
        return self.more

    @property
    def more(self):
        """All strengths are tried."""
        return self.epoch < self.train.epochs

    def _solve(self, label, strength):
        weight, bias = (np.zeros(p.shape, dtype=np.float32) for p in (self.model.weight, self.model.bias))
        if self.task.multilabel:
            problems = enumerate(label.T)
        else:  # one against the rest
            problems = enumerate(label == number for number in range(weight.shape[1]))
        for number, has in problems:
            share = (has.sum() + 0.5) / (len(has) + 1.0)
            bias[number] = np.log(share / (1.0 - share))
            if 0 < has.sum() < len(has):
                solved = LogisticRegression(C=strength, max_iter=ITERATIONS).fit(self.rows, has)
                weight[:, number], bias[number] = solved.coef_[0], solved.intercept_[0]
        with torch.no_grad():
            self.model.weight.copy_(torch.from_numpy(weight))
            self.model.bias.copy_(torch.from_numpy(bias))
