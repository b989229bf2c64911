// The compiled core's door to Python: what it was built with, and the arithmetic on plain arrays.
// Shapes, types and devices are checked by hgat.ops before a call; nanobind refuses foreign arrays.

#include <cstdint>
#include <string>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "dropout.h"

namespace nb = nanobind;

namespace {

std::vector<std::string> cpu_instruction_sets() {
  std::vector<std::string> sets{"baseline"};
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets.push_back("avx2");
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) sets.push_back("avx512");
#endif
  return sets;
}

int max_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

// scale [E, H]: 0 where (seed, edge, head) is dropped, else keep_scale.
template <typename T>
void dropout_scale(nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu> scale, uint64_t seed,
                   uint64_t threshold, T keep_scale, int threads) {
  const int64_t edges = static_cast<int64_t>(scale.shape(0));
  const int64_t heads = static_cast<int64_t>(scale.shape(1));
  T* out = scale.data();
  const uint32_t key = hgat::dropout_key(seed);
  nb::gil_scoped_release release;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t edge = 0; edge < edges; ++edge) {
    const uint32_t row = hgat::dropout_row(key, static_cast<uint64_t>(edge));
    for (int64_t head = 0; head < heads; ++head) {
      const bool keep = hgat::dropout_bits(row, static_cast<uint32_t>(head)) >= threshold;
      out[edge * heads + head] = keep ? keep_scale : T(0);
    }
  }
}

}  // namespace

NB_MODULE(_core, module) {
  module.doc() = "Compiled core of hgat.";
  module.def("cpu_instruction_sets", &cpu_instruction_sets, "What this processor offers.");
  module.def("built_for", [] { return std::vector<std::string>{"baseline"}; },
             "The instruction sets that this core was compiled for.");
  module.def("max_threads", &max_threads, "Threads that OpenMP would start; 1 without OpenMP.");
  module.def("dropout_scale", &dropout_scale<float>);
  module.def("dropout_scale", &dropout_scale<double>);
}
