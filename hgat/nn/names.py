"""Names that go with parameters: what stands at a position of a tensor is matched by name, or refused."""

import json
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

import torch

from hgat.errors import GraphError, brief
from hgat.nn.common import Layer

__all__ = ["NamedState", "StateError", "check_etypes", "names_of", "order_of", "reorder", "reorder_children"]


class StateError(GraphError, RuntimeError):
    """A state dict of other relations, meta-paths or node types than the module's, as load_state_dict raises it."""


class NamedState(Layer):
    """A module whose state dict says what its parameters stand for, so that another order is put right on loading.

    Names are JSON in a tensor of bytes under "_extra_state", which every format of tensors can hold. A state dict
    without them is matched by position.
    """

    def _names(self):
        """What JSON can hold and `_match` understands."""
        raise NotImplementedError

    def _match(self, names, state, prefix):
        """Put the entries of `state` in this module's order; StateError where their names are not this module's."""
        raise NotImplementedError

    def get_extra_state(self) -> torch.Tensor:
        """The names, as bytes of JSON."""
        return torch.tensor(list(json.dumps(self._names()).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Nothing is left to do: the order was put right before the tensors were copied."""

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, *rest):
        key = f"{prefix}_extra_state"
        if key in state_dict:
            self._match(_read(state_dict[key]), state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, *rest)
        if key in missing_keys:
            missing_keys.remove(key)


def _read(state):
    try:
        return json.loads(bytes(state.tolist()).decode())
    except (AttributeError, TypeError, ValueError):
        raise StateError("state dict: expected names in _extra_state, got something else") from None


def order_of(theirs: Any, ours: Sequence[Any], what: str) -> list[int]:
    """The place among `theirs` of each of `ours`; StateError unless they are the same names."""
    try:
        theirs = [tuple(name) if isinstance(name, list) else name for name in theirs]
        alike = len(theirs) == len(ours) and set(theirs) == set(ours)
    except TypeError:
        alike = False
    if not alike:
        raise StateError(f"state dict: expected {what} {list(ours)}, got {theirs}")
    return [theirs.index(name) for name in ours]


def reorder(state: MutableMapping[str, Any], prefix: str, names: Iterable[str], order: Sequence[int]) -> None:
    """Give the named tensors of a state dict the rows in another order."""
    for name in names:
        tensor = state.get(prefix + name)
        if isinstance(tensor, torch.Tensor) and tensor.dim() and len(tensor) == len(order):
            state[prefix + name] = tensor[order]


def reorder_children(state: MutableMapping[str, Any], prefix: str, order: Sequence[int]) -> None:
    """Give the numbered children under `prefix` another order."""
    found = {key: state.pop(key) for key in list(state) if key.startswith(prefix)}
    for place, number in enumerate(order):
        start = f"{prefix}{number}."
        for key, value in found.items():
            if key.startswith(start):
                state[f"{prefix}{place}.{key[len(start) :]}"] = value


def names_of(name: str, names: Any) -> tuple[str, ...]:
    """`names` as a tuple of different strings, at least one; GraphError for anything else."""
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
        raise GraphError(f"{name}: expected a list of names, got {brief(names)}")
    if not names or len(set(names)) != len(names):
        raise GraphError(f"{name}: expected different names, at least one, got {list(names)}")
    return tuple(names)


def check_etypes(etypes: Any) -> tuple[tuple[str, str, str], ...]:
    """`etypes` as a tuple of canonical triples; GraphError for anything else, such as bare names, and for a double."""
    advice = "as graph.canonical_etypes gives them"
    if isinstance(etypes, str) or not isinstance(etypes, Sequence):
        raise GraphError(
            f"etypes: expected a list of (source type, relation, destination type), {advice}, got {brief(etypes)}"
        )
    for etype in etypes:
        parts = etype if isinstance(etype, (tuple, list)) else ()
        if len(parts) != 3 or not all(isinstance(part, str) for part in parts):
            raise GraphError(
                f"etypes: expected (source type, relation, destination type), {advice}, got {brief(etype)}"
            )
    etypes = tuple(tuple(etype) for etype in etypes)
    if len(set(etypes)) != len(etypes):
        raise GraphError(f"etypes: expected different relations, got {list(etypes)}")
    return etypes
