// What the passes by source share: alpha is formed again from the logits, and becomes the gradient of the logits.

#pragma once

#include "attend.h"

HGAT_OPEN

// Of every destination v, on neighbouring addresses, H numbers each: [score_v, if given | highest logit | one over the
// sum | s_v = d_out_v . out_v].
template <class A> struct Destinations {
  int64_t row;
  Buffer memory;
  A* data;

  Destinations(int64_t count, int heads, bool scores, int threads)
      : row((scores ? 4 : 3) * heads), memory(count * row * static_cast<int64_t>(sizeof(A)), threads),
        data(memory.as<A>()) {}
  const A* operator[](int64_t v) const { return data + v * row; }
};

template <class T, int W>
inline void fill(const Destinations<Sum<T>>& to, int64_t count, int threads, const Layout<W>& layout,
                 const RowLoops<T, W>& loops, const void* score, const void* top, const void* inverse, const void* out,
                 const Matrix<T>& d_out) {
  using A = Sum<T>;
  const int H = layout.heads;
  const void* const parts[] = {score, top, inverse};
  for_ranges(count, 1024, threads, [&](int64_t first, int64_t end) {
    for (int64_t v = first; v < end; ++v) {
      A* at = to.data + v * to.row;
      for (const void* part : parts) {
        if (part == nullptr) continue;
        for (int h = 0; h < H; ++h) at[h] = static_cast<const A*>(part)[v * H + h];
        at += H;
      }
      loops.products(layout, static_cast<const T*>(out) + v * d_out.row, d_out[v], at);
    }
  });
}

// The line or lines of a destination 16 edges ahead.
template <class A>
HGAT_PREFETCHES void prefetch_destination(const Destinations<A>& from, const int32_t* other, int64_t p, int64_t limit) {
  if (p + 16 < limit) prefetch_row(from[other[p + 16]], from.row);
}

// For the edges at positions first + i, i < n: x[i, h] -= highest logit; inverse[i, h], s[i, h] from the destination.
template <class A, int HT>
inline void recall(const Destinations<A>& from, const int32_t* other, int64_t first, int64_t n, int64_t limit, int heads,
                   A* x, A* inverse, A* s) {
  const int H = HT ? HT : heads;
  for (int64_t i = 0; i < n; ++i, x += H, inverse += H, s += H) {
    prefetch_destination(from, other, first + i, limit);
    const A* of = from[other[first + i]];
    if constexpr (HT > 0) {
      store<HT>(x, Vec<A, HT>(load<HT>(x) - load<HT>(of)));
    } else {
      for (int h = 0; h < H; ++h) x[h] -= of[h];
    }
    copy_heads<A, HT>(inverse, of + H, H);
    copy_heads<A, HT>(s, of + 2 * H, H);
  }
}

template <class A> inline auto recall_by_heads(int heads) {
  auto* found = &recall<A, 0>;
  with_heads(heads, [&](auto h) { found = &recall<A, decltype(h)::value>; });
  return found;
}

// x, the logit less the highest one, becomes alpha; weight, which may lie where inverse does, alpha' = alpha * factor.
template <class A> inline void alphas(A* x, const A* inverse, const A* factor, A* weight, int64_t count) {
  constexpr int L = kLanes<A>;
  for (int64_t k = 0; k < count; k += L) {
    const Vec<A, L> alpha = exp_negative<L>(load<L>(x + k)) * load<L>(inverse + k);
    store<L>(x + k, alpha);
    store<L>(weight + k, factor ? alpha * load<L>(factor + k) : alpha);
  }
}

// d_weight of the edges: alpha * dropout * (d_out . value).
template <class A>
inline void weight_gradients(A* d_weight, const int32_t* edge, int64_t n, int heads, const A* alpha, const A* dropped,
                             const A* dot) {
  for (int64_t i = 0; i < n; ++i)
    for (int h = 0; h < heads; ++h) {
      const int64_t k = i * heads + h;
      d_weight[static_cast<int64_t>(edge[i]) * heads + h] = alpha[k] * dropped[k] * dot[k];
    }
}

// x, alpha, becomes the gradient of the logit: alpha (factor (d_out . value) - s).
template <class A> inline void logit_gradients(A* x, const A* dot, const A* factor, const A* s, int64_t count) {
  constexpr int L = kLanes<A>;
  for (int64_t k = 0; k < count; k += L) {
    Vec<A, L> product = load<L>(dot + k);
    if (factor) product = product * load<L>(factor + k);
    store<L>(x + k, Vec<A, L>(load<L>(x + k) * (product - load<L>(s + k))));
  }
}

HGAT_CLOSE
