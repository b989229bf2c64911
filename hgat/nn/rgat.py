"""RGAT: attention over typed edges, within each relation or across all of them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import dgl
import torch
from torch import nn

from hgat import ops, transforms
from hgat.errors import GraphError, ShapeError, check_shape, check_whole
from hgat.graph import csr
from hgat.graph.relations import JoinedRelations, join_relations
from hgat.nn.common import (
    check_activation,
    check_floats,
    check_graph,
    check_number,
    check_rates,
    check_sizes,
    negative_slope,
)
from hgat.nn.names import NamedState, StateError, check_etypes, order_of, reorder

__all__ = ["FeaturelessRGATConv", "RGATConv"]


class RGATConv(NamedState):
    """Relational graph attention layer on a typed graph.

        g_i^r = h_i W^r;  q_i^r = g_i^r Q^r;  k_j^r = g_j^r K^r
        additive        logit_ij^r = leaky_relu(q_i^r + k_j^r)           Q^r, K^r [H, D, 1]
        multiplicative  logit_ij^r = q_i^r . k_j^r                       Q^r, K^r [H, D, attn_feats]
        across (ARGAT)  alpha_ij^r = softmax over all (r, j) of node i
        within (WIRGAT) alpha_ij^r = softmax over the j of node i under one r
        out_i = sum_r sum_j alpha_ij^r g_j^r  [+ bias]

    in_feats: F, the same for every node type. etypes: the canonical relations, as graph.canonical_etypes gives them; a
    graph and a state dict are matched with them by name, in whatever order they come.
    num_bases: W^r = sum_b c_rhb V_b, with coefficients per relation and head; num_attn_bases: the same for [Q^r, K^r],
    with bases of its own. num_blocks: W^r block-diagonal, blocks of [F / B, H * D / B]; not together with num_bases.

    h [N, F] and out [N_dst, H, D] of each node type; forward says the rest. Raises GraphError for etypes that are no
    canonical relations, ShapeError for an argument out of range.

    Paper: Busbridge et al. 2019, arXiv:1904.05811, section 2. Differs from the authors' code: bases are combined as
    the equation says (their reshape mixes the input axis with the relations); no LeakyReLU on multiplicative logits;
    num_blocks is R-GCN's (Schlichtkrull et al. 2018, arXiv:1703.06103, eq. 4), not theirs. No loop over relations.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_heads: int,
        etypes: Sequence[tuple[str, str, str]],
        *,
        softmax: Literal["across", "within"] = "across",
        score: Literal["additive", "multiplicative"] = "additive",
        attn_feats: int = 1,
        num_bases: int | None = None,
        num_attn_bases: int | None = None,
        num_blocks: int | None = None,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
        negative_slope: float = 0.2,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.etypes = check_etypes(etypes)
        in_feats, out_feats, num_heads = check_sizes(in_feats=in_feats, out_feats=out_feats, num_heads=num_heads)
        (attn_feats,) = check_sizes(attn_feats=attn_feats)
        check_whole(1, num_bases=num_bases, num_attn_bases=num_attn_bases, num_blocks=num_blocks)
        check_rates(feat_drop=feat_drop, attn_drop=attn_drop)
        check_number(negative_slope=negative_slope)
        check_activation(activation)
        if softmax not in ("across", "within"):
            raise ShapeError(f"softmax: expected 'across' or 'within', got {softmax!r}")
        if score not in ("additive", "multiplicative"):
            raise ShapeError(f"score: expected 'additive' or 'multiplicative', got {score!r}")
        if score == "additive" and attn_feats != 1:
            raise ShapeError(f"attn_feats: expected 1 with additive scores, got {attn_feats}")
        if num_bases is not None and num_blocks is not None:
            raise ShapeError("num_blocks: expected None together with num_bases, got both")
        width = num_heads * out_feats
        if num_blocks is not None and (in_feats % num_blocks or width % num_blocks):
            raise ShapeError(
                f"num_blocks: expected a divisor of F = {in_feats} and of H * D = {width}, got {num_blocks}"
            )
        self._in_feats, self._out_feats, self._num_heads = in_feats, out_feats, num_heads
        self.softmax, self.score = softmax, score
        self._attn_feats, self._num_blocks = attn_feats, num_blocks
        relations = len(self.etypes)
        if num_bases is not None:
            self.basis = nn.Parameter(torch.empty(num_bases, in_feats, out_feats))
            self.coefficient = nn.Parameter(torch.empty(relations, num_heads, num_bases))
        elif num_blocks is not None:
            self.weight = nn.Parameter(torch.empty(relations, num_blocks, in_feats // num_blocks, width // num_blocks))
        else:
            self.weight = nn.Parameter(torch.empty(relations, in_feats, width))
        # [Q^r, K^r] as one tensor: the two halves of GAT's score vector.
        if num_attn_bases is not None:
            self.attn_basis = nn.Parameter(torch.empty(num_attn_bases, out_feats, 2 * attn_feats))
            self.attn_coefficient = nn.Parameter(torch.empty(relations, num_heads, num_attn_bases))
        else:
            self.attn = nn.Parameter(torch.empty(relations, num_heads, out_feats, 2 * attn_feats))
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if bias else None)
        self.feat_drop = nn.Dropout(feat_drop)
        self.attn_drop = nn.Dropout(attn_drop)
        self.leaky_relu = nn.LeakyReLU(negative_slope)
        self.activation = activation
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-uniform per relation, as in the authors' code; zero bias."""
        for name, parameter in self.named_parameters():
            if name == "bias":
                nn.init.zeros_(parameter)
                continue
            fan_in, fan_out = parameter.shape[-2:]
            if name == "weight" and self._num_blocks is None:
                fan_out = self._out_feats  # heads are projections of their own
            if "attn" in name and "coefficient" not in name:
                fan_out = self._attn_feats
            nn.init.uniform_(parameter, -((6 / (fan_in + fan_out)) ** 0.5), (6 / (fan_in + fan_out)) ** 0.5)

    def relation_weight(self) -> torch.Tensor:
        """W^r of every relation, [R, F, H * D]."""
        if hasattr(self, "basis"):
            weight = torch.einsum("rhb,bfd->rfhd", self.coefficient, self.basis)
            return weight.flatten(2)
        if self._num_blocks is None:
            return self.weight
        return _block_diagonal(self.weight)

    def attention_kernel(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(Q^r, K^r) of every relation, [R, H, D, attn_feats] each."""
        if hasattr(self, "attn_basis"):
            kernel = torch.einsum("rhb,bdq->rhdq", self.attn_coefficient, self.attn_basis)
        else:
            kernel = self.attn
        to_query, to_key = kernel.chunk(2, -1)
        return to_query, to_key

    def _names(self):
        return {"etypes": self.etypes}

    def _match(self, names, state, prefix):
        theirs = names.get("etypes") if isinstance(names, dict) else None
        order = order_of(theirs, self.etypes, "relations")
        reorder(state, prefix, ("weight", "coefficient", "attn", "attn_coefficient"), order)

    def _relation_index(self, etypes):
        """Numbers in this layer of the graph's relations, or None where they are the same in the same order."""
        if etypes == self.etypes:
            return None
        missing = [e for e in etypes if e not in self.etypes]
        if missing:
            raise GraphError(f"graph: expected relations among {list(self.etypes)}, got {missing[0]}")
        return [self.etypes.index(e) for e in etypes]

    def forward(
        self,
        graph: dgl.DGLGraph | JoinedRelations,
        feat: Mapping[str, torch.Tensor] | tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]] | torch.Tensor,
        get_attention: bool = False,
        *,
        edge_mask: Mapping[tuple[str, str, str], torch.Tensor] | torch.Tensor | None = None,
    ) -> (
        dict[str, torch.Tensor]
        | torch.Tensor
        | tuple[dict[str, torch.Tensor] | torch.Tensor, dict[tuple[str, str, str], torch.Tensor]]
    ):
        """New features of every destination type, {node type: [N_dst, H, D]}; with get_attention (out, alpha).

        graph: a typed DGLGraph, a block, or what hgat.graph.join_relations gives (built once per graph if not before).
        feat: {node type: [N, F]}, on a block with the destinations first; a pair of such dicts, of the sources and of
        the destinations; or one tensor where there is one node type, and then out is one tensor, too. edge_mask:
        {relation: [E_r] or [E_r, H] bool}, False for an edge that has no part in the softmax (a relation that is not
        named keeps all its edges), or one tensor, all relations laid end to end. alpha: {relation: [E_r, H]}, in the
        order of each relation's edges, before dropout. A node without in-edges gets zeros: give it a self relation
        (hgat.graph.add_inverse) or a residual.

        Raises GraphError for anything but such a graph and for relations that the layer does not have, ShapeError for
        features or a mask unlike the graph or the layer.
        """
        if not isinstance(graph, JoinedRelations):
            check_graph(graph, one_relation=False, expected="a DGLGraph or what hgat.graph.join_relations gives")
        joined = join_relations(graph)
        value, key, query = self._project(joined, feat)
        run, scores, slope = self._scores(joined, query, key)
        dropout = self.attn_drop.p if self.attn_drop.training else 0.0
        options = {"negative_slope": slope, "edge_mask": _edge_mask(joined, edge_mask, self._num_heads)}
        out = ops.additive_attention(run, value, *scores, dropout=dropout, **options)
        if self.softmax == "within":
            out = ops.weighted_sum(joined.collect, out, out.new_ones((len(joined.target), self._num_heads)))
        if self.bias is not None:
            out = out + self.bias.view(self._num_heads, self._out_feats)
        if self.activation:
            out = self.activation(out)
        out = dict(zip(joined.dsttypes, self._parts(out, list(joined.num_dst.values())), strict=True))
        if isinstance(feat, torch.Tensor):
            (out,) = out.values()
        if not get_attention:
            return out
        alpha = ops.additive_weights(run, *scores, **options)
        # Copies: who overwrites what the layer gave must not overwrite what backward reads.
        parts = (part.clone() for part in alpha.split(joined.num_edges))
        return out, dict(zip(joined.etypes, parts, strict=True))

    def _parts(self, out, sizes):
        """The rows of every node type as tensors of their own, each of which may be overwritten."""
        if len(sizes) == 1:
            return [out]
        # Many an activation keeps its result for backward; and vmap does not know the split below.
        if self.activation or transforms.active():
            return [part.clone() for part in out.split(sizes)]
        return torch.unsafe_split_with_sizes(out, sizes)  # no views, and nothing is copied: no one else holds `out`

    def _project(self, joined, feat):
        """(value [K_src, H, D], key [K_src, H, attn_feats], query [K_dst, H, attn_feats]), a row per pair."""
        like = self.attn_basis if hasattr(self, "attn_basis") else self.attn
        h_src, h_dst = _stack(joined, feat, self._in_feats, like)
        one_input = h_dst is h_src
        h_src = self.feat_drop(h_src)
        h_dst = h_src if one_input else self.feat_drop(h_dst)
        heads, width = self._num_heads, self._out_feats
        weight = self.relation_weight().unflatten(-1, (heads, width))
        to_query, to_key = self.attention_kernel()
        index = self._relation_index(joined.etypes)
        if index is not None:
            weight, to_query, to_key = weight[index], to_query[index], to_key[index]
        # h W Q is one narrow product with W Q: the destinations are never projected to full width.
        to_query = torch.einsum("rfhd,rhdq->rfhq", weight, to_query).flatten(2)
        to_key = torch.einsum("rfhd,rhdq->rfhq", weight, to_key).flatten(2)
        source, target = joined.pairs_on(h_src.device)
        value, key = ops.typed_projection(h_src, [weight.flatten(2), to_key], source.count, source.node)
        query = ops.typed_projection(h_dst, to_query, target.count, target.node)
        per_head = (heads, self._attn_feats)
        return value.unflatten(-1, (heads, width)), key.unflatten(-1, per_head), query.unflatten(-1, per_head)

    def _scores(self, joined, query, key):
        """(graph that groups the softmax, the operator's scores, slope): every form as additive attention."""
        graph = joined.within if self.softmax == "within" else joined.across
        none_src = key.new_zeros((graph.num_src_nodes(), self._num_heads))
        none_dst = key.new_zeros((graph.num_dst_nodes(), self._num_heads))
        slope = negative_slope(self)
        if self.score == "multiplicative":
            logits = ops.dot_product_logits(joined.within, query, key, scale=1.0)
            return graph, (none_src, none_dst, logits), 1.0  # leaky_relu of slope 1 leaves the logits as they are
        query, key = query.squeeze(-1), key.squeeze(-1)
        if self.softmax == "within":
            return graph, (key, query), slope
        # The destination's score depends on the relation, so it rides on the edge.
        return graph, (key, none_dst, ops.copy_v(joined.within, query)), slope


