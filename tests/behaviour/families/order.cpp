// What happened before a reported event is reported with it, or before it: a program acts on one descriptor and then on another, and whoever waits for
// both is never told of the second alone.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <initializer_list>
#include <random>
#include <string>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr int kRounds = 20'000;
constexpr double kLongest_ms = 600;
constexpr int kUnjudged = 100;  // an edge may be told once more while connections change
constexpr int kHotRounds = 3;
constexpr int kAboveOthers = 200;
constexpr useconds_t kUntilAsleep_us = 150;

enum class Face { poll, select, level, edge };

// The second one is looked at before the first one: the kernel's poll and select ask one after the other.
class Ears {
 public:
  Ears(Face face, int second) : face_(face), second_(second), set_(::epoll_create1(EPOLL_CLOEXEC)) { listen_to(second); }
  ~Ears() { ::close(set_); }
  Ears(const Ears&) = delete;
  Ears& operator=(const Ears&) = delete;

  void listen_to(int fd) {
    epoll_event event{.events = EPOLLIN | (face_ == Face::edge ? EPOLLET : 0U), .data = {.fd = fd}};
    CHECK_EQ(::epoll_ctl(set_, EPOLL_CTL_ADD, fd, &event), 0);
    if (fd != second_) first_ = fd;
  }

  struct Heard {
    bool first, second;
  };
  // A level that was told stays in the kernel's list until a wait finds it gone, and such a wait may look there right after the second event and before
  // the first one is in the list.
  void forget_told() const {
    epoll_event events[4];
    if (face_ == Face::level) CHECK_EQ(::epoll_wait(set_, events, 4, 0), 0);
  }

  Heard wait() const {
    if (face_ == Face::poll) {
      pollfd both[] = {{.fd = second_, .events = POLLIN, .revents = 0}, {.fd = first_, .events = POLLIN, .revents = 0}};
      CHECK(::poll(both, 2, -1) > 0);
      return {both[1].revents != 0, both[0].revents != 0};
    }
    if (face_ == Face::select) {
      fd_set both;
      FD_ZERO(&both);
      FD_SET(first_, &both);
      FD_SET(second_, &both);
      CHECK(::select(std::max(first_, second_) + 1, &both, nullptr, nullptr, nullptr) > 0);
      return {FD_ISSET(first_, &both) != 0, FD_ISSET(second_, &both) != 0};
    }
    epoll_event events[4];
    const int count = ::epoll_wait(set_, events, 4, -1);
    CHECK(count > 0);
    Heard heard{};
    for (int i = 0; i < count; ++i) (events[i].data.fd == first_ ? heard.first : heard.second) = true;
    return heard;
  }

 private:
  Face face_;
  int second_, first_ = -1;
  int set_;
};

// The end that is waited for.

void pause_at_random() {
  static std::minstd_rand random(1);
  if (random() % 16 == 0) return void(::usleep(kUntilAsleep_us));
  const auto until = std::chrono::steady_clock::now() + std::chrono::nanoseconds(random() % 4000);
  while (std::chrono::steady_clock::now() < until) {
  }
}

bool goes_on(int second) { return read_exactly(second, 1) == "n"; }

void write_in_order(int first, int second) {
  do {
    pause_at_random();
    write_all(first, "1");
    write_all(second, "2");
  } while (goes_on(second));
}

// The end that waits.

class Judge {
 public:
  Judge(Face face, int second) : ears_(face, second), second_(second) { set_blocking(second, false); }
  Ears& ears() { return ears_; }

  // Until both were heard. `take`: what the first one brings.
  template <typename Take>
  void hear_both(Take take) {
    bool first = false;
    for (;;) {
      const Ears::Heard heard = ears_.wait();
      if (heard.first && !first) take(), first = true;
      if (!heard.second || !take_second()) continue;
      if (!first && rounds_ >= kUnjudged) ++alone_;
      if (!first) take();
      break;
    }
    ++rounds_;
  }
  bool take_second() const {
    char byte;
    return ::read(second_, &byte, 1) == 1;
  }
  void hear_second() const {
    while (!ears_.wait().second || !take_second()) {
    }
  }
  bool goes_on(int rounds) const { return rounds_ < rounds && now_ms() - begun_ < kLongest_ms; }
  void answer(bool go_on) const {
    if (go_on) ears_.forget_told();
    write_all(second_, go_on ? "n" : "s");
  }
  ~Judge() { CHECK_EQ(std::to_string(alone_) + " of " + std::to_string(rounds_), "0 of " + std::to_string(rounds_)); }
  Judge(const Judge&) = delete;
  Judge& operator=(const Judge&) = delete;

