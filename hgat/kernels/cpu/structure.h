// The structure of a graph as one int32 array, so that Python hands over, keeps and saves a single tensor.

#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace hgat {

// Throws std::invalid_argument, with a sentence, for a node number out of range or more edges than int32 counts.
template <class Id>
std::vector<int32_t> build_structure(const Id* src, const Id* dst, int64_t edges, int64_t num_src, int64_t num_dst);

// The arrays inside `data`; std::invalid_argument if it was not made by build_structure.
Graph read_structure(const int32_t* data, int64_t size);

}  // namespace hgat