class FeaturelessRGATConv(RGATConv):
    """RGATConv for nodes without features: the one-hot input of the paper, without writing the one-hot rows.

        g_i^r = W^r_i, a learned row for every (node, relation) pair with an edge; the rest as RGATConv

    joined: what hgat.graph.join_relations gives; the layer belongs to this graph's pairs and serves no others. Bases
    and blocks do not apply; options are RGATConv's keywords. Raises ShapeError for an argument out of range, GraphError
    for a state dict of another graph. out [N_dst, H, D] of each destination type; forward says the rest.

    Paper: Busbridge et al. 2019, arXiv:1904.05811, the input of the authors' example. Differs: rows of pairs without an
    edge, which no output reads, do not exist.
    """

    def __init__(self, joined: JoinedRelations | dgl.DGLGraph, out_feats: int, num_heads: int, **options: Any) -> None:
        for name in ("num_bases", "num_blocks"):
            if options.pop(name, None) is not None:
                raise ShapeError(f"{name}: expected None without features, got a number")
        if not isinstance(joined, JoinedRelations):
            check_graph(joined, one_relation=False, expected="what hgat.graph.join_relations gives")
            joined = join_relations(joined)
        super().__init__(1, out_feats, num_heads, joined.etypes, **options)
        del self.weight
        num_nodes = sum(joined.num_src.values())
        pairs = [side.relation * num_nodes + side.node for side in (joined.source, joined.target)]
        _, row = torch.unique(torch.cat(pairs), return_inverse=True)
        self._sizes = [len(joined.source), len(joined.target)]
        self.register_buffer("row", row, persistent=False)
        self._pairs = _pairs_digest(joined)
        self.table = nn.Parameter(torch.empty(int(row.max()) + 1 if len(row) else 0, num_heads * out_feats))
        bound = (6 / (num_nodes + out_feats)) ** 0.5  # Glorot's for the full one-hot projection
        nn.init.uniform_(self.table, -bound, bound)

    def forward(
        self,
        graph: dgl.DGLGraph | JoinedRelations,
        feat: Any,
        get_attention: bool = False,
        *,
        edge_mask: Mapping[tuple[str, str, str], torch.Tensor] | torch.Tensor | None = None,
    ) -> (
        dict[str, torch.Tensor]
        | torch.Tensor
        | tuple[dict[str, torch.Tensor] | torch.Tensor, dict[tuple[str, str, str], torch.Tensor]]
    ):
        """New features of every destination type, {node type: [N_dst, H, D]}; with get_attention (out, alpha).

        graph: one with the (node, relation) pairs that the layer was built for. feat: is not read, and may be None.
        edge_mask and alpha, {relation: [E_r, H]}: as RGATConv's.

        Raises GraphError for anything but a typed graph and for a graph with other pairs, also one with as many.
        """
        return super().forward(graph, feat, get_attention, edge_mask=edge_mask)

    def _names(self):
        return {"etypes": self.etypes, "pairs": self._pairs}

    def _match(self, names, state, prefix):
        if not isinstance(names, dict) or names.get("pairs") != self._pairs:
            raise StateError("state dict: expected that of a layer for the same (node, relation) pairs, got another's")

    def _project(self, joined, feat):
        if _pairs_digest(joined) != self._pairs:
            sizes = [len(joined.source), len(joined.target)]
            got = f"{sizes[0]} and {sizes[1]}" if sizes != self._sizes else "as many others"
            raise GraphError(
                f"graph: expected the one that the layer was built for, with its {self._sizes[0]} sending and "
                f"{self._sizes[1]} receiving pairs, got {got}"
            )
        value, at_target = self.feat_drop(self.table).index_select(0, self.row).split(self._sizes)
        to_query, to_key = (_block_diagonal(kernel) for kernel in self.attention_kernel())
        key = ops.typed_projection(value, to_key, joined.source.count)
        query = ops.typed_projection(at_target, to_query, joined.target.count)
        per_head = (self._num_heads, self._attn_feats)
        value = value.unflatten(-1, (self._num_heads, self._out_feats))
        return value, key.unflatten(-1, per_head), query.unflatten(-1, per_head)