 private:
  Ears ears_;
  int second_;
  int rounds_ = 0, alone_ = 0;
  double begun_ = now_ms();
};

void hear_in_order(Face face, int first, int second) {
  Judge judge(face, second);
  judge.ears().listen_to(first);
  bool more;
  do {
    judge.hear_both([first] { CHECK_EQ(read_exactly(first, 1), "1"); });
    more = judge.goes_on(kRounds);
    judge.answer(more);
  } while (more);
}

// ---- a pipe, then the connection

void write_pipe_first(int fd) {
  const std::string name = scratch_file("pipe");
  CHECK_EQ(::mkfifo(name.c_str(), 0600), 0);
  tell_peer();
  write_in_order(::open(name.c_str(), O_WRONLY | O_CLOEXEC), fd);
}

void hear_pipe_first(Face face, int fd) {
  await_peer();
  const int pipe = ::open(scratch_file("pipe").c_str(), O_RDONLY | O_CLOEXEC);
  hear_in_order(face, ::fcntl(pipe, F_DUPFD_CLOEXEC, kAboveOthers), fd);
}

BEHAVIOUR{.name = "of_a_pipe_and_poll", .server = write_pipe_first, .client = [](int fd) { hear_pipe_first(Face::poll, fd); }};
BEHAVIOUR{.name = "of_a_pipe_and_select", .server = write_pipe_first, .client = [](int fd) { hear_pipe_first(Face::select, fd); }};
BEHAVIOUR{.name = "of_a_pipe_and_epoll", .server = write_pipe_first, .client = [](int fd) { hear_pipe_first(Face::level, fd); }};
BEHAVIOUR{.name = "of_a_pipe_and_edges",
          .server = write_pipe_first,
          .client = [](int fd) { hear_pipe_first(Face::edge, fd); },
          .limit = kByFences};

// ---- another connection, then this one

void write_another_first(int fd) { write_in_order(accept_another(), fd); }
void hear_another_first(Face face, int fd) { hear_in_order(face, connect_another(), fd); }

BEHAVIOUR{.name = "of_connections_and_poll", .server = write_another_first, .client = [](int fd) { hear_another_first(Face::poll, fd); }};
BEHAVIOUR{.name = "of_connections_and_select", .server = write_another_first, .client = [](int fd) { hear_another_first(Face::select, fd); }};
BEHAVIOUR{.name = "of_connections_and_epoll", .server = write_another_first, .client = [](int fd) { hear_another_first(Face::level, fd); }};
BEHAVIOUR{.name = "of_connections_and_edges",
          .server = write_another_first,
          .client = [](int fd) { hear_another_first(Face::edge, fd); },
          .limit = kByFences};

// ---- a connection that stays on the kernel, then this one

void stay_on_kernel(int fd) { CHECK_EQ(::fcntl(fd, F_SETOWN, ::getpid()), 0); }

void write_plain_first(int fd) {
  const int listener = listen_at(abstract_address());
  tell_peer();
  const int plain = accept_at(listener);
  stay_on_kernel(plain);
  write_in_order(plain, fd);
}

void hear_plain_first(Face face, int fd) {
  await_peer();
  const int plain = connect_to(abstract_address());
  stay_on_kernel(plain);
  hear_in_order(face, plain, fd);
}

BEHAVIOUR{.name = "of_a_plain_connection_and_poll", .server = write_plain_first, .client = [](int fd) { hear_plain_first(Face::poll, fd); }};
BEHAVIOUR{.name = "of_a_plain_connection_and_select", .server = write_plain_first, .client = [](int fd) { hear_plain_first(Face::select, fd); }};
BEHAVIOUR{.name = "of_a_plain_connection_and_epoll", .server = write_plain_first, .client = [](int fd) { hear_plain_first(Face::level, fd); }};
BEHAVIOUR{.name = "of_a_plain_connection_and_edges",
          .server = write_plain_first,
          .client = [](int fd) { hear_plain_first(Face::edge, fd); },
          .limit = kByFences};

// ---- a connection that nobody has looked at for a while, then this one, which is busy

