"""The two halves of attention, for systems that need the weights themselves."""

import dgl
import torch

from hgat.errors import GraphError, ShapeError, check_shape
from hgat.graph import csr
from hgat.graph.csr import edges_as_sources
from hgat.graph.relations import join_relations
from hgat.ops.checks import check_call, check_width
from hgat.ops.dispatch import is_uniform, pick

__all__ = ["copy_v", "edge_softmax", "edge_weighted_sum", "weighted_sum"]


def copy_v(graph, score_dst):
    """Every node's row on each of its in-edges: a score of destinations as one of edges.

        out_uv = score_dst_v

    Shapes: score_dst [N_dst, H] -> out [E, H]. Raises ShapeError and GraphError as `additive_attention` does.
    """
    (heads,) = check_width("score_dst", score_dst, "N_dst", "H")
    check_call(graph, ("score_dst", score_dst, "N_dst", ("H", heads)))
    return pick("copy_v", score_dst)(graph, score_dst)


def edge_softmax(graph, logits, eids=None, norm_by="dst", *, edge_mask=None):
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
    if int(torch.bincount(eids, minlength=1).max()) > 1:  # an edge that is listed twice counts twice
        graph = dgl.edge_subgraph(graph, eids.to(graph.device, graph.idtype), relabel_nodes=False, store_ids=False)
        return _softmax(graph, flat, norm_by).reshape(shape)
    # The structure of the whole graph is there already; edges that take no part are left out by their logits.
    full = flat.new_full((graph.num_edges(), flat.shape[1]), -torch.inf).index_copy(0, eids, flat)
    return _softmax(graph, full, norm_by).index_select(0, eids).reshape(shape)


def _softmax(graph, logits, norm_by):
    """Softmax of logits [E, H] over in-edges or out-edges, [E, H]."""
    graph = graph if norm_by == "dst" else csr.reverse(graph)
    check_call(graph, ("logits", logits, "E", ("H", logits.shape[1])))
    if is_uniform():
        logits = torch.where(logits == -torch.inf, logits, 0.0)
    return pick("edge_softmax", logits)(graph, logits).to(logits.dtype)


def _check_rows(name, logits, rows=None):
    """ShapeError unless `logits` is a plain tensor with one row per edge, `rows` of them if given."""
    if not isinstance(logits, torch.Tensor) or logits.layout != torch.strided:
        got = getattr(logits, "layout", type(logits).__name__)
        raise ShapeError(f"{name}: expected a floating-point tensor [E, *], got {got}")
    if logits.dim() == 0 or (rows is not None and len(logits) != rows):
        size = "" if rows is None else f" with E = {rows}"
        raise ShapeError(f"{name}: expected a floating-point tensor [E, *]{size}, got {list(logits.shape)}")


def _leave_out(logits, edge_mask):
    """Minus infinity where edge_mask, [E] or of the shape of logits, is False."""
    if not isinstance(edge_mask, torch.Tensor) or edge_mask.dtype != torch.bool:
        got = getattr(edge_mask, "dtype", type(edge_mask).__name__)
        raise ShapeError(f"edge_mask: expected a tensor of torch.bool, True where the edge takes part, got {got}")
    if edge_mask.shape not in (logits.shape, logits.shape[:1]):
        expected = f"{list(logits.shape[:1])} or {list(logits.shape)}"
        raise ShapeError(f"edge_mask: expected {expected}, got {list(edge_mask.shape)}")
    if edge_mask.device != logits.device:
        raise ShapeError(f"edge_mask: expected device {logits.device} like logits, got {edge_mask.device}")
    return logits.masked_fill(~edge_mask.reshape(*edge_mask.shape, *[1] * (logits.dim() - edge_mask.dim())), -torch.inf)


def _edge_numbers(graph, eids, logits):
    """eids as int64 [E'] beside the logits, one for each of their rows, every one an edge of the graph."""
    try:
        eids = torch.as_tensor(eids, device=logits.device)
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(f"eids: expected [E'] numbers of edges, got {type(eids).__name__}") from None
    check_shape("eids", eids, ("E'", len(logits)))
    eids = eids.long()  # DGL takes whole numbers of any type, float too
    if len(eids) and not 0 <= int(eids.min()) <= int(eids.max()) < graph.num_edges():
        got = f"{int(eids.min())} to {int(eids.max())}"
        raise GraphError(f"eids: expected edges from 0 to {graph.num_edges() - 1}, got {got}")
    return eids


def _joint_softmax(graph, logits, eids, norm_by, edge_mask):
    """The softmax over the edges of all relations, {relation: [E_r, *]}."""
    joined = join_relations(graph)
    names = {}
    for key in logits:
        found = [etype for etype in joined.etypes if key in (etype, etype[1])]
        if len(found) != 1:
            raise GraphError(f"logits: expected relations of the graph, {list(joined.etypes)}, got {key!r}")
        names[found[0]] = key
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


def _by_source(joined):
    """The bipartite graph from each edge of joined relations to the node that it leaves."""

    def build():
        pair, _ = csr.in_order(joined.across)
        return dgl.heterograph(
            {("edge", "to", "source"): (torch.arange(len(pair), dtype=pair.dtype), joined.source.node[pair.long()])},
            num_nodes_dict={"edge": len(pair), "source": sum(joined.num_src.values())},
            idtype=joined.across.idtype,
        )

    return csr.cached(joined.across, ("by source",), build)


def weighted_sum(graph, value, weight):
    """Sum of the source rows over the in-edges of each node, weighted by edge and head.

        out_v = sum_u weight_uv * value_u

    Shapes: value [N_src, H, D] or [N_src, 1, D] (one value for all heads), weight [E, H] -> out [N_dst, H, D].
    Raises ShapeError and GraphError as `additive_attention` does.
    """
    (heads,) = check_width("weight", weight, "E", "H")
    value_heads, width = check_width("value", value, "N_src", "H", "D")
    if value_heads not in (1, heads):
        raise ShapeError(f"value: expected [N_src, H, D] with H = {heads} or 1, got {list(value.shape)}")
    check_call(
        graph,
        ("value", value, "N_src", ("H", value_heads), ("D", width)),
        ("weight", weight, "E", ("H", heads)),
    )
    return pick("weighted_sum", value, weight)(graph, value, weight)


def edge_weighted_sum(graph, edge_value, weight):
    """Sum of the edges' own rows over the in-edges of each node, weighted by edge and head.

        out_v = sum_u weight_uv * edge_value_uv

    Shapes: edge_value [E, F], weight [E, H] -> out [N_dst, H, F]; nothing of size E * H * F is kept.
    Raises ShapeError and GraphError as `additive_attention` does.
    """
    (width,) = check_width("edge_value", edge_value, "E", "F")
    check_call(graph, ("edge_value", edge_value, "E", ("F", width)))
    return weighted_sum(edges_as_sources(graph), edge_value.unsqueeze(1), weight)
