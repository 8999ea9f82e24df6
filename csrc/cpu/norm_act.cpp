// norm_act on the CPU. A unit is what has a mean and a variance of its own: channels of one sample, or one channel of all. In
// NCHW its members, planes, are runs; with the channels last a sample's units share strips. Sums are fp32 inside of runs and
// columns, and merged in double in an order that the shape alone decides.
#include <cmath>
#include <vector>

#include "../ops.h"
#include "channels.h"
#include "pages.h"
#include "strips.h"

namespace ganfast::cpu {
namespace {

constexpr int64_t PIECE = 32768;      // elements of a run, at most
constexpr int64_t RESIDENT = 524288;  // elements that one thread keeps in its cache from the first pass to the second

int64_t size_of(const NormAct& n) { return n.batch * n.channels * n.plane; }
int64_t bytes_of(const NormAct& n) { return size_of(n) * (n.dtype == F32 ? 4 : 2); }
bool by_pixel(const NormAct& n) { return n.weight.dims == 3; }

// Without numbers of a channel's own a group of neighbouring planes is one plane.
NormAct joined(NormAct n) {
  const bool plain = n.weight.dims % 3 == 0 && n.bias.dims % 3 == 0;
  if (n.groups && plain && !n.last) n.plane *= n.channels / n.groups, n.channels = n.groups;
  return n;
}

// --- units and their members ------------------------------------------------------------------------------------------

struct Member {
  int64_t sample, channel;
};
struct Units {
  int64_t count, members, groups;
  explicit Units(const NormAct& n)
      : count(n.groups ? n.batch * n.groups : n.channels), members(n.groups ? n.channels / n.groups : n.batch), groups(n.groups) {}
  Member at(int64_t unit, int64_t k) const {
    return groups ? Member{unit / groups, unit % groups * members + k} : Member{k, unit};
  }
  int64_t of(Member m) const { return groups ? m.sample * groups + m.channel / members : m.channel; }
};

double number_of(const NormAct& n, const Affine& v, Member m, double absent) {
  const float* p = static_cast<const float*>(v.of);
  return v.dims == 1 ? p[m.channel] : v.dims == 2 ? p[m.sample * n.channels + m.channel] : absent;
}

// --- over all of a tensor ---------------------------------------------------------------------------------------------

// For every block: prepare, reduce all of its parts, settle, write all of them, what was read last first. A block stays in
// one thread's cache, or all threads share it.
template <class Prepare, class Reduce, class Settle, class Write>
void over_blocks(int64_t blocks, int64_t parts, int64_t elements, int threads, Prepare prepare, Reduce reduce, Settle settle,
                 Write write) {
  if (blocks * elements <= SERIAL) threads = 1;
  if (threads == 1 || (blocks >= 2 * threads && elements <= RESIDENT)) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t b = 0; b < blocks; ++b) {
      prepare(b);
      for (int64_t p = 0; p < parts; ++p) reduce(b, p);
      settle(b);
      for (int64_t p = parts - 1; p >= 0; --p) write(b, p);
    }
    return;
  }
#pragma omp parallel num_threads(threads)
  for (int64_t b = 0; b < blocks; ++b) {
#pragma omp single
    prepare(b);
#pragma omp for schedule(static)
    for (int t = 0; t < threads; ++t)
      for (int64_t p = parts * t / threads; p < parts * (t + 1) / threads; ++p) reduce(b, p);
#pragma omp single
    settle(b);
#pragma omp for schedule(static) nowait
    for (int t = 0; t < threads; ++t)
      for (int64_t p = parts * (t + 1) / threads - 1; p >= parts * t / threads; --p) write(b, p);
  }
}

