#include "structure.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace hgat {
namespace {

constexpr int32_t kMagic = 0x68676131;  // changes with the layout
constexpr int64_t kHeader = 16;

int64_t aligned(int64_t count) { return (count + 15) / 16 * 16; }

// Offsets of the arrays, in the order in which they lie.
struct Offsets {
  int64_t in_indptr, in_other, in_edge, place, out_indptr, out_other, out_edge;
  int64_t in_task, in_long, in_segment, out_task, out_long, out_segment, end;

  Offsets(int64_t src, int64_t dst, int64_t edges, int64_t in_tasks, int64_t in_longs, int64_t out_tasks,
          int64_t out_longs) {
    int64_t at = kHeader;
    auto take = [&](int64_t count) {
      const int64_t here = at;
      at += aligned(count);
      return here;
    };
    in_indptr = take(dst + 1);
    in_other = take(edges);
    in_edge = take(edges);
    place = take(edges);
    out_indptr = take(src + 1);
    out_other = take(edges);
    out_edge = take(edges);
    in_task = take(in_tasks + 1);
    in_long = take(in_longs);
    in_segment = take(in_longs + 1);
    out_task = take(out_tasks + 1);
    out_long = take(out_longs);
    out_segment = take(out_longs + 1);
    end = at;
  }
};

struct Cuts {
  std::vector<int32_t> task, long_row, segment;
};

// Ranges of rows with about kTask edges each, and the rows that are cut into segments.
Cuts cut(const std::vector<int32_t>& indptr) {
  Cuts cuts;
  const int64_t rows = static_cast<int64_t>(indptr.size()) - 1;
  cuts.task.push_back(0);
  cuts.segment.push_back(0);
  int64_t work = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t degree = indptr[row + 1] - indptr[row];
    if (degree > kSegment) {
      cuts.long_row.push_back(static_cast<int32_t>(row));
      cuts.segment.push_back(cuts.segment.back() + static_cast<int32_t>((degree + kSegment - 1) / kSegment));
    } else {
      work += degree;
    }
    if (++work >= kTask) {
      cuts.task.push_back(static_cast<int32_t>(row + 1));
      work = 0;
    }
  }
  if (cuts.task.back() < rows) cuts.task.push_back(static_cast<int32_t>(rows));
  return cuts;
}

template <class Id> std::vector<int32_t> offsets_of(const Id* key, int64_t edges, int64_t rows) {
  std::vector<int32_t> indptr(static_cast<size_t>(rows) + 1, 0);
  for (int64_t e = 0; e < edges; ++e) ++indptr[static_cast<size_t>(key[e]) + 1];
  for (int64_t row = 0; row < rows; ++row) indptr[row + 1] += indptr[row];
  return indptr;
}

// Counting sort, stable: inside a row edges keep the graph's order.
template <class Id>
void sort_edges(const Id* key, const Id* far, int64_t edges, const std::vector<int32_t>& indptr, int32_t* other,
                int32_t* edge) {
  std::vector<int32_t> next(indptr.begin(), indptr.end() - 1);
  for (int64_t e = 0; e < edges; ++e) {
    const int32_t at = next[static_cast<size_t>(key[e])]++;
    other[at] = static_cast<int32_t>(far[e]);
    edge[at] = static_cast<int32_t>(e);
  }
}

template <class Id> void check_range(const char* name, const Id* node, int64_t edges, int64_t limit) {
  for (int64_t e = 0; e < edges; ++e)
    if (node[e] < 0 || node[e] >= limit)
      throw std::invalid_argument(std::string(name) + ": expected node numbers from 0 to " + std::to_string(limit - 1) +
                                  ", got " + std::to_string(node[e]) + " at edge " + std::to_string(e));
}

}  // namespace

template <class Id>
std::vector<int32_t> build_structure(const Id* src, const Id* dst, int64_t edges, int64_t num_src, int64_t num_dst) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max() - 16;
  if (edges > most || num_src > most || num_dst > most)
    throw std::invalid_argument("graph: expected fewer than 2^31 nodes and edges");
  check_range("source", src, edges, num_src);
  check_range("destination", dst, edges, num_dst);
  const std::vector<int32_t> in = offsets_of(dst, edges, num_dst), out = offsets_of(src, edges, num_src);
  const Cuts in_cuts = cut(in), out_cuts = cut(out);
  const int64_t counts[4] = {static_cast<int64_t>(in_cuts.task.size()) - 1,
                             static_cast<int64_t>(in_cuts.long_row.size()),
                             static_cast<int64_t>(out_cuts.task.size()) - 1,
                             static_cast<int64_t>(out_cuts.long_row.size())};
  const Offsets at(num_src, num_dst, edges, counts[0], counts[1], counts[2], counts[3]);
  std::vector<int32_t> data(static_cast<size_t>(at.end));
  const int64_t header[8] = {kMagic, num_src, num_dst, edges, counts[0], counts[1], counts[2], counts[3]};
  for (int k = 0; k < 8; ++k) data[k] = static_cast<int32_t>(header[k]);
  auto put = [&](int64_t offset, const std::vector<int32_t>& array) {
    std::copy(array.begin(), array.end(), data.begin() + offset);
  };
  put(at.in_indptr, in);
  put(at.out_indptr, out);
  sort_edges(dst, src, edges, in, data.data() + at.in_other, data.data() + at.in_edge);
  sort_edges(src, dst, edges, out, data.data() + at.out_other, data.data() + at.out_edge);
  std::vector<int32_t> rank(static_cast<size_t>(edges));
  for (int64_t p = 0; p < edges; ++p) rank[data[at.out_edge + p]] = static_cast<int32_t>(p);
  for (int64_t p = 0; p < edges; ++p) data[at.place + p] = rank[data[at.in_edge + p]];
  put(at.in_task, in_cuts.task);
  put(at.in_long, in_cuts.long_row);
  put(at.in_segment, in_cuts.segment);
  put(at.out_task, out_cuts.task);
  put(at.out_long, out_cuts.long_row);
  put(at.out_segment, out_cuts.segment);
  return data;
}

template std::vector<int32_t> build_structure(const int32_t*, const int32_t*, int64_t, int64_t, int64_t);
template std::vector<int32_t> build_structure(const int64_t*, const int64_t*, int64_t, int64_t, int64_t);

Graph read_structure(const int32_t* data, int64_t size) {
  const bool long_enough = size >= kHeader;
  if (long_enough && data[0] == kMagic) {
    bool whole = true;
    for (int k = 1; k < 8; ++k) whole = whole && data[k] >= 0;
    if (whole) {
      const int64_t src = data[1], dst = data[2], edges = data[3];
      const Offsets at(src, dst, edges, data[4], data[5], data[6], data[7]);
      if (at.end == size) {
        Graph graph;
        graph.in = {dst,     src,     data + at.in_indptr, data + at.in_other, data + at.in_edge, data[4], data + at.in_task,
                    data[5], data + at.in_long, data + at.in_segment};
        graph.out = {src,     dst,     data + at.out_indptr, data + at.out_other, data + at.out_edge, data[6], data + at.out_task,
                     data[7], data + at.out_long, data + at.out_segment};
        graph.place = data + at.place;
        graph.edges = edges;
        return graph;
      }
    }
  }
  throw std::invalid_argument("structure: expected an array made by build_structure");
}

}  // namespace hgat
