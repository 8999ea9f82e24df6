// What normalisation does with a strip, for every dtype and activation. Sums are made per column, in fp32.
#include "strips.h"

namespace ganfast::cpu {
namespace {

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

template <class T, int ACT, bool PIXEL>
GANFAST_INLINE void sums_of(const Inputs& x, const T* g, const Kind& kind, const Strip& s, const Columns& c, float* total,
                            float* along) {
  const T* y = static_cast<const T*>(x.y);
  const int64_t further = ahead<T>(s);
  std::fill(total, total + s.width, 0.f);
  std::fill(along, along + s.width, 0.f);
  over_rows<ACT == RARE ? 1 : ROWS>(s, [&](const int64_t* rows, auto number) __attribute__((always_inline)) {
    constexpr int N = decltype(number)::value;
    over_columns(s.width, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
      vfloat t[2] = {}, v[2] = {};
      for (int r = 0; r < N; ++r) {
        __builtin_prefetch(y + rows[r] + j + further);
        __builtin_prefetch(g + rows[r] + j + further);
        vfloat d;
        const vfloat u = u_of<T, ACT, PIXEL>(x, g, kind, lanes, rows[r] + j, j, c, d);
        t[r & 1] += u;
        v[r & 1] += u * d;
      }
      store(total + j, load(total + j) + (t[0] + t[1]));
      store(along + j, load(along + j) + (v[0] + v[1]));
    });
  });
}

// visit(element, column, lanes) for all vectors of a strip
template <class Visit> GANFAST_INLINE void over_strip(const Strip& s, Visit visit) {
  row_by_row(s, [&](int64_t row) __attribute__((always_inline)) {
    over_columns(s.width, [&](int64_t j, auto lanes) __attribute__((always_inline)) { visit(row + j, j, lanes); });
  });
}

}  // namespace

GANFAST_CLONES void strip_moments(const void* y, const Kind& kind, const Strip& s, float* first, float* mean, float* m2) {
  if (kind.dtype == F16) return moments_of<half_t>(y, s, first, mean, m2);
  if (kind.dtype == BF16) return moments_of<bfloat_t>(y, s, first, mean, m2);
  return moments_of<float>(y, s, first, mean, m2);
}
GANFAST_CLONES void strip_apply(Inputs x, void* a, Kind kind, const Strip& s, Columns c) {
  chosen(kind, x.weight, [&](auto number, auto act, auto pixel) __attribute__((always_inline)) {
    using T = decltype(number);
    over_strip(s, [&](int64_t i, int64_t j, auto lanes) __attribute__((always_inline)) {
      apply_to<T, act.value, pixel.value>(x, static_cast<T*>(a), kind, lanes, i, j, c);
    });
  });
}
GANFAST_CLONES void strip_sums(Inputs x, const void* g, Kind kind, const Strip& s, Columns c, float* total, float* along) {
  chosen(kind, x.weight, [&](auto number, auto act, auto pixel) __attribute__((always_inline)) {
    using T = decltype(number);
    sums_of<T, act.value, pixel.value>(x, static_cast<const T*>(g), kind, s, c, total, along);
  });
}
GANFAST_CLONES void strip_gradient(Inputs x, const void* g, Gradients to, Kind kind, const Strip& s, Columns c) {
  chosen(kind, x.weight, [&](auto number, auto act, auto pixel) __attribute__((always_inline)) {
    using T = decltype(number);
    over_strip(s, [&](int64_t i, int64_t j, auto lanes) __attribute__((always_inline)) {
      gradient_of<T, act.value, pixel.value>(x, static_cast<const T*>(g), to, kind, lanes, i, j, c);
    });
  });
}

}  // namespace ganfast::cpu
