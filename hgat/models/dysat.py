"""DySAT as a whole model, on snapshots of one node type or of many."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat.errors import GraphError, RecipeError, ShapeError, brief, check_shape, check_whole, is_whole
from hgat.graph import csr
from hgat.graph import snapshots as cut
from hgat.graph.metapath import disjoint_union, metapaths, reachable
from hgat.graph.relations import join_relations
from hgat.graph.snapshots import Snapshots
from hgat.models._batches import one_type, widths
from hgat.models._shares import over_time
from hgat.models._stack import check_settings
from hgat.models._system import Ablation, Facts, Past, System
from hgat.nn import HANConv, RGATConv, SnapshotGATConv, TemporalAttention
from hgat.nn.common import check_floats
from hgat.nn.names import NamedState, order_of, reorder_children
from hgat.nn.temporal import Cache

__all__ = ["DySAT"]

Features = Mapping[str, Tensor | None] | None


class DySAT(System):
    """Attention to neighbours inside every snapshot, then attention of every node to its own past.

    snapshots: what the model is built for; others of the same nodes and relations, with no more steps, serve, too.
    in_feats: {node type: F, or None for a type without features}. heads, hidden: structural layers, heads of each and
    width per head; their product at the last layer is the width of the embedding. temporal_heads: temporal layers.
    structural: "gat" (paper), "dot", or "none", each node by itself, on one node and edge type; on typed snapshots
    "rgat", hgat.nn.RGATConv over all relations of all snapshots at once, or "han", hgat.nn.HANConv, paths: its
    meta-paths, of one node type; beta per node, since one for all snapshots would know the later ones. Only "gat" reads
    the weights of links.
    temporal: False leaves the past out. "none" and False are the paper's two ablations.
    combine: "stack", temporal attention over what structural attention gives (paper), or "concat", both on the input
    and side by side; with features that do not change, its temporal half knows when a node was there, and no link.
    position, temporal_scale, temporal_residual: see hgat.nn.TemporalAttention. mask_absent: steps before a node's first
    event are hidden from its past; False keeps them, as the authors' code does.
    Nodes without features have one-hot rows (one type), or a learned row of width `embed` (typed).

    extend: the embeddings of one more snapshot alone, from the state of those before it.
    Paper: Sankar et al. 2019, arXiv:1812.09430. Differs: mask_absent; "concat", "dot", the temporal residual and typed
    snapshots are not in it.
    """

    solves = ("snapshot_links",)
    ablations = {
        "no_temporal": Ablation("no temporal attention", {"temporal": False}),
        "no_structural": Ablation("no structural attention", {"structural": "none"}),
    }

    def __init__(
        self,
        snapshots: Snapshots,
        in_feats: Mapping[str, int | None],
        *,
        heads: Sequence[int] = (16,),
        hidden: int = 8,
        temporal_heads: Sequence[int] = (16,),
        structural: Literal["gat", "dot", "none", "rgat", "han"] = "gat",
        temporal: bool = True,
        combine: Literal["stack", "concat"] = "stack",
        position: Literal["learned", "time", "none"] = "learned",
        temporal_scale: Literal["sqrt_d", "sqrt_T"] = "sqrt_d",
        temporal_residual: bool = False,
        mask_absent: bool = True,
        paths: dict = {},  # noqa: B006 (read only)
        embed: int = 64,
        feat_drop: float = 0.1,
        attn_drop: float = 0.1,
        temporal_drop: float = 0.5,
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__()
        rates = {"feat_drop": feat_drop, "attn_drop": attn_drop}
        check_settings(heads, hidden, **rates, temporal_drop=temporal_drop)
        check_whole(1, embed=embed)
        _check_snapshots(snapshots)
        for name, value, known in (
            ("structural", structural, ("gat", "dot", "none", "rgat", "han")), ("combine", combine, ("stack", "concat"))
        ):  # fmt: skip
            if value not in known:
                raise RecipeError(f"model.{name}: expected one of {', '.join(known)}, got {value!r}")
        if (structural == "han") != bool(paths):
            raise RecipeError(f"model.paths: expected meta-paths with structural 'han' and none else, got {paths}")
        width = hidden * heads[-1]
        given = isinstance(temporal_heads, Sequence) and not isinstance(temporal_heads, str)
        if (
            not given
            or not temporal_heads
            or not all(is_whole(count, 1) and width % count == 0 for count in temporal_heads)
        ):
            got = list(temporal_heads) if given else brief(temporal_heads)
            raise RecipeError(f"model.temporal_heads: expected divisors of the width {width}, one per layer, got {got}")
        options = {**rates, "negative_slope": negative_slope}
        self.structure: _Plain | _Typed
        if structural in ("rgat", "han"):
            concat = temporal and combine == "concat"
            self.structure = _Typed(snapshots, in_feats, structural, heads, hidden, embed, paths, concat, options)
        elif snapshots.is_typed:
            raise RecipeError(f"model.structural: expected 'rgat' or 'han' on typed snapshots, got {structural!r}")
        else:
            if temporal and combine == "concat" and len(heads) > 1:
                raise RecipeError(f"model.heads: expected one structural layer with combine 'concat', got {len(heads)}")
            self.structure = _Plain(snapshots, in_feats, structural, heads, hidden, options)
        self.combine, self.mask_absent = combine, mask_absent
        self.past = nn.ModuleList()
        for count in temporal_heads if temporal else ():
            self.past.append(
                TemporalAttention(
                    width,
                    count,
                    len(snapshots),
                    temporal_drop,
                    position=position,
                    scale=temporal_scale,
                    residual=temporal_residual,
                )
            )

    @staticmethod
    def prepare(
        shown: Facts,
        *,
        cumulative: bool = False,
        self_loops: bool = True,
        both_ways: bool = True,
        weight: Literal["count", "normalized", "none"] = "count",
    ) -> tuple:
        """(snapshots, features) of the steps that are shown; see hgat.graph.snapshots."""
        found = cut(
            shown.graph,
            column="step",
            steps=shown.steps,
            cumulative=cumulative,
            self_loops=self_loops,
            both_ways=both_ways,
            weight=weight,
        )
        return found, dict(shown.feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "DySAT":
        """A model for the prepared snapshots, as wide as the features; GraphError for something else than snapshots."""
        snapshots, feat = inputs
        _check_snapshots(snapshots, "graph")
        return cls(snapshots, widths(feat, snapshots.ntypes), **settings)

    def embed(self, snapshots: Snapshots, feat: Features = None) -> Tensor:
        """What `forward` gives."""
        _check_snapshots(snapshots)
        h = self.structure(snapshots, feat).transpose(0, 1)  # [N, T, F]
        if not self.past:
            return h
        past = h if self.combine == "stack" else self.structure.input(snapshots, feat).transpose(0, 1)
        present, time = self._seen(snapshots, h.device)
        for layer in self.past:
            past = layer(past, present, time)
        return past if self.combine == "stack" else torch.cat([h, past], -1)

    def forward(self, snapshots: Snapshots, feat: Features = None) -> Tensor:
        """Every node at every step.

        snapshots: hgat.graph.snapshots, T steps; feat: {node type: [N, F] or None} -> [N, T, F], nodes of all types
        stacked; column t knows the steps up to t.
        Raises GraphError for something else than snapshots and for other node types, ShapeError for features that do
        not fit.
        """
        return self.embed(snapshots, feat)

    def extend(
        self, snapshot: Snapshots, feat: Features = None, state: tuple[Cache | None, ...] | None = None
    ) -> tuple[Tensor, tuple[Cache, ...]]:
        """(embeddings [N, F] of one more snapshot, state for the next).

        snapshot: `snapshots[t]`, one step. state: what the last call gave, None for the first step. The same as the
        last column of `embed` on the steps up to this one; the snapshots before are not read.
        """
        _check_snapshots(snapshot, "snapshot")
        if len(snapshot) != 1:
            raise ShapeError(f"snapshot: expected one step, got {len(snapshot)}")
        h = self.structure(snapshot, feat)[0]
        past = h if self.combine == "stack" or not self.past else self.structure.input(snapshot, feat)[0]
        present, time = self._seen(snapshot, h.device)
        state, caches = state or (None,) * len(self.past), []
        layers = cast(Sequence[TemporalAttention], self.past)
        for layer, cache in zip(layers, state, strict=True):
            past, cache = layer.extend(
                past, cache, None if present is None else present[0], None if time is None else time[0]
            )
            caches.append(cache)
        out = past if self.combine == "stack" or not self.past else torch.cat([h, past], -1)
        return out, tuple(caches)

    @torch.no_grad()
    def attention(self, snapshots: Snapshots, feat: Features = None) -> list[Tensor]:
        """beta of every temporal layer, a list of [N, H, T, T]."""
        _check_snapshots(snapshots)
        h = self.structure(snapshots, feat).transpose(0, 1)
        past = h if self.combine == "stack" else self.structure.input(snapshots, feat).transpose(0, 1)
        found = []
        for layer in self.past:
            past, beta = layer(past, *self._seen(snapshots, h.device), get_attention=True)
            found.append(beta)
        return found

    def attended(self, snapshots: Snapshots, feat: Features = None) -> list[Past]:
        """How every temporal layer spreads over the steps, those before a node's first where it sees them, too."""
        present = snapshots.present
        seen = present if self.mask_absent else torch.ones_like(present)
        layers = enumerate(self.attention(snapshots, feat), 1)
        return [over_time(present, beta, seen, f"temporal attention, layer {depth}") for depth, beta in layers]

    def _seen(self, snapshots, device):
        """(present [T, N] or None, the number of every step [T] or None)."""
        present = snapshots.present_on(device) if self.mask_absent else None
        time = None
        if self.past and self.past[0].position == "time":
            time = torch.arange(snapshots.start, snapshots.stop, device=device)
        return present, time


