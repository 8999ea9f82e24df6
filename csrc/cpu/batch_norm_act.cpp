// batch_norm_act on the CPU: what is done with a strip, and the two operators. Moments and sums are made per column, in fp32;
// channels.h merges them.
#include <algorithm>
#include <cmath>

#include "../ops.h"
#include "activations.h"
#include "channels.h"
#include "pages.h"

namespace ganfast::cpu {
namespace {

// --- what is done with a strip ---------------------------------------------------------------------------------------

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

// Per column: its first element, the mean of the differences to that, and their squared deviations' sum.
template <class T> GANFAST_INLINE void moments_of(const void* py, const Strip& s, float* first, float* mean, float* m2) {
  const T* y = static_cast<const T*>(py);
  const int64_t start = cursor(s).at;
  over_columns(s.width, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
    store(first + j, get(lanes, y + start + j));
    store(mean + j, vfloat{});
    store(m2 + j, vfloat{});
  });
  const int64_t further = ahead<T>(s);
  float count = 0;
  over_rows(s, [&](const int64_t* rows, auto number) __attribute__((always_inline)) {
    constexpr int N = decltype(number)::value;
    const float share = N / (count + N), weight = count * share;
    over_columns(s.width, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
      const vfloat zero = load(first + j), old = load(mean + j);
      vfloat v[N], squares[N];
      for (int r = 0; r < N; ++r) {
        __builtin_prefetch(y + rows[r] + j + further);
        v[r] = get(lanes, y + rows[r] + j) - zero;
      }
      const vfloat middle = sum_of<N>(v) * (1.f / N);
      for (int r = 0; r < N; ++r) squares[r] = (v[r] - middle) * (v[r] - middle);
      const vfloat d = middle - old, grown = count ? d : vfloat{};  // d² may overflow: 0 · inf is NaN
      store(mean + j, old + d * share);
      store(m2 + j, load(m2 + j) + (sum_of<N>(squares) + grown * grown * weight));
    });
    count += N;
  });
}

template <class T, int ACT>
GANFAST_INLINE void apply_of(const void* py, void* pa, const Strip& s, Columns c, int act, float slope) {
  const T* y = static_cast<const T*>(py);
  T* a = static_cast<T*>(pa);
  row_by_row(s, [&](int64_t row) __attribute__((always_inline)) {
    over_columns(s.width, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
      const vfloat z = (get(lanes, y + row + j) - load(c.mean + j)) * load(c.scale + j) + load(c.bias + j);
      put(lanes, a + row + j, activated<ACT>(z, act, slope));
    });
  });
}

// Per column: Σ dz and Σ dz·(y − mean).
template <class T, int ACT>
GANFAST_INLINE void sums_of(const void* pg, const void* py, const Strip& s, Columns c, int act, float slope, float* total,
                            float* along) {
  const T *g = static_cast<const T*>(pg), *y = static_cast<const T*>(py);
  const int64_t further = ahead<T>(s);
  std::fill(total, total + s.width, 0.f);
  std::fill(along, along + s.width, 0.f);
  over_rows<ACT == RARE ? 1 : ROWS>(s, [&](const int64_t* rows, auto number) __attribute__((always_inline)) {
    constexpr int N = decltype(number)::value;
    over_columns(s.width, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
      const vfloat mean = load(c.mean + j), scale = load(c.scale + j), bias = load(c.bias + j);
      vfloat t[2] = {}, u[2] = {};
      for (int r = 0; r < N; ++r) {
        __builtin_prefetch(y + rows[r] + j + further);
        __builtin_prefetch(g + rows[r] + j + further);
        const vfloat d = get(lanes, y + rows[r] + j) - mean;
        const vfloat dz = sloped<ACT>(get(lanes, g + rows[r] + j), d * scale + bias, act, slope);
        t[r & 1] += dz;
        u[r & 1] += dz * d;
      }
      store(total + j, load(total + j) + (t[0] + t[1]));
      store(along + j, load(along + j) + (u[0] + u[1]));
    });
  });
}

template <class T, int ACT>
GANFAST_INLINE void gradient_of(const void* pg, const void* py, void* pdy, const Strip& s, Columns c, int act, float slope) {
  const T *g = static_cast<const T*>(pg), *y = static_cast<const T*>(py);
  T* dy = static_cast<T*>(pdy);
  row_by_row(s, [&](int64_t row) __attribute__((always_inline)) {
    over_columns(s.width, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
      const vfloat scale = load(c.scale + j), d = get(lanes, y + row + j) - load(c.mean + j);
      const vfloat dz = sloped<ACT>(get(lanes, g + row + j), d * scale + load(c.bias + j), act, slope);
      put(lanes, dy + row + j, dz * scale + (d * load(c.bend + j) + load(c.lift + j)));
    });
  });
}

// call(a number of the dtype, the activation)
template <class Call> GANFAST_INLINE void chosen(const BatchNorm& n, Call call) {
  auto typed = [&](auto number) __attribute__((always_inline)) {
#define GANFAST_CASE(CODE) if (n.activation == CODE) return call(number, std::integral_constant<int, CODE>());
    GANFAST_CASE(NONE) GANFAST_COMMON(GANFAST_CASE)
#undef GANFAST_CASE
    return call(number, std::integral_constant<int, RARE>());
  };
  if (n.dtype == F16) return typed(half_t());
  if (n.dtype == BF16) return typed(bfloat_t());
  return typed(float());
}

