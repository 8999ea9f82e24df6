// gradient_penalty on the CPU: a sample is summed and, while it is still in the cache, scaled. Squares are added in
// fp32 lanes within a chunk and in double from chunk to chunk.
#include <cmath>
#include <numeric>

#include "../phi.h"
#include "samples.h"
#include "vec.h"

namespace ganfast::cpu {
namespace {

// A chunk's sum of squares outside of these has overflowed in fp32, or may have lost what underflowed.
constexpr double SMALLEST = 1e-25, LARGEST = 1e37;

GANFAST_INLINE vfloat sum_of(const vfloat* parts) { return (parts[0] + parts[1]) + (parts[2] + parts[3]); }

template <class T> GANFAST_INLINE double exact_squares_of(const T* x, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; i += LANES) {
    vfloat v = n - i < LANES ? load_some(x + i, n - i) : load(x + i);
    for (int lane = 0; lane < LANES; ++lane) total += (double)v[lane] * v[lane];
  }
  return total;
}

template <class T> GANFAST_INLINE double squares_of(const void* pointer, int64_t n) {
  const T* x = static_cast<const T*>(pointer);
  vfloat parts[4] = {};  // four sums hide the addition's latency
  int64_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES)
    for (int k = 0; k < 4; ++k) {
      vfloat v = load(x + i + k * LANES);
      parts[k] += v * v;
    }
  for (; i + LANES <= n; i += LANES) {
    vfloat v = load(x + i);
    parts[0] += v * v;
  }
  if (i < n) {
    vfloat v = load_some(x + i, n - i);
    parts[1] += v * v;
  }
  const double total = sum(sum_of(parts));
  return total >= SMALLEST && total <= LARGEST ? total : exact_squares_of(x, n);
}

template <class T> GANFAST_INLINE double products_of(const void* pg, const void* pc, int64_t n, float inverse) {
  const T *g = static_cast<const T*>(pg), *c = static_cast<const T*>(pc);
  vfloat parts[4] = {};
  int64_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES)
    for (int k = 0; k < 4; ++k) parts[k] += load(g + i + k * LANES) * inverse * load(c + i + k * LANES);
  for (; i + LANES <= n; i += LANES) parts[0] += load(g + i) * inverse * load(c + i);
  if (i < n) parts[1] += load_some(g + i, n - i) * inverse * load_some(c + i, n - i);
  return sum(sum_of(parts));
}

// Two factors: 1/n and what stands before it may each be out of fp32's range for a product with a third.
template <class T> GANFAST_INLINE void scale_of(const void* pg, void* out, int64_t n, Mix<float> mix) {
  const T* g = static_cast<const T*>(pg);
  T* z = static_cast<T*>(out);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(z + i, load(g + i) * mix.inverse * mix.along);
  if (i < n) store_some(z + i, load_some(g + i, n - i) * mix.inverse * mix.along, n - i);
}
template <class T> GANFAST_INLINE void mix_of(const void* pg, const void* pc, void* out, int64_t n, Mix<float> mix) {
  const T *g = static_cast<const T*>(pg), *c = static_cast<const T*>(pc);
  T* z = static_cast<T*>(out);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(z + i, load(g + i) * mix.inverse * mix.along + load(c + i) * mix.across);
  if (i < n) {
    vfloat v = load_some(g + i, n - i) * mix.inverse * mix.along + load_some(c + i, n - i) * mix.across;
    store_some(z + i, v, n - i);
  }
}

