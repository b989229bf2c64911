"""Decoders of knowledge graphs: how well an entity fits behind a head and a relation, by rows of all three."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat.errors import ShapeError, check_shape
from hgat.nn.common import Layer, check_floats, check_number, check_rates, check_sizes

__all__ = ["ConvEDecoder", "DistMultDecoder", "TransEDecoder"]


class _Decoder(Layer):
    """Learned rows of relations, and scores of tails by a query of head and relation."""

    def __init__(self, num_relations: int, feats: int, drop: float) -> None:
        super().__init__()
        num_relations, self._feats = check_sizes(num_relations=num_relations, feats=feats)
        check_rates(drop=drop)
        self.relation = nn.Embedding(num_relations, self._feats)
        nn.init.xavier_normal_(self.relation.weight)
        self.drop = nn.Dropout(drop)

    def reset_parameters(self) -> None:
        """Glorot normal rows of relations."""
        nn.init.xavier_normal_(self.relation.weight)

    def _query(self, head: Tensor, relation: Tensor) -> Tensor:
        """What tails are compared with, [B, D], of the rows of both."""
        raise NotImplementedError

    def _compared(self, query: Tensor, rows: Tensor) -> Tensor:
        """[B, N] of query [B, D] and rows [N, D], or [B, K] of rows [B, K, D]."""
        return query @ rows.t() if rows.dim() == 2 else (rows @ query.unsqueeze(2)).squeeze(2)

    def forward(self, rows: Tensor, head: Tensor, relation: Tensor, tail: Tensor | None = None) -> Tensor:
        """Scores of tails behind heads and relations, more is better.

        rows [N, D] of entities; head, relation [B], whole numbers; tail [B, K], or None for all -> [B, K] or [B, N].
        Raises ShapeError for rows or numbers of another shape; numbers out of range are PyTorch's to refuse.
        """
        check_floats("rows", rows, self.relation.weight)
        check_shape("rows", rows, ("N", None), ("D", self._feats))
        check_shape("head", head, ("B", None))
        check_shape("relation", relation, ("B", len(head)))
        head, relation = head.to(rows.device), relation.to(rows.device)
        # F.embedding: its backward adds up rows in one order, which indexing does not on a GPU.
        query = self._query(F.embedding(head, rows), self.relation(relation))
        if tail is None:
            return self._scores(query, rows, None)
        check_shape("tail", tail, ("B", len(head)), ("K", None))
        tail = tail.to(rows.device)
        return self._scores(query, F.embedding(tail, rows), tail)

    def _scores(self, query, rows, tail):
        """Scores of the rows, those of `tail` or of all."""
        return self._compared(query, rows)


class DistMultDecoder(_Decoder):
    """A product of three rows: score(h, r, t) = sum_k h_k r_k t_k, of drop(h) and drop(r).

    num_relations: R, inverse ones among them. feats: D. drop: rate of dropout. Rows of entities and of tails [N, D],
    scores [B, N]. Raises ShapeError for an argument out of range.
    Paper: Yang et al. 2015, DistMult, arXiv:1412.6575. Differs: relations have their inverses beside them.
    """

    def __init__(self, num_relations: int, feats: int, *, drop: float = 0.0) -> None:
        super().__init__(num_relations, feats, drop)

    def _query(self, head, relation):
        return self.drop(head) * self.drop(relation)


class TransEDecoder(_Decoder):
    """A translation: score(h, r, t) = margin - ||h + r - t||_p.

    num_relations: R, inverse ones among them. feats: D. margin: where a score is zero. norm: p. drop: rate of dropout
    on h and r. Rows of entities and of tails [N, D], scores [B, N]. Raises ShapeError for an argument out of range.
    Paper: Bordes et al. 2013, TransE, NeurIPS 26. Differs: relations have their inverses beside them; rows of entities
    are not scaled to length one; DGL's layer TransE scores pairs and this one all tails.
    """

    def __init__(
        self, num_relations: int, feats: int, *, margin: float = 9.0, norm: float = 1.0, drop: float = 0.0
    ) -> None:
        super().__init__(num_relations, feats, drop)
        check_number(margin=margin, norm=norm)
        if norm < 1:
            raise ShapeError(f"norm: expected 1 or more, got {norm}")
        self.margin, self.norm = margin, norm

    def _query(self, head, relation):
        return self.drop(head) + self.drop(relation)

    def _compared(self, query, rows):
        if rows.dim() == 2:
            return self.margin - torch.cdist(query, rows, p=self.norm)
        return self.margin - torch.linalg.vector_norm(query.unsqueeze(1) - rows, ord=self.norm, dim=2)


class ConvEDecoder(_Decoder):
    """A convolution over the rows of head and relation, reshaped to images one above the other.

        score(h, r, t) = relu(bn(drop(W vec(drop(relu(bn(w * drop(bn([H; R]))))))) + b)) . t + bias_t

    H, R: rows [D] as images of D / width lines. num_entities: N, of bias. num_relations: R, inverse ones among them.
    feats: D. channels: filters w, of 3 x 3. width: of the images; None, the least divisor of D from its root on.
    input_drop, map_drop, hidden_drop: rates of the three dropouts, the second of whole feature maps. bn: batch
    normalisation. Rows of entities and of tails [N, D], scores [B, N].
    Raises ShapeError for an argument out of range, and for images that are smaller than a filter.
    Paper: Dettmers et al. 2018, ConvE, arXiv:1707.01476, eq. 1. Differs: nothing of the authors' code.
    """

    def __init__(
        self,
        num_entities: int,
        num_relations: int,
        feats: int,
        *,
        channels: int = 32,
        width: int | None = None,
        input_drop: float = 0.2,
        map_drop: float = 0.2,
        hidden_drop: float = 0.3,
    ) -> None:
        check_rates(input_drop=input_drop, map_drop=map_drop, hidden_drop=hidden_drop)
        super().__init__(num_relations, feats, input_drop)
        num_entities, channels = check_sizes(num_entities=num_entities, channels=channels)
        if width is None:
            width = next(w for w in range(1, self._feats + 1) if w * w >= self._feats and self._feats % w == 0)
        (width,) = check_sizes(width=width)
        lines = 2 * (self._feats // width)
        if self._feats % width or width < 3 or lines < 3:
            expected = f"a divisor of {self._feats} with images of 3 x 3 or more"
            raise ShapeError(f"width: expected {expected}, got {width}")
        self._width = width
        self.norm_in, self.norm_map = nn.BatchNorm2d(1), nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(1, channels, 3)
        self.map_drop, self.hidden_drop = nn.Dropout2d(map_drop), nn.Dropout(hidden_drop)
        self.fc = nn.Linear(channels * (lines - 2) * (width - 2), self._feats)
        self.norm_out = nn.BatchNorm1d(self._feats)
        self.bias = nn.Parameter(torch.zeros(num_entities))

    def reset_parameters(self) -> None:
        """Glorot normal rows of relations, no bias, PyTorch's own for the rest."""
        super().reset_parameters()
        for module in (self.norm_in, self.norm_map, self.conv, self.fc, self.norm_out):
            module.reset_parameters()
        nn.init.zeros_(self.bias)

    def _query(self, head, relation):
        image = torch.cat([head, relation], 1).view(len(head), 1, -1, self._width)
        maps = self.map_drop(F.relu(self.norm_map(self.conv(self.drop(self.norm_in(image))))))
        return F.relu(self.norm_out(self.hidden_drop(self.fc(maps.flatten(1)))))

    def _scores(self, query, rows, tail):
        return self._compared(query, rows) + (self.bias if tail is None else self.bias[tail])
