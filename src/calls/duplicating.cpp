// Follows duplicates. What is put over a descriptor of ours closes it.
#include "calls/duplicating.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "calls/kernel.h"
#include "calls/policy.h"
#include "sys/raw.h"

namespace shunt::calls {
namespace {

// A duplicate that the table cannot follow: under one of libc's streams, or in a vfork child, from where an exec would
// carry it along.
bool follow(int from, int to, bool under_stream) {
  if (!is_connection(from)) return epoll_set_of(from) != nullptr && !in_foreign_process();
  const bool foreign = in_foreign_process();
  if (!foreign && !under_stream) return true;
  if (Pin connection{from}; connection) {
    if (retreat(*connection, from, foreign ? Reason::exec_inherited : Reason::stdio)) {
      const long on_exec = sys::raw(SYS_fcntl, to, F_GETFD);
      sys::raw(SYS_dup3, from, to, on_exec & FD_CLOEXEC ? O_CLOEXEC : 0);  // of the file that `from` is now
    }
    stop_lending(*connection, to);
  }
  return false;
}

bool is_same_socket(int one, int other) {
  struct stat first {}, second {};
  return sys::raw(SYS_fstat, one, &first) >= 0 && sys::raw(SYS_fstat, other, &second) >= 0 &&
         first.st_ino == second.st_ino && first.st_dev == second.st_dev;
}

bool is_open(int fd) { return sys::raw(SYS_fcntl, fd, F_GETFD) >= 0; }

long finish(int from, long result, bool under_stream) {
  spoil(from, Reason::shared_before_upgrade);
  if (result < 0) return result;
  const int to = static_cast<int>(result);
  forget_fresh(to);
  if (follow(from, to, under_stream))
    note_duplicate(from, to);
  else if (!is_ours(from) || under_stream)
    forget_stale(to);
  return result;
}

// The kernel closes `to` within the call, unless the call fails: so what makes it fail is asked first.
template <typename Duplicate>
long duplicate_over(int from, int to, Duplicate duplicate) {
  if (from == to) return kPassOn;
  spoil(from, Reason::shared_before_upgrade);
  spoil(to, Reason::shared_before_upgrade);
  if ((!is_ours(from) && !is_ours(to)) || !is_open(from)) return kPassOn;
  if (!is_ours(to)) return finish(from, duplicate(), has_stream(to));
  if (in_foreign_process()) {
    const long result = finish(from, duplicate(), has_stream(to));
    if (result >= 0) note_foreign_number(to);
    return result;
  }
  if (Pin connection{to}; connection) take_last_bells(*connection, to);
  long result;
  {
    Closing replaced(to);
    result = duplicate();
  }
  return finish(from, result, has_stream(to));
}

}  // namespace

long finish_duplicate(int from, long result) {
  const int to = static_cast<int>(result);
  if (result >= 0) forget_stream(to);  // its number was free
  return finish(from, result, belongs_to_stdio(to));
}

long dup(int fd) { return finish_duplicate(fd, kernel.dup(fd)); }

long dup2(int from, int to) {
  return duplicate_over(from, to, [&] { return kernel.dup2(from, to); });
}

long dup3(int from, int to, int flags) {
  if (flags & ~O_CLOEXEC) return kPassOn;
  return duplicate_over(from, to, [&] { return kernel.dup3(from, to, flags); });
}

// Of this process, or of one that shares its numbers, it is a dup by another name.
long pidfd_getfd(int process, int fd, unsigned flags) {
  const long result = sys::raw(SYS_pidfd_getfd, process, fd, flags);
  if (result < 0) return result;
  const int to = static_cast<int>(result);
  if (is_same_socket(fd, to)) return finish_duplicate(fd, result);
  forget_fresh(to);
  forget_stale(to);
  return result;
}

}  // namespace shunt::calls
