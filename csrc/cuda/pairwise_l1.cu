// pairwise_l1 on CUDA. One kernel does all: rows x meet all others y, each row's sums are the results,
//   FORWARD   sum_i = Σ_j e_ij
//   BACKWARD  out_id = −Σ_j (a_i + b_j) e_ij s_ijd
//   DOUBLE    the same with e·t for e, and sum_i = Σ_j e_ij t_ij,   t_ij = Σ_d s_ijd (cy_jd − cx_id)
// and the gradient of the others is the same sum with both exchanged. A thread holds one row of one kernel in registers;
// a block takes 32 rows of NB neighbouring kernels, and its warps take every S-th of the others, which pass through
// shared memory as fp32. The S partial sums are added in a fixed order: the same bits on every run. No atomics.
#include "common.cuh"

namespace ganfast::cuda {
namespace {

constexpr int THREADS = 256;
constexpr int ROWS = 32;                           // a warp
constexpr int NB = 2;                              // kernels of a block: neighbours in memory
constexpr int S = THREADS / ROWS / NB;             // parts into which the others are cut
constexpr int TILE = 64;                           // others in shared memory at a time
enum Mode { FORWARD, BACKWARD, DOUBLE };

struct Pull {
  const void *x, *y, *a, *b, *cx, *cy;  // [rows, nk, kd], [others, nk, kd], [rows, nk], [others, nk] or nullptr, as x, as y
  void *sum, *out;                      // [rows, nk] or nullptr, [rows, nk, kd]
  int64_t rows, others, nk;
  int kd, dtype;
};

__device__ __forceinline__ float read(const void* p, int64_t i, int dtype) {
  if (dtype == F16) return to_float(static_cast<const __half*>(p)[i]);
  if (dtype == BF16) return to_float(static_cast<const __nv_bfloat16*>(p)[i]);
  return static_cast<const float*>(p)[i];
}
__device__ __forceinline__ void write(void* p, int64_t i, float v, int dtype) {
  if (dtype == F16) static_cast<__half*>(p)[i] = from_float<__half>(v);
  else if (dtype == BF16) static_cast<__nv_bfloat16*>(p)[i] = from_float<__nv_bfloat16>(v);
  else static_cast<float*>(p)[i] = v;
}

// v with the sign of `difference`, 0 where that is 0; nan stays nan.
__device__ __forceinline__ float with_sign(float v, float difference) {
  const float s = __int_as_float(__float_as_int(v) ^ (__float_as_int(difference) & 0x80000000));
  return difference != 0.f ? s : 0.f;
}

// Others j0..j0+TILE of kernels b0..b0+NB as tile[TILE][NB][KDP], zeros where there are none.
template <int KDP, class T>
__device__ __forceinline__ void fill_of(float* tile, const void* pointer, const Pull& p, int64_t j0, int64_t b0) {
  const T* m = static_cast<const T*>(pointer);
#pragma unroll 4
  for (int e = threadIdx.x; e < TILE * NB * KDP; e += THREADS) {
    const int64_t j = j0 + e / (NB * KDP), b = b0 + e / KDP % NB;
    const int d = e % KDP;
    tile[e] = j < p.others && b < p.nk && d < p.kd ? to_float(m[(j * p.nk + b) * p.kd + d]) : 0.f;
  }
}
template <int KDP> __device__ __forceinline__ void fill(float* tile, const void* m, const Pull& p, int64_t j0, int64_t b0) {
  if (p.dtype == F16) fill_of<KDP, __half>(tile, m, p, j0, b0);
  else if (p.dtype == BF16) fill_of<KDP, __nv_bfloat16>(tile, m, p, j0, b0);
  else fill_of<KDP, float>(tile, m, p, j0, b0);
}

// KD numbers from shared memory, 16 bytes at a time.
template <int KD> __device__ __forceinline__ void take(float (&v)[KD], const float* p) {
#pragma unroll
  for (int d = 0; d + 4 <= KD; d += 4) {
    const float4 four = *reinterpret_cast<const float4*>(p + d);
    v[d] = four.x, v[d + 1] = four.y, v[d + 2] = four.z, v[d + 3] = four.w;
  }
#pragma unroll
  for (int d = KD / 4 * 4; d < KD; ++d) v[d] = p[d];
}

// The part of a row that one thread holds.
template <int KD, Mode MODE> struct Row {
  float x[KD], cx[MODE == DOUBLE ? KD : 1], gradient[MODE == FORWARD ? 1 : KD];
  float a, sum;

  __device__ __forceinline__ void meet(const float* y, const float* cy, float b) {
    float difference[KD];
    take(difference, y);
    float distance = 0.f;
#pragma unroll
    for (int d = 0; d < KD; ++d) difference[d] = x[d] - difference[d], distance += fabsf(difference[d]);
    float e = __expf(-distance);  // within 2 ulp and the rounding of the argument, as the distance has it anyway
    if constexpr (MODE == DOUBLE) {
      float c[KD], t = 0.f;
      take(c, cy);
#pragma unroll
      for (int d = 0; d < KD; ++d) t += with_sign(c[d] - cx[d], difference[d]);
      e *= t;
    }
    if constexpr (MODE != BACKWARD) sum += e;
    if constexpr (MODE != FORWARD) {
      const float w = (a + b) * e;
#pragma unroll
      for (int d = 0; d < KD; ++d) gradient[d] -= with_sign(w, difference[d]);
    }
  }
};

template <int KD, Mode MODE> __global__ void __launch_bounds__(THREADS) pull_kernel(const Pull p) {
  constexpr int KDP = (KD + 3) / 4 * 4, PITCH = NB * KDP + 1;  // PITCH: rows of results in different banks
  alignas(16) __shared__ float ys[TILE * NB * KDP], cys[MODE == DOUBLE ? TILE * NB * KDP : 4];
  __shared__ float bs[TILE * NB], sums[ROWS * NB];
  static_assert(ROWS * PITCH <= TILE * NB * KDP, "the results take the place of the others");

  const int lane = threadIdx.x % 32, nb = threadIdx.x / 32 % NB, slice = threadIdx.x / (32 * NB);
  const int64_t groups = (p.nk + NB - 1) / NB;
  const int64_t b0 = blockIdx.x % groups * NB, i0 = blockIdx.x / groups * ROWS;  // neighbouring blocks share sectors
  const int64_t i = i0 + lane, b = b0 + nb;
  const bool real = i < p.rows && b < p.nk;

  Row<KD, MODE> row = {};
#pragma unroll
  for (int d = 0; d < KD; ++d)
    if (real && d < p.kd) {
      row.x[d] = read(p.x, (i * p.nk + b) * p.kd + d, p.dtype);
      if constexpr (MODE == DOUBLE) row.cx[d] = read(p.cx, (i * p.nk + b) * p.kd + d, p.dtype);
    }
  if (MODE != FORWARD && p.a && real) row.a = read(p.a, i * p.nk + b, p.dtype);

  for (int64_t j0 = 0; j0 < p.others; j0 += TILE) {
    __syncthreads();  // the last tile's readers are done
    fill<KDP>(ys, p.y, p, j0, b0);
    if constexpr (MODE == DOUBLE) fill<KDP>(cys, p.cy, p, j0, b0);
    if (MODE != FORWARD && threadIdx.x < TILE * NB) {
      const int64_t j = j0 + threadIdx.x / NB, bj = b0 + threadIdx.x % NB;
      bs[threadIdx.x] = p.b && j < p.others && bj < p.nk ? read(p.b, j * p.nk + bj, p.dtype) : 0.f;
    }
    __syncthreads();
    const int count = p.others - j0 < TILE ? (int)(p.others - j0) : TILE;
#pragma unroll(KD <= 5 ? 2 : 1)
    for (int j = slice; j < count; j += S) {
      const int at = j * NB + nb;
      row.meet(ys + at * KDP, cys + (MODE == DOUBLE ? at * KDP : 0), MODE == FORWARD ? 0.f : bs[at]);
    }
  }

  for (int turn = 0; turn < S; ++turn) {  // the parts, one after the other
    __syncthreads();
    if (slice != turn) continue;
    float* result = ys + lane * PITCH + nb * KDP;
    if constexpr (MODE != FORWARD)
#pragma unroll
      for (int d = 0; d < KD; ++d) result[d] = (turn ? result[d] : 0.f) + row.gradient[d];
    if constexpr (MODE != BACKWARD) sums[lane * NB + nb] = (turn ? sums[lane * NB + nb] : 0.f) + row.sum;
  }
  __syncthreads();
  if constexpr (MODE != FORWARD)
    for (int e = threadIdx.x; e < ROWS * NB * KDP; e += THREADS) {
      const int64_t row_e = i0 + e / (NB * KDP), b_e = b0 + e / KDP % NB;
      const int d = e % KDP;
      if (row_e < p.rows && b_e < p.nk && d < p.kd)
        write(p.out, (row_e * p.nk + b_e) * p.kd + d, ys[e / (NB * KDP) * PITCH + e % (NB * KDP)], p.dtype);
    }
  if (MODE != BACKWARD && p.sum && threadIdx.x < ROWS * NB) {
    const int64_t row_e = i0 + threadIdx.x / NB, b_e = b0 + threadIdx.x % NB;
    if (row_e < p.rows && b_e < p.nk) write(p.sum, row_e * p.nk + b_e, sums[threadIdx.x], p.dtype);
  }
}

template <Mode MODE> void pull(const Pull& p, void* stream) {
  const int64_t blocks = (p.rows + ROWS - 1) / ROWS * ((p.nk + NB - 1) / NB);
  if (blocks == 0) return;
  if (blocks > INT32_MAX) throw std::runtime_error("ganfast::pairwise_l1: more rows times kernels than a grid has blocks");
  const dim3 grid((unsigned)blocks);
  auto s = static_cast<cudaStream_t>(stream);
  if (p.kd <= 2) pull_kernel<2, MODE><<<grid, THREADS, 0, s>>>(p);
  else if (p.kd <= 4) pull_kernel<4, MODE><<<grid, THREADS, 0, s>>>(p);
  else if (p.kd <= 5) pull_kernel<5, MODE><<<grid, THREADS, 0, s>>>(p);
  else if (p.kd <= 8) pull_kernel<8, MODE><<<grid, THREADS, 0, s>>>(p);
  else if (p.kd <= 16) pull_kernel<16, MODE><<<grid, THREADS, 0, s>>>(p);
  else if (p.kd <= 32) pull_kernel<32, MODE><<<grid, THREADS, 0, s>>>(p);
  else throw std::runtime_error("ganfast::pairwise_l1: more than 32 kernel dimensions");  // Python has seen to it
  check_launch("pairwise_l1");
}

Pull from_rows(const Pairs& p) {
  Pull pull = {};
  pull.x = p.x, pull.y = p.y, pull.rows = p.rows, pull.others = p.others;
  if (p.others < 0) pull.y = p.x, pull.others = p.rows;
  pull.nk = p.nk, pull.kd = (int)p.kd, pull.dtype = p.dtype;
  return pull;
}
Pull from_others(const Pairs& p) {
  Pull pull = from_rows(p);
  pull.x = p.y, pull.y = p.x, pull.rows = p.others, pull.others = p.rows;
  return pull;
}

}  // namespace

void pairwise_l1(Pairs pairs, void* o, void* stream) {
  Pull p = from_rows(pairs);
  p.sum = o;
  pull<FORWARD>(p, stream);
}

void pairwise_l1_backward(const void* g, Pairs pairs, void* drows, void* dothers, void* stream) {
  Pull p = from_rows(pairs);
  p.a = g, p.b = pairs.others < 0 ? g : nullptr, p.out = drows;
  pull<BACKWARD>(p, stream);
  if (pairs.others < 0) return;
  p = from_others(pairs);
  p.b = g, p.out = dothers;
  pull<BACKWARD>(p, stream);
}

void pairwise_l1_double_backward(const void* crows, const void* cothers, const void* g, Pairs pairs, void* dg, void* drows,
                                 void* dothers, void* stream) {
  Pull p = from_rows(pairs);
  p.a = g, p.b = pairs.others < 0 ? g : nullptr, p.cx = crows, p.cy = pairs.others < 0 ? crows : cothers, p.sum = dg, p.out = drows;
  pull<DOUBLE>(p, stream);
  if (pairs.others < 0) return;
  p = from_others(pairs);
  p.b = g, p.cx = cothers, p.cy = crows, p.out = dothers;
  pull<DOUBLE>(p, stream);
}

}  // namespace ganfast::cuda
