#include "recent.h"

#include <algorithm>

namespace hgat {

template <class Time>
void recent(const Events<Time>& events, const int64_t* nodes, const Time* times, int64_t queries, int64_t count,
            const Found<Time>& found, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && queries > 1000)
  for (int64_t q = 0; q < queries; ++q) {
    const Time now = times[q];
    const int64_t first = events.indptr[nodes[q]], last = events.indptr[nodes[q] + 1];
    const int64_t end = std::lower_bound(events.time + first, events.time + last, now) - events.time;
    if (found.end) found.end[q] = end;
    if (count == 0) continue;
    const int64_t taken = std::min(count, end - first), empty = count - taken, to = q * count;
    for (int64_t k = 0; k < empty; ++k) {
      found.neighbour[to + k] = 0, found.time[to + k] = now;
      found.edge[to + k] = -1, found.mask[to + k] = 0;
    }
    std::copy_n(events.neighbour + end - taken, taken, found.neighbour + to + empty);
    std::copy_n(events.time + end - taken, taken, found.time + to + empty);
    std::copy_n(events.edge + end - taken, taken, found.edge + to + empty);
    std::fill_n(found.mask + to + empty, taken, uint8_t{1});
  }
}

template void recent(const Events<int64_t>&, const int64_t*, const int64_t*, int64_t, int64_t, const Found<int64_t>&, int);
template void recent(const Events<double>&, const int64_t*, const double*, int64_t, int64_t, const Found<double>&, int);

}  // namespace hgat
