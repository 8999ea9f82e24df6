// Whether this library's kernels run on a device.
#include "common.cuh"

namespace ganfast::cuda {
namespace {
__global__ void probe() {}
}  // namespace

const char* unusable(int device) {
  int count = 0, previous = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && device >= count) return "no such CUDA device";
  if (error == cudaSuccess) error = cudaGetDevice(&previous);
  if (error == cudaSuccess) error = cudaSetDevice(device);
  cudaFuncAttributes attributes;
  if (error == cudaSuccess) {
    error = cudaFuncGetAttributes(&attributes, probe);  // fails where no code of ours fits the chip or the driver
    cudaSetDevice(previous);
  }
  cudaGetLastError();  // an error is told once, here
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

}  // namespace ganfast::cuda
