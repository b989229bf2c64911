// GATv2: logit_uv = attn . leaky_relu(feat_src_u + feat_dst_v + feat_edge_uv), and feat_src is the value, too.
//
// The sum z_uv inside the leaky ReLU is never stored: every pass forms it again from rows that are in the cache.

#include "attend.h"

HGAT_OPEN
namespace {

// Rows of edge features of storage type, or none.
template <class T> struct EdgeRows {
  const T* data;
  const int32_t* edge;
  int64_t row;
  const T* operator[](int64_t p) const { return data + static_cast<int64_t>(edge[p]) * row; }
};

template <class T, int W>
inline Vec<Sum<T>, W> hidden(const Sum<T>* own, const T* other, const T* edge, int64_t i, int64_t at) {
  auto z = load<W>(own + i) + load<W>(other + at);
  if (edge) z += load<W>(edge + at);
  return z;
}

// x[edge, h] = attn[h] . leaky_relu(z). attn: scratch layout with repeated lanes zero.
template <class T, int W>
inline void logit_rows(const Layout<W>& layout, const Matrix<T>& matrix, const EdgeRows<T>& on_edge, const int32_t* other,
                       int64_t first, int64_t end, int64_t limit, const Sum<T>* own, const Sum<T>* attn, Sum<T> slope,
                       Sum<T>* x) {
  using A = Sum<T>;
  using V = Vec<A, W>;
  const int H = layout.heads, C = layout.chunks;
  int64_t p = first;
  if (on_edge.data == nullptr) {
    for (; p + 4 <= end; p += 4, x += 4 * H) {
      for (int64_t k = p + kAhead; k < p + kAhead + 4 && k < limit; ++k) prefetch_row(matrix[other[k]], matrix.row);
      const T* r0 = matrix[other[p]];
      const T* r1 = matrix[other[p + 1]];
      const T* r2 = matrix[other[p + 2]];
      const T* r3 = matrix[other[p + 3]];
      int64_t i = 0;
      for (int h = 0; h < H; ++h) {
        V d0{}, d1{}, d2{}, d3{};
        for (int c = 0; c < C; ++c, i += W) {
          const int64_t at = h * matrix.step + layout.at(c);
          const V mine = load<W>(own + i), a = load<W>(attn + i);
          d0 += a * leaky<A, W>(mine + load<W>(r0 + at), slope);
          d1 += a * leaky<A, W>(mine + load<W>(r1 + at), slope);
          d2 += a * leaky<A, W>(mine + load<W>(r2 + at), slope);
          d3 += a * leaky<A, W>(mine + load<W>(r3 + at), slope);
        }
        x[h] = sum_lanes<A, W>(d0);
        x[H + h] = sum_lanes<A, W>(d1);
        x[2 * H + h] = sum_lanes<A, W>(d2);
        x[3 * H + h] = sum_lanes<A, W>(d3);
      }
    }
  }
  for (; p < end; ++p, x += H) {
    if (p + kAhead < limit) prefetch_row(matrix[other[p + kAhead]], matrix.row);
    const T* row = matrix[other[p]];
    const T* edge = on_edge.data ? on_edge[p] : nullptr;
    int64_t i = 0;
    for (int h = 0; h < H; ++h) {
      V d{};
      for (int c = 0; c < C; ++c, i += W)
        d += load<W>(attn + i) * leaky<A, W>(hidden<T, W>(own, row, edge, i, h * matrix.step + layout.at(c)), slope);
      x[h] = sum_lanes<A, W>(d);
    }
  }
}

// With g = d_logit[edge, h] * (1 or slope): d_hidden += g, to be multiplied by attn by the caller, and, if Attn,
// d_attn += g * z. d_edge, if not null, gets g * attn for every edge.
template <class T, int W, bool Attn>
inline void slope_rows(const Layout<W>& layout, const Matrix<T>& matrix, const EdgeRows<T>& on_edge, const int32_t* other,
                       int64_t first, int64_t end, int64_t limit, const Sum<T>* own, const Sum<T>* attn, Sum<T> slope,
                       const Sum<T>* d_logit, Sum<T>* d_hidden, Sum<T>* d_attn, T* d_edge) {
  using A = Sum<T>;
  using V = Vec<A, W>;
  const int H = layout.heads, C = layout.chunks;
  int64_t p = first;
  if (on_edge.data == nullptr && d_edge == nullptr) {
    for (; p + 2 <= end; p += 2, d_logit += 2 * H) {
      for (int64_t k = p + kAhead; k < p + kAhead + 2 && k < limit; ++k) prefetch_row(matrix[other[k]], matrix.row);
      const T* r0 = matrix[other[p]];
      const T* r1 = matrix[other[p + 1]];
      int64_t i = 0;
      for (int h = 0; h < H; ++h) {
        const V g0 = splat<A, W>(d_logit[h]), g1 = splat<A, W>(d_logit[H + h]);
        const V s0 = splat<A, W>(d_logit[h] * slope), s1 = splat<A, W>(d_logit[H + h] * slope);
        for (int c = 0; c < C; ++c, i += W) {
          const int64_t at = h * matrix.step + layout.at(c);
          const V mine = load<W>(own + i);
          const V z0 = mine + load<W>(r0 + at), z1 = mine + load<W>(r1 + at);
          const V d0 = z0 > 0 ? g0 : s0, d1 = z1 > 0 ? g1 : s1;
          store<W>(d_hidden + i, load<W>(d_hidden + i) + d0 + d1);
          if constexpr (Attn) store<W>(d_attn + i, load<W>(d_attn + i) + d0 * z0 + d1 * z1);
        }
      }
    }
  }
  for (; p < end; ++p, d_logit += H) {
    if (p + kAhead < limit) prefetch_row(matrix[other[p + kAhead]], matrix.row);
    const T* row = matrix[other[p]];
    const T* edge = on_edge.data ? on_edge[p] : nullptr;
    T* to_edge = d_edge ? d_edge + static_cast<int64_t>(on_edge.edge[p]) * on_edge.row : nullptr;
    int64_t i = 0;
    for (int h = 0; h < H; ++h) {
      const V g = splat<A, W>(d_logit[h]), s = splat<A, W>(d_logit[h] * slope);
      for (int c = 0; c < C; ++c, i += W) {
        const int64_t at = h * matrix.step + layout.at(c);
        const V z = hidden<T, W>(own, row, edge, i, at);
        const V d = z > 0 ? g : s;
        store<W>(d_hidden + i, load<W>(d_hidden + i) + d);
        if constexpr (Attn) store<W>(d_attn + i, load<W>(d_attn + i) + d * z);
      }
      if (to_edge)  // backwards, for the reason that pack gives
        for (int c = C - 1; c >= 0; --c) {
          const int64_t at = h * matrix.step + layout.at(c), k = (static_cast<int64_t>(h) * C + c) * W;
          const V z = hidden<T, W>(own, row, edge, k, at);
          store<W>(to_edge + at, (z > 0 ? g : s) * load<W>(attn + k));
        }
    }
  }
}

template <class T, int W> void forward(const Gatv2& g) {
  using A = Sum<T>;
  const Layout<W> layout(g.heads, g.width);
  const Rows& rows = g.graph.in;
  const Matrix<T> src(g.feat_src, g.heads, g.width), dst(g.feat_dst, g.heads, g.width);
  const EdgeRows<T> on_edge{static_cast<const T*>(g.feat_edge), rows.edge, src.row};
  const A slope = static_cast<A>(g.slope);
  const Buffer attn(padded<A>(layout.lanes()) * static_cast<int64_t>(sizeof(A)));
  unpack<A, W>(layout, static_cast<const A*>(g.attn), attn.as<A>());
  attend<T, W>(rows, g.scale, g.threads, layout, src, static_cast<T*>(g.out),
               {static_cast<A*>(g.top), static_cast<A*>(g.inverse), static_cast<A*>(g.alpha)}, layout.lanes(),
               [&](int64_t row, int64_t first, int64_t end, A* x, A* own) {
                 unpack<T, W>(layout, dst[row], own);
                 logit_rows<T, W>(layout, src, on_edge, rows.other, first, end, g.graph.edges, own, attn.as<A>(), slope, x);
               });
}

// By source: alpha again, then d_feat_src = sum_v alpha' d_out_v + attn * sum_v g_uv; by destination: d_feat_dst =
// attn * sum_u g_uv and d_attn, where g_uv = d_logit_uv * (1 or slope).
template <class T, int W> void backward(const Gatv2& g) {
  using A = Sum<T>;
  constexpr int L = kLanes<A>;
  using V = Vec<A, L>;
  const int H = g.heads;
  const Layout<W> layout(H, g.width);
  const RowLoops<T, W> loops(layout);
  const Matrix<T> src(g.feat_src, H, g.width), dst(g.feat_dst, H, g.width), d_out(g.d_out, H, g.width);
  const A slope = static_cast<A>(g.slope);
  const ByHeads<A> heads = by_heads<A>(H);
  const bool scaled = changes(g.scale);
  const int64_t edges = g.graph.edges, lanes = layout.lanes();
  const A* given = static_cast<const A*>(g.d_logits);
  const Buffer attn_memory(padded<A>(lanes) * static_cast<int64_t>(sizeof(A)));
  A* attn = attn_memory.as<A>();
  unpack<A, W>(layout, static_cast<const A*>(g.attn), attn);

  const int64_t info_row = 3 * H;
  const Buffer info_memory(given ? 0 : g.graph.in.rows * info_row * static_cast<int64_t>(sizeof(A)), g.threads);
  A* info = info_memory.as<A>();
  if (!given)
    for_ranges(g.graph.in.rows, 1024, g.threads, [&](int64_t first, int64_t end) {
      for (int64_t v = first; v < end; ++v) {
        A* to = info + v * info_row;
        for (int h = 0; h < H; ++h) {
          to[h] = static_cast<const A*>(g.top)[v * H + h];
          to[H + h] = static_cast<const A*>(g.inverse)[v * H + h];
        }
        loops.products(layout, static_cast<const T*>(g.out) + v * d_out.row, d_out[v], to + 2 * H);
      }
    });
  const bool by_destination = g.d_feat_dst || g.d_attn;
  const Buffer d_memory(given || !by_destination ? 0 : edges * H * static_cast<int64_t>(sizeof(A)), g.threads);
  A* d_place = d_memory.as<A>();
  A* d_weight = static_cast<A*>(g.d_weight);
  T* d_src = static_cast<T*>(g.d_feat_src);
  T* d_edge = static_cast<T*>(g.d_feat_edge);

  const int64_t size_x = padded<A>(kSegment * H), size_total = padded<A>(lanes);
  const int64_t size = 5 * size_x + 3 * size_total;
  const Buffer scratch(size * g.threads * static_cast<int64_t>(sizeof(A)));
  {
    const Rows& rows = g.graph.out;
    const EdgeRows<T> on_edge{static_cast<const T*>(g.feat_edge), rows.edge, src.row};
    const int64_t parts = segments(rows);
    const Buffer part(parts * 2 * size_total * static_cast<int64_t>(sizeof(A)));
    auto finish = [&](int64_t u, A* total, const A* d_hidden) {
      for (int64_t l = 0; l < lanes; ++l) total[l] += attn[l] * d_hidden[l];
      if (d_src) pack<T, W>(layout, total, nullptr, d_src + u * src.row);
    };
    for_rows(rows, g.threads, [&](int64_t u, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
      A* x = scratch.as<A>(size * thread);
      A* weight = x + size_x;
      A* factor = weight + size_x;
      A* dropped = factor + size_x;
      A* dot = dropped + size_x;
      A* own = dot + size_x;
      A* total = segment < 0 ? own + size_total : part.as<A>(segment * 2 * size_total);
      A* d_hidden = total + size_total;
      const int64_t n = end - first, count = n * H;
      zero(total, lanes);
      zero(d_hidden, lanes);
      unpack<T, W>(layout, src[u], own);
      if (given) {
        heads.gather(x, given, rows.edge, first, end, edges, H);
      } else {
        logit_rows<T, W>(layout, dst, on_edge, rows.other, first, end, edges, own, attn, slope, x);
        for (int64_t i = 0; i < n; ++i) {
          const A* of = info + static_cast<int64_t>(rows.other[first + i]) * info_row;
          for (int h = 0; h < H; ++h) x[i * H + h] -= of[h];
        }
        exp_all(x, count);
        for (int64_t i = 0; i < n; ++i) {
          const A* of = info + static_cast<int64_t>(rows.other[first + i]) * info_row + H;
          for (int h = 0; h < H; ++h) x[i * H + h] *= of[h];
        }
        if (scaled) heads.scale(g.scale, rows.edge + first, n, H, factor, d_weight ? dropped : nullptr);
        for (int64_t k = 0; k < count; k += L) {
          const V alpha = load<L>(x + k);
          store<L>(weight + k, scaled ? alpha * load<L>(factor + k) : alpha);
        }
        loops.dot_add(layout, d_out, rows.other, first, end, edges, own, dot, weight, total);
        for (int64_t i = 0; i < n; ++i) {
          const A* s = info + static_cast<int64_t>(rows.other[first + i]) * info_row + 2 * H;
          const int64_t e = static_cast<int64_t>(rows.edge[first + i]) * H;
          for (int h = 0; h < H; ++h) {
            const int64_t k = i * H + h;
            if (d_weight) d_weight[e + h] = x[k] * dropped[k] * dot[k];
            x[k] *= (scaled ? dot[k] * factor[k] : dot[k]) - s[h];
          }
        }
        if (d_place && count) memcpy(d_place + first * H, x, sizeof(A) * count);
      }
      slope_rows<T, W, false>(layout, dst, on_edge, rows.other, first, end, edges, own, attn, slope, x, d_hidden, nullptr,
                              d_edge);
      if (segment < 0) finish(u, total, d_hidden);
    });
    for_long_rows(rows, [&](int64_t u, int64_t from, int64_t to) {
      for (int64_t k = from + 1; k < to; ++k)
        add(part.as<A>(from * 2 * size_total), part.as<A>(k * 2 * size_total), 2 * size_total);
      finish(u, part.as<A>(from * 2 * size_total), part.as<A>(from * 2 * size_total + size_total));
    });
  }
  if (!by_destination) return;
  const Rows& rows = g.graph.in;
  const EdgeRows<T> on_edge{static_cast<const T*>(g.feat_edge), rows.edge, src.row};
  const A* d_logit = given ? given : d_place;
  const int32_t* index = given ? rows.edge : g.graph.place;
  const int64_t parts = segments(rows);
  const Buffer part(parts * size_total * static_cast<int64_t>(sizeof(A)));
  const Buffer attn_part(items(rows) * size_total * static_cast<int64_t>(sizeof(A)));
  zero(attn_part.as<A>(), items(rows) * size_total);
  T* d_dst = static_cast<T*>(g.d_feat_dst);
  auto finish = [&](int64_t v, A* total) {
    for (int64_t l = 0; l < lanes; ++l) total[l] *= attn[l];
    if (d_dst) pack<T, W>(layout, total, nullptr, d_dst + v * src.row);
  };
  for_rows(rows, g.threads, [&](int64_t v, int64_t first, int64_t end, int64_t segment, int64_t item, int thread) {
    A* x = scratch.as<A>(size * thread);
    A* own = x + 5 * size_x;
    A* total = segment < 0 ? own + size_total : part.as<A>(segment * size_total);
    zero(total, lanes);
    unpack<T, W>(layout, dst[v], own);
    heads.gather(x, d_logit, index, first, end, edges, H);
    slope_rows<T, W, true>(layout, src, on_edge, rows.other, first, end, edges, own, attn, slope, x, total,
                           attn_part.as<A>(item * size_total), nullptr);
    if (segment < 0) finish(v, total);
  });
  for_long_rows(rows, [&](int64_t v, int64_t from, int64_t to) {
    for (int64_t k = from + 1; k < to; ++k) add(part.as<A>(from * size_total), part.as<A>(k * size_total), size_total);
    finish(v, part.as<A>(from * size_total));
  });
  if (g.d_attn == nullptr) return;
  A* total = scratch.as<A>();
  zero(total, lanes);
  for (int64_t k = 0; k < items(rows); ++k) add(total, attn_part.as<A>(k * size_total), lanes);
  pack<A, W>(layout, total, nullptr, static_cast<A*>(g.d_attn));
}

}  // namespace

void gatv2_forward(const Gatv2& g) {
  with_type(g.type, [&](auto* type) {
    using T = typename Pointee<decltype(type)>::type;
    with_vector<T>(g.width, [&](auto w) { forward<T, decltype(w)::value>(g); });
  });
}

void gatv2_backward(const Gatv2& g) {
  with_type(g.type, [&](auto* type) {
    using T = typename Pointee<decltype(type)>::type;
    with_vector<T>(g.width, [&](auto w) { backward<T, decltype(w)::value>(g); });
  });
}

HGAT_CLOSE