def _check_snapshots(snapshots, name="snapshots"):
    if not isinstance(snapshots, Snapshots):
        got = type(snapshots).__name__
        raise GraphError(f"{name}: expected what hgat.graph.snapshots gives, which cuts a graph into steps, got {got}")


class _Plain(nn.Module):
    """Structural layers on one node and edge type."""

    def __init__(self, snapshots, in_feats, structural, heads, hidden, options):
        super().__init__()
        (width,) = in_feats.values()
        width = snapshots.total_nodes if width is None else width
        self.one_hot = next(iter(in_feats.values())) is None
        self.alone = structural == "none"
        self.layers = nn.ModuleList()
        for count in heads:
            self.layers.append(
                SnapshotGATConv(width, hidden, count, **options, score="dot" if structural == "dot" else "gat")
            )
            width = hidden * count
        if self.alone:
            for layer in self.layers:
                layer.attn_l = layer.attn_r = None

    def _feat(self, feat):
        if self.one_hot:
            return None
        feat = one_type(feat)
        check_floats("feat", feat, self.layers[0].fc.weight)
        return feat

    def input(self, snapshots, feat):
        """The projected input of every step, zeros before a node has appeared, [T, N, H * D]."""
        feat, layer = self._feat(feat), self.layers[-1]
        row = layer.fc.weight.t() if feat is None else layer.fc(feat)
        return row * snapshots.present_on(row.device).to(row.dtype).unsqueeze(-1)

    def forward(self, snapshots, feat):
        h = self._feat(feat)
        for layer in self.layers:
            h = self._alone(layer, snapshots, h) if self.alone else layer(snapshots, h)
        return h

    def _alone(self, layer, snapshots, h):
        """What the layer gives a node that has no neighbour but itself."""
        if h is None:
            h = layer.fc.weight.t() * layer.feat_drop(layer.fc.weight.new_ones(snapshots.total_nodes, 1))
        else:
            h = layer.fc(layer.feat_drop(h))
        return layer.activation(h) * snapshots.present_on(h.device).to(h.dtype).unsqueeze(-1)