// NCHW. reduce(run, member, sum) unless there is nothing to reduce; settle(unit, sums of its members); write(run, member).
template <class Sum, class Reduce, class Settle, class Write>
void over_runs(const NormAct& n, int threads, bool reduces, Reduce reduce, Settle settle, Write write) {
  const Units units(n);
  const int64_t cuts = (n.plane + PIECE - 1) / PIECE, parts = units.members * cuts;
  std::vector<Sum> found(reduces ? units.count * parts : 0);
  auto member = [&](int64_t unit, int64_t part) { return units.at(unit, part / cuts); };
  auto run = [&](Member m, int64_t cut) {
    const int64_t begin = n.plane * cut / cuts, end = n.plane * (cut + 1) / cuts;
    return Run{(m.sample * n.channels + m.channel) * n.plane + begin, end - begin};
  };
  over_blocks(
      units.count, parts, units.members * n.plane, threads, [](int64_t) {},
      [&](int64_t unit, int64_t part) {
        const Member m = member(unit, part);
        if (reduces) reduce(run(m, part % cuts), m, found[unit * parts + part]);
      },
      [&](int64_t unit) {
        settle(unit, [&](int64_t k) {
          Sum sum;
          for (int64_t i = 0; reduces && i < cuts; ++i) sum.add(found[unit * parts + k * cuts + i]);
          return sum;
        });
      },
      [&](int64_t unit, int64_t part) {
        const Member m = member(unit, part);
        write(run(m, part % cuts), m);
      });
}

// Channels last; a block is a sample, or, where statistics are over the batch, all of them. reduce(strip, columns, sums of
// each column), settle(unit, sums of its members), column(member), where `before` also before it is settled,
// write(strip, columns).
template <class Sum, class Reduce, class Settle, class ColumnOf, class Write>
void over_samples(const NormAct& n, int threads, bool reduces, bool before, Reduce reduce, Settle settle, ColumnOf column,
                  Write write) {
  const Units units(n);
  const int64_t samples = n.groups ? 1 : n.batch, blocks = n.batch / samples;
  BatchNorm sample{};
  sample.batch = n.plane, sample.channels = n.channels, sample.plane = 1;
  const std::vector<Piece> pieces = all_channels(sample);
  const int64_t count = pieces.size(), width = pieces[0].strip.width;
  const ColumnSums found(reduces ? n.batch * count : 0, width);
  std::vector<Sum> sums(reduces ? n.batch * n.channels : 0);
  std::vector<Arrays> columns;
  for (int64_t i = 0; i < n.batch; ++i) columns.emplace_back(width);
  auto fill = [&](int64_t block) {
    for (int64_t i = block * samples; i < (block + 1) * samples; ++i)
      for (int64_t c = 0; c < n.channels; ++c) columns[i].fill(c, pieces[0].share, column(Member{i, c}));
  };
  auto strip = [&](int64_t i, int64_t part) {
    Strip s = pieces[part % count].strip;
    s.first += i * n.plane * n.channels;
    return s;
  };
  over_blocks(
      blocks, samples * count, samples * n.plane * n.channels, threads,
      [&](int64_t block) {
        if (reduces && before) fill(block);
      },
      [&](int64_t block, int64_t part) {
        const int64_t i = block * samples + part / count;
        if (reduces) reduce(strip(i, part), columns[i].columns(), found.at(i * count + part % count, 0).data());
      },
      [&](int64_t block) {
        for (int64_t i = block * samples; reduces && i < (block + 1) * samples; ++i)
          for (int64_t first = 0; first < n.channels; first += BLOCK)
            gather(pieces, found, i * count, first, std::min(BLOCK, n.channels - first), &sums[i * n.channels + first]);
        const int64_t each = units.count / blocks;
        for (int64_t unit = block * each; unit < (block + 1) * each; ++unit)
          settle(unit, [&](int64_t k) {
            const Member m = units.at(unit, k);
            return reduces ? sums[m.sample * n.channels + m.channel] : Sum();
          });
        fill(block);
      },
      [&](int64_t block, int64_t part) {
        const int64_t i = block * samples + part / count;
        write(strip(i, part), columns[i].columns());
      });
}

Kind kind_of(const NormAct& n) { return {n.dtype, n.activation, n.slope}; }
Inputs inputs_of(const void* y, const NormAct& n) {
  if (by_pixel(n)) return {y, n.weight.of, n.bias.of};
  return {y};
}

// What a gradient of weight or bias is made of: sums of each member.
void put(const NormAct& n, const Affine& v, const std::vector<double>& sums, void* to) {
  float* p = static_cast<float*>(to);
  if (v.dims == 2) std::copy(sums.begin(), sums.end(), p);
  for (int64_t c = 0; v.dims == 1 && c < n.channels; ++c) {
    double total = 0;
    for (int64_t i = 0; i < n.batch; ++i) total += sums[i * n.channels + c];
    p[c] = (float)total;
  }
}

}  // namespace

