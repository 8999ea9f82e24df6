// What normalisation does with a strip, whose columns have numbers of their own, and with a run, neighbouring elements that
// have the same; strips.cpp and runs.cpp have them for every dtype and activation.
#pragma once
#include <algorithm>
#include <cstdint>

#include "../ops.h"
#include "activations.h"
#include "column_reduction.h"

namespace ganfast::cpu {

struct Kind {
  int dtype, activation;  // its place in activations()
  float slope;
};
// y, and weight and bias of each element, both or neither.
struct Inputs {
  const void *y, *weight = nullptr, *bias = nullptr;
};
// Of y, weight and bias.
struct Gradients {
  void *y, *weight = nullptr, *bias = nullptr;
};
// With d = y − mean: z = d·scale + bias, or with a weight of each element z = d·scale·weight + its bias; a = act(z);
// dy = u·scale + d·bend + lift with u = dz, or dz·weight.
struct Column {
  float mean, scale, bias, bend, lift;
};
struct Columns {
  const float *mean, *scale, *bias, *bend, *lift;
};
struct Run {
  int64_t first, length;
};
// Merged in double.
struct Moments {
  double count = 0, mean = 0, m2 = 0;
  void add(const Moments& other) {
    if (!other.count) return;
    const double d = other.mean - mean, part = other.count / (count + other.count);
    mean += d * part;
    m2 += other.m2 + d * d * count * part;
    count += other.count;
  }
};
// Σ u and Σ u·d.
struct Sums {
  double count = 0, total = 0, along = 0;
  void add(const Sums& other) { count += other.count, total += other.total, along += other.along; }
};

// Per column: its first element, the mean of the differences to that, and their squared deviations' sum.
void strip_moments(const void* y, const Kind& kind, const Strip& s, float* first, float* mean, float* m2);
void strip_apply(Inputs x, void* a, Kind kind, const Strip& s, Columns c);
// Per column: Σ u and Σ u·d.
void strip_sums(Inputs x, const void* g, Kind kind, const Strip& s, Columns c, float* total, float* along);
void strip_gradient(Inputs x, const void* g, Gradients to, Kind kind, const Strip& s, Columns c);

// moments and sums are zero before.
void run_moments(const void* y, Kind kind, Run run, Moments& moments);
void run_sums(Inputs x, const void* g, Kind kind, Run run, Column c, Sums& sums);
void run_apply(Inputs x, void* a, Kind kind, Run run, Column c);
void run_gradient(Inputs x, const void* g, Gradients to, Kind kind, Run run, Column c);

namespace {

// --- an activation ---------------------------------------------------------------------------------------------------

// act(z) and g·act'(z). RARE: any activation without loops of its own, told apart inside them.
constexpr int RARE = -1;
template <int ACT> GANFAST_INLINE vfloat activated(vfloat z, int act, float slope) {
  if constexpr (ACT == RARE) {
#define GANFAST_CASE(CODE) if (act == CODE) return Act<CODE>::of(z, slope);
    GANFAST_RARE(GANFAST_CASE)
#undef GANFAST_CASE
    return z;
  } else {
    return Act<ACT>::of(z, slope);
  }
}
template <int ACT> GANFAST_INLINE vfloat sloped(vfloat g, vfloat z, int act, float slope) {
  if constexpr (ACT == RARE) {
#define GANFAST_CASE(CODE) if (act == CODE) return Act<CODE>::pull(g, z, slope);
    GANFAST_RARE(GANFAST_CASE)
#undef GANFAST_CASE
    return g;
  } else {
    return Act<ACT>::pull(g, z, slope);
  }
}

// --- one vector -------------------------------------------------------------------------------------------------------

// The numbers of the vector that begins at column j: a strip's columns', or a run's.
GANFAST_INLINE vfloat at(const float* p, int64_t j) { return load(p + j); }
GANFAST_INLINE vfloat at(float v, int64_t) { return splat(v); }

template <bool PIXEL, class T, class Lanes, class C>
GANFAST_INLINE vfloat z_of(const Inputs& x, Lanes lanes, int64_t i, int64_t j, const C& c, vfloat d) {
  const vfloat z = d * at(c.scale, j);
  if constexpr (PIXEL) {
    return z * get(lanes, static_cast<const T*>(x.weight) + i) + get(lanes, static_cast<const T*>(x.bias) + i);
  } else {
    return z + at(c.bias, j);
  }
}
// The vector at element i, whose first column is j; PIXEL: each element has a weight and a bias.
template <class T, int ACT, bool PIXEL, class Lanes, class C>
GANFAST_INLINE void apply_to(const Inputs& x, T* a, const Kind& kind, Lanes lanes, int64_t i, int64_t j, const C& c) {
  const vfloat d = get(lanes, static_cast<const T*>(x.y) + i) - at(c.mean, j);
  put(lanes, a + i, activated<ACT>(z_of<PIXEL, T>(x, lanes, i, j, c, d), kind.activation, kind.slope));
}
// u and d
template <class T, int ACT, bool PIXEL, class Lanes, class C>
GANFAST_INLINE vfloat u_of(const Inputs& x, const T* g, const Kind& kind, Lanes lanes, int64_t i, int64_t j, const C& c,
                           vfloat& d) {
  d = get(lanes, static_cast<const T*>(x.y) + i) - at(c.mean, j);
  const vfloat dz = sloped<ACT>(get(lanes, g + i), z_of<PIXEL, T>(x, lanes, i, j, c, d), kind.activation, kind.slope);
  if constexpr (PIXEL) return dz * get(lanes, static_cast<const T*>(x.weight) + i);
  else return dz;
}
template <class T, int ACT, bool PIXEL, class Lanes, class C>
GANFAST_INLINE void gradient_of(const Inputs& x, const T* g, const Gradients& to, const Kind& kind, Lanes lanes, int64_t i,
                                int64_t j, const C& c) {
  const vfloat scale = at(c.scale, j), d = get(lanes, static_cast<const T*>(x.y) + i) - at(c.mean, j);
  const vfloat dz = sloped<ACT>(get(lanes, g + i), z_of<PIXEL, T>(x, lanes, i, j, c, d), kind.activation, kind.slope);
  vfloat u = dz;
  if constexpr (PIXEL) {
    u = dz * get(lanes, static_cast<const T*>(x.weight) + i);
    put(lanes, static_cast<T*>(to.weight) + i, dz * (d * scale));
    put(lanes, static_cast<T*>(to.bias) + i, dz);
  }
  put(lanes, static_cast<T*>(to.y) + i, u * scale + (d * at(c.bend, j) + at(c.lift, j)));
}

// call(a number of the dtype, the activation, whether each element has a weight)
template <class Call> GANFAST_INLINE void chosen(const Kind& kind, bool pixel, Call call) {
  auto typed = [&](auto number, auto each) __attribute__((always_inline)) {
#define GANFAST_CASE(CODE) if (kind.activation == CODE) return call(number, std::integral_constant<int, CODE>(), each);
    GANFAST_CASE(NONE) GANFAST_COMMON(GANFAST_CASE)
#undef GANFAST_CASE
    return call(number, std::integral_constant<int, RARE>(), each);
  };
  auto weighted = [&](auto number) __attribute__((always_inline)) {
    if (pixel) return typed(number, std::true_type());
    return typed(number, std::false_type());
  };
  if (kind.dtype == F16) return weighted(half_t());
  if (kind.dtype == BF16) return weighted(bfloat_t());
  return weighted(float());
}

}  // namespace
}  // namespace ganfast::cpu
