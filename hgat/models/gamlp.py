"""GAMLP as a whole model: attention over hops of features that were spread before training, and its later stages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import dgl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat import ops
from hgat.errors import RecipeError, ShapeError, check_range, check_shape, check_whole
from hgat.graph import homogeneous, normalized
from hgat.models._stack import feature_width
from hgat.models._system import Batch, Facts, Shares, System, pieces, resting
from hgat.nn import Fusion

__all__ = ["GAMLP"]

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.2),
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
}
# r of the paper's D^(r-1) A D^(-r), by what DGL calls it.
POWERS = {"both": 0.5, "right": 0.0, "left": 1.0}
ROWS = 1 << 16  # rows that answer at once between two stages, and columns times 1024 that are spread at once


class GAMLP(System):
    """Attention over the hops of a node's features, a perceptron behind it, and one on labels that were spread, too.

        x_l = encode_l(X^(l));   s_l = act(a . [x_l || r_l]);   w = softmax(s_0 .. s_K);   h = sum_l drop(w_l) x_l
        out = head(drop(PReLU(h + W x_0))) + MLP(Y^(L)),   X^(l) = A X^(l-1), Y^(l) = A Y^(l-1), Y^(0) training labels

    reference: r_l. "jk": drop(PReLU(head([x_0 || .. || x_K]))), the same for all hops; "recursive": what the attention
    over the hops before l gives; "smoothing": what the features tend to after infinitely many steps, encoded.
    A [N, N] is the normalised adjacency, see `prepare`. score: act. encode: a perceptron for every hop, without which
    the features themselves are attended to. residual: W X^(0), and the PReLU and dropout behind it. tiers: so many
    groups of hops that follow one another, 3 for the local, the regional and the global: attention with the same scores
    inside each, then over what they give; None is the paper's one attention over all hops. layers,
    reference_layers, label_layers: of the head, of the reference, and of the perceptron on labels. alpha: share of the
    first hidden rows in the input of each inner layer of the head. feat_drop, label_drop: on the rows that come in;
    attn_drop: on w; hidden_drop: everywhere else.

    stages: trainings, one after the other (reliable label utilisation). A stage begins with fresh weights and learns
    from the one before it, P = softmax(out / temperature): of the nodes R outside the training nodes whose largest P is
    above threshold, rows of P are spread together with the training labels, and

        loss = (n CE + kd_weight sum_{i in R} max_j P_ij KL(P_i || softmax(out_i))) / (n + |R|),   n training nodes.

    In batches each has its share of R, drawn anew. Where no answer is above threshold, the stage before is the last.

    in_feats: F. num_classes: C. Raises ShapeError for sizes, rates and numbers out of range, RecipeError for stages of
    nodes that have several classes.
    Paper: Zhang et al. 2022, arXiv:2206.04355. Differs, as the authors' code does: encoders and batch normalisation,
    which batch_norm = False leaves out, with a bias in every layer in its place; hop 0 is part of the reference of
    "jk"; the weights of "recursive" are normalised anew for each hop; the inner layers of the head add their input;
    temperature is the teacher's alone. The code has no "smoothing": the encoder of its reference is ours. Biases before
    a batch normalisation and in the score, which the equations lack, are left out.
    """

    sure: Tensor | None
    said: Tensor | None
    join: Any  # of "jk"
    after: Any  # of a residual

    def __init__(
        self,
        in_feats: int,
        num_classes: int,
        num_hops: int,
        *,
        reference: Literal["jk", "recursive", "smoothing"] = "jk",
        score: Literal["leaky_relu", "sigmoid", "relu"] = "leaky_relu",
        hidden: int = 64,
        layers: int = 4,
        reference_layers: int = 4,
        label_layers: int = 4,
        alpha: float = 0.5,
        encode: bool = True,
        residual: bool = True,
        batch_norm: bool = True,
        feat_drop: float = 0.2,
        attn_drop: float = 0.5,
        hidden_drop: float = 0.5,
        label_drop: float = 0.5,
        stages: int = 1,
        threshold: float = 0.85,
        temperature: float = 1.0,
        kd_weight: float = 0.1,
        tiers: int | None = None,
    ) -> None:
        # A later stage begins with another one of these.
        settings = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        super().__init__()
        for name, value, known in (
            ("reference", reference, ("jk", "recursive", "smoothing")),
            ("score", score, SCORES),
        ):
            if value not in known:
                raise ShapeError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        check_whole(1, in_feats=in_feats, num_classes=num_classes, hidden=hidden, stages=stages, layers=layers)
        check_whole(1, reference_layers=reference_layers, label_layers=label_layers)
        check_whole(0, num_hops=num_hops)
        check_whole(1, tiers=tiers)
        if tiers is not None and tiers > num_hops + 1:
            raise ShapeError(f"tiers: expected at most the {num_hops + 1} hops, 0 among them, got {tiers}")
        check_range(0, 1, alpha=alpha, feat_drop=feat_drop, attn_drop=attn_drop, hidden_drop=hidden_drop)
        check_range(0, 1, label_drop=label_drop, threshold=threshold)
        check_range(0, kd_weight=kd_weight)
        check_range(0, temperature=temperature)
        if temperature == 0:
            raise ShapeError("temperature: expected a number above 0, got 0")
        self.fresh = partial(type(self), **settings)
        self.reference, self.stages, self.threshold = reference, stages, threshold
        self.temperature, self.kd_weight, self.tiers = temperature, kd_weight, tiers
        self._sizes = num_hops + 1, in_feats, num_classes
        width = hidden if encode else in_feats

        def encoder():
            return _Perceptron(in_feats, hidden, hidden, 2, hidden_drop, batch_norm)

        self.encode = nn.ModuleList(encoder() for _ in range(num_hops + 1)) if encode else None
        self.encode_limit = encoder() if encode and reference == "smoothing" else None
        beside = {"jk": hidden, "recursive": width, "smoothing": width}[reference]
        self.fuse = Fusion(width, score="linear", reference_feats=beside, activation=SCORES[score], attn_drop=attn_drop)
        self.join = None
        if reference == "jk":
            head = _Head((num_hops + 1) * width, hidden, hidden, reference_layers, hidden_drop, alpha, batch_norm)
            self.join = nn.Sequential(head, nn.PReLU(), nn.Dropout(hidden_drop))
        self.skip = nn.Linear(in_feats, width, bias=False) if residual else None
        self.after = nn.Sequential(nn.PReLU(), nn.Dropout(hidden_drop)) if residual else None
        self.head = _Head(width, hidden, num_classes, layers, hidden_drop, alpha, batch_norm)
        self.of_label = _Perceptron(num_classes, hidden, num_classes, label_layers, hidden_drop, batch_norm)
        self.feat_drop, self.label_drop = nn.Dropout(feat_drop), nn.Dropout(label_drop)
        # What the stage before says of the nodes that it is sure of; no part of the weights.
        self.register_buffer("sure", None, persistent=False)  # ids [R]
        self.register_buffer("said", None, persistent=False)  # [R, C]
        self.trained = 0  # n, where there are such nodes

    @staticmethod
    def prepare(
        shown: Facts,
        *,
        hops: int = 5,
        label_hops: int = 9,
        own_label: bool = True,
        norm: Literal["both", "right", "left"] = "both",
        self_loops: bool = True,
        undirected: bool = False,
        hop_folder: str | None = None,
    ) -> tuple:
        """(X^(0) .. X^(hops), Y^(label_hops), X^(inf) as its two factors, how labels are spread).

        norm: of the adjacency, see hgat.graph.normalized. self_loops, undirected: as for attention over one relation.
        own_label: as in the paper, a training node's own label comes back to it on closed walks, of which few are left
        among all walks of many steps; False takes it out, at the cost of a column for each training node.
        hop_folder: where X^(1) .. X^(hops) stay on disk, see hgat.ops.hop_features; in memory by default.
        The limit is the paper's, that of a connected graph whose edges go both ways.
        """
        check_whole(0, hops=hops, label_hops=label_hops)
        feature_width(shown.feat, shown.target)
        feat = cast(Tensor, shown.feat[shown.target])
        graph = homogeneous.prepare(shown.graph, self_loops=self_loops, undirected=undirected)
        weight = normalized(graph, norm)
        spread = _Spread(graph, weight, label_hops, own_label)
        degree, r = graph.in_degrees().to(feat.dtype).unsqueeze(1), POWERS[norm]
        limit = degree**r, (degree ** (1 - r)).t() @ feat / graph.num_edges()
        label = spread(_first(shown))
        spread_feat = ops.hop_features(graph, feat.contiguous(), hops, weight, folder=hop_folder)
        return spread_feat, label, limit, spread

    @classmethod
    def build(cls, shown: Facts, inputs: tuple, **settings: Any) -> "GAMLP":
        """A model for as many hops as are prepared; RecipeError for later stages where nodes have several classes."""
        if shown.multilabel and settings.get("stages", 1) > 1:
            raise RecipeError(f"model.stages: expected 1 for nodes of several classes, got {settings['stages']}")
        return cls(inputs[0][0].shape[1], shown.num_classes, len(inputs[0]) - 1, **settings)

    def scored(self, hops: Sequence[Tensor], limit: tuple[Tensor, Tensor]) -> tuple:
        """(X^(0) with dropout, x_0 .. x_K, r or None where it depends on what was attended to before)."""
        hops = [self.feat_drop(x) for x in hops]
        z = hops if self.encode is None else [encode(x) for encode, x in zip(self.encode, hops, strict=True)]
        if self.reference == "jk":
            return hops[0], z, self.join(torch.cat(z, 1))
        if self.reference == "smoothing":
            last = self.feat_drop(limit[0] * limit[1])
            return hops[0], z, last if self.encode_limit is None else self.encode_limit(last)
        return hops[0], z, None

    def _fused(self, z, reference):
        """(sum_l drop(w_l) z_l, w)."""
        if self.reference == "recursive":
            reference = [z[0]]
            for k in range(1, len(z)):
                reference.append(self.fuse(z[:k], reference[:k])[0])
        return self.fuse(z, reference)

    def fused(self, z: Sequence[Tensor], reference: Tensor | None) -> tuple[Tensor, Tensor]:
        """(h [N, D], w [N, K + 1]) of what `scored` gives; of tiers w is a hop's in its tier times the tier's."""
        if self.tiers is None:
            return self._fused(z, reference)
        ends = [int(part[-1]) + 1 for part in torch.arange(len(z)).tensor_split(self.tiers)]
        within = [self._fused(z[a:b], reference) for a, b in zip([0, *ends], ends, strict=False)]
        h, across = self._fused([rows for rows, _ in within], reference)
        return h, torch.cat([w * across[:, t : t + 1] for t, (_, w) in enumerate(within)], 1)

    def forward(
        self, hops: Sequence[Tensor], label: Tensor, limit: tuple[Tensor, Tensor], spread: Any = None
    ) -> Tensor:
        """Logits of the nodes whose rows are given.

        hops: K + 1 tensors [N, F]; label [N, C], training labels that were spread; limit: [N, 1] and [1, F], factors
        of what the features tend to -> [N, C]. spread is not read: it is there for the next stage.
        Raises ShapeError for another number of hops and for rows that do not fit.
        """
        self._check(hops, label, limit)
        first, z, reference = self.scored(hops, limit)
        h = self.fused(z, reference)[0]
        if self.skip is not None:
            h = self.after(h + self.skip(first))
        return self.head(h) + self.of_label(self.label_drop(label))

    def _check(self, hops, label, limit):
        size, feats, classes = self._sizes
        if not isinstance(hops, (list, tuple)) or len(hops) != size:
            got = len(hops) if isinstance(hops, (list, tuple)) else type(hops).__name__
            raise ShapeError(f"hops: expected a list of {size} tensors, got {got}")
        rows = None
        for k, x in enumerate(hops):
            check_shape(f"hops[{k}]", x, ("N", rows), ("F", feats))
            rows = len(x)
        check_shape("label", label, ("N", rows), ("C", classes))
        if self.reference == "smoothing":
            check_shape("limit[0]", limit[0], ("N", rows), ("1", 1))
            check_shape("limit[1]", limit[1], ("1", 1), ("F", feats))

    def objective(self, loss: Callable, inputs: tuple, batch: Batch) -> Tensor:
        """The task's loss on the rows that are asked for, and in later stages what the stage before was sure of.

        Rows that no loss reads are left out: they would count in the batch normalisation.
        """
        asked = Batch(label=batch.label, more=batch.more)
        rows = _rows(inputs, batch.rows) if batch.inputs is None else batch.inputs
        count = len(cast(Tensor, batch.label))
        if self.sure is None or self.said is None:
            return loss(self(*rows), asked)
        share = torch.arange(len(self.sure), device=self.sure.device)
        if batch.inputs is not None:
            # As many for each training row in a step as there are in all.
            drawn = -(-len(share) * count // self.trained)
            share = torch.randperm(len(share))[:drawn].to(self.sure.device)
        answer = self(*_joined(rows, _rows(inputs, self.sure[share])))
        own, other, said = answer[:count], answer[count:].log_softmax(1), self.said[share]
        far = said.max(1).values * (torch.special.xlogy(said, said) - said * other).sum(1)
        return (count * loss(own, asked) + self.kd_weight * far.sum()) / (count + len(share))

    def again(self, shown: Facts, inputs: tuple, stage: int) -> "tuple[GAMLP, tuple] | None":
        """A model with fresh weights, and inputs whose labels are joined by what this one is sure of."""
        if stage >= self.stages:
            return None
        hops, _, limit, spread = inputs
        said = (resting(self, lambda: self.whole(inputs, ROWS)) / self.temperature).softmax(1)
        open_to_it = torch.ones(len(said), dtype=torch.bool, device=said.device)
        open_to_it[shown.train.to(said.device)] = False
        sure = (open_to_it & (said.max(1).values > self.threshold)).nonzero().flatten()
        if not len(sure):
            return None
        label = _first(shown)
        label[sure.cpu()] = said[sure].to(label)
        model = self.fresh()
        model.trained, model.sure, model.said = len(shown.train), sure, said[sure]
        return model, (hops, spread(label), limit, spread)

    def sampled(self, inputs: tuple, ids: Tensor, fanout: Sequence[int] | None = None) -> tuple:
        """(the rows of the nodes `ids`, ()); RecipeError for a fanout, as no neighbour is sampled."""
        if fanout is not None:
            raise RecipeError(f"task.fanout: expected none for GAMLP, which samples no neighbours, got {list(fanout)}")
        return _rows(inputs, ids), ()

    def whole(self, inputs: tuple, batch_size: int | None = None) -> Tensor:
        """Logits of all rows; batch_size: that many at a time."""
        found = [self(*_rows(inputs, part)) for part in pieces(len(inputs[1]), batch_size)]
        return torch.cat(found) if found else self(*inputs)

    def rows(self, inputs: tuple, ids: Tensor, batch_size: int | None = None) -> Tensor:
        """Logits of the nodes `ids`, whose rows alone are read; batch_size: that many at a time."""
        return torch.cat([self(*_rows(inputs, part)) for part in ids.split(batch_size or max(len(ids), 1))])

    def attention(
        self, hops: Sequence[Tensor], label: Tensor, limit: tuple[Tensor, Tensor], spread: Any = None
    ) -> Tensor:
        """w of every node and hop, [N, K + 1]."""
        self._check(hops, label, limit)
        return self.fused(*self.scored(hops, limit)[1:])[1]

    def attended(self, *inputs: Any) -> list[Shares]:
        """The share of every hop, the mean over the nodes."""
        share = self.attention(*inputs).mean(0)
        names = tuple(f"hop {k}" for k in range(len(share)))
        even = (1 / len(share),) * len(share)
        return [
            Shares(
                "attention over hops",
                names,
                tuple(share.tolist()),
                even,
                even="if all hops counted alike",
                ordered=True,
            )
        ]


class _Norm(nn.BatchNorm1d):
    """Batch normalisation that takes a lone row, the end of an epoch in batches, by its running statistics."""

    def forward(self, x):
        if self.training and len(x) < 2:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def _norms(widths, batch_norm):
    return nn.ModuleList(_Norm(width) if batch_norm else nn.Identity() for width in widths)


class _Perceptron(nn.Module):
    """Linear layers with batch normalisation, or biases, one PReLU and dropout in between."""

    def __init__(self, in_feats, hidden, out_feats, layers, drop, batch_norm):
        super().__init__()
        widths = [in_feats, *[hidden] * (layers - 1), out_feats]
        self.layers = nn.ModuleList(
            nn.Linear(widths[k], widths[k + 1], bias=k == layers - 1 or not batch_norm) for k in range(layers)
        )
        self.norms = _norms(widths[1:-1], batch_norm)
        self.prelu, self.drop = nn.PReLU() if layers > 1 else None, nn.Dropout(drop)
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight, gain=nn.init.calculate_gain("relu"))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=False):
            x = self.drop(self.prelu(norm(layer(x))))
        return self.layers[-1](x)


class _Head(nn.Module):
    """Layers whose inner ones see the rows behind the first again, and add their own input; GCNII's without a graph."""

    def __init__(self, in_feats, hidden, out_feats, layers, drop, alpha, batch_norm):
        super().__init__()
        widths = [in_feats, *[hidden] * (layers - 1), out_feats]
        self.layers = nn.ModuleList(nn.Linear(widths[k], widths[k + 1], bias=not batch_norm) for k in range(layers))
        self.norms = _norms(widths[1:], batch_norm)
        self.prelu, self.drop, self.alpha = nn.PReLU() if layers > 1 else None, nn.Dropout(drop), alpha
        for layer in self.layers:
            nn.init.uniform_(layer.weight, -(layer.out_features**-0.5), layer.out_features**-0.5)

    def forward(self, x):
        first = None
        for k, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x = x if k == 0 else self.drop(self.prelu(x))
            inner = 0 < k < len(self.layers) - 1
            y = norm(layer((1 - self.alpha) * x + self.alpha * first if inner else x))
            x = y + x if x.shape[1] == y.shape[1] else y
            first = x if k == 0 else first
        return x


