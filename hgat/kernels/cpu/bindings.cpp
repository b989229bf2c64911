// The compiled core's door to Python: what it was built with, and the kernels on plain arrays.
//
// hgat.ops checks a user's arguments. What is checked here once more, cheaply, is that every array has the size that
// the kernel will read or write, so that no mistake in the layers above can reach memory that is not theirs.

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "dropout.h"
#include "kernels.h"
#include "ppr.h"
#include "recent.h"
#include "structure.h"

namespace nb = nanobind;

namespace {

using hgat::AlphaScale;
using hgat::Graph;
using hgat::Kernels;
using hgat::Type;
using Array = nb::ndarray<nb::c_contig, nb::device::cpu>;
using MaybeArray = std::optional<Array>;

// ---- instruction sets ----

std::vector<std::string> cpu_instruction_sets() {
  std::vector<std::string> sets{"baseline"};
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets.push_back("avx2");
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma"))
    sets.push_back("avx512");
#endif
  return sets;
}

std::vector<const Kernels*> built() {
  std::vector<const Kernels*> tables{hgat::baseline::kernels()};
#ifdef HGAT_X86
  tables.push_back(hgat::avx2::kernels());
  tables.push_back(hgat::avx512::kernels());
#endif
  return tables;
}

const Kernels* chosen = nullptr;

// Takes the named set, or the best one for "auto". Raises ValueError for one that is not here.
std::string use_instruction_set(const std::string& name) {
  const std::vector<std::string> offered = cpu_instruction_sets();
  std::string names;
  const Kernels* best = nullptr;
  for (const Kernels* table : built())
    for (const std::string& set : offered)
      if (set == table->name && (name == "auto" || name == set)) best = table;
      else if (set == table->name) names += (names.empty() ? "" : ", ") + set;
  if (best == nullptr)
    throw nb::value_error(("instruction set: expected auto or one of " + names + ", got " + name).c_str());
  chosen = best;
  return best->name;
}

int max_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

// ---- arrays ----

[[noreturn]] void refuse(const char* name, const std::string& expected, const Array& got) {
  std::string shape;
  for (size_t k = 0; k < got.ndim(); ++k) shape += (k ? ", " : "") + std::to_string(got.shape(k));
  throw nb::value_error((std::string(name) + ": expected " + expected + ", got [" + shape + "] of " +
                         std::to_string(got.dtype().bits) + " bits").c_str());
}

int bits_of(Type type) { return type == Type::f64 ? 64 : type == Type::f32 ? 32 : 16; }
int sum_bits_of(Type type) { return type == Type::f64 ? 64 : 32; }

void* checked(const char* name, const Array& array, int bits, int64_t count) {
  if (array.dtype().bits != bits || static_cast<int64_t>(array.size()) != count)
    refuse(name, std::to_string(count) + " elements of " + std::to_string(bits) + " bits", array);
  return array.data();
}

void* checked(const char* name, const MaybeArray& array, int bits, int64_t count) {
  return array ? checked(name, *array, bits, count) : nullptr;
}

// The same for memory that the kernel fills: what it holds is lost.
void* filled(const char* name, const MaybeArray& array, int bits, int64_t count, int threads) {
  void* memory = checked(name, array, bits, count);
  nb::gil_scoped_release release;
  hgat::prepare_memory(memory, count * bits / 8, threads);
  return memory;
}

// What forward fills and backward reads.
void* forwards(bool backward, const char* name, const MaybeArray& array, int bits, int64_t count, int threads) {
  return backward ? checked(name, array, bits, count) : filled(name, array, bits, count, threads);
}

Type type_of(const std::string& name) {
  if (name == "float32") return Type::f32;
  if (name == "float64") return Type::f64;
  if (name == "bfloat16") return Type::bf16;
  throw nb::value_error(("type: expected float32, float64 or bfloat16, got " + name).c_str());
}

Graph graph_of(const Array& structure) {
  if (structure.dtype() != nb::dtype<int32_t>() || structure.ndim() != 1) refuse("structure", "[n] int32", structure);
  return hgat::read_structure(static_cast<const int32_t*>(structure.data()), static_cast<int64_t>(structure.size()));
}

int positive(const char* name, int64_t value, int64_t least = 1) {
  if (value < least || value > (1 << 24))
    throw nb::value_error((std::string(name) + ": expected " + std::to_string(least) + " to 2^24, got " +
                           std::to_string(value)).c_str());
  return static_cast<int>(value);
}

// (edge weight or None, edge mask or None, seed, threshold of 2^32, scale of what is kept)
AlphaScale scale_of(MaybeArray weight, MaybeArray keep, uint64_t seed, uint64_t threshold, double keep_scale, Type type,
                    int64_t edges, int heads) {
  AlphaScale scale{};
  if (keep) {
    scale.keep_heads = keep->ndim() == 2 && keep->shape(1) == 1 ? 1 : heads;
    scale.keep = static_cast<const uint8_t*>(checked("edge_mask", *keep, 8, edges * scale.keep_heads));
  }
  if (weight) {
    scale.weight_heads = weight->ndim() == 2 && weight->shape(1) == 1 ? 1 : heads;
    scale.weight = checked("edge_weight", *weight, sum_bits_of(type), edges * scale.weight_heads);
  }
  scale.drops = threshold > 0;
  scale.key = hgat::baseline::dropout_key(seed);
  scale.threshold = threshold;
  scale.keep_scale = keep_scale;
  return scale;
}

// For memory that others are about to fill: what it holds is lost.
void prepare(const Array& array, int threads) {
  void* memory = array.data();
  const int64_t bytes = static_cast<int64_t>(array.nbytes());
  nb::gil_scoped_release release;
  hgat::prepare_memory(memory, bytes, threads);
}

// scale [E, H]: 0 where (seed, edge, head) is dropped, else keep_scale.
template <typename T>
void dropout_scale(nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu> scale, uint64_t seed,
                   uint64_t threshold, T keep_scale, int threads) {
  const int64_t edges = static_cast<int64_t>(scale.shape(0));
  const int64_t heads = static_cast<int64_t>(scale.shape(1));
  T* out = scale.data();
  const uint32_t key = hgat::baseline::dropout_key(seed);
  nb::gil_scoped_release release;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
  for (int64_t edge = 0; edge < edges; ++edge) {
    const uint32_t row = hgat::baseline::dropout_row(key, static_cast<uint64_t>(edge));
    for (int64_t head = 0; head < heads; ++head) {
      const bool keep = hgat::baseline::dropout_bits(row, static_cast<uint32_t>(head)) >= threshold;
      out[edge * heads + head] = keep ? keep_scale : T(0);
    }
  }
}

nb::object build_structure(const Array& src, const Array& dst, int64_t num_src, int64_t num_dst) {
  const int64_t edges = static_cast<int64_t>(src.size());
  const bool wide = src.dtype() == nb::dtype<int64_t>();
  if ((!wide && src.dtype() != nb::dtype<int32_t>()) || dst.dtype() != src.dtype()) refuse("source", "[E] int32 or int64", src);
  if (static_cast<int64_t>(dst.size()) != edges) refuse("destination", "as many as sources", dst);
  auto* data = new std::vector<int32_t>();
  nb::capsule owner(data, [](void* p) noexcept { delete static_cast<std::vector<int32_t>*>(p); });
  {
    nb::gil_scoped_release release;
    *data = wide ? hgat::build_structure(static_cast<const int64_t*>(src.data()), static_cast<const int64_t*>(dst.data()),
                                         edges, num_src, num_dst)
                 : hgat::build_structure(static_cast<const int32_t*>(src.data()), static_cast<const int32_t*>(dst.data()),
                                         edges, num_src, num_dst);
  }
  const size_t shape[1] = {data->size()};
  return nb::cast(nb::ndarray<nb::numpy, int32_t>(data->data(), 1, shape, owner));
}

// ---- events ----

template <class Time>
void recent_of(const Array& indptr, const Array& neighbour, const Array& time, const Array& edge, const Array& nodes,
               const Array& times, int64_t count, MaybeArray near, MaybeArray when, MaybeArray which, MaybeArray mask,
               MaybeArray end, int threads) {
  const int64_t rows = static_cast<int64_t>(indptr.size()) - 1, events = static_cast<int64_t>(time.size());
  const int64_t queries = static_cast<int64_t>(nodes.size()), slots = queries * count;
  const hgat::Events<Time> known{static_cast<const int64_t*>(checked("indptr", indptr, 64, rows + 1)),
                                 static_cast<const int64_t*>(checked("neighbour", neighbour, 64, events)),
                                 static_cast<const Time*>(checked("time", time, 64, events)),
                                 static_cast<const int64_t*>(checked("edge", edge, 64, events))};
  const auto* node = static_cast<const int64_t*>(checked("nodes", nodes, 64, queries));
  const auto* now = static_cast<const Time*>(checked("times", times, 64, queries));
  if (count < 0 || (count && !(near && when && which && mask)))
    throw nb::value_error("count: expected 0 or more, and memory for what is found");
  const hgat::Found<Time> found{static_cast<int64_t*>(checked("neighbour", near, 64, slots)),
                                static_cast<Time*>(checked("time", when, 64, slots)),
                                static_cast<int64_t*>(checked("edge", which, 64, slots)),
                                static_cast<uint8_t*>(checked("mask", mask, 8, slots)),
                                static_cast<int64_t*>(checked("end", end, 64, queries))};
  nb::gil_scoped_release release;
  // Only the rows that are asked for: a call may ask for a few of millions.
  for (int64_t q = 0; q < queries; ++q) {
    const bool inside = node[q] >= 0 && node[q] < rows;
    const int64_t first = inside ? known.indptr[node[q]] : -1, end = inside ? known.indptr[node[q] + 1] : -1;
    if (first < 0 || end < first || end > events) {
      nb::gil_scoped_acquire acquire;
      throw nb::value_error(inside ? "indptr: expected rising positions of events" : "nodes: expected numbers of rows");
    }
  }
  hgat::recent<Time>(known, node, now, queries, count, found, threads);
}

void recent(const Array& indptr, const Array& neighbour, const Array& time, const Array& edge, const Array& nodes,
            const Array& times, int64_t count, MaybeArray near, MaybeArray when, MaybeArray which, MaybeArray mask,
            MaybeArray end, int threads) {
  if (time.dtype() != times.dtype()) refuse("times", "the type of the events' times", times);
  const auto run = time.dtype() == nb::dtype<double>() ? &recent_of<double> : &recent_of<int64_t>;
  run(indptr, neighbour, time, edge, nodes, times, count, near, when, which, mask, end, threads);
}

// ---- walks ----

hgat::Walk walk_of(const Array& indptr, const Array& other, const Array& weight, const Array& threshold,
                   const MaybeArray& root, double alpha) {
  const int64_t nodes = static_cast<int64_t>(threshold.size()), steps = static_cast<int64_t>(other.size());
  if (nodes >= INT32_MAX) throw nb::value_error("threshold: expected fewer than 2^31 nodes");
  const hgat::Walk walk{nodes,
                        static_cast<const int64_t*>(checked("indptr", indptr, 64, nodes + 1)),
                        static_cast<const int32_t*>(checked("other", other, 32, steps)),
                        static_cast<const double*>(checked("weight", weight, 64, steps)),
                        static_cast<const double*>(checked("threshold", threshold, 64, nodes)),
                        static_cast<const double*>(checked("root", root, 64, nodes)),
                        alpha};
  hgat::check_rows(walk.indptr, nodes, walk.other, steps, nodes);
  return walk;
}

// (column, value, entries of each row and those before it) of the rows first to last - 1.
nb::tuple nearest_by_ppr(const Array& indptr, const Array& other, const Array& weight, const Array& threshold,
                         const MaybeArray& root, double alpha, int64_t first, int64_t last, int64_t k, int threads) {
  const hgat::Walk walk = walk_of(indptr, other, weight, threshold, root, alpha);
  if (first < 0 || last < first || last > walk.nodes || k < 1)
    throw nb::value_error("first, last, k: expected a range of rows, and 1 or more");
  auto* found = new hgat::Nearest();
  nb::capsule owner(found, [](void* p) noexcept { delete static_cast<hgat::Nearest*>(p); });
  {
    nb::gil_scoped_release release;
    hgat::nearest_by_ppr(walk, first, last, k, positive("threads", threads), *found);
  }
  const size_t entries[1] = {found->column.size()}, rows[1] = {found->indptr.size()};
  return nb::make_tuple(nb::ndarray<nb::numpy, int64_t>(found->column.data(), 1, entries, owner),
                        nb::ndarray<nb::numpy, float>(found->value.data(), 1, entries, owner),
                        nb::ndarray<nb::numpy, int64_t>(found->indptr.data(), 1, rows, owner));
}

void ppr_at(const Array& indptr, const Array& other, const Array& weight, const Array& threshold,
            const MaybeArray& root, double alpha, int64_t first, const Array& asked, const Array& column,
            const Array& value, int threads) {
  const hgat::Walk walk = walk_of(indptr, other, weight, threshold, root, alpha);
  const int64_t rows = static_cast<int64_t>(asked.size()) - 1, entries = static_cast<int64_t>(column.size());
  if (first < 0 || rows < 0 || first > walk.nodes - rows) throw nb::value_error("first, asked: expected a range of rows");
  const auto* begin = static_cast<const int64_t*>(checked("asked", asked, 64, rows + 1));
  const auto* columns = static_cast<const int32_t*>(checked("column", column, 32, entries));
  auto* values = static_cast<float*>(checked("value", value, 32, entries));
  hgat::check_rows(begin, rows, columns, entries, walk.nodes);
  nb::gil_scoped_release release;
  hgat::ppr_at(walk, first, rows, begin, columns, positive("threads", threads), values);
}

// ---- operators ----

void additive(bool backward, const Array& structure, const std::string& type_name, int64_t heads, int64_t width,
              int threads, double slope, uint64_t seed, uint64_t threshold, double keep_scale,
              MaybeArray edge_weight, MaybeArray edge_mask, MaybeArray value, MaybeArray score_src,
              MaybeArray score_dst, MaybeArray score_edge, MaybeArray out, MaybeArray alpha,
              MaybeArray logits, MaybeArray top, MaybeArray inverse, MaybeArray d_out, MaybeArray d_value,
              MaybeArray d_score_src, MaybeArray d_score_dst, MaybeArray d_score_edge,
              MaybeArray d_weight) {
  hgat::Additive a{};
  a.graph = graph_of(structure);
  a.type = type_of(type_name);
  a.heads = positive("heads", heads);
  a.width = positive("width", width);
  a.threads = positive("threads", threads);
  a.slope = slope;
  const int wide = sum_bits_of(a.type), narrow = bits_of(a.type);
  const int64_t src = a.graph.out.rows, dst = a.graph.in.rows, edges = a.graph.edges, row = heads * width;
  a.scale = scale_of(edge_weight, edge_mask, seed, threshold, keep_scale, a.type, edges, a.heads);
  a.value = checked("value", value, narrow, src * row);
  a.score_src = checked("score_src", score_src, wide, src * heads);
  a.score_dst = checked("score_dst", score_dst, wide, dst * heads);
  a.score_edge = checked("score_edge", score_edge, wide, edges * heads);
  a.out = forwards(backward, "out", out, narrow, dst * row, a.threads);
  a.alpha = forwards(backward, "alpha", alpha, wide, edges * heads, a.threads);
  a.logits = forwards(backward, "logits", logits, wide, edges * heads, a.threads);
  a.top = forwards(backward, "top", top, wide, dst * heads, a.threads);
  a.inverse = forwards(backward, "inverse", inverse, wide, dst * heads, a.threads);
  a.d_out = checked("d_out", d_out, narrow, dst * row);
  a.d_value = filled("d_value", d_value, narrow, src * row, a.threads);
  a.d_score_src = filled("d_score_src", d_score_src, wide, src * heads, a.threads);
  a.d_score_dst = filled("d_score_dst", d_score_dst, wide, dst * heads, a.threads);
  a.d_score_edge = filled("d_score_edge", d_score_edge, wide, edges * heads, a.threads);
  a.d_weight = filled("d_weight", d_weight, wide, edges * heads, a.threads);
  if ((a.score_src == nullptr) != (a.score_dst == nullptr) || (a.out && !a.value) || ((a.top == nullptr) != (a.inverse == nullptr)) ||
      (backward && !(a.value && a.score_src && a.top && a.d_out)))
    throw nb::value_error("additive: arrays that belong together are missing");
  nb::gil_scoped_release release;
  backward ? chosen->additive_backward(a) : chosen->additive_forward(a);
}

void gated(bool backward, const Array& structure, const std::string& type_name, int64_t heads, int64_t width, int threads,
           bool tanh, uint64_t seed, uint64_t threshold, double keep_scale, MaybeArray edge_weight, MaybeArray edge_mask,
           const Array& value, const Array& score_src, const Array& score_dst, MaybeArray score_edge, MaybeArray out,
           MaybeArray d_out, MaybeArray d_value, MaybeArray d_score_src, MaybeArray d_score_dst, MaybeArray d_score_edge,
           MaybeArray d_weight) {
  hgat::Gated g{};
  g.graph = graph_of(structure);
  g.type = type_of(type_name);
  g.heads = positive("heads", heads);
  g.width = positive("width", width);
  g.threads = positive("threads", threads);
  g.tanh = tanh;
  const int wide = sum_bits_of(g.type), narrow = bits_of(g.type);
  const int64_t src = g.graph.out.rows, dst = g.graph.in.rows, edges = g.graph.edges, row = heads * width;
  g.scale = scale_of(edge_weight, edge_mask, seed, threshold, keep_scale, g.type, edges, g.heads);
  g.value = checked("value", value, narrow, src * row);
  g.score_src = checked("score_src", score_src, wide, src * heads);
  g.score_dst = checked("score_dst", score_dst, wide, dst * heads);
  g.score_edge = checked("score_edge", score_edge, wide, edges * heads);
  g.out = forwards(backward, "out", out, narrow, dst * row, g.threads);
  g.d_out = checked("d_out", d_out, narrow, dst * row);
  g.d_value = filled("d_value", d_value, narrow, src * row, g.threads);
  g.d_score_src = filled("d_score_src", d_score_src, wide, src * heads, g.threads);
  g.d_score_dst = filled("d_score_dst", d_score_dst, wide, dst * heads, g.threads);
  g.d_score_edge = filled("d_score_edge", d_score_edge, wide, edges * heads, g.threads);
  g.d_weight = filled("d_weight", d_weight, wide, edges * heads, g.threads);
  if (backward ? !g.d_out : !g.out) throw nb::value_error("gated: arrays that belong together are missing");
  nb::gil_scoped_release release;
  backward ? chosen->gated_backward(g) : chosen->gated_forward(g);
}

void gatv2(bool backward, const Array& structure, const std::string& type_name, int64_t heads, int64_t width,
           int threads, double slope, uint64_t seed, uint64_t threshold, double keep_scale,
           MaybeArray edge_weight, MaybeArray edge_mask, const Array& feat_src, const Array& feat_dst, MaybeArray feat_edge,
           const Array& attn, MaybeArray out, MaybeArray alpha, MaybeArray top,
           MaybeArray inverse, MaybeArray d_out, MaybeArray d_logits, MaybeArray d_feat_src,
           MaybeArray d_feat_dst, MaybeArray d_feat_edge, MaybeArray d_attn,
           MaybeArray d_weight) {
  hgat::Gatv2 g{};
  g.graph = graph_of(structure);
  g.type = type_of(type_name);
  g.heads = positive("heads", heads);
  g.width = positive("width", width);
  g.threads = positive("threads", threads);
  g.slope = slope;
  const int wide = sum_bits_of(g.type), narrow = bits_of(g.type);
  const int64_t src = g.graph.out.rows, dst = g.graph.in.rows, edges = g.graph.edges, row = heads * width;
  g.scale = scale_of(edge_weight, edge_mask, seed, threshold, keep_scale, g.type, edges, g.heads);
  g.feat_src = checked("feat_src", feat_src, narrow, src * row);
  g.feat_dst = checked("feat_dst", feat_dst, narrow, dst * row);
  g.feat_edge = checked("feat_edge", feat_edge, narrow, edges * row);
  g.attn = checked("attn", attn, wide, row);
  g.out = forwards(backward, "out", out, narrow, dst * row, g.threads);
  g.alpha = forwards(backward, "alpha", alpha, wide, edges * heads, g.threads);
  g.top = forwards(backward, "top", top, wide, dst * heads, g.threads);
  g.inverse = forwards(backward, "inverse", inverse, wide, dst * heads, g.threads);
  g.d_out = checked("d_out", d_out, narrow, dst * row);
  g.d_logits = checked("d_logits", d_logits, wide, edges * heads);
  g.d_feat_src = filled("d_feat_src", d_feat_src, narrow, src * row, g.threads);
  g.d_feat_dst = filled("d_feat_dst", d_feat_dst, narrow, dst * row, g.threads);
  g.d_feat_edge = filled("d_feat_edge", d_feat_edge, narrow, edges * row, g.threads);
  g.d_attn = filled("d_attn", d_attn, wide, row, g.threads);
  g.d_weight = filled("d_weight", d_weight, wide, edges * heads, g.threads);
  if ((g.top == nullptr) != (g.inverse == nullptr) ||
      (backward && !g.d_logits && !(g.top && g.d_out)))
    throw nb::value_error("gatv2: arrays that belong together are missing");
  nb::gil_scoped_release release;
  backward ? chosen->gatv2_backward(g) : chosen->gatv2_forward(g);
}

void dot(bool backward, const Array& structure, const std::string& type_name, int64_t heads, int64_t width,
         int64_t value_width, int threads, double factor, uint64_t seed, uint64_t threshold, double keep_scale,
         MaybeArray edge_weight, MaybeArray edge_mask, const Array& query, const Array& key, MaybeArray value,
         MaybeArray bias, MaybeArray out, MaybeArray alpha, MaybeArray logits,
         MaybeArray top, MaybeArray inverse, MaybeArray d_out, MaybeArray d_query,
         MaybeArray d_key, MaybeArray d_value, MaybeArray d_bias, MaybeArray d_weight) {
  hgat::Dot d{};
  d.graph = graph_of(structure);
  d.type = type_of(type_name);
  d.heads = positive("heads", heads);
  d.width = positive("width", width);
  d.value_width = positive("value_width", value_width);
  d.threads = positive("threads", threads);
  d.factor = factor;
  const int wide = sum_bits_of(d.type), narrow = bits_of(d.type);
  const int64_t src = d.graph.out.rows, dst = d.graph.in.rows, edges = d.graph.edges;
  const int64_t row = heads * width, value_row = heads * value_width;
  d.scale = scale_of(edge_weight, edge_mask, seed, threshold, keep_scale, d.type, edges, d.heads);
  d.query = checked("query", query, narrow, dst * row);
  d.key = checked("key", key, narrow, src * row);
  d.value = checked("value", value, narrow, src * value_row);
  d.bias = checked("bias", bias, wide, edges * heads);
  d.out = forwards(backward, "out", out, narrow, dst * value_row, d.threads);
  d.alpha = forwards(backward, "alpha", alpha, wide, edges * heads, d.threads);
  d.logits = forwards(backward, "logits", logits, wide, edges * heads, d.threads);
  d.top = forwards(backward, "top", top, wide, dst * heads, d.threads);
  d.inverse = forwards(backward, "inverse", inverse, wide, dst * heads, d.threads);
  d.d_out = checked("d_out", d_out, narrow, dst * value_row);
  d.d_query = filled("d_query", d_query, narrow, dst * row, d.threads);
  d.d_key = filled("d_key", d_key, narrow, src * row, d.threads);
  d.d_value = filled("d_value", d_value, narrow, src * value_row, d.threads);
  d.d_bias = filled("d_bias", d_bias, wide, edges * heads, d.threads);
  d.d_weight = filled("d_weight", d_weight, wide, edges * heads, d.threads);
  if ((d.out && !d.value) || ((d.top == nullptr) != (d.inverse == nullptr)) ||
      (backward && !(d.value && d.top && d.d_out)))
    throw nb::value_error("dot: arrays that belong together are missing");
  nb::gil_scoped_release release;
  backward ? chosen->dot_backward(d) : chosen->dot_forward(d);
}

// by_source: rows are the sources, and value belongs to the destinations.
void weighted_sum(const Array& structure, bool by_source, const std::string& type_name, int64_t heads,
                  int64_t value_heads, int64_t width, int threads, double factor, const Array& value,
                  const Array& weight, const Array& out) {
  const Graph graph = graph_of(structure);
  hgat::WeightedSum s{};
  s.rows = by_source ? graph.out : graph.in;
  s.type = type_of(type_name);
  s.heads = positive("heads", heads);
  s.value_heads = positive("value_heads", value_heads);
  s.width = positive("width", width);
  s.threads = positive("threads", threads);
  s.factor = factor;
  if (value_heads != 1 && value_heads != heads) throw nb::value_error("value_heads: expected 1 or heads");
  s.value = checked("value", value, bits_of(s.type), s.rows.others * value_heads * width);
  s.weight = checked("weight", weight, sum_bits_of(s.type), graph.edges * heads);
  s.out = filled("out", out, bits_of(s.type), s.rows.rows * heads * width, s.threads);
  nb::gil_scoped_release release;
  chosen->weighted_sum(s);
}

void weighted_sum_backward(const Array& structure, const std::string& type_name, int64_t heads, int64_t value_heads,
                           int64_t width, int threads, const Array& value, const Array& weight, const Array& d_out,
                           MaybeArray d_value, MaybeArray d_weight) {
  const Graph graph = graph_of(structure);
  hgat::WeightedSumBackward s{};
  s.rows = graph.out;
  s.type = type_of(type_name);
  s.heads = positive("heads", heads);
  s.value_heads = positive("value_heads", value_heads);
  s.width = positive("width", width);
  s.threads = positive("threads", threads);
  if (value_heads != 1 && value_heads != heads) throw nb::value_error("value_heads: expected 1 or heads");
  const int narrow = bits_of(s.type), wide = sum_bits_of(s.type);
  s.value = checked("value", value, narrow, graph.out.rows * value_heads * width);
  s.weight = checked("weight", weight, wide, graph.edges * heads);
  s.d_out = checked("d_out", d_out, narrow, graph.in.rows * heads * width);
  s.d_value = filled("d_value", d_value, narrow, graph.out.rows * value_heads * width, s.threads);
  s.d_weight = filled("d_weight", d_weight, wide, graph.edges * heads, s.threads);
  nb::gil_scoped_release release;
  chosen->weighted_sum_backward(s);
}

void softmax_backward(const Array& structure, const std::string& type_name, int64_t heads, int threads,
                      const Array& alpha, const Array& d_alpha, const Array& d_logits) {
  const Graph graph = graph_of(structure);
  hgat::SoftmaxBackward s{};
  s.rows = graph.in;
  s.type = type_of(type_name);
  s.heads = positive("heads", heads);
  s.threads = positive("threads", threads);
  const int wide = sum_bits_of(s.type);
  s.alpha = checked("alpha", alpha, wide, graph.edges * heads);
  s.d_alpha = checked("d_alpha", d_alpha, wide, graph.edges * heads);
  s.d_logits = filled("d_logits", d_logits, wide, graph.edges * heads, s.threads);
  nb::gil_scoped_release release;
  chosen->softmax_backward(s);
}

void edge_sum(const Array& structure, bool by_source, const std::string& type_name, int64_t heads, int threads,
              const Array& edge_value, const Array& out) {
  const Graph graph = graph_of(structure);
  hgat::EdgeSum s{};
  s.rows = by_source ? graph.out : graph.in;
  s.type = type_of(type_name);
  s.heads = positive("heads", heads);
  s.threads = positive("threads", threads);
  s.edge_value = checked("edge_value", edge_value, sum_bits_of(s.type), graph.edges * heads);
  s.out = filled("out", out, sum_bits_of(s.type), s.rows.rows * heads, s.threads);
  nb::gil_scoped_release release;
  chosen->edge_sum(s);
}

}  // namespace

