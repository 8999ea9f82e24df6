// Large pages for memory that is about to be written.
#pragma once
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace ganfast::cpu {

constexpr int64_t LARGE_PAGE = 2 << 20;

// Asks for large pages between p and p + bytes, which the caller is about to write in full. A new page costs about as much
// as writing it several times over, whatever its size: 2 MB at once are many times cheaper than 512 times 4 KB. Advice
// alone: nothing happens where a page is there already, where none is to be had, or where the system has none.
inline void expect_writes(void* p, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  const uintptr_t start = reinterpret_cast<uintptr_t>(p), end = start + bytes;
  const uintptr_t first = (start + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE, last = end / LARGE_PAGE * LARGE_PAGE;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)p, (void)bytes;
#endif
}

}  // namespace ganfast::cpu
