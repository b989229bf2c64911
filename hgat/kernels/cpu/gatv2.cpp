// GATv2: logit_uv = attn . leaky_relu(feat_src_u + feat_dst_v + feat_edge_uv), and feat_src is the value, too.
//
// The sum z_uv inside the leaky ReLU is never stored: every pass forms it again from rows that are in the cache.

#include "backward.h"

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

// What the loops over a row's edges need: `own`, the row's node, and `attn`, both in scratch layout, the latter with
// repeated lanes zero; limit: positions below it may be prefetched.
template <class T, int W> struct Hidden {
  const Layout<W>& layout;
  const Matrix<T>& matrix;
  const EdgeRows<T>& on_edge;
  const int32_t* other;
  int64_t first, end, limit;
  const Sum<T>*own, *attn;
  Sum<T> slope;
};

// x[edge, h] = attn[h] . leaky_relu(z).
template <class T, int W> void logit_rows(const Hidden<T, W>& of, Sum<T>* x) {
  using A = Sum<T>;
  using V = Vec<A, W>;
  const Layout<W>& layout = of.layout;
  const Matrix<T>& matrix = of.matrix;
  const int H = layout.heads, C = layout.chunks;
  const A slope = of.slope;
  const Counted<A, W> counted(layout);
  int64_t p = of.first;
  if (of.on_edge.data == nullptr) {
    for (; p + 4 <= of.end; p += 4, x += 4 * H) {
      const Four<T> now(matrix, of.other, p, of.limit), next(matrix, of.other, p + 4, of.limit);
      int64_t i = 0;
      for (int h = 0; h < H; ++h) {
        V d[4]{};
        for (int c = 0; c < C; ++c, i += W) {
          const int64_t at = h * matrix.step + layout.at(c);
          next.prefetch(at);
          const V mine = load<W>(of.own + i), a = load<W>(of.attn + i);
          for (int k = 0; k < 4; ++k) {
            const V z = leaky<A, W>(mine + load<W>(now.row[k] + at), slope);
            d[k] += a * (c + 1 < C ? z : counted(z));
          }
        }
        for (int k = 0; k < 4; ++k) x[k * H + h] = sum_lanes<A, W>(d[k]);
      }
    }
  }
  for (; p < of.end; ++p, x += H) {
    if (p + kAhead < of.limit) prefetch_row(matrix[of.other[p + kAhead]], matrix.row);
    const T* row = matrix[of.other[p]];
    const T* edge = of.on_edge.data ? of.on_edge[p] : nullptr;
    int64_t i = 0;
    for (int h = 0; h < H; ++h) {
      V d{};
      for (int c = 0; c < C; ++c, i += W) {
        const V z = leaky<A, W>(hidden<T, W>(of.own, row, edge, i, h * matrix.step + layout.at(c)), slope);
        d += load<W>(of.attn + i) * (c + 1 < C ? z : counted(z));
      }
      x[h] = sum_lanes<A, W>(d);
    }
  }
}

