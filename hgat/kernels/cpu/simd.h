// Vectors of a fixed number of lanes, written with the compiler's vector types so that one source serves every
// instruction set. W = 1 is a plain number.

#pragma once

#include <cstdint>
#include <cstring>

#ifndef HGAT_ISA
#define HGAT_ISA baseline
#endif

// Everything that is compiled once per instruction set lives in a namespace of that name, so that the linker never
// takes one set's copy for another's.
#define HGAT_OPEN namespace hgat { namespace HGAT_ISA {
#define HGAT_CLOSE } }

HGAT_OPEN

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

struct bf16 {
  uint16_t bits;
};

template <class T> struct SumType { using type = T; };
template <> struct SumType<bf16> { using type = float; };
template <class T> using Sum = typename SumType<T>::type;  // the type in which storage type T is added up

template <class A> struct BitsOf;
template <> struct BitsOf<float> { using type = uint32_t; };
template <> struct BitsOf<double> { using type = uint64_t; };

template <class A, int W> struct VectorOf { typedef A type __attribute__((vector_size(sizeof(A) * W))); };
template <class A> struct VectorOf<A, 1> { using type = A; };
template <class A, int W> using Vec = typename VectorOf<A, W>::type;

template <class A> constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));

template <class A, int W> inline Vec<A, W> splat(A x) { return x - Vec<A, W>{}; }

template <int W> inline Vec<float, W> load(const float* p) { Vec<float, W> v; memcpy(&v, p, sizeof v); return v; }
template <int W> inline Vec<double, W> load(const double* p) { Vec<double, W> v; memcpy(&v, p, sizeof v); return v; }
template <int W> inline Vec<float, W> load(const bf16* p) {
  Vec<float, W> v;
  if constexpr (W == 1) {
    const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
    memcpy(&v, &bits, sizeof v);
  } else {
    Vec<uint16_t, W> half;
    memcpy(&half, p, sizeof half);
    const Vec<uint32_t, W> bits = __builtin_convertvector(half, Vec<uint32_t, W>) << 16;
    memcpy(&v, &bits, sizeof v);
  }
  return v;
}

template <int W> inline void store(float* p, Vec<float, W> v) { memcpy(p, &v, sizeof v); }
template <int W> inline void store(double* p, Vec<double, W> v) { memcpy(p, &v, sizeof v); }
template <int W> inline void store(bf16* p, Vec<float, W> v) {
  // Round to nearest, ties to even; a NaN keeps its top bits and becomes quiet.
  if constexpr (W == 1) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof v);
    p->bits = v != v ? static_cast<uint16_t>((bits >> 16) | 64u)
                     : static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  } else {
    Vec<uint32_t, W> bits;
    memcpy(&bits, &v, sizeof v);
    const Vec<uint32_t, W> rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Vec<uint16_t, W> half = __builtin_convertvector(v != v ? ((bits >> 16) | 64u) : rounded, Vec<uint16_t, W>);
    memcpy(p, &half, sizeof half);
  }
}

// Both halves of a vector, added.
template <class A> inline Vec<A, 8> fold(Vec<A, 16> v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
         __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
}
template <class A> inline Vec<A, 4> fold(Vec<A, 8> v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
}

template <class A, int W> inline A sum_lanes(Vec<A, W> v) {
  if constexpr (W == 1) {
    return v;
  } else if constexpr (W == 2) {
    return v[0] + v[1];
  } else if constexpr (W == 4) {
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1);
    return v[0] + v[1];
  } else {
    return sum_lanes<A, W / 2>(fold<A>(v));
  }
}

