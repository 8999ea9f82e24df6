// What executes CUDA C++ on a CPU: one thread after another, each on a stack of its own, until it waits or ends.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulator {

struct Place {  // in the CUDA source
  const char* file;
  int line;
};
#define EMULATOR_HERE (emulator::Place{__FILE__, __LINE__})

// Runs `thread` for every thread of the grid. What goes wrong there is thrown as std::runtime_error, in one sentence.
void launch(const char* kernel, Place place, dim3 grid, dim3 block, size_t dynamic_bytes, const std::function<void()>& thread);
// Of a running thread: ends the launch.
[[noreturn]] void fault(Place place, const char* format, ...) __attribute__((format(printf, 2, 3)));

void block_barrier(Place place);

// All lanes of `mask` give `bytes` at `value` and get those of the lane `source` in their place. source >= 32: their own.
void warp_exchange(unsigned mask, void* value, size_t bytes, unsigned source, Place place);
template <class T> T shuffle(unsigned mask, T value, unsigned source, Place place) {
  static_assert(sizeof(T) <= 8, "a shuffle takes at most 8 bytes");
  warp_exchange(mask, &value, sizeof value, source, place);
  return value;
}
unsigned lane();
inline unsigned segment_end(unsigned width) { return (lane() / width + 1) * width; }
inline unsigned above(unsigned step, unsigned width) { return lane() + step < segment_end(width) ? lane() + step : 32; }
inline unsigned below(unsigned step, unsigned width) { return lane() % width >= step ? lane() - step : 32; }
inline unsigned across(unsigned bits, unsigned width) { return (lane() ^ bits) < segment_end(width) ? lane() ^ bits : 32; }
inline unsigned at(unsigned source, unsigned width) { return lane() / width * width + source % width; }

// An array of the running block, filled with NaN when the block's first thread comes by; it ends at a guard page.
void* shared(const void* key, size_t bytes, size_t alignment);
template <class Array> Array& shared(const void* key, size_t alignment) {
  return *static_cast<Array*>(shared(key, sizeof(Array), alignment > alignof(Array) ? alignment : alignof(Array)));
}
void* dynamic_shared();  // of the bytes that the launch asked for

inline void store16(void* p, const void* bits, Place place) {
  if (reinterpret_cast<uintptr_t>(p) % 16) fault(place, "stores 16 bytes at %p, which is not a multiple of 16", p);
  memcpy(p, bits, 16);
}

}  // namespace emulator