class _Typed(NamedState):
    """Structural layers on typed snapshots: all relations, or all meta-paths, of all snapshots at once."""

    def __init__(self, snapshots, in_feats, structural, heads, hidden, embed, paths, concat, options):
        super().__init__()
        self.ntypes, self.inputs = snapshots.ntypes, nn.ModuleList()
        for ntype, count in snapshots.num_nodes.items():
            if in_feats.get(ntype) is None:
                self.inputs.append(nn.Embedding(count, embed))
                nn.init.xavier_uniform_(self.inputs[-1].weight)
            else:
                self.inputs.append(nn.Linear(in_feats[ntype], embed))
        self.paths = {}
        if paths:
            metapaths(snapshots.graph, paths)  # a wrong path is refused here
            self.paths = {n: tuple(tuple(e) if isinstance(e, list) else e for e in p) for n, p in paths.items()}
        self.layers, width = nn.ModuleList(), embed
        for count in heads:
            if structural == "han":
                # One beta for all rows would be a mean over all steps, and look ahead.
                self.layers.append(HANConv(width, hidden, count, list(paths), semantic="per_node", **options))
            else:
                self.layers.append(RGATConv(width, hidden, count, snapshots.graph.canonical_etypes, **options))
            width = hidden * count
        if concat or paths and len(self.ntypes) > 1:
            self.widen = nn.Linear(embed, width, bias=False)

    def _names(self):
        return {"ntypes": self.ntypes}

    def _match(self, names, state, prefix):
        theirs = names.get("ntypes") if isinstance(names, dict) else None
        reorder_children(state, f"{prefix}inputs.", order_of(theirs, self.ntypes, "node types"))

    def _rows(self, snapshots, feat):
        """{node type: [N, embed]}, in the order in which the snapshots stack their nodes."""
        if set(snapshots.ntypes) != set(self.ntypes):
            raise GraphError(f"snapshots: expected node types {list(self.ntypes)}, got {list(snapshots.ntypes)}")
        h = {}
        for ntype, count in snapshots.num_nodes.items():
            layer = self.inputs[self.ntypes.index(ntype)]
            if isinstance(layer, nn.Embedding):
                if count != layer.num_embeddings:
                    raise GraphError(
                        f"snapshots: expected {layer.num_embeddings} nodes of type {ntype!r}, as many as learned rows, "
                        f"got {count}"
                    )
                h[ntype] = layer.weight
                continue
            given = feat.get(ntype) if isinstance(feat, dict) else None
            if given is None:
                raise ShapeError(f"feat: expected features of {ntype!r} nodes, got none")
            check_floats(f"feat[{ntype!r}]", given, layer.weight)
            check_shape(f"feat[{ntype!r}]", given, ("N", count), ("F", layer.in_features))
            h[ntype] = layer(given)
        return h

    def input(self, snapshots, feat):
        rows = self.widen(torch.cat(list(self._rows(snapshots, feat).values())))
        return rows * snapshots.present.to(rows).unsqueeze(-1)

    def forward(self, snapshots, feat):
        steps = len(snapshots)
        h = {t: x.repeat(steps, 1) for t, x in self._rows(snapshots, feat).items()}  # node t * N + v
        if self.paths:
            return self._metapaths(snapshots, h)
        graph = join_relations(snapshots.graph)
        for layer in self.layers:
            out = {t: F.elu(x.flatten(1)) for t, x in layer(graph, h).items()}
            width = next(iter(out.values())).shape[1]
            # A type that no relation ends at: zeros, as for any node without in-edges.
            h = {t: out[t] if t in out else x.new_zeros(len(x), width) for t, x in h.items()}
        return torch.cat([h[t].view(steps, n, h[t].shape[1]) for t, n in snapshots.num_nodes.items()], 1)

    def _metapaths(self, snapshots, h):
        graph = snapshots.graph
        views = csr.cached(graph, ("metapaths", tuple(self.paths.items())), lambda: _views(graph, self.paths))
        target = graph.to_canonical_etype(next(iter(self.paths.values()))[-1])[2]
        z = h[target]
        for layer in self.layers:
            z = layer(views, z)
        found = []
        for ntype, count in snapshots.num_nodes.items():
            rows = z if ntype == target else self.widen(h[ntype])
            found.append(rows.view(len(snapshots), count, rows.shape[1]))
        return torch.cat(found, 1) * snapshots.present_on(z.device).to(z.dtype).unsqueeze(-1)


def _views(graph, paths):
    """As hgat.graph.metapaths, but one step may have no pair along a path."""
    return disjoint_union([reachable(graph, list(path)) for path in paths.values()], list(paths))
