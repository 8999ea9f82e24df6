// sigmoid_bce on the CPU. Both sides are cut into chunks of fixed size; each chunk is summed in a fixed order
// (16 lanes, then double) and the chunks in theirs, so the result does not depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../ops.h"
#include "vec.h"

namespace ganfast::cpu {
namespace {

constexpr int64_t CHUNK = 4096;
constexpr int64_t SERIAL = 16384;  // below, waking threads costs more than it saves

// With e = exp(−|x|): softplus(x) − t·x = x·([x > 0] − t) + log1p(e); σ(x) = (x > 0 ? 1 : e)/(1 + e).
GANFAST_INLINE vfloat loss_of(vfloat x, float t) {
  vfloat e = exp_negative(-vabs(x));
  return x * (select(negative(x), vfloat{}, splat(1.f)) - t) + log1p_unit(e);
}
struct Slopes { vfloat residual, curvature; };  // σ(x) − t and σ'(x)
GANFAST_INLINE Slopes slopes_of(vfloat x, float t) {
  vfloat e = exp_negative(-vabs(x));
  vfloat inverse = 1.f / (1.f + e);
  // written so that σ(x) − t is exact where it is small: −e/(1+e) + (1 − t) for x > 0
  vfloat tail = e * inverse;
  return {select(negative(x), tail - t, (1.f - t) - tail), tail * inverse};
}

template <class T> GANFAST_INLINE double loss_chunk_of(const void* pointer, int64_t n, float t) {
  const T* x = static_cast<const T*>(pointer);
  vfloat total = {};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) total += loss_of(load(x + i), t);
  if (i < n) total += keep(loss_of(load_some(x + i, n - i), t), n - i);
  return sum(total);
}

template <class T> GANFAST_INLINE void backward_chunk_of(const void* pointer, void* result, int64_t n, float t, float scale) {
  const T* x = static_cast<const T*>(pointer);
  T* dx = static_cast<T*>(result);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(dx + i, slopes_of(load(x + i), t).residual * scale);
  if (i < n) store_some(dx + i, slopes_of(load_some(x + i, n - i), t).residual * scale, n - i);
}

template <class T> GANFAST_INLINE double double_chunk_of(const void* cotangent, const void* pointer, void* result, int64_t n,
                                                         float t, float scale) {
  const T* c = static_cast<const T*>(cotangent);
  const T* x = static_cast<const T*>(pointer);
  T* dx = static_cast<T*>(result);
  vfloat total = {};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    Slopes s = slopes_of(load(x + i), t);
    vfloat ci = load(c + i);
    total += ci * s.residual;
    store(dx + i, ci * s.curvature * scale);
  }
  if (i < n) {
    Slopes s = slopes_of(load_some(x + i, n - i), t);
    vfloat ci = load_some(c + i, n - i);  // zeros after the end: nothing is added
    total += ci * s.residual;
    store_some(dx + i, ci * s.curvature * scale, n - i);
  }
  return sum(total);
}

GANFAST_CLONES double loss_chunk(const void* x, int64_t n, float t, int dtype) {
  if (dtype == F16) return loss_chunk_of<half_t>(x, n, t);
  if (dtype == BF16) return loss_chunk_of<bfloat_t>(x, n, t);
  return loss_chunk_of<float>(x, n, t);
}
GANFAST_CLONES void backward_chunk(const void* x, void* dx, int64_t n, float t, float scale, int dtype) {
  if (dtype == F16) return backward_chunk_of<half_t>(x, dx, n, t, scale);
  if (dtype == BF16) return backward_chunk_of<bfloat_t>(x, dx, n, t, scale);
  return backward_chunk_of<float>(x, dx, n, t, scale);
}
GANFAST_CLONES double double_chunk(const void* c, const void* x, void* dx, int64_t n, float t, float scale, int dtype) {
  if (dtype == F16) return double_chunk_of<half_t>(c, x, dx, n, t, scale);
  if (dtype == BF16) return double_chunk_of<bfloat_t>(c, x, dx, n, t, scale);
  return double_chunk_of<float>(c, x, dx, n, t, scale);
}

// Calls work(side, offset, count) for every chunk and returns the sum of side's sums, each over its n.
template <class Work> double over_chunks(const Side& real, const Side& fake, int threads, Work work) {
  const Side* sides[2] = {&real, &fake};
  const int64_t chunks_real = real.n > 0 ? (real.n + CHUNK - 1) / CHUNK : 0;
  const int64_t chunks_fake = fake.n > 0 ? (fake.n + CHUNK - 1) / CHUNK : 0;
  const int64_t chunks = chunks_real + chunks_fake;
  auto one = [&](int64_t chunk) {
    const int side = chunk >= chunks_real;
    const int64_t offset = (chunk - (side ? chunks_real : 0)) * CHUNK;
    return work(side, offset, std::min(CHUNK, sides[side]->n - offset));
  };
  double totals[2] = {0, 0};
  if (threads <= 1 || std::max<int64_t>(real.n, 0) + std::max<int64_t>(fake.n, 0) <= SERIAL) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) totals[chunk >= chunks_real] += one(chunk);
  } else {
    std::vector<double> partial(chunks);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) partial[chunk] = one(chunk);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) totals[chunk >= chunks_real] += partial[chunk];
  }
  double result = 0;
  for (int side = 0; side < 2; ++side)
    if (sides[side]->n >= 0) result += totals[side] / (double)sides[side]->n;  // an empty side: 0/0, nan as torch's mean
  return result;
}

const char* at(const void* base, int64_t element, int dtype) {
  return static_cast<const char*>(base) + element * (dtype == F32 ? 4 : 2);
}
char* at(void* base, int64_t element, int dtype) { return static_cast<char*>(base) + element * (dtype == F32 ? 4 : 2); }

}  // namespace

void sigmoid_bce(Side real, Side fake, int dtype, float* loss, int threads) {
  *loss = (float)over_chunks(real, fake, threads, [&](int side, int64_t offset, int64_t count) {
    const Side& s = side ? fake : real;
    return loss_chunk(at(s.x, offset, dtype), count, s.target, dtype);
  });
}

void sigmoid_bce_backward(const float* g, Side real, Side fake, int dtype, void* dreal, void* dfake, int threads) {
  over_chunks(real, fake, threads, [&](int side, int64_t offset, int64_t count) {
    const Side& s = side ? fake : real;
    const float scale = (float)((double)*g / (double)s.n);
    backward_chunk(at(s.x, offset, dtype), at(side ? dfake : dreal, offset, dtype), count, s.target, scale, dtype);
    return 0.0;
  });
}

void sigmoid_bce_double_backward(const void* creal, const void* cfake, const float* g, Side real, Side fake, int dtype,
                                 float* dg, void* dreal, void* dfake, int threads) {
  real.n = some(real.n), fake.n = some(fake.n);
  *dg = (float)over_chunks(real, fake, threads, [&](int side, int64_t offset, int64_t count) {
    const Side& s = side ? fake : real;
    const float scale = (float)((double)*g / (double)s.n);
    return double_chunk(at(side ? cfake : creal, offset, dtype), at(s.x, offset, dtype),
                        at(side ? dfake : dreal, offset, dtype), count, s.target, scale, dtype);
  });
}

}  // namespace ganfast::cpu
