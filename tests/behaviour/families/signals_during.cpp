// Signals that arrive while a call waits or works, errno, and handlers that use the connection themselves.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "alarms.h"
#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

BEHAVIOUR{.name = "a_blocking_read_is_interrupted",
          .server =
              [](int fd) {
                await_peer();
                write_all(fd, "x");
              },
          .client =
              [](int fd) {
                char data[10];
                for (const int delay_ms : {1, 5, 30}) {
                  count_signal(SIGALRM, 0);
                  alarm_after_sleep_ms(delay_ms);
                  CHECK_ERRNO(::read(fd, data, sizeof data), EINTR);
                  CHECK_EQ(signals_counted(), 1);
                  alarm_after_sleep_ms(delay_ms);
                  CHECK_ERRNO(::recv(fd, data, sizeof data, MSG_WAITALL), EINTR);
                }
                tell_peer();
                CHECK_EQ(read_exactly(fd, 1), "x");
              }};

BEHAVIOUR{.name = "a_blocking_read_is_restarted",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(60);
                write_all(fd, "x");
              },
          .client =
              [](int fd) {
                count_signal(SIGALRM, SA_RESTART);
                alarm_after_ms(20);
                tell_peer();
                CHECK_EQ(read_exactly(fd, 1), "x");
                CHECK_EQ(signals_counted(), 1);
              }};

// "SO_RCVTIMEO: a read is not restarted after a handler, even with SA_RESTART" (signal(7)).
BEHAVIOUR{.name = "a_read_with_a_timeout_is_not_restarted",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                const timeval time{10, 0};
                CHECK_EQ(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time), 0);
                count_signal(SIGALRM, SA_RESTART);
                alarm_after_sleep_ms(20);
                char byte = 0;
                CHECK_ERRNO(::read(fd, &byte, 1), EINTR);
                tell_peer();
              }};