@dataclass(frozen=True, eq=False)
class _Spread:
    """How labels are spread: Y^(steps) of Y^(0) [N, C]; own: also a node's own label, back to itself."""

    graph: dgl.DGLGraph
    weight: Tensor
    steps: int
    own: bool

    def __call__(self, label: Tensor) -> Tensor:
        found = ops.propagate(self.graph, label, self.weight, self.steps)
        if not self.own:
            known = label.ne(0).any(1).nonzero().flatten()
            for ids in known.split(ROWS // 1024):
                column = label.new_zeros(len(label), len(ids))
                place = torch.arange(len(ids))
                column[ids, place] = 1.0
                back = ops.propagate(self.graph, column, self.weight, self.steps)[ids, place]
                found[ids] -= back.unsqueeze(1) * label[ids]
        return found


def _first(shown):
    """Y^(0), [N, C]: the labels of the training nodes, zeros elsewhere."""
    rows = torch.zeros(len(shown.label), shown.num_classes)
    label = shown.label[shown.train]
    rows[shown.train] = label.float() if shown.multilabel else F.one_hot(label, shown.num_classes).float()
    return rows


def _rows(inputs, ids):
    """Inputs of some rows alone; ids: numbers, or a slice."""
    hops, label, (scale, row), _ = inputs
    if isinstance(ids, Tensor):
        ids = ids.to(label.device)
    return [x[ids] for x in hops], label[ids], (scale[ids], row), None


def _joined(first, second):
    """The rows of two inputs, one below the other."""
    hops = [torch.cat(pair) for pair in zip(first[0], second[0], strict=True)]
    return hops, torch.cat([first[1], second[1]]), (torch.cat([first[2][0], second[2][0]]), first[2][1]), None
