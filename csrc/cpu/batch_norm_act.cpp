// batch_norm_act on the CPU. Work is cut into strips: rows of neighbouring elements, each column of one channel. Moments
// and sums are made per column, 8 rows at a time from registers, in fp32; columns and strips are merged into channels in
// double, in a fixed order. In NCHW a thread takes a few whole channels and goes over them while they are in the cache;
// with the channels last each pass goes over all rows.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "../ops.h"
#include "vec.h"

namespace ganfast::cpu {
namespace {

constexpr int ROWS = 8;                      // held in registers
constexpr int64_t WIDTH = 1024;              // columns of a strip in NCHW
constexpr int64_t STRIP = 65536;             // elements of a strip, about
constexpr int64_t NARROW = 64, WIDE = 2048;  // channels last: rows of few channels are joined to this many columns
constexpr int64_t SERIAL = 16384;            // elements below which waking threads costs more than it saves

// Rows begin … end of those that start at first + (i / inner)·outer + (i % inner)·width.
struct Strip {
  int64_t first, begin, end, width, inner, outer;
};
// The starts of a strip's rows, one after another.
struct Cursor {
  int64_t at, k, width, inner, jump;
};
GANFAST_INLINE Cursor cursor(const Strip& s) {
  const int64_t k = s.begin % s.inner;
  return {s.first + s.begin / s.inner * s.outer + k * s.width, k, s.width, s.inner, s.outer - s.inner * s.width};
}
GANFAST_INLINE int64_t next(Cursor& c) {
  const int64_t start = c.at;
  c.at += c.width;
  if (++c.k == c.inner) c.k = 0, c.at += c.jump;
  return start;
}
// visit(start) for all rows of a strip: what is also written goes fastest row by row.
template <class Visit> GANFAST_INLINE void row_by_row(const Strip& s, Visit visit) {
  Cursor c = cursor(s);
  for (int64_t i = s.begin; i < s.end; ++i) visit(next(c));
}
// visit(starts, how many) for all rows of a strip, ROWS at a time and then one by one: sums stay in registers.
template <class Visit> GANFAST_INLINE void over_rows(const Strip& s, Visit visit) {
  Cursor c = cursor(s);
  int64_t rows[ROWS], i = s.begin;
  for (; i + ROWS <= s.end; i += ROWS) {
    for (int r = 0; r < ROWS; ++r) rows[r] = next(c);
    visit(rows, std::integral_constant<int, ROWS>());
  }
  for (; i < s.end; ++i) {
    rows[0] = next(c);
    visit(rows, std::integral_constant<int, 1>());
  }
}
// The lanes of a vector that are in the row: all, or the first few.
struct All {};
struct Some {
  int64_t count;
};
template <class T> GANFAST_INLINE vfloat get(All, const T* p) { return load(p); }
template <class T> GANFAST_INLINE vfloat get(Some some, const T* p) { return load_some(p, some.count); }
template <class T> GANFAST_INLINE void put(All, T* p, vfloat v) { store(p, v); }
template <class T> GANFAST_INLINE void put(Some some, T* p, vfloat v) { store_some(p, v, some.count); }
// visit(column, lanes) for all vectors of a row.
template <class Visit> GANFAST_INLINE void over_columns(int64_t width, Visit visit) {
  int64_t j = 0;
  for (; j + LANES <= width; j += LANES) visit(j, All());
  if (j < width) visit(j, Some{width - j});
}
template <int N> GANFAST_INLINE vfloat sum_of(const vfloat* v) {
  if constexpr (N == 1) return v[0];
  else return sum_of<N / 2>(v) + sum_of<N / 2>(v + N / 2);
}

// --- what is done with a strip ---------------------------------------------------------------------------------------

// Per column, with z = (y − mean)·scale + bias: a = act(z), dy = dz·scale + (y − mean)·bend + lift.
struct Column {
  float mean, scale, bias, bend, lift;
};
struct Columns {
  const float *mean, *scale, *bias, *bend, *lift;
};

template <int ACT> GANFAST_INLINE vfloat activated(vfloat z, float slope) {
  if constexpr (ACT == RELU) {  // a nan stays, whatever its sign
    const vint number = less((vint)vabs(z), splat(0x7f800001));
    return (vfloat)((vint)z & ~(negative(z) & number));
  }
  if constexpr (ACT == LEAKY_RELU) return select(negative(z), z * slope, z);
  if constexpr (ACT == TANH) {
    const vfloat x = vabs(z), e = exp_negative(x * -2.f), s = z * z;
    vfloat p = splat(2.1869488e-2f);  // tanh(x)/x by its series, below 0.3
    p = p * s - 5.3968254e-2f;
    p = p * s + 1.3333334e-1f;
    p = p * s - 3.3333334e-1f;
    const vfloat small = x + x * s * p, t = (1.f - e) / (1.f + e);
    const vfloat result = select(less((vint)x, splat(0x3e99999a)), small, t);
    return (vfloat)((vint)result | ((vint)z & (int32_t)0x80000000));
  }
  return z;
}
// g·act'(z)
template <int ACT> GANFAST_INLINE vfloat sloped(vfloat g, vfloat z, float slope) {
  const vuint u = (vuint)z;
  const vint not_positive = (vint)(u | (u - 1u)) >> 31;
  if constexpr (ACT == RELU) return (vfloat)((vint)g & ~not_positive);
  if constexpr (ACT == LEAKY_RELU) return select(not_positive, g * slope, g);
  if constexpr (ACT == TANH) {
    const vfloat t = activated<TANH>(z, slope);
    return g * (1.f - t * t);
  }
  return g;
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
  float count = 0;
  over_rows(s, [&](const int64_t* rows, auto number) __attribute__((always_inline)) {
    constexpr int N = decltype(number)::value;
    const float share = N / (count + N), weight = count * share;
    over_columns(s.width, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
      const vfloat zero = load(first + j), old = load(mean + j);
      vfloat v[N], squares[N];
      for (int r = 0; r < N; ++r) v[r] = get(lanes, y + rows[r] + j) - zero;
      const vfloat middle = sum_of<N>(v) * (1.f / N);
      for (int r = 0; r < N; ++r) squares[r] = (v[r] - middle) * (v[r] - middle);
      const vfloat d = middle - old;
      store(mean + j, old + d * share);
      store(m2 + j, load(m2 + j) + (sum_of<N>(squares) + d * d * weight));
    });
    count += N;
  });
}

template <class T, int ACT> GANFAST_INLINE void apply_of(const void* py, void* pa, const Strip& s, Columns c, float slope) {
  const T* y = static_cast<const T*>(py);
  T* a = static_cast<T*>(pa);
  row_by_row(s, [&](int64_t row) __attribute__((always_inline)) {
    over_columns(s.width, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
      const vfloat z = (get(lanes, y + row + j) - load(c.mean + j)) * load(c.scale + j) + load(c.bias + j);
      put(lanes, a + row + j, activated<ACT>(z, slope));
    });
  });
}

