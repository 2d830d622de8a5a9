// Calls that are left half way: pthread_cancel, pthread_exit and siglongjmp out of a handler. What they held must not be missed by anybody.
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csetjmp>
#include <csignal>
#include <cstring>
#include <thread>
#include <vector>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

// ---- what a thread may sleep in

ssize_t in_read(int fd) {
  char data[100];
  return ::read(fd, data, sizeof data);
}
ssize_t in_recv(int fd) {
  char data[100];
  return ::recv(fd, data, sizeof data, MSG_WAITALL);
}
ssize_t in_recvmsg(int fd) {
  char data[100];
  iovec part{data, sizeof data};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  return ::recvmsg(fd, &message, 0);
}
ssize_t in_poll(int fd) {
  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&one, 1, -1);
}
ssize_t in_select(int fd) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  return ::select(fd + 1, &set, nullptr, nullptr, nullptr);
}

int set_of_epoll = -1;
ssize_t in_epoll_wait(int) {
  epoll_event event;
  return ::epoll_wait(set_of_epoll, &event, 1, -1);
}

void watch_in_epoll(int fd) {
  set_of_epoll = ::epoll_create1(0);
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  CHECK_EQ(::epoll_ctl(set_of_epoll, EPOLL_CTL_ADD, fd, &event), 0);
}

using Call = ssize_t (*)(int);
struct Waiting {
  const char* name;
  Call call;
};
constexpr Waiting kWaiting[] = {{"read", in_read}, {"recv", in_recv},     {"recvmsg", in_recvmsg},
                                {"poll", in_poll}, {"select", in_select}, {"epoll_wait", in_epoll_wait}};

// Starts a thread that sleeps in the call, and cancels it there.
template <class Body>
void cancelled_in(Body body) {
  std::atomic<int> id{0};
  std::thread thread([&] {
    id = ::gettid();
    body();
    CHECK(false && "the call came back");
  });
  while (id == 0) sleep_ms(1);
  await_sleeping(id);
  CHECK_EQ(::pthread_cancel(thread.native_handle()), 0);
  thread.join();
}

// A wait in which nothing happens: it sleeps once, or a few times if it looks after itself.
void expect_quiet_wait(int fd) {
  rusage before{}, after{};
  CHECK_EQ(::getrusage(RUSAGE_THREAD, &before), 0);
  CHECK(!is_readable(fd, 250));
  CHECK_EQ(::getrusage(RUSAGE_THREAD, &after), 0);
  CHECK(after.ru_nvcsw - before.ru_nvcsw < 6);
}

void answer(int fd, uint64_t& done, size_t size) {
  CHECK_EQ(read_exactly(fd, size), bytes_at(done, size));
  write_all(fd, bytes_at(done, size));
  done += size;
}

// Who asked is seen to wait.
void answer_late(int fd, uint64_t& done, size_t size) {
  CHECK_EQ(read_exactly(fd, size), bytes_at(done, size));
  sleep_ms(1);
  write_all(fd, bytes_at(done, size));
  done += size;
}

void ask(int fd, uint64_t& done, size_t size) {
  write_all(fd, bytes_at(done, size));
  CHECK_EQ(read_exactly(fd, size), bytes_at(done, size));
  done += size;
}

BEHAVIOUR{.name = "cancelled_while_waiting_for_data",
          .server =
              [](int fd) {
                uint64_t done = 0;
                for (size_t i = 0; i < std::size(kWaiting) * 5; ++i) answer(fd, done, 100 + i * 77);
              },
          .client =
              [](int fd) {
                watch_in_epoll(fd);
                uint64_t done = 0;
                for (size_t i = 0; i < std::size(kWaiting) * 5; ++i) {
                  const Waiting& waiting = kWaiting[i % std::size(kWaiting)];
                  about(waiting.name);
                  cancelled_in([&] { waiting.call(fd); });
                  ask(fd, done, 100 + i * 77);
                }
                expect_quiet_wait(fd);
              }};

constexpr size_t kBlock = 3000;

ssize_t in_write(int fd) {
  static constexpr char block[kBlock] = {};
  return ::write(fd, block, sizeof block);
}
ssize_t in_poll_for_space(int fd) {
  pollfd one{.fd = fd, .events = POLLOUT, .revents = 0};
  return ::poll(&one, 1, -1);
}

uint64_t fill_up(int fd) {
  set_blocking(fd, false);
  const uint64_t full = fill(fd, 0, kBlock);
  set_blocking(fd, true);
  return full;
}

