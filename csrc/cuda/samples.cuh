// A batch of samples on CUDA: one block a tile, held in registers between a sum and the write that needs it.
#pragma once
#include "common.cuh"

namespace ganfast::cuda {

constexpr int TILE_THREADS = 512;
constexpr int HELD = 32;  // elements that a thread holds
constexpr int64_t MAX_CHUNKS = 256;  // blocks a sample at most: a block adds their sums with one load a thread

// How a sample is cut into blocks; depends on its size alone, so the order of summation does too.
struct Cut {
  int chunks;  // blocks a sample
  int steps;   // tiles that each of them takes, one after another
};
inline Cut cut_of(Samples s, int held) {
  const int64_t tile = (int64_t)TILE_THREADS * held, tiles = s.size > tile ? (s.size + tile - 1) / tile : 1;
  const int64_t steps = (tiles + MAX_CHUNKS - 1) / MAX_CHUNKS;
  return {(int)((tiles + steps - 1) / steps), (int)steps};
}
inline unsigned blocks_of(Samples s, Cut cut) {
  const int64_t blocks = s.batch * cut.chunks;
  if (blocks > 0x7fffffff) throw std::runtime_error("ganfast: more than 2^31 blocks for one launch: split the batch");
  return (unsigned)blocks;
}

// A tile in registers. VECTOR: every sample starts on 16 bytes and ends with a whole pack.
template <class T, bool VECTOR, int EACH = HELD> struct Tile {
  static constexpr int64_t SIZE = (int64_t)TILE_THREADS * EACH;
  static constexpr int PACKS = EACH / Pack<T>::N;
  Pack<T> packs[PACKS];

  // The place of element j of pack k; a warp touches consecutive bytes either way.
  static __device__ __forceinline__ int64_t place(int k, int j) {
    return VECTOR ? ((int64_t)k * TILE_THREADS + threadIdx.x) * Pack<T>::N + j
                  : ((int64_t)k * Pack<T>::N + j) * TILE_THREADS + threadIdx.x;
  }
  // The first `n` elements at x, zeros after.
  __device__ __forceinline__ void load(const T* x, int64_t n) {
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      if (VECTOR) {
        if (place(k, 0) < n) packs[k] = *reinterpret_cast<const Pack<T>*>(x + place(k, 0));
        else
#pragma unroll
          for (int j = 0; j < Pack<T>::N; ++j) packs[k].v[j] = from_float<T>(0.f);
      } else {
#pragma unroll
        for (int j = 0; j < Pack<T>::N; ++j) packs[k].v[j] = place(k, j) < n ? x[place(k, j)] : from_float<T>(0.f);
      }
    }
  }
  // f(value as float, k, j) for every element.
  template <class F> __device__ __forceinline__ void each(F f) const {
#pragma unroll
    for (int k = 0; k < PACKS; ++k)
#pragma unroll
      for (int j = 0; j < Pack<T>::N; ++j) f(to_float(packs[k].v[j]), k, j);
  }
  // z[place] = f(value, k, j) for the first n.
  template <class F> __device__ __forceinline__ void write(T* z, int64_t n, F f) const {
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      Pack<T> out;
#pragma unroll
      for (int j = 0; j < Pack<T>::N; ++j) out.v[j] = from_float<T>(f(to_float(packs[k].v[j]), k, j));
      if (VECTOR) {
        if (place(k, 0) < n) out.to(z + place(k, 0));
      } else {
#pragma unroll
        for (int j = 0; j < Pack<T>::N; ++j)
          if (place(k, j) < n) z[place(k, j)] = out.v[j];
      }
    }
  }
};

// Where this block's part of its sample lies.
struct Place {
  int64_t sample, first;  // first: its first element, counted in the sample
  int chunk;
};
template <class Tile> __device__ __forceinline__ Place place_of(Cut cut) {
  const int64_t sample = blockIdx.x / cut.chunks;
  const int chunk = blockIdx.x % cut.chunks;
  return {sample, (int64_t)chunk * cut.steps * Tile::SIZE, chunk};
}

// The sum of v over the block, in every thread, in an order that nothing changes.
template <class F> __device__ __forceinline__ F sum_everywhere(F v) {
  __shared__ F warps[TILE_THREADS / 32];
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(~0u, v, step);
  __syncthreads();  // the previous call's readers are done
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0;
#pragma unroll
  for (int w = 0; w < TILE_THREADS / 32; ++w) v += warps[w];
  return v;
}

// Whether packs of 16 bytes fit every sample of every one of these tensors.
template <class T, class... P> bool packs_fit(Samples s, P... p) { return s.size % Pack<T>::N == 0 && aligned16(p...); }

}  // namespace ganfast::cuda
