"""One process of a training on several machines: DGL's servers hold the parts, PyTorch's process group the trainers.

`examples/distributed/launch.py` starts the processes; a script calls `enter()` before any other distributed call.
"""

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing import connection

import dgl
import torch.distributed as dist
from dgl.distributed import dist_context, dist_graph, graph_partition_book, kvstore, rpc_client, shared_mem_utils

from hgat.errors import HgatError
from hgat.renamed import old_names
from hgat.train.processes import Processes

__all__ = ["enter"]

MACHINE, MEMORY = "HGAT_MACHINE", "HGAT_SHARED_MEMORY"  # the line in the file of hosts; what names begin with there
DIE_WITH_PARENT = 1  # Linux: prctl(PR_SET_PDEATHSIG)


def enter(backend: str = "gloo") -> Processes:
    """Take the place that the environment gives to this process; a trainer gets the hgat.train.Processes of all.

    A server serves its part and never comes back. A trainer becomes DGL's client and one of a process group. An error
    that nobody catches ends a trainer at once: else it would wait for the others at exit, and they for it. So does the
    death of one of its samplers.
    Without a launcher this is the only process, on a graph of one part.
    """
    if os.environ.get("DGL_DIST_MODE") != "distributed":
        dgl.distributed.initialize(None)
        return Processes()
    _keep_apart()
    if os.environ.get("DGL_ROLE") != "server":
        sys.excepthook = _end
        if os.environ.get("DGL_NUM_SAMPLER", "0") != "0":
            threading.Thread(target=_watch_samplers, daemon=True).start()
    dgl.distributed.initialize(os.environ["DGL_IP_CONFIG"])
    dist.init_process_group(backend)
    sys.excepthook = _end  # once more: PyTorch puts its own around it, which would keep what it says
    return Processes()


def _end(kind, error, trace):
    """Say what happened and leave without DGL's barrier at exit."""
    if issubclass(kind, HgatError):
        print("hgat:", " ".join(str(error).split()), file=sys.stderr)
    else:
        traceback.print_exception(kind, error, trace)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2 if issubclass(kind, HgatError) else 1)


def _watch_samplers():
    """In a thread, because DGL waits for its samplers, dead or alive."""
    while dist_context.SAMPLER_POOL is None:
        time.sleep(0.1)
    samplers = list(dist_context.SAMPLER_POOL.process_list)
    while samplers:
        connection.wait([sampler.sentinel for sampler in samplers])
        for sampler in [sampler for sampler in samplers if sampler.exitcode is not None]:
            samplers.remove(sampler)
            if sampler.exitcode != 0:
                print(
                    f"hgat: sampler: expected to end with its trainer, ended with {sampler.exitcode}", file=sys.stderr
                )
                os._exit(1)


def _keep_apart():
    """Give this machine's shared memory names of its own, and say which machine it is.

    DGL names shared memory by node type and column alone, so that a second training on the same machine, or a second
    machine on the same address, silently writes into the first one's; and it knows a machine by its address.
    """
    prefix = os.environ.get(MEMORY)
    if prefix is None:
        return
    for module in (dist_graph, graph_partition_book, kvstore, shared_mem_utils):
        for name in ("empty_shared_mem", "exist_shared_mem_array"):
            if hasattr(module, name):
                setattr(module, name, _named(getattr(module, name), prefix))
    index = dist_graph.heterograph_index
    index.create_heterograph_from_shared_memory = _named(index.create_heterograph_from_shared_memory, prefix)
    whole = dgl.DGLGraph.shared_memory
    dgl.DGLGraph.shared_memory = lambda graph, name, *args, **rest: whole(graph, f"{prefix}{name}", *args, **rest)
    rpc_client.get_local_machine_id = lambda namebook: int(os.environ[MACHINE])
    dist_context.init_process = _sample


def _named(function, prefix):
    def named(name, *args, **kwargs):
        slash = "/" if name.startswith("/") else ""
        return function(f"{slash}{prefix}{name.removeprefix('/')}", *args, **kwargs)

    return named


def _sample(*args):
    """The main function of a sampler, a process of its own beside its trainer."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    served = dist_context.init_process
    _keep_apart()
    served(*args)


__getattr__ = old_names(globals(), {"join": "enter"})
