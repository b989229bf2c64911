"""Stacks of one layer, as GAT's paper has them: heads side by side in between, averaged at the end."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_type_hints

import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from hgat.errors import RecipeError, brief, check_range, check_whole, is_whole
from hgat.graph import homogeneous
from hgat.models._batches import Features, Layered, one_type, over_layers
from hgat.models._system import Facts, _extensible

__all__ = ["Stack", "check_heads", "check_settings", "feature_width"]

# Of a layer's constructor, what the stack itself decides.
DECIDED = {"self", "in_feats", "out_feats", "num_heads", "activation", "allow_zero_in_degree", "edge_feats"}


class Stack(Layered):
    """Layers of `layer`: heads[k] heads each, `hidden` wide with ELU, the last as wide as the answer, without.

    A subclass names its layer and the defaults that are not the layer's own. Its settings are hidden, heads, every
    setting that the layer's constructor has, and those of its own `more`. encoder: the width of ReLU(W x), which then
    comes before the layers; W begins as an embedding does, drawn from N(0, 1), for x of zeros and ones. decoder: the
    last layer is `hidden` wide, too, its heads side by side, and a linear map to the answer follows, without bias.
    """

    layer: ClassVar[type[nn.Module]]
    defaults: ClassVar[Mapping[str, Any]] = {}
    encoder: nn.Module | None
    decoder: nn.Module | None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "layer") and not {"layer", "defaults", "more"}.isdisjoint(cls.__dict__):
            cls.__init__ = _constructor(cls)

    @staticmethod
    @_extensible
    def prepare(shown: Facts, *, self_loops: bool = True, undirected: bool = False) -> tuple:
        """(graph, features): every node attends to itself once; undirected: every edge in both directions, once."""
        return homogeneous.prepare(shown.graph, self_loops=self_loops, undirected=undirected), dict(shown.feat)

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "Stack":
        """A model as wide as the features of the target type, and its classes."""
        return cls(feature_width(inputs[1], shown.target), shown.num_classes, **settings)

    def more(self) -> None:
        """Settings that the layer does not have, keyword-only, to be checked and kept; called behind the layers."""

    def start(self, feat: Features, nodes: Any = None) -> Tensor:
        """What the first layer receives."""
        h = one_type(feat)
        return h if self.encoder is None else F.relu(self.encoder(h))

    def step(self, depth: int, graph: DGLGraph, h: Tensor) -> Tensor:
        """Layer `depth`, counted from 0, on a graph or block: [N_src, width] -> [N_dst, width], of the last logits."""
        return self.merged(depth, self.layers[depth](graph, h))

    def merged(self, depth: int, h: Tensor) -> Tensor:
        """What layer `depth` gave, [N, H, D], without heads: side by side [N, H * D], of the last the mean [N, D], or
        with a decoder what that makes of them."""
        if depth < len(self.layers) - 1:
            return h.flatten(1)
        return h.mean(1) if self.decoder is None else self.decoder(h.flatten(1))

    def forward(self, graph: DGLGraph | Sequence[DGLGraph], feat: Features) -> Tensor:
        """Logits of every node.

        graph: DGLGraph with self-loops, feat [N, F] or {node type: [N, F]}; or DGL's blocks, one per layer, and feat
        [N_src, F] of the first one's sources -> [N, C] or [N_dst, C].
        Raises RecipeError for another number of blocks than layers, ShapeError for features that do not fit.
        """
        return over_layers(self, graph, feat)


def _constructor(cls):
    """__init__ of a stack, its layer's settings and its own in its signature, where recipes and help() read them."""
    hints = get_type_hints(cls.layer.__init__)
    usual = {"hidden": 8, "heads": (8, 1), **cls.defaults}
    settings = {"hidden": (int, usual["hidden"]), "heads": (Sequence[int], usual["heads"])}
    settings |= {"encoder": (int | None, None), "decoder": (bool, False)}
    for name, parameter in inspect.signature(cls.layer.__init__).parameters.items():
        if name not in DECIDED:
            default = cls.defaults.get(name, parameter.default)
            settings[name] = hints.get(name, type(default)), default
    hints = get_type_hints(cls.more)
    own = {p.name: (hints[p.name], p.default) for p in list(inspect.signature(cls.more).parameters.values())[1:]}
    settings |= own
    keyword = inspect.Parameter.KEYWORD_ONLY
    plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
    sizes = [inspect.Parameter(name, plain, annotation=int) for name in ("in_feats", "num_outputs")]
    parameters = [
        inspect.Parameter(name, keyword, default=default, annotation=kind) for name, (kind, default) in settings.items()
    ]
    first = [inspect.Parameter("self", plain), *sizes]
    signature = inspect.Signature([*first, *parameters], return_annotation=None)

    def __init__(self, in_feats, num_outputs, **given):
        super(Stack, self).__init__()
        given = signature.bind(self, in_feats, num_outputs, **given)  # TypeError for a setting that is none
        given.apply_defaults()
        options = {name: given.arguments[name] for name in settings}
        hidden, heads = options.pop("hidden"), options.pop("heads")
        encoder, decoder = options.pop("encoder"), options.pop("decoder")
        more = {name: options.pop(name) for name in own}
        check_settings(heads, hidden, **{name: rate for name, rate in options.items() if name.endswith("_drop")})
        check_whole(1, encoder=encoder)
        self.layers = nn.ModuleList()
        self.encoder = None if encoder is None else nn.Linear(in_feats, encoder, bias=False)
        if self.encoder is not None:
            nn.init.normal_(self.encoder.weight)
        width = in_feats if encoder is None else encoder
        for count in heads[:-1]:
            self.layers.append(cls.layer(width, hidden, count, activation=F.elu, **options))
            width = hidden * count
        self.layers.append(cls.layer(width, hidden if decoder else num_outputs, heads[-1], **options))
        self.decoder = nn.Linear(hidden * heads[-1], num_outputs, bias=False) if decoder else None
        self.more(**more)

    __init__.__signature__ = signature
    __init__.__annotations__ = {p.name: p.annotation for p in [*sizes, *parameters]} | {"return": None}
    __init__.__qualname__ = f"{cls.__qualname__}.__init__"
    return __init__


def feature_width(feat: Any, target: str | None) -> int:
    """F of the features of the node type `target`; RecipeError where it has none."""
    if not isinstance(feat, Mapping) or feat.get(target) is None:
        raise RecipeError(f"feat: expected features of {target!r} nodes, got none")
    return feat[target].shape[1]


def check_settings(heads: Any, hidden: Any, **rates: Any) -> None:
    """Raise RecipeError or ShapeError unless widths are 1 or more and rates of dropout from 0 to 1."""
    check_heads("model.heads", heads)
    check_whole(1, hidden=hidden)
    check_range(0, 1, **rates)


def check_heads(name: str, heads: Any) -> None:
    """Raise RecipeError unless `heads` is a list of numbers of heads."""
    given = isinstance(heads, Sequence) and not isinstance(heads, str)
    if not given or not heads or not all(is_whole(count, 1) for count in heads):
        got = list(heads) if given else brief(heads)
        raise RecipeError(f"{name}: expected a number of heads per layer, each 1 or more, got {got}")