GANFAST_CLONES void moments_in(const void* y, const BatchNorm& n, const Strip& s, float* first, float* mean, float* m2) {
  if (n.dtype == F16) return moments_of<half_t>(y, s, first, mean, m2);
  if (n.dtype == BF16) return moments_of<bfloat_t>(y, s, first, mean, m2);
  return moments_of<float>(y, s, first, mean, m2);
}
GANFAST_CLONES void apply(const void* y, void* a, const BatchNorm& n, const Strip& s, const Columns& c) {
  chosen(n, [&](auto number, auto act) __attribute__((always_inline)) {
    apply_of<decltype(number), decltype(act)::value>(y, a, s, c, n.activation, n.slope);
  });
}
GANFAST_CLONES void sums(const void* g, const void* y, const BatchNorm& n, const Strip& s, const Columns& c, float* total,
                         float* along) {
  chosen(n, [&](auto number, auto act) __attribute__((always_inline)) {
    sums_of<decltype(number), decltype(act)::value>(g, y, s, c, n.activation, n.slope, total, along);
  });
}
GANFAST_CLONES void gradient(const void* g, const void* y, void* dy, const BatchNorm& n, const Strip& s, const Columns& c) {
  chosen(n, [&](auto number, auto act) __attribute__((always_inline)) {
    gradient_of<decltype(number), decltype(act)::value>(g, y, dy, s, c, n.activation, n.slope);
  });
}

int64_t bytes_of(const BatchNorm& n) { return n.batch * n.channels * n.plane * (n.dtype == F32 ? 4 : 2); }

// 1/√(var + eps), and the columns of a channel without gradient's.
double inverse_of(const BatchNorm& n, float var) { return 1 / std::sqrt((double)var + n.eps); }
Column column_of(const BatchNorm& n, int64_t c, float mean, float var) {
  const double weight = n.weight ? n.weight[c] : 1.0;
  return {mean, (float)(weight * inverse_of(n, var)), n.bias ? n.bias[c] : 0.f, 0.f, 0.f};
}

// With the variances of `count` elements as unbiased ones. An empty batch is counted, no more.
void update(const Running& running, const float* moments, int64_t channels, int64_t count) {
  if (running.batches) ++*running.batches;
  if (!running.mean || !count) return;
  const double cumulative = running.batches ? 1.0 / *running.batches : 0.0, unbias = count / (count - 1.0);
  const double momentum = running.momentum < 0 ? cumulative : running.momentum;
  auto move = [&](float& value, double to) { value = (float)((1 - momentum) * value + momentum * to); };  // of inf: inf
  for (int64_t c = 0; c < channels; ++c) {
    move(running.mean[c], moments[c]);
    move(running.var[c], moments[channels + c] * unbias);
  }
}

}  // namespace

const char* activations() { return ACTIVATIONS; }

void batch_norm_act(const void* y, BatchNorm n, Running running, void* a, float* moments, int threads) {
  expect_writes(a, bytes_of(n));
  float *mean = moments, *var = moments + n.channels;
  sweep<Moments>(
      n, threads, n.use_batch, [](int64_t) { return Column{}; },
      [&](const Strip& s, const Columns&, float* const* sums) { moments_in(y, n, s, sums[0], sums[1], sums[2]); },
      [&](int64_t c, const Moments& m) {
        if (n.use_batch) mean[c] = m.count ? (float)m.mean : NAN, var[c] = (float)(m.m2 / m.count);
        return column_of(n, c, mean[c], var[c]);
      },
      [&](const Strip& s, const Columns& columns) { apply(y, a, n, s, columns); });
  update(running, moments, n.channels, n.batch * n.plane);
}

void batch_norm_act_backward(const void* da, const void* y, BatchNorm n, const float* moments, void* dy, float* found,
                             int threads) {
  expect_writes(dy, bytes_of(n));
  const float *mean = moments, *var = moments + n.channels;
  const double share = n.use_batch ? 1.0 / (n.batch * n.plane) : 0.0;
  sweep<Sums>(
      n, threads, true, [&](int64_t c) { return column_of(n, c, mean[c], var[c]); },
      [&](const Strip& s, const Columns& columns, float* const* out) { sums(da, y, n, s, columns, out[0], out[1]); },
      [&](int64_t c, const Sums& s) {
        const double r = n.batch * n.plane > 0 ? inverse_of(n, var[c]) : 0;
        Column column = column_of(n, c, mean[c], var[c]);
        found[c] = (float)s.total, found[n.channels + c] = (float)(r * s.along);
        column.bend = (float)(-column.scale * share * r * r * s.along), column.lift = (float)(-column.scale * share * s.total);
        return column;
      },
      [&](const Strip& s, const Columns& columns) { gradient(da, y, dy, n, s, columns); });
}

}  // namespace ganfast::cpu
