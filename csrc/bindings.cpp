// ganfast._C: the functions of ops.h for Python. Pointers and streams arrive as integers; the GIL is released.
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "ops.h"

namespace py = pybind11;
using namespace ganfast;
using Ptr = uintptr_t;

namespace {

template <class T> T* at(Ptr p) { return reinterpret_cast<T*>(p); }
Side side(Ptr x, int64_t n, float target) { return {at<const void>(x), n, target}; }
Pairs pairs(Ptr x, Ptr y, int64_t rows, int64_t others, int64_t nk, int64_t kd, int dtype) {
  return {at<const void>(x), at<const void>(y), rows, others, nk, kd, dtype};
}
BatchNorm batch_norm(int64_t batch, int64_t channels, int64_t plane, int dtype, Ptr weight, Ptr bias, bool use_batch,
                     double eps, int activation, float slope) {
  return {batch, channels, plane, dtype, at<const float>(weight), at<const float>(bias), use_batch, eps, activation, slope};
}
NormAct norm_act(int64_t batch, int64_t channels, int64_t plane, bool last, int dtype, Ptr weight, int weight_dims, Ptr bias,
                 int bias_dims, bool given, int64_t groups, double eps, int activation, float slope) {
  return {batch, channels, plane, last, dtype, {at<const void>(weight), weight_dims}, {at<const void>(bias), bias_dims},
          given, groups, eps, activation, slope};
}
using Unlocked = py::call_guard<py::gil_scoped_release>;

void bind_cpu(py::module_ m) {
  m.attr("activations") = cpu::activations();
  m.def("batch_norm_act", [](Ptr y, int64_t batch, int64_t channels, int64_t plane, int dtype, Ptr weight, Ptr bias,
                             Ptr running_mean, Ptr running_var, Ptr batches, double momentum, double eps, int activation,
                             float slope, Ptr a, Ptr moments, int threads) {
    cpu::batch_norm_act(at<void>(y), batch_norm(batch, channels, plane, dtype, weight, bias, true, eps, activation, slope),
                        {at<float>(running_mean), at<float>(running_var), at<int64_t>(batches), momentum}, at<void>(a),
                        at<float>(moments), threads);
  }, Unlocked());
  m.def("normalise_act", [](Ptr y, int64_t batch, int64_t channels, int64_t plane, int dtype, Ptr weight, Ptr bias,
                            Ptr moments, double eps, int activation, float slope, Ptr a, int threads) {
    cpu::batch_norm_act(at<void>(y), batch_norm(batch, channels, plane, dtype, weight, bias, false, eps, activation, slope),
                        {}, at<void>(a), at<float>(moments), threads);
  }, Unlocked());
  m.def("batch_norm_act_backward", [](Ptr da, Ptr y, int64_t batch, int64_t channels, int64_t plane, int dtype, Ptr weight,
                                      Ptr bias, Ptr moments, bool use_batch, double eps, int activation, float slope,
                                      Ptr dy, Ptr sums, int threads) {
    cpu::batch_norm_act_backward(
        at<void>(da), at<void>(y),
        batch_norm(batch, channels, plane, dtype, weight, bias, use_batch, eps, activation, slope), at<float>(moments),
        at<void>(dy), at<float>(sums), threads);
  }, Unlocked());
  m.def("norm_act", [](Ptr y, int64_t batch, int64_t channels, int64_t plane, bool last, int dtype, Ptr weight,
                       int weight_dims, Ptr bias, int bias_dims, Ptr given, int64_t groups, double eps, int activation,
                       float slope, Ptr a, Ptr moments, int threads) {
    cpu::norm_act(at<void>(y), norm_act(batch, channels, plane, last, dtype, weight, weight_dims, bias, bias_dims, given != 0,
                                        groups, eps, activation, slope),
                  at<float>(given), at<void>(a), at<float>(moments), threads);
  }, Unlocked());
  m.def("norm_act_backward", [](Ptr da, Ptr y, int64_t batch, int64_t channels, int64_t plane, bool last, int dtype,
                                Ptr weight, int weight_dims, Ptr bias, int bias_dims, Ptr moments, bool given,
                                int64_t groups, double eps, int activation, float slope, Ptr dy, Ptr dweight, Ptr dbias,
                                int threads) {
    cpu::norm_act_backward(at<void>(da), at<void>(y),
                           norm_act(batch, channels, plane, last, dtype, weight, weight_dims, bias, bias_dims, given, groups,
                                    eps, activation, slope),
                           at<float>(moments), at<void>(dy), at<void>(dweight), at<void>(dbias), threads);
  }, Unlocked());
  m.def("sigmoid_bce", [](Ptr real, int64_t n_real, float t_real, Ptr fake, int64_t n_fake, float t_fake, int dtype,
                          Ptr loss, int threads) {
    cpu::sigmoid_bce(side(real, n_real, t_real), side(fake, n_fake, t_fake), dtype, at<float>(loss), threads);
  }, Unlocked());
  m.def("sigmoid_bce_backward", [](Ptr g, Ptr real, int64_t n_real, float t_real, Ptr fake, int64_t n_fake, float t_fake,
                                   int dtype, Ptr dreal, Ptr dfake, int threads) {
    cpu::sigmoid_bce_backward(at<float>(g), side(real, n_real, t_real), side(fake, n_fake, t_fake), dtype,
                              at<void>(dreal), at<void>(dfake), threads);
  }, Unlocked());
  m.def("sigmoid_bce_double_backward", [](Ptr creal, Ptr cfake, Ptr g, Ptr real, int64_t n_real, float t_real, Ptr fake,
                                          int64_t n_fake, float t_fake, int dtype, Ptr dg, Ptr dreal, Ptr dfake,
                                          int threads) {
    cpu::sigmoid_bce_double_backward(at<void>(creal), at<void>(cfake), at<float>(g), side(real, n_real, t_real),
                                     side(fake, n_fake, t_fake), dtype, at<float>(dg), at<void>(dreal), at<void>(dfake),
                                     threads);
  }, Unlocked());
  m.def("interpolate", [](Ptr real, Ptr fake, Ptr epsilon, int64_t batch, int64_t size, int dtype, Ptr out, int threads) {
    cpu::interpolate(at<void>(real), at<void>(fake), at<float>(epsilon), {batch, size, dtype}, at<void>(out), threads);
  }, Unlocked());
  m.def("gradient_penalty", [](Ptr g, int64_t batch, int64_t size, int dtype, double scale, float target, bool one_sided,
                               Ptr penalty, Ptr norms, Ptr seed, int threads) {
    cpu::gradient_penalty(at<void>(g), {batch, size, dtype}, {scale, target, one_sided}, at<float>(penalty),
                          at<float>(norms), at<void>(seed), threads);
  }, Unlocked());
  m.def("gradient_penalty_backward", [](Ptr c_penalty, Ptr c_norms, Ptr g, Ptr norms, int64_t batch, int64_t size, int dtype,
                                        double scale, float target, bool one_sided, Ptr dg, int threads) {
    cpu::gradient_penalty_backward(at<float>(c_penalty), at<float>(c_norms), at<void>(g), at<float>(norms),
                                   {batch, size, dtype}, {scale, target, one_sided}, at<void>(dg), threads);
  }, Unlocked());
  m.def("gradient_penalty_double_backward", [](Ptr c, Ptr c_penalty, Ptr c_norms, Ptr g, Ptr norms, int64_t batch,
                                               int64_t size, int dtype, double scale, float target, bool one_sided,
                                               Ptr dc_penalty, Ptr dc_norms, Ptr dg, int threads) {
    cpu::gradient_penalty_double_backward(at<void>(c), at<float>(c_penalty), at<float>(c_norms), at<void>(g),
                                          at<float>(norms), {batch, size, dtype}, {scale, target, one_sided},
                                          at<float>(dc_penalty), at<float>(dc_norms), at<void>(dg), threads);
  }, Unlocked());
  m.def("pairwise_l1", [](Ptr x, Ptr y, int64_t rows, int64_t others, int64_t nk, int64_t kd, int dtype, Ptr o,
                          int threads) {
    cpu::pairwise_l1(pairs(x, y, rows, others, nk, kd, dtype), at<void>(o), threads);
  }, Unlocked());
  m.def("pairwise_l1_backward", [](Ptr g, Ptr x, Ptr y, int64_t rows, int64_t others, int64_t nk, int64_t kd, int dtype,
                                   Ptr drows, Ptr dothers, int threads) {
    cpu::pairwise_l1_backward(at<void>(g), pairs(x, y, rows, others, nk, kd, dtype), at<void>(drows), at<void>(dothers),
                              threads);
  }, Unlocked());
  m.def("pairwise_l1_double_backward", [](Ptr crows, Ptr cothers, Ptr g, Ptr x, Ptr y, int64_t rows, int64_t others,
                                          int64_t nk, int64_t kd, int dtype, Ptr dg, Ptr drows, Ptr dothers, int threads) {
    cpu::pairwise_l1_double_backward(at<void>(crows), at<void>(cothers), at<void>(g),
                                     pairs(x, y, rows, others, nk, kd, dtype), at<void>(dg), at<void>(drows),
                                     at<void>(dothers), threads);
  }, Unlocked());
}

#ifdef GANFAST_CUDA
void bind_cuda(py::module_ m) {
  m.def("unusable", &cuda::unusable);
  m.def("sigmoid_bce_workspace", &cuda::sigmoid_bce_workspace);
  m.def("sigmoid_bce", [](Ptr real, int64_t n_real, float t_real, Ptr fake, int64_t n_fake, float t_fake, int dtype,
                          Ptr workspace, Ptr loss, Ptr stream) {
    cuda::sigmoid_bce(side(real, n_real, t_real), side(fake, n_fake, t_fake), dtype, at<float>(workspace),
                      at<float>(loss), at<void>(stream));
  }, Unlocked());
  m.def("sigmoid_bce_backward", [](Ptr g, Ptr real, int64_t n_real, float t_real, Ptr fake, int64_t n_fake, float t_fake,
                                   int dtype, Ptr dreal, Ptr dfake, Ptr stream) {
    cuda::sigmoid_bce_backward(at<float>(g), side(real, n_real, t_real), side(fake, n_fake, t_fake), dtype,
                               at<void>(dreal), at<void>(dfake), at<void>(stream));
  }, Unlocked());
  m.def("sigmoid_bce_double_backward", [](Ptr creal, Ptr cfake, Ptr g, Ptr real, int64_t n_real, float t_real, Ptr fake,
                                          int64_t n_fake, float t_fake, int dtype, Ptr workspace, Ptr dg, Ptr dreal,
                                          Ptr dfake, Ptr stream) {
    cuda::sigmoid_bce_double_backward(at<void>(creal), at<void>(cfake), at<float>(g), side(real, n_real, t_real),
                                      side(fake, n_fake, t_fake), dtype, at<float>(workspace), at<float>(dg),
                                      at<void>(dreal), at<void>(dfake), at<void>(stream));
  }, Unlocked());
  m.def("interpolate", [](Ptr real, Ptr fake, Ptr epsilon, int64_t batch, int64_t size, int dtype, Ptr out, Ptr stream) {
    cuda::interpolate(at<void>(real), at<void>(fake), at<float>(epsilon), {batch, size, dtype}, at<void>(out),
                      at<void>(stream));
  }, Unlocked());
  m.def("gradient_penalty_workspace", [](int64_t batch, int64_t size, int dtype) {
    return cuda::gradient_penalty_workspace({batch, size, dtype});
  });
  m.def("gradient_penalty", [](Ptr g, int64_t batch, int64_t size, int dtype, double scale, float target, bool one_sided,
                               Ptr workspace, Ptr penalty, Ptr norms, Ptr seed, Ptr stream) {
    cuda::gradient_penalty(at<void>(g), {batch, size, dtype}, {scale, target, one_sided}, at<double>(workspace),
                           at<float>(penalty), at<float>(norms), at<void>(seed), at<void>(stream));
  }, Unlocked());
  m.def("gradient_penalty_backward", [](Ptr c_penalty, Ptr c_norms, Ptr g, Ptr norms, int64_t batch, int64_t size, int dtype,
                                        double scale, float target, bool one_sided, Ptr dg, Ptr stream) {
    cuda::gradient_penalty_backward(at<float>(c_penalty), at<float>(c_norms), at<void>(g), at<float>(norms),
                                    {batch, size, dtype}, {scale, target, one_sided}, at<void>(dg), at<void>(stream));
  }, Unlocked());
  m.def("gradient_penalty_double_backward", [](Ptr c, Ptr c_penalty, Ptr c_norms, Ptr g, Ptr norms, int64_t batch,
                                               int64_t size, int dtype, double scale, float target, bool one_sided,
                                               Ptr workspace, Ptr dc_penalty, Ptr dc_norms, Ptr dg, Ptr stream) {
    cuda::gradient_penalty_double_backward(at<void>(c), at<float>(c_penalty), at<float>(c_norms), at<void>(g),
                                           at<float>(norms), {batch, size, dtype}, {scale, target, one_sided},
                                           at<double>(workspace), at<float>(dc_penalty), at<float>(dc_norms), at<void>(dg),
                                           at<void>(stream));
  }, Unlocked());
  m.def("pairwise_l1", [](Ptr x, Ptr y, int64_t rows, int64_t others, int64_t nk, int64_t kd, int dtype, Ptr o,
                          Ptr stream) {
    cuda::pairwise_l1(pairs(x, y, rows, others, nk, kd, dtype), at<void>(o), at<void>(stream));
  }, Unlocked());
  m.def("pairwise_l1_backward", [](Ptr g, Ptr x, Ptr y, int64_t rows, int64_t others, int64_t nk, int64_t kd, int dtype,
                                   Ptr drows, Ptr dothers, Ptr stream) {
    cuda::pairwise_l1_backward(at<void>(g), pairs(x, y, rows, others, nk, kd, dtype), at<void>(drows), at<void>(dothers),
                              at<void>(stream));
  }, Unlocked());
  m.def("pairwise_l1_double_backward", [](Ptr crows, Ptr cothers, Ptr g, Ptr x, Ptr y, int64_t rows, int64_t others,
                                          int64_t nk, int64_t kd, int dtype, Ptr dg, Ptr drows, Ptr dothers, Ptr stream) {
    cuda::pairwise_l1_double_backward(at<void>(crows), at<void>(cothers), at<void>(g),
                                     pairs(x, y, rows, others, nk, kd, dtype), at<void>(dg), at<void>(drows),
                                     at<void>(dothers), at<void>(stream));
  }, Unlocked());
}
#endif

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled operators of ganfast; call them through ganfast.functional, which checks what it is given.";
  bind_cpu(m.def_submodule("cpu"));
#ifdef GANFAST_CUDA
  bind_cuda(m.def_submodule("cuda"));
#endif
}
