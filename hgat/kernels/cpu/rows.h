// Walking rows of edges in parallel: which thread takes what, its scratch memory, and how the parts of a long row
// are added up.

#pragma once

#include <cstdlib>
#include <new>

#include "kernels.h"
#include "simd.h"

#ifdef _OPENMP
#include <omp.h>
#endif

HGAT_OPEN

// A number that is known when the code is compiled.
template <int N> struct Constant {
  static constexpr int value = N;
};

inline int thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// Zeroed only where said; aligned to cache lines; throws std::bad_alloc, which the bindings turn into MemoryError.
class Buffer {
 public:
  explicit Buffer(int64_t bytes, int threads = 1) : memory_(nullptr) {
    if (bytes <= 0) return;
    memory_ = std::aligned_alloc(64, (static_cast<size_t>(bytes) + 63) / 64 * 64);
    if (memory_ == nullptr) throw std::bad_alloc();
    prepare_memory(memory_, bytes, threads);
  }
  ~Buffer() { std::free(memory_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  template <class A> A* as(int64_t offset = 0) const { return static_cast<A*>(memory_) + offset; }

 private:
  void* memory_;
};

// Elements of a scratch array, rounded up so that the next one starts on a cache line and vectors may overrun.
template <class A> constexpr int64_t padded(int64_t count) {
  constexpr int64_t line = 64 / sizeof(A);
  return (count + line - 1) / line * line + line;
}

inline int64_t segments(const Rows& rows) { return rows.longs ? rows.long_segment[rows.longs] : 0; }

// Work items: first every segment of the long rows, then the tasks with all other rows.
inline int64_t items(const Rows& rows) { return segments(rows) + rows.tasks; }

// body(row, first edge, last edge, segment, item, thread) for every row; segment is -1 unless the row is long.
template <class Body> inline void for_rows(const Rows& rows, int threads, const Body& body) {
  const int64_t cut = segments(rows);
  const int64_t count = cut + rows.tasks;
  auto run = [&](int64_t item, int thread) {
    if (item < cut) {
      int64_t k = 0, high = rows.longs;  // the long row whose segments hold this one
      while (high - k > 1) {
        const int64_t middle = (k + high) / 2;
        if (rows.long_segment[middle] <= item) k = middle; else high = middle;
      }
      const int64_t row = rows.long_row[k];
      const int64_t first = rows.indptr[row] + (item - rows.long_segment[k]) * kSegment;
      const int64_t end = rows.indptr[row + 1];
      body(row, first, first + kSegment < end ? first + kSegment : end, item, item, thread);
      return;
    }
    for (int64_t row = rows.task_row[item - cut]; row < rows.task_row[item - cut + 1]; ++row) {
      const int64_t first = rows.indptr[row], end = rows.indptr[row + 1];
      if (end - first <= kSegment) body(row, first, end, int64_t{-1}, item, thread);
    }
  };
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1 && count > 1)
#endif
  for (int64_t item = 0; item < count; ++item) run(item, thread_number());
}

// body(row, first segment, last segment) for every long row.
template <class Body> inline void for_long_rows(const Rows& rows, const Body& body) {
  for (int64_t k = 0; k < rows.longs; ++k) body(rows.long_row[k], rows.long_segment[k], rows.long_segment[k + 1]);
}

// body(first, end) over ranges of 0 .. count.
template <class Body> inline void for_ranges(int64_t count, int64_t size, int threads, const Body& body) {
  const int64_t ranges = (count + size - 1) / size;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1 && ranges > 1)
#endif
  for (int64_t k = 0; k < ranges; ++k) body(k * size, (k + 1) * size < count ? (k + 1) * size : count);
}

// Where a head's numbers lie in a row of storage and in scratch. A head of D numbers is cut into chunks of W; the
// last one starts at D - W and repeats some lanes of the one before, so that no load runs past the row.
template <int W> struct Layout {
  int heads, width, chunks;
  Layout(int heads, int width) : heads(heads), width(width), chunks((width + W - 1) / W) {}
  int at(int c) const { return c + 1 < chunks ? c * W : width - W; }
  int repeated() const { return chunks * W - width; }  // lanes of the last chunk that the chunk before holds too
  int64_t vectors() const { return static_cast<int64_t>(heads) * chunks; }
  int64_t lanes() const { return vectors() * W; }
};