// Per column: Σ dz and Σ dz·(y − mean).
template <class T, int ACT>
GANFAST_INLINE void sums_of(const void* pg, const void* py, const Strip& s, Columns c, float slope, float* total, float* along) {
  const T *g = static_cast<const T*>(pg), *y = static_cast<const T*>(py);
  std::fill(total, total + s.width, 0.f);
  std::fill(along, along + s.width, 0.f);
  over_rows(s, [&](const int64_t* rows, auto number) __attribute__((always_inline)) {
    constexpr int N = decltype(number)::value;
    over_columns(s.width, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
      const vfloat mean = load(c.mean + j), scale = load(c.scale + j), bias = load(c.bias + j);
      vfloat t[2] = {}, u[2] = {};
      for (int r = 0; r < N; ++r) {
        const vfloat d = get(lanes, y + rows[r] + j) - mean;
        const vfloat dz = sloped<ACT>(get(lanes, g + rows[r] + j), d * scale + bias, slope);
        t[r & 1] += dz;
        u[r & 1] += dz * d;
      }
      store(total + j, load(total + j) + (t[0] + t[1]));
      store(along + j, load(along + j) + (u[0] + u[1]));
    });
  });
}

template <class T, int ACT>
GANFAST_INLINE void gradient_of(const void* pg, const void* py, void* pdy, const Strip& s, Columns c, float slope) {
  const T *g = static_cast<const T*>(pg), *y = static_cast<const T*>(py);
  T* dy = static_cast<T*>(pdy);
  row_by_row(s, [&](int64_t row) __attribute__((always_inline)) {
    over_columns(s.width, [&](int64_t j, auto lanes) __attribute__((always_inline)) {
      const vfloat scale = load(c.scale + j), d = get(lanes, y + row + j) - load(c.mean + j);
      const vfloat dz = sloped<ACT>(get(lanes, g + row + j), d * scale + load(c.bias + j), slope);
      put(lanes, dy + row + j, dz * scale + (d * load(c.bend + j) + load(c.lift + j)));
    });
  });
}

