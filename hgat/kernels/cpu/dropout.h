// Dropout as a pure function of (seed, edge, head), so that backward and every backend drop the same
// edges and no mask is stored. hgat/ops/dropout.py states the same function in PyTorch.

#pragma once

#include <cstdint>

#include "simd.h"

HGAT_OPEN

// A 32-bit finaliser with low bias (constants: C. Wellons, "Prospecting for hash functions", 2018).
inline uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352dU;
  x ^= x >> 15;
  x *= 0x846ca68bU;
  x ^= x >> 16;
  return x;
}

inline uint32_t dropout_key(uint64_t seed) {
  return mix(mix(static_cast<uint32_t>(seed)) ^ static_cast<uint32_t>(seed >> 32));
}

inline uint32_t dropout_row(uint32_t key, uint64_t edge) {
  return mix(mix(static_cast<uint32_t>(edge) ^ key) ^ static_cast<uint32_t>(edge >> 32));
}

inline uint32_t dropout_bits(uint32_t row, uint32_t head) { return mix(row ^ (head * 0x9e3779b9U)); }

HGAT_CLOSE
