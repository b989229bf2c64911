// Dot-product attention: logit_uv = factor (query_v . key_u) + bias_uv.

#include "backward.h"

HGAT_OPEN
namespace {

// x[edge, h] = factor (own[h] . matrix[other][h]) + bias
template <class T, int W>
inline void logit_rows(const Layout<W>& layout, const RowLoops<T, W>& loops, const Matrix<T>& matrix, const Rows& rows,
                       int64_t first, int64_t end, const Sum<T>* own, const Sum<T>* bias, Sum<T> factor, Sum<T>* x) {
  const int H = layout.heads;
  loops.dot(layout, matrix, rows.other, first, end, rows.indptr[rows.rows], own, x, nullptr, nullptr);
  for (int64_t i = 0; i < (end - first) * H; ++i) x[i] *= factor;
  if (bias)
    for (int64_t i = 0; i < end - first; ++i)
      for (int h = 0; h < H; ++h) x[i * H + h] += bias[static_cast<int64_t>(rows.edge[first + i]) * H + h];
}

template <class T, int W> void forward(const Dot& d) {
  using A = Sum<T>;
  const int H = d.heads;
  const Rows& rows = d.graph.in;
  const Layout<W> layout(H, d.width), value_layout(H, d.value_width);
  const Matrix<T> query(d.query, H, d.width), key(d.key, H, d.width), value(d.value, H, d.value_width);
  const A* bias = static_cast<const A*>(d.bias);
  const A factor = static_cast<A>(d.factor);
  const RowLoops<T, W> loops(layout);
  if (A* logits = static_cast<A*>(d.logits)) {
    const int64_t size_own = padded<A>(layout.lanes()), size = size_own + padded<A>(kSegment * H);
    const Buffer scratch(size * d.threads * static_cast<int64_t>(sizeof(A)));
    for_rows(rows, d.threads, [&](int64_t v, int64_t first, int64_t end, int64_t, int64_t, int thread) {
      A* own = scratch.as<A>(size * thread);
      A* x = own + size_own;
      unpack<T, W>(layout, query[v], own);
      logit_rows<T, W>(layout, loops, key, rows, first, end, own, bias, factor, x);
      by_heads<A>(H).scatter(logits, x, rows.edge, first, end, H);
    });
    return;
  }
  attend<T, W>(rows, d.scale, d.threads, value_layout, value, static_cast<T*>(d.out),
               {static_cast<A*>(d.top), static_cast<A*>(d.inverse), static_cast<A*>(d.alpha)}, layout.lanes(),
               [&](int64_t v, int64_t first, int64_t end, A* x, A* own) {
                 if (v + 2 < rows.rows) prefetch_row(query[v + 2], query.row);
                 unpack<T, W>(layout, query[v], own);
                 logit_rows<T, W>(layout, loops, key, rows, first, end, own, bias, factor, x);
               });
}

// By destination, for each edge: alpha again from a row of keys, and d_out_v . value_u, so that s_v, the gradient of the
// logit and d_query_v = factor sum_u d_logit key_u are known before the next row. By source: alpha once more, from rows
// of queries, then d_value_u = sum_v alpha' d_out_v and d_key_u = factor sum_v d_logit query_v. A destination with more
// than kSegment edges is gone through twice, since s_v needs all of its segments.
template <class T, int W> void backward(const Dot& d) {
  using A = Sum<T>;
  const int H = d.heads;
  const Layout<W> layout(H, d.width), value_layout(H, d.value_width);
  const RowLoops<T, W> loops(layout), value_loops(value_layout);
  const Matrix<T> query(d.query, H, d.width), key(d.key, H, d.width);
  const Matrix<T> value(d.value, H, d.value_width), d_out(d.d_out, H, d.value_width);
  const A* bias = static_cast<const A*>(d.bias);
  const A* tops = static_cast<const A*>(d.top);
  const A* inverses = static_cast<const A*>(d.inverse);
  const A factor = static_cast<A>(d.factor);
  const ByHeads<A> heads = by_heads<A>(H);
  const bool scaled = changes(d.scale);
  const int64_t edges = d.graph.edges;
  T* d_query = static_cast<T*>(d.d_query);
  T* d_key = static_cast<T*>(d.d_key);
  T* d_value = static_cast<T*>(d.d_value);
  A* d_bias = static_cast<A*>(d.d_bias);
  A* d_weight = static_cast<A*>(d.d_weight);
  const bool logits = d_query || d_key || d_bias;

  const int64_t size_x = padded<A>(kSegment * H), size_key = padded<A>(layout.lanes()), size_h = padded<A>(H);
  const int64_t size_value = padded<A>(value_layout.lanes());
  const int64_t size = 6 * size_x + 2 * size_key + 2 * size_value + size_h;
  const Buffer scratch(size * d.threads * static_cast<int64_t>(sizeof(A)));
  const EdgeStore<A> d_logit(d.graph, H, d_bias, logits, d.threads);

  if (logits || d_weight) {
    const Rows& rows = d.graph.in;
    const int64_t parts = segments(rows);
    const Buffer part(parts * (size_key + size_h) * static_cast<int64_t>(sizeof(A)));
    A* const part_s = part.as<A>(parts * size_key);
    // The whole of a short row; of a segment only what s_v needs, or, once that is known, the rest.
    auto pass = [&](bool rest, int64_t v, int64_t first, int64_t end, int64_t segment, int thread) {
      A* x = scratch.as<A>(size * thread);
      A* weight = x + size_x;
      A* scale = weight + size_x;
      A* dropped = scale + size_x;
      A* dot = dropped + size_x;
      A* top = dot + size_x;
      A* own_query = top + size_x;
      A* own_out = own_query + size_key;
      A* total = segment < 0 ? own_out + size_value : part.as<A>(segment * size_key);
      A* s = segment < 0 ? own_out + size_value + size_key : part_s + segment * size_h;
      const int64_t n = end - first, count = n * H;
      if (v + 2 < rows.rows) prefetch_row(query[v + 2], query.row), prefetch_row(d_out[v + 2], d_out.row);
      unpack<T, W>(layout, query[v], own_query);
      logit_rows<T, W>(layout, loops, key, rows, first, end, own_query, bias, factor, x);
      leave_out(d.scale, rows.edge + first, n, H, x);
      repeat(tops + v * H, n, H, top);
      repeat(inverses + v * H, n, H, weight);
      if (!rest && scaled) heads.scale(d.scale, rows.edge + first, n, H, scale, d_weight ? dropped : nullptr);
      alphas(x, top, weight, !rest && scaled ? scale : nullptr, weight, count);
      if (!rest) {
        unpack<T, W>(value_layout, d_out[v], own_out);
        value_loops.dot(value_layout, value, rows.other, first, end, edges, own_out, dot, nullptr, nullptr);
        if (d_weight) weight_gradients(d_weight, rows.edge + first, n, H, x, dropped, dot);
        if (!logits) return;
        products(dot, weight, count);
        heads.sum(dot, n, H, s);
        if (segment >= 0) return heads.scatter(d_logit.data, dot, d_logit.in, first, end, H);
      } else {
        heads.gather(dot, d_logit.data, d_logit.in, first, end, edges, H);
      }
      repeat(s, n, H, top);
      logit_gradients(x, dot, top, count);
      heads.scatter(d_logit.data, x, d_logit.in, first, end, H);
      if (!d_query) return;
      for (int64_t k = 0; k < count; ++k) x[k] *= factor;
      zero(total, layout.lanes());
      loops.add(layout, key, rows.other, first, end, edges, x, total);
      if (segment < 0) pack<T, W>(layout, total, nullptr, d_query + v * query.row);
    };
    for_rows(rows, d.threads, [&](int64_t v, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
      pass(false, v, first, end, segment, thread);
    });
    if (parts && logits) {
      share_sums(rows, part_s, size_h, H, [](int64_t, const A*) {});
      for_rows(rows, d.threads, [&](int64_t v, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
        if (segment >= 0) pass(true, v, first, end, segment, thread);
      });
      if (d_query)
        for_long_rows(rows, [&](int64_t v, int64_t from, int64_t to) {
          A* total = part.as<A>(from * size_key);
          for (int64_t k = from + 1; k < to; ++k) add(total, part.as<A>(k * size_key), layout.lanes());
          pack<T, W>(layout, total, nullptr, d_query + v * query.row);
        });
    }
  }
  if (!d_key && !d_value) return;

  const Rows& rows = d.graph.out;
  auto* const recall_info = recall_by_heads<A>(H);
  const Destinations<A> info(d_value ? rows.others : 0, H, 2, d.threads);
  if (d_value) info.fill(rows.others, d.threads, d.top, d.inverse);
  const int64_t parts = segments(rows), size_part = size_key + size_value;
  const Buffer part(parts * size_part * static_cast<int64_t>(sizeof(A)));
  auto finish = [&](int64_t u, const A* total_key, const A* total_value) {
    if (d_key) pack<T, W>(layout, total_key, nullptr, d_key + u * key.row);
    if (d_value) pack<T, W>(value_layout, total_value, nullptr, d_value + u * value.row);
  };
  for_rows(rows, d.threads, [&](int64_t u, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
    A* x = scratch.as<A>(size * thread);
    A* weight = x + size_x;
    A* scale = weight + size_x;
    A* top = scale + size_x;
    A* own_key = top + 3 * size_x;
    A* total_key = segment < 0 ? own_key + size_key : part.as<A>(segment * size_part);
    A* total_value = total_key + size_key;
    const int64_t n = end - first, count = n * H;
    zero(total_key, layout.lanes());
    zero(total_value, value_layout.lanes());
    if (d_value) {
      if (u + 2 < rows.rows) prefetch_row(key[u + 2], key.row);
      unpack<T, W>(layout, key[u], own_key);
      logit_rows<T, W>(layout, loops, query, rows, first, end, own_key, bias, factor, x);
      leave_out(d.scale, rows.edge + first, n, H, x);
      recall_info(info, rows.other, first, n, edges, H, top, weight);
      if (scaled) heads.scale(d.scale, rows.edge + first, n, H, scale, nullptr);
      alphas(x, top, weight, scaled ? scale : nullptr, weight, count);
      value_loops.add(value_layout, d_out, rows.other, first, end, edges, weight, total_value);
    }
    if (d_key) {
      d_logit.get_out(heads, x, first, end, edges, H);
      for (int64_t k = 0; k < count; ++k) x[k] *= factor;
      loops.add(layout, query, rows.other, first, end, edges, x, total_key);
    }
    if (segment < 0) finish(u, total_key, total_value);
  });
  for_long_rows(rows, [&](int64_t u, int64_t from, int64_t to) {
    A* total = part.as<A>(from * size_part);
    for (int64_t k = from + 1; k < to; ++k) add(total, part.as<A>(k * size_part), size_part);
    finish(u, total, total + size_key);
  });
}

}  // namespace

void dot_forward(const Dot& d) {
  with_type(d.type, [&](auto* type) {
    using T = typename Pointee<decltype(type)>::type;
    const int narrow = d.out && d.value_width < d.width ? d.value_width : d.width;
    with_vector<T>(narrow, [&](auto w) { forward<T, decltype(w)::value>(d); });
  });
}

void dot_backward(const Dot& d) {
  with_type(d.type, [&](auto* type) {
    using T = typename Pointee<decltype(type)>::type;
    with_vector<T>(d.value_width < d.width ? d.value_width : d.width,
                   [&](auto w) { backward<T, decltype(w)::value>(d); });
  });
}

HGAT_CLOSE
