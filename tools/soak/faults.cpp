// Faults at chosen file-system operations, for tools/soak/soak.py: LD_PRELOADed, it counts what this process writes, makes,
// renames and deletes below one folder, and at the n-th time kills the process or lets the operation fail.
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string>

#include <atomic>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

namespace {

enum Mode { COUNT, KILL_BEFORE, KILL_AFTER, FAIL_ONCE, FAIL_FROM };

std::string root;
std::atomic<long> counted{0};
long fatal = 0;
Mode mode = COUNT;
int error = 0;

bool inside(const std::string& path) { return !root.empty() && path.compare(0, root.size(), root) == 0; }

std::string of_handle(int handle) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
  ssize_t length = readlink(link, path, sizeof path);
  return length < 0 ? "" : std::string(path, length);
}

std::string of_path(int folder, const char* path) {
  if (path[0] == '/') return path;
  if (folder != AT_FDCWD) return of_handle(folder) + "/" + path;
  char here[4096];
  return std::string(getcwd(here, sizeof here) ? here : "") + "/" + path;
}

void die() {
  raise(SIGKILL);
  for (;;) pause();
}

// What is to happen to an operation on `path`: 0: it is done; 1: it is done by half and the process dies; -1: it fails.
int verdict(const std::string& path) {
  if (!inside(path)) return 0;
  long now = ++counted;
  if (mode == KILL_BEFORE && now == fatal) die();
  if (mode == KILL_AFTER && now == fatal) return 1;
  if ((mode == FAIL_ONCE && now == fatal) || (mode == FAIL_FROM && now >= fatal)) {
    errno = error;
    return -1;
  }
  return 0;
}

template <class F> F next(F, const char* name) { return reinterpret_cast<F>(dlsym(RTLD_NEXT, name)); }

template <class Do> auto act(const std::string& path, Do operation) -> decltype(operation()) {
  int what = verdict(path);
  if (what < 0) return -1;
  auto result = operation();
  if (what > 0) die();
  return result;
}

}  // namespace

extern "C" {

void faults_arm(const char* folder, long at, int how, int number) {
  root = folder;
  fatal = at;
  mode = static_cast<Mode>(how);
  error = number;
  counted = 0;
}

long faults_counted() { return counted; }

ssize_t write(int handle, const void* data, size_t size) {
  static auto real = next(&write, "write");
  int what = verdict(of_handle(handle));
  if (what < 0) return -1;
  ssize_t result = real(handle, data, what > 0 ? size / 2 : size);
  if (what > 0) die();
  return result;
}

int fsync(int handle) {
  static auto real = next(&fsync, "fsync");
  return act(of_handle(handle), [&] { return real(handle); });
}

int rename(const char* from, const char* to) {
  static auto real = next(&rename, "rename");
  return act(of_path(AT_FDCWD, to), [&] { return real(from, to); });
}

int renameat(int folder, const char* from, int other, const char* to) {
  static auto real = next(&renameat, "renameat");
  return act(of_path(other, to), [&] { return real(folder, from, other, to); });
}

int unlink(const char* path) {
  static auto real = next(&unlink, "unlink");
  return act(of_path(AT_FDCWD, path), [&] { return real(path); });
}

int unlinkat(int folder, const char* path, int flags) {
  static auto real = next(&unlinkat, "unlinkat");
  return act(of_path(folder, path), [&] { return real(folder, path, flags); });
}

int rmdir(const char* path) {
  static auto real = next(&rmdir, "rmdir");
  return act(of_path(AT_FDCWD, path), [&] { return real(path); });
}

int mkdir(const char* path, mode_t rights) {
  static auto real = next(&mkdir, "mkdir");
  return act(of_path(AT_FDCWD, path), [&] { return real(path, rights); });
}

int open64(const char* path, int flags, ...) {
  static auto real = next(&open64, "open64");
  va_list rest;
  va_start(rest, flags);
  mode_t rights = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  auto operation = [&] { return real(path, flags, rights); };
  return (flags & O_ACCMODE) == O_RDONLY ? operation() : act(of_path(AT_FDCWD, path), operation);
}

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t rights = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open64(path, flags, rights);
}

int ftruncate64(int handle, off64_t size) {
  static auto real = next(&ftruncate64, "ftruncate64");
  return act(of_handle(handle), [&] { return real(handle, size); });
}

}
