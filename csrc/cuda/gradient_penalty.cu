// gradient_penalty on CUDA. A sample of at most 16384 elements is one block's: read once, summed, scaled from registers. A larger
// one is cut into blocks that leave their sums in a workspace, and a second launch scales. Either way a last launch of
// one block adds the batch. Sums of squares are in fp32, between blocks in double; fixed order, no atomics.
#include "../phi.h"
#include "samples.cuh"

namespace ganfast::cuda {
namespace {

// A tile's sum of squares outside of these has overflowed in fp32, or may have lost what underflowed.
constexpr float SMALLEST = 1e-25f, LARGEST = 1e37f;

template <class Tile> __device__ __forceinline__ double squares(const Tile& tile) {
  float total = 0.f;
  tile.each([&](float v, int, int) { total += v * v; });
  total = sum_everywhere(total);
  if (total >= SMALLEST && total <= LARGEST) return total;
  double exact = 0;
  tile.each([&](float v, int, int) { exact += (double)v * v; });
  return sum_everywhere(exact);
}

__device__ __forceinline__ float at(const float* v, int64_t i) { return v ? v[i] : 0.f; }

// The sum of this block's sample over its chunks; every thread of the block calls it.
__device__ __forceinline__ double sample_sum(const double* partial, int64_t sample, int chunks) {
  return sum_everywhere((int)threadIdx.x < chunks ? partial[sample * chunks + threadIdx.x] : 0.0);
}

template <class T, bool VECTOR> __device__ __forceinline__ void write_scaled(const Tile<T, VECTOR>& tile, T* z, int64_t n,
                                                                            Mix<float> mix) {
  tile.write(z, n, [&](float v, int, int) { return v * mix.inverse * mix.along; });
}
template <class T, bool VECTOR> __device__ __forceinline__ void write_mixed(const Tile<T, VECTOR>& tile,
                                                                           const Tile<T, VECTOR>& other, T* z, int64_t n,
                                                                           Mix<float> mix) {
  tile.write(z, n, [&](float v, int k, int j) {
    return v * mix.inverse * mix.along + to_float(other.packs[k].v[j]) * mix.across;
  });
}

// One block a sample: its norm and its seed (nullptr: not wanted).
template <class T, bool VECTOR> __global__ void __launch_bounds__(TILE_THREADS, VECTOR ? 2 : 1)
    whole_kernel(const T* g, int64_t size, Phi phi, float* norms, T* seed) {
  const int64_t sample = blockIdx.x, offset = sample * size;
  Tile<T, VECTOR> tile;
  tile.load(g + offset, size);
  const float n = (float)sqrt(squares(tile));
  if (threadIdx.x == 0) norms[sample] = n;
  if (seed) write_scaled(tile, seed + offset, size, first_mix(curve_of(phi, n), 1.f, 0.f));
}

// partial[block] = the sum of squares of the block's part.
template <class T, bool VECTOR> __global__ void __launch_bounds__(TILE_THREADS)
    squares_kernel(const T* g, int64_t size, Cut cut, double* partial) {
  const Place at = place_of<Tile<T, VECTOR>>(cut);
  double total = 0;
  for (int step = 0; step < cut.steps; ++step) {
    const int64_t first = at.first + step * Tile<T, VECTOR>::SIZE;
    Tile<T, VECTOR> tile;
    tile.load(g + at.sample * size + first, size - first);
    total += squares(tile);
  }
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// out = (c_penalty·φ'/B + c_norms)·g/n. With `partial` the norms are made of it and written, and out is the seed.
template <class T, bool VECTOR> __global__ void __launch_bounds__(TILE_THREADS)
    scale_kernel(const float* c_penalty, const float* c_norms, const T* g, int64_t size, Cut cut, Phi phi,
                 const double* partial, float* norms, T* out) {
  const Place at = place_of<Tile<T, VECTOR>>(cut);
  float n;
  if (partial) {
    n = (float)sqrt(sample_sum(partial, at.sample, cut.chunks));
    if (at.chunk == 0 && threadIdx.x == 0) norms[at.sample] = n;
    if (!out) return;
  } else {
    n = norms[at.sample];
  }
  const float p = partial ? 1.f : cuda::at(c_penalty, 0), q = partial ? 0.f : cuda::at(c_norms, at.sample);
  const Mix<float> mix = first_mix(curve_of(phi, n), p, q);
  for (int step = 0; step < cut.steps; ++step) {
    const int64_t first = at.first + step * Tile<T, VECTOR>::SIZE, rest = size - first;
    Tile<T, VECTOR> tile;
    tile.load(g + at.sample * size + first, rest);
    write_scaled(tile, out + at.sample * size + first, rest, mix);
  }
}

template <class Tile> __device__ __forceinline__ float products(const Tile& g, const Tile& c, float inverse) {
  float total = 0.f;
  g.each([&](float v, int k, int j) { total += v * inverse * to_float(c.packs[k].v[j]); });
  return sum_everywhere(total);
}

// The second derivative. Launched once where a block holds a sample (partial: nullptr), else twice: the first launch
// (partial, and no out) leaves each block's Σ g·c/n in partial, the second takes them from there. A sample without elements
// has no out either, and no partial.
template <class T, bool VECTOR> __global__ void __launch_bounds__(TILE_THREADS)
    double_kernel(const T* c, const float* c_penalty, const float* c_norms, const T* g, const float* norms, int64_t size,
                  Cut cut, Phi phi, double* partial, float* dc_norms, T* out) {
  const Place at = place_of<Tile<T, VECTOR>>(cut);
  const int64_t offset = at.sample * size + at.first, rest = size - at.first;
  const Curve<float> curve = curve_of(phi, norms[at.sample]);
  Tile<T, VECTOR> a, b;
  float s = 0.f;
  if (partial && !out) {
    double total = 0;
    for (int step = 0; step < cut.steps; ++step) {
      const int64_t first = step * Tile<T, VECTOR>::SIZE;
      a.load(g + offset + first, rest - first);
      b.load(c + offset + first, rest - first);
      total += products(a, b, curve.inverse);
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
    return;
  }
  if (partial) {
    s = (float)sample_sum(partial, at.sample, cut.chunks);
  } else {
    a.load(g + offset, rest);
    b.load(c + offset, rest);
    s = products(a, b, curve.inverse);
  }
  if (at.chunk == 0 && threadIdx.x == 0) dc_norms[at.sample] = s;
  const Mix<float> mix = second_mix(curve, cuda::at(c_penalty, 0), cuda::at(c_norms, at.sample), s);
  for (int step = 0; step < cut.steps; ++step) {
    const int64_t first = step * Tile<T, VECTOR>::SIZE;
    if (partial) {
      a.load(g + offset + first, rest - first);
      b.load(c + offset + first, rest - first);
    }
    write_mixed(a, b, out + offset + first, rest - first, mix);
  }
}

// One block: Σ φ(n_i)/B, or with s Σ s_i·φ'(n_i)/B. An empty batch: the mean is nan, as torch's; the sum 0.
__global__ void __launch_bounds__(TILE_THREADS)
    finish_kernel(const float* norms, const float* s, int64_t batch, Phi phi, bool derivative, float* result) {
  float total = batch == 0 && !derivative ? (float)phi.scale : 0.f;
  for (int64_t i = threadIdx.x; i < batch; i += TILE_THREADS)
    total += derivative ? s[i] * curve_of(phi, norms[i]).slope : term_of(phi, norms[i]);
  total = sum_everywhere(total);
  if (threadIdx.x == 0) *result = total;
}

}  // namespace

int64_t gradient_penalty_workspace(Samples s) {
  const Cut cut = cut_of(s, HELD);
  return cut.chunks > 1 ? s.batch * cut.chunks : 0;
}

void gradient_penalty(const void* g, Samples s, Phi phi, double* workspace, float* penalty, float* norms, void* seed,
                      void* stream) {
  const Cut cut = cut_of(s, HELD);
  const unsigned blocks = blocks_of(s, cut);
  auto on = static_cast<cudaStream_t>(stream);
  if (blocks)
    with_dtype(s.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const bool vector = packs_fit<T>(s, g, seed);
      auto x = static_cast<const T*>(g);
      auto z = static_cast<T*>(seed);
      if (cut.chunks == 1) {
        auto whole = vector ? whole_kernel<T, true> : whole_kernel<T, false>;
        whole<<<blocks, TILE_THREADS, 0, on>>>(x, s.size, phi, norms, z);
        return;
      }
      auto squares = vector ? squares_kernel<T, true> : squares_kernel<T, false>;
      auto scale = vector ? scale_kernel<T, true> : scale_kernel<T, false>;
      squares<<<blocks, TILE_THREADS, 0, on>>>(x, s.size, cut, workspace);
      scale<<<blocks, TILE_THREADS, 0, on>>>(nullptr, nullptr, x, s.size, cut, phi, workspace, norms, z);
    });
  finish_kernel<<<1, TILE_THREADS, 0, on>>>(norms, nullptr, s.batch, phi, false, penalty);
  check_launch("gradient_penalty");
}

void gradient_penalty_backward(const float* c_penalty, const float* c_norms, const void* g, const float* norms, Samples s,
                               Phi phi, void* dg, void* stream) {
  const Cut cut = cut_of(s, HELD);
  const unsigned blocks = blocks_of(s, cut);
  if (blocks == 0 || s.size == 0) return;
  with_dtype(s.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    auto scale = packs_fit<T>(s, g, dg) ? scale_kernel<T, true> : scale_kernel<T, false>;
    scale<<<blocks, TILE_THREADS, 0, static_cast<cudaStream_t>(stream)>>>(
        c_penalty, c_norms, static_cast<const T*>(g), s.size, cut, phi, nullptr, const_cast<float*>(norms),
        static_cast<T*>(dg));
  });
  check_launch("gradient_penalty_backward");
}

void gradient_penalty_double_backward(const void* c, const float* c_penalty, const float* c_norms, const void* g,
                                      const float* norms, Samples s, Phi phi, double* workspace, float* dc_penalty,
                                      float* dc_norms, void* dg, void* stream) {
  const Cut cut = cut_of(s, HELD);
  const unsigned blocks = blocks_of(s, cut);
  auto on = static_cast<cudaStream_t>(stream);
  if (blocks)
    with_dtype(s.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      auto kernel = packs_fit<T>(s, c, g, dg) ? double_kernel<T, true> : double_kernel<T, false>;
      auto launch = [&](double* partial, T* out) {
        kernel<<<blocks, TILE_THREADS, 0, on>>>(static_cast<const T*>(c), c_penalty, c_norms, static_cast<const T*>(g),
                                                norms, s.size, cut, phi, partial, dc_norms, out);
      };
      if (cut.chunks > 1) launch(workspace, nullptr);
      launch(cut.chunks > 1 ? workspace : nullptr, static_cast<T*>(dg));
    });
  finish_kernel<<<1, TILE_THREADS, 0, on>>>(norms, dc_norms, s.batch, phi, true, dc_penalty);
  check_launch("gradient_penalty_double_backward");
}

}  // namespace ganfast::cuda
