// What the backward passes share: alpha is formed again from the logits, and becomes the gradient of the logits,
//
//     d_logit_uv = q_uv - alpha_uv s_v,   q_uv = alpha'_uv (d_out_v . value_u),   s_v = sum over w of q_wv
//
// with alpha' = alpha * scale. s_v is also d_out_v . out_v, but out is the caller's to overwrite, and rounded to the type
// of storage; the sum over the edges is neither.

#pragma once

#include "attend.h"

HGAT_OPEN

// Of every destination v, on neighbouring addresses, H numbers each: what `fill` is given.
template <class A> struct Destinations {
  int heads;
  int64_t row;
  Buffer memory;
  A* data;

  Destinations(int64_t count, int heads, int parts, int threads)
      : heads(heads), row(static_cast<int64_t>(parts) * heads), memory(count * row * static_cast<int64_t>(sizeof(A)), threads),
        data(memory.as<A>()) {}
  const A* operator[](int64_t v) const { return data + v * row; }

  template <class... Parts> void fill(int64_t count, int threads, const Parts*... given) const {
    const A* const parts[] = {static_cast<const A*>(given)...};
    for_ranges(count, 1024, threads, [&](int64_t first, int64_t end) {
      for (int64_t v = first; v < end; ++v) {
        A* at = data + v * row;
        for (const A* from : parts)
          for (int h = 0; h < heads; ++h) *at++ = from[v * heads + h];
      }
    });
  }
};

// One number per edge and head between the passes: in the order of the out-edges, or, where an array in the graph's
// order is wanted as a result anyway, in that one, so that nothing else of its size is made.
template <class A> struct EdgeStore {
  Buffer memory;
  A* data;
  const int32_t *in, *out;  // where the edge at a position among the in-edges or the out-edges lies

  EdgeStore(const Graph& graph, int heads, A* result, bool needed, int threads)
      : memory(needed && !result ? graph.edges * heads * static_cast<int64_t>(sizeof(A)) : 0, threads),
        data(result ? result : memory.as<A>()), in(result ? graph.in.edge : graph.place),
        out(result ? graph.out.edge : nullptr) {}

  void put_out(const ByHeads<A>& by, const A* from, int64_t first, int64_t end, int heads) const {
    if (out) by.scatter(data, from, out, first, end, heads);
    else if (end > first) memcpy(data + first * heads, from, sizeof(A) * static_cast<size_t>((end - first) * heads));
  }
  void get_out(const ByHeads<A>& by, A* to, int64_t first, int64_t end, int64_t limit, int heads) const {
    if (out) by.gather(to, data, out, first, end, limit, heads);
    else if (end > first) memcpy(to, data + first * heads, sizeof(A) * static_cast<size_t>((end - first) * heads));
  }
};

// The line or lines of a destination 16 edges ahead.
template <class A>
HGAT_PREFETCHES void prefetch_destination(const Destinations<A>& from, const int32_t* other, int64_t p, int64_t limit) {
  if (p + 16 < limit) prefetch_row(from[other[p + 16]], from.row);
}

// For the edges at positions first + i, i < n: top[i, h] and inverse[i, h] of the destination, its parts 0 and 1.
template <class A, int HT>
inline void recall(const Destinations<A>& from, const int32_t* other, int64_t first, int64_t n, int64_t limit, int heads,
                   A* top, A* inverse) {
  const int H = HT ? HT : heads;
  for (int64_t i = 0; i < n; ++i, top += H, inverse += H) {
    prefetch_destination(from, other, first + i, limit);
    const A* of = from[other[first + i]];
    copy_heads<A, HT>(top, of, H);
    copy_heads<A, HT>(inverse, of + H, H);
  }
}

template <class A> inline auto recall_by_heads(int heads) {
  auto* found = &recall<A, 0>;
  with_heads(heads, [&](auto h) { found = &recall<A, decltype(h)::value>; });
  return found;
}