// With g = d_logit[edge, h] * (1 or slope): d_hidden += g, to be multiplied by attn by the caller, and, if Attn,
// d_attn += g * z. d_edge, if not null, gets g * attn for every edge.
template <class T, int W, bool Attn>
void slope_rows(const Hidden<T, W>& of, const Sum<T>* d_logit, Sum<T>* d_hidden, Sum<T>* d_attn, T* d_edge) {
  using A = Sum<T>;
  using V = Vec<A, W>;
  const Layout<W>& layout = of.layout;
  const Matrix<T>& matrix = of.matrix;
  const int H = layout.heads, C = layout.chunks;
  const A slope = of.slope;
  int64_t p = of.first;
  if (of.on_edge.data == nullptr && d_edge == nullptr) {
    for (; p + 4 <= of.end; p += 4, d_logit += 4 * H) {
      const Four<T> now(matrix, of.other, p, of.limit), next(matrix, of.other, p + 4, of.limit);
      int64_t i = 0;
      for (int h = 0; h < H; ++h) {
        V g[4], s[4];
        for (int k = 0; k < 4; ++k) g[k] = splat<A, W>(d_logit[k * H + h]), s[k] = g[k] * slope;
        for (int c = 0; c < C; ++c, i += W) {
          const int64_t at = h * matrix.step + layout.at(c);
          next.prefetch(at);
          const V mine = load<W>(of.own + i);
          V sum = load<W>(d_hidden + i), along{};
          if constexpr (Attn) along = load<W>(d_attn + i);
          for (int k = 0; k < 4; ++k) {
            const V z = mine + load<W>(now.row[k] + at);
            const V d = z > 0 ? g[k] : s[k];
            sum += d;
            if constexpr (Attn) along += d * z;
          }
          store<W>(d_hidden + i, sum);
          if constexpr (Attn) store<W>(d_attn + i, along);
        }
      }
    }
  }
  for (; p < of.end; ++p, d_logit += H) {
    if (p + kAhead < of.limit) prefetch_row(matrix[of.other[p + kAhead]], matrix.row);
    const T* row = matrix[of.other[p]];
    const T* edge = of.on_edge.data ? of.on_edge[p] : nullptr;
    T* to_edge = d_edge ? d_edge + static_cast<int64_t>(of.on_edge.edge[p]) * of.on_edge.row : nullptr;
    int64_t i = 0;
    for (int h = 0; h < H; ++h) {
      const V g = splat<A, W>(d_logit[h]), s = splat<A, W>(d_logit[h] * slope);
      for (int c = 0; c < C; ++c, i += W) {
        const int64_t at = h * matrix.step + layout.at(c);
        const V z = hidden<T, W>(of.own, row, edge, i, at);
        const V d = z > 0 ? g : s;
        store<W>(d_hidden + i, load<W>(d_hidden + i) + d);
        if constexpr (Attn) store<W>(d_attn + i, load<W>(d_attn + i) + d * z);
      }
      if (to_edge)  // backwards, for the reason that pack gives
        for (int c = C - 1; c >= 0; --c) {
          const int64_t at = h * matrix.step + layout.at(c), k = (static_cast<int64_t>(h) * C + c) * W;
          const V z = hidden<T, W>(of.own, row, edge, k, at);
          store<W>(to_edge + at, (z > 0 ? g : s) * load<W>(of.attn + k));
        }
    }
  }
}

// The same two without edge features, where heads and chunks are few and known when compiled.
template <class T, int W, int H, int C> void logit_rows_fixed(const Hidden<T, W>& of, Sum<T>* x) {
  using A = Sum<T>;
  using V = Vec<A, W>;
  const int64_t last = of.layout.at(C - 1);
  const Counted<A, W> counted(of.layout);
  for (int64_t p = of.first; p < of.end; ++p, x += H) {
    if (p + kAhead < of.limit) prefetch_row(of.matrix[of.other[p + kAhead]], H * C * W);
    const T* row = of.matrix[of.other[p]];
    V d[H];
    for (int h = 0; h < H; ++h, row += of.matrix.step)
      for (int c = 0; c < C; ++c) {
        const int k = (h * C + c) * W;
        const V z = leaky<A, W>(load<W>(of.own + k) + load<W>(row + (c + 1 < C ? c * W : last)), of.slope);
        const V here = load<W>(of.attn + k) * (c + 1 < C ? z : counted(z));
        d[h] = c == 0 ? here : d[h] + here;
      }
    sum_lanes_of<A, W, H>(d, x);
  }
}

