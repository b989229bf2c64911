// Forward of every attention operator: logits of a row, softmax, scaling of alpha, sum. What differs between the
// operators is how a row's logits are computed.

#pragma once

#include "gather.h"
#include "softmax.h"

HGAT_OPEN

// The parts of the work that are compiled for a fixed number of heads.
template <class A> struct ByHeads {
  void (*softmax)(A*, int64_t, int, A*, A*);
  void (*scale)(const AlphaScale&, const int32_t*, int64_t, int, A*, A*);
  void (*gather)(A*, const A*, const int32_t*, int64_t, int64_t, int64_t, int);
  void (*scatter)(A*, const A*, const int32_t*, int64_t, int64_t, int);
  void (*sum)(const A*, int64_t, int, A*);
};

template <class A> inline ByHeads<A> by_heads(int heads) {
  ByHeads<A> found;
  with_heads(heads, [&](auto h) {
    constexpr int HT = decltype(h)::value;
    found = {&softmax<A, HT>, &alpha_scale<A, HT>, &gather_heads<A, HT>, &scatter_heads<A, HT>,
             &sum_heads<A, HT>};
  });
  return found;
}

// Sums of scores of the edges at positions [first, end), [end - first, H]: of the row's own, [H], of the node at the
// other end and of the edge. Absent scores count as zero.
template <class A, int HT>
void score_sums(const Rows& rows, int heads, const A* own, const A* other, const A* edge, int64_t first, int64_t end, A* x) {
  const int H = HT ? HT : heads;
  const int64_t edges = rows.indptr[rows.rows];
  if constexpr (HT > 0) {
    const Vec<A, HT> mine = own ? load<HT>(own) : Vec<A, HT>{};
    for (int64_t p = first; p < end; ++p, x += H) {
      Vec<A, HT> sum = mine;
      if (other) {
        if (p + 16 < edges) prefetch_line(other + static_cast<int64_t>(rows.other[p + 16]) * H);
        sum += load<HT>(other + static_cast<int64_t>(rows.other[p]) * H);
      }
      if (edge) sum += load<HT>(edge + static_cast<int64_t>(rows.edge[p]) * H);
      store<HT>(x, sum);
    }
    return;
  }
  for (int64_t p = first; p < end; ++p, x += H) {
    if (other) {
      if (p + 16 < edges) prefetch_line(other + static_cast<int64_t>(rows.other[p + 16]) * H);
      const A* from = other + static_cast<int64_t>(rows.other[p]) * H;
      for (int h = 0; h < H; ++h) x[h] = from[h] + own[h];
    } else {
      for (int h = 0; h < H; ++h) x[h] = 0;
    }
    if (edge) {
      const A* on = edge + static_cast<int64_t>(rows.edge[p]) * H;
      for (int h = 0; h < H; ++h) x[h] += on[h];
    }
  }
}

template <class A> inline auto score_sums_by_heads(int heads) {
  auto* found = &score_sums<A, 0>;
  with_heads(heads, [&](auto h) { found = &score_sums<A, decltype(h)::value>; });
  return found;
}

// One over the sum of a row's exponentials; zero where every edge is left out, so that alpha is zero there.
template <class A> inline A over(A sum) { return sum == 0 ? A(0) : A(1) / sum; }

template <class A> struct Softmaxed {
  // [rows, H] what was subtracted from the logits, and one over the sum of exp(logit - that); or null
  A *out_top, *out_inverse;
  A* alpha;                  // [E, H] in the graph's order, or null
};

