// Sums over the channels of y [batch, channels, plane], and what is then done with y: strip by strip, each column in fp32,
// columns and strips merged into channels in double, in an order that the shape alone decides. In NCHW a thread takes a few
// whole channels and goes over them while they are in the cache; with the channels last it goes over its strips once for
// the sums, and backwards for the rest.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "../ops.h"
#include "column_reduction.h"
#include "strips.h"

namespace ganfast::cpu {
namespace {

constexpr int64_t WIDTH = 1024;              // columns of a strip in NCHW
constexpr int64_t STRIP = 65536;             // elements of a strip, about
constexpr int64_t NARROW = 64, WIDE = 2048;  // channels last: rows of few channels are joined to this many columns
constexpr int64_t SERIAL = 16384;            // elements below which waking threads costs more than it saves

// --- how a tensor is cut ----------------------------------------------------------------------------------------------

// The columns of a strip that belong to its k-th channel: k·start + i·step, i < count.
struct Share {
  int64_t start, step, count;
};
struct Piece {
  Strip strip;
  Share share;
};
// Channels first … first + count, and all strips that have them (NCHW), or some (channels last).
struct Unit {
  int64_t first, count;
  std::vector<Piece> pieces;
};

void add_strips(std::vector<Piece>& pieces, Strip whole, Share share) {
  const int64_t deep = std::max<int64_t>(STRIP / whole.width / ROWS * ROWS, ROWS);
  for (int64_t i = 0; i < whole.end; i += deep) {
    Strip part = whole;
    part.begin = i, part.end = std::min(whole.end, i + deep);
    pieces.push_back({part, share});
  }
}

// NCHW: a few whole channels a unit. A plane wider than WIDTH is rows of WIDTH and a rest.
std::vector<Unit> whole_channels(const BatchNorm& n) {
  std::vector<Unit> units;
  const int64_t each = std::max<int64_t>(WIDTH / n.plane, 1), outer = n.channels * n.plane;
  for (int64_t c = 0; c < n.channels; c += each) {
    const int64_t count = std::min(each, n.channels - c), first = c * n.plane;
    Unit unit{c, count, {}};
    if (n.plane <= WIDTH) {
      add_strips(unit.pieces, {first, 0, n.batch, count * n.plane, 1, outer}, {n.plane, 1, n.plane});
    } else {
      const int64_t rows = n.plane / WIDTH, rest = n.plane % WIDTH;
      add_strips(unit.pieces, {first, 0, n.batch * rows, WIDTH, rows, outer}, {0, 1, WIDTH});
      if (rest) add_strips(unit.pieces, {first + rows * WIDTH, 0, n.batch, rest, 1, outer}, {0, 1, rest});
    }
    units.push_back(std::move(unit));
  }
  return units;
}

// Channels last: strips of whole rows. Rows of few channels, or of a number that vectors do not divide, are joined; what
// rows are left over is the last strip.
std::vector<Piece> all_channels(const BatchNorm& n) {
  const int64_t c = n.channels;
  int64_t joined = LANES / std::gcd((int64_t)LANES, c);
  while (joined * c < NARROW) joined *= 2;
  if (joined * c > WIDE) joined = 1;
  const int64_t width = joined * c, rows = n.batch / joined, rest = n.batch % joined;
  std::vector<Piece> pieces;
  add_strips(pieces, {0, 0, rows, width, 1, width}, {1, c, joined});
  if (rest) add_strips(pieces, {rows * width, 0, 1, rest * c, 1, 0}, {1, c, rest});
  return pieces;
}

// --- sums in double: of strips, then of columns ------------------------------------------------------------------------

typedef double vdouble __attribute__((vector_size(8 * LANES)));
GANFAST_INLINE vdouble wide(vfloat v) { return __builtin_convertvector(v, vdouble); }
GANFAST_INLINE double sum(vdouble v) {
  double total = 0;
  for (int i = 0; i < LANES; ++i) total += v[i];
  return total;
}

// What a strip says of `columns` neighbouring ones of a channel, v, as one.
[[maybe_unused]] GANFAST_CLONES void together(const float* const* v, int64_t columns, int64_t rows, Moments& channel) {
  const float *first = v[0], *mean = v[1], *m2 = v[2];
  vdouble middles = {}, squares = {};
  double middle = 0, square = 0;
  int64_t j = 0;
  for (; j + LANES <= columns; j += LANES) middles += wide(load(first + j)) + wide(load(mean + j));
  for (; j < columns; ++j) middle += (double)first[j] + mean[j];
  middle = (middle + sum(middles)) / columns;
  for (j = 0; j + LANES <= columns; j += LANES) {
    const vdouble d = wide(load(first + j)) + wide(load(mean + j)) - middle;
    squares += wide(load(m2 + j)) + d * d * (double)rows;
  }
  for (; j < columns; ++j) {
    const double d = (double)first[j] + mean[j] - middle;
    square += m2[j] + d * d * rows;
  }
  channel = {(double)rows * columns, middle, square + sum(squares)};
}
[[maybe_unused]] GANFAST_CLONES void together(const float* const* v, int64_t columns, int64_t rows, Sums& channel) {
  vdouble totals = {}, alongs = {};
  double total = 0, along = 0;
  int64_t j = 0;
  for (; j + LANES <= columns; j += LANES) totals += wide(load(v[0] + j)), alongs += wide(load(v[1] + j));
  for (; j < columns; ++j) total += v[0][j], along += v[1][j];
  channel = {(double)rows * columns, total + sum(totals), along + sum(alongs)};
}
// What a strip says of `columns` neighbouring ones, each by itself, added to what those before said: p and q are mean and
// m2, or total and along, of `count` rows.
GANFAST_CLONES void each(const float* const* v, int64_t columns, double rows, double count, double* p, double* q, Moments) {
  const float *first = v[0], *mean = v[1], *m2 = v[2];
  const double part = rows / (count + rows), weight = count * part;
  for (int64_t j = 0; j < columns; ++j) {
    const double d = (double)first[j] + mean[j] - p[j];
    p[j] += d * part;
    q[j] += m2[j] + d * d * weight;
  }
}
GANFAST_CLONES void each(const float* const* v, int64_t columns, double, double, double* p, double* q, Sums) {
  for (int64_t j = 0; j < columns; ++j) p[j] += v[0][j], q[j] += v[1][j];
}

// Memory for `vectors` whole vectors; a vector across two cache lines costs twice.
struct Vectors {
  std::unique_ptr<vfloat[]> memory;
  explicit Vectors(int64_t vectors) : memory(new vfloat[vectors]) {}
  float* at(int64_t vector) const { return reinterpret_cast<float*>(memory.get() + vector); }
};
int64_t vectors_of(int64_t width) { return (width + LANES - 1) / LANES; }

// Arrays of floats, one element a column.
struct Arrays {
  Vectors memory;
  float* of[5];
  explicit Arrays(int64_t width) : memory(5 * vectors_of(width)) {
    for (int i = 0; i < 5; ++i) of[i] = memory.at(i * vectors_of(width));
  }
  Columns columns() const { return {of[0], of[1], of[2], of[3], of[4]}; }
  void fill(int64_t k, Share share, Column c) {
    const float values[] = {c.mean, c.scale, c.bias, c.bend, c.lift};
    for (int i = 0; i < 5; ++i)
      for (int64_t j = 0; j < share.count; ++j) of[i][k * share.start + j * share.step] = values[i];
  }
};

// Three arrays of floats, one element a column, for each of a number of strips.
struct ColumnSums {
  int64_t pitch;
  Vectors memory;
  ColumnSums(int64_t strips, int64_t width) : pitch(vectors_of(width)), memory(strips * 3 * pitch) {}
  std::array<float*, 3> at(int64_t strip, int64_t column) const {
    auto array = [&](int64_t k) { return memory.at((strip * 3 + k) * pitch) + column; };
    return {array(0), array(1), array(2)};
  }
};
// Channels last: adds to sums those of channels first … first + number, at most BLOCK; the pieces' are found.at(strip + i).
constexpr int64_t BLOCK = 64;
template <class Sum>
void gather(const std::vector<Piece>& pieces, const ColumnSums& found, int64_t strip, int64_t first, int64_t number,
            Sum* sums) {
  const int64_t count = pieces.size();
  for (int64_t i = 0, end; i < count; i = end) {  // strips alike in width, column by column
    const Share share = pieces[i].share;
    for (end = i; end < count && pieces[end].share.count == share.count;) ++end;
    for (int64_t k = 0; k < share.count; ++k) {
      double p[BLOCK] = {}, q[BLOCK] = {}, rows = 0;
      for (int64_t s = i; s < end; ++s) {
        const double more = pieces[s].strip.end - pieces[s].strip.begin;
        each(found.at(strip + s, k * share.step + first).data(), number, more, rows, p, q, Sum());
        rows += more;
      }
      for (int64_t c = 0; c < number; ++c) sums[c].add({rows, p[c], q[c]});
    }
  }
}

// --- over all of a tensor ---------------------------------------------------------------------------------------------
// reduce(strip, columns, sums of each column) over all strips, unless there is nothing to reduce; then write(strip, columns).
// before(c) says the columns of channel c for the first, after(c, its sum) for the second.

// NCHW: unit by unit; what is written last was read last.
template <class Sum, class Before, class Reduce, class After, class Write>
void over_units(const BatchNorm& n, int threads, bool reduces, Before before, Reduce reduce, After after, Write write) {
  const std::vector<Unit> units = whole_channels(n);
  const int64_t count = units.size();
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < count; ++i) {
    const Unit& unit = units[i];
    const Piece& main = unit.pieces[0];  // a rest is narrower
    Arrays columns(main.strip.width), scratch(main.strip.width);
    std::vector<Sum> sums(unit.count);
    for (int64_t k = 0; k < unit.count; ++k) columns.fill(k, main.share, before(unit.first + k));
    for (const Piece& piece : unit.pieces) {
      if (!reduces) break;
      reduce(piece.strip, columns.columns(), scratch.of);
      for (int64_t k = 0; k < unit.count; ++k) {
        const float* const v[] = {scratch.of[0] + k * piece.share.start, scratch.of[1] + k * piece.share.start,
                                  scratch.of[2] + k * piece.share.start};
        Sum sum;
        together(v, piece.share.count, piece.strip.end - piece.strip.begin, sum);
        sums[k].add(sum);
      }
    }
    for (int64_t k = 0; k < unit.count; ++k) columns.fill(k, main.share, after(unit.first + k, sums[k]));
    for (auto piece = unit.pieces.rbegin(); piece != unit.pieces.rend(); ++piece) write(piece->strip, columns.columns());
  }
}

// Channels last: all strips, then the channels, then all strips again, each thread its own and backwards.
template <class Sum, class Before, class Reduce, class After, class Write>
void over_strips(const BatchNorm& n, int threads, bool reduces, Before before, Reduce reduce, After after, Write write) {
  const std::vector<Piece> pieces = all_channels(n);
  const int64_t count = pieces.size(), width = pieces[0].strip.width;
  const ColumnSums found(reduces ? count : 0, width);
  Arrays columns(width);
  for (int64_t c = 0; c < n.channels; ++c) columns.fill(c, pieces[0].share, before(c));
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int t = 0; t < threads; ++t)
      for (int64_t i = count * t / threads; reduces && i < count * (t + 1) / threads; ++i)
        reduce(pieces[i].strip, columns.columns(), found.at(i, 0).data());
#pragma omp for schedule(static)
    for (int64_t first = 0; first < n.channels; first += BLOCK) {
      const int64_t number = std::min(BLOCK, n.channels - first);
      Sum sums[BLOCK] = {};
      if (reduces) gather(pieces, found, 0, first, number, sums);
      for (int64_t c = 0; c < number; ++c) columns.fill(first + c, pieces[0].share, after(first + c, sums[c]));
    }
#pragma omp for schedule(static) nowait
    for (int t = 0; t < threads; ++t)
      for (int64_t i = count * (t + 1) / threads - 1; i >= count * t / threads; --i)
        write(pieces[i].strip, columns.columns());
  }
}

template <class Sum, class Before, class Reduce, class After, class Write>
void sweep(const BatchNorm& n, int threads, bool reduces, Before before, Reduce reduce, After after, Write write) {
  const int64_t elements = n.batch * n.channels * n.plane;
  if (elements == 0) {
    for (int64_t c = 0; c < n.channels; ++c) after(c, Sum());
    return;
  }
  if (elements <= SERIAL) threads = 1;
  if (n.plane == 1) over_strips<Sum>(n, threads, reduces, before, reduce, after, write);
  else over_units<Sum>(n, threads, reduces, before, reduce, after, write);
}

}  // namespace
}  // namespace ganfast::cpu