template <class T, int W, int H, int C, bool Attn>
void slope_rows_fixed(const Hidden<T, W>& of, const Sum<T>* d_logit, Sum<T>* d_hidden, Sum<T>* d_attn, T*) {
  using A = Sum<T>;
  using V = Vec<A, W>;
  const int64_t last = of.layout.at(C - 1);
  V sum[H * C], along[H * C];
  for (int k = 0; k < H * C; ++k) {
    sum[k] = load<W>(d_hidden + k * W);
    if constexpr (Attn) along[k] = load<W>(d_attn + k * W);
  }
  for (int64_t p = of.first; p < of.end; ++p, d_logit += H) {
    if (p + kAhead < of.limit) prefetch_row(of.matrix[of.other[p + kAhead]], H * C * W);
    const T* row = of.matrix[of.other[p]];
    for (int h = 0; h < H; ++h, row += of.matrix.step) {
      const V g = splat<A, W>(d_logit[h]), s = splat<A, W>(d_logit[h] * of.slope);
      for (int c = 0; c < C; ++c) {
        const int k = h * C + c;
        const V z = load<W>(of.own + k * W) + load<W>(row + (c + 1 < C ? c * W : last));
        const V d = z > 0 ? g : s;
        sum[k] += d;
        if constexpr (Attn) along[k] += d * z;
      }
    }
  }
  for (int k = 0; k < H * C; ++k) {
    store<W>(d_hidden + k * W, sum[k]);
    if constexpr (Attn) store<W>(d_attn + k * W, along[k]);
  }
}

template <class T, int W> struct HiddenLoops {
  void (*logit)(const Hidden<T, W>&, Sum<T>*) = &logit_rows<T, W>;
  void (*slope)(const Hidden<T, W>&, const Sum<T>*, Sum<T>*, Sum<T>*, T*) = &slope_rows<T, W, false>;
  void (*slope_attn)(const Hidden<T, W>&, const Sum<T>*, Sum<T>*, Sum<T>*, T*) = &slope_rows<T, W, true>;

  HiddenLoops(const Layout<W>& layout, bool on_edge) {
    if (on_edge) return;
    with_fixed<W>(layout, [&](auto heads, auto chunks) {
      constexpr int H = decltype(heads)::value, C = decltype(chunks)::value;
      if constexpr (H * C > 8) return;
      logit = &logit_rows_fixed<T, W, H, C>;
      slope = &slope_rows_fixed<T, W, H, C, false>;
      slope_attn = &slope_rows_fixed<T, W, H, C, true>;
    });
  }
};

template <class T, int W> void forward(const Gatv2& g) {
  using A = Sum<T>;
  const Layout<W> layout(g.heads, g.width);
  const Rows& rows = g.graph.in;
  const Matrix<T> src(g.feat_src, g.heads, g.width), dst(g.feat_dst, g.heads, g.width);
  const EdgeRows<T> on_edge{static_cast<const T*>(g.feat_edge), rows.edge, src.row};
  const A slope = static_cast<A>(g.slope);
  const HiddenLoops<T, W> loops(layout, on_edge.data);
  const Buffer attn(padded<A>(layout.lanes()) * static_cast<int64_t>(sizeof(A)));
  unpack<A, W>(layout, static_cast<const A*>(g.attn), attn.as<A>());
  attend<T, W>(rows, g.scale, g.threads, layout, src, static_cast<T*>(g.out),
               {static_cast<A*>(g.top), static_cast<A*>(g.inverse), static_cast<A*>(g.alpha)}, layout.lanes(),
               [&](int64_t row, int64_t first, int64_t end, A* x, A* own) {
                 if (row + 2 < rows.rows) prefetch_row(dst[row + 2], dst.row);
                 unpack<T, W>(layout, dst[row], own);
                 loops.logit({layout, src, on_edge, rows.other, first, end, g.graph.edges, own, attn.as<A>(), slope}, x);
               });
}

