#include "ppr.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <stdexcept>
#include <string>

namespace hgat {
namespace {

constexpr int64_t kWalks = 16;  // rows that a thread takes at once

// What a walk has at one node, on one cache line with what is asked there.
struct alignas(32) Place {
  double left;    // under way
  double found;   // spent
  double threshold;
  int32_t known;  // it is in `touched`
  int32_t next;   // it is pushed in the next round
};

// A walk from one node after the other; memory for any of them is taken once.
class Pusher {
 public:
  explicit Pusher(const Walk& walk)
      : walk_(walk), place_(static_cast<size_t>(walk.nodes)), touched_(place_.size()), now_(place_.size()),
        next_(place_.size()), moved_(place_.size()) {
    for (int64_t v = 0; v < walk.nodes; ++v) place_[v] = {0.0, 0.0, walk.threshold[v], 0, 0};
  }

  // In rounds: all nodes with more under way than their threshold are pushed at once, the walk's own in the first.
  void push(int64_t from) {
    for (int64_t k = 0; k < count_; ++k) {
      Place& place = place_[touched_[k]];
      place.left = place.found = 0.0, place.known = 0;
    }
    count_ = 0;
    int64_t waiting = 1;
    now_[0] = touch(static_cast<int32_t>(from));
    place_[from].left = 1.0;
    while (waiting) {
      for (int64_t k = 0; k < waiting; ++k) {
        Place& place = place_[now_[k]];
        moved_[k] = (1.0 - walk_.alpha) * place.left;
        place.found += walk_.alpha * place.left;
        place.left = 0.0, place.next = 0;
      }
      int64_t coming = 0;
      for (int64_t k = 0; k < waiting; ++k) {
        const double moved = moved_[k];
        for (int64_t e = walk_.indptr[now_[k]], end = walk_.indptr[now_[k] + 1]; e < end; ++e) {
          Place& place = place_[walk_.other[e]];
          if (!place.known) touch(walk_.other[e]);
          place.left += moved * walk_.weight[e];
          if (place.left > place.threshold && !place.next) {
            place.next = 1;
            next_[coming++] = walk_.other[e];
          }
        }
      }
      now_.swap(next_);
      waiting = coming;
    }
  }

  float value(int64_t row, int64_t column) const {
    const double found = place_[column].found;
    return static_cast<float>(walk_.root ? found * (walk_.root[row] / walk_.root[column]) : found);
  }

  const int32_t* touched() const { return touched_.data(); }
  int64_t count() const { return count_; }

 private:
  int32_t touch(int32_t node) {
    place_[node].known = 1;
    touched_[count_++] = node;
    return node;
  }

  const Walk& walk_;
  std::vector<Place> place_;
  std::vector<int32_t> touched_, now_, next_;
  std::vector<double> moved_;
  int64_t count_ = 0;
};

// body(pusher, task) for tasks of kWalks rows each, on as many threads; what one throws is thrown here.
template <class Body> void for_tasks(const Walk& walk, int64_t rows, int threads, const Body& body) {
  const int64_t tasks = (rows + kWalks - 1) / kWalks;
  if (tasks == 0) return;
  threads = static_cast<int>(std::min<int64_t>(threads, tasks));
  std::vector<Pusher> pushers;
  pushers.reserve(static_cast<size_t>(threads));
  for (int t = 0; t < threads; ++t) pushers.emplace_back(walk);
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
  for (int t = 0; t < threads; ++t) try {
      for (int64_t task; !failed && (task = next++) < tasks;) body(pushers[t], task);
    } catch (const std::bad_alloc&) {
      failed = true;  // nothing may be thrown out of a parallel region
    }
  if (failed) throw std::bad_alloc();
}

}  // namespace

void check_rows(const int64_t* indptr, int64_t rows, const int32_t* column, int64_t entries, int64_t limit) {
  bool rising = indptr[0] == 0 && indptr[rows] == entries;
  for (int64_t r = 0; r < rows; ++r) rising = rising && indptr[r] <= indptr[r + 1];
  if (!rising) throw std::invalid_argument("indptr: expected rising positions of entries");
  for (int64_t e = 0; e < entries; ++e)
    if (column[e] < 0 || column[e] >= limit)
      throw std::invalid_argument("column: expected numbers from 0 to " + std::to_string(limit - 1) + ", got " +
                                  std::to_string(column[e]));
}

void nearest_by_ppr(const Walk& walk, int64_t first, int64_t last, int64_t k, int threads, Nearest& found) {
  struct Entry {
    float value;
    int32_t column;
  };
  const int64_t rows = last - first;
  std::vector<std::vector<Entry>> kept(static_cast<size_t>(rows));
  for_tasks(walk, rows, threads, [&](Pusher& pusher, int64_t task) {
    std::vector<Entry> row;
    for (int64_t r = task * kWalks; r < std::min(rows, (task + 1) * kWalks); ++r) {
      pusher.push(first + r);
      row.clear();
      for (int64_t n = 0; n < pusher.count(); ++n) {
        const int32_t column = pusher.touched()[n];
        const float value = pusher.value(first + r, column);
        if (value > 0) row.push_back({value, column});
      }
      if (k < static_cast<int64_t>(row.size())) {
        std::nth_element(row.begin(), row.begin() + k, row.end(), [](const Entry& a, const Entry& b) {
          return a.value > b.value || (a.value == b.value && a.column < b.column);
        });
        row.resize(static_cast<size_t>(k));
      }
      std::sort(row.begin(), row.end(), [](const Entry& a, const Entry& b) { return a.column < b.column; });
      kept[static_cast<size_t>(r)].assign(row.begin(), row.end());
    }
  });
  found.indptr.assign(static_cast<size_t>(rows) + 1, 0);
  for (int64_t r = 0; r < rows; ++r) found.indptr[r + 1] = found.indptr[r] + static_cast<int64_t>(kept[r].size());
  found.column.reserve(static_cast<size_t>(found.indptr[rows]));
  found.value.reserve(static_cast<size_t>(found.indptr[rows]));
  for (std::vector<Entry>& row : kept) {
    for (const Entry& entry : row) {
      found.column.push_back(entry.column);
      found.value.push_back(entry.value);
    }
    std::vector<Entry>().swap(row);
  }
}

void ppr_at(const Walk& walk, int64_t first, int64_t rows, const int64_t* asked, const int32_t* column, int threads,
            float* value) {
  for_tasks(walk, rows, threads, [&](Pusher& pusher, int64_t task) {
    for (int64_t r = task * kWalks; r < std::min(rows, (task + 1) * kWalks); ++r) {
      if (asked[r] == asked[r + 1]) continue;
      pusher.push(first + r);
      for (int64_t e = asked[r]; e < asked[r + 1]; ++e) value[e] = pusher.value(first + r, column[e]);
    }
  });
}

}  // namespace hgat
