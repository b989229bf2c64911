// What the bindings hand to the kernels: plain arrays, and one table of functions per instruction set.
//
// Everything here is free of templates from the standard library: a template compiled with AVX-512 could be the copy
// that the linker keeps for every instruction set.

#pragma once

#include <cstdint>

namespace hgat {

enum class Type { f32, f64, bf16 };

// Edges grouped into rows: by destination (`other` is the source) or by source (`other` is the destination).
//
// Rows of more than kSegment edges are long: they are cut into segments that threads work on side by side, and whose
// parts are added up in order, so that one hub stalls nobody and the result does not depend on the threads.
struct Rows {
  int64_t rows;
  int64_t others;
  const int32_t* indptr;    // [rows + 1]
  const int32_t* other;     // [E]
  const int32_t* edge;      // [E] the edge's number in the graph
  int64_t tasks;            // ranges of rows with about kTask edges each
  const int32_t* task_row;  // [tasks + 1]
  int64_t longs;
  const int32_t* long_row;      // [longs]
  const int32_t* long_segment;  // [longs + 1] first segment of each long row
};

constexpr int64_t kSegment = 256;
constexpr int64_t kTask = 4096;

struct Graph {
  Rows in;
  Rows out;
  const int32_t* place;  // [E] position in `out` of the edge at each position in `in`
  int64_t edges;
};

// Which edges take part in the softmax, and what happens to alpha between the softmax and the sum.
struct AlphaScale {
  const uint8_t* keep;  // [E, 1] or [E, H]: 0 where the edge is left out; or null
  int keep_heads;
  const void* weight;  // [E, 1] or [E, H] in the type of the sums, or null
  int weight_heads;
  bool drops;
  uint32_t key;
  uint64_t threshold;
  double keep_scale;
};

// An absent array is null. Scores, alpha and everything [N, H] or [E, H] have the type of the sums: float64 for
// float64, else float32. Arrays [N, H, D] have the type of storage.
struct Additive {
  Graph graph;
  Type type;
  int heads, width, threads;
  AlphaScale scale;
  double slope;
  const void *value, *score_src, *score_dst, *score_edge;
  void *out, *alpha, *logits, *top, *inverse;  // logits: before the leaky ReLU, asked for alone
  // Backward only. It reads top and inverse, and never out: that memory is the caller's to write to.
  const void* d_out;
  void *d_value, *d_score_src, *d_score_dst, *d_score_edge, *d_weight;
};

// Weights without a softmax: out_v = sum over u of f(score_src_u + score_dst_v + score_edge_uv) * scale * value_u.
struct Gated {
  Graph graph;
  Type type;
  int heads, width, threads;
  AlphaScale scale;
  bool tanh;  // f, else the sigmoid
  const void *value, *score_src, *score_dst, *score_edge;
  void* out;
  const void* d_out;
  void *d_value, *d_score_src, *d_score_dst, *d_score_edge, *d_weight;
};

struct Gatv2 {
  Graph graph;
  Type type;
  int heads, width, threads;
  AlphaScale scale;
  double slope;
  const void *feat_src, *feat_dst, *feat_edge, *attn;
  void *out, *alpha, *top, *inverse;
  const void* d_out;
  const void* d_logits;  // [E, H]: given instead of d_out, the gradient starts at the logits
  void *d_feat_src, *d_feat_dst, *d_feat_edge, *d_attn, *d_weight;
};

struct Dot {
  Graph graph;
  Type type;
  int heads, width, value_width, threads;
  AlphaScale scale;
  double factor;
  const void *query, *key, *value, *bias;
  void *out, *alpha, *logits, *top, *inverse;
  const void* d_out;
  void *d_query, *d_key, *d_value, *d_bias, *d_weight;
};

// out_row = sum over the row's edges of weight_edge * value_other, and its backward.
struct WeightedSum {
  Rows rows;
  Type type;
  int heads, value_heads, width, threads;
  double factor;
  const void *value, *weight;
  void* out;
};

struct WeightedSumBackward {
  Rows rows;  // by source
  Type type;
  int heads, value_heads, width, threads;
  const void *value, *weight, *d_out;
  void *d_value, *d_weight;
};

struct SoftmaxBackward {
  Rows rows;  // by destination
  Type type;  // of alpha: f32 or f64
  int heads, threads;
  const void *alpha, *d_alpha;
  void* d_logits;
};

// out_row = sum over the row's edges of edge_value, [rows, H].
struct EdgeSum {
  Rows rows;
  Type type;
  int heads, threads;
  const void* edge_value;
  void* out;
};

struct Kernels {
  const char* name;
  void (*additive_forward)(const Additive&);
  void (*additive_backward)(const Additive&);
  void (*gatv2_forward)(const Gatv2&);
  void (*gatv2_backward)(const Gatv2&);
  void (*dot_forward)(const Dot&);
  void (*dot_backward)(const Dot&);
  void (*weighted_sum)(const WeightedSum&);
  void (*weighted_sum_backward)(const WeightedSumBackward&);
  void (*softmax_backward)(const SoftmaxBackward&);
  void (*edge_sum)(const EdgeSum&);
  void (*gated_forward)(const Gated&);
  void (*gated_backward)(const Gated&);
};

// Puts large pages behind memory that a kernel is about to fill, whatever it holds: at 4 KiB a page, the first touch of
// fresh memory takes longer than the arithmetic. Memory below 4 MiB, and other systems than Linux, are left alone.
void prepare_memory(void* memory, int64_t bytes, int threads);

// One table per instruction set that was built; table.cpp is compiled once for each.
namespace baseline { const Kernels* kernels(); }
namespace avx2 { const Kernels* kernels(); }
namespace avx512 { const Kernels* kernels(); }

}  // namespace hgat
