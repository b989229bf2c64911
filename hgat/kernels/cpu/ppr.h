// Personalised PageRank by pushes: what of a walk from a node is spent at others.

#pragma once

#include <cstdint>
#include <vector>

namespace hgat {

// Throws std::invalid_argument unless `indptr` rises from 0 to `entries` and every column is from 0 to limit - 1.
void check_rows(const int64_t* indptr, int64_t rows, const int32_t* column, int64_t entries, int64_t limit);

// One step of the walk, rows in CSR form: of what is at node v, the share weight[e] goes to other[e].
struct Walk {
  int64_t nodes;
  const int64_t* indptr;    // [N + 1]
  const int32_t* other;     // [E]
  const double* weight;     // [E]
  const double* threshold;  // [N] what may stay under way at a node
  const double* root;       // [N] a row's values are multiplied by its own and divided by the others'; or null
  double alpha;
};

// Rows of PageRank: row r has the entries indptr[r] to indptr[r + 1], columns rising.
struct Nearest {
  std::vector<int64_t> indptr, column;
  std::vector<float> value;
};

// The k largest entries above 0 of the rows first to last - 1, and of equal ones those of lower columns.
// Throws std::bad_alloc.
void nearest_by_ppr(const Walk& walk, int64_t first, int64_t last, int64_t k, int threads, Nearest& found);

// For every e from asked[r] to asked[r + 1] - 1: value[e], the entry at column[e] of row first + r, one of `rows`; 0 where
// pushes came to nothing. Throws std::bad_alloc.
void ppr_at(const Walk& walk, int64_t first, int64_t rows, const int64_t* asked, const int32_t* column, int threads,
            float* value);

}  // namespace hgat