// The lanes that a sum over a head's last chunk counts: what another row holds in the repeated ones becomes zero, because
// the zeros on this side alone would turn its infinities into NaN.
template <class A, int W> struct Counted {
  using Bits = Vec<typename BitsOf<A>::type, W>;
  Bits mask;
  explicit Counted(const Layout<W>& layout) : mask(~Bits{}) {
    if constexpr (W > 1)
      for (int l = 0; l < layout.repeated(); ++l) mask[l] = 0;
  }
  Vec<A, W> operator()(Vec<A, W> v) const {
    Bits bits;
    memcpy(&bits, &v, sizeof v);
    bits &= mask;
    memcpy(&v, &bits, sizeof v);
    return v;
  }
};

// A row of storage in scratch layout; repeated lanes are zero, so that a sum over all lanes counts each once.
template <class T, int W> inline void unpack(const Layout<W>& layout, const T* row, Sum<T>* out) {
  for (int h = 0; h < layout.heads; ++h)
    for (int c = 0; c < layout.chunks; ++c) {
      Sum<T>* to = out + (static_cast<int64_t>(h) * layout.chunks + c) * W;
      store<W>(to, load<W>(row + static_cast<int64_t>(h) * layout.width + layout.at(c)));
      if (c + 1 == layout.chunks)
        for (int l = 0; l < layout.repeated(); ++l) to[l] = 0;
    }
}

// The reverse: scratch to storage, times `factor` of the head if given. Chunks are written from the last to the first,
// so that the repeated lanes of the last one, whatever they hold, are overwritten by the chunk before it.
template <class T, int W>
inline void pack(const Layout<W>& layout, const Sum<T>* scratch, const Sum<T>* factor, T* row) {
  for (int h = 0; h < layout.heads; ++h)
    for (int c = layout.chunks - 1; c >= 0; --c) {
      auto v = load<W>(scratch + (static_cast<int64_t>(h) * layout.chunks + c) * W);
      if (factor) v = v * factor[h];
      store<W>(row + static_cast<int64_t>(h) * layout.width + layout.at(c), v);
    }
}

// Calls f with the number of heads as a constant where it is one of the common ones, else with 0.
template <class F> inline void with_heads(int heads, const F& f) {
  switch (heads) {
    case 1: f(Constant<1>{}); break;
    case 2: f(Constant<2>{}); break;
    case 4: f(Constant<4>{}); break;
    case 8: f(Constant<8>{}); break;
    case 16: f(Constant<16>{}); break;
    default: f(Constant<0>{});
  }
}

// to[h] = from[h] for the heads of one edge; a vector where their number is known.
template <class A, int HT> inline void copy_heads(A* to, const A* from, int heads) {
  if constexpr (HT > 0) {
    store<HT>(to, load<HT>(from));
  } else {
    for (int h = 0; h < heads; ++h) to[h] = from[h];
  }
}

// to[i] = from[index[i]] for rows of H numbers.
template <class A, int HT>
inline void gather_heads(A* to, const A* from, const int32_t* index, int64_t first, int64_t end, int64_t limit, int heads) {
  const int H = HT ? HT : heads;
  for (int64_t p = first; p < end; ++p, to += H) {
    if (p + 16 < limit) prefetch_line(from + static_cast<int64_t>(index[p + 16]) * H);
    copy_heads<A, HT>(to, from + static_cast<int64_t>(index[p]) * H, H);
  }
}

// to[index[i]] = from[i]
template <class A, int HT>
inline void scatter_heads(A* to, const A* from, const int32_t* index, int64_t first, int64_t end, int heads) {
  const int H = HT ? HT : heads;
  for (int64_t p = first; p < end; ++p, from += H) copy_heads<A, HT>(to + static_cast<int64_t>(index[p]) * H, from, H);
}

// sum[h] = sum over i < n of x[i, h]
template <class A, int HT> inline void sum_heads(const A* x, int64_t n, int heads, A* sum) {
  if constexpr (HT > 0) {
    Vec<A, HT> total{};
    for (int64_t i = 0; i < n; ++i) total += load<HT>(x + i * HT);
    store<HT>(sum, total);
  } else {
    for (int h = 0; h < heads; ++h) sum[h] = 0;
    for (int64_t i = 0; i < n; ++i)
      for (int h = 0; h < heads; ++h) sum[h] += x[i * heads + h];
  }
}

template <class A> inline void zero(A* x, int64_t n) {
  if (n > 0) memset(static_cast<void*>(x), 0, static_cast<size_t>(n) * sizeof(A));
}

template <class A> inline void add(A* to, const A* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += from[i];
}

// The rows that the edge loop will read next.
template <class T> HGAT_PREFETCHES void prefetch_row(const T* row, int64_t count) {
  const char* p = reinterpret_cast<const char*>(row);
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < bytes; i += 64) prefetch_line(p + i);
}

HGAT_CLOSE
