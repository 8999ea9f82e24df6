// interpolate on the CPU: out = ε·real + (1 − ε)·fake, one ε per sample, in fp32 and rounded once.
#include "samples.h"
#include "vec.h"

namespace ganfast::cpu {
namespace {

template <class T> GANFAST_INLINE void both_of(const void* real, const void* fake, void* out, int64_t n, float a, float b) {
  const T *x = static_cast<const T*>(real), *y = static_cast<const T*>(fake);
  T* z = static_cast<T*>(out);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(z + i, load(x + i) * a + load(y + i) * b);
  if (i < n) store_some(z + i, load_some(x + i, n - i) * a + load_some(y + i, n - i) * b, n - i);
}
template <class T> GANFAST_INLINE void one_of(const void* side, void* out, int64_t n, float a) {
  const T* x = static_cast<const T*>(side);
  T* z = static_cast<T*>(out);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(z + i, load(x + i) * a);
  if (i < n) store_some(z + i, load_some(x + i, n - i) * a, n - i);
}

GANFAST_CLONES void both(const void* real, const void* fake, void* out, int64_t n, float a, float b, int dtype) {
  if (dtype == F16) return both_of<half_t>(real, fake, out, n, a, b);
  if (dtype == BF16) return both_of<bfloat_t>(real, fake, out, n, a, b);
  return both_of<float>(real, fake, out, n, a, b);
}
GANFAST_CLONES void one(const void* side, void* out, int64_t n, float a, int dtype) {
  if (dtype == F16) return one_of<half_t>(side, out, n, a);
  if (dtype == BF16) return one_of<bfloat_t>(side, out, n, a);
  return one_of<float>(side, out, n, a);
}

}  // namespace

void interpolate(const void* real, const void* fake, const float* epsilon, Samples s, void* out, int threads) {
  over_samples(
      s, threads, [](int64_t, int64_t) { return 0.0; }, [&](int64_t sample, double) { return epsilon[sample]; },
      [&](int64_t i, int64_t count, float e) {
        char* z = element(out, i, s.dtype);
        if (real && fake) both(element(real, i, s.dtype), element(fake, i, s.dtype), z, count, e, 1.f - e, s.dtype);
        else one(element(real ? real : fake, i, s.dtype), z, count, real ? e : 1.f - e, s.dtype);
      });
}

}  // namespace ganfast::cpu