void drain_rounds(int fd, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    const uint32_t count = await_peer();
    read_stream(fd, 0, count, 65'536);
    tell_peer();
    CHECK_EQ(read_exactly(fd, 3), "end");
    await_peer();
    write_all(fd, "x");
  }
}

// Nothing of the write went out, and who waits for data afterwards is not disturbed.
BEHAVIOUR{.name = "cancelled_while_waiting_for_space",
          .server = [](int fd) { drain_rounds(fd, 2); },
          .client =
              [](int fd) {
                for (int i = 0; i < 2; ++i) {
                  const uint64_t full = fill_up(fd);
                  cancelled_in([&] { i % 2 == 0 ? in_write(fd) : in_poll_for_space(fd); });
                  tell_peer(static_cast<uint32_t>(full));
                  await_peer();
                  write_all(fd, "end");
                  expect_quiet_wait(fd);
                  tell_peer();
                  CHECK_EQ(read_exactly(fd, 1), "x");
                }
              },
          .limit = kByFences};

// The thread slept in the kernel since before there was anything else.
BEHAVIOUR{.name = "a_read_of_old_is_cancelled",
          .server =
              [](int fd) {
                cancelled_in([&] {
                  std::thread([fd] {
                    sleep_ms(30);
                    for (int i = 0; i < 10; ++i) write_all(fd, "0123456789");
                    tell_peer();
                  }).detach();
                  await_peer();  // a cancellation point, too, but the peer speaks at once
                  in_read(fd);
                });
                uint64_t done = 0;
                for (int i = 0; i < 20; ++i) answer_late(fd, done, 500);
              },
          .client =
              [](int fd) {
                tell_peer();
                await_peer();
                CHECK_EQ(read_exactly(fd, 100).substr(90), "0123456789");
                uint64_t done = 0;
                for (int i = 0; i < 20; ++i) sleep_ms(2), ask(fd, done, 500);
              },
          .warms_up = false};

BEHAVIOUR{.name = "early_reads_are_cancelled",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) cancelled_in([&] { in_read(fd); });
                await_peer();
                tell_peer();
                uint64_t done = 0;
                for (int i = 0; i < 20; ++i) answer(fd, done, 500);
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 3; ++i) cancelled_in([&] { in_recvmsg(fd); });
                tell_peer();
                await_peer();
                uint64_t done = 0;
                for (int i = 0; i < 20; ++i) ask(fd, done, 500);
              },
          .warms_up = false};

// close(2) is a cancellation point that acts before it closes.
BEHAVIOUR{.name = "a_close_is_cancelled",
          .server =
              [](int fd) {
                uint64_t done = 0;
                answer(fd, done, 5000);
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                std::thread closer([fd] {
                  ::pthread_cancel(::pthread_self());
                  ::close(fd);
                  CHECK(false && "it came back");
                });
                closer.join();
                uint64_t done = 0;
                ask(fd, done, 5000);
                CHECK_EQ(::close(fd), 0);
              }};

// ---- jumps

thread_local sigjmp_buf way_out;
thread_local volatile sig_atomic_t may_jump = 0;

void jump(int) {
  if (may_jump == 0) return;
  may_jump = 0;
  ::siglongjmp(way_out, 1);
}

void catch_with(int signal, void (*handler)(int), int flags) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  CHECK_EQ(::sigaction(signal, &action, nullptr), 0);
}

// The call's result, or kLeft if a handler jumped out of it, at whatever moment. Nothing in its frames needs a destructor.
constexpr ssize_t kLeft = -1000;
template <class Made>
[[gnu::noinline]] ssize_t until_jump(Made call) {
  if (sigsetjmp(way_out, 1) != 0) return kLeft;
  may_jump = 1;
  const ssize_t result = call();
  may_jump = 0;
  return result;
}

BEHAVIOUR{.name = "jumps_out_of_waiting_calls",
          .server =
              [](int fd) {
                uint64_t done = 0;
                for (size_t i = 0; i < std::size(kWaiting) * 20; ++i) answer(fd, done, 1 + i * 77 % 5000);
              },
          .client =
              [](int fd) {
                watch_in_epoll(fd);
                catch_with(SIGALRM, jump, SA_RESTART);
                uint64_t done = 0;
                for (size_t i = 0; i < std::size(kWaiting) * 20; ++i) {
                  const Waiting& waiting = kWaiting[i % std::size(kWaiting)];
                  about(waiting.name);
                  alarm_every_us(static_cast<int>(20 + i * 13 % 900));
                  CHECK_EQ(until_jump([&] { return waiting.call(fd); }), kLeft);
                  alarm_every_us(0);
                  ask(fd, done, 1 + i * 77 % 5000);
                }
                expect_quiet_wait(fd);
              }};

