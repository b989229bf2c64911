// The halves of attention, for systems that need the weights themselves: sums weighted by edge, and the backward of
// the edge softmax (its forward is GAT's with the logits as edge scores and no values).

#include "attend.h"

HGAT_OPEN
namespace {

template <class T, int W> void sum_forward(const WeightedSum& s) {
  using A = Sum<T>;
  const int H = s.heads;
  const Rows& rows = s.rows;
  const Layout<W> layout(H, s.width);
  const RowLoops<T, W> loops(layout);
  const ByHeads<A> heads = by_heads<A>(H);
  const Matrix<T> value(s.value, H, s.width, s.value_heads == 1);
  const A* weight = static_cast<const A*>(s.weight);
  const A factor = static_cast<A>(s.factor);
  T* out = static_cast<T*>(s.out);
  const int64_t edges = rows.indptr[rows.rows], out_row = static_cast<int64_t>(H) * s.width;
  const int64_t size_w = padded<A>(kSegment * H), size_total = padded<A>(layout.lanes());
  const int64_t size = size_w + size_total, parts = segments(rows);
  const Buffer scratch(size * s.threads * static_cast<int64_t>(sizeof(A)));
  const Buffer part(parts * size_total * static_cast<int64_t>(sizeof(A)));
  for_rows(rows, s.threads, [&](int64_t row, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
    A* w = scratch.as<A>(size * thread);
    A* total = segment < 0 ? w + size_w : part.as<A>(segment * size_total);
    zero(total, layout.lanes());
    heads.gather(w, weight, rows.edge, first, end, edges, H);
    if (factor != A(1))
      for (int64_t k = 0; k < (end - first) * H; ++k) w[k] *= factor;
    loops.add(layout, value, rows.other, first, end, edges, w, total);
    if (segment < 0) pack<T, W>(layout, total, nullptr, out + row * out_row);
  });
  for_long_rows(rows, [&](int64_t row, int64_t from, int64_t to) {
    for (int64_t k = from + 1; k < to; ++k)
      add(part.as<A>(from * size_total), part.as<A>(k * size_total), layout.lanes());
    pack<T, W>(layout, part.as<A>(from * size_total), nullptr, out + row * out_row);
  });
}

// By source u: d_value_u = sum_v weight_uv d_out_v and d_weight_uv = value_u . d_out_v. One value for all heads gets
// the sum over heads.
template <class T, int W> void sum_backward(const WeightedSumBackward& s) {
  using A = Sum<T>;
  const int H = s.heads;
  const Rows& rows = s.rows;
  const Layout<W> layout(H, s.width);
  const RowLoops<T, W> loops(layout);
  const ByHeads<A> heads = by_heads<A>(H);
  const Layout<W> one(s.value_heads, s.width);
  const Matrix<T> d_out(s.d_out, H, s.width);
  const T* value = static_cast<const T*>(s.value);
  const A* weight = static_cast<const A*>(s.weight);
  T* d_value = static_cast<T*>(s.d_value);
  A* d_weight = static_cast<A*>(s.d_weight);
  const int64_t edges = rows.indptr[rows.rows], value_row = static_cast<int64_t>(s.value_heads) * s.width;
  const int64_t size_x = padded<A>(kSegment * H), size_total = padded<A>(layout.lanes());
  const int64_t size = 2 * size_x + 2 * size_total, parts = segments(rows);
  const Buffer scratch(size * s.threads * static_cast<int64_t>(sizeof(A)));
  const Buffer part(parts * size_total * static_cast<int64_t>(sizeof(A)));
  auto finish = [&](int64_t u, A* total) {
    if (d_value == nullptr) return;
    if (s.value_heads == 1)
      for (int h = 1; h < H; ++h) add(total, total + h * one.lanes(), one.lanes());
    pack<T, W>(one, total, nullptr, d_value + u * value_row);
  };
  for_rows(rows, s.threads, [&](int64_t u, int64_t first, int64_t end, int64_t segment, int64_t, int thread) {
    A* w = scratch.as<A>(size * thread);
    A* dot = w + size_x;
    A* own = dot + size_x;
    A* total = segment < 0 ? own + size_total : part.as<A>(segment * size_total);
    zero(total, layout.lanes());
    unpack<T, W>(one, value + u * value_row, own);
    if (s.value_heads == 1)
      for (int h = 1; h < H; ++h) memcpy(own + h * one.lanes(), own, sizeof(A) * one.lanes());
    heads.gather(w, weight, rows.edge, first, end, edges, H);
    if (d_weight) {
      loops.dot_add(layout, d_out, rows.other, first, end, edges, own, dot, w, total);
      heads.scatter(d_weight, dot, rows.edge, first, end, H);
    } else {
      loops.add(layout, d_out, rows.other, first, end, edges, w, total);
    }
    if (segment < 0) finish(u, total);
  });
  for_long_rows(rows, [&](int64_t u, int64_t from, int64_t to) {
    for (int64_t k = from + 1; k < to; ++k)
      add(part.as<A>(from * size_total), part.as<A>(k * size_total), layout.lanes());
    finish(u, part.as<A>(from * size_total));
  });
}

// d_logit = alpha (d_alpha - sum over the row of alpha d_alpha)
template <class A> void softmax_rows(const SoftmaxBackward& s) {
  const int H = s.heads;
  const Rows& rows = s.rows;
  const A* alpha = static_cast<const A*>(s.alpha);
  const A* d_alpha = static_cast<const A*>(s.d_alpha);
  A* out = static_cast<A*>(s.d_logits);
  const Buffer product(rows.rows * H * static_cast<int64_t>(sizeof(A)));
  const int64_t parts = segments(rows);
  const Buffer part(parts * H * static_cast<int64_t>(sizeof(A)));
  A* total = product.as<A>();
  auto add_products = [&](int64_t first, int64_t end, A* to) {
    for (int h = 0; h < H; ++h) to[h] = 0;
    for (int64_t p = first; p < end; ++p) {
      const int64_t at = static_cast<int64_t>(rows.edge[p]) * H;
      for (int h = 0; h < H; ++h) to[h] += alpha[at + h] * d_alpha[at + h];
    }
  };
  auto write = [&](int64_t first, int64_t end, const A* of) {
    for (int64_t p = first; p < end; ++p) {
      const int64_t at = static_cast<int64_t>(rows.edge[p]) * H;
      for (int h = 0; h < H; ++h) out[at + h] = alpha[at + h] * (d_alpha[at + h] - of[h]);
    }
  };
  for_rows(rows, s.threads, [&](int64_t row, int64_t first, int64_t end, int64_t segment, int64_t, int) {
    A* of = segment < 0 ? total + row * H : part.as<A>(segment * H);
    add_products(first, end, of);
    if (segment < 0) write(first, end, of);
  });
  if (parts == 0) return;
  for_long_rows(rows, [&](int64_t row, int64_t from, int64_t to) {
    for (int h = 0; h < H; ++h) total[row * H + h] = 0;
    for (int64_t k = from; k < to; ++k) add(total + row * H, part.as<A>(k * H), H);
  });
  for_rows(rows, s.threads, [&](int64_t row, int64_t first, int64_t end, int64_t segment, int64_t, int) {
    if (segment >= 0) write(first, end, total + row * H);
  });
}

}  // namespace

void weighted_sum(const WeightedSum& s) {
  with_type(s.type, [&](auto* type) {
    using T = typename Pointee<decltype(type)>::type;
    with_vector<T>(s.width, [&](auto w) { sum_forward<T, decltype(w)::value>(s); });
  });
}

void weighted_sum_backward(const WeightedSumBackward& s) {
  with_type(s.type, [&](auto* type) {
    using T = typename Pointee<decltype(type)>::type;
    with_vector<T>(s.width, [&](auto w) { sum_backward<T, decltype(w)::value>(s); });
  });
}

void softmax_backward(const SoftmaxBackward& s) {
  if (s.type == Type::f64) softmax_rows<double>(s);
  else softmax_rows<float>(s);
}

void edge_sum(const EdgeSum& s) {
  if (s.type == Type::f64)
    sum_edges(s.rows, s.heads, s.threads, static_cast<const double*>(s.edge_value), s.rows.edge, static_cast<double*>(s.out));
  else
    sum_edges(s.rows, s.heads, s.threads, static_cast<const float*>(s.edge_value), s.rows.edge, static_cast<float*>(s.out));
}

HGAT_CLOSE
