// batch_norm_act on the CPU: the two operators. channels.h cuts y up and merges sums, strips.h says what is done with a strip.
#include <cmath>

#include "../ops.h"
#include "activations.h"
#include "channels.h"
#include "pages.h"
#include "strips.h"

namespace ganfast::cpu {
namespace {

Kind kind_of(const BatchNorm& n) { return {n.dtype, n.activation, n.slope}; }
int64_t bytes_of(const BatchNorm& n) { return n.batch * n.channels * n.plane * (n.dtype == F32 ? 4 : 2); }

// 1/√(var + eps), and the columns of a channel without gradient's.
double inverse_of(const BatchNorm& n, float var) { return 1 / std::sqrt((double)var + n.eps); }
Column column_of(const BatchNorm& n, int64_t c, float mean, float var) {
  const double weight = n.weight ? n.weight[c] : 1.0;
  return {mean, (float)(weight * inverse_of(n, var)), n.bias ? n.bias[c] : 0.f, 0.f, 0.f};
}

// With the variances of `count` elements as unbiased ones. An empty batch is counted, no more.
void update(const Running& running, const float* moments, int64_t channels, int64_t count) {
  if (running.batches) ++*running.batches;
  if (!running.mean || !count) return;
  const double cumulative = running.batches ? 1.0 / *running.batches : 0.0, unbias = count / (count - 1.0);
  const double momentum = running.momentum < 0 ? cumulative : running.momentum;
  auto move = [&](float& value, double to) { value = (float)((1 - momentum) * value + momentum * to); };  // of inf: inf
  for (int64_t c = 0; c < channels; ++c) {
    move(running.mean[c], moments[c]);
    move(running.var[c], moments[channels + c] * unbias);
  }
}

}  // namespace

const char* activations() { return ACTIVATIONS; }

void batch_norm_act(const void* y, BatchNorm n, Running running, void* a, float* moments, int threads) {
  expect_writes(a, bytes_of(n));
  const Kind kind = kind_of(n);
  float *mean = moments, *var = moments + n.channels;
  sweep<Moments>(
      n, threads, n.use_batch, [](int64_t) { return Column{}; },
      [&](const Strip& s, const Columns&, float* const* sums) { strip_moments(y, kind, s, sums[0], sums[1], sums[2]); },
      [&](int64_t c, const Moments& m) {
        if (n.use_batch) mean[c] = m.count ? (float)m.mean : NAN, var[c] = (float)(m.m2 / m.count);
        return column_of(n, c, mean[c], var[c]);
      },
      [&](const Strip& s, const Columns& columns) { strip_apply({y}, a, kind, s, columns); });
  update(running, moments, n.channels, n.batch * n.plane);
}

void batch_norm_act_backward(const void* da, const void* y, BatchNorm n, const float* moments, void* dy, float* found,
                             int threads) {
  expect_writes(dy, bytes_of(n));
  const float *mean = moments, *var = moments + n.channels;
  const Kind kind = kind_of(n);
  const double share = n.use_batch ? 1.0 / (n.batch * n.plane) : 0.0;
  sweep<Sums>(
      n, threads, true, [&](int64_t c) { return column_of(n, c, mean[c], var[c]); },
      [&](const Strip& s, const Columns& columns, float* const* out) { strip_sums({y}, da, kind, s, columns, out[0], out[1]); },
      [&](int64_t c, const Sums& s) {
        const double r = n.batch * n.plane > 0 ? inverse_of(n, var[c]) : 0;
        Column column = column_of(n, c, mean[c], var[c]);
        found[c] = (float)s.total, found[n.channels + c] = (float)(r * s.along);
        column.bend = (float)(-column.scale * share * r * r * s.along), column.lift = (float)(-column.scale * share * s.total);
        return column;
      },
      [&](const Strip& s, const Columns& columns) { strip_gradient({y}, da, {dy}, kind, s, columns); });
}

}  // namespace ganfast::cpu
