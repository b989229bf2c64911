"""What attention is spent on, in numbers, beside what uniform attention would spend: the system is asked."""

from typing import Any

from hgat.models import Past, Shares, System
from hgat.models._system import resting

__all__ = ["Past", "Shares", "past", "shares"]


def _asked(model: System, inputs: tuple) -> list:
    """What the model says of its attention, in evaluation mode and without gradients; its mode is given back."""
    return resting(model, lambda: model.attended(*inputs))


def shares(model: System, *inputs: Any) -> list[Shares]:
    """Shares of every layer of a trained model; empty for a model that has none to tell.

    inputs: those of its forward. By relation: one entry per layer and destination type. By view: the semantic weights.
    """
    return [found for found in _asked(model, inputs) if isinstance(found, Shares)]


def past(model: System, *inputs: Any) -> list[Past]:
    """Past of every temporal layer of a trained model; empty for a model without such layers."""
    return [found for found in _asked(model, inputs) if isinstance(found, Past)]
