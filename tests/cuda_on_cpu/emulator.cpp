// The scheduler of emulator.h. Blocks run one after another. A block's threads run until each waits in a barrier or a
// warp operation; who waits for nobody goes on. Which thread is next, `order` says: whatever it is, results must not
// depend on it. A thread that goes wrong, be it by a bad access, leaves its stack by a jump back into launch().
#include "emulator.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {
namespace {

constexpr size_t STACK = 64 << 10;
constexpr unsigned WARP = 32, MAX_THREADS = 1024;
enum State { READY, IN_BARRIER, IN_WARP, DONE };

struct Thread {
  State state;
  uint3 index;
  Place place;  // where it waits
  unsigned mask, source;  // of a warp operation, as are the 8 bytes that it gives and those that it gets
  char given[8], got[8];
  bool begun;  // it has a context to go on from
  jmp_buf context;
  char* stack;
};

struct Launch {
  const char* kernel;
  Place place;
  const std::function<void()>* thread;
  size_t dynamic_bytes;
};

enum Sequence { FORWARD, REVERSED, SHUFFLED };
struct Order {
  bool warps;  // a warp runs as far as it gets without the others; else all threads of the block take turns
  Sequence sequence;
} order;

std::mutex one_at_a_time;
Launch running;
std::vector<Thread> threads;
Thread* current;  // nullptr: the scheduler
jmp_buf scheduler;
sigjmp_buf failed;
std::string message;
void* bad_instruction;
std::mt19937 shuffler;
std::set<std::string> launched;

// --- memory between guard pages ---------------------------------------------------------------------------------------

struct Region { char* at; size_t bytes; unsigned long block; };
std::map<const void*, Region> shared_arrays;
unsigned long blocks = 0;                      // how many have begun

// `bytes` that end at a guard page, as close as `alignment` allows; another one lies before.
char* guarded(size_t bytes, size_t alignment) {
  const size_t page = sysconf(_SC_PAGESIZE), size = (bytes + page - 1) / page * page;
  void* all = mmap(nullptr, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) throw std::runtime_error("the emulator has no memory left");
  char* first = static_cast<char*>(all) + page;
  mprotect(first, size, PROT_READ | PROT_WRITE);
  return first + size - (bytes + alignment - 1) / alignment * alignment;
}

// --- what goes wrong --------------------------------------------------------------------------------------------------

std::string name_of(uint3 i) { return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")"; }
std::string name_of(Place p) { return std::string(p.file) + ":" + std::to_string(p.line); }

void describe(const std::string& place, const Thread& t, const std::string& what) {
  message = place + ": block " + name_of(blockIdx) + ", thread " + name_of(t.index) + " of " + running.kernel +
            ", launched in " + name_of(running.place) + ", " + what;
}
[[noreturn]] void fail(const Thread& t, Place place, const std::string& what) {
  describe(name_of(place), t, what);
  siglongjmp(failed, 1);
}

// The line of an instruction of this library, by addr2line; "" where that does not tell.
std::string line_of(void* instruction) {
  Dl_info library;
  if (!dladdr(instruction, &library)) return "";
  char command[4096], line[1024] = "";
  const size_t offset = (char*)instruction - (char*)library.dli_fbase;
  snprintf(command, sizeof command, "addr2line -e '%s' %zx 2> /dev/null", library.dli_fname, offset);
  FILE* out = popen(command, "r");
  if (out && fgets(line, sizeof line, out)) line[strcspn(line, "\n (")] = 0;
  if (out) pclose(out);
  return line[0] == '?' ? "" : line;
}

void on_bad_access(int, siginfo_t* info, void* context) {
  const ucontext_t* at = static_cast<ucontext_t*>(context);
#if defined __x86_64__
  bad_instruction = (void*)at->uc_mcontext.gregs[REG_RIP];
#else
  bad_instruction = (void*)at->uc_mcontext.pc;
#endif
  if (!current) {  // the host's code: the signal comes again, to whom it would have come
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    return;
  }
  char what[80];
  snprintf(what, sizeof what, "touches %p, where it has no memory", info->si_addr);
  describe("?", *current, what);
  siglongjmp(failed, 1);
}

// Bad accesses are ours while this lives.
struct Trap {
  struct sigaction segv, bus;
  stack_t stack;
  Trap() {
    static char memory[64 << 10];
    const stack_t own = {memory, 0, sizeof memory};
    sigaltstack(&own, &stack);
    struct sigaction action = {};
    action.sa_sigaction = on_bad_access;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &segv);
    sigaction(SIGBUS, &action, &bus);
  }
  ~Trap() {
    sigaction(SIGSEGV, &segv, nullptr);
    sigaction(SIGBUS, &bus, nullptr);
    sigaltstack(&stack, nullptr);
  }
};

// --- threads ----------------------------------------------------------------------------------------------------------

