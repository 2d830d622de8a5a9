// What the kernel is asked is what the program asks: behind a filter that refuses every other call of the family, everything works as before.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <initializer_list>
#include <vector>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr int kRounds = 200;

void refuse(std::initializer_list<long> numbers) {
  std::vector<sock_filter> filter{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0)};  // seccomp_data::nr
  for (const long number : numbers) {
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1));
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
  }
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog program{.len = static_cast<unsigned short>(filter.size()), .filter = filter.data()};
  CHECK_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  CHECK_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

// Some answers come at once, others when the other end sleeps.
void answer(int fd) {
  for (int round = 0; round < kRounds; ++round) {
    const std::string word = read_exactly(fd, 1);
    if (round % 20 == 0) sleep_ms(2);
    write_all(fd, word);
  }
}

template <typename Wait>
void ask(int fd, Wait wait) {
  for (int round = 0; round < kRounds; ++round) {
    CHECK_EQ(wait(0), 0);
    if (round % 40 == 0) CHECK_EQ(wait(3), 0);
    write_all(fd, "x");
    CHECK_EQ(wait(10'000), 1);
    CHECK_EQ(read_exactly(fd, 1), "x");
  }
}

void ask_by_epoll(int fd, bool mask) {
  const int set = ::epoll_create1(0);
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  ask(fd, [&](int timeout_ms) { return mask ? ::epoll_pwait(set, &event, 1, timeout_ms, nullptr) : ::epoll_wait(set, &event, 1, timeout_ms); });
}

BEHAVIOUR{.name = "of_epoll_wait_are_enough",
          .server = answer,
          .client =
              [](int fd) {
                refuse({SYS_epoll_pwait, SYS_epoll_pwait2, SYS_poll, SYS_select, SYS_pselect6});
                ask_by_epoll(fd, false);
              }};

BEHAVIOUR{.name = "of_epoll_pwait_are_enough",
          .server = answer,
          .client =
              [](int fd) {
                refuse({SYS_epoll_wait, SYS_epoll_pwait2, SYS_poll, SYS_select, SYS_pselect6});
                ask_by_epoll(fd, true);
              }};

// No connection has moved yet, so the program's own call is all that there is.
BEHAVIOUR{.name = "of_poll_are_enough_on_the_kernel",
          .server = answer,
          .client =
              [](int fd) {
                refuse({SYS_epoll_wait, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_ppoll, SYS_select, SYS_pselect6});
                CHECK_EQ(::fcntl(fd, F_SETOWN, ::getpid()), 0);
                ask(fd, [fd](int timeout_ms) {
                  pollfd item{.fd = fd, .events = POLLIN, .revents = 0};
                  return ::poll(&item, 1, timeout_ms);
                });
              },
          .warms_up = false,
          .leaves_ring = true};

// ---- a program that waits past libc gets its own words

constexpr uint64_t kWord = 0x8765'4321'0fed'cba9;

long wait_past_libc(int set, epoll_event* event, int timeout_ms) {
  long result = SYS_epoll_wait;
  register long timeout asm("r10") = timeout_ms;
  asm volatile("syscall" : "+a"(result) : "D"(set), "S"(event), "d"(1), "r"(timeout) : "rcx", "r11", "memory");
  return result;
}

void write_for_three_waits(int fd) {
  for (int i = 0; i < 3; ++i) {
    await_peer();
    write_all(fd, "x");
  }
  await_peer();
}

// Modified and fired, and fired again: the kernel's registration holds what the program asked for from the first moment.
void wait_three_times(int fd, uint32_t mode) {
  const int set = ::epoll_create1(0);
  for (int i = 0; i < 3; ++i) {
    epoll_event event{.events = EPOLLIN | mode, .data = {.u64 = kWord + static_cast<uint64_t>(i)}};
    CHECK_EQ(::epoll_ctl(set, i == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event), 0);
    tell_peer();
    CHECK_EQ(wait_past_libc(set, &event, 10'000), 1);
    CHECK_EQ(event.data.u64, kWord + static_cast<uint64_t>(i));
    CHECK_EQ(event.events, uint32_t{EPOLLIN});
    if (mode & EPOLLONESHOT) CHECK_EQ(wait_past_libc(set, &event, 0), 0);
    CHECK_EQ(read_exactly(fd, 1), "x");
  }
  tell_peer();
}

BEHAVIOUR{.name = "past_libc_get_the_words_of_one_shot_events",
          .server = write_for_three_waits,
          .client = [](int fd) { wait_three_times(fd, EPOLLONESHOT); },
          .warms_up = false,
          .leaves_ring = true};

BEHAVIOUR{.name = "past_libc_get_the_words_of_one_shot_edges",
          .server = write_for_three_waits,
          .client = [](int fd) { wait_three_times(fd, EPOLLONESHOT | EPOLLET); },
          .warms_up = false,
          .leaves_ring = true};

BEHAVIOUR{.name = "past_libc_get_the_words_of_levels",
          .server = write_for_three_waits,
          .client = [](int fd) { wait_three_times(fd, 0); },
          .warms_up = false,
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