def _pairs_digest(joined):
    """A number of the pairs themselves, with the names and sizes that say which nodes they are; kept with the graph."""

    def build():
        known = hashlib.sha256(repr((joined.etypes, joined.num_src, joined.num_dst)).encode())
        for pairs in (joined.source, joined.target):
            for tensor in (pairs.node, pairs.count):
                known.update(tensor.cpu().contiguous().numpy())
        return known.hexdigest()

    return csr.cached(joined.across, ("digest of pairs",), build)


def _edge_mask(joined, edge_mask, heads):
    """The masks of all relations laid end to end, [E] or [E, H]; a tensor is that already."""
    if edge_mask is None or isinstance(edge_mask, torch.Tensor):
        return edge_mask
    if not isinstance(edge_mask, dict):
        raise ShapeError(f"edge_mask: expected {{relation: [E_r] bool}}, got {type(edge_mask).__name__}")
    unknown = [etype for etype in edge_mask if etype not in joined.etypes]
    if unknown:
        raise GraphError(f"edge_mask: expected relations among {list(joined.etypes)}, got {unknown[0]!r}")
    for etype, count in zip(joined.etypes, joined.num_edges, strict=True):
        mask = edge_mask.get(etype)
        fits = isinstance(mask, torch.Tensor) and mask.dtype == torch.bool and mask.shape in ((count,), (count, heads))
        if mask is not None and not fits:
            got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, torch.Tensor) else type(mask).__name__
            raise ShapeError(f"edge_mask[{etype}]: expected bool [E_r] = [{count}] or [{count}, {heads}], got {got}")
    given = [mask for mask in edge_mask.values() if mask is not None]
    if not given:
        return None
    per_head = any(mask.dim() == 2 for mask in given)
    parts = []
    for etype, count in zip(joined.etypes, joined.num_edges, strict=True):
        mask = edge_mask.get(etype)
        mask = given[0].new_ones(count) if mask is None else mask
        parts.append(mask.unsqueeze(1).expand(count, heads) if per_head and mask.dim() == 1 else mask)
    return torch.cat(parts)