void back_to_scheduler() {
  if (!_setjmp(current->context)) _longjmp(scheduler, 1);
}
void live() {
  for (;;) {  // a thread's stack serves one block after another
    (*running.thread)();
    current->state = DONE;
    back_to_scheduler();
  }
}
void resume(Thread& t) {
  current = &t;
  threadIdx = t.index;
  if (!_setjmp(scheduler)) {
    if (t.begun) _longjmp(t.context, 1);
    t.begun = true;
    ucontext_t begin;
    getcontext(&begin);
    begin.uc_stack.ss_sp = t.stack;
    begin.uc_stack.ss_size = STACK;
    begin.uc_link = nullptr;
    makecontext(&begin, live, 0);
    setcontext(&begin);
  }
  current = nullptr;
}

// 0, step, 2·step, … below `end`, in the order of the day.
void arrange(std::vector<unsigned>& items, unsigned end, unsigned step = 1) {
  items.clear();
  for (unsigned i = 0; i < end; i += step) items.push_back(i);
  if (order.sequence == REVERSED) std::reverse(items.begin(), items.end());
  if (order.sequence == SHUFFLED) std::shuffle(items.begin(), items.end(), shuffler);
}

// --- waiting for each other -------------------------------------------------------------------------------------------

bool same(Place a, Place b) { return a.line == b.line && !strcmp(a.file, b.file); }

// Whether every lane of lane i's mask is there; lanes beyond the block count as absent from it.
bool all_there(const Thread* lanes, unsigned count, unsigned i) {
  const Thread& one = lanes[i];
  for (unsigned k = 0; k < count; ++k) {
    if (!(one.mask >> k & 1)) continue;
    if (lanes[k].state == DONE) fail(one, one.place, "waits for lane " + std::to_string(k) + ", which its mask names and which has left");
    if (lanes[k].state != IN_WARP) return false;
    if (!same(lanes[k].place, one.place) || lanes[k].mask != one.mask)
      fail(one, one.place, "waits for lane " + std::to_string(k) + ", which is in another warp operation, " + name_of(lanes[k].place));
  }
  return true;
}
void exchange(Thread* lanes, unsigned count, unsigned mask) {
  for (unsigned k = 0; k < count; ++k) {
    if (!(mask >> k & 1)) continue;
    Thread& t = lanes[k];
    const unsigned source = t.source < WARP ? t.source : k;
    if (source >= count || !(mask >> source & 1)) fail(t, t.place, "reads lane " + std::to_string(source) + ", which takes no part");
    memcpy(t.got, lanes[source].given, sizeof t.got);
    t.state = READY;
  }
}
bool release_warps(unsigned first, unsigned end) {
  bool released = false;
  for (unsigned w = first; w < end; w += WARP) {
    const unsigned count = std::min(WARP, end - w);
    for (unsigned i = 0; i < count; ++i) {
      if (threads[w + i].state != IN_WARP || !all_there(&threads[w], count, i)) continue;
      exchange(&threads[w], count, threads[w + i].mask);
      released = true;
    }
  }
  return released;
}

// Lets those go on who wait in the block's barrier, or says why they never will. Threads that have ended do not count.
void release_block(unsigned n) {
  Thread* one = nullptr;
  for (unsigned i = 0; i < n; ++i) {
    Thread& t = threads[i];
    if (t.state == DONE) continue;
    if (!one) one = &t;
    if (t.state != one->state) {
      const Thread &barrier = t.state == IN_BARRIER ? t : *one, &warp = t.state == IN_BARRIER ? *one : t;
      fail(barrier, barrier.place, "waits in a barrier while thread " + name_of(warp.index) + " waits for its warp in " +
                                       name_of(warp.place) + ": a deadlock");
    }
    if (!same(t.place, one->place))
      fail(*one, one->place, "waits in a barrier while thread " + name_of(t.index) + " waits in another one, " + name_of(t.place));
  }
  if (one->state != IN_BARRIER) fail(*one, one->place, "waits for its warp: a deadlock");
  for (unsigned i = 0; i < n; ++i)
    if (threads[i].state == IN_BARRIER) threads[i].state = READY;
}

bool run_ready(unsigned first, unsigned end) {
  static std::vector<unsigned> turns;
  arrange(turns, end - first);
  bool ran = false;
  for (unsigned i : turns) {
    Thread& t = threads[first + i];
    if (t.state == READY) resume(t), ran = true;
  }
  return ran;
}
void run_block(unsigned n) {
  ++blocks;
  for (unsigned i = 0; i < n; ++i) {
    threads[i].state = READY;
    threads[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
  }
  static std::vector<unsigned> groups;
  const unsigned size = order.warps ? WARP : n;
  for (;;) {
    arrange(groups, n, size);
    for (unsigned first : groups) {
      const unsigned end = std::min(first + size, n);
      while (run_ready(first, end) | release_warps(first, end)) continue;
    }
    if (std::all_of(threads.begin(), threads.begin() + n, [](const Thread& t) { return t.state == DONE; })) return;
    release_block(n);
  }
}
void run_grid(unsigned n) {
  static std::vector<unsigned> turns;  // static, as are the others: a jump past their end frees nothing
  shuffler.seed(n);
  arrange(turns, gridDim.x * gridDim.y * gridDim.z);
  for (unsigned b : turns) {
    blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
    run_block(n);
  }
}

void check(dim3 grid, dim3 block) {
  const uint64_t n = (uint64_t)block.x * block.y * block.z;
  const bool fits = grid.x && grid.x <= 0x7fffffff && grid.y && grid.y <= 65535 && grid.z && grid.z <= 65535 && n &&
                    n <= MAX_THREADS && block.z <= 64 && (uint64_t)grid.x * grid.y * grid.z <= UINT32_MAX;
  if (!fits) throw std::runtime_error(name_of(running.place) + ": " + running.kernel + ": no such grid or block: " +
                                      name_of(uint3{grid.x, grid.y, grid.z}) + ", " + name_of(uint3{block.x, block.y, block.z}));
}

}  // namespace

