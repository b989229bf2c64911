// Softmax over one row of logits [n, H], and what is done to alpha before the sum.

#pragma once

#include "dropout.h"
#include "kernels.h"
#include "rows.h"
#include "simd.h"

HGAT_OPEN

// What is subtracted before the exponential: the highest logit, or zero in a row that is all minus infinity, whose
// exponentials are then zero, as a row without edges has none.
template <class A> inline A shift(A top) { return top == -__builtin_inf() ? A(0) : top; }

// x[i, h] becomes exp(x[i, h] - top[h]); top[h] = max over i; total[h] = sum over i, zero if every x[i, h] is minus
// infinity. n >= 1.
//
// Where H divides the lanes of a vector, lane l belongs to head l mod H throughout, whatever the number of edges, and
// the padding behind the row is minus infinity: it raises no maximum and adds nothing.
template <class A, int HT> inline void softmax(A* x, int64_t n, int heads, A* top, A* total) {
  constexpr int L = kLanes<A>;
  using V = Vec<A, L>;
  if constexpr (HT > 0 && HT <= L) {
    const int64_t count = n * HT;
    const int64_t full = (count + L - 1) / L * L;
    for (int64_t i = count; i < full; ++i) x[i] = -__builtin_inf();
    V highest = load<L>(x);
    for (int64_t i = L; i < full; i += L) highest = greater<A, L>(load<L>(x + i), highest);
    for (int step = L / 2; step >= HT; step /= 2) highest = greater<A, L>(rotate<A, L>(highest, step), highest);
    const V low = V{} - static_cast<A>(__builtin_inf());
    const V taken = highest == low ? V{} : highest;
    V sum = V{};
    for (int64_t i = 0; i < full; i += L) {
      const V e = exp_negative<L>(load<L>(x + i) - taken);
      store<L>(x + i, e);
      sum += e;
    }
    for (int step = L / 2; step >= HT; step /= 2) sum += rotate<A, L>(sum, step);
    for (int h = 0; h < HT; ++h) {
      top[h] = highest[h];
      total[h] = sum[h];
    }
  } else {
    for (int h = 0; h < heads; ++h) top[h] = x[h];
    for (int64_t i = 1; i < n; ++i)
      for (int h = 0; h < heads; ++h) top[h] = x[i * heads + h] > top[h] ? x[i * heads + h] : top[h];
    for (int64_t i = 0; i < n; ++i)
      for (int h = 0; h < heads; ++h) x[i * heads + h] -= shift(top[h]);
    exp_all(x, n * heads);
    for (int h = 0; h < heads; ++h) total[h] = 0;
    for (int64_t i = 0; i < n; ++i)
      for (int h = 0; h < heads; ++h) total[h] += x[i * heads + h];
  }
}

// x[i, h] = minus infinity where the edge at position first + i is left out.
template <class A> inline void leave_out(const AlphaScale& s, const int32_t* edge, int64_t n, int heads, A* x) {
  if (s.keep == nullptr) return;
  const A out = -static_cast<A>(__builtin_inf());
  for (int64_t i = 0; i < n; ++i) {
    const uint8_t* keep = s.keep + static_cast<int64_t>(edge[i]) * s.keep_heads;
    for (int h = 0; h < heads; ++h)
      if (!keep[s.keep_heads == 1 ? 0 : h]) x[i * heads + h] = out;
  }
}

inline bool changes(const AlphaScale& scale) { return scale.weight != nullptr || scale.drops; }

// scale[i, h] = (0 or 1 / (1 - p)) * edge weight of the edge at position first + i.
// dropout_only, if not null, gets the first factor alone.
template <class A, int HT>
inline void alpha_scale(const AlphaScale& s, const int32_t* edge, int64_t n, int heads, A* scale, A* dropout_only) {
  const int H = HT ? HT : heads;
  const A keep = static_cast<A>(s.keep_scale);
  const A* weight = static_cast<const A*>(s.weight);
  for (int64_t i = 0; i < n; ++i) {
    if (s.drops) {
      const uint32_t row = dropout_row(s.key, static_cast<uint64_t>(edge[i]));
      for (int h = 0; h < H; ++h)
        scale[i * H + h] = dropout_bits(row, static_cast<uint32_t>(h)) >= s.threshold ? keep : A(0);
    } else {
      for (int h = 0; h < H; ++h) scale[i * H + h] = 1;
    }
  }
  if (dropout_only) memcpy(dropout_only, scale, static_cast<size_t>(n * H) * sizeof(A));
  if (weight == nullptr) return;
  for (int64_t i = 0; i < n; ++i)
    for (int h = 0; h < H; ++h)
      scale[i * H + h] *= s.weight_heads == 1 ? weight[edge[i]] : weight[static_cast<int64_t>(edge[i]) * H + h];
}

HGAT_CLOSE
