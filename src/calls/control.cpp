// The commands that concern a connection: duplicates, O_NONBLOCK, signal-driven I/O, queue lengths.
#include "calls/control.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "calls/duplicating.h"
#include "calls/kernel.h"
#include "calls/policy.h"

namespace shunt::calls {
namespace {

// SIGIO for every byte is the kernel's work.
void leave_for_signals(int fd) {
  if (Pin connection{fd}) retreat(*connection, fd, Reason::signal_driven);
}

long set_flags(int fd, long flags) {
  note_flags_changed(fd);
  if (flags & O_ASYNC) leave_for_signals(fd);
  Pin connection(fd);
  if (!connection) return kPassOn;
  const long result = kernel.fcntl(fd, F_SETFL, flags);
  if (result >= 0) connection->side->nonblocking.store((flags & O_NONBLOCK) != 0, std::memory_order_relaxed);
  return result;
}

long set_nonblocking(int fd, long argument) {
  int* wanted = reinterpret_cast<int*>(argument);
  Pin connection(fd);
  if (!connection || unreadable(wanted)) return kPassOn;
  const int on = *wanted;
  const long result = kernel.ioctl(fd, FIONBIO, argument);
  if (result >= 0) connection->side->nonblocking.store(on != 0, std::memory_order_relaxed);
  return result;
}

template <typename Count>
long give_count(int fd, long argument, Count count) {
  int* out = reinterpret_cast<int*>(argument);
  Pin connection(fd);
  if (!connection || !has_channel(*connection) || unwritable(out, sizeof *out)) return kPassOn;
  const long bytes = count(*connection, fd);
  if (bytes < 0) return bytes;
  *out = static_cast<int>(bytes);
  return 0;
}

// SIOCATMARK: what lies in the ring, and the bells behind it, come before the mark.
long at_mark(int fd, long argument) {
  int* out = reinterpret_cast<int*>(argument);
  Pin connection(fd);
  if (!connection || !has_channel(*connection) || unwritable(out, sizeof *out)) return kPassOn;
  if (readable_bytes(*connection, fd) < 0) return kPassOn;  // goes on behind the fence if it can
  if (connection->side->in_flow.load(std::memory_order_relaxed) != Flow::ring) return kPassOn;
  *out = 0;
  return 0;
}

bool is_set(long argument) {
  const int* wanted = reinterpret_cast<const int*>(argument);
  return !unreadable(wanted) && *wanted != 0;
}

}  // namespace

long fcntl(int fd, int command, long argument) {
  switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
      return finish_duplicate(fd, kernel.fcntl(fd, command, argument));
    case F_SETFL:
      return set_flags(fd, argument);
    case F_SETOWN:
    case F_SETSIG:
      if (argument != 0) leave_for_signals(fd);
      return kPassOn;
    case F_SETOWN_EX:
      leave_for_signals(fd);
      return kPassOn;
    default:
      return kPassOn;
  }
}

long ioctl(int fd, unsigned long request, long argument) {
  switch (request) {
    case FIONREAD:
      return give_count(fd, argument, readable_bytes);
    case SIOCOUTQ:
      return give_count(fd, argument, unread_bytes);
    case SIOCATMARK:
      return at_mark(fd, argument);
    case FIONBIO:
      note_flags_changed(fd);
      return set_nonblocking(fd, argument);
    case FIOASYNC:
      note_flags_changed(fd);
      [[fallthrough]];
    case FIOSETOWN:
    case SIOCSPGRP:
      if (is_connection(fd) && is_set(argument)) leave_for_signals(fd);
      return kPassOn;
    default:
      return kPassOn;
  }
}

}  // namespace shunt::calls