// call(a number of the dtype, the activation)
template <class Call> GANFAST_INLINE void chosen(const BatchNorm& n, Call call) {
  auto typed = [&](auto number) __attribute__((always_inline)) {
    if (n.activation == RELU) return call(number, std::integral_constant<int, RELU>());
    if (n.activation == LEAKY_RELU) return call(number, std::integral_constant<int, LEAKY_RELU>());
    if (n.activation == TANH) return call(number, std::integral_constant<int, TANH>());
    return call(number, std::integral_constant<int, NONE>());
  };
  if (n.dtype == F16) return typed(half_t());
  if (n.dtype == BF16) return typed(bfloat_t());
  return typed(float());
}

GANFAST_CLONES void moments(const void* y, const BatchNorm& n, const Strip& s, float* first, float* mean, float* m2) {
  if (n.dtype == F16) return moments_of<half_t>(y, s, first, mean, m2);
  if (n.dtype == BF16) return moments_of<bfloat_t>(y, s, first, mean, m2);
  return moments_of<float>(y, s, first, mean, m2);
}
GANFAST_CLONES void apply(const void* y, void* a, const BatchNorm& n, const Strip& s, const Columns& c) {
  chosen(n, [&](auto number, auto act) __attribute__((always_inline)) {
    apply_of<decltype(number), decltype(act)::value>(y, a, s, c, n.slope);
  });
}
GANFAST_CLONES void sums(const void* g, const void* y, const BatchNorm& n, const Strip& s, const Columns& c, float* total,
                         float* along) {
  chosen(n, [&](auto number, auto act) __attribute__((always_inline)) {
    sums_of<decltype(number), decltype(act)::value>(g, y, s, c, n.slope, total, along);
  });
}
GANFAST_CLONES void gradient(const void* g, const void* y, void* dy, const BatchNorm& n, const Strip& s, const Columns& c) {
  chosen(n, [&](auto number, auto act) __attribute__((always_inline)) {
    gradient_of<decltype(number), decltype(act)::value>(g, y, dy, s, c, n.slope);
  });
}

// --- how a tensor is cut ----------------------------------------------------------------------------------------------

// The columns of a strip that belong to its k-th channel: k·start + i·step, i < count.
struct Share {
  int64_t start, step, count;
};
struct Piece {
  Strip strip;
  Share share;
};
// Channels first … first + count, and all strips that have them (NCHW), or some (channels last).
struct Unit {
  int64_t first, count;
  std::vector<Piece> pieces;
};

void add_strips(std::vector<Piece>& pieces, Strip whole, Share share) {
  const int64_t deep = std::max<int64_t>(STRIP / whole.width / ROWS * ROWS, ROWS);
  for (int64_t i = 0; i < whole.end; i += deep) {
    Strip part = whole;
    part.begin = i, part.end = std::min(whole.end, i + deep);
    pieces.push_back({part, share});
  }
}

// NCHW: a few whole channels a unit. A plane wider than WIDTH is rows of WIDTH and a rest.
std::vector<Unit> whole_channels(const BatchNorm& n) {
  std::vector<Unit> units;
  const int64_t each = std::max<int64_t>(WIDTH / n.plane, 1), outer = n.channels * n.plane;
  for (int64_t c = 0; c < n.channels; c += each) {
    const int64_t count = std::min(each, n.channels - c), first = c * n.plane;
    Unit unit{c, count, {}};
    if (n.plane <= WIDTH) {
      add_strips(unit.pieces, {first, 0, n.batch, count * n.plane, 1, outer}, {n.plane, 1, n.plane});
    } else {
      const int64_t rows = n.plane / WIDTH, rest = n.plane % WIDTH;
      add_strips(unit.pieces, {first, 0, n.batch * rows, WIDTH, rows, outer}, {0, 1, WIDTH});
      if (rest) add_strips(unit.pieces, {first + rows * WIDTH, 0, n.batch, rest, 1, outer}, {0, 1, rest});
    }
    units.push_back(std::move(unit));
  }
  return units;
}

