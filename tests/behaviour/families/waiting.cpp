// What a wait takes and leaves: times, masks, the sets of select, numbers of every kind, and files that are no sockets.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <csignal>

#include "alarms.h"
#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

constexpr int kClosed = 40;

int set_of(int fd, uint32_t events) {
  const int set = ::epoll_create1(0);
  epoll_event event{.events = events, .data = {.fd = fd}};
  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  return set;
}

fd_set only(int fd) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  return set;
}

sigset_t mask_of(int signal) {
  sigset_t mask;
  ::sigemptyset(&mask);
  if (signal != 0) ::sigaddset(&mask, signal);
  return mask;
}

void write_when_asked(int fd) {
  await_peer();
  write_all(fd, "x");
  tell_peer();
  await_peer();
}

BEHAVIOUR{.name = "epoll_pwait2_counts_nanoseconds",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                const int set = set_of(fd, EPOLLIN);
                epoll_event event{};
                for (const long ns : {0L, 1L, 300'000L, 2'500'000L}) {
                  const timespec time{0, ns};
                  const double start = now_ms();
                  CHECK_EQ(::epoll_pwait2(set, &event, 1, &time, nullptr), 0);
                  const double took = now_ms() - start;
                  CHECK(took >= static_cast<double>(ns) / 1e6 && took < 1500);
                }
                for (const timespec wrong : {timespec{0, -1}, timespec{0, 1'000'000'000}, timespec{-1, 0}})
                  CHECK_ERRNO(::epoll_pwait2(set, &event, 1, &wrong, nullptr), EINVAL);
                tell_peer();
              }};

// do_epoll_pwait: the mask holds for the wait. A signal that it lets through ends it; with something to tell the signal
// stays pending.
BEHAVIOUR{
    .name = "epoll_pwait_swaps_the_mask_for_the_time_of_the_wait", .server = write_when_asked, .client = [](int fd) {
      const int set = set_of(fd, EPOLLIN);
      count_signal(SIGALRM, SA_RESTART);
      const sigset_t blocked = mask_of(SIGALRM);
      const sigset_t open = mask_of(0);
      epoll_event event{};
      const timespec time{10, 0};
      alarm_after_ms(20);
      CHECK_EQ(::epoll_pwait(set, &event, 1, 60, &blocked), 0);  // it stays pending during the wait
      CHECK_EQ(signals_counted(), 1);
      ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
      ::raise(SIGALRM);
      CHECK_ERRNO(::epoll_pwait2(set, &event, 1, &time, &open), EINTR);
      CHECK_EQ(signals_counted(), 2);
      tell_peer();
      await_peer();
      ::raise(SIGALRM);
      CHECK_EQ(::epoll_pwait2(set, &event, 1, &time, &open), 1);
      CHECK_EQ(::epoll_pwait(set, &event, 1, 10'000, &open), 1);
      pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
      CHECK_EQ(::ppoll(&one, 1, &time, &open), 1);
      CHECK_EQ(signals_counted(), 2);
      sigset_t pending;
      ::sigpending(&pending);
      CHECK_EQ(::sigismember(&pending, SIGALRM), 1);
      sigset_t after;
      ::sigprocmask(SIG_BLOCK, nullptr, &after);
      CHECK_EQ(::sigismember(&after, SIGALRM), 1);
      ::sigprocmask(SIG_SETMASK, &open, nullptr);
      CHECK_EQ(signals_counted(), 3);
      tell_peer();
    }};

// select(2): "On Linux, select() modifies timeout to reflect the amount of time not slept."
BEHAVIOUR{.name = "select_leaves_the_time_that_was_not_slept",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(40);
                write_all(fd, "x");
                await_peer();
              },
          .client =
              [](int fd) {
                count_signal(SIGALRM, 0);
                fd_set set = only(fd);
                timeval time{10, 0};
                alarm_after_sleep_ms(30);
                CHECK_ERRNO(::select(fd + 1, &set, nullptr, nullptr, &time), EINTR);
                CHECK(time.tv_sec == 9 && time.tv_usec > 0 && time.tv_usec < 990'000);
                CHECK(FD_ISSET(fd, &set));  // an error leaves the sets alone
                tell_peer();
                time = {10, 0};
                CHECK_EQ(::select(fd + 1, &set, nullptr, nullptr, &time), 1);
                CHECK(time.tv_sec == 9 && time.tv_usec > 0 && time.tv_usec < 990'000);
                time = {5, 250};
                CHECK_EQ(::select(fd + 1, &set, nullptr, nullptr, &time), 1);
                CHECK(time.tv_sec == 4 || (time.tv_sec == 5 && time.tv_usec <= 250));
                timespec span{10, 0};
                CHECK_EQ(::pselect(fd + 1, &set, nullptr, nullptr, &span, nullptr), 1);
                CHECK(span.tv_sec == 10 && span.tv_nsec == 0);  // libc keeps the kernel's change to itself
                tell_peer();
              }};

BEHAVIOUR{.name = "select_leaves_sets", .server = write_when_asked, .client = [](int fd) {
            fd_set readable = only(fd);
            fd_set writable = only(fd);
            fd_set odd = only(fd);
            timeval time{0, 1000};
            CHECK_EQ(::select(fd + 1, &readable, nullptr, &odd, &time), 0);
            CHECK(!FD_ISSET(fd, &readable));
            CHECK(!FD_ISSET(fd, &odd));
            readable = only(fd);
            FD_SET(kClosed, &readable);
            time = {0, 1000};
            CHECK_ERRNO(::select(kClosed + 1, &readable, &writable, nullptr, &time), EBADF);
            CHECK(FD_ISSET(fd, &readable) && FD_ISSET(kClosed, &readable) && FD_ISSET(fd, &writable));
            tell_peer();
            await_peer();
            FD_CLR(kClosed, &readable);
            FD_SET(kClosed, &odd);  // beyond the count: neither looked at nor changed
            CHECK_EQ(::select(fd + 1, &readable, &writable, &odd, nullptr), 2);
            CHECK(FD_ISSET(fd, &readable) && FD_ISSET(fd, &writable) && !FD_ISSET(fd, &odd));
            tell_peer();
          }};

// Numbers that select cannot hold, and one entry for each of several hundred duplicates.
BEHAVIOUR{.name = "poll_takes_large_numbers_and_many", .server = write_when_asked, .client = [](int fd) {
            constexpr int kFirst = 1500;
            constexpr int kMany = 300;
            const rlimit limit{4096, 4096};
            rlimit old{};
            ::getrlimit(RLIMIT_NOFILE, &old);
            if (old.rlim_cur < limit.rlim_cur) CHECK_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
            pollfd entries[kMany];
            for (int i = 0; i < kMany; ++i) {
              CHECK_EQ(::fcntl(fd, F_DUPFD_CLOEXEC, kFirst + i), kFirst + i);
              entries[i] = {
                  .fd = kFirst + i, .events = static_cast<short>(i % 2 ? POLLIN : POLLIN | POLLOUT), .revents = 9};
            }
            CHECK_EQ(::poll(entries, kMany, -1), kMany / 2);
            tell_peer();
            await_peer();
            CHECK_EQ(::poll(entries, kMany, 10'000), kMany);
            for (int i = 0; i < kMany; ++i) CHECK_EQ(entries[i].revents, i % 2 ? POLLIN : POLLIN | POLLOUT);
            epoll_event event{};
            CHECK_EQ(::epoll_wait(set_of(kFirst, EPOLLIN), &event, 1, 10'000), 1);
            CHECK_EQ(event.data.fd, kFirst);
            CHECK_EQ(read_exactly(kFirst + 1, 1), "x");
            tell_peer();
          }};

// POLLNVAL at once, whatever the others say; epoll_ctl has EBADF for it.
BEHAVIOUR{
    .name = "closed_connections_are_invalid",
    .server = [](int) { await_peer(); },
    .client =
        [](int fd) {
          const int other = ::dup(fd);
          const int set = set_of(fd, EPOLLIN);
          ::close(other);
          pollfd both[] = {{.fd = fd, .events = POLLIN, .revents = 9}, {.fd = other, .events = POLLIN, .revents = 9}};
          CHECK_EQ(::poll(both, 2, 10'000), 1);
          CHECK_EQ(both[0].revents, 0);
          CHECK_EQ(both[1].revents, POLLNVAL);
          fd_set bad = only(other);
          timeval time{0, 0};
          CHECK_ERRNO(::select(other + 1, &bad, nullptr, nullptr, &time), EBADF);
          epoll_event event{.events = EPOLLIN, .data = {.fd = other}};
          CHECK_ERRNO(::epoll_ctl(set, EPOLL_CTL_ADD, other, &event), EBADF);
          CHECK_ERRNO(::epoll_ctl(other, EPOLL_CTL_ADD, fd, &event), EBADF);
          CHECK_ERRNO(::epoll_wait(other, &event, 1, 0), EBADF);
          CHECK_ERRNO(::epoll_ctl(set, EPOLL_CTL_ADD, set, &event), EINVAL);
          tell_peer();
          ::close(fd);
          both[0].revents = 9;
          CHECK_EQ(::poll(both, 1, 0), 1);
          CHECK_EQ(both[0].revents, POLLNVAL);
        }};

BEHAVIOUR{.name = "mixes_every_kind_of_file", .server = write_when_asked, .client = [](int fd) {
            const sigset_t user = mask_of(SIGUSR1);
            ::sigprocmask(SIG_BLOCK, &user, nullptr);
            const int timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
            const int event = ::eventfd(0, EFD_NONBLOCK);
            const int signal = ::signalfd(-1, &user, SFD_NONBLOCK);
            const int file = ::open("/proc/self/exe", O_RDONLY);
            int pipe[2];
            CHECK_EQ(::pipe(pipe), 0);
            const int all[] = {fd, timer, event, signal, pipe[0]};
            const int set = ::epoll_create1(0);
            pollfd entries[6];
            for (int i = 0; i < 5; ++i) {
              epoll_event asked{.events = EPOLLIN, .data = {.u32 = static_cast<uint32_t>(i)}};
              CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, all[i], &asked), 0);
              entries[i] = {.fd = all[i], .events = POLLIN, .revents = 9};
            }
            epoll_event asked{.events = EPOLLIN, .data = {}};
            CHECK_ERRNO(::epoll_ctl(set, EPOLL_CTL_ADD, file, &asked), EPERM);
            entries[5] = {.fd = file, .events = POLLIN | POLLOUT, .revents = 9};
            CHECK_EQ(::poll(entries, 6, 10'000), 1);  // a file is always ready
            CHECK_EQ(entries[5].revents, POLLIN | POLLOUT);
            CHECK_EQ(::poll(entries, 5, 1), 0);

            // One after the other, each wakes a sleeper; what was ready stays so.
            const itimerspec soon{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_nsec = 5'000'000}};
            CHECK_EQ(::timerfd_settime(timer, 0, &soon, nullptr), 0);
            epoll_event told[8];
            CHECK_EQ(::epoll_wait(set, told, 8, 10'000), 1);
            CHECK_EQ(told[0].data.u32, 1U);
            CHECK_EQ(::eventfd_write(event, 1), 0);
            CHECK_EQ(::kill(::getpid(), SIGUSR1), 0);
            write_all(pipe[1], "p");
            CHECK_EQ(::poll(entries, 5, 10'000), 4);
            CHECK_EQ(entries[0].revents, 0);
            CHECK_EQ(::epoll_wait(set, told, 8, 10'000), 4);
            tell_peer();
            await_peer();
            CHECK_EQ(::poll(entries, 5, 10'000), 5);
            unsigned seen = 0;
            for (int i = 0; i < 20 && seen != 31; ++i) {
              const int n = ::epoll_wait(set, told, 8, 10'000);
              for (int k = 0; k < n; ++k) seen |= 1U << told[k].data.u32;
            }
            CHECK_EQ(seen, 31U);
            tell_peer();
          }};

}  // namespace
}  // namespace shunt::behaviour
