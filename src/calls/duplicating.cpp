// Follows duplicates. What is put over a descriptor of ours closes it.
#include "calls/duplicating.h"

#include <fcntl.h>

#include "calls/kernel.h"
#include "calls/policy.h"
#include "sys/raw.h"

namespace shunt::calls {
namespace {

// A duplicate that the table cannot follow: among libc's streams, or in a vfork child, from where an exec would carry
// it along.
bool follow(int from, int to) {
  if (!is_connection(from)) return epoll_set_of(from) != nullptr && !in_foreign_process();
  const bool foreign = in_foreign_process();
  if (!foreign && !belongs_to_stdio(to)) return true;
  if (Pin connection{from}; connection && retreat(*connection, from, foreign ? Reason::exec_inherited : Reason::stdio)) {
    const long on_exec = sys::raw(SYS_fcntl, to, F_GETFD);
    sys::raw(SYS_dup3, from, to, on_exec & FD_CLOEXEC ? O_CLOEXEC : 0);  // of the file that `from` is now
  }
  return false;
}

bool is_open(int fd) { return sys::raw(SYS_fcntl, fd, F_GETFD) >= 0; }

// The kernel closes `to` within the call, unless the call fails: so what makes it fail is asked first.
template <typename Duplicate>
long duplicate_over(int from, int to, Duplicate duplicate) {
  if (from == to) return kPassOn;
  spoil(from, Reason::shared_before_upgrade);
  spoil(to, Reason::shared_before_upgrade);
  if ((!is_ours(from) && !is_ours(to)) || !is_open(from)) return kPassOn;
  if (!is_ours(to) || in_foreign_process()) return finish_duplicate(from, duplicate());
  if (Pin connection{to}; connection) take_last_bells(*connection, to);
  long result;
  {
    Closing replaced(to);
    result = duplicate();
  }
  return finish_duplicate(from, result);
}

}  // namespace

long finish_duplicate(int from, long result) {
  spoil(from, Reason::shared_before_upgrade);
  if (result < 0) return result;
  const int to = static_cast<int>(result);
  forget_fresh(to);
  if (follow(from, to))
    note_duplicate(from, to);
  else if (!is_ours(from) || belongs_to_stdio(to))
    forget_stale(to);
  return result;
}

long dup(int fd) { return finish_duplicate(fd, kernel.dup(fd)); }

long dup2(int from, int to) {
  return duplicate_over(from, to, [&] { return kernel.dup2(from, to); });
}

long dup3(int from, int to, int flags) {
  if (flags & ~O_CLOEXEC) return kPassOn;
  return duplicate_over(from, to, [&] { return kernel.dup3(from, to, flags); });
}

}  // namespace shunt::calls
