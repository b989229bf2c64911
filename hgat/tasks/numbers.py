"""A number for each node: regression, trained, chosen and scored on the split that the data give."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from sklearn import metrics
from torch import Tensor

from hgat.data import NodeData
from hgat.errors import RecipeError
from hgat.models import System
from hgat.tasks._fitted import Boosted, BoostedMeans, Linear, LinearMeans
from hgat.tasks._kernel import BoostedKernel, Kernel
from hgat.tasks.nodes import Nodes, NoGraph

__all__ = ["Numbers"]


class Numbers(Nodes):
    """Which number a node has: the mean squared error over the training nodes, in units of their variance.

    The answer of a system: [N, 1], in standard deviations of the training nodes' numbers from their mean.
    Metrics: r2, 1 - sum (y - answer)^2 / sum (y - mean)^2 over the part, in percent; auc, the area under the ROC curve
    of the answer for "the number is above 0". The results have both, and the mean absolute error in the number's own
    unit, in which less is better; auc alone is left out where a part has no number above 0, or no other.
    batch, fanout: see Nodes. kernel: what the controls `kernel` and `boosted_kernel` are, see hgat.tasks._kernel.
    """

    data: NodeData
    numeric = True
    metrics = ("r2", "auc")
    bounds = (-float("inf"), 100.0)
    controls = {
        "no_graph": NoGraph,
        "linear": Linear,
        "linear_means": LinearMeans,
        "boosted": Boosted,
        "boosted_means": BoostedMeans,
        "kernel": Kernel,
        "boosted_kernel": BoostedKernel,
    }

    def __init__(
        self,
        data: Any,
        *,
        batch: int | None = None,
        fanout: list[int] | None = None,
        kernel: dict | None = None,
    ) -> None:
        super().__init__(data, batch=batch, fanout=fanout)
        self.kernel = kernel
        self._signed = all((label > 0).any() and (label <= 0).any() for _, label in self._asked())

    def check(self, metric: str, controls: Sequence[str]) -> None:
        """Raise RecipeError where a part leaves the metric undefined, and for a kernel that is not said."""
        for part, label in self._asked():
            if len(label) < 2 or label.std() == 0:
                raise RecipeError(
                    f"train.metric: expected {part} nodes with numbers that differ, got {len(label)} alike"
                )
        if metric == "auc" and not self._signed:
            raise RecipeError(
                "train.metric: auc: expected numbers above 0 and others in every part, got one kind alone"
            )
        for name in controls:
            if name in self.controls and issubclass(self.controls[name], (Kernel, BoostedKernel)) and not self.kernel:
                raise RecipeError(f"task.kernel: expected it for the control {name!r}, got none")

    def control_settings(self, control: type[System]) -> dict:
        """What `prepare` of a control is given beside what is shown."""
        return {"kernel": self.kernel} if issubclass(control, (Kernel, BoostedKernel)) else {}

    def _scale(self, train: Tensor) -> tuple[float, float]:
        """(mean, standard deviation) of the training nodes' numbers; a constant, which `check` refuses, has 1."""
        known = self.data.label[train].double()
        return float(known.mean()), float(known.std()) or 1.0

    def _known(self, train: Tensor) -> Tensor:
        mean, std = self._scale(train)
        return (self.data.label - mean) / std

    def _loss(self, answer: Tensor, label: Tensor) -> Tensor:
        return F.mse_loss(answer.squeeze(-1), label)

    def _said(self, answer: Tensor) -> Tensor:
        """[N] the answer in the number's own unit."""
        mean, std = self._scale(self._shown.train)
        return mean + std * answer.squeeze(-1).double().cpu()

    @torch.no_grad()
    def predict(self, model: System, inputs: tuple, nodes: Any = None) -> Tensor:  # type: ignore[override]
        """The number of each node in its own unit, [K] float64; nodes: as in Nodes. Raises ShapeError as there."""
        return self._said(self._said_of(model, inputs, nodes))

    def _score(self, metric: str, answer: Tensor, label: Tensor) -> float:
        said, label = self._said(answer).numpy(), label.double().cpu().numpy()
        found = metrics.r2_score(label, said) if metric == "r2" else metrics.roc_auc_score(label > 0, said)
        return 100.0 * float(found)

    @torch.no_grad()
    def results(self, model: System, inputs: tuple, metric: str, **more: Any) -> tuple[dict, dict[str, Tensor]]:
        """({"test": metric in percent, "more": all of them, and the mean absolute error}, {})."""
        answer, label = model.eval().rows(inputs, self.data.test, self.batch), self.data.label[self.data.test]
        found = {name: self._score(name, answer, label) for name in ("r2", "auc") if name == "r2" or self._signed}
        error = float((self._said(answer) - label.double()).abs().mean())
        return {"test": found[metric], "more": {**found, f"mean absolute error, {self.data.class_names[0]}": error}}, {}
