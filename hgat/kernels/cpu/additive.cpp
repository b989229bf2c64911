// GAT: logit_uv = leaky_relu(score_src_u + score_dst_v + score_edge_uv).

#include "backward.h"

HGAT_OPEN
namespace {

// Logits before the leaky ReLU, [end - first, H]. Absent scores count as zero.
template <class A, int HT>
void sums(const Rows& rows, int heads, const A* own, const A* other, const A* edge, int64_t first, int64_t end, A* x) {
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

template <class A> void leaky_all(A* x, int64_t n, A slope) {
  constexpr int L = kLanes<A>;
  if (slope == A(1)) return;  // leaves NaN and infinity as they are, too
  for (int64_t i = 0; i < n; i += L) store<L>(x + i, leaky<A, L>(load<L>(x + i), slope));
}

template <class T, int W> void forward(const Additive& a) {
  using A = Sum<T>;
  const int H = a.heads;
  const A* src = static_cast<const A*>(a.score_src);
  const A* dst = static_cast<const A*>(a.score_dst);
  const A* edge = static_cast<const A*>(a.score_edge);
  const A slope = static_cast<A>(a.slope);
  const Rows& rows = a.graph.in;
  auto* sums_of = &sums<A, 0>;
  with_heads(H, [&](auto h) { sums_of = &sums<A, decltype(h)::value>; });
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
                 leaky_all(x, (end - first) * H, slope);
               });
}

