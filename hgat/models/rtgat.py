"""RTGAT: a labelled event, seen with the last events of its entities under every relation."""

from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hgat.errors import GraphError, RecipeError, check_shape
from hgat.graph.recent import RecentEvents, recent_events
from hgat.models._streams import known_when_asked
from hgat.models._system import Ablation, Facts, Shares, System
from hgat.nn.common import check_floats, check_rates, check_sizes
from hgat.nn.rtgat import RTGATConv

__all__ = ["RTGAT"]

LOOKED_AT = 2_000  # events whose attention is drawn
AGES = 6  # bars of a figure


class RTGAT(System):
    """An event's own features, then RTGATConv over the last events of its entities, then its logit.

        h_i = drop(relu(W own_i + b));  z_i = RTGATConv(h_i, {h_j, after_j, t_i - t_j} of each relation)
        logit_i = w . relu(z_i) + c

    own [N, F]: what is known of an event when it is asked for; after [N, Fa]: what is known of it once it is known.
    etypes: the relations. hidden: width of h and z. latest: only the latest event of each relation is looked at.
    time_unit: the elapsed time that counts as one. heads, softmax, time_feats, time_encoding, norm, attn_drop,
    out_drop: see hgat.nn.RTGATConv.
    Only events that were known before an event was asked for are read.
    Raises RecipeError or ShapeError for settings out of range.
    Paper: Xu et al. 2020, arXiv:2002.07962, for attention in time; several relations are of this project.
    """

    solves = ("stream_labels",)
    conv: RTGATConv
    classify: nn.Sequential
    time_unit: float
    ablations = {
        "latest": Ablation("latest event of each relation", {"latest": True}),
        # Where an hour and a year are the same.
        "no_time": Ablation("without elapsed times", {"time_unit": 1e30}),
    }

    def __init__(
        self,
        in_feats: int,
        after_feats: int,
        etypes: tuple[tuple[str, str, str], ...],
        *,
        hidden: int = 32,
        heads: int = 2,
        softmax: Literal["across", "within"] = "across",
        latest: bool = False,
        time_feats: int = 16,
        time_encoding: str = "cos",
        time_unit: float = 1.0,
        norm: bool = True,
        feat_drop: float = 0.0,
        attn_drop: float = 0.1,
        out_drop: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes(in_feats=in_feats, hidden=hidden)
        check_rates(feat_drop=feat_drop)
        if not isinstance(time_unit, Real) or not 0 < time_unit < float("inf"):
            raise RecipeError(f"model.time_unit: expected a number above 0, got {time_unit}")
        self.in_feats, self.after_feats, self.latest, self.time_unit = in_feats, after_feats, latest, time_unit
        self.embed = nn.Sequential(nn.Linear(in_feats, hidden), nn.ReLU(), nn.Dropout(feat_drop))
        options: dict[str, Any] = {"softmax": softmax, "out_drop": out_drop, "norm": norm}
        self.conv = RTGATConv(
            hidden, hidden, heads, time_feats, etypes, after_feats, attn_drop, time_encoding, **options
        )
        self.classify = nn.Sequential(nn.ReLU(), nn.Linear(hidden, 1))

    @staticmethod
    def prepare(shown: Facts, *, neighbours: int = 10) -> tuple:
        """(the last events of each event's entities, own [N, F], after [N, Fa]).

        neighbours: events that are looked at under each relation.
        """
        own = known_when_asked(shown)
        after = own.new_zeros(len(own), 0) if shown.after is None else shown.after
        return recent_events(shown.graph, shown.asked, neighbours), own, after

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "RTGAT":
        """A model for the prepared events, as wide as their features."""
        recent, own, after = inputs
        return cls(own.shape[1], after.shape[1], recent.etypes, **settings)

    def forward(self, recent: RecentEvents, own: Tensor, after: Tensor, events: Tensor) -> Tensor:
        """The logits of some events.

        recent: hgat.graph.recent_events; own [N, F], after [N, Fa], events [B], their numbers -> [B].
        Raises GraphError for something else than recent or other relations, ShapeError for features that do not fit.
        """
        return self.classify(self._attend(recent, own, after, events, False)).squeeze(-1)

    def attention(
        self, recent: RecentEvents, own: Tensor, after: Tensor, events: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(alpha [B, H, R, K] and what it stands on: event, elapsed, mask, [B, R, K] each)."""
        _, alpha = self._attend(recent, own, after, events, True)
        return alpha, *self._recent(recent, events)

    def _recent(self, recent, events):
        """(event, elapsed, mask) [B, R, K], the relations in the layer's order."""
        if not isinstance(recent, RecentEvents):
            raise GraphError(f"recent: expected what hgat.graph.recent_events gives, got {type(recent).__name__}")
        theirs, ours = recent.etypes, self.conv.etypes
        if set(theirs) != set(ours):
            raise GraphError(f"recent: expected the relations {list(ours)}, got {list(theirs)}")
        found = recent.of(events.to(recent.event.device))
        if theirs != ours:
            order = [theirs.index(etype) for etype in ours]
            found = tuple(part[:, order] for part in found)
        return tuple(part[..., -1:] for part in found) if self.latest else found

    def _attend(self, recent, own, after, events, get_attention):
        event, elapsed, mask = self._recent(recent, events)
        for name, rows, width in (("own", own, self.in_feats), ("after", after, self.after_feats)):
            check_floats(name, rows, self.classify[1].weight)
            check_shape(name, rows, ("N", len(recent.event)), ("F", width))
        events = events.to(own.device)
        # What is asked for and what is looked at in one product; what stands in a slot without an event is not read.
        every = torch.cat([events, event.flatten()])
        now, then = self.embed(own.index_select(0, every)).tensor_split([len(events)])
        seen = then.unflatten(0, event.shape)
        given = after.index_select(0, event.flatten()).unflatten(0, event.shape) if self.after_feats else None
        return self.conv(now, seen, elapsed / self.time_unit, mask, given, get_attention)

    def attended(self, recent: RecentEvents, own: Tensor, after: Tensor) -> list[Shares]:
        """Shares by relation, and under each relation by how long ago the event became known."""
        some = (recent.event >= 0).flatten(1).any(1).nonzero().squeeze(1)
        if not len(some):
            return []
        some = some[torch.linspace(0, len(some) - 1, min(LOOKED_AT, len(some))).long()]
        alpha, _, elapsed, mask = self.attention(recent, own, after, some)
        alpha = alpha.mean(1)
        even = (mask / mask.sum((1, 2), keepdim=True).clamp(min=1)).to(alpha)
        if self.conv.softmax == "within":
            alpha = alpha / alpha.sum((1, 2), keepdim=True).clamp(min=1e-30)
        names = tuple(etype[1] for etype in self.conv.etypes)
        found = [_shares("attention by relation", names, alpha.sum((0, 2)), even.sum((0, 2)), "an event's attention")]
        for place, name in enumerate(names):
            here = mask[:, place]
            if not here.any():
                continue
            age = elapsed[:, place][here] / self.time_unit
            # As many events in every bar, but for those of one age.
            cuts = torch.quantile(age, torch.linspace(0, 1, AGES + 1, device=age.device)).unique()
            bar = torch.bucketize(age, cuts[1:-1], right=True)
            spent, flat = (
                torch.zeros(max(len(cuts) - 1, 1)).index_add(0, bar.cpu(), part[:, place][here].cpu().float())
                for part in (alpha, even)
            )
            cuts = [f"{cut:,.0f}" if cut >= 100 else f"{cut:.3g}" for cut in cuts.tolist()]
            ages = tuple(f"{a} to {b}" for a, b in zip(cuts[:-1], cuts[1:], strict=True)) or tuple(cuts)
            title = f"under {name!r}, by age" + (
                "" if self.time_unit == 1 else f"; 1 is {self.time_unit:g} of the data's units of time"
            )
            found.append(_shares(title, ages, spent, flat, "the attention under the relation"))
        return found


def _shares(title: str, names: tuple[str, ...], spent: Tensor, even: Tensor, whose: str) -> Shares:
    learned, uniform = (tuple((part / part.sum()).tolist()) for part in (spent, even))
    return Shares(title, names, learned, uniform, f"mean share of {whose}", "if all events counted alike")
