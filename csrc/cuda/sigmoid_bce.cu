// sigmoid_bce on CUDA. Both sides in one launch. Sums: every thread strides over its elements in a fixed order, the
// block adds its threads in a fixed order, and a second launch (only where one block was not enough) adds the blocks.
// The number of blocks depends on the number of logits alone: the same bits on every run and every chip. No atomics.
#include "common.cuh"

namespace ganfast::cuda {
namespace {

constexpr int THREADS = 256;
constexpr int64_t PER_BLOCK = THREADS * 16;  // elements that one block takes before there are more blocks
constexpr int64_t MAX_BLOCKS = 1024;

int64_t blocks_of(int64_t total) {
  const int64_t blocks = (total + PER_BLOCK - 1) / PER_BLOCK;
  return blocks < 1 ? 1 : blocks > MAX_BLOCKS ? MAX_BLOCKS : blocks;
}
int64_t count(const Side& side) { return side.n > 0 ? side.n : 0; }

// With e = exp(−|x|): softplus(x) − t·x = x·([x > 0] − t) + log1p(e); σ(x) = (x > 0 ? 1 : e)/(1 + e).
__device__ __forceinline__ float loss_of(float x, float t) {
  return x * ((x > 0.f ? 1.f : 0.f) - t) + log1pf(expf(-fabsf(x)));
}
struct Slopes { float residual, curvature; };  // σ(x) − t and σ'(x)
__device__ __forceinline__ Slopes slopes_of(float x, float t) {
  const float e = expf(-fabsf(x)), inverse = 1.f / (1.f + e), tail = e * inverse;
  return {x > 0.f ? (1.f - t) - tail : tail - t, tail * inverse};
}

// Calls f(offset, pack size) over n elements: packs of 16 bytes where everything is aligned, then single ones.
template <class T, class Packs, class One> __device__ __forceinline__ void stride(int64_t n, bool vector, Packs packs, One one) {
  const int64_t thread = blockIdx.x * (int64_t)THREADS + threadIdx.x, threads = gridDim.x * (int64_t)THREADS;
  const int64_t whole = vector ? n / Pack<T>::N : 0;
  for (int64_t i = thread; i < whole; i += threads) packs(i);
  for (int64_t i = whole * Pack<T>::N + thread; i < n; i += threads) one(i);
}

template <class T> __device__ float loss_sum(const Side& side) {
  const T* x = static_cast<const T*>(side.x);
  float total = 0.f;
  stride<T>(side.n, aligned16(x),
      [&](int64_t i) {
        const Pack<T> pack = reinterpret_cast<const Pack<T>*>(x)[i];
#pragma unroll
        for (int k = 0; k < Pack<T>::N; ++k) total += loss_of(to_float(pack.v[k]), side.target);
      },
      [&](int64_t i) { total += loss_of(to_float(x[i]), side.target); });
  return total;
}

template <class T> __device__ void backward_side(float g, const Side& side, void* result) {
  const T* x = static_cast<const T*>(side.x);
  T* dx = static_cast<T*>(result);
  const float scale = g / (float)side.n;
  stride<T>(side.n, aligned16(x, dx),
      [&](int64_t i) {
        const Pack<T> in = reinterpret_cast<const Pack<T>*>(x)[i];
        Pack<T> out;
#pragma unroll
        for (int k = 0; k < Pack<T>::N; ++k) out.v[k] = from_float<T>(slopes_of(to_float(in.v[k]), side.target).residual * scale);
        out.to(dx + i * Pack<T>::N);
      },
      [&](int64_t i) { dx[i] = from_float<T>(slopes_of(to_float(x[i]), side.target).residual * scale); });
}

template <class T> __device__ float double_side(float g, const void* cotangent, const Side& side, void* result) {
  const T* c = static_cast<const T*>(cotangent);
  const T* x = static_cast<const T*>(side.x);
  T* dx = static_cast<T*>(result);
  const float scale = g / (float)side.n;
  float total = 0.f;
  auto element = [&](T ci, T xi) {
    const Slopes s = slopes_of(to_float(xi), side.target);
    total += to_float(ci) * s.residual;
    return from_float<T>(to_float(ci) * s.curvature * scale);
  };
  stride<T>(side.n, aligned16(c, x, dx),
      [&](int64_t i) {
        const Pack<T> pc = reinterpret_cast<const Pack<T>*>(c)[i], px = reinterpret_cast<const Pack<T>*>(x)[i];
        Pack<T> out;
#pragma unroll
        for (int k = 0; k < Pack<T>::N; ++k) out.v[k] = element(pc.v[k], px.v[k]);
        out.to(dx + i * Pack<T>::N);
      },
      [&](int64_t i) { dx[i] = element(c[i], x[i]); });
  return total;
}

// An absent side (n < 0) adds nothing; an empty one 0/0: nan, as torch's mean.
__device__ __forceinline__ float mean(float sum, int64_t n) { return n < 0 ? 0.f : sum / (float)n; }

// Block sums of both sides: the result itself from a single block, else partial[block] and partial[gridDim + block].
__device__ __forceinline__ void emit(float real, float fake, const Side& r, const Side& f, float* partial, float* result) {
  real = block_sum<THREADS>(real);
  fake = block_sum<THREADS>(fake);
  if (threadIdx.x) return;
  if (gridDim.x == 1) *result = mean(real, r.n) + mean(fake, f.n);
  else partial[blockIdx.x] = real, partial[gridDim.x + blockIdx.x] = fake;
}

template <class T> __global__ void __launch_bounds__(THREADS) loss_kernel(Side real, Side fake, float* partial, float* loss) {
  emit(loss_sum<T>(real), loss_sum<T>(fake), real, fake, partial, loss);
}
template <class T> __global__ void __launch_bounds__(THREADS)
    backward_kernel(const float* g, Side real, Side fake, void* dreal, void* dfake) {
  backward_side<T>(*g, real, dreal);
  backward_side<T>(*g, fake, dfake);
}
template <class T> __global__ void __launch_bounds__(THREADS)
    double_kernel(const void* creal, const void* cfake, const float* g, Side real, Side fake, float* partial, float* dg,
                  void* dreal, void* dfake) {
  const float sum_real = double_side<T>(*g, creal, real, dreal), sum_fake = double_side<T>(*g, cfake, fake, dfake);
  emit(sum_real, sum_fake, real, fake, partial, dg);
}
__global__ void __launch_bounds__(THREADS)
    finish_kernel(const float* partial, int blocks, int64_t n_real, int64_t n_fake, float* result) {
  float real = 0.f, fake = 0.f;
  for (int i = threadIdx.x; i < blocks; i += THREADS) real += partial[i], fake += partial[blocks + i];
  real = block_sum<THREADS>(real);
  fake = block_sum<THREADS>(fake);
  if (threadIdx.x == 0) *result = mean(real, n_real) + mean(fake, n_fake);
}

void finish(int blocks, const Side& real, const Side& fake, const float* partial, float* result, cudaStream_t stream) {
  if (blocks > 1) finish_kernel<<<1, THREADS, 0, stream>>>(partial, blocks, real.n, fake.n, result);
}

}  // namespace

int64_t sigmoid_bce_workspace(int64_t total) {
  const int64_t blocks = blocks_of(total);
  return blocks > 1 ? 2 * blocks : 0;
}

void sigmoid_bce(Side real, Side fake, int dtype, float* workspace, float* loss, void* stream) {
  const int blocks = (int)blocks_of(count(real) + count(fake));
  auto s = static_cast<cudaStream_t>(stream);
  with_dtype(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    loss_kernel<T><<<blocks, THREADS, 0, s>>>(real, fake, workspace, loss);
  });
  finish(blocks, real, fake, workspace, loss, s);
  check_launch("sigmoid_bce");
}

void sigmoid_bce_backward(const float* g, Side real, Side fake, int dtype, void* dreal, void* dfake, void* stream) {
  const int blocks = (int)blocks_of(count(real) + count(fake));
  with_dtype(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    backward_kernel<T><<<blocks, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(g, real, fake, dreal, dfake);
  });
  check_launch("sigmoid_bce_backward");
}

void sigmoid_bce_double_backward(const void* creal, const void* cfake, const float* g, Side real, Side fake, int dtype,
                                 float* workspace, float* dg, void* dreal, void* dfake, void* stream) {
  real.n = some(real.n), fake.n = some(fake.n);
  const int blocks = (int)blocks_of(count(real) + count(fake));
  auto s = static_cast<cudaStream_t>(stream);
  with_dtype(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    double_kernel<T><<<blocks, THREADS, 0, s>>>(creal, cfake, g, real, fake, workspace, dg, dreal, dfake);
  });
  finish(blocks, real, fake, workspace, dg, s);
  check_launch("sigmoid_bce_double_backward");
}

}  // namespace ganfast::cuda