// x, the logit, becomes alpha; weight, which may lie where inverse does, alpha' = alpha * factor.
template <class A>
inline void alphas(A* x, const A* top, const A* inverse, const A* factor, A* weight, int64_t count) {
  constexpr int L = kLanes<A>;
  for (int64_t k = 0; k < count; k += L) {
    const Vec<A, L> alpha = exp_negative<L>(load<L>(x + k) - load<L>(top + k)) * load<L>(inverse + k);
    store<L>(x + k, alpha);
    store<L>(weight + k, factor ? alpha * load<L>(factor + k) : alpha);
  }
  for (int64_t k = count; k % L; ++k) weight[k] = 0;  // as `products` has it, where weight is inverse
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

// x *= y, [count], in whole vectors, with zeros behind: what stands there would be multiplied again in every row to come,
// down to numbers below the normal ones, each of which costs a processor a hundred times as much.
template <class A> inline void products(A* x, const A* y, int64_t count) {
  constexpr int L = kLanes<A>;
  for (int64_t k = count; k % L; ++k) x[k] = 0;
  for (int64_t k = 0; k < count; k += L) store<L>(x + k, Vec<A, L>(load<L>(x + k) * load<L>(y + k)));
}

// The numbers of one row's heads, again and again in the lanes of a vector.
template <class A, int HT> inline Vec<A, kLanes<A>> repeated(const A* row) {
  alignas(64) A lanes[kLanes<A>];
  for (int l = 0; l < kLanes<A>; l += HT) memcpy(lanes + l, row, sizeof(A) * HT);
  return load<kLanes<A>>(lanes);
}

// The same as `alphas` for the edges of one destination: top and inverse are its own, [H].
template <class A, int HT>
void row_alphas(A* x, int64_t n, int heads, const A* top, const A* inverse, const A* factor, A* weight) {
  constexpr int L = kLanes<A>;
  using V = Vec<A, L>;
  const int64_t count = n * heads;
  if constexpr (HT > 0 && HT <= L) {
    const V highest = repeated<A, HT>(top), over = repeated<A, HT>(inverse);
    for (int64_t k = 0; k < count; k += L) {
      const V alpha = exp_negative<L>(load<L>(x + k) - highest) * over;
      store<L>(x + k, alpha);
      store<L>(weight + k, factor ? alpha * load<L>(factor + k) : alpha);
    }
  } else {
    for (int64_t i = 0; i < n; ++i)
      for (int h = 0; h < heads; ++h) x[i * heads + h] -= top[h];
    exp_all(x, count);
    for (int64_t i = 0; i < n; ++i)
      for (int h = 0; h < heads; ++h) {
        const int64_t k = i * heads + h;
        x[k] *= inverse[h];
        weight[k] = factor ? x[k] * factor[k] : x[k];
      }
  }
}

// x, alpha of the edges of one destination, becomes the gradient of the logit, q - alpha s; s is the destination's, [H].
template <class A, int HT> void row_gradients(A* x, const A* q, const A* s, int64_t n, int heads) {
  constexpr int L = kLanes<A>;
  if constexpr (HT > 0 && HT <= L) {
    const Vec<A, L> sum = repeated<A, HT>(s);
    for (int64_t k = 0; k < n * heads; k += L)
      store<L>(x + k, Vec<A, L>(load<L>(q + k) - load<L>(x + k) * sum));
  } else {
    for (int64_t i = 0; i < n; ++i)
      for (int h = 0; h < heads; ++h) x[i * heads + h] = q[i * heads + h] - x[i * heads + h] * s[h];
  }
}

// The two, for a number of heads.
template <class A> struct ByRow {
  void (*alphas)(A*, int64_t, int, const A*, const A*, const A*, A*);
  void (*gradients)(A*, const A*, const A*, int64_t, int);

  explicit ByRow(int heads) {
    with_heads(heads, [&](auto h) {
      alphas = &row_alphas<A, decltype(h)::value>;
      gradients = &row_gradients<A, decltype(h)::value>;
    });
  }
};

// Of every long row: the sums of its segments, H numbers at part + segment * size each, become the row's, in the place
// of each of them; found(row, sum).
template <class A, class Found>
inline void share_sums(const Rows& rows, A* part, int64_t size, int heads, const Found& found) {
  for_long_rows(rows, [&](int64_t row, int64_t from, int64_t to) {
    for (int64_t k = from + 1; k < to; ++k) add(part + from * size, part + k * size, heads);
    for (int64_t k = from + 1; k < to; ++k) memcpy(part + k * size, part + from * size, sizeof(A) * heads);
    found(row, part + from * size);
  });
}

HGAT_CLOSE
