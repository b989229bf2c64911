#include "kernels.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace hgat {

void prepare_memory(void* memory, int64_t bytes, int threads) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr int64_t page = 2 << 20;
  if (memory == nullptr || bytes < 2 * page) return;
  const int64_t skip = (page - static_cast<int64_t>(reinterpret_cast<uintptr_t>(memory) % page)) % page;
  char* first = static_cast<char*>(memory) + skip;
  const int64_t pages = (bytes - skip) / page;
  // Advice only: where the system knows no large pages it fails, and nothing is lost.
  if (pages > 0) madvise(first, static_cast<size_t>(pages * page), MADV_HUGEPAGE);
  // Two threads that touch the same new page both clear one, and one of the two is thrown away; so each gets its own.
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1)
#endif
  for (int64_t k = 0; k < pages; ++k) first[k * page] = 0;
#else
  (void)memory, (void)bytes, (void)threads;
#endif
}

}  // namespace hgat
