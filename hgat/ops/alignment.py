"""Logits made into weights, the one home of it, and of the control that makes every weight alike.

Attention is a score, its alignment and a sum. Whatever turns scores into weights goes through this file, so that
`uniform_attention()` holds for every layer, also for one that has never heard of it: nobody else asks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, overload

import dgl
import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor

from hgat.errors import GraphError, ShapeError, check_shape
from hgat.graph import csr
from hgat.graph.relations import JoinedRelations, join_relations
from hgat.ops.checks import FLOATS, check_call
from hgat.ops.contexts import Setting, chosen_backend
from hgat.ops.dispatch import pick
from hgat.ops.hooks import asked, is_hooked
from hgat.ops.plain import gated_weights, segment_softmax

__all__ = [
    "FORMS",
    "alignment",
    "edge_softmax",
    "even_scores",
    "is_uniform",
    "scaled_dot_product_attention",
    "uniform_attention",
]

FORMS = ("softmax", "sigmoid", "tanh", "none")
_uniform = Setting("hgat_uniform_attention", False)


@contextmanager
def uniform_attention() -> Iterator[None]:
    """Inside the block every softmax is a mean, alpha = 1 / in-degree, and every gate that has no softmax stands open.

    The control for what attention adds: same layers, same parameters elsewhere, all logits zero but those of minus
    infinity, which leave edges out; the weights of a sigmoid, a tanh, or none are 1, which makes their sum a plain one.
    It holds in backward and in checkpointed forwards, too.
    """
    with _uniform.to(True):
        yield


def is_uniform() -> bool:
    """True inside `uniform_attention()`. Asked in this file alone."""
    return _uniform.get()


def alignment(
    logits: Tensor,
    *,
    graph: DGLGraph | None = None,
    dim: int | None = None,
    form: str = "softmax",
    mask: Tensor | None = None,
) -> Tensor:
    """Logits as weights: softmax over the in-edges of each node or along an axis, or a gate for each entry alone.

        softmax: w_k = exp(e_k) / sum_j exp(e_j)       over the edges that enter a node of `graph`, or along `dim`
        sigmoid: w_k = 1 / (1 + exp(-e_k));   tanh: w_k = tanh(e_k);   none: w_k = e_k

    Shapes: logits [E, *] in the order of the graph's edges, or [*] with `dim` -> w of the same shape. A softmax takes
    one of graph and dim, a gate needs neither. mask: bool, True where an entry takes part, [E] or of the shape of
    logits with a graph, else of any shape that broadcasts to it; what is left out, and what has a logit of minus
    infinity, weighs zero in every form. Inside `uniform_attention()` a softmax is 1 / count and a gate 1.
    Raises ShapeError for another form and for tensors that do not fit, GraphError for another graph.
    """
    if not isinstance(form, str) or form not in FORMS:
        raise ShapeError(f"form: expected one of {list(FORMS)}, got {form!r}")
    if (graph is None) == (dim is None) and (graph is not None or form == "softmax"):
        raise ShapeError(f"alignment: expected a graph or an axis dim, got {'none' if graph is None else 'both'}")
    if graph is not None and form == "softmax":
        csr.single_relation(graph)
        return edge_softmax(graph, logits, edge_mask=mask)
    _check_entries(logits, graph, dim, mask)
    left_out = logits.detach() == -torch.inf
    if mask is not None:
        left_out = left_out | ~(mask if graph is None else _beside(mask, logits))
    if form == "softmax":
        return asked(_axis_softmax(logits, dim, left_out, mask is not None), "axis", form, dim=dim)
    weights = torch.ones_like(logits.detach()) if is_uniform() else gated_weights(logits, form)
    weights = weights.masked_fill(left_out, 0.0)
    if graph is not None and is_hooked():
        flat = weights.reshape(len(weights), weights.shape[1:].numel())
        return asked(flat, "edges", form, graph=graph).reshape(weights.shape)
    return asked(weights, "axis", form, dim=dim)


def _axis_softmax(logits: Tensor, dim: Any, left_out: Tensor, masked: bool) -> Tensor:
    """Softmax along an axis without the entries that are left out; zeros where all of them are.

    masked: whether some are left out by more than their logits.
    """
    if is_uniform():
        logits = torch.zeros_like(logits.detach())
    nothing = left_out.all(dim, keepdim=True) if left_out.dim() else left_out
    if masked or is_uniform():
        logits = logits.masked_fill(left_out, -torch.inf)
    logits = logits.masked_fill(nothing, 0.0)
    return torch.softmax(logits, dim).masked_fill(nothing, 0.0)  # what backward keeps is softmax's own


def _check_entries(logits: Any, graph: DGLGraph | None, dim: Any, mask: Any) -> None:
    if not isinstance(logits, Tensor) or logits.dtype not in FLOATS or logits.layout != torch.strided:
        got = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise ShapeError(f"logits: expected a floating-point tensor of 16 bits or more, got {got}")
    if graph is not None:
        csr.single_relation(graph)
        _check_rows("logits", logits, graph.num_edges())
    elif dim is not None:
        axes = max(logits.dim(), 1)
        if not isinstance(dim, int) or isinstance(dim, bool) or not -axes <= dim < axes:
            raise ShapeError(f"dim: expected an axis of logits {list(logits.shape)}, got {dim!r}")
    if mask is None:
        return
    _check_mask("mask", mask, logits)
    if graph is not None:
        _check_mask_rows("mask", mask, logits)
        return
    try:
        fits = torch.broadcast_shapes(mask.shape, logits.shape) == logits.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ShapeError(f"mask: expected a shape that broadcasts to {list(logits.shape)}, got {list(mask.shape)}")


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attention along an axis by PyTorch's own kernels, called as torch.nn.functional has it.

        out_i = sum_j drop(alpha_ij) value_j;   alpha_ij = softmax over j of scale * (query_i . key_j)

    Shapes: query [*, L, D], key [*, S, D], value [*, S, Dv], attn_mask [*, L, S] bool, True where j takes part, or
    floats that are added to the logits -> out [*, L, Dv]. scale: 1 / sqrt(D) if None. Inside `uniform_attention()`
    alpha_ij is one over the number of j that take part. Where none does the result is PyTorch's.
    Raises ShapeError for what is no tensor; the rest is PyTorch's to check.
    Paper: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.
    """
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if not isinstance(tensor, Tensor):
            raise ShapeError(f"{name}: expected a tensor [*, L, D], got {type(tensor).__name__}")
    if is_uniform():
        query = torch.zeros_like(query)
        if attn_mask is not None and attn_mask.dtype != torch.bool:
            attn_mask = attn_mask != -torch.inf
    if is_hooked():
        factor = max(query.shape[-1], 1) ** -0.5 if scale is None else scale
        weights = asked(_pair_weights(query, key, attn_mask, factor), "pairs", "softmax")
        return F.dropout(weights, dropout_p) @ value
    return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, scale=scale)


