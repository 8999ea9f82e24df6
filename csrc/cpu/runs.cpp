// What normalisation does with a run, for every dtype and activation. Sums of PART elements are fp32, in lanes; parts are
// merged in double.
#include "strips.h"

namespace ganfast::cpu {
namespace {

constexpr int64_t PART = 4096;
constexpr int STEP = 4;  // vectors whose sums do not wait for each other

// v in the last `count` lanes, 0 before.
GANFAST_INLINE vfloat keep_last(vfloat v, int64_t count) {
  const vint lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return select(less(lane, splat((int32_t)(LANES - count))), vfloat{}, v);
}
// A whole vector, of which only the last `count` lanes are new.
struct Last {
  int64_t count;
};
template <class T> GANFAST_INLINE vfloat get(Last, const T* p) { return load(p); }
// The lanes of v that are new, zeros instead of the others.
GANFAST_INLINE vfloat kept(All, vfloat v) { return v; }
GANFAST_INLINE vfloat kept(Some some, vfloat v) { return keep(v, some.count); }
GANFAST_INLINE vfloat kept(Last last, vfloat v) { return keep_last(v, last.count); }

// visit(element, lanes, which of STEP) for all vectors of a part; the last one may begin in the one before.
template <class Visit> GANFAST_INLINE void over_part(int64_t first, int64_t length, Visit visit) {
  int64_t i = 0;
  for (; i + STEP * LANES <= length; i += STEP * LANES)
    for (int k = 0; k < STEP; ++k) visit(first + i + k * LANES, All(), k);
  for (int k = 0; i + LANES <= length; i += LANES, ++k) visit(first + i, All(), k);
  if (i == length) return;
  if (length >= LANES) visit(first + length - LANES, Last{length - i}, STEP - 1);
  else visit(first, Some{length}, STEP - 1);
}
// visit(element, lanes) for all vectors of a run: the last one may do again what the one before has done.
template <class Visit> GANFAST_INLINE void over_run(const Run& run, Visit visit) {
  int64_t i = 0;
  for (; i + LANES <= run.length; i += LANES) visit(run.first + i, All());
  if (i == run.length) return;
  if (run.length >= LANES) visit(run.first + run.length - LANES, All());
  else visit(run.first, Some{run.length});
}
GANFAST_INLINE double total_of(const vfloat* v) {
  const vfloat lanes = sum_of<STEP>(v);
  double sums[LANES];
  for (int i = 0; i < LANES; ++i) sums[i] = lanes[i];
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
  return sums[0];
}

template <class T> GANFAST_INLINE void moments_of(const T* y, const Run& run, Moments& moments) {
  const vfloat zero = splat(get(Some{1}, y + run.first)[0]);
  for (int64_t done = 0; done < run.length; done += PART) {
    const int64_t count = std::min(PART, run.length - done);
    vfloat sums[STEP] = {}, squares[STEP] = {};
    over_part(run.first + done, count, [&](int64_t i, auto lanes, int k) __attribute__((always_inline)) {
      sums[k] += kept(lanes, get(lanes, y + i) - zero);
    });
    const double mean = total_of(sums) / count;
    const vfloat middle = splat((float)mean);
    over_part(run.first + done, count, [&](int64_t i, auto lanes, int k) __attribute__((always_inline)) {
      const vfloat d = kept(lanes, get(lanes, y + i) - zero - middle);
      squares[k] += d * d;
    });
    moments.add({(double)count, mean, total_of(squares)});
  }
  moments.mean += zero[0];
}

template <class T, int ACT, bool PIXEL>
GANFAST_INLINE void sums_of(const Inputs& x, const T* g, const Kind& kind, const Run& run, const Column& c, Sums& sums) {
  for (int64_t done = 0; done < run.length; done += PART) {
    const int64_t count = std::min(PART, run.length - done);
    vfloat total[STEP] = {}, along[STEP] = {};
    over_part(run.first + done, count, [&](int64_t i, auto lanes, int k) __attribute__((always_inline)) {
      vfloat d;
      const vfloat u = kept(lanes, u_of<T, ACT, PIXEL>(x, g, kind, lanes, i, 0, c, d));
      total[k] += u;
      along[k] += u * d;
    });
    sums.add({(double)count, total_of(total), total_of(along)});
  }
}

}  // namespace

GANFAST_CLONES void run_moments(const void* y, Kind kind, Run run, Moments& moments) {
  if (kind.dtype == F16) return moments_of(static_cast<const half_t*>(y), run, moments);
  if (kind.dtype == BF16) return moments_of(static_cast<const bfloat_t*>(y), run, moments);
  return moments_of(static_cast<const float*>(y), run, moments);
}
GANFAST_CLONES void run_apply(Inputs x, void* a, Kind kind, Run run, Column c) {
  chosen(kind, x.weight, [&](auto number, auto act, auto pixel) __attribute__((always_inline)) {
    using T = decltype(number);
    over_run(run, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
      apply_to<T, act.value, pixel.value>(x, static_cast<T*>(a), kind, lanes, i, 0, c);
    });
  });
}
GANFAST_CLONES void run_sums(Inputs x, const void* g, Kind kind, Run run, Column c, Sums& sums) {
  chosen(kind, x.weight, [&](auto number, auto act, auto pixel) __attribute__((always_inline)) {
    using T = decltype(number);
    sums_of<T, act.value, pixel.value>(x, static_cast<const T*>(g), kind, run, c, sums);
  });
}
GANFAST_CLONES void run_gradient(Inputs x, const void* g, Gradients to, Kind kind, Run run, Column c) {
  chosen(kind, x.weight, [&](auto number, auto act, auto pixel) __attribute__((always_inline)) {
    using T = decltype(number);
    over_run(run, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
      gradient_of<T, act.value, pixel.value>(x, static_cast<const T*>(g), to, kind, lanes, i, 0, c);
    });
  });
}

}  // namespace ganfast::cpu