NB_MODULE(_core, module) {
  module.doc() = "Compiled core of hgat.";
  use_instruction_set("auto");
  module.def("cpu_instruction_sets", &cpu_instruction_sets, "What this processor offers.");
  module.def("built_for", [] {
    std::vector<std::string> names;
    for (const Kernels* table : built()) names.emplace_back(table->name);
    return names;
  }, "The instruction sets that this core was compiled for.");
  module.def("use_instruction_set", &use_instruction_set);
  module.def("instruction_set", [] { return std::string(chosen->name); }, "The one in use.");
  module.def("max_threads", &max_threads, "Threads that OpenMP would start; 1 without OpenMP.");
  module.def("dropout_scale", &dropout_scale<float>);
  module.def("dropout_scale", &dropout_scale<double>);
  module.def("prepare", &prepare);
  module.def("build_structure", &build_structure);
  module.def("recent", &recent);
  module.def("nearest_by_ppr", &nearest_by_ppr);
  module.def("ppr_at", &ppr_at);
  module.def("additive", &additive);
  module.def("gated", &gated);
  module.def("gatv2", &gatv2);
  module.def("dot", &dot);
  module.def("weighted_sum", &weighted_sum);
  module.def("weighted_sum_backward", &weighted_sum_backward);
  module.def("softmax_backward", &softmax_backward);
  module.def("edge_sum", &edge_sum);
}
