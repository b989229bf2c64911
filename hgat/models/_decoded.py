"""A system that gives rows of entities, and a decoder that scores triples by them: what triples are asked of."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from hgat.models._system import Past, Shares, System
from hgat.nn.decoders import ConvEDecoder, DistMultDecoder, TransEDecoder

__all__ = ["Decoded", "Query", "decoder_of"]


class Query(NamedTuple):
    """Heads and relations [B] that tails are asked for; tail: [B, K], those to score, or None for all."""

    head: Tensor
    relation: Tensor
    tail: Tensor | None = None


class Decoded(System):
    """An encoder, whose answer is a row of every entity, and a decoder of hgat.nn.decoders on these rows."""

    def __init__(self, encoder: System, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, *inputs_and_query: Any) -> Tensor:
        """The inputs of the encoder, whose answer is [N, D], and a Query -> scores [B, N] or [B, K].

        Raises what both raise.
        """
        *inputs, query = inputs_and_query
        return self.decoder(self.encoder(*inputs), *query)

    def scorer(self, inputs: tuple) -> Callable[[Tensor, Tensor], Tensor]:
        """A function of (head, relation) [B] that gives scores [B, N]; the encoder is run once."""
        rows = self.encoder.whole(inputs)
        return lambda head, relation: self.decoder(rows, head, relation)

    def whole(self, inputs: tuple, batch_size: int | None = None) -> Tensor:
        """Rows of the entities, [N, D]."""
        return self.encoder.whole(inputs, batch_size)

    def groups(self) -> list[dict]:
        """Those of the encoder, and the decoder's parameters."""
        return [*self.encoder.groups(), {"params": list(self.decoder.parameters())}]

    def attended(self, *inputs: Any) -> list[Shares] | list[Past]:
        """What the encoder's attention was spent on."""
        return self.encoder.attended(*inputs)

    def attention(self, *inputs: Any) -> Any:
        """The encoder's own."""
        encoder: Any = self.encoder
        return encoder.attention(*inputs)


def decoder_of(
    name: str, num_entities: int, num_relations: int, feats: int, *, drop: float, margin: float, channels: int
) -> nn.Module:
    """The decoder called "distmult", "transe" or "conve"; what it has no use for is not read."""
    if name == "distmult":
        return DistMultDecoder(num_relations, feats, drop=drop)
    if name == "transe":
        return TransEDecoder(num_relations, feats, margin=margin, drop=drop)
    rates = {"input_drop": drop, "map_drop": drop, "hidden_drop": drop}
    return ConvEDecoder(num_entities, num_relations, feats, channels=channels, width=None, **rates)