// logits(row, first, end, x, scratch) fills x [end - first, H]. own: elements of scratch that it needs per thread.
// out: [rows, H, D] or null.
template <class T, int W, class Logits>
inline void attend(const Rows& rows, const AlphaScale& scale, int threads, const Layout<W>& layout, const Matrix<T>& value,
                   T* out, const Softmaxed<Sum<T>>& result, int64_t own, const Logits& logits) {
  using A = Sum<T>;
  const int H = layout.heads;
  const RowLoops<T, W> loops(layout);
  const ByHeads<A> heads = by_heads<A>(H);
  const bool scaled = changes(scale);
  const int64_t edges = rows.indptr[rows.rows];
  const int64_t size_x = padded<A>(kSegment * H), size_total = padded<A>(out ? layout.lanes() : 0), size_h = padded<A>(H);
  const int64_t size = 2 * size_x + size_total + 3 * size_h + padded<A>(own);
  const Buffer scratch(size * threads * static_cast<int64_t>(sizeof(A)));
  const int64_t parts = segments(rows);
  const Buffer part(parts * (size_total + 2 * size_h) * static_cast<int64_t>(sizeof(A)));
  A* part_total = part.as<A>();
  A* part_top = part.as<A>(parts * size_total);
  A* part_sum = part.as<A>(parts * (size_total + size_h));

  for_rows(rows, threads, [&](int64_t row, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
    A* x = scratch.as<A>(size * thread);
    A* factor = x + size_x;
    A* total = factor + size_x;
    A* top = total + size_total;
    A* sum = top + size_h;
    A* inverse = sum + size_h;
    const int64_t n = end - first;
    if (n == 0) {
      if (out) zero(out + row * static_cast<int64_t>(H) * layout.width, static_cast<int64_t>(H) * layout.width);
      if (result.out_top) zero(result.out_top + row * H, H), zero(result.out_inverse + row * H, H);
      return;
    }
    logits(row, first, end, x, inverse + size_h);
    leave_out(scale, rows.edge + first, n, H, x);
    heads.softmax(x, n, H, top, sum);
    for (int h = 0; h < H; ++h) inverse[h] = segment < 0 ? over(sum[h]) : A(1);
    if (segment < 0) {
      if (result.out_top)
        for (int h = 0; h < H; ++h)
          result.out_top[row * H + h] = shift(top[h]), result.out_inverse[row * H + h] = inverse[h];
    } else {
      memcpy(part_top + segment * size_h, top, sizeof(A) * H);
      memcpy(part_sum + segment * size_h, sum, sizeof(A) * H);
    }
    if (result.alpha)
      for (int64_t i = 0; i < n; ++i)
        for (int h = 0; h < H; ++h)
          result.alpha[static_cast<int64_t>(rows.edge[first + i]) * H + h] = x[i * H + h] * inverse[h];
    if (out == nullptr) return;
    if (scaled) {
      heads.scale(scale, rows.edge + first, n, H, factor, nullptr);
      for (int64_t i = 0; i < n * H; ++i) x[i] *= factor[i];
    }
    A* to = segment < 0 ? total : part_total + segment * size_total;
    zero(to, layout.lanes());
    loops.add(layout, value, rows.other, first, end, edges, x, to);
    if (segment < 0) pack<T, W>(layout, to, inverse, out + row * static_cast<int64_t>(H) * layout.width);
  });
  if (parts == 0) return;

  // The parts of a long row were taken relative to their own highest logits: bring them to the row's.
  A* correction = part_top;  // overwritten part by part
  for_long_rows(rows, [&](int64_t row, int64_t from, int64_t to) {
    A* top = scratch.as<A>();
    A* sum = top + size_h;
    for (int h = 0; h < H; ++h) {
      top[h] = part_top[from * size_h + h];
      for (int64_t s = from + 1; s < to; ++s)
        top[h] = part_top[s * size_h + h] > top[h] ? part_top[s * size_h + h] : top[h];
      sum[h] = 0;
      for (int64_t s = from; s < to; ++s) {
        A& here = correction[s * size_h + h];
        here = exp_negative<1>(here - shift(top[h]));
        sum[h] += here * part_sum[s * size_h + h];
      }
      const A inverse = over(sum[h]);
      if (result.out_top) result.out_top[row * H + h] = shift(top[h]), result.out_inverse[row * H + h] = inverse;
      for (int64_t s = from; s < to; ++s) correction[s * size_h + h] *= inverse;
    }
    if (out == nullptr) return;
    A* total = part_total + from * size_total;
    const int64_t per_head = static_cast<int64_t>(layout.chunks) * W;
    for (int64_t s = from; s < to; ++s)
      for (int h = 0; h < H; ++h)
        for (int64_t l = h * per_head; l < (h + 1) * per_head; ++l) {
          const A here = correction[s * size_h + h] * part_total[s * size_total + l];
          total[l] = s == from ? here : total[l] + here;
        }
    pack<T, W>(layout, total, nullptr, out + row * static_cast<int64_t>(H) * layout.width);
  });
  if (result.alpha == nullptr) return;
  for_rows(rows, threads, [&](int64_t, int64_t first, int64_t end, int64_t segment, int64_t, int) {
    if (segment < 0) return;
    for (int64_t p = first; p < end; ++p)
      for (int h = 0; h < H; ++h)
        result.alpha[static_cast<int64_t>(rows.edge[p]) * H + h] *= correction[segment * size_h + h];
  });
}

// out[row, h] = sum over the row's edges of value[index[position], h].
template <class A>
inline void sum_edges(const Rows& rows, int heads, int threads, const A* value, const int32_t* index, A* out) {
  const int64_t parts = segments(rows), edges = rows.indptr[rows.rows];
  const Buffer part(parts * heads * static_cast<int64_t>(sizeof(A)));
  with_heads(heads, [&](auto constant) {
    constexpr int HT = decltype(constant)::value;
    const int H = HT ? HT : heads;
    for_rows(rows, threads, [&](int64_t row, int64_t first, int64_t end, int64_t segment, int64_t, int) {
      A* to = segment < 0 ? out + row * H : part.as<A>(segment * H);
      auto each = [&](auto&& take) {
        for (int64_t p = first; p < end; ++p) {
          if (p + 16 < edges) prefetch_line(value + static_cast<int64_t>(index[p + 16]) * H);
          take(value + static_cast<int64_t>(index[p]) * H);
        }
      };
      if constexpr (HT > 0) {
        Vec<A, HT> sum{};
        each([&](const A* from) { sum += load<HT>(from); });
        store<HT>(to, sum);
      } else {
        for (int h = 0; h < H; ++h) to[h] = 0;
        each([&](const A* from) { for (int h = 0; h < H; ++h) to[h] += from[h]; });
      }
    });
    for_long_rows(rows, [&](int64_t row, int64_t from, int64_t to) {
      for (int h = 0; h < H; ++h) out[row * H + h] = 0;
      for (int64_t s = from; s < to; ++s) add(out + row * H, part.as<A>(s * H), H);
    });
  });
}

HGAT_CLOSE
