"""Graphs beside tensors on a GPU, with any DGL."""

from functools import cache
from typing import Any

import dgl
import torch

from hgat.graph import csr
from hgat.kernels import triton

__all__ = ["dgl_runs", "to_device"]


def to_device(graph: Any, device: torch.device | str) -> Any:
    """A DGLGraph, or a list of blocks, for layers whose features lie on `device`.

    Where DGL has code for the device this is graph.to(device). Where it has none, as PyPI's DGL has for GPUs, the graph
    is given back as it is: hgat's layers and operators take graphs on the CPU with features on a device, and keep the
    edges there. Those of a graph with one relation are sent and sorted here already, for the kernels that will run.
    Raises GraphError for something else than graphs and for a device that is none.
    """
    if isinstance(graph, (list, tuple)):
        return [to_device(part, device) for part in graph]
    csr.check_graph(graph)
    device = csr.device_of(graph, device)
    if graph.device == device or device.type == "cpu" or dgl_runs(device.type):
        return graph.to(device)
    if len(graph.canonical_etypes) == 1:
        if triton.why_missing() is None:
            csr.structure(graph, device, triton)
        else:
            csr.edges(graph, device)
    return graph


@cache
def dgl_runs(kind: str) -> bool:
    """Whether this build of DGL has code for a kind of device."""
    try:
        dgl.graph(([0], [0])).to(kind)
    except Exception:  # an error of DGL's, of PyTorch's, or a KeyError, by kind and version
        return False
    return True