// One pass over the out-edges of each source. With alpha' = alpha * scale and s_v = d_out_v . out_v per head:
//
//     d_value_u = sum_v alpha'_uv d_out_v
//     d_logit_uv = alpha_uv (scale_uv d_out_v . value_u - s_v)
//
// then one pass over the in-edges of each destination adds up d_score_dst.
template <class T, int W> void backward(const Additive& a) {
  using A = Sum<T>;
  constexpr int L = kLanes<A>;
  using V = Vec<A, L>;
  const int H = a.heads;
  const Rows& rows = a.graph.out;
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

  const Destinations<A> info(rows.others, H, true, a.threads);
  fill<T, W>(info, rows.others, a.threads, layout, loops, a.score_dst, a.top, a.inverse, a.out, d_out);

  // The gradient of the logits before the leaky ReLU: in the graph's order where it is asked for, else in the order
  // in which it is computed.
  A* d_edge = static_cast<A*>(a.d_score_edge);
  const Buffer d_memory(d_edge || a.d_score_dst == nullptr ? 0 : edges * H * static_cast<int64_t>(sizeof(A)), a.threads);
  A* d_place = d_memory.as<A>();
  T* d_value = static_cast<T*>(a.d_value);
  A* d_src = static_cast<A*>(a.d_score_src);
  A* d_weight = static_cast<A*>(a.d_weight);

  const int64_t size_x = padded<A>(kSegment * H), size_total = padded<A>(layout.lanes()), size_h = padded<A>(H);
  const int64_t size = 7 * size_x + 2 * size_total + size_h;
  const Buffer scratch(size * a.threads * static_cast<int64_t>(sizeof(A)));
  const int64_t parts = segments(rows);
  const Buffer part(parts * (size_total + size_h) * static_cast<int64_t>(sizeof(A)));

  with_heads(H, [&](auto constant) {
    constexpr int HT = decltype(constant)::value;
    const int heads_here = HT ? HT : H;
    for_rows(rows, a.threads, [&](int64_t u, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
      A* x = scratch.as<A>(size * thread);
      A* before = x + size_x;
      A* inverse = before + size_x;
      A* s = inverse + size_x;
      A* factor = s + size_x;
      A* dropped = factor + size_x;
      A* dot = dropped + size_x;
      A* own = dot + size_x;
      A* total = segment < 0 ? own + size_total : part.as<A>(segment * size_total);
      A* d_score = segment < 0 ? own + 2 * size_total : part.as<A>(parts * size_total + segment * size_h);
      const int64_t n = end - first, count = n * heads_here;
      zero(total, layout.lanes());
      zero(d_score, heads_here);
      if (u + 2 < rows.rows) prefetch_row(value + (u + 2) * d_out.row, d_out.row);  // value rows are as wide
      for (int64_t i = 0; i < n; ++i) {
        prefetch_destination(info, rows.other, first + i, edges);
        const A* of = info[rows.other[first + i]];
        if constexpr (HT > 0) {
          using VH = Vec<A, HT>;
          VH pre = load<HT>(src + u * HT) + load<HT>(of);
          if (edge) pre += load<HT>(edge + static_cast<int64_t>(rows.edge[first + i]) * HT);
          store<HT>(before + i * HT, pre);
          store<HT>(x + i * HT, VH(leaky<A, HT>(pre, slope) - load<HT>(of + HT)));
          store<HT>(inverse + i * HT, load<HT>(of + 2 * HT));
          store<HT>(s + i * HT, load<HT>(of + 3 * HT));
          continue;
        }
        for (int h = 0; h < heads_here; ++h) {
          const int64_t k = i * heads_here + h;
          A pre = src[u * heads_here + h] + of[h];
          if (edge) pre += edge[static_cast<int64_t>(rows.edge[first + i]) * heads_here + h];
          before[k] = pre;
          x[k] = (pre > 0 ? pre : pre * slope) - of[heads_here + h];
          inverse[k] = of[2 * heads_here + h];
          s[k] = of[3 * heads_here + h];
        }
      }
      if (scaled) heads.scale(a.scale, rows.edge + first, n, heads_here, factor, d_weight ? dropped : nullptr);
      A* weight = inverse;
      alphas(x, inverse, scaled ? factor : nullptr, weight, count);
      unpack<T, W>(layout, value + u * static_cast<int64_t>(heads_here) * layout.width, own);
      loops.dot_add(layout, d_out, rows.other, first, end, edges, own, dot, weight, total);
      if (d_weight) weight_gradients(d_weight, rows.edge + first, n, heads_here, x, dropped, dot);
      for (int64_t k = 0; k < count; k += L) {
        V product = load<L>(dot + k);
        if (scaled) product = product * load<L>(factor + k);
        const V d_logit = load<L>(x + k) * (product - load<L>(s + k));
        const V pre = load<L>(before + k);
        store<L>(x + k, pre > 0 ? d_logit : d_logit * slope);
      }
      if constexpr (HT > 0) {
        Vec<A, HT> sum{};
        for (int64_t i = 0; i < n; ++i) sum += load<HT>(x + i * HT);
        store<HT>(d_score, sum);
      } else {
        for (int64_t i = 0; i < n; ++i)
          for (int h = 0; h < heads_here; ++h) d_score[h] += x[i * heads_here + h];
      }
      if (d_edge) {
        scatter_heads<A, HT>(d_edge, x, rows.edge, first, end, heads_here);
      } else if (d_place && count) {
        memcpy(d_place + first * heads_here, x, sizeof(A) * count);
      }
      if (segment >= 0) return;
      if (d_value) pack<T, W>(layout, total, nullptr, d_value + u * static_cast<int64_t>(heads_here) * layout.width);
      if (d_src) memcpy(d_src + u * heads_here, d_score, sizeof(A) * heads_here);
    });
  });
  for_long_rows(rows, [&](int64_t u, int64_t from, int64_t to) {
    for (int64_t k = from + 1; k < to; ++k) {
      add(part.as<A>(from * size_total), part.as<A>(k * size_total), layout.lanes());
      add(part.as<A>(parts * size_total + from * size_h), part.as<A>(parts * size_total + k * size_h), H);
    }
    if (d_value)
      pack<T, W>(layout, part.as<A>(from * size_total), nullptr, d_value + u * static_cast<int64_t>(H) * layout.width);
    if (d_src) memcpy(d_src + u * H, part.as<A>(parts * size_total + from * size_h), sizeof(A) * H);
  });
  if (a.d_score_dst)
    sum_edges(a.graph.in, H, a.threads, d_edge ? d_edge : d_place, d_edge ? a.graph.in.edge : a.graph.place,
              static_cast<A*>(a.d_score_dst));
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