GANFAST_CLONES double squares(const void* g, int64_t n, int dtype) {
  if (dtype == F16) return squares_of<half_t>(g, n);
  if (dtype == BF16) return squares_of<bfloat_t>(g, n);
  return squares_of<float>(g, n);
}
GANFAST_CLONES double products(const void* g, const void* c, int64_t n, float inverse, int dtype) {
  if (dtype == F16) return products_of<half_t>(g, c, n, inverse);
  if (dtype == BF16) return products_of<bfloat_t>(g, c, n, inverse);
  return products_of<float>(g, c, n, inverse);
}
GANFAST_CLONES void scale(const void* g, void* out, int64_t n, Mix<float> mix, int dtype) {
  if (dtype == F16) return scale_of<half_t>(g, out, n, mix);
  if (dtype == BF16) return scale_of<bfloat_t>(g, out, n, mix);
  return scale_of<float>(g, out, n, mix);
}
GANFAST_CLONES void mixed(const void* g, const void* c, void* out, int64_t n, Mix<float> mix, int dtype) {
  if (dtype == F16) return mix_of<half_t>(g, c, out, n, mix);
  if (dtype == BF16) return mix_of<bfloat_t>(g, c, out, n, mix);
  return mix_of<float>(g, c, out, n, mix);
}

Mix<float> narrow(Mix<double> m) { return {(float)m.inverse, (float)m.along, (float)m.across}; }
double at(const float* v, int64_t i) { return v ? (double)v[i] : 0.0; }

// The sum over the batch; 0·nan for an empty one, whose scale is nan: its mean is nan, as torch's.
double total_of(const std::vector<double>& terms, Phi phi) {
  return terms.empty() ? phi.scale : std::accumulate(terms.begin(), terms.end(), 0.0);
}

}  // namespace

void gradient_penalty(const void* g, Samples s, Phi phi, float* penalty, float* norms, void* seed, int threads) {
  std::vector<double> terms(s.batch);
  over_samples(
      s, threads, [&](int64_t i, int64_t count) { return squares(element(g, i, s.dtype), count, s.dtype); },
      [&](int64_t sample, double total) {
        const double n = std::sqrt(total);
        norms[sample] = (float)n;
        terms[sample] = term_of(phi, n);
        return narrow(first_mix(curve_of(phi, n), 1.0, 0.0));
      },
      [&](int64_t i, int64_t count, Mix<float> mix) {
        if (seed) scale(element(g, i, s.dtype), element(seed, i, s.dtype), count, mix, s.dtype);
      });
  *penalty = (float)total_of(terms, phi);
}

void gradient_penalty_backward(const float* c_penalty, const float* c_norms, const void* g, const float* norms, Samples s,
                               Phi phi, void* dg, int threads) {
  over_samples(
      s, threads, [](int64_t, int64_t) { return 0.0; },
      [&](int64_t sample, double) {
        return narrow(first_mix(curve_of(phi, (double)norms[sample]), at(c_penalty, 0), at(c_norms, sample)));
      },
      [&](int64_t i, int64_t count, Mix<float> mix) {
        scale(element(g, i, s.dtype), element(dg, i, s.dtype), count, mix, s.dtype);
      });
}

void gradient_penalty_double_backward(const void* c, const float* c_penalty, const float* c_norms, const void* g,
                                      const float* norms, Samples s, Phi phi, float* dc_penalty, float* dc_norms, void* dg,
                                      int threads) {
  std::vector<double> terms(s.batch);
  over_samples(
      s, threads,
      [&](int64_t i, int64_t count) {
        const float inverse = (float)curve_of(phi, (double)norms[i / s.size]).inverse;
        return products(element(g, i, s.dtype), element(c, i, s.dtype), count, inverse, s.dtype);
      },
      [&](int64_t sample, double total) {
        const Curve<double> curve = curve_of(phi, (double)norms[sample]);
        dc_norms[sample] = (float)total;
        terms[sample] = curve.slope * total;
        return narrow(second_mix(curve, at(c_penalty, 0), at(c_norms, sample), total));
      },
      [&](int64_t i, int64_t count, Mix<float> mix) {
        mixed(element(g, i, s.dtype), element(c, i, s.dtype), element(dg, i, s.dtype), count, mix, s.dtype);
      });
  *dc_penalty = (float)(terms.empty() ? 0.0 : total_of(terms, phi));
}

}  // namespace ganfast::cpu