def _pair_weights(query: Tensor, key: Tensor, attn_mask: Tensor | None, scale: float) -> Tensor:
    """The weights [*, L, S] of `scaled_dot_product_attention`, zeros where nothing takes part."""
    logits = query @ key.transpose(-2, -1) * scale
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
    nothing = (logits.detach() == -torch.inf).all(-1, keepdim=True)
    return torch.softmax(logits.masked_fill(nothing, 0.0), -1).masked_fill(nothing, 0.0)


def even_scores(
    graph: DGLGraph,
    heads: int,
    like: Tensor,
    edge_mask: Tensor | None,
    *,
    src: Tensor | None = None,
    dst: Tensor | None = None,
    edge: Tensor | None = None,
    gate: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """(score_src, score_dst, edge_mask) in the place of learned scores inside `uniform_attention()`, None outside.

    The scores are zero; for a `gate`, whose weight is then 1, infinite at the source. src [N_src, H], dst [N_dst, H],
    edge [E, H]: the learned ones, whose minus infinities leave edges out of the uniform weights, too.
    """
    if not is_uniform():
        return None
    left_in = [] if edge is None else [edge != -torch.inf]
    for end, score in enumerate((src, dst)):
        # On the CPU it is asked whether there is anything to leave out; elsewhere the answer would be waited for.
        if score is not None and (score.device.type != "cpu" or (score == -torch.inf).any()):
            left_in.append((score != -torch.inf).index_select(0, csr.edges(graph, score.device)[end]))
    for mask in left_in:
        edge_mask = mask if edge_mask is None else edge_mask & mask
    even = like.new_full((graph.num_src_nodes(), heads), torch.inf if gate else 0.0)
    return even, like.new_zeros((graph.num_dst_nodes(), heads)), edge_mask


@overload
def edge_softmax(
    graph: DGLGraph, logits: Tensor, eids: Any = None, norm_by: str = "dst", *, edge_mask: Tensor | None = None
) -> Tensor: ...


@overload
def edge_softmax(
    graph: DGLGraph,
    logits: dict[Any, Tensor],
    eids: Any = None,
    norm_by: str = "dst",
    *,
    edge_mask: dict[Any, Tensor] | None = None,
) -> dict[Any, Tensor]: ...


def edge_softmax(graph: DGLGraph, logits: Any, eids: Any = None, norm_by: str = "dst", *, edge_mask: Any = None) -> Any:
    """Softmax over the in-edges of each node, called as dgl.nn.functional.edge_softmax is.

        alpha_uv = exp(logit_uv) / sum_w exp(logit_wv)          over the edges w -> v

    Shapes: logits [E, *], as DGL's [E, H, 1] or [E] -> alpha [E, *]. eids: [E'] the edges that take part; logits and
    alpha are theirs, [E', *]. norm_by: "dst", or "src" for the softmax over the edges that leave a node. On a graph
    with several relations logits is {relation: [E_r, *]} with every relation in it, the softmax runs over all edges
    that enter (or leave) a node, whatever their relation, and alpha is {relation: [E_r, *]}. edge_mask: bool [E], or of
    the shape of logits, True where the edge takes part; where it is False, and where a logit is minus infinity, alpha
    is zero, and zero gradient goes back.

    Raises ShapeError for logits that do not fit the graph, GraphError for another graph and for edges out of range.
    Differs from DGL: alpha of a node whose every logit is minus infinity is zero, not NaN; half types are summed in
    float32; logits of relations may be named as in graph.etypes, and with eids they must be of one relation.
    """
    if norm_by not in ("dst", "src"):
        raise ShapeError(f"norm_by: expected 'dst' or 'src', got {norm_by!r}")
    if isinstance(eids, str) and eids == dgl.base.ALL:
        eids = None
    if isinstance(logits, dict):
        return _joint_softmax(graph, logits, eids, norm_by, edge_mask)
    csr.single_relation(graph)
    _check_rows("logits", logits)
    shape = logits.shape
    if edge_mask is not None:
        logits = _leave_out(logits, edge_mask)
    flat = logits.reshape(len(logits), shape[1:].numel())
    if eids is None:
        return _softmax(graph, flat, norm_by).reshape(shape)
    eids = _edge_numbers(graph, eids, logits)
    if eids.device.type != "cpu":
        pick("edge_softmax", flat)  # it refuses what the named backend does not run
        # Triton's kernels, where they are named, and a hook, which is shown all edges, want the answer below.
        if chosen_backend.get() != "triton" and not is_hooked():
            return _listed_softmax(graph, flat, eids, norm_by).reshape(shape)
    if int(torch.bincount(eids, minlength=1).max()) > 1:  # an edge that is listed twice counts twice
        graph = dgl.edge_subgraph(graph, eids.to(graph.device, graph.idtype), relabel_nodes=False, store_ids=False)
        return _softmax(graph, flat, norm_by).reshape(shape)
    # The structure of the whole graph is there already; edges that take no part are left out by their logits.
    full = flat.new_full((graph.num_edges(), flat.shape[1]), -torch.inf).index_copy(0, eids, flat)
    return _softmax(graph, full, norm_by).index_select(0, eids).reshape(shape)


def _softmax(graph: DGLGraph, logits: Tensor, norm_by: str) -> Tensor:
    """Softmax of logits [E, H] over in-edges or out-edges, [E, H]."""
    graph = graph if norm_by == "dst" else csr.reverse(graph)
    check_call(graph, ("logits", logits, "E", ("H", logits.shape[1])))
    if is_uniform():
        logits = torch.where(logits == -torch.inf, logits, 0.0)
    return pick("edge_softmax", logits)(graph, logits).to(logits.dtype)


def _listed_softmax(graph: DGLGraph, logits: Tensor, eids: Tensor, norm_by: str) -> Tensor:
    """Softmax of logits [E', H] over the listed edges of each node, on a device that is not to be waited for.

    Whether an edge is listed twice need not be asked: PyTorch's sums run over the list.
    """
    check_call(graph, ("logits", logits, None, ("E'", len(eids)), ("H", logits.shape[1])))
    number, count = (1, graph.num_dst_nodes()) if norm_by == "dst" else (0, graph.num_src_nodes())
    end = csr.edges(graph, logits.device)[number].index_select(0, eids)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if is_uniform():
        wide = torch.where(wide == -torch.inf, wide, 0.0)
    return segment_softmax(end, count, wide).to(logits.dtype)


def _check_rows(name: str, logits: Any, rows: int | None = None) -> None:
    """ShapeError unless `logits` is a plain tensor with one row per edge, `rows` of them if given."""
    if not isinstance(logits, torch.Tensor) or logits.layout != torch.strided:
        got = getattr(logits, "layout", type(logits).__name__)
        raise ShapeError(f"{name}: expected a floating-point tensor [E, *], got {got}")
    if logits.dim() == 0 or (rows is not None and len(logits) != rows):
        size = "" if rows is None else f" with E = {rows}"
        raise ShapeError(f"{name}: expected a floating-point tensor [E, *]{size}, got {list(logits.shape)}")


def _check_mask(name: str, mask: Any, logits: Tensor) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = getattr(mask, "dtype", type(mask).__name__)
        raise ShapeError(f"{name}: expected a tensor of torch.bool, True where the edge takes part, got {got}")
    if mask.device != logits.device:
        raise ShapeError(f"{name}: expected device {logits.device} like logits, got {mask.device}")


def _check_mask_rows(name: str, mask: Tensor, logits: Tensor) -> None:
    if mask.shape not in (logits.shape, logits.shape[:1]):
        expected = f"{list(logits.shape[:1])} or {list(logits.shape)}"
        raise ShapeError(f"{name}: expected {expected}, got {list(mask.shape)}")


def _beside(mask: Tensor, logits: Tensor) -> Tensor:
    """mask [E], or of the shape of logits, with as many axes as those."""
    return mask.reshape(*mask.shape, *[1] * (logits.dim() - mask.dim()))


def _leave_out(logits: Tensor, edge_mask: Tensor) -> Tensor:
    """Minus infinity where edge_mask, [E] or of the shape of logits, is False."""
    _check_mask("edge_mask", edge_mask, logits)
    _check_mask_rows("edge_mask", edge_mask, logits)
    return logits.masked_fill(~_beside(edge_mask, logits), -torch.inf)


def _edge_numbers(graph: DGLGraph, eids: Any, logits: Tensor) -> Tensor:
    """eids as int64 [E'] beside the logits, one for each of their rows, every one an edge of the graph.

    They are not looked at where they and the logits are on a GPU: PyTorch stops at a number out of range there.
    """
    try:
        eids = torch.as_tensor(eids)
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(f"eids: expected [E'] numbers of edges, got {type(eids).__name__}") from None
    check_shape("eids", eids, ("E'", len(logits)))
    eids = eids.long()  # DGL takes whole numbers of any type, float too
    if eids.device.type != "cpu":
        eids = eids.to(logits.device)
    if eids.device.type == "cpu" and len(eids) and not 0 <= int(eids.min()) <= int(eids.max()) < graph.num_edges():
        got = f"{int(eids.min())} to {int(eids.max())}"
        raise GraphError(f"eids: expected edges from 0 to {graph.num_edges() - 1}, got {got}")
    return eids.to(logits.device)


def _joint_softmax(graph: Any, logits: dict, eids: Any, norm_by: str, edge_mask: Any) -> dict[Any, Tensor]:
    """The softmax over the edges of all relations, {relation: [E_r, *]}."""
    joined = join_relations(graph)
    names = {}
    for key in logits:
        named = [etype for etype in joined.etypes if key in (etype, etype[1])]
        if len(named) != 1:
            raise GraphError(f"logits: expected relations of the graph, {list(joined.etypes)}, got {key!r}")
        names[named[0]] = key
    if eids is not None and len(joined.etypes) > 1:
        raise ShapeError("eids: expected logits of one relation beside them, got a dict of several")
    if set(names) != set(joined.etypes):
        missing = [etype for etype in joined.etypes if etype not in names]
        raise GraphError(f"logits: expected a tensor for every relation, got none for {missing}")
    parts = [logits[names[etype]] for etype in joined.etypes]
    for etype, part, edges in zip(joined.etypes, parts, joined.num_edges, strict=True):
        _check_rows(f"logits of {etype}", part, edges if eids is None else None)
        if part.shape[1:] != parts[0].shape[1:]:
            expected = f"[{edges}, {', '.join(map(str, parts[0].shape[1:]))}] as the first relation's"
            raise ShapeError(f"logits of {etype}: expected {expected}, got {list(part.shape)}")
    if edge_mask is not None:
        if not isinstance(edge_mask, dict) or not set(edge_mask) <= set(logits):
            raise ShapeError("edge_mask: expected a dict with relations of logits, called as they are there")
        masks = [edge_mask.get(names[etype]) for etype in joined.etypes]
        parts = [part if mask is None else _leave_out(part, mask) for part, mask in zip(parts, masks, strict=True)]
    if len(joined.etypes) == 1:
        found = edge_softmax(graph, parts[0], eids, norm_by)
    else:
        found = edge_softmax(joined.across if norm_by == "dst" else _by_source(joined), torch.cat(parts))
    # A part of its own for each relation: views of one result could not be overwritten one by one.
    return {etype: part.clone() for etype, part in zip(joined.etypes, found.split(joined.num_edges), strict=True)}


def _by_source(joined: JoinedRelations) -> DGLGraph:
    """The bipartite graph from each edge of joined relations to the node that it leaves."""

    def build():
        pair, _ = csr.in_order(joined.across)
        return dgl.heterograph(
            {("edge", "to", "source"): (torch.arange(len(pair), dtype=pair.dtype), joined.source.node[pair.long()])},
            num_nodes_dict={"edge": len(pair), "source": sum(joined.num_src.values())},
            idtype=joined.across.idtype,
        )

    return csr.cached(joined.across, ("by source",), build)