void norm_act(const void* y, NormAct norm, const float* given, void* a, float* moments, int threads) {
  const NormAct n = joined(norm);
  const Units units(n);
  const Kind kind = kind_of(n);
  const Inputs x = inputs_of(y, n);
  expect_writes(a, bytes_of(n));
  const float *mean = n.given ? given : moments, *var = mean + units.count;
  auto settle = [&](int64_t unit, auto sum_of) {
    if (n.given) return;
    Moments all;
    for (int64_t k = 0; k < units.members; ++k) all.add(sum_of(k));
    moments[unit] = (float)all.mean, moments[units.count + unit] = (float)(all.m2 / all.count);
  };
  auto column = [&](Member m) {
    const int64_t unit = units.of(m);
    const double scale = number_of(n, n.weight, m, 1) / std::sqrt(var[unit] + n.eps);
    return Column{mean[unit], (float)scale, (float)number_of(n, n.bias, m, 0), 0, 0};
  };
  if (!n.last)
    return over_runs<Moments>(
        n, threads, !n.given, [&](Run run, Member, Moments& sum) { run_moments(y, kind, run, sum); }, settle,
        [&](Run run, Member m) { run_apply(x, a, kind, run, column(m)); });
  over_samples<Moments>(
      n, threads, !n.given, false,
      [&](const Strip& s, Columns, float* const* sums) { strip_moments(y, kind, s, sums[0], sums[1], sums[2]); }, settle,
      column, [&](const Strip& s, Columns c) { strip_apply(x, a, kind, s, c); });
}

void norm_act_backward(const void* da, const void* y, NormAct norm, const float* moments, void* dy, void* dweight,
                       void* dbias, int threads) {
  const NormAct n = joined(norm);
  const Units units(n);
  const Kind kind = kind_of(n);
  const Inputs x = inputs_of(y, n);
  const Gradients to = by_pixel(n) ? Gradients{dy, dweight, dbias} : Gradients{dy};
  for (void* p : {to.y, to.weight, to.bias})
    if (p) expect_writes(p, bytes_of(n));
  const float *mean = moments, *var = mean + units.count;
  const double share = n.given ? 0 : (double)units.count / size_of(n);
  std::vector<double> of_weight(n.batch * n.channels), of_bias(n.batch * n.channels), bend(units.count), lift(units.count);
  auto settle = [&](int64_t unit, auto sum_of) {
    const double r = 1 / std::sqrt(var[unit] + n.eps);
    Sums all;
    for (int64_t k = 0; k < units.members; ++k) {
      const Member m = units.at(unit, k);
      const Sums sum = sum_of(k);
      const double weight = number_of(n, n.weight, m, 1);
      of_bias[m.sample * n.channels + m.channel] = sum.total, of_weight[m.sample * n.channels + m.channel] = r * sum.along;
      all.add({sum.count, weight * sum.total, weight * sum.along});
    }
    bend[unit] = -share * r * r * r * all.along, lift[unit] = -share * r * all.total;
  };
  auto column = [&](Member m) {
    const int64_t unit = units.of(m);
    const double scale = number_of(n, n.weight, m, 1) / std::sqrt(var[unit] + n.eps);
    return Column{mean[unit], (float)scale, (float)number_of(n, n.bias, m, 0), (float)bend[unit], (float)lift[unit]};
  };
  const bool reduces = !n.given || n.weight.dims % 3 || n.bias.dims % 3;
  if (n.last)
    over_samples<Sums>(
        n, threads, reduces, true,
        [&](const Strip& s, Columns c, float* const* sums) { strip_sums(x, da, kind, s, c, sums[0], sums[1]); }, settle,
        column, [&](const Strip& s, Columns c) { strip_gradient(x, da, to, kind, s, c); });
  else
    over_runs<Sums>(
        n, threads, reduces, [&](Run run, Member m, Sums& sum) { run_sums(x, da, kind, run, column(m), sum); }, settle,
        [&](Run run, Member m) { run_gradient(x, da, to, kind, run, column(m)); });
  put(n, n.weight, of_weight, dweight);
  put(n, n.bias, of_bias, dbias);
}

}  // namespace ganfast::cpu