BEHAVIOUR{.name = "jumps_out_of_writes_that_wait",
          .server = [](int fd) { drain_rounds(fd, 4); },
          .client =
              [](int fd) {
                catch_with(SIGALRM, jump, 0);
                for (int i = 0; i < 4; ++i) {
                  const uint64_t full = fill_up(fd);
                  for (int jumps = 0; jumps < 20; ++jumps) {
                    alarm_every_us(20 + jumps * 90);
                    CHECK_EQ(until_jump([&] { return i % 2 == 0 ? in_write(fd) : in_poll_for_space(fd); }), kLeft);
                    alarm_every_us(0);
                  }
                  tell_peer(static_cast<uint32_t>(full));
                  await_peer();
                  write_all(fd, "end");
                  expect_quiet_wait(fd);
                  tell_peer();
                  CHECK_EQ(read_exactly(fd, 1), "x");
                }
              },
          .limit = kByFences};

// What a read had taken when it was left is lost to the program, here as in the kernel: at most its buffer.
constexpr uint64_t kJumpedStream = 8'000'000;
BEHAVIOUR{.name = "jumps_out_of_busy_reads",
          .server =
              [](int fd) {
                for (uint64_t at = 0; at < kJumpedStream;) {
                  const size_t chunk = 1 + at / 7 % 2000;
                  write_all(fd, bytes_at(at, chunk));
                  at += chunk;
                  if (at % 11 == 0) sleep_ms(1);
                }
                ::close(fd);
              },
          .client =
              [](int fd) {
                catch_with(SIGALRM, jump, SA_RESTART);
                alarm_every_us(70);
                static char data[1500];
                uint64_t at = 0;
                bool doubt = false;
                for (;;) {
                  const ssize_t n = until_jump([&] { return ::read(fd, data, sizeof data); });
                  if (n == 0) break;
                  if (n == kLeft) {
                    doubt = true;
                    continue;
                  }
                  CHECK(n > 0);
                  const std::string got(data, static_cast<size_t>(n));
                  if (doubt) {
                    // Any number of reads in a row may have been left.
                    size_t lost = std::string::npos;
                    for (size_t window = 64 * sizeof data; lost == std::string::npos; window *= 8) {
                      lost = bytes_at(at, window + got.size()).find(got);
                      CHECK(lost != std::string::npos || window < kJumpedStream);
                    }
                    at += lost;
                  }
                  CHECK_EQ(agreeing(got, at), got.size());
                  at += got.size();
                  doubt = got.size() < 8 && doubt;  // too short to be sure of its place
                }
                alarm_every_us(0);
              }};

// A record of a write that was left arrives whole or not at all.
struct Record {
  uint32_t writer, number;
  char body[600];
};
struct Sum {
  uint32_t written, left;
};
constexpr uint32_t kRecordWriters = 3;
constexpr uint32_t kRecordsEach = 4000;

Record record_of(uint32_t writer, uint32_t number) {
  Record record{.writer = writer, .number = number, .body = {}};
  std::memset(record.body, static_cast<int>('a' + (writer * 7 + number) % 26), sizeof record.body);
  return record;
}

// The signals may come late: it goes on until one has hit.
Sum write_records(int fd, uint32_t writer) {
  Sum sum{};
  for (uint32_t i = 0; i < kRecordsEach || sum.left == 0; ++i) {
    const Record record = record_of(writer, i);
    const ssize_t n = until_jump([&] { return ::write(fd, &record, sizeof record); });
    CHECK(n == kLeft || n == static_cast<ssize_t>(sizeof record));
    n == kLeft ? ++sum.left : ++sum.written;
  }
  return sum;
}

void read_records(int fd) {
  std::array<uint32_t, kRecordWriters> next{}, count{};
  for (;;) {
    const std::string text = read_exactly(fd, sizeof(Record));
    Record record;
    std::memcpy(&record, text.data(), sizeof record);
    if (record.writer == kRecordWriters) break;
    CHECK(record.writer < kRecordWriters);
    CHECK(record.number >= next[record.writer]);
    const Record wanted = record_of(record.writer, record.number);
    CHECK(std::memcmp(&wanted, &record, sizeof record) == 0);
    next[record.writer] = record.number + 1;
    ++count[record.writer];
  }
  for (const uint32_t got : count) {
    Sum sum;
    const std::string text = read_exactly(fd, sizeof sum);
    std::memcpy(&sum, text.data(), sizeof sum);
    CHECK(got >= sum.written && got <= sum.written + sum.left);
  }
}

