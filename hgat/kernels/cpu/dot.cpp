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

// By source: alpha again from query rows, then d_value_u = sum_v alpha' d_out_v and d_key_u = factor sum_v d_logit
// query_v; by destination: d_query_v = factor sum_u d_logit key_u.
template <class T, int W> void backward(const Dot& d) {
  using A = Sum<T>;
  constexpr int L = kLanes<A>;
  const int H = d.heads;
  const Rows& rows = d.graph.out;
  const Layout<W> layout(H, d.width), value_layout(H, d.value_width);
  const RowLoops<T, W> loops(layout), value_loops(value_layout);
  const Matrix<T> query(d.query, H, d.width), key(d.key, H, d.width);
  const Matrix<T> value(d.value, H, d.value_width), d_out(d.d_out, H, d.value_width);
  const A* bias = static_cast<const A*>(d.bias);
  const A factor = static_cast<A>(d.factor);
  const ByHeads<A> heads = by_heads<A>(H);
  auto* const recall_info = recall_by_heads<A>(H);
  const bool scaled = changes(d.scale);
  const int64_t edges = d.graph.edges;

  const Destinations<A> info(rows.others, H, false, d.threads);
  fill<T, W>(info, rows.others, d.threads, value_layout, value_loops, nullptr, d.top, d.inverse, d.out, d_out);
  const Buffer d_memory(d.d_query && !d.d_bias ? edges * H * static_cast<int64_t>(sizeof(A)) : 0, d.threads);
  A* d_place = d_memory.as<A>();
  A* d_bias = static_cast<A*>(d.d_bias);
  A* d_weight = static_cast<A*>(d.d_weight);
  T* d_key = static_cast<T*>(d.d_key);
  T* d_value = static_cast<T*>(d.d_value);

  const int64_t size_x = padded<A>(kSegment * H), size_key = padded<A>(layout.lanes());
  const int64_t size_value = padded<A>(value_layout.lanes());
  const int64_t size = 6 * size_x + 2 * size_key + 2 * size_value;
  const Buffer scratch(size * d.threads * static_cast<int64_t>(sizeof(A)));
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
    A* dropped = scale + size_x;
    A* dot = dropped + size_x;
    A* s = dot + size_x;
    A* own_key = s + size_x;
    A* own_value = own_key + size_key;
    A* total_key = segment < 0 ? own_value + size_value : part.as<A>(segment * size_part);
    A* total_value = total_key + size_key;
    const int64_t n = end - first, count = n * H;
    zero(total_key, layout.lanes());
    zero(total_value, value_layout.lanes());
    if (u + 2 < rows.rows) prefetch_row(key[u + 2], key.row), prefetch_row(value[u + 2], value.row);
    unpack<T, W>(layout, key[u], own_key);
    unpack<T, W>(value_layout, value[u], own_value);
    logit_rows<T, W>(layout, loops, query, rows, first, end, own_key, bias, factor, x);
    recall_info(info, rows.other, first, n, edges, H, x, weight, s);
    if (scaled) heads.scale(d.scale, rows.edge + first, n, H, scale, d_weight ? dropped : nullptr);
    alphas(x, weight, scaled ? scale : nullptr, weight, count);
    value_loops.dot_add(value_layout, d_out, rows.other, first, end, edges, own_value, dot, weight, total_value);
    if (d_weight) weight_gradients(d_weight, rows.edge + first, n, H, x, dropped, dot);
    logit_gradients(x, dot, scaled ? scale : nullptr, s, count);
    if (d_bias) heads.scatter(d_bias, x, rows.edge, first, end, H);
    for (int64_t k = 0; k < count; k += L) store<L>(x + k, load<L>(x + k) * factor);
    if (d_place && count) memcpy(d_place + first * H, x, sizeof(A) * count);
    if (d_key) loops.add(layout, query, rows.other, first, end, edges, x, total_key);
    if (segment < 0) finish(u, total_key, total_value);
  });
  for_long_rows(rows, [&](int64_t u, int64_t from, int64_t to) {
    A* total = part.as<A>(from * size_part);
    for (int64_t k = from + 1; k < to; ++k) add(total, part.as<A>(k * size_part), size_part);
    finish(u, total, total + size_key);
  });
  if (d.d_query == nullptr) return;
  const Rows& in = d.graph.in;
  const A* d_logit = d_bias ? d_bias : d_place;
  const A remaining = d_bias ? factor : A(1);
  const int32_t* index = d_bias ? in.edge : d.graph.place;
  T* d_query = static_cast<T*>(d.d_query);
  const int64_t in_parts = segments(in);
  const Buffer in_part(in_parts * size_key * static_cast<int64_t>(sizeof(A)));
  for_rows(in, d.threads, [&](int64_t v, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
    A* x = scratch.as<A>(size * thread);
    A* total = segment < 0 ? x + size_x : in_part.as<A>(segment * size_key);
    zero(total, layout.lanes());
    heads.gather(x, d_logit, index, first, end, edges, H);
    if (remaining != A(1))
      for (int64_t k = 0; k < (end - first) * H; ++k) x[k] *= remaining;
    loops.add(layout, key, in.other, first, end, edges, x, total);
    if (segment < 0) pack<T, W>(layout, total, nullptr, d_query + v * query.row);
  });
  for_long_rows(in, [&](int64_t v, int64_t from, int64_t to) {
    A* total = in_part.as<A>(from * size_key);
    for (int64_t k = from + 1; k < to; ++k) add(total, in_part.as<A>(k * size_key), layout.lanes());
    pack<T, W>(layout, total, nullptr, d_query + v * query.row);
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