// By destination, for each edge: alpha again from a row of feat_src, d_out_v . feat_src_u from the same row, so that s_v
// and the gradient of the logit are known before the next row, and with it
//
//     d_feat_dst_v = attn * sum_u g_uv,  d_attn = sum_uv d_logit_uv leaky_relu(z_uv),   g_uv = d_logit_uv * (1 or slope)
//
// By source: alpha once more, from rows of feat_dst, and d_feat_src_u = sum_v alpha'_uv d_out_v + attn * sum_v g_uv. A
// destination with more than kSegment edges is gone through twice, since s_v needs all of its segments.
template <class T, int W> void backward(const Gatv2& g) {
  using A = Sum<T>;
  const int H = g.heads;
  const Layout<W> layout(H, g.width);
  const RowLoops<T, W> loops(layout);
  const Matrix<T> src(g.feat_src, H, g.width), dst(g.feat_dst, H, g.width), d_out(g.d_out, H, g.width);
  const A slope = static_cast<A>(g.slope);
  const ByHeads<A> heads = by_heads<A>(H);
  const bool scaled = changes(g.scale);
  const int64_t edges = g.graph.edges, lanes = layout.lanes();
  const A* given = static_cast<const A*>(g.d_logits);
  const A* tops = static_cast<const A*>(g.top);
  const A* inverses = static_cast<const A*>(g.inverse);
  A* d_weight = static_cast<A*>(g.d_weight);
  T* d_src = static_cast<T*>(g.d_feat_src);
  T* d_dst = static_cast<T*>(g.d_feat_dst);
  T* d_edge = static_cast<T*>(g.d_feat_edge);
  const Buffer attn_memory(padded<A>(lanes) * static_cast<int64_t>(sizeof(A)));
  A* attn = attn_memory.as<A>();
  unpack<A, W>(layout, static_cast<const A*>(g.attn), attn);
  const HiddenLoops<T, W> hidden_loops(layout, g.feat_edge);

  const int64_t size_x = padded<A>(kSegment * H), size_total = padded<A>(lanes), size_h = padded<A>(H);
  const int64_t size = 6 * size_x + 3 * size_total + size_h;
  const Buffer scratch(size * g.threads * static_cast<int64_t>(sizeof(A)));
  const EdgeStore<A> d_logit(g.graph, H, nullptr, !given, g.threads);

  {
    const Rows& rows = g.graph.in;
    const EdgeRows<T> on_edge{static_cast<const T*>(g.feat_edge), rows.edge, src.row};
    const int64_t parts = segments(rows);
    const Buffer part(parts * (size_total + size_h) * static_cast<int64_t>(sizeof(A)));
    A* const part_s = part.as<A>(parts * size_total);
    const Buffer attn_part(g.d_attn ? items(rows) * size_total * static_cast<int64_t>(sizeof(A)) : 0);
    if (g.d_attn) zero(attn_part.as<A>(), items(rows) * size_total);
    const bool along = d_dst || g.d_attn;
    auto finish = [&](int64_t v, A* total) {
      for (int64_t l = 0; l < lanes; ++l) total[l] *= attn[l];
      if (d_dst) pack<T, W>(layout, total, nullptr, d_dst + v * src.row);
    };
    // The whole of a short row; of a segment only what s_v needs, or, once that is known, the rest.
    auto pass = [&](bool rest, int64_t v, int64_t first, int64_t end, int64_t segment, int64_t item, int thread) {
      A* x = scratch.as<A>(size * thread);
      A* weight = x + size_x;
      A* factor = weight + size_x;
      A* dropped = factor + size_x;
      A* dot = dropped + size_x;
      A* top = dot + size_x;
      A* own = top + size_x;
      A* own_out = own + size_total;
      A* total = segment < 0 ? own_out + size_total : part.as<A>(segment * size_total);
      A* s = segment < 0 ? own_out + 2 * size_total : part_s + segment * size_h;
      const int64_t n = end - first, count = n * H;
      if (v + 2 < rows.rows) prefetch_row(dst[v + 2], dst.row);
      unpack<T, W>(layout, dst[v], own);
      const Hidden<T, W> of{layout, src, on_edge, rows.other, first, end, edges, own, attn, slope};
      if (given) {
        heads.gather(x, given, rows.edge, first, end, edges, H);
      } else {
        if (!rest && v + 2 < rows.rows) prefetch_row(d_out[v + 2], d_out.row);
        hidden_loops.logit(of, x);
        leave_out(g.scale, rows.edge + first, n, H, x);
        repeat(tops + v * H, n, H, top);
        repeat(inverses + v * H, n, H, weight);
        if (!rest && scaled) heads.scale(g.scale, rows.edge + first, n, H, factor, d_weight ? dropped : nullptr);
        alphas(x, top, weight, !rest && scaled ? factor : nullptr, weight, count);
        if (!rest) {
          unpack<T, W>(layout, d_out[v], own_out);
          loops.dot(layout, src, rows.other, first, end, edges, own_out, dot, nullptr, nullptr);
          if (d_weight) weight_gradients(d_weight, rows.edge + first, n, H, x, dropped, dot);
          products(dot, weight, count);
          heads.sum(dot, n, H, s);
          if (segment >= 0) return heads.scatter(d_logit.data, dot, d_logit.in, first, end, H);
        } else {
          heads.gather(dot, d_logit.data, d_logit.in, first, end, edges, H);
        }
        repeat(s, n, H, top);
        logit_gradients(x, dot, top, count);
        heads.scatter(d_logit.data, x, d_logit.in, first, end, H);
      }
      if (!along) return;
      zero(total, lanes);
      if (g.d_attn) hidden_loops.slope_attn(of, x, total, attn_part.as<A>(item * size_total), nullptr);
      else hidden_loops.slope(of, x, total, nullptr, nullptr);
      if (segment < 0) finish(v, total);
    };
    for_rows(rows, g.threads, [&](int64_t v, int64_t first, int64_t end, int64_t segment, int64_t item, int thread) {
      pass(given != nullptr, v, first, end, segment, item, thread);
    });
    if (parts && !given) {
      share_sums(rows, part_s, size_h, H, [](int64_t, const A*) {});
      for_rows(rows, g.threads, [&](int64_t v, int64_t first, int64_t end, int64_t segment, int64_t item, int thread) {
        if (segment >= 0) pass(true, v, first, end, segment, item, thread);
      });
    }
    if (along)
      for_long_rows(rows, [&](int64_t v, int64_t from, int64_t to) {
        for (int64_t k = from + 1; k < to; ++k) add(part.as<A>(from * size_total), part.as<A>(k * size_total), lanes);
        finish(v, part.as<A>(from * size_total));
      });
    if (g.d_attn) {
      A* total = scratch.as<A>();
      zero(total, lanes);
      for (int64_t k = 0; k < items(rows); ++k) add(total, attn_part.as<A>(k * size_total), lanes);
      pack<A, W>(layout, total, nullptr, static_cast<A*>(g.d_attn));
    }
  }
  if (!d_src && !d_edge) return;

  const Rows& rows = g.graph.out;
  const EdgeRows<T> on_edge{static_cast<const T*>(g.feat_edge), rows.edge, src.row};
  auto* const recall_info = recall_by_heads<A>(H);
  const Destinations<A> info(given ? 0 : g.graph.in.rows, H, 2, g.threads);
  if (!given) info.fill(g.graph.in.rows, g.threads, g.top, g.inverse);
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
    A* top = factor + size_x;
    A* own = top + 3 * size_x;
    A* total = segment < 0 ? own + size_total : part.as<A>(segment * 2 * size_total);
    A* d_hidden = total + size_total;
    const int64_t n = end - first, count = n * H;
    zero(total, lanes);
    zero(d_hidden, lanes);
    if (u + 2 < rows.rows) prefetch_row(src[u + 2], src.row);
    unpack<T, W>(layout, src[u], own);
    const Hidden<T, W> of{layout, dst, on_edge, rows.other, first, end, edges, own, attn, slope};
    if (given) {
      heads.gather(x, given, rows.edge, first, end, edges, H);
    } else {
      if (d_src) {
        hidden_loops.logit(of, x);
        leave_out(g.scale, rows.edge + first, n, H, x);
        recall_info(info, rows.other, first, n, edges, H, top, weight);
        if (scaled) heads.scale(g.scale, rows.edge + first, n, H, factor, nullptr);
        alphas(x, top, weight, scaled ? factor : nullptr, weight, count);
        loops.add(layout, d_out, rows.other, first, end, edges, weight, total);
      }
      d_logit.get_out(heads, x, first, end, edges, H);
    }
    hidden_loops.slope(of, x, d_hidden, nullptr, d_edge);
    if (segment < 0) finish(u, total, d_hidden);
  });
  for_long_rows(rows, [&](int64_t u, int64_t from, int64_t to) {
    for (int64_t k = from + 1; k < to; ++k)
      add(part.as<A>(from * 2 * size_total), part.as<A>(k * 2 * size_total), 2 * size_total);
    finish(u, part.as<A>(from * 2 * size_total), part.as<A>(from * 2 * size_total + size_total));
  });
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
