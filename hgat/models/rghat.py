"""RGHAT as a whole model."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hgat.errors import check_whole
from hgat.graph.triples import RelationGroups, message_graph, relation_groups
from hgat.models._system import Ablation, Facts, Shares, System
from hgat.nn.names import NamedState, names_of, order_of, reorder
from hgat.nn.rghat import RGHATConv

__all__ = ["RGHAT"]


class RGHAT(System, NamedState):
    """RGHAT: learned rows of entities and relations, and layers of attention over relations and then entities.

    num_entities: N; relations: the names of all R, inverse ones among them, whose rows are the same in every layer.
    num_outputs: columns of the answer. hidden: width of the rows, a multiple of heads. layers: how many. residual: what
    a layer receives is added to what it gives, in the last through a linear map where the answer is of another width.
    order, combine, feat_drop, attn_drop: see hgat.nn.RGHATConv.
    Raises ShapeError for sizes, rates and names out of range.
    Paper: Zhang et al. 2020, AAAI 34(5), doi:10.1609/aaai.v34i05.6508, which has two layers, 100 wide, 8 heads and
    dropout 0.5. Differs: see the layer; the residual is ours, and so are inverse relations and one row of a relation
    for all layers, of which no text was at hand that says how the paper has them.
    """

    solves = ("triples",)
    ablations = {
        "entity_first": Ablation("entity first", {"order": "entity_first"}),
        "sum_alone": Ablation("sum alone", {"combine": "sum"}),
    }

    def __init__(
        self,
        num_entities: int,
        relations: Sequence[str],
        num_outputs: int,
        *,
        hidden: int = 64,
        heads: int = 8,
        layers: int = 2,
        order: Literal["relation_first", "entity_first"] = "relation_first",
        combine: Literal["bi", "sum", "product"] = "bi",
        residual: bool = True,
        feat_drop: float = 0.0,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole(1, num_entities=num_entities, num_outputs=num_outputs, hidden=hidden, heads=heads, layers=layers)
        self.names, self.residual = names_of("relations", relations), residual
        self.entity, self.relation = nn.Embedding(num_entities, hidden), nn.Embedding(len(self.names), hidden)
        for rows in (self.entity, self.relation):  # of length one: Glorot's would shrink with the number of entities
            nn.init.normal_(rows.weight, std=hidden**-0.5)
        options: dict[str, Any] = {"feat_drop": feat_drop, "attn_drop": attn_drop, "order": order, "combine": combine}
        widths = [*[hidden] * (layers - 1), num_outputs]
        self.layers = nn.ModuleList(RGHATConv(hidden, hidden, width, heads, **options) for width in widths)
        last = residual and num_outputs != hidden
        self.skip = nn.Linear(hidden, num_outputs, bias=False) if last else nn.Identity()

    @staticmethod
    def prepare(shown: Facts, *, inverse: bool = True) -> tuple:
        """(relation groups of the training triples,); inverse: with the messages from head to tail and back."""
        return (relation_groups(*message_graph(shown.graph, inverse)),)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "RGHAT":
        """A model for the entities and relations that were prepared."""
        (groups,) = inputs
        return cls(groups.num_nodes, groups.relations, shown.num_classes, **settings)

    def _names(self):
        return {"relations": self.names}

    def _match(self, names, state, prefix):
        theirs = names.get("relations") if isinstance(names, dict) else None
        reorder(state, prefix, ("relation.weight",), order_of(theirs, self.names, "relations"))

    def forward(self, groups: RelationGroups) -> Tensor:
        """A row of every entity.

        groups: hgat.graph.relation_groups of the model's N entities and R relations -> [N, D], D num_outputs.
        Raises GraphError for anything but groups, ShapeError for those of another number of entities or relations.
        """
        return self._layers(groups)[0]

    def _layers(self, groups, get_attention=False):
        """(rows of the entities, the attention of every layer where it is asked for)."""
        h, found = self.entity.weight, []
        for layer in self.layers:
            out = layer(groups, h, self.relation.weight, get_attention)
            if get_attention:
                out, alpha = out
                found.append(alpha)
            h = out + (self.skip(h) if layer is self.layers[-1] else h) if self.residual else out
        return h, found

    def attention(self, groups: RelationGroups) -> list[tuple[Tensor, Tensor]]:
        """(alpha [P, H] of the groups, beta [E, H] of the edges) of every layer, a list."""
        return self._layers(groups, get_attention=True)[1]

    def attended(self, groups: RelationGroups) -> list[Shares]:
        """Attention by relation, of every layer, heads averaged."""
        node, relation = groups.group.node, groups.group.relation
        even, found = 1.0 / torch.bincount(node, minlength=groups.num_nodes)[node], []
        for depth, (alpha, _) in enumerate(self.attention(groups), 1):
            spent = [
                torch.zeros(len(self.names)).index_add(0, relation, share) / max(len(node.unique()), 1)
                for share in (alpha.mean(1).cpu(), even)
            ]
            title = f"attention of entities, layer {depth}"
            attention, uniform = (tuple(share.tolist()) for share in spent)
            found.append(Shares(title, self.names, attention, uniform, even="if all relations counted alike"))
        return found
