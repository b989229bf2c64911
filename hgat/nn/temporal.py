"""Self-attention of every node over its own past."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hgat import ops
from hgat.errors import ShapeError, check_shape, is_whole
from hgat.nn.common import WideParameters, check_floats, check_rates, check_sizes

__all__ = ["TemporalAttention"]

# Keys, values and presence of the steps before the next one: [N, H, T, D] twice, [N, T].
Cache = tuple[Tensor, Tensor, Tensor]


class TemporalAttention(WideParameters):
    """Scaled dot-product self-attention over the T steps of each node, each step seeing itself and those before it.

        X = x + p;  Q, K, V = X W_q, X W_k, X W_v
        beta_ij = softmax over j <= i of Q_i . K_j / sqrt(D);  Z = beta V, heads side by side [+ X]
        out = relu(Z W + b) + Z

    position: "learned", p a row for each of num_steps steps; "time", p_t = cos(w time_t + phi) with learned w and phi,
    for which forward takes the time of every step; "none". scale: "sqrt_d" or "sqrt_T", sqrt(T) in place of sqrt(D).
    residual: X is added to Z. In half types the angle w time + phi is computed in float32, and w and phi stay float32.
    Inside hgat.ops.uniform_attention() beta is the mean over the steps up to i.

    Shapes: x [N, T, F] -> [N, T, F], in `forward` for all steps and in `extend` one after the other.

    Paper: Sankar et al. 2019 (DySAT), arXiv:1812.09430, eq. 2. Differs: its mask is printed with i and j exchanged,
    which would let a step see the future and not the past; text and code mean the form above. The feed-forward layer's
    ReLU and skip, and "sqrt_T", are those of the authors' code; the masking of absent steps and the residual are in
    neither.
    """

    _wide = ("frequency", "phase")

    def __init__(
        self,
        feats: int,
        num_heads: int,
        num_steps: int | None = None,
        attn_drop: float = 0.0,
        *,
        position: str = "learned",
        scale: str = "sqrt_d",
        feed_forward: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(feats=feats)
        check_rates(attn_drop=attn_drop)
        if position not in ("learned", "time", "none"):
            raise ShapeError(f"position: expected 'learned', 'time' or 'none', got {position!r}")
        if scale not in ("sqrt_d", "sqrt_T"):
            raise ShapeError(f"scale: expected 'sqrt_d' or 'sqrt_T', got {scale!r}")
        if not is_whole(num_heads, 1) or feats % num_heads:
            raise ShapeError(f"num_heads: expected a divisor of F = {feats}, got {num_heads!r}")
        if position == "learned" and not is_whole(num_steps, 1):
            raise ShapeError(f"num_steps: expected 1 or more for learned positions, got {num_steps!r}")
        self._feats, self._num_heads = feats, num_heads
        self.position, self.scale, self.residual = position, scale, residual
        self.qkv = nn.Linear(feats, 3 * feats, bias=False)
        if position == "learned":
            self.place = nn.Parameter(torch.empty(num_steps or 0, feats))
        elif position == "time":
            self.frequency = nn.Parameter(torch.empty(feats))
            self.phase = nn.Parameter(torch.empty(feats))
        self.feed_forward = nn.Linear(feats, feats) if feed_forward else None
        self.attn_drop = nn.Dropout(attn_drop)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-uniform for every projection and for positions; frequencies from 1 down to 1e-9, as in TGAT."""
        for weight in self.qkv.weight.view(3, self._feats, self._feats):
            nn.init.xavier_uniform_(weight.data)
        if self.position == "learned":
            nn.init.xavier_uniform_(self.place)
        elif self.position == "time":
            self.frequency.data = 10.0 ** -torch.linspace(0, 9, self._feats)
            nn.init.zeros_(self.phase)
        if self.feed_forward is not None:
            nn.init.xavier_uniform_(self.feed_forward.weight)
            nn.init.zeros_(self.feed_forward.bias)

    def forward(
        self, x: Tensor, present: Tensor | None = None, time: Tensor | None = None, get_attention: bool = False
    ) -> Any:
        """Every step of every node after it has looked at itself and at the steps before it.

        x [N, T, F]; present [T, N] bool, or None where all are: an absent step is seen by no other and gives zeros;
        time [T] for position "time" -> [N, T, F]. With get_attention also beta [N, H, T, T], before dropout.
        Raises ShapeError for tensors unlike one another, and for more steps than there are learned positions.
        """
        check_floats("x", x, self.qkv.weight)
        check_shape("x", x, ("N", None), ("T", None), ("F", self._feats))
        nodes, steps, _ = x.shape
        if present is not None:
            _check_present(present, ("T", steps), ("N", nodes))
            present = present.t()  # [N, T]
        x = self._placed(x, 0, time)
        query, key, value = self._project(x)
        causal = torch.ones(steps, steps, dtype=torch.bool, device=x.device).tril()
        mask = causal
        # On the CPU it is asked whether anyone is absent; elsewhere the answer would be waited for.
        if present is not None and (present.device.type != "cpu" or not bool(present.all())):
            # A step always sees itself: a row that sees nothing would be NaN, and is zeroed below.
            mask = causal & (present.unsqueeze(1) | torch.eye(steps, dtype=torch.bool, device=x.device))
            mask = mask.unsqueeze(1)  # [N, 1, T, T]
        else:
            present = None
        out = self._finish(x, self._attend(query, key, value, mask, steps), present)
        if not get_attention:
            return out
        beta = self._weights(query, key, mask, steps)
        return out, beta if present is None else beta * present[:, None, :, None]

    def extend(
        self, x: Tensor, cache: Cache | None = None, present: Tensor | None = None, time: float | Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """The next step alone: row T of `forward`, in O(T) and with nothing of the past computed again.

        x [N, F]; cache: of the steps before it, what the last call gave, or None for the first; present [N] bool, or
        None where all are; time: a number, for position "time" -> ([N, F], cache).
        Raises ShapeError as `forward` does.
        """
        check_floats("x", x, self.qkv.weight)
        check_shape("x", x, ("N", None if cache is None else cache[0].shape[0]), ("F", self._feats))
        if present is not None:
            _check_present(present, ("N", len(x)))
        first = 0 if cache is None else cache[0].shape[2]
        time = None if time is None else torch.as_tensor(time).reshape(1)
        x = self._placed(x.unsqueeze(1), first, time)
        query, key, value = self._project(x)
        seen = x.new_ones(len(x), 1, dtype=torch.bool) if present is None else present.unsqueeze(1)
        if cache is not None:
            key, value = torch.cat([cache[0], key], 2), torch.cat([cache[1], value], 2)
            seen = torch.cat([cache[2], seen], 1)
        mask = seen.clone()
        mask[:, -1] = True
        out = self._attend(query, key, value, mask[:, None, None], key.shape[2])
        return self._finish(x, out, seen[:, -1:]).squeeze(1), (key, value, seen)

    def _placed(self, x: Tensor, first: int, time: Any) -> Tensor:
        """X [N, T, F] of steps from number `first` on."""
        steps = x.shape[1]
        if self.position == "learned":
            if first + steps > len(self.place):
                raise ShapeError(
                    f"x: expected at most {len(self.place)} steps, as many as positions, got {first + steps}"
                )
            return x + self.place[first : first + steps]
        if self.position == "time":
            if time is None:
                raise ShapeError("time: expected the time of every step, [T], got None")
            check_shape("time", time, ("T", steps))
            time = torch.as_tensor(time)
            # In half precision a day in seconds is infinite, or thousands of radians off.
            kind = torch.promote_types(x.dtype, torch.promote_types(self.frequency.dtype, torch.float32))
            angle = time.to(x.device, kind).unsqueeze(1) * self.frequency.to(kind) + self.phase.to(kind)
            return x + torch.cos(angle).to(x.dtype)
        return x

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Q, K, V [N, H, T, D]."""
        heads = self.qkv(x).unflatten(-1, (3, self._num_heads, self._feats // self._num_heads))
        return heads.permute(2, 0, 3, 1, 4).unbind(0)

    def _factor(self, query: Tensor, steps: int) -> float:
        return (query.shape[-1] if self.scale == "sqrt_d" else steps) ** -0.5

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, steps: int) -> Tensor:
        drop = self.attn_drop.p if self.attn_drop.training else 0.0
        out = ops.scaled_dot_product_attention(query, key, value, mask, drop, scale=self._factor(query, steps))
        return out.transpose(1, 2).flatten(2)

    def _weights(self, query: Tensor, key: Tensor, mask: Tensor, steps: int) -> Tensor:
        logits = query @ key.transpose(-1, -2) * self._factor(query, steps)
        return ops.alignment(logits, dim=-1, mask=mask)

    def _finish(self, x: Tensor, z: Tensor, present: Tensor | None) -> Tensor:
        z = z + x if self.residual else z
        if self.feed_forward is not None:
            z = F.relu(self.feed_forward(z)) + z
        if present is not None:
            return z * present.unsqueeze(-1)
        # What attention gave, which it keeps for backward, is not handed out to be overwritten.
        return z if self.residual or self.feed_forward is not None else z.clone()


def _check_present(present: Any, *shape: tuple[str, int]) -> None:
    check_shape("present", present, *shape)
    if not isinstance(present, torch.Tensor) or present.dtype != torch.bool:
        raise ShapeError(f"present: expected a tensor of torch.bool, got {getattr(present, 'dtype', type(present))}")
