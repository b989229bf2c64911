"""What every protocol's experiment shares."""

import torch

from hgat import data, models
from hgat.errors import HgatError, RecipeError

__all__ = ["Base"]


class Base:
    """One recipe on its data: builds the inputs once, and a fresh model for every fit."""

    kind = None  # the class of task that the protocol takes
    graph_kinds = ()  # the structures that its models may run on, modules of hgat.graph

    def __init__(self, recipe, root, device):
        self.recipe = recipe
        graph_kind = models.find(recipe.system).graph_kind
        if graph_kind not in self.graph_kinds:
            raise RecipeError(
                f"protocol: expected a model on {' or '.join(self.graph_kinds)} for {recipe.protocol['name']}, got "
                f"{recipe.system} on {graph_kind}"
            )
        self.device = _device(device)
        self.task = data.load(recipe.data["name"], root, **recipe.settings("data"))
        if not isinstance(self.task, self.kind):
            raise RecipeError(
                f"protocol: expected data of the kind {self.kind.__name__} for {recipe.protocol['name']}, got "
                f"{type(self.task).__name__} of {recipe.data['name']}"
            )

    @property
    def scored(self):
        """What `scores` gives."""
        return self.recipe.train.metric.replace("_", " ")

    def build(self, *arguments, **changes):
        """The recipe's model with fresh weights; changes: settings to replace."""
        system, settings = models.find(self.recipe.system), {**self.recipe.settings("model"), **changes}
        try:
            model = system.for_graph(*arguments, **settings)
        except HgatError:
            raise
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            # What PyTorch says of a tensor that no memory holds, or no number counts.
            raise RecipeError(f"model: expected settings that a model can be built with, got: {error}") from error
        return model.to(self.device)


def _device(name):
    try:
        device = torch.device(name)
        torch.ones(1, device=device).add(1).item()
    except (AssertionError, ImportError, RuntimeError) as error:
        reason = str(error).split("\n")[0].split(". ")[0]
        raise RecipeError(f"--device: expected a device that PyTorch can use, got {name!r}: {reason}") from None
    return device
