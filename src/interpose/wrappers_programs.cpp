// exec, spawned programs, and the end of this one. Some run in a vfork child: on its parent's memory.
#include <alloca.h>

#include "calls/escape.h"
#include "calls/policy.h"
#include "interpose/children.h"
#include "interpose/export.h"
#include "interpose/inheritance.h"

using shunt::interpose::active;
using shunt::interpose::KeepErrno;
using shunt::interpose::next;
namespace calls = shunt::calls;

namespace {

// Around an exec of `path` (null: not known before libc has searched for it). Its destructor runs only if exec failed.
class Exec {
 public:
  explicit Exec(const char* path) {
    KeepErrno keep;
    prepared_ = active() && !(path && calls::exec_must_fail(path));
    if (!prepared_) return;
    shunt::interpose::report("exec");
    calls::before_exec();
  }
  ~Exec() {
    KeepErrno keep;
    if (prepared_) calls::after_failed_exec();
  }
  Exec(const Exec&) = delete;
  Exec& operator=(const Exec&) = delete;

 private:
  bool prepared_;
};

// execvp searches PATH for a name without a slash.
const char* known_path(const char* file) {
  for (const char* c = file; c && *c; ++c)
    if (*c == '/') return file;
  return nullptr;
}

size_t count_arguments(va_list arguments) {
  va_list copy;
  va_copy(copy, arguments);
  size_t count = 1;
  while (va_arg(copy, char*)) ++count;
  va_end(copy);
  return count;
}

}  // namespace

// Turns `first, ...` into a vector on the caller's stack.
#define SHUNT_GATHER(vector, first, arguments)                               \
  va_list arguments;                                                         \
  va_start(arguments, first);                                                \
  const size_t vector##_size = first ? count_arguments(arguments) + 1 : 1;   \
  auto* vector = static_cast<char**>(alloca(vector##_size * sizeof(char*))); \
  vector[0] = const_cast<char*>(first);                                      \
  for (size_t i = 1; i < vector##_size; ++i) vector[i] = va_arg(arguments, char*)

SHUNT_WRAPPER(int, execve, (const char* path, char* const* argv, char* const* environment)) {
  const Exec exec(path);
  SHUNT_INHERIT(whole, environment)
  return next.execve(path, argv, whole);
}

SHUNT_WRAPPER(int, execv, (const char* path, char* const* argv)) {
  const Exec exec(path);
  SHUNT_INHERIT(whole, environ)
  return next.execve(path, argv, whole);
}

SHUNT_WRAPPER(int, execvp, (const char* file, char* const* argv)) {
  const Exec exec(known_path(file));
  SHUNT_INHERIT(whole, environ)
  return next.execvpe(file, argv, whole);
}

SHUNT_WRAPPER(int, execvpe, (const char* file, char* const* argv, char* const* environment)) {
  const Exec exec(known_path(file));
  SHUNT_INHERIT(whole, environment)
  return next.execvpe(file, argv, whole);
}

SHUNT_WRAPPER(int, execveat, (int fd, const char* path, char* const* argv, char* const* environment, int flags)) {
  const Exec exec(nullptr);
  SHUNT_INHERIT(whole, environment)
  return next.execveat(fd, path, argv, whole, flags);
}

SHUNT_WRAPPER(int, fexecve, (int fd, char* const* argv, char* const* environment)) {
  const Exec exec(nullptr);
  SHUNT_INHERIT(whole, environment)
  return next.fexecve(fd, argv, whole);
}

SHUNT_WRAPPER(int, execl, (const char* path, const char* first, ...)) {
  SHUNT_GATHER(argv, first, arguments);
  va_end(arguments);
  const Exec exec(path);
  SHUNT_INHERIT(whole, environ)
  return next.execve(path, argv, whole);
}

SHUNT_WRAPPER(int, execlp, (const char* file, const char* first, ...)) {
  SHUNT_GATHER(argv, first, arguments);
  va_end(arguments);
  const Exec exec(known_path(file));
  SHUNT_INHERIT(whole, environ)
  return next.execvpe(file, argv, whole);
}

SHUNT_WRAPPER(int, execle, (const char* path, const char* first, ...)) {
  SHUNT_GATHER(argv, first, arguments);
  char* const* environment = va_arg(arguments, char* const*);
  va_end(arguments);
  const Exec exec(path);
  SHUNT_INHERIT(whole, environment)
  return next.execve(path, argv, whole);
}

SHUNT_WRAPPER(int, posix_spawn,
              (pid_t * pid, const char* path, const posix_spawn_file_actions_t* actions,
               const posix_spawnattr_t* attributes, char* const* argv, char* const* environment)) {
  actions ? calls::before_spawn_with_actions() : calls::before_spawn();
  SHUNT_INHERIT(whole, environment)
  return next.posix_spawn(pid, path, actions, attributes, argv, whole);
}

SHUNT_WRAPPER(int, posix_spawnp,
              (pid_t * pid, const char* file, const posix_spawn_file_actions_t* actions,
               const posix_spawnattr_t* attributes, char* const* argv, char* const* environment)) {
  actions ? calls::before_spawn_with_actions() : calls::before_spawn();
  SHUNT_INHERIT(whole, environment)
  return next.posix_spawnp(pid, file, actions, attributes, argv, whole);
}

SHUNT_WRAPPER(int, posix_spawn_file_actions_adddup2, (posix_spawn_file_actions_t * actions, int from, int to)) {
  calls::before_inheritance(from);
  return next.posix_spawn_file_actions_adddup2(actions, from, to);
}

SHUNT_WRAPPER(int, system, (const char* command)) {
  calls::before_spawn();
  return next.system(command);
}

SHUNT_WRAPPER(FILE*, popen, (const char* command, const char* mode)) {
  calls::before_spawn();
  FILE* stream = next.popen(command, mode);
  if (stream) calls::note_stream(calls::made(fileno(stream)));
  return stream;
}
SHUNT_SECOND_NAME(_IO_popen, popen);

SHUNT_WRAPPER(FILE*, _IO_proc_open, (FILE * stream, const char* command, const char* mode)) {
  calls::before_spawn();
  return next._IO_proc_open(stream, command, mode);
}

SHUNT_WRAPPER(int, wordexp, (const char* words, wordexp_t* result, int flags)) {
  calls::before_spawn();
  return next.wordexp(words, result, flags);
}

// The parent ends inside libc.
SHUNT_WRAPPER(int, daemon, (int keep_directory, int keep_streams)) {
  shunt::interpose::report("exit");
  const int result = shunt::interpose::with_fork_handlers([&] { return next.daemon(keep_directory, keep_streams); });
  if (result == 0 && !keep_streams) calls::after_streams_replaced();
  return result;
}

SHUNT_WRAPPER(void, _exit, (int status)) {
  shunt::interpose::report_end("_exit");
  next._exit(status);
  __builtin_unreachable();
}
SHUNT_SECOND_NAME(_Exit, _exit);
