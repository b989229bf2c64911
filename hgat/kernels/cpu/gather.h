// The loops that run at memory speed: rows of other nodes are read once, while the next ones are on
// their way to the cache.

#pragma once

#include "rows.h"
#include "simd.h"

HGAT_OPEN

constexpr int64_t kAhead = 12;  // edges; measured: 4 is too few, 16 no better

// A matrix of storage type [N, heads or 1, width]. step: elements from head to head, 0 where heads share one row.
template <class T> struct Matrix {
  const T* data;
  int64_t row;   // elements in a row
  int64_t step;  // from head to head
  Matrix(const void* data, int heads, int width, bool shared = false)
      : data(static_cast<const T*>(data)), row(shared ? width : static_cast<int64_t>(heads) * width),
        step(shared ? 0 : width) {}
  const T* operator[](int64_t i) const { return data + i * row; }
};

// The rows of four edges from position p on; behind the limit the last edge's again. Wide rows are prefetched piece by
// piece, while the piece at the same place of the four rows before is read: all at once they would queue.
template <class T> struct Four {
  const T* row[4];
  Four(const Matrix<T>& matrix, const int32_t* other, int64_t p, int64_t limit) {
    for (int k = 0; k < 4; ++k) row[k] = matrix[other[p + k < limit ? p + k : limit - 1]];
  }
  HGAT_PREFETCHES void prefetch(int64_t at) const {
    for (int k = 0; k < 4; ++k) prefetch_line(row[k] + at);
  }
};

// total += sum over the edges at positions [first, end) of weight[edge, h] * matrix[other].
//
// weight: [end - first, H]. total: scratch layout. limit: positions below it may be prefetched.
template <class T, int W>
inline void add_rows(const Layout<W>& layout, const Matrix<T>& matrix, const int32_t* other, int64_t first, int64_t end,
                     int64_t limit, const Sum<T>* weight, Sum<T>* total) {
  using A = Sum<T>;
  using V = Vec<A, W>;
  const int H = layout.heads, C = layout.chunks;
  int64_t p = first;
  for (; p + 4 <= end; p += 4, weight += 4 * H) {
    const Four<T> now(matrix, other, p, limit), next(matrix, other, p + 4, limit);
    A* to = total;
    for (int h = 0; h < H; ++h) {
      const V w0 = splat<A, W>(weight[h]), w1 = splat<A, W>(weight[H + h]);
      const V w2 = splat<A, W>(weight[2 * H + h]), w3 = splat<A, W>(weight[3 * H + h]);
      for (int c = 0; c < C; ++c, to += W) {
        const int64_t at = h * matrix.step + layout.at(c);
        next.prefetch(at);
        V sum = load<W>(to) + w0 * load<W>(now.row[0] + at);
        sum += w1 * load<W>(now.row[1] + at);
        sum += w2 * load<W>(now.row[2] + at);
        sum += w3 * load<W>(now.row[3] + at);
        store<W>(to, sum);
      }
    }
  }
  for (; p < end; ++p, weight += H) {
    if (p + kAhead < limit) prefetch_row(matrix[other[p + kAhead]], matrix.row);
    const T* row = matrix[other[p]];
    A* to = total;
    for (int h = 0; h < H; ++h) {
      const V w = splat<A, W>(weight[h]);
      for (int c = 0; c < C; ++c, to += W)
        store<W>(to, load<W>(to) + w * load<W>(row + h * matrix.step + layout.at(c)));
    }
  }
}

