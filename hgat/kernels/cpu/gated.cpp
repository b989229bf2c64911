// Weights without a softmax, each from its own edge alone: tanh or sigmoid of the sum of scores.

#include "backward.h"

HGAT_OPEN
namespace {

// tanh to a few units in the last place, also next to zero, where the difference of exponentials would cancel.
// Constants: S. Moshier's Cephes, tanhf and tanh.
template <class A, int W> inline Vec<A, W> tanh_of(Vec<A, W> x) {
  using V = Vec<A, W>;
  const V z = x * x;
  V near;
  if constexpr (sizeof(A) == sizeof(float)) {
    near = z * -5.70498872745e-3f + 2.06390887954e-2f;
    near = near * z - 5.37397155531e-2f;
    near = near * z + 1.33314422036e-1f;
    near = near * z - 3.33332819422e-1f;
    near = x + x * z * near;
  } else {
    V over = z * -9.64399179425052238628e-1 - 9.92877231001918586564e1;
    over = over * z - 1.61468768441708447952e3;
    V under = z + 1.12811678491632931402e2;
    under = under * z + 2.23548839060100448583e3;
    under = under * z + 4.84406305325125486048e3;
    near = x + x * z * (over / under);
  }
  const V size = x < 0 ? -x : x;
  const V e = exp_negative<W>(size * A(-2));
  const V far = (A(1) - e) / (A(1) + e);
  return size < A(0.625) ? near : x < 0 ? -far : far;
}

template <class A, int W> inline Vec<A, W> sigmoid_of(Vec<A, W> x) {
  using V = Vec<A, W>;
  const V e = exp_negative<W>(x < 0 ? x : -x);  // of the side that cannot overflow
  return (x < 0 ? e : V{} + A(1)) / (A(1) + e);
}

// x, the logits, become weights; slope, if not null, their derivatives. Minus infinity leaves an edge out. Never inlined,
// so that forward and backward round alike.
template <class A> __attribute__((noinline)) void gates(bool tanh, int64_t count, A* x, A* slope) {
  constexpr int L = kLanes<A>;
  using V = Vec<A, L>;
  const V out = V{} - static_cast<A>(__builtin_inf());
  for (int64_t k = 0; k < count; k += L) {
    const V logit = load<L>(x + k);
    const V f = tanh ? tanh_of<A, L>(logit) : sigmoid_of<A, L>(logit);
    store<L>(x + k, V(logit == out ? V{} : f));
    if (slope == nullptr) continue;
    const V d = tanh ? A(1) - f * f : f * (A(1) - f);
    store<L>(slope + k, V(logit == out ? V{} : d));
  }
}

template <class T, int W> void forward(const Gated& g) {
  using A = Sum<T>;
  const int H = g.heads;
  const Rows& rows = g.graph.in;
  const Layout<W> layout(H, g.width);
  const RowLoops<T, W> loops(layout);
  const ByHeads<A> heads = by_heads<A>(H);
  auto* const sums_of = score_sums_by_heads<A>(H);
  const Matrix<T> value(g.value, H, g.width);
  const A* src = static_cast<const A*>(g.score_src);
  const A* dst = static_cast<const A*>(g.score_dst);
  const A* edge = static_cast<const A*>(g.score_edge);
  T* out = static_cast<T*>(g.out);
  const bool scaled = changes(g.scale);
  // Without dropout the factor is the weight as it stands, and the line of an edge to come can be sent for.
  const A* weight = g.scale.drops || g.scale.weight_heads != H ? nullptr : static_cast<const A*>(g.scale.weight);
  const int64_t edges = g.graph.edges;
  const int64_t size_x = padded<A>(kSegment * H), size_total = padded<A>(layout.lanes());
  const int64_t size = 2 * size_x + size_total, parts = segments(rows);
  const Buffer scratch(size * g.threads * static_cast<int64_t>(sizeof(A)));
  const Buffer part(parts * size_total * static_cast<int64_t>(sizeof(A)));
  for_rows(rows, g.threads, [&](int64_t v, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
    A* x = scratch.as<A>(size * thread);
    A* factor = x + size_x;
    A* total = segment < 0 ? factor + size_x : part.as<A>(segment * size_total);
    const int64_t n = end - first, count = n * H;
    zero(total, layout.lanes());
    sums_of(rows, H, dst + v * H, src, edge, first, end, x);
    leave_out(g.scale, rows.edge + first, n, H, x);
    gates<A>(g.tanh, count, x, nullptr);
    if (weight) heads.gather(factor, weight, rows.edge, first, end, edges, H);
    else if (scaled) heads.scale(g.scale, rows.edge + first, n, H, factor, nullptr);
    if (scaled) products(x, factor, count);
    loops.add(layout, value, rows.other, first, end, edges, x, total);
    if (segment < 0) pack<T, W>(layout, total, nullptr, out + v * value.row);
  });
  for_long_rows(rows, [&](int64_t v, int64_t from, int64_t to) {
    for (int64_t k = from + 1; k < to; ++k)
      add(part.as<A>(from * size_total), part.as<A>(k * size_total), layout.lanes());
    pack<T, W>(layout, part.as<A>(from * size_total), nullptr, out + v * value.row);
  });
}

// With a = f * scale and d_uv = scale_uv f'_uv (d_out_v . value_u):
//
//     by source       d_value_u = sum_v a_uv d_out_v,  d_score_src_u = sum_v d_uv
//     by destination  d_score_dst_v = sum_u d_uv
//
// The first reads a row of d_out for every edge, the second only numbers [E, H].
template <class T, int W> void backward(const Gated& g) {
  using A = Sum<T>;
  const int H = g.heads;
  const Rows &rows = g.graph.out, &in = g.graph.in;
  const Layout<W> layout(H, g.width);
  const RowLoops<T, W> loops(layout);
  const ByHeads<A> heads = by_heads<A>(H);
  auto* const sums_of = score_sums_by_heads<A>(H);
  const Matrix<T> d_out(g.d_out, H, g.width);
  const T* value = static_cast<const T*>(g.value);
  const A* src = static_cast<const A*>(g.score_src);
  const A* dst = static_cast<const A*>(g.score_dst);
  const A* edge = static_cast<const A*>(g.score_edge);
  T* d_value = static_cast<T*>(g.d_value);
  A* d_src = static_cast<A*>(g.d_score_src);
  A* d_dst = static_cast<A*>(g.d_score_dst);
  A* d_edge = static_cast<A*>(g.d_score_edge);
  A* d_weight = static_cast<A*>(g.d_weight);
  const bool scaled = changes(g.scale), scores = d_src || d_dst || d_edge;
  const int64_t edges = g.graph.edges;
  const EdgeStore<A> store_of(g.graph, H, d_edge, d_dst || d_edge, g.threads);
  const int64_t size_x = padded<A>(kSegment * H), size_total = padded<A>(layout.lanes()), size_h = padded<A>(H);
  const int64_t size = 6 * size_x + 2 * size_total, parts = segments(rows);
  const Buffer scratch(size * g.threads * static_cast<int64_t>(sizeof(A)));
  const Buffer part(parts * (size_total + size_h) * static_cast<int64_t>(sizeof(A)));
  A* const part_src = part.as<A>(parts * size_total);
  for_rows(rows, g.threads, [&](int64_t u, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
    A* x = scratch.as<A>(size * thread);
    A* slope = x + size_x;
    A* factor = slope + size_x;
    A* dropped = factor + size_x;
    A* weight = dropped + size_x;
    A* dot = weight + size_x;
    A* own = dot + size_x;
    A* total = segment < 0 ? own + size_total : part.as<A>(segment * size_total);
    const int64_t n = end - first, count = n * H;
    zero(total, layout.lanes());
    if (u + 2 < rows.rows) prefetch_row(value + (u + 2) * d_out.row, d_out.row);  // value rows are as wide
    sums_of(rows, H, src + u * H, dst, edge, first, end, x);
    leave_out(g.scale, rows.edge + first, n, H, x);
    gates<A>(g.tanh, count, x, slope);
    memcpy(weight, x, sizeof(A) * static_cast<size_t>(count));
    if (scaled) {
      heads.scale(g.scale, rows.edge + first, n, H, factor, d_weight ? dropped : nullptr);
      products(weight, factor, count);
      products(slope, factor, count);
    }
    unpack<T, W>(layout, value + u * d_out.row, own);
    loops.dot_add(layout, d_out, rows.other, first, end, edges, own, dot, weight, total);
    if (d_weight) weight_gradients(d_weight, rows.edge + first, n, H, x, dropped, dot);
    if (scores) {
      products(dot, slope, count);
      if (store_of.data) store_of.put_out(heads, dot, first, end, H);
      if (d_src) heads.sum(dot, n, H, segment < 0 ? d_src + u * H : part_src + segment * size_h);
    }
    if (d_value && segment < 0) pack<T, W>(layout, total, nullptr, d_value + u * d_out.row);
  });
  if (d_value)
    for_long_rows(rows, [&](int64_t u, int64_t from, int64_t to) {
      for (int64_t k = from + 1; k < to; ++k)
        add(part.as<A>(from * size_total), part.as<A>(k * size_total), layout.lanes());
      pack<T, W>(layout, part.as<A>(from * size_total), nullptr, d_value + u * d_out.row);
    });
  if (d_src) share_sums(rows, part_src, size_h, H, [&](int64_t u, const A* d) { memcpy(d_src + u * H, d, sizeof(A) * H); });
  if (d_dst) sum_edges(in, H, g.threads, static_cast<const A*>(store_of.data), store_of.in, d_dst);
}

}  // namespace

void gated_forward(const Gated& g) {
  with_type(g.type, [&](auto* type) {
    using T = typename Pointee<decltype(type)>::type;
    with_vector<T>(g.width, [&](auto w) { forward<T, decltype(w)::value>(g); });
  });
}

void gated_backward(const Gated& g) {
  with_type(g.type, [&](auto* type) {
    using T = typename Pointee<decltype(type)>::type;
    with_vector<T>(g.width, [&](auto w) { backward<T, decltype(w)::value>(g); });
  });
}

HGAT_CLOSE