// out[k] = sum of the lanes of v[k], for N vectors at once; N a power of two. Halves are folded until there are as many
// lanes as vectors, and then neighbouring lanes of two vectors are added into one vector, so that every addition fills
// its lanes.
template <class A, int W, int N> inline void sum_lanes_of(const Vec<A, W>* v, A* out) {
  if constexpr (N == 1 || W < N) {
    for (int k = 0; k < N; ++k) out[k] = sum_lanes<A, W>(v[k]);
  } else if constexpr (W > N && W > 4) {
    Vec<A, W / 2> half[N];
    for (int k = 0; k < N; ++k) half[k] = fold<A>(v[k]);
    sum_lanes_of<A, W / 2, N>(half, out);
  } else if constexpr (W > N) {
    for (int k = 0; k < N; ++k) out[k] = sum_lanes<A, W>(v[k]);
  } else {
    using U = Vec<typename BitsOf<A>::type, W>;
    U even, odd;
    for (int l = 0; l < W; ++l) even[l] = static_cast<typename BitsOf<A>::type>(2 * l), odd[l] = even[l] + 1;
    Vec<A, W> level[N];
    for (int k = 0; k < N; ++k) level[k] = v[k];
    for (int n = N / 2; n >= 1; n /= 2)
      for (int k = 0; k < n; ++k)
        level[k] = __builtin_shuffle(level[2 * k], level[2 * k + 1], even) +
                   __builtin_shuffle(level[2 * k], level[2 * k + 1], odd);
    memcpy(out, &level[0], sizeof level[0]);
  }
}

template <class A, int W> inline Vec<A, W> greater(Vec<A, W> a, Vec<A, W> b) { return a > b ? a : b; }

template <class A, int W> inline Vec<A, W> leaky(Vec<A, W> x, A slope) { return x > 0 ? x : x * slope; }

// Lane l gets lane (l + step) mod W.
template <class A, int W> inline Vec<A, W> rotate(Vec<A, W> v, int step) {
  Vec<typename BitsOf<A>::type, W> from;
  for (int l = 0; l < W; ++l) from[l] = static_cast<typename BitsOf<A>::type>((l + step) & (W - 1));
  return __builtin_shuffle(v, from);
}

// exp(x) for x <= 0, to about one unit in the last place; NaN stays NaN, and below the smallest normal number
// the result is 0.
template <int W> inline Vec<float, W> exp_negative(Vec<float, W> x) {
  using V = Vec<float, W>;
  using U = Vec<uint32_t, W>;
  const V magic = splat<float, W>(12582912.0f);  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
  const V t = x * 1.44269504088896341f + magic;
  const V n = t - magic;
  V r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  V y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  U bits, base;
  memcpy(&bits, &t, sizeof bits);
  memcpy(&base, &magic, sizeof base);
  bits = (bits - base + 127u) << 23;
  V power;
  memcpy(&power, &bits, sizeof power);
  const V zero = V{};
  return x < -87.3f ? zero : y * power;
}

template <int W> inline Vec<double, W> exp_negative(Vec<double, W> x) {
  using V = Vec<double, W>;
  using U = Vec<uint64_t, W>;
  const V magic = splat<double, W>(6755399441055744.0);  // 1.5 * 2^52
  const V t = x * 1.4426950408889634074 + magic;
  const V n = t - magic;
  V r = x - n * 0.693147180369123816490;
  r = r - n * 1.90821492927058770002e-10;
  V y = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
  y = y * r + 1.0 / 39916800.0;
  y = y * r + 1.0 / 3628800.0;
  y = y * r + 1.0 / 362880.0;
  y = y * r + 1.0 / 40320.0;
  y = y * r + 1.0 / 5040.0;
  y = y * r + 1.0 / 720.0;
  y = y * r + 1.0 / 120.0;
  y = y * r + 1.0 / 24.0;
  y = y * r + 1.0 / 6.0;
  y = y * r + 0.5;
  y = y * r * r + r + 1.0;
  U bits, base;
  memcpy(&bits, &t, sizeof bits);
  memcpy(&base, &magic, sizeof base);
  bits = (bits - base + 1023u) << 52;
  V power;
  memcpy(&power, &bits, sizeof power);
  const V zero = V{};
  return x < -708.3 ? zero : y * power;
}

// x[i] = exp(x[i]) for i < n, x readable and writable up to the next multiple of the lanes.
template <class A> inline void exp_all(A* x, int64_t n) {
  constexpr int L = kLanes<A>;
  for (int64_t i = 0; i < n; i += L) store<L>(x + i, exp_negative<L>(load<L>(x + i)));
}

// GCC takes a function that only prefetches for one without effect, and drops calls that it does not inline at once.
#if defined(__GNUC__)
#define HGAT_PREFETCHES __attribute__((always_inline)) inline
#else
#define HGAT_PREFETCHES inline
#endif

HGAT_PREFETCHES void prefetch_line(const void* p) { __builtin_prefetch(p, 0, 3); }

HGAT_CLOSE