void write_cold_first(int fd) {
  const int first = accept_another();
  do {
    ::usleep(kUntilAsleep_us);
    for (int i = 0; i < kHotRounds; ++i) {
      write_all(fd, "2");
      CHECK(goes_on(fd));
    }
    pause_at_random();
    write_all(first, "1");
    write_all(fd, "2");
  } while (goes_on(fd));
}

void hear_cold_first(Face face, int fd) {
  const int first = connect_another();
  Judge judge(face, fd);
  judge.ears().listen_to(first);
  bool more;
  do {
    for (int i = 0; i < kHotRounds; ++i) judge.hear_second(), judge.answer(true);
    judge.hear_both([first] { CHECK_EQ(read_exactly(first, 1), "1"); });
    more = judge.goes_on(kRounds);
    judge.answer(more);
  } while (more);
}

BEHAVIOUR{.name = "of_a_cold_connection_and_poll", .server = write_cold_first, .client = [](int fd) { hear_cold_first(Face::poll, fd); }};
BEHAVIOUR{.name = "of_a_cold_connection_and_select", .server = write_cold_first, .client = [](int fd) { hear_cold_first(Face::select, fd); }};
BEHAVIOUR{.name = "of_a_cold_connection_and_epoll", .server = write_cold_first, .client = [](int fd) { hear_cold_first(Face::level, fd); }};
BEHAVIOUR{.name = "of_a_cold_connection_and_edges",
          .server = write_cold_first,
          .client = [](int fd) { hear_cold_first(Face::edge, fd); },
          .limit = kByFences};

// ---- the end of a connection, then a byte on this one

void close_first(int fd) {
  do {
    const int first = accept_another();
    CHECK_EQ(read_exactly(first, 1), "r");  // it is registered
    pause_at_random();
    ::close(first);
    write_all(fd, "2");
  } while (goes_on(fd));
}

void hear_close_first(Face face, int fd) {
  Judge judge(face, fd);
  bool more;
  do {
    const int first = connect_another();
    judge.ears().listen_to(first);
    write_all(first, "r");
    judge.hear_both([first] { expect_end_of_stream(first); });
    ::close(first);
    more = judge.goes_on(kRounds);
    judge.answer(more);
  } while (more);
}

BEHAVIOUR{.name = "of_a_close_and_poll", .server = close_first, .client = [](int fd) { hear_close_first(Face::poll, fd); }};
BEHAVIOUR{.name = "of_a_close_and_select", .server = close_first, .client = [](int fd) { hear_close_first(Face::select, fd); }};
BEHAVIOUR{.name = "of_a_close_and_epoll", .server = close_first, .client = [](int fd) { hear_close_first(Face::level, fd); }};
BEHAVIOUR{.name = "of_a_close_and_edges",
          .server = close_first,
          .client = [](int fd) { hear_close_first(Face::edge, fd); },
          .limit = kByFences};

// ---- one after the other while nobody waits: the kernel's list of what is ready is in that order

constexpr int kSleeps = 100;

int set_of(std::initializer_list<int> fds, uint32_t mode) {
  const int set = ::epoll_create1(EPOLL_CLOEXEC);
  for (const int fd : fds) {
    epoll_event event{.events = EPOLLIN | mode, .data = {.fd = fd}};
    CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  }
  return set;
}

void write_by_turns(int fd) {
  const int other = accept_another();
  for (int i = 0; i < kSleeps; ++i) {
    await_peer();
    write_all(i % 2 ? fd : other, "x");
    write_all(i % 2 ? other : fd, "x");
    tell_peer();
  }
  await_peer();
}

void hear_by_turns(int fd, uint32_t mode) {
  const int other = connect_another();
  const int set = set_of({fd, other}, mode);
  for (int i = 0; i < kSleeps; ++i) {
    epoll_event events[4];
    CHECK_EQ(::epoll_wait(set, events, 4, 2), 0);
    tell_peer();
    await_peer();
    CHECK_EQ(::epoll_wait(set, events, 4, -1), 2);
    CHECK_EQ(events[0].data.fd, i % 2 ? fd : other);
    for (const int each : {fd, other}) CHECK_EQ(read_exactly(each, 1), "x");
  }
  tell_peer();
}