// Channels last: a strip a unit. Rows of few channels, or of a number that vectors do not divide, are joined.
std::vector<Unit> all_channels(const BatchNorm& n) {
  const int64_t c = n.channels;
  int64_t joined = LANES / std::gcd((int64_t)LANES, c);
  while (joined * c < NARROW) joined *= 2;
  if (joined * c > WIDE) joined = 1;
  const int64_t width = joined * c, rows = n.batch / joined, rest = n.batch % joined;
  std::vector<Piece> pieces;
  add_strips(pieces, {0, 0, rows, width, 1, width}, {1, c, joined});
  if (rest) add_strips(pieces, {rows * width, 0, 1, rest * c, 1, 0}, {1, c, rest});
  std::vector<Unit> units;
  for (const Piece& piece : pieces) units.push_back({0, c, {piece}});
  return units;
}

// Sums over columns and over strips, in double.
struct Moments {
  double count = 0, mean = 0, m2 = 0;
  void add(double n, double m, double s) {
    const double d = m - mean, part = n / (count + n);
    mean += d * part;
    m2 += s + d * d * count * part;
    count += n;
  }
  // first, mean and m2 of a strip's columns
  void add(const float* const* v, int64_t k, Share share, int64_t rows) {
    if (share.count == 1) {
      const int64_t only = k * share.start;
      return add((double)rows, (double)v[0][only] + v[1][only], v[2][only]);
    }
    double middle = 0, squares = 0;
    auto at = [&](int64_t i) { return k * share.start + i * share.step; };
    for (int64_t i = 0; i < share.count; ++i) middle += (double)v[0][at(i)] + v[1][at(i)];
    middle /= share.count;
    for (int64_t i = 0; i < share.count; ++i) {
      const double d = (double)v[0][at(i)] + v[1][at(i)] - middle;
      squares += v[2][at(i)] + rows * d * d;
    }
    add((double)rows * share.count, middle, squares);
  }
  void add(const Moments& other) { add(other.count, other.mean, other.m2); }
};
struct Sums {
  double total = 0, along = 0;
  void add(const float* const* v, int64_t k, Share share, int64_t) {
    for (int64_t i = 0; i < share.count; ++i) {
      total += v[0][k * share.start + i * share.step];
      along += v[1][k * share.start + i * share.step];
    }
  }
  void add(const Sums& other) { total += other.total, along += other.along; }
};

// Arrays of floats, one element a column.
struct Arrays {
  std::vector<float> memory;
  float* of[5];
  explicit Arrays(int64_t width) : memory(5 * (width + LANES)) {
    for (int i = 0; i < 5; ++i) of[i] = memory.data() + i * (width + LANES);
  }
  Columns columns() const { return {of[0], of[1], of[2], of[3], of[4]}; }
  void fill(int64_t k, Share share, Column c) {
    const float values[] = {c.mean, c.scale, c.bias, c.bend, c.lift};
    for (int i = 0; i < 5; ++i)
      for (int64_t j = 0; j < share.count; ++j) of[i][k * share.start + j * share.step] = values[i];
  }
};
int64_t widest(const Unit& unit) {
  int64_t width = 0;
  for (const Piece& piece : unit.pieces) width = std::max(width, piece.strip.width);
  return width;
}
// The columns of a unit's channels: of(k) says those of its k-th.
template <class Of> void fill(Arrays& arrays, const Unit& unit, Of of) {
  for (int64_t k = 0; k < unit.count; ++k) arrays.fill(k, unit.pieces[0].share, of(k));  // a rest is narrower
}

