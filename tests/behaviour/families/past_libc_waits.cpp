// Waits past libc: poll, epoll_wait and epoll_ctl by instructions of the program's own. Its data words, and nobody
// else's.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "past_libc.h"

namespace shunt::behaviour {
namespace {

constexpr size_t kMaskBytes = 8;  // of a signal mask, for the kernel
constexpr uint64_t kPiece = 20;
constexpr int kQuietMs = 2;

timespec span_of(int timeout_ms) { return {.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1'000'000L}; }

int poll_by_instruction(pollfd* one, int timeout_ms) {
  return static_cast<int>(by_instruction(SYS_poll, one, 1, timeout_ms));
}

int ppoll_by_instruction(pollfd* one, int timeout_ms) {
  timespec span = span_of(timeout_ms);
  return static_cast<int>(by_instruction(SYS_ppoll, one, 1, timeout_ms < 0 ? nullptr : &span, nullptr, kMaskBytes));
}

int epoll_wait_by_instruction(int set, epoll_event* events, int most, int timeout_ms) {
  return static_cast<int>(by_instruction(SYS_epoll_wait, set, events, most, timeout_ms));
}

int epoll_pwait_by_instruction(int set, epoll_event* events, int most, int timeout_ms) {
  return static_cast<int>(by_instruction(SYS_epoll_pwait, set, events, most, timeout_ms, nullptr, kMaskBytes));
}

int epoll_pwait2_by_instruction(int set, epoll_event* events, int most, int timeout_ms) {
  timespec span = span_of(timeout_ms);
  return static_cast<int>(
      by_instruction(SYS_epoll_pwait2, set, events, most, timeout_ms < 0 ? nullptr : &span, nullptr, kMaskBytes));
}

int epoll_ctl_by_instruction(int set, int operation, int fd, epoll_event* event) {
  return static_cast<int>(by_instruction(SYS_epoll_ctl, set, operation, fd, event));
}

Calls polling(int (*poll)(pollfd*, int)) {
  Calls calls = kThroughLibc;
  calls.poll = poll;
  return calls;
}

Calls waiting(int (*wait)(int, epoll_event*, int, int)) {
  Calls calls = kThroughLibc;
  calls.epoll_wait = wait;
  return calls;
}

Calls with_a_set_of_its_own() {
  Calls calls = kThroughLibc;
  calls.epoll_create = [](int flags) { return static_cast<int>(by_instruction(SYS_epoll_create1, flags)); };
  return calls;
}

Calls with_all_of_epoll() {
  Calls calls = with_a_set_of_its_own();
  calls.epoll_ctl = epoll_ctl_by_instruction;
  calls.epoll_wait = epoll_wait_by_instruction;
  return calls;
}

void wait_in_a_new_set(Talk& talk) { talk.wait_with(talk.asked_mode); }

// One call by instruction, and back to libc's.
void past_libc(Talk& talk, void (*call)(Talk&)) {
  talk.calls.epoll_ctl = epoll_ctl_by_instruction;
  call(talk);
  talk.calls = kThroughLibc;
}

// What lies there is not told by a set that does not have the connection.
void del_past_libc(Talk& talk) {
  past_libc(talk, [](Talk& one) { one.disarm(); });
  talk.tell();
  talk.hear();
  CHECK(!talk.is_told(kQuietMs));
  talk.take_at_once(kPiece);
  talk.arm(EPOLL_CTL_ADD);
}

void send_a_piece(Talk& talk) {
  talk.hear();
  talk.put(kPiece);
  talk.tell();
}

const Operation kWaits[] = {
    {.name = "poll", .calls = polling(poll_by_instruction), .modes = bit(Mode::poll), .later_is_limit = true},
    {.name = "ppoll", .calls = polling(ppoll_by_instruction), .modes = bit(Mode::poll), .later_is_limit = true},
    {.name = "epoll_wait", .calls = waiting(epoll_wait_by_instruction), .modes = kEpollModes, .later_is_limit = true},
    {.name = "epoll_pwait", .calls = waiting(epoll_pwait_by_instruction), .modes = kEpollModes, .later_is_limit = true},
    {.name = "epoll_pwait2", .calls = waiting(epoll_pwait2_by_instruction), .modes = kEpollModes, .later_is_limit = true},
    // Reads that wait until then.
    {.name = "epoll_ctl_add",
     .act = [](Talk& talk) { past_libc(talk, wait_in_a_new_set); },
     .modes = kEpollModes,
     .begins_blocking = true,
     .later_is_limit = true},
    {.name = "epoll_ctl_mod",
     .each = [](Talk& talk, int) { past_libc(talk, [](Talk& one) { one.arm(EPOLL_CTL_MOD); }); },
     .modes = kEpollModes,
     .later_is_limit = true},
    {.name = "epoll_ctl_del", .act = del_past_libc, .face = send_a_piece, .modes = kEpollModes, .later_is_limit = true},
    // And libc adds it again, each time.
    {.name = "epoll_ctl_del_over_and_over",
     .each =
         [](Talk& talk, int) {
           past_libc(talk, [](Talk& one) { one.disarm(); });
           talk.arm(EPOLL_CTL_ADD);
         },
     .modes = kEpollModes,
     .first_is_limit = true,  // it is registered through libc again and again, and upgraded while it is
     .later_is_limit = true},
    // A set that libc did not make, and one of which nothing went through libc.
    {.name = "epoll_create",
     .calls = with_a_set_of_its_own(),
     .act = wait_in_a_new_set,
     .modes = kEpollModes,
     .begins_blocking = true},
    {.name = "epoll_ctl_and_epoll_wait",
     .calls = with_all_of_epoll(),
     .act = wait_in_a_new_set,
     .modes = kEpollModes,
     .begins_blocking = true,
     .later_is_limit = true},
};

[[maybe_unused]] const bool added = add_operations<kWaits>({SHUNT_FAMILY});

}  // namespace
}  // namespace shunt::behaviour