BEHAVIOUR{.name = "of_events_is_that_of_their_causes", .server = write_by_turns, .client = [](int fd) { hear_by_turns(fd, 0); }, .limit = kByFences};
BEHAVIOUR{.name = "of_edges_is_that_of_their_causes",
          .server = write_by_turns,
          .client = [](int fd) { hear_by_turns(fd, EPOLLET); },
          .limit = kByUpgrades};

// ---- the same where both are busy: nobody sleeps in the set, so memory answers

constexpr int kTurns = 300;
constexpr int kBusyRounds = 20;

void write_busily_by_turns(int fd) {
  const int other = accept_another();
  for (int i = 0; i < kTurns; ++i) {
    for (int round = 0; round < (i == 0 ? kBusyRounds : 1); ++round)
      for (const int each : {fd, other}) {
        write_all(each, "b");
        CHECK(goes_on(each));
      }
    await_peer();
    write_all(i % 2 ? fd : other, "x");
    write_all(i % 2 ? other : fd, "x");
    tell_peer();
    await_peer();
  }
}

void hear_busily_by_turns(int fd, uint32_t mode) {
  const int other = connect_another();
  const int set = set_of({fd, other}, mode);
  epoll_event events[4];
  const auto take = [](int each, const char* what) { CHECK_EQ(read_exactly(each, 1), what); };
  for (int i = 0; i < kTurns; ++i) {
    for (int round = 0; round < (i == 0 ? kBusyRounds : 1); ++round)
      for (const int each : {fd, other}) {
        CHECK_EQ(::epoll_wait(set, events, 4, -1), 1);
        CHECK_EQ(events[0].data.fd, each);
        take(each, "b");
        write_all(each, "n");
      }
    CHECK_EQ(::epoll_wait(set, events, 4, 0), 0);
    tell_peer();
    await_peer();
    CHECK_EQ(::epoll_wait(set, events, 4, -1), 2);
    CHECK_EQ(events[0].data.fd, i % 2 ? fd : other);
    for (const int each : {fd, other}) take(each, "x");
    tell_peer();
  }
}

BEHAVIOUR{.name = "of_events_of_busy_connections",
          .server = write_busily_by_turns,
          .client = [](int fd) { hear_busily_by_turns(fd, 0); },
          .limit = kByFences};
BEHAVIOUR{.name = "of_edges_of_busy_connections",
          .server = write_busily_by_turns,
          .client = [](int fd) { hear_busily_by_turns(fd, EPOLLET); },
          .limit = kByUpgrades};

// ---- a connection that is about to be upgraded, then an old one

constexpr int kYoung = 200;
constexpr int kMostMessages = 14;  // on the young one

void write_young_first(int fd) {
  await_peer();
  for (int i = 0; i < kYoung; ++i) {
    const int young = connect_to(abstract_address());
    await_peer();
    for (int message = 0; message <= i % kMostMessages; ++message) {
      write_all(young, "b");
      CHECK(goes_on(young));
    }
    write_all(young, "1");
    write_all(fd, "2");
    tell_peer();
    await_peer();
    ::close(young);
  }
}

void hear_young_first(int fd) {
  const int set = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  epoll_event events[4];
  const int listener = listen_at(abstract_address());
  tell_peer();
  for (int i = 0; i < kYoung; ++i) {
    const int young = accept_at(listener);
    event.data.fd = young;
    CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, young, &event), 0);
    CHECK_EQ(::epoll_wait(set, events, 4, 0), 0);
    tell_peer();
    for (int message = 0; message <= i % kMostMessages; ++message) {
      CHECK_EQ(::epoll_wait(set, events, 4, -1), 1);
      CHECK_EQ(events[0].data.fd, young);
      CHECK_EQ(read_exactly(young, 1), "b");
      write_all(young, "n");
    }
    await_peer();  // before the set is looked at again: it has not seen yet what became of the young one
    CHECK_EQ(::epoll_wait(set, events, 4, -1), 2);
    CHECK_EQ(events[0].data.fd, young);
    CHECK_EQ(read_exactly(young, 1), "1");
    CHECK_EQ(read_exactly(fd, 1), "2");
    ::close(young);
    tell_peer();
  }
}

// Cold: the old one stays on the kernel, which does not say when its bytes came (docs/limits.md).
BEHAVIOUR{.name = "of_events_of_a_young_connection",
          .server = hear_young_first,
          .client = write_young_first,
          .limit = kByFences | bit(Way::cold)};

}  // namespace
}  // namespace shunt::behaviour
