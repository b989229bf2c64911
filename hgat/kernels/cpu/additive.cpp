// GAT: logit_uv = leaky_relu(score_src_u + score_dst_v + score_edge_uv).

#include "backward.h"

HGAT_OPEN
namespace {

// Logits of n edges from their sums of scores, never inlined: a compiler that saw both the product with the slope and
// the subtraction of the highest logit behind it could round once for the two, in backward alone.
template <class A> __attribute__((noinline)) void leaky_all(const A* sum, int64_t n, A slope, A* x) {
  constexpr int L = kLanes<A>;
  using V = Vec<A, L>;
  const V out = V{} - static_cast<A>(__builtin_inf());
  if (slope == A(1)) {  // leaves NaN and infinity as they are, too
    for (int64_t i = 0; i < n; i += L) store<L>(x + i, load<L>(sum + i));
  } else if (slope > 0) {
    for (int64_t i = 0; i < n; i += L) store<L>(x + i, leaky<A, L>(load<L>(sum + i), slope));
  } else {  // minus infinity leaves an edge out, whatever the slope
    for (int64_t i = 0; i < n; i += L) {
      const V s = load<L>(sum + i);
      store<L>(x + i, s == out ? s : leaky<A, L>(s, slope));
    }
  }
}

template <class T, int W> void forward(const Additive& a) {
  using A = Sum<T>;
  const int H = a.heads;
  const A* src = static_cast<const A*>(a.score_src);
  const A* dst = static_cast<const A*>(a.score_dst);
  const A* edge = static_cast<const A*>(a.score_edge);
  const A slope = static_cast<A>(a.slope);
  const Rows& rows = a.graph.in;
  auto* const sums_of = score_sums_by_heads<A>(H);
  if (A* logits = static_cast<A*>(a.logits)) {
    const int64_t size = padded<A>(kSegment * H);
    const Buffer scratch(size * a.threads * static_cast<int64_t>(sizeof(A)));
    for_rows(rows, a.threads, [&](int64_t row, int64_t first, int64_t end, int64_t, int64_t, int thread) {
      A* x = scratch.as<A>(size * thread);
      sums_of(rows, H, dst ? dst + row * H : nullptr, src, edge, first, end, x);
      by_heads<A>(H).scatter(logits, x, rows.edge, first, end, H);
    });
    return;
  }
  attend<T, W>(rows, a.scale, a.threads, Layout<W>(H, a.width), Matrix<T>(a.value, H, a.width), static_cast<T*>(a.out),
               {static_cast<A*>(a.top), static_cast<A*>(a.inverse), static_cast<A*>(a.alpha)}, 0,
               [&](int64_t row, int64_t first, int64_t end, A* x, A*) {
                 sums_of(rows, H, dst ? dst + row * H : nullptr, src, edge, first, end, x);
                 leaky_all(x, (end - first) * H, slope, x);
               });
}

// Sums of scores of the edges at positions first + i of a source, and what their destinations hold, [score | highest
// logit | inverse]: before, top and inverse are [n, H].
template <class A, int HT>
void recall_scores(const Destinations<A>& from, const Rows& rows, int heads, const A* own, const A* edge, int64_t first,
                   int64_t end, int64_t limit, A* before, A* top, A* inverse) {
  const int H = HT ? HT : heads;
  for (int64_t p = first; p < end; ++p, before += H, top += H, inverse += H) {
    prefetch_destination(from, rows.other, p, limit);
    const A* of = from[rows.other[p]];
    const A* on = edge ? edge + static_cast<int64_t>(rows.edge[p]) * H : nullptr;
    if constexpr (HT > 0) {
      Vec<A, HT> sum = load<HT>(own) + load<HT>(of);
      if (on) sum += load<HT>(on);
      store<HT>(before, sum);
    } else {
      for (int h = 0; h < H; ++h) before[h] = own[h] + of[h];
      if (on)
        for (int h = 0; h < H; ++h) before[h] += on[h];
    }
    copy_heads<A, HT>(top, of + H, H);
    copy_heads<A, HT>(inverse, of + 2 * H, H);
  }
}

// d of the leaky ReLU at the edges: x *= 1 or slope.
template <class A> inline void slopes(A* x, const A* before, A slope, int64_t count) {
  constexpr int L = kLanes<A>;
  using V = Vec<A, L>;
  for (int64_t k = 0; k < count; k += L) {
    const V d = load<L>(x + k);
    store<L>(x + k, load<L>(before + k) > 0 ? d : d * slope);
  }
}

// With l_uv = 1 or slope, and q, s as in backward.h:
//
//     by source       d_value_u = sum_v alpha'_uv d_out_v,  q_uv
//     by destination  s_v = sum_u q_uv,  d_uv = l_uv (q_uv - alpha_uv s_v),  d_score_dst_v = sum_u d_uv
//     by source       d_score_src_u = sum_v d_uv
//
// The first reads a row of d_out for every edge; the others only numbers [E, H] and [N, H]. The difference is taken edge by
// edge, not between sums: where alpha is 1 it is exactly zero, and scores may be features in seconds since 1970.
template <class T, int W> void backward(const Additive& a) {
  using A = Sum<T>;
  const int H = a.heads;
  const Rows &rows = a.graph.out, &in = a.graph.in;
  const Layout<W> layout(H, a.width);
  const Matrix<T> d_out(a.d_out, H, a.width);
  const RowLoops<T, W> loops(layout);
  const T* value = static_cast<const T*>(a.value);
  const A* src = static_cast<const A*>(a.score_src);
  const A* edge = static_cast<const A*>(a.score_edge);
  const A slope = static_cast<A>(a.slope);
  const ByHeads<A> heads = by_heads<A>(H);
  const bool scaled = changes(a.scale);
  const int64_t edges = a.graph.edges;
  T* d_value = static_cast<T*>(a.d_value);
  A* d_src = static_cast<A*>(a.d_score_src);
  A* d_dst = static_cast<A*>(a.d_score_dst);
  A* d_edge = static_cast<A*>(a.d_score_edge);
  A* d_weight = static_cast<A*>(a.d_weight);
  const bool scores = d_src || d_dst || d_edge;

  const Destinations<A> info(in.rows, H, 3, a.threads);
  info.fill(in.rows, a.threads, a.score_dst, a.top, a.inverse);
  const EdgeStore<A> q(a.graph, H, d_edge, scores, a.threads);

  const int64_t size_x = padded<A>(kSegment * H), size_total = padded<A>(layout.lanes()), size_h = padded<A>(H);
  const int64_t size = 7 * size_x + 2 * size_total + size_h;
  const Buffer scratch(size * a.threads * static_cast<int64_t>(sizeof(A)));
  const int64_t parts = segments(rows);
  const Buffer part(parts * size_total * static_cast<int64_t>(sizeof(A)));

  auto* recall_of = &recall_scores<A, 0>;
  with_heads(H, [&](auto h) { recall_of = &recall_scores<A, decltype(h)::value>; });
  for_rows(rows, a.threads, [&](int64_t u, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
    A* x = scratch.as<A>(size * thread);
    A* before = x + size_x;
    A* top = before + size_x;
    A* weight = top + size_x;
    A* factor = weight + size_x;
    A* dropped = factor + size_x;
    A* dot = dropped + size_x;
    A* own = dot + size_x;
    A* total = segment < 0 ? own + size_total : part.as<A>(segment * size_total);
    const int64_t n = end - first, count = n * H;
    zero(total, layout.lanes());
    if (u + 2 < rows.rows) prefetch_row(value + (u + 2) * d_out.row, d_out.row);  // value rows are as wide
    if (scaled) heads.scale(a.scale, rows.edge + first, n, H, factor, d_weight ? dropped : nullptr);
    recall_of(info, rows, H, src + u * H, edge, first, end, edges, before, top, weight);
    leaky_all(before, count, slope, x);
    leave_out(a.scale, rows.edge + first, n, H, x);
    alphas(x, top, weight, scaled ? factor : nullptr, weight, count);
    unpack<T, W>(layout, value + u * static_cast<int64_t>(H) * layout.width, own);
    loops.dot_add(layout, d_out, rows.other, first, end, edges, own, dot, weight, total);
    if (d_weight) weight_gradients(d_weight, rows.edge + first, n, H, x, dropped, dot);
    if (scores) {
      products(dot, weight, count);
      q.put_out(heads, dot, first, end, H);
    }
    if (d_value && segment < 0)
      pack<T, W>(layout, total, nullptr, d_value + u * static_cast<int64_t>(H) * layout.width);
  });
  if (d_value)
    for_long_rows(rows, [&](int64_t u, int64_t from, int64_t to) {
      for (int64_t k = from + 1; k < to; ++k)
        add(part.as<A>(from * size_total), part.as<A>(k * size_total), layout.lanes());
      pack<T, W>(layout, part.as<A>(from * size_total), nullptr, d_value + u * static_cast<int64_t>(H) * layout.width);
    });
  if (!scores) return;

  auto* const sums_of = score_sums_by_heads<A>(H);
  const ByRow<A> by_row(H);
  const A* dst = static_cast<const A*>(a.score_dst);
  const A* tops = static_cast<const A*>(a.top);
  const A* inverses = static_cast<const A*>(a.inverse);
  const int64_t in_parts = segments(in);
  const Buffer in_part(in_parts * 2 * size_h * static_cast<int64_t>(sizeof(A)));
  A* const part_s = in_part.as<A>();
  A* const part_d = in_part.as<A>(in_parts * size_h);
  // The whole of a short row; of a segment its part of s_v, or, once that is known, the rest.
  auto by_destination = [&](bool rest, int64_t v, int64_t first, int64_t end, int64_t segment, int thread) {
    A* x = scratch.as<A>(size * thread);
    A* before = x + size_x;
    A* weight = before + size_x;
    A* product = weight + size_x;
    A* s = segment < 0 ? product + size_x : part_s + segment * size_h;
    const int64_t n = end - first, count = n * H;
    heads.gather(product, q.data, q.in, first, end, edges, H);
    if (!rest) heads.sum(product, n, H, s);
    if (!rest && segment >= 0) return;
    sums_of(in, H, dst + v * H, src, edge, first, end, before);
    leaky_all(before, count, slope, x);
    leave_out(a.scale, in.edge + first, n, H, x);
    by_row.alphas(x, n, H, tops + v * H, inverses + v * H, nullptr, weight);
    by_row.gradients(x, product, s, n, H);
    slopes(x, before, slope, count);
    if (d_src || d_edge) heads.scatter(q.data, x, q.in, first, end, H);
    if (d_dst) heads.sum(x, n, H, segment < 0 ? d_dst + v * H : part_d + segment * size_h);
  };
  for_rows(in, a.threads, [&](int64_t v, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
    by_destination(false, v, first, end, segment, thread);
  });
  if (in_parts) {
    share_sums(in, part_s, size_h, H, [](int64_t, const A*) {});
    for_rows(in, a.threads, [&](int64_t v, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
      if (segment >= 0) by_destination(true, v, first, end, segment, thread);
    });
    if (d_dst) share_sums(in, part_d, size_h, H, [&](int64_t v, const A* d) { memcpy(d_dst + v * H, d, sizeof(A) * H); });
  }
  if (d_src == nullptr) return;

  const Buffer out_part(parts * size_h * static_cast<int64_t>(sizeof(A)));
  for_rows(rows, a.threads, [&](int64_t u, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
    A* x = scratch.as<A>(size * thread);
    if (q.out) q.get_out(heads, x, first, end, edges, H);
    heads.sum(q.out ? x : q.data + first * H, end - first, H,
              segment < 0 ? d_src + u * H : out_part.as<A>(segment * size_h));
  });
  share_sums(rows, out_part.as<A>(), size_h, H, [&](int64_t u, const A* d) { memcpy(d_src + u * H, d, sizeof(A) * H); });
}

}  // namespace

void additive_forward(const Additive& a) {
  with_type(a.type, [&](auto* type) {
    using T = typename Pointee<decltype(type)>::type;
    with_vector<T>(a.width, [&](auto w) { forward<T, decltype(w)::value>(a); });
  });
}

void additive_backward(const Additive& a) {
  with_type(a.type, [&](auto* type) {
    using T = typename Pointee<decltype(type)>::type;
    with_vector<T>(a.width, [&](auto w) { backward<T, decltype(w)::value>(a); });
  });
}

HGAT_CLOSE