// dot[edge, h] = own[h] . matrix[other][h], and, if Adds, total += weight[edge, h] * matrix[other] in the same pass.
//
// own: scratch layout with repeated lanes zero.
template <class T, int W, bool Adds>
inline void dot_rows(const Layout<W>& layout, const Matrix<T>& matrix, const int32_t* other, int64_t first, int64_t end,
                     int64_t limit, const Sum<T>* own, Sum<T>* dot, const Sum<T>* weight, Sum<T>* total) {
  using A = Sum<T>;
  using V = Vec<A, W>;
  const int H = layout.heads, C = layout.chunks;
  const Counted<A, W> counted(layout);
  int64_t p = first;
  for (; p + 4 <= end; p += 4, dot += 4 * H) {
    const Four<T> now(matrix, other, p, limit), next(matrix, other, p + 4, limit);
    int64_t i = 0;
    for (int h = 0; h < H; ++h) {
      V w0{}, w1{}, w2{}, w3{};
      if constexpr (Adds) {
        w0 = splat<A, W>(weight[h]), w1 = splat<A, W>(weight[H + h]);
        w2 = splat<A, W>(weight[2 * H + h]), w3 = splat<A, W>(weight[3 * H + h]);
      }
      V d0{}, d1{}, d2{}, d3{};
      for (int c = 0; c < C; ++c, i += W) {
        const int64_t at = h * matrix.step + layout.at(c);
        next.prefetch(at);
        const V mine = load<W>(own + i);
        V g0 = load<W>(now.row[0] + at), g1 = load<W>(now.row[1] + at);
        V g2 = load<W>(now.row[2] + at), g3 = load<W>(now.row[3] + at);
        if (c + 1 == C) g0 = counted(g0), g1 = counted(g1), g2 = counted(g2), g3 = counted(g3);
        d0 += mine * g0;
        d1 += mine * g1;
        d2 += mine * g2;
        d3 += mine * g3;
        if constexpr (Adds) {
          V sum = load<W>(total + i) + w0 * g0;
          sum += w1 * g1;
          sum += w2 * g2;
          sum += w3 * g3;
          store<W>(total + i, sum);
        }
      }
      dot[h] = sum_lanes<A, W>(d0);
      dot[H + h] = sum_lanes<A, W>(d1);
      dot[2 * H + h] = sum_lanes<A, W>(d2);
      dot[3 * H + h] = sum_lanes<A, W>(d3);
    }
    if constexpr (Adds) weight += 4 * H;
  }
  for (; p < end; ++p, dot += H) {
    if (p + kAhead < limit) prefetch_row(matrix[other[p + kAhead]], matrix.row);
    const T* row = matrix[other[p]];
    int64_t i = 0;
    for (int h = 0; h < H; ++h) {
      V w{};
      if constexpr (Adds) w = splat<A, W>(weight[h]);
      V d{};
      for (int c = 0; c < C; ++c, i += W) {
        V g = load<W>(row + h * matrix.step + layout.at(c));
        if (c + 1 == C) g = counted(g);
        d += load<W>(own + i) * g;
        if constexpr (Adds) store<W>(total + i, load<W>(total + i) + w * g);
      }
      dot[h] = sum_lanes<A, W>(d);
    }
    if constexpr (Adds) weight += H;
  }
}

// Calls f with heads and chunks as constants if they are few enough for sums to stay in registers.
template <int W, class F> inline void with_fixed(const Layout<W>& layout, const F& f) {
  auto is = [&](auto heads, auto chunks) {
    if (layout.heads == heads.value && layout.chunks == chunks.value) f(heads, chunks);
  };
  if constexpr (W >= 4) {
    is(Constant<1>{}, Constant<1>{}), is(Constant<1>{}, Constant<2>{}), is(Constant<1>{}, Constant<4>{});
    is(Constant<1>{}, Constant<8>{}), is(Constant<2>{}, Constant<1>{}), is(Constant<2>{}, Constant<2>{});
    is(Constant<2>{}, Constant<4>{}), is(Constant<4>{}, Constant<1>{}), is(Constant<4>{}, Constant<2>{});
    is(Constant<4>{}, Constant<4>{}), is(Constant<8>{}, Constant<1>{}), is(Constant<8>{}, Constant<2>{});
    is(Constant<16>{}, Constant<1>{});
  }
}

// The same two loops where heads and chunks are few and known when compiled: all sums stay in registers.
template <class T, int W, int H, int C>
void add_rows_fixed(const Layout<W>& layout, const Matrix<T>& matrix, const int32_t* other, int64_t first, int64_t end,
                    int64_t limit, const Sum<T>* weight, Sum<T>* total) {
  using V = Vec<Sum<T>, W>;
  const int64_t last = layout.at(C - 1);
  V sum[H * C];
  for (int k = 0; k < H * C; ++k) sum[k] = load<W>(total + k * W);
  for (int64_t p = first; p < end; ++p, weight += H) {
    if (p + kAhead < limit) prefetch_row(matrix[other[p + kAhead]], H * C * W);
    const T* row = matrix[other[p]];
    for (int h = 0; h < H; ++h, row += matrix.step) {
      const V w = splat<Sum<T>, W>(weight[h]);
      for (int c = 0; c < C; ++c) sum[h * C + c] += w * load<W>(row + (c + 1 < C ? c * W : last));
    }
  }
  for (int k = 0; k < H * C; ++k) store<W>(total + k * W, sum[k]);
}