BEHAVIOUR{.name = "waitall_returns_what_it_has",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 500));
                await_peer();
              },
          .client =
              [](int fd) {
                CHECK(is_readable(fd, 10'000));
                count_signal(SIGALRM, 0);
                alarm_after_sleep_ms(30);
                std::string data(1000, '\0');
                CHECK_EQ(::recv(fd, data.data(), data.size(), MSG_WAITALL), 500);
                CHECK_EQ(signals_counted(), 1);
                CHECK_EQ(agreeing(data.substr(0, 500), 0), 500U);
                tell_peer();
              }};

BEHAVIOUR{.name = "a_blocking_write_is_interrupted",
          .server =
              [](int fd) {
                read_stream(fd, 0, await_peer(), 65'536);
                tell_peer();
              },
          .client =
              [](int fd) {
                const std::string data = bytes_at(0, size_t{8} << 20);
                count_signal(SIGALRM, 0);
                alarm_after_sleep_ms(50);
                const ssize_t n = ::write(fd, data.data(), data.size());
                CHECK(n > 0 && n < static_cast<ssize_t>(data.size()));
                CHECK_EQ(signals_counted(), 1);
                alarm_after_sleep_ms(30);
                CHECK_ERRNO(::write(fd, data.data() + n, 500'000), EINTR);
                tell_peer(static_cast<uint32_t>(n));
                await_peer();
              },
          .limit = kByFences};

BEHAVIOUR{.name = "a_blocking_write_is_restarted",
          .server =
              [](int fd) {
                const uint32_t count = await_peer();
                sleep_ms(80);
                read_stream(fd, 0, count, 65'536);
              },
          .client =
              [](int fd) {
                set_blocking(fd, false);
                const uint64_t full = fill(fd, 0, 5000);
                set_blocking(fd, true);
                count_signal(SIGALRM, SA_RESTART);
                const std::string data = bytes_at(full, 100'000);
                alarm_after_ms(20);
                tell_peer(static_cast<uint32_t>(full + data.size()));
                CHECK_EQ(::write(fd, data.data(), 1), 1);  // full: sleeps, is interrupted with nothing sent, restarts
                CHECK_EQ(signals_counted(), 1);
                write_all(fd, data.substr(1));
              },
          .limit = kByFences};

// A storm of alarms over an echo: no byte is lost, doubled or moved.
void storm(int fd, int flags) {
  count_signal(SIGALRM, flags);
  alarm_every_us(200);
  uint64_t done = 0;
  for (size_t round = 0; round < 400; ++round) {
    const size_t size = 1 + round * 37 % 9000;
    const std::string data = bytes_at(done, size);
    for (size_t sent = 0; sent < size;) {
      const ssize_t n = ::write(fd, data.data() + sent, size - sent);
      CHECK(n > 0 || (n < 0 && errno == EINTR && flags == 0));
      if (n > 0) sent += static_cast<size_t>(n);
    }
    std::string back(size, '\0');
    for (size_t got = 0; got < size;) {
      const ssize_t n = ::read(fd, back.data() + got, size - got);
      CHECK(n > 0 || (n < 0 && errno == EINTR && flags == 0));
      if (n > 0) got += static_cast<size_t>(n);
    }
    CHECK_EQ(agreeing(back, done), size);
    done += size;
  }
  alarm_every_us(0);
  CHECK(signals_counted() > 0);
}

void echo_storm(int fd) {
  for (size_t round = 0; round < 400; ++round) {
    if (round % 50 == 7) sleep_ms(3);
    write_all(fd, read_exactly(fd, 1 + round * 37 % 9000));
  }
}

BEHAVIOUR{.name = "a_storm_that_interrupts", .server = echo_storm, .client = [](int fd) { storm(fd, 0); }};
BEHAVIOUR{.name = "a_storm_that_restarts", .server = echo_storm, .client = [](int fd) { storm(fd, SA_RESTART); }};

BEHAVIOUR{.name = "a_storm_over_bulk",
          .server = [](int fd) { read_stream(fd, 0, 6'000'000, 40'000); },
          .client =
              [](int fd) {
                count_signal(SIGALRM, SA_RESTART);
                alarm_every_us(200);
                write_stream(fd, 0, 6'000'000, 200'000);  // partial writes are continued
                alarm_every_us(0);
              }};

int handler_fd = -1;

void write_from_handler(int) {
  const int error = errno;
  (void)!::write(handler_fd, "S", 1);
  errno = error;
}

// A handler that writes to the connection that the interrupted code is writing to, as shutdown handlers do. Every byte
// arrives: the program's in order, the handler's somewhere between.
BEHAVIOUR{.name = "a_handler_writes_to_the_same_connection",
          .server =
              [](int fd) {
                std::string program;
                size_t from_handler = 0;
                for (std::string some = read_some(fd, 5000); !some.empty(); some = read_some(fd, 5000)) {
                  for (const char c : some) c == 'S' ? (void)++from_handler : program.push_back(c);
                }
                CHECK_EQ(program.size(), 200'000U);
                for (size_t i = 0; i < program.size(); ++i) CHECK_EQ(program[i], static_cast<char>('a' + i / 10 % 16));
                CHECK(from_handler > 0);
              },
          .client =
              [](int fd) {
                handler_fd = fd;
                struct sigaction action {};
                action.sa_handler = write_from_handler;
                action.sa_flags = SA_RESTART;
                CHECK_EQ(::sigaction(SIGALRM, &action, nullptr), 0);
                alarm_every_us(150);
                const double end = now_ms() + 60;
                for (size_t i = 0; i < 20'000; ++i) {
                  write_all(fd, std::string(10, static_cast<char>('a' + i % 16)));
                  if (i % 2000 == 0 && now_ms() < end) sleep_ms(1);
                }
                alarm_every_us(0);
                ::close(fd);
              }};

// A handler that leaves the interrupted read by writing to the peer, who answers.
BEHAVIOUR{.name = "a_handler_writes_while_the_program_sleeps_in_read",
          .server =
              [](int fd) {
                for (int i = 0; i < 20; ++i) {
                  CHECK_EQ(read_exactly(fd, 1), "S");
                  write_all(fd, "answer");
                }
              },
          .client =
              [](int fd) {
                handler_fd = fd;
                struct sigaction action {};
                action.sa_handler = write_from_handler;
                action.sa_flags = SA_RESTART;
                CHECK_EQ(::sigaction(SIGALRM, &action, nullptr), 0);
                for (int i = 0; i < 20; ++i) {
                  alarm_after_ms(1 + i % 5);
                  CHECK_EQ(read_exactly(fd, 6), "answer");
                }
              }};

BEHAVIOUR{.name = "errno_is_left_alone_by_success",
          .server =
              [](int fd) {
                for (int i = 0; i < 6; ++i) {
                  await_peer();
                  sleep_ms(10);
                  write_all(fd, "x");
                }
                CHECK_EQ(read_exactly(fd, 3), "abc");
              },
          .client =
              [](int fd) {
                const int set = ::epoll_create1(0);
                epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
                pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
                char byte = 0;
                errno = 77;
                CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
                CHECK_EQ(::write(fd, "a", 1), 1);
                CHECK_EQ(::send(fd, "b", 1, 0), 1);
                CHECK_EQ(errno, 77);
                tell_peer();
                CHECK_EQ(::read(fd, &byte, 1), 1);
                tell_peer();
                CHECK_EQ(::recv(fd, &byte, 1, 0), 1);
                CHECK_EQ(errno, 77);
                tell_peer();
                CHECK_EQ(::poll(&one, 1, 10'000), 1);
                CHECK_EQ(::read(fd, &byte, 1), 1);
                CHECK_EQ(::poll(&one, 1, 1), 0);
                CHECK_EQ(errno, 77);
                tell_peer();
                CHECK_EQ(::epoll_wait(set, &event, 1, 10'000), 1);
                CHECK_EQ(::read(fd, &byte, 1), 1);
                CHECK_EQ(::epoll_wait(set, &event, 1, 1), 0);
                CHECK_EQ(errno, 77);
                fd_set readable;
                FD_ZERO(&readable);
                FD_SET(fd, &readable);
                tell_peer();
                CHECK_EQ(::select(fd + 1, &readable, nullptr, nullptr, nullptr), 1);
                CHECK_EQ(::read(fd, &byte, 1), 1);
                CHECK_EQ(errno, 77);
                const int other = ::dup(fd);
                CHECK_EQ(::close(fd), 0);
                CHECK_EQ(errno, 77);
                tell_peer();
                CHECK_EQ(::read(other, &byte, 1), 1);
                CHECK_EQ(::write(other, "c", 1), 1);
                CHECK_EQ(::close(other), 0);
                CHECK_EQ(errno, 77);
              }};

// Ctrl-C must work: the default action of a signal ends a process that waits.
BEHAVIOUR{.name = "the_default_action_ends_a_waiting_process",
          .server =
              [](int fd) {
                const int child = in_child([fd] { read_exactly(fd, 1); });
                sleep_ms(30);
                CHECK_EQ(::kill(child, SIGTERM), 0);
                int status = 0;
                CHECK_EQ(::waitpid(child, &status, 0), child);
                CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
                tell_peer();
              },
          .client = [](int) { await_peer(); }};

std::atomic<int> in_first_thread, elsewhere;

void note_thread(int) { ++(::gettid() == ::getpid() ? in_first_thread : elsewhere); }

// The kernel gives a signal of the process to its first thread if that one does not block it. Python's interpreter relies on it: a lock on which its
// first thread waits is not interrupted by a handler that runs elsewhere.
BEHAVIOUR{.name = "a_signal_for_the_process_goes_to_its_first_thread",
          .server =
              [](int fd) {
                for (int round = 0; round < 300; ++round) {
                  read_exactly(fd, 1);
                  ::usleep(150);  // long enough for the other end to go to sleep
                  write_all(fd, "x");
                }
              },
          .client =
              [](int fd) {
                struct sigaction action = {};
                action.sa_handler = note_thread;
                action.sa_flags = SA_RESTART;
                CHECK_EQ(::sigaction(SIGUSR1, &action, nullptr), 0);
                std::atomic<bool> over{false};
                std::thread worker([fd, &over] {
                  for (int round = 0; round < 300; ++round) {
                    await_sleeping(::getpid());  // before that, libc may still keep its signals off; or it is in the handler still, which blocks the next
                    write_all(fd, "x");
                    CHECK_EQ(::kill(::getpid(), SIGUSR1), 0);
                    CHECK_EQ(read_exactly(fd, 1), "x");
                    while (in_first_thread + elsewhere <= round) ::sched_yield();
                  }
                  over = true;
                });
                while (!over) ::poll(nullptr, 0, 5);
                worker.join();
                // An offer, a fence, a ring that grows: each may meet one, and happens once. In chaos a fence may be long in coming, with a look for it in each read.
                if (current_way() != Way::chaos) CHECK(elsewhere.load() <= 6);
              }};

// Two threads sleep, and one byte wakes both: the one that does not get it must not miss the signal that arrives while it goes back to sleep.
constexpr int kVainRounds = 100;

// In the manner `way`; true: the byte was there, and was taken.
bool wait_for_a_byte(int way, int set, int fd) {
  char byte = 0;
  if (way == 0) {
    const ssize_t n = ::read(fd, &byte, 1);
    CHECK(n == 1 || (n < 0 && errno == EINTR));
    return n == 1;
  }
  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
  epoll_event event{};
  const int n = way == 1 ? ::poll(&one, 1, -1) : ::epoll_wait(set, &event, 1, -1);
  CHECK(n == 1 || (n < 0 && errno == EINTR));
  return n == 1 && ::recv(fd, &byte, 1, MSG_DONTWAIT) == 1;
}

void be_woken_in_vain(int way, int fd) {
  count_signal(SIGUSR1, 0);
  const int set = ::epoll_create1(0);
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  std::atomic<int> bytes = 0, returned = 0, round = 0, ids[2] = {};
  std::atomic<bool> over = false;
  std::thread other([&] {
    ids[0] = ::gettid();
    while (!over) bytes += wait_for_a_byte(way, set, fd);
  });
  std::thread signalled([&] {
    ids[1] = ::gettid();
    for (int mine = 1; mine <= kVainRounds; ++mine) {
      while (round < mine) ::sched_yield();
      bytes += wait_for_a_byte(way, set, fd);
      ++returned;
    }
  });
  const auto await = [](const std::atomic<int>& count, int wanted) {
    for (const double end = now_ms() + 5000; count < wanted && now_ms() < end;) ::sched_yield();
    CHECK(count >= wanted);
  };
  for (int i = 1; i <= kVainRounds; ++i) {
    round = i;
    await(ids[0], 1), await(ids[1], 1);
    await_sleeping(ids[0]);
    await_sleeping(ids[1]);
    tell_peer(1);
    for (const double end = now_ms() + 0.001 * (20 + i * 7 % 130); now_ms() < end;) {
    }
    CHECK_EQ(::pthread_kill(signalled.native_handle(), SIGUSR1), 0);
    await(returned, i);
    await(bytes, i);
  }
  signalled.join();
  over = true;
  await_sleeping(ids[0]);
  CHECK_EQ(::pthread_kill(other.native_handle(), SIGUSR1), 0);
  other.join();
  tell_peer(0);
}

void write_as_told(int fd) {
  while (await_peer() != 0) write_all(fd, "x");
}

BEHAVIOUR{.name = "a_read_woken_in_vain_is_interrupted", .server = write_as_told, .client = [](int fd) { be_woken_in_vain(0, fd); }};
BEHAVIOUR{.name = "a_poll_woken_in_vain_is_interrupted", .server = write_as_told, .client = [](int fd) { be_woken_in_vain(1, fd); }};
BEHAVIOUR{.name = "an_epoll_wait_woken_in_vain_is_interrupted", .server = write_as_told, .client = [](int fd) { be_woken_in_vain(2, fd); }};

BEHAVIOUR{.name = "a_signal_for_one_thread_leaves_the_other_asleep",
          .server =
              [](int fd) {
                await_peer();
                write_all(fd, "xy");
              },
          .client =
              [](int fd) {
                count_signal(SIGUSR1, 0);
                std::atomic<int> id = 0;
                std::thread reader([fd, &id] {
                  id = ::gettid();
                  char byte = 0;
                  CHECK_ERRNO(::read(fd, &byte, 1), EINTR);
                  CHECK_EQ(read_exactly(fd, 2), "xy");
                });
                while (id == 0) ::sched_yield();
                await_sleeping(id);
                CHECK_EQ(::pthread_kill(reader.native_handle(), SIGUSR1), 0);
                while (signals_counted() == 0) sleep_ms(1);
                tell_peer();
                reader.join();
              }};

}  // namespace
}  // namespace shunt::behaviour
