// interpolate on CUDA: out = ε·real + (1 − ε)·fake, one ε per sample, in fp32 and rounded once. One block a tile.
#include "samples.cuh"

namespace ganfast::cuda {
namespace {

constexpr int EACH = 16;  // elements that a thread takes of each side at once

template <class T, bool VECTOR> __global__ void __launch_bounds__(TILE_THREADS)
    interpolate_kernel(const T* real, const T* fake, const float* epsilon, int64_t size, Cut cut, T* out) {
  using Part = Tile<T, VECTOR, EACH>;
  const Place at = place_of<Part>(cut);
  const int64_t offset = at.sample * size;
  const float e = epsilon[at.sample];
  for (int step = 0; step < cut.steps; ++step) {
    const int64_t first = at.first + step * Part::SIZE, rest = size - first;
    Part x, y;
    if (real && fake) {
      x.load(real + offset + first, rest);
      y.load(fake + offset + first, rest);
      x.write(out + offset + first, rest,
              [&](float v, int k, int j) { return e * v + (1.f - e) * to_float(y.packs[k].v[j]); });
    } else {
      const float factor = real ? e : 1.f - e;
      x.load((real ? real : fake) + offset + first, rest);
      x.write(out + offset + first, rest, [&](float v, int, int) { return factor * v; });
    }
  }
}

}  // namespace

void interpolate(const void* real, const void* fake, const float* epsilon, Samples s, void* out, void* stream) {
  const Cut cut = cut_of(s, EACH);
  const unsigned blocks = blocks_of(s, cut);
  if (s.size == 0 || blocks == 0) return;
  with_dtype(s.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    auto kernel = packs_fit<T>(s, real, fake, out) ? interpolate_kernel<T, true> : interpolate_kernel<T, false>;
    kernel<<<blocks, TILE_THREADS, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<const T*>(real), static_cast<const T*>(fake), epsilon, s.size, cut, static_cast<T*>(out));
  });
  check_launch("interpolate");
}

}  // namespace ganfast::cuda
