// The kernel keeps every option; the library follows those that its own waiting and carrying must obey.
#include "calls/socket_options.h"

#include <sys/time.h>

#include <cstring>

#include "calls/kernel.h"
#include "calls/policy.h"
#include "connection/evidence.h"
#include "sys/raw.h"

namespace shunt::calls {
namespace {

// asm-generic/socket.h: not all of them are in the headers of every libc.
enum Option : int {
  kReceiveTimeoutOld = 20,
  kSendTimeoutOld = 21,
  kReceiveTimeoutNew = 66,
  kSendTimeoutNew = 67,
  kPassCredentials = 16,
  kPassSecurity = 34,
  kPeekOffset = 42,
  kPassPidFd = 76,
  kInQueue = 84,
};

enum class Meaning : uint8_t { nothing, receive_timeout, send_timeout, escape };

struct Effect {
  Meaning meaning;
  Reason reason;  // of an escape
};

std::atomic<bool> odd_credentials{false};  // SO_PASSSEC, SO_PASSPIDFD or SO_INQ was ever set in this process

Effect effect_of(int level, int name, const void* value, socklen_t length) {
  if (level != SOL_SOCKET || length < sizeof(int) || unreadable(value, sizeof(int))) return {Meaning::nothing, Reason::none};
  const int number = *static_cast<const int*>(value);
  switch (name) {
    case kReceiveTimeoutOld:
    case kReceiveTimeoutNew:
      return {Meaning::receive_timeout, Reason::none};
    case kSendTimeoutOld:
    case kSendTimeoutNew:
      return {Meaning::send_timeout, Reason::none};
    case kPassSecurity:
    case kPassPidFd:
    case kInQueue:
      if (number != 0) odd_credentials.store(true, std::memory_order_relaxed);
      [[fallthrough]];
    case kPassCredentials:
      return number != 0 ? Effect{Meaning::escape, Reason::pass_credentials} : Effect{Meaning::nothing, Reason::none};
    case SO_RCVLOWAT:
      return number > 1 || number < 0 ? Effect{Meaning::escape, Reason::low_water}
                                      : Effect{Meaning::nothing, Reason::none};
    case kPeekOffset:
      return number >= 0 ? Effect{Meaning::escape, Reason::peek_offset} : Effect{Meaning::nothing, Reason::none};
    default:
      return {Meaning::nothing, Reason::none};
  }
}

// The timeout as the kernel rounded it, or what the program has set it to where nobody may ask. 0: none.
uint64_t kernel_timeout_ns(int fd, int name, const timeval& set) {
  uint64_t now;
  if (kernel_timeout(fd, name, now)) return now;
  return static_cast<uint64_t>(set.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(set.tv_usec) * 1'000;
}

// sock_set_timeout: a negative time means "do not wait", which reads back as 0, as "for ever" does.
uint64_t timeout_ns(int fd, int name, const void* value, socklen_t length) {
  const timeval set = length >= sizeof(timeval) ? *static_cast<const timeval*>(value) : timeval{};
  return set.tv_sec < 0 ? 1 : kernel_timeout_ns(fd, name, set);
}

}  // namespace

long setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  const Effect effect = effect_of(level, name, value, length);
  if (effect.meaning == Meaning::nothing) return kPassOn;
  Pin connection(fd);
  if (effect.meaning == Meaning::escape) {
    spoil(fd, effect.reason);
    if (connection) retreat(*connection, fd, effect.reason);
    return kPassOn;
  }
  note_timeouts(fd);
  if (!connection) return kPassOn;
  const long result = kernel.setsockopt(fd, level, name, value, length);
  if (result < 0) return result;
  std::atomic<uint64_t>& timeout = effect.meaning == Meaning::receive_timeout ? connection->side->receive_timeout_ns
                                                                              : connection->side->send_timeout_ns;
  timeout.store(timeout_ns(fd, name, value, length), std::memory_order_relaxed);
  return result;
}

long getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  if (level != SOL_SOCKET || (name != SO_ERROR && name != SO_PEERCRED)) return kPassOn;
  Pin connection(fd);
  if (!connection || !(has_channel(*connection) || withholds_reset(*connection))) return kPassOn;
  const long result = kernel.getsockopt(fd, level, name, value, length);
  if (name == SO_PEERCRED) {
    if (result >= 0 && connection->relayed.load(std::memory_order_relaxed))
      memcpy(value, &connection->peer_before, *length);
    return result;
  }
  if (result < 0 || *length < sizeof(int)) return result;
  int& error = *static_cast<int*>(value);
  error = take_error(*connection, fd, error);
  return result;
}

long shutdown(int fd, int how) {
  Pin connection(fd);
  if (!connection) return kPassOn;
  note_shutdown(*connection, how);  // the peer must not see the end before it can see what kind of end it is
  const long result = kernel.shutdown(fd, how);
  if (result >= 0) readiness_hooks.shut_down(*connection);
  return result;
}

int read_int_option(int fd, int name) {
  int value = 0;
  socklen_t length = sizeof value;
  return sys::raw(SYS_getsockopt, fd, SOL_SOCKET, name, &value, &length) < 0 ? 0 : value;
}

bool gets_credentials(int fd) {
  if (read_int_option(fd, kPassCredentials) != 0) return true;
  if (!odd_credentials.load(std::memory_order_relaxed)) return false;
  return read_int_option(fd, kPassSecurity) != 0 || read_int_option(fd, kPassPidFd) != 0 ||
         read_int_option(fd, kInQueue) != 0;
}

void read_timeouts(int fd) {
  Pin connection(fd);
  if (!connection) return;
  timeval ignored;
  socklen_t length = sizeof ignored;
  Reason none = Reason::none;  // who may not ask stays where the kernel knows them
  if (sys::raw(SYS_getsockopt, fd, SOL_SOCKET, kReceiveTimeoutOld, &ignored, &length) < 0)
    connection->side->plain.compare_exchange_strong(none, Reason::no_resources, std::memory_order_relaxed);
  connection->side->receive_timeout_ns.store(kernel_timeout_ns(fd, kReceiveTimeoutOld, {}), std::memory_order_relaxed);
  connection->side->send_timeout_ns.store(kernel_timeout_ns(fd, kSendTimeoutOld, {}), std::memory_order_relaxed);
}

}  // namespace shunt::calls