def _block_diagonal(blocks):
    """[R, B, rows, columns] as one matrix per relation, [R, B * rows, B * columns]."""
    relations, count, rows, columns = blocks.shape
    number = torch.arange(count, device=blocks.device)
    dense = blocks.new_zeros(relations, count, rows, count, columns)
    dense[:, number, :, number] = blocks.transpose(0, 1)
    return dense.reshape(relations, count * rows, count * columns)


def _stack(joined, feat, width, like):
    """Features of all node types on top of one another: (at the sources, at the destinations)."""
    if isinstance(feat, (tuple, list)):
        if len(feat) != 2:
            raise ShapeError(f"feat: expected a dict or a pair (sources, destinations) of dicts, got {len(feat)} parts")
        return _rows(feat[0], joined.num_src, width, like), _rows(feat[1], joined.num_dst, width, like)
    if isinstance(feat, torch.Tensor):
        if len(joined.num_src) != 1 or len(joined.num_dst) != 1:
            raise ShapeError(f"feat: expected a dict over node types {sorted(joined.num_src)}, got one tensor")
        feat = {ntype: feat for ntype in (*joined.num_src, *joined.num_dst)}
    h_src = _rows(feat, joined.num_src, width, like)
    if not joined.is_block:
        return h_src, h_src if joined.num_src == joined.num_dst else _rows(feat, joined.num_dst, width, like)
    return h_src, _rows({t: feat[t][:n] for t, n in joined.num_dst.items()}, joined.num_dst, width, like)


def _rows(feat, sizes, width, like):
    if not isinstance(feat, Mapping):
        raise ShapeError(f"feat: expected a dict over node types {sorted(sizes)}, got {type(feat).__name__}")
    missing = [ntype for ntype in sizes if ntype not in feat]
    if missing:
        raise ShapeError(f"feat: expected features for node types {list(sizes)}, got none for {missing[0]!r}")
    for ntype, size in sizes.items():
        check_floats(f"feat[{ntype!r}]", feat[ntype], like)
        check_shape(f"feat[{ntype!r}]", feat[ntype], ("N", size), ("F", width))
    return torch.cat([feat[ntype] for ntype in sizes])
