// The events that nodes had before given times.

#pragma once

#include <cstdint>

namespace hgat {

// Events by node, inside a node sorted by time: node v has the positions indptr[v] to indptr[v + 1]. All of 64 bits.
template <class Time> struct Events {
  const int64_t* indptr;
  const int64_t* neighbour;
  const Time* time;
  const int64_t* edge;
};

// What is found for a query, [B, count], the latest last; slots in front that stay empty have neighbour 0, the query's
// own time, edge -1, mask 0. end: [B], where the node's events before the time end; null where nobody asks.
template <class Time> struct Found {
  int64_t* neighbour;
  Time* time;
  int64_t* edge;
  uint8_t* mask;
  int64_t* end;
};

// The last `count` events of each of B nodes at which time < the given one; node numbers are in range.
template <class Time>
void recent(const Events<Time>& events, const int64_t* nodes, const Time* times, int64_t queries, int64_t count,
            const Found<Time>& found, int threads);

}  // namespace hgat