template <class T, int W, int H, int C, bool Adds>
void dot_rows_fixed(const Layout<W>& layout, const Matrix<T>& matrix, const int32_t* other, int64_t first, int64_t end,
                    int64_t limit, const Sum<T>* own, Sum<T>* dot, const Sum<T>* weight, Sum<T>* total) {
  using V = Vec<Sum<T>, W>;
  const int64_t last = layout.at(C - 1);
  const Counted<Sum<T>, W> counted(layout);
  V sum[H * C];
  if constexpr (Adds)
    for (int k = 0; k < H * C; ++k) sum[k] = load<W>(total + k * W);
  for (int64_t p = first; p < end; ++p, dot += H) {
    if (p + kAhead < limit) prefetch_row(matrix[other[p + kAhead]], H * C * W);
    const T* row = matrix[other[p]];
    V product[H];
    for (int h = 0; h < H; ++h, row += matrix.step) {
      V w{};
      if constexpr (Adds) w = splat<Sum<T>, W>(weight[h]);
      for (int c = 0; c < C; ++c) {
        const int k = h * C + c;
        const V g = c + 1 < C ? load<W>(row + c * W) : counted(load<W>(row + last));
        const V mine = load<W>(own + k * W);
        product[h] = c == 0 ? mine * g : product[h] + mine * g;
        if constexpr (Adds) sum[k] += w * g;
      }
    }
    sum_lanes_of<Sum<T>, W, H>(product, dot);
    if constexpr (Adds) weight += H;
  }
  if constexpr (Adds)
    for (int k = 0; k < H * C; ++k) store<W>(total + k * W, sum[k]);
}

// The loops for one layout.
template <class T, int W> struct RowLoops {
  using A = Sum<T>;
  using Add = void(const Layout<W>&, const Matrix<T>&, const int32_t*, int64_t, int64_t, int64_t, const A*, A*);
  using Dot = void(const Layout<W>&, const Matrix<T>&, const int32_t*, int64_t, int64_t, int64_t, const A*, A*, const A*,
                   A*);
  Add* add = &add_rows<T, W>;
  Dot* dot = &dot_rows<T, W, false>;
  Dot* dot_add = &dot_rows<T, W, true>;

  explicit RowLoops(const Layout<W>& layout) {
    with_fixed<W>(layout, [&](auto heads, auto chunks) {
      constexpr int H = decltype(heads)::value, C = decltype(chunks)::value;
      add = &add_rows_fixed<T, W, H, C>;
      if constexpr (H * C > 8) return;  // products and sums together do not fit into the registers
      dot = &dot_rows_fixed<T, W, H, C, false>;
      dot_add = &dot_rows_fixed<T, W, H, C, true>;
    });
  }
};

// Calls f with the widest vector that fits into a head of `width` numbers.
template <class T, class F> inline void with_vector(int width, const F& f) {
  constexpr int L = kLanes<Sum<T>>;
  if (width >= L) return f(Constant<L>{});
  if constexpr (L > 8) if (width >= 8) return f(Constant<8>{});
  if constexpr (L > 4) if (width >= 4) return f(Constant<4>{});
  if constexpr (L > 2) if (width >= 2) return f(Constant<2>{});
  f(Constant<1>{});
}

template <class P> struct Pointee;
template <class T> struct Pointee<T*> { using type = T; };

// Calls f with a null pointer of the storage type.
template <class F> inline void with_type(Type type, const F& f) {
  switch (type) {
    case Type::f32: return f(static_cast<float*>(nullptr));
    case Type::f64: return f(static_cast<double*>(nullptr));
    case Type::bf16: return f(static_cast<bf16*>(nullptr));
  }
}

HGAT_CLOSE
