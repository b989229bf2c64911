"""What systems and controls on streams of labelled events read of them."""

import torch
from torch import Tensor

from hgat.errors import GraphError
from hgat.graph.recent import entities
from hgat.models._system import Facts

__all__ = ["known_when_asked"]


def known_when_asked(shown: Facts) -> Tensor:
    """[N, F], the features of each event and, behind them, those of its entities, in the order of the relations.

    Zeros in the place of an entity that an event does not have. Raises GraphError where neither has any.
    """
    graph, own = shown.graph, shown.feat[shown.target]
    found = [] if own is None else [own]
    for etype in graph.canonical_etypes:
        rows = shown.feat[etype[2]]
        if rows is not None:
            entity = entities(graph, etype)
            found.append(rows[entity.clamp(min=0)] * (entity >= 0).unsqueeze(1))
    if not found:
        raise GraphError(f"feat: expected features of {shown.target!r} nodes or of their entities, got none")
    return torch.cat(found, 1)
