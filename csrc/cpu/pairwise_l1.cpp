// pairwise_l1 on the CPU. A unit of work is one kernel b: its numbers are copied to [kd][n] floats, four rows meet 16
// others at a time. Where the others are the rows, only pairs i <= j are visited and count for both. Threads share out
// the units, each of which is summed in one order: the result does not depend on their number.
#include <algorithm>
#include <vector>

#include "../ops.h"
#include "vec.h"

namespace ganfast::cpu {
namespace {

constexpr int ROWS = 4;
constexpr int64_t CHUNK = 256;               // others whose pair weights are kept at a time: the first-level cache holds them
constexpr int64_t SERIAL = 64 * 64 * 16;     // differences; below, waking threads costs more than it saves
enum Mode { FORWARD, BACKWARD, DOUBLE };

// One kernel's numbers; R rows and B others rounded up to RP and BP. Where the others are the rows, y, cy, dy are x, cx, dx.
struct Unit {
  int64_t R, B, RP, BP, kd;
  float *x, *y;      // [kd][RP], [kd][BP]
  float *g;          // [RP]
  float *cx, *cy;    // as x, y: cotangents of the backward's results
  float *sum;        // [RP]: o, or the gradient of g
  float *dx, *dy;    // as x, y
  float *weights;    // [ROWS][CHUNK]
  float *partial;    // [kd][ROWS][LANES]
};

// v with the sign of `difference`, 0 where that is 0; nan stays nan.
GANFAST_INLINE vfloat with_sign(vfloat v, vfloat difference) {
  vfloat s = (vfloat)((vuint)v ^ ((vuint)difference & 0x80000000u));
  return difference != 0.f ? s : vfloat{};
}
typedef float vfloat8 __attribute__((vector_size(32)));
typedef float vfloat4 __attribute__((vector_size(16)));
GANFAST_INLINE float fold(vfloat v) {
  vfloat8 a, b;
  std::memcpy(&a, &v, 32), std::memcpy(&b, (char*)&v + 32, 32);
  a += b;
  vfloat4 c, d;
  std::memcpy(&c, &a, 16), std::memcpy(&d, (char*)&a + 16, 16);
  c += d;
  return (c[0] + c[1]) + (c[2] + c[3]);
}

// The pairs of rows i..i+3 and others j..j+15: adds to the sums and writes the weights w of the signs, where
//   BACKWARD w = (g_i [+ g_j]) e,   DOUBLE w = (g_i [+ g_j]) e t, t = Σ_d s (cy − cx).
// EDGE: some of the pairs do not exist.
template <Mode MODE, bool SELF, bool EDGE>
GANFAST_INLINE void meet(const Unit& u, int64_t i, int64_t j, float* weights, vfloat (&row_sum)[ROWS]) {
  vfloat distance[ROWS] = {}, t[ROWS] = {};
  for (int64_t d = 0; d < u.kd; ++d) {
    const vfloat y = load(u.y + d * u.BP + j);
    const vfloat cy = MODE == DOUBLE ? load(u.cy + d * u.BP + j) : vfloat{};
    for (int r = 0; r < ROWS; ++r) {
      const vfloat difference = u.x[d * u.RP + i + r] - y;
      distance[r] += vabs(difference);
      if (MODE == DOUBLE) t[r] += with_sign(cy - u.cx[d * u.RP + i + r], difference);
    }
  }
  const vint lane = vint{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + (int32_t)(j - i);  // j − i of a pair
  const int32_t end = (int32_t)std::min<int64_t>(u.B - i, INT32_MAX);
  vfloat column_sum = {};
  for (int r = 0; r < ROWS; ++r) {
    vfloat e = exp_negative(-distance[r]);
    if (MODE == DOUBLE) e *= t[r];
    vint exists = {};
    if (EDGE) {
      exists = lane < (i + r < u.R ? end : INT32_MIN);
      if (SELF) exists &= lane >= r;
      e = exists ? e : vfloat{};
    }
    row_sum[r] += e;
    if (SELF) column_sum += MODE == FORWARD && EDGE ? (lane > r ? e : vfloat{}) : e;  // the pair (i, i) counts once
    if (MODE != FORWARD) {
      vfloat w = e * (SELF ? u.g[i + r] + load(u.g + j) : splat(u.g[i + r]));
      store(weights + r * CHUNK, EDGE ? (exists ? w : vfloat{}) : w);
    }
  }
  if (SELF && MODE != BACKWARD) store(u.sum + j, load(u.sum + j) + column_sum);
}

// The weighted signs of rows i..i+3 against others from..to: partial sums of the rows, and the others' gradient.
GANFAST_INLINE void pull(const Unit& u, int64_t i, int64_t from, int64_t to) {
  for (int64_t d = 0; d < u.kd; ++d) {
    float* partial = u.partial + d * ROWS * LANES;
    const float *x = u.x + d * u.RP + i, *y = u.y + d * u.BP;
    float* dy = u.dy + d * u.BP;
    vfloat row[ROWS];
    for (int r = 0; r < ROWS; ++r) row[r] = load(partial + r * LANES);
    for (int64_t j = from; j < to; j += LANES) {
      const vfloat yj = load(y + j);
      vfloat total = {};
      for (int r = 0; r < ROWS; ++r) {
        const vfloat v = with_sign(load(u.weights + r * CHUNK + (j - from)), x[r] - yj);
        row[r] += v;
        total += v;
      }
      store(dy + j, load(dy + j) + total);
    }
    for (int r = 0; r < ROWS; ++r) store(partial + r * LANES, row[r]);
  }
}

// Everything of one kernel. `sum`, `dx` and `dy` are zero before.
template <Mode MODE, bool SELF> GANFAST_INLINE void unit(const Unit& u) {
  for (int64_t i = 0; i < u.R; i += ROWS) {
    vfloat row_sum[ROWS] = {};
    if (MODE != FORWARD) std::memset(u.partial, 0, u.kd * ROWS * LANES * sizeof(float));
    const int64_t first = SELF ? i / LANES * LANES : 0;
    for (int64_t from = first; from < u.B; from += CHUNK) {
      const int64_t to = std::min(from + CHUNK, u.BP);
      for (int64_t j = from; j < to; j += LANES) {
        const bool edge = (SELF && j == first) || j + LANES > u.B || i + ROWS > u.R;
        if (edge) meet<MODE, SELF, true>(u, i, j, u.weights + (j - from), row_sum);
        else meet<MODE, SELF, false>(u, i, j, u.weights + (j - from), row_sum);
      }
      if (MODE != FORWARD) pull(u, i, from, to);
    }
    for (int r = 0; r < ROWS; ++r) {
      if (MODE != BACKWARD) u.sum[i + r] += fold(row_sum[r]);
      if (MODE != FORWARD)
        for (int64_t d = 0; d < u.kd; ++d) u.dx[d * u.RP + i + r] -= fold(load(u.partial + (d * ROWS + r) * LANES));
    }
  }
}

// Kernel b of m [n, nk, kd] as [kd][np] floats, zeros after n; and back.
template <class T> GANFAST_INLINE void gather_of(const void* pointer, int64_t n, int64_t nk, int64_t kd, int64_t b, float* out, int64_t np) {
  const T* m = static_cast<const T*>(pointer) + b * kd;
  for (int64_t j = 0; j < np; j += LANES) {
    const int64_t count = std::min<int64_t>(LANES, n - j);
    for (int64_t d = 0; d < kd; ++d) {
      T buffer[LANES] = {};
      for (int64_t l = 0; l < count; ++l) buffer[l] = m[(j + l) * nk * kd + d];
      store(out + d * np + j, load(buffer));
    }
  }
}
template <class T> GANFAST_INLINE void scatter_of(void* pointer, int64_t n, int64_t nk, int64_t kd, int64_t b, const float* in, int64_t np) {
  T* m = static_cast<T*>(pointer) + b * kd;
  for (int64_t j = 0; j < np; j += LANES) {
    const int64_t count = std::min<int64_t>(LANES, n - j);
    for (int64_t d = 0; d < kd; ++d) {
      T buffer[LANES];
      store(buffer, load(in + d * np + j));
      for (int64_t l = 0; l < count; ++l) m[(j + l) * nk * kd + d] = buffer[l];
    }
  }
}

GANFAST_CLONES void gather(const void* m, int64_t n, int64_t nk, int64_t kd, int64_t b, float* out, int64_t np, int dtype) {
  if (dtype == F16) return gather_of<half_t>(m, n, nk, kd, b, out, np);
  if (dtype == BF16) return gather_of<bfloat_t>(m, n, nk, kd, b, out, np);
  return gather_of<float>(m, n, nk, kd, b, out, np);
}
GANFAST_CLONES void scatter(void* m, int64_t n, int64_t nk, int64_t kd, int64_t b, const float* in, int64_t np, int dtype) {
  if (dtype == F16) return scatter_of<half_t>(m, n, nk, kd, b, in, np);
  if (dtype == BF16) return scatter_of<bfloat_t>(m, n, nk, kd, b, in, np);
  return scatter_of<float>(m, n, nk, kd, b, in, np);
}
GANFAST_CLONES void forward_unit(const Unit& u, bool self) { self ? unit<FORWARD, true>(u) : unit<FORWARD, false>(u); }
GANFAST_CLONES void backward_unit(const Unit& u, bool self) { self ? unit<BACKWARD, true>(u) : unit<BACKWARD, false>(u); }
GANFAST_CLONES void double_unit(const Unit& u, bool self) { self ? unit<DOUBLE, true>(u) : unit<DOUBLE, false>(u); }

struct Arguments { const void *crows, *cothers, *g; void *sum, *drows, *dothers; };  // nullptr: not of this mode

int64_t whole(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// Floats of scratch for one unit, and the unit laid out in them.
int64_t scratch(const Pairs& p, Mode mode, bool self, Unit* u = nullptr, float* base = nullptr) {
  const int64_t RP = whole(p.rows), BP = self ? RP : whole(p.others), kd = p.kd;
  int64_t used = 0;
  auto take = [&](int64_t floats) { float* at = base ? base + used : nullptr; used += floats; return at; };
  Unit t{p.rows, self ? p.rows : p.others, RP, BP, kd, nullptr, nullptr, nullptr, nullptr, nullptr,
         nullptr, nullptr, nullptr, nullptr, nullptr};
  t.x = take(kd * RP), t.y = self ? t.x : take(kd * BP), t.sum = take(RP);
  if (mode != FORWARD) {
    t.g = take(RP), t.weights = take(ROWS * CHUNK), t.partial = take(kd * ROWS * LANES);
    t.dx = take(kd * RP), t.dy = self ? t.dx : take(kd * BP);
  }
  if (mode == DOUBLE) t.cx = take(kd * RP), t.cy = self ? t.cx : take(kd * BP);
  if (u) *u = t;
  return used;
}

void one(const Pairs& p, Mode mode, const Arguments& a, int64_t b, const Unit& u) {
  const bool self = p.others < 0;
  auto in = [&](const void* m, bool of_others, int64_t kd, float* to) {
    gather(m, of_others ? u.B : u.R, p.nk, kd, b, to, of_others ? u.BP : u.RP, p.dtype);
  };
  auto out = [&](void* m, bool of_others, int64_t kd, const float* from) {
    scatter(m, of_others ? u.B : u.R, p.nk, kd, b, from, of_others ? u.BP : u.RP, p.dtype);
  };
  in(p.x, false, p.kd, u.x);
  if (!self) in(p.y, true, p.kd, u.y);
  std::fill_n(u.sum, u.RP, 0.f);
  if (mode != FORWARD) {
    in(a.g, false, 1, u.g);
    std::fill_n(u.dx, p.kd * u.RP, 0.f);
    if (!self) std::fill_n(u.dy, p.kd * u.BP, 0.f);
  }
  if (mode == DOUBLE) {
    in(a.crows, false, p.kd, u.cx);
    if (!self) in(a.cothers, true, p.kd, u.cy);
  }
  mode == FORWARD ? forward_unit(u, self) : mode == BACKWARD ? backward_unit(u, self) : double_unit(u, self);
  if (mode != BACKWARD) out(a.sum, false, 1, u.sum);
  if (mode != FORWARD) {
    out(a.drows, false, p.kd, u.dx);
    if (!self) out(a.dothers, true, p.kd, u.dy);
  }
}

void every(const Pairs& p, Mode mode, const Arguments& a, int threads) {
  const bool self = p.others < 0;
  const double work = (double)p.rows * (double)(self ? p.rows : p.others) * (double)p.nk * (double)(p.kd + 1);
  const int64_t workers = work <= SERIAL ? 1 : std::max<int64_t>(1, std::min<int64_t>(threads, p.nk));
  const int64_t floats = scratch(p, mode, self);
  std::vector<float> memory(workers * floats + LANES);
  float* base = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) / sizeof(float);  // cache lines
#pragma omp parallel for schedule(static) num_threads((int)workers) if (workers > 1)
  for (int64_t worker = 0; worker < workers; ++worker) {  // neighbouring kernels to one thread: they share cache lines
    Unit u;
    scratch(p, mode, self, &u, base + worker * floats);
    for (int64_t b = p.nk * worker / workers; b < p.nk * (worker + 1) / workers; ++b) one(p, mode, a, b, u);
  }
}

}  // namespace

void pairwise_l1(Pairs pairs, void* o, int threads) {
  every(pairs, FORWARD, {nullptr, nullptr, nullptr, o, nullptr, nullptr}, threads);
}

void pairwise_l1_backward(const void* g, Pairs pairs, void* drows, void* dothers, int threads) {
  every(pairs, BACKWARD, {nullptr, nullptr, g, nullptr, drows, dothers}, threads);
}

void pairwise_l1_double_backward(const void* crows, const void* cothers, const void* g, Pairs pairs, void* dg, void* drows,
                                 void* dothers, int threads) {
  every(pairs, DOUBLE, {crows, cothers, g, dg, drows, dothers}, threads);
}

}  // namespace ganfast::cpu