// reduce(strip, columns, sums of each column) over all strips, unless there is nothing to reduce; then write(strip, columns).
// before(c) says the columns of channel c for the first, after(c, its sum) for the second.
template <class Sum, class Before, class Reduce, class After, class Write>
void sweep(const BatchNorm& n, int threads, bool reduces, Before before, Reduce reduce, After after, Write write) {
  const int64_t elements = n.batch * n.channels * n.plane;
  if (elements == 0) {
    for (int64_t c = 0; c < n.channels; ++c) after(c, Sum());
    return;
  }
  const std::vector<Unit> units = n.plane == 1 ? all_channels(n) : whole_channels(n);
  const int64_t count = units.size();
  if (elements <= SERIAL) threads = 1;
  auto add = [&](const Unit& unit, const Arrays& columns, Arrays& scratch, Sum* sums) {
    for (const Piece& piece : unit.pieces) {
      reduce(piece.strip, columns.columns(), scratch.of);
      for (int64_t k = 0; k < unit.count; ++k) sums[k].add(scratch.of, k, piece.share, piece.strip.end - piece.strip.begin);
    }
  };
  if (n.plane != 1) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < count; ++i) {
      const Unit& unit = units[i];
      Arrays columns(widest(unit)), scratch(widest(unit));
      std::vector<Sum> sums(unit.count);
      fill(columns, unit, [&](int64_t k) { return before(unit.first + k); });
      if (reduces) add(unit, columns, scratch, sums.data());
      fill(columns, unit, [&](int64_t k) { return after(unit.first + k, sums[k]); });
      for (const Piece& piece : unit.pieces) write(piece.strip, columns.columns());
    }
    return;
  }
  Arrays columns(widest(units[0]));
  std::vector<Sum> sums(reduces ? count * n.channels : 0);
  fill(columns, units[0], before);
  if (reduces) {
#pragma omp parallel num_threads(threads)
    {
      Arrays scratch(widest(units[0]));
#pragma omp for schedule(static)
      for (int64_t i = 0; i < count; ++i) add(units[i], columns, scratch, &sums[i * n.channels]);
    }
  }
  fill(columns, units[0], [&](int64_t c) {
    Sum whole;
    for (size_t i = c; i < sums.size(); i += n.channels) whole.add(sums[i]);
    return after(c, whole);
  });
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < count; ++i) write(units[i].pieces[0].strip, columns.columns());
}

// 1/√(var + eps), and the columns of a channel without gradient's.
double inverse_of(const BatchNorm& n, float var) { return 1 / std::sqrt((double)var + n.eps); }
Column column_of(const BatchNorm& n, int64_t c, float mean, float var) {
  const double weight = n.weight ? n.weight[c] : 1.0;
  return {mean, (float)(weight * inverse_of(n, var)), n.bias ? n.bias[c] : 0.f, 0.f, 0.f};
}

}  // namespace

void batch_norm_act(const void* y, BatchNorm n, void* a, float* mean, float* var, int threads) {
  sweep<Moments>(
      n, threads, n.use_batch, [](int64_t) { return Column{}; },
      [&](const Strip& s, const Columns&, float* const* sums) { moments(y, n, s, sums[0], sums[1], sums[2]); },
      [&](int64_t c, const Moments& m) {
        if (n.use_batch) mean[c] = m.count ? (float)m.mean : NAN, var[c] = (float)(m.m2 / m.count);
        return column_of(n, c, mean[c], var[c]);
      },
      [&](const Strip& s, const Columns& columns) { apply(y, a, n, s, columns); });
}

void batch_norm_act_backward(const void* da, const void* y, BatchNorm n, const float* mean, const float* var, void* dy,
                             float* dweight, float* dbias, int threads) {
  const double share = n.use_batch ? 1.0 / (n.batch * n.plane) : 0.0;
  sweep<Sums>(
      n, threads, true, [&](int64_t c) { return column_of(n, c, mean[c], var[c]); },
      [&](const Strip& s, const Columns& columns, float* const* out) { sums(da, y, n, s, columns, out[0], out[1]); },
      [&](int64_t c, const Sums& s) {
        const double r = n.batch * n.plane ? inverse_of(n, var[c]) : 0;
        Column column = column_of(n, c, mean[c], var[c]);
        dweight[c] = (float)(r * s.along), dbias[c] = (float)s.total;
        column.bend = (float)(-column.scale * share * r * r * s.along), column.lift = (float)(-column.scale * share * s.total);
        return column;
      },
      [&](const Strip& s, const Columns& columns) { gradient(da, y, dy, n, s, columns); });
}

}  // namespace ganfast::cpu
