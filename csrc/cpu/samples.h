// How work on a batch of samples is cut up on the CPU: chunks of fixed size, added in a fixed order in double, so that
// the result does not depend on the number of threads.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../ops.h"

namespace ganfast::cpu {

constexpr int64_t CHUNK = 4096;
constexpr int64_t SERIAL = 16384;  // elements below which waking threads costs more than it saves

inline const char* element(const void* base, int64_t index, int dtype) {
  return static_cast<const char*>(base) + index * (dtype == F32 ? 4 : 2);
}
inline char* element(void* base, int64_t index, int dtype) {
  return static_cast<char*>(base) + index * (dtype == F32 ? 4 : 2);
}

// For every sample: total = Σ sum(first element, count) over its chunks, plan = finish(sample, total), then
// write(first element, count, plan) over its chunks. A sample stays in the cache between the two unless the batch is
// too small to give every thread samples of its own.
template <class Sum, class Finish, class Write> void over_samples(Samples s, int threads, Sum sum, Finish finish, Write write) {
  const int64_t chunks = (s.size + CHUNK - 1) / CHUNK;
  auto first = [&](int64_t sample, int64_t chunk) { return sample * s.size + chunk * CHUNK; };
  auto count = [&](int64_t chunk) { return std::min(CHUNK, s.size - chunk * CHUNK); };
  auto whole = [&](int64_t sample) {
    double total = 0;
    for (int64_t c = 0; c < chunks; ++c) total += sum(first(sample, c), count(c));
    const auto plan = finish(sample, total);
    for (int64_t c = 0; c < chunks; ++c) write(first(sample, c), count(c), plan);
  };
  if (threads <= 1 || s.batch * s.size <= SERIAL) {
    for (int64_t sample = 0; sample < s.batch; ++sample) whole(sample);
  } else if (s.batch >= 4 * threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t sample = 0; sample < s.batch; ++sample) whole(sample);
  } else {
    std::vector<double> partial(s.batch * chunks);
    std::vector<decltype(finish(0, 0.0))> plans;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < s.batch * chunks; ++i) partial[i] = sum(first(i / chunks, i % chunks), count(i % chunks));
    for (int64_t sample = 0; sample < s.batch; ++sample) {
      double total = 0;
      for (int64_t c = 0; c < chunks; ++c) total += partial[sample * chunks + c];
      plans.push_back(finish(sample, total));
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < s.batch * chunks; ++i) write(first(i / chunks, i % chunks), count(i % chunks), plans[i / chunks]);
  }
}

}  // namespace ganfast::cpu