// While `busy`, each of the threads gets a signal every now and then.
void torment(const std::vector<pthread_t>& threads, const std::atomic<int>& busy) {
  while (busy > 0) {
    for (const pthread_t thread : threads) ::pthread_kill(thread, SIGUSR1);
    ::usleep(40);
  }
}

BEHAVIOUR{.name = "writers_that_jump_do_not_stop_the_others",
          .server = read_records,
          .client =
              [](int fd) {
                catch_with(SIGUSR1, jump, SA_RESTART);
                std::array<Sum, kRecordWriters> sums{};
                std::atomic<int> busy{static_cast<int>(kRecordWriters)};
                std::atomic<bool> over{false};
                std::vector<std::thread> writers;
                std::vector<pthread_t> handles;
                for (uint32_t i = 0; i < kRecordWriters; ++i) {
                  writers.emplace_back([&, i] {
                    sums[i] = write_records(fd, i);
                    --busy;
                    while (!over) ::usleep(100);  // the signals need a thread
                  });
                  handles.push_back(writers.back().native_handle());
                }
                torment(handles, busy);
                over = true;
                for (std::thread& writer : writers) writer.join();
                const Record last = record_of(kRecordWriters, 0);
                write_all(fd, std::string(reinterpret_cast<const char*>(&last), sizeof last));
                for (const Sum& sum : sums) write_all(fd, std::string(reinterpret_cast<const char*>(&sum), sizeof sum));
              }};

// ---- threads that end in a handler

void end_thread(int) {
  if (may_jump != 0) ::pthread_exit(nullptr);
}

// Nothing here has to be unwound, so the thread may end at any instruction. In a function with cleanups it may end in calls only: elsewhere the C++
// runtime calls std::terminate().
[[gnu::noinline]] void read_until_ended(int fd, std::atomic<bool>& begun) {
  may_jump = 1;
  begun = true;
  in_read(fd);
}

BEHAVIOUR{.name = "threads_end_in_their_handlers",
          .server =
              [](int fd) {
                uint64_t done = 0;
                for (size_t i = 0; i < 60; ++i) answer(fd, done, 100 + i * 77);
              },
          .client =
              [](int fd) {
                catch_with(SIGUSR1, end_thread, 0);
                uint64_t done = 0;
                for (int i = 0; i < 60; ++i) {
                  std::atomic<bool> begun{false};
                  std::thread reader([&] {
                    read_until_ended(fd, begun);
                    CHECK(false && "the call came back");
                  });
                  while (!begun) std::this_thread::yield();
                  if (i % 3 != 0) ::usleep(static_cast<useconds_t>(i) * 20);
                  ::pthread_kill(reader.native_handle(), SIGUSR1);
                  reader.join();
                  ask(fd, done, 100 + static_cast<size_t>(i) * 77);
                }
                expect_quiet_wait(fd);
              }};

// The last words of a handler that jumps reach a sleeping peer.
int jumper_fd = -1;
void write_and_jump(int) {
  if (may_jump == 0) return;
  may_jump = 0;
  CHECK_EQ(::write(jumper_fd, "!", 1), 1);
  ::siglongjmp(way_out, 1);
}

BEHAVIOUR{.name = "a_handler_writes_and_jumps",
          .server =
              [](int fd) {
                uint32_t marks = 0;
                for (bool over = false; !over;) {
                  for (const char c : read_some(fd, 4000)) {
                    CHECK(!over && (c == '!' || c == '.' || c == 'E'));
                    marks += c == '!';
                    over = c == 'E';
                  }
                }
                tell_peer(marks);
              },
          .client =
              [](int fd) {
                jumper_fd = fd;
                catch_with(SIGALRM, write_and_jump, SA_RESTART);
                alarm_every_us(60);
                static char dots[900];
                std::memset(dots, '.', sizeof dots);
                uint32_t jumps = 0;
                for (int i = 0; i < 60'000 || jumps < 50; ++i) {
                  const ssize_t n = until_jump([&] { return ::write(fd, dots, 1 + static_cast<size_t>(i) % sizeof dots); });
                  jumps += n == kLeft;
                  CHECK(n == kLeft || n > 0);
                }
                alarm_every_us(0);
                write_all(fd, "E");
                CHECK_EQ(await_peer(), jumps);
              }};

}  // namespace
}  // namespace shunt::behaviour