void launch(const char* kernel, Place place, dim3 grid, dim3 block, size_t dynamic_bytes, const std::function<void()>& thread) {
  if (current) fault(place, "launches a kernel of its own, which the emulator does not know");
  std::lock_guard<std::mutex> hold(one_at_a_time);
  running = {kernel, place, &thread, dynamic_bytes};
  check(grid, block);
  launched.insert(name_of(place));
  gridDim = grid, blockDim = block;
  const unsigned n = block.x * block.y * block.z;
  threads.reserve(MAX_THREADS);
  while (threads.size() < n) threads.push_back({}), threads.back().stack = guarded(STACK, 16);
  Trap trap;
  if (!sigsetjmp(failed, 1)) return run_grid(n);
  current = nullptr;
  for (Thread& t : threads) t.begun = false;  // their stacks are given up
  if (message[0] == '?') {
    const std::string line = line_of(bad_instruction);
    message.replace(0, 1, line.empty() ? name_of(place) : line);
  }
  throw std::runtime_error(message);
}

void fault(Place place, const char* format, ...) {
  char what[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  if (current) fail(*current, place, what);
  fprintf(stderr, "%s: the host %s\n", name_of(place).c_str(), what);
  abort();
}

void block_barrier(Place place) {
  current->state = IN_BARRIER, current->place = place;
  back_to_scheduler();
}
void warp_exchange(unsigned mask, void* value, size_t bytes, unsigned source, Place place) {
  if (!(mask >> lane() & 1)) fault(place, "takes part in a warp operation whose mask %#x does not name it", mask);
  Thread& t = *current;
  t.state = IN_WARP, t.place = place, t.mask = mask, t.source = source;
  memcpy(t.given, value, bytes);
  back_to_scheduler();
  memcpy(value, t.got, bytes);
}
unsigned lane() { return (unsigned)(current - threads.data()) % WARP; }

void* shared(const void* key, size_t bytes, size_t alignment) {
  Region& region = shared_arrays[key];
  if (!region.at) region = {guarded(bytes, alignment), bytes, 0};
  if (region.block != blocks) memset(region.at, 0xff, bytes), region.block = blocks;  // NaN in every floating type
  return region.at;
}
void* dynamic_shared() { return shared(reinterpret_cast<void*>(running.dynamic_bytes), running.dynamic_bytes, 16); }

}  // namespace emulator

// --- what the compiler's checks call (-fsanitize), instead of its library -------------------------------------------------

namespace {
struct Source {
  const char* file;
  unsigned line, column;
};
struct Mismatch {
  Source at;
  const void* type;
  unsigned char log_alignment;
};
}  // namespace
extern "C" {
void __ubsan_handle_type_mismatch_v1_abort(Mismatch* m, uintptr_t p) {
  const emulator::Place place = {m->at.file, (int)m->at.line};
  if (!p) emulator::fault(place, "follows a null pointer");
  emulator::fault(place, "reads or writes at %#zx, which is not a multiple of %d", (size_t)p, 1 << m->log_alignment);
}
#define EMULATOR_REFUSES(check, words) \
  void __ubsan_handle_##check##_abort(Source* at) { emulator::fault({at->file, (int)at->line}, words); }
EMULATOR_REFUSES(out_of_bounds, "indexes an array beyond its end")
EMULATOR_REFUSES(shift_out_of_bounds, "shifts by as many bits as there are, or a sign away")
EMULATOR_REFUSES(add_overflow, "overflows a signed sum")
EMULATOR_REFUSES(sub_overflow, "overflows a signed difference")
EMULATOR_REFUSES(mul_overflow, "overflows a signed product")
EMULATOR_REFUSES(negate_overflow, "overflows a signed negation")
EMULATOR_REFUSES(divrem_overflow, "divides by zero, or overflows a signed quotient")
EMULATOR_REFUSES(pointer_overflow, "overflows a pointer")

// --- for the tests, by ctypes -------------------------------------------------------------------------------------------

#define EMULATOR_EXPORT __attribute__((visibility("default")))
EMULATOR_EXPORT void emulator_set_order(bool warps, int sequence) { emulator::order = {warps, emulator::Sequence(sequence)}; }
// The places that have launched a kernel, one a line.
EMULATOR_EXPORT const char* emulator_launched() {
  static std::string lines;
  lines.clear();
  for (const std::string& place : emulator::launched) lines += place + "\n";
  return lines.c_str();
}
}
