// The connecting end: threads that do to their connections whatever programs do, all at once, on the same tables.
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "ends.h"
#include "stream.h"

namespace shunt::stress {
namespace {

constexpr int kWorkers = 5;
constexpr uint32_t kTurnsBefore = 3;  // enough to be on the ring, if eager

std::string path;
std::atomic<bool> over{false};

int connected(bool close_on_exec = true) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | (close_on_exec ? SOCK_CLOEXEC : 0), 0);
  CHECK(fd >= 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.c_str(), path.size());
  CHECK(::connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
  return fd;
}

Header header_of(Dice& dice, Task task) {
  Header header{};
  header.seed = dice.next();
  header.turn = 1 + dice.below(dice.one_in(4) ? 40'000 : 900);
  header.up = header.down = uint64_t{header.turn} * (kTurnsBefore + 3 + dice.below(20));
  header.task = task;
  return header;
}

int begun(Dice& dice, const Header& header, bool close_on_exec = true) {
  const int fd = connected(close_on_exec);
  CHECK(write_whole(fd, dice, reinterpret_cast<const char*>(&header), sizeof header));
  return fd;
}

void wait_for_child(pid_t child, bool killed = false) {
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0 || (killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
}

// ---- what can be done with a connection

void plainly(Dice& dice) {
  const Header header = header_of(dice, dice.one_in(6) ? Task::forked : Task::echo);
  const int fd = begun(dice, header);
  CHECK(ask_turns(fd, dice, header, 0, turns_of(header)));
  expect_end(fd);
  ::close(fd);
}

void half_closed(Dice& dice) {
  Header header = header_of(dice, Task::one_way);
  header.up = 1 + dice.below(300'000);
  header.down = 1 + dice.below(300'000);
  const int fd = begun(dice, header);
  CHECK(write_stream(fd, dice, header.seed, 0, header.up));
  CHECK(::shutdown(fd, SHUT_WR) == 0);
  CHECK(read_stream(fd, dice, ~header.seed, 0, header.down));
  expect_end(fd);
  ::close(fd);
}

// Each turn through another descriptor; the old ones are closed at once, so their numbers come again.
void duplicated(Dice& dice) {
  const Header header = header_of(dice, Task::echo);
  int fd = begun(dice, header);
  for (uint32_t turn = 0; turn < turns_of(header); ++turn) {
    CHECK(ask_turns(fd, dice, header, turn, turn + 1));
    int to = -1;
    switch (dice.below(4)) {
      case 0:
        to = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
        break;
      case 1:
        to = ::fcntl(fd, F_DUPFD_CLOEXEC, static_cast<int>(200 + dice.below(50)));
        break;
      case 2:  // over another connection
        to = connected();
        CHECK(::dup3(fd, to, O_CLOEXEC) == to);
        break;
      case 3:  // over a file
        to = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
        CHECK(::dup2(fd, to) == to && ::fcntl(to, F_SETFD, FD_CLOEXEC) == 0);
        break;
    }
    CHECK(to >= 0 && ::close(fd) == 0);
    fd = to;
  }
  expect_end(fd);
  ::close(fd);
}

void through_a_child(Dice& dice) {
  const Header header = header_of(dice, Task::echo);
  const int fd = begun(dice, header);
  const uint32_t half = turns_of(header) / 2;
  CHECK(ask_turns(fd, dice, header, 0, kTurnsBefore));
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(ask_turns(fd, dice, header, kTurnsBefore, half));
    ::_exit(0);
  }
  wait_for_child(child);
  CHECK(ask_turns(fd, dice, header, std::max(half, kTurnsBefore), turns_of(header)));
  expect_end(fd);
  ::close(fd);
}

void through_a_killed_child(Dice& dice) {
  Header header = header_of(dice, Task::echo);
  header.up = header.down = header.turn * uint64_t{2000};
  header.may_be_cut = 1;
  const int fd = begun(dice, header);
  CHECK(ask_turns(fd, dice, header, 0, kTurnsBefore));
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    ask_turns(fd, dice, header, kTurnsBefore, turns_of(header));
    ::_exit(0);
  }
  ::usleep(dice.below(3000));
  ::kill(child, SIGKILL);
  wait_for_child(child, true);
  // Nobody knows how far the child has got; the locks and the memory are free.
  char data[5000];
  for (int i = 0; i < 3; ++i) (void)!::recv(fd, data, sizeof data, MSG_DONTWAIT);
  ::close(fd);
}

// Each program that is started inherits the sockets of all threads that are here, and makes them leave their rings in the middle of everything.
void through_another_program(Dice& dice) {
  const Header header = header_of(dice, Task::echo);
  const int fd = begun(dice, header, false);
  CHECK(ask_turns(fd, dice, header, 0, kTurnsBefore));
  std::ostringstream words;
  words << header.seed << ' ' << header.up << ' ' << header.turn << ' ' << kTurnsBefore << ' ' << turns_of(header) << ' ' << dice.next();
  std::string number = std::to_string(fd), text = words.str(), name = "stress", flag = "--carry-on";
  char* arguments[] = {name.data(), flag.data(), number.data(), text.data(), nullptr};
  std::string no_library = "LD_PRELOAD=";
  char* nothing[] = {no_library.data(), nullptr};
  char** environment = dice.one_in(2) ? environ : nothing;
  pid_t child = -1;
  if (dice.one_in(2)) {
    CHECK(::posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, arguments, environment) == 0);
  } else {
    child = ::fork();
    CHECK(child >= 0);
    if (child == 0) {
      ::execve("/proc/self/exe", arguments, environment);
      ::_exit(127);
    }
  }
  const bool early = dice.one_in(2);
  if (early) ::close(fd);
  wait_for_child(child);
  if (!early) ::close(fd);
}

// Sent to ourselves, or sent while a thread of ours is at it.
void passed(Dice& dice) {
  const Header header = header_of(dice, Task::echo);
  const int fd = begun(dice, header);
  CHECK(ask_turns(fd, dice, header, 0, kTurnsBefore));
  int pair[2];
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  char byte = 'x';
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* first = CMSG_FIRSTHDR(&message);
  *first = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
  std::memcpy(CMSG_DATA(first), &fd, sizeof fd);
  CHECK(::sendmsg(pair[0], &message, 0) == 1);
  CHECK(::close(fd) == 0);
  message.msg_controllen = sizeof control;
  CHECK(::recvmsg(pair[1], &message, MSG_CMSG_CLOEXEC) == 1);
  int received = -1;
  std::memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof received);
  CHECK(received >= 0);
  ::close(pair[0]);
  ::close(pair[1]);
  CHECK(ask_turns(received, dice, header, kTurnsBefore, turns_of(header)));
  expect_end(received);
  ::close(received);
}

// In a call that has got hold of its file: until then a close, and whoever gets the number next, would be a race of ours.
bool sleeps_in_a_read(pid_t thread) {
  std::ifstream in("/proc/self/task/" + std::to_string(thread) + "/syscall");
  long number = -1;
  return (in >> number) && (number == SYS_recvfrom || number == SYS_recvmsg || number == SYS_ppoll);
}

// A thread sleeps in a read; the descriptor is closed, or another is put over it, meanwhile. It gets its bytes all the same.
void closed_under_a_reader(Dice& dice) {
  Header header = header_of(dice, Task::late);
  header.down = 1 + dice.below(3000);
  const int fd = begun(dice, header);
  std::atomic<pid_t> id{0};
  std::atomic<bool> has_read{false};
  std::thread reader([&] {
    std::vector<char> data(header.down);
    id = static_cast<pid_t>(::syscall(SYS_gettid));
    CHECK(::recv(fd, data.data(), data.size(), MSG_WAITALL) == static_cast<ssize_t>(data.size()));
    CHECK(is_stream(~header.seed, 0, data.data(), data.size()));
    has_read = true;
  });
  while (id == 0 || !(has_read || sleeps_in_a_read(id))) std::this_thread::yield();
  const int file = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const bool replaced = dice.one_in(2);
  if (replaced) CHECK(::dup2(file, fd) == fd);
  CHECK(::close(fd) == 0);
  ::close(file);
  reader.join();
}

// shutdown(2) evicts a reader.
void shut_down_under_a_reader(Dice& dice) {
  Header header = header_of(dice, Task::echo);
  header.may_be_cut = 1;
  const int fd = begun(dice, header);
  CHECK(ask_turns(fd, dice, header, 0, kTurnsBefore));
  std::thread reader([&] {
    char byte;
    CHECK(::read(fd, &byte, 1) == 0);
  });
  ::usleep(dice.below(200));
  CHECK(::shutdown(fd, SHUT_RDWR) == 0);
  reader.join();
  ::close(fd);
}

// Several connections in one set; another thread changes the registrations all the time.
void in_epoll(Dice& dice) {
  constexpr size_t kConnections = 4;
  struct One {
    Header header;
    int fd;
    uint32_t turn = 0;
  };
  std::array<One, kConnections> all;
  const int set = ::epoll_create1(EPOLL_CLOEXEC);
  const uint32_t trigger = dice.one_in(2) ? uint32_t{EPOLLIN} : uint32_t{EPOLLIN | EPOLLET};
  for (size_t i = 0; i < kConnections; ++i) {
    all[i].header = header_of(dice, Task::echo);
    all[i].fd = begun(dice, all[i].header);
    epoll_event event{.events = trigger, .data = {.u64 = i}};
    CHECK(::epoll_ctl(set, EPOLL_CTL_ADD, all[i].fd, &event) == 0);
    CHECK(write_stream(all[i].fd, dice, all[i].header.seed, 0, all[i].header.turn));
  }
  std::atomic<bool> done{false};
  const uint64_t seed = dice.next();
  std::thread changer([&] {
    Dice own(seed);
    while (!done) {
      const uint64_t i = own.below(kConnections);
      epoll_event event{.events = trigger, .data = {.u64 = i}};
      if (own.one_in(3)) {
        CHECK(::epoll_ctl(set, EPOLL_CTL_DEL, all[i].fd, nullptr) == 0);
        CHECK(::epoll_ctl(set, EPOLL_CTL_ADD, all[i].fd, &event) == 0);
      } else {
        CHECK(::epoll_ctl(set, EPOLL_CTL_MOD, all[i].fd, &event) == 0);
      }
      ::usleep(own.below(300));
    }
  });
  for (size_t open = kConnections; open > 0;) {
    epoll_event events[kConnections];
    const int n = ::epoll_wait(set, events, kConnections, 60'000);
    CHECK(n > 0);
    for (int i = 0; i < n; ++i) {
      One& one = all[events[i].data.u64];
      if (one.turn == turns_of(one.header)) continue;
      char byte;
      if (::recv(one.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0) {
        CHECK(errno == EAGAIN);
        continue;
      }
      const uint64_t at = uint64_t{one.turn} * one.header.turn;
      CHECK(read_stream(one.fd, dice, ~one.header.seed, at, one.header.turn));
      if (++one.turn == turns_of(one.header)) --open;
      else CHECK(write_stream(one.fd, dice, one.header.seed, at + one.header.turn, one.header.turn));
    }
  }
  done = true;
  changer.join();
  for (const One& one : all) ::close(one.fd);
  ::close(set);
}

// Numbers come and go while the others connect and close.
void churned(Dice& dice) {
  for (uint32_t i = 20 + dice.below(50); i > 0; --i) {
    int ends[2];
    CHECK(::pipe2(ends, O_CLOEXEC) == 0);
    const int file = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    const int quick = connected();
    CHECK(::write(file, "x", 1) == 1 && ::write(ends[1], "x", 1) == 1);
    for (const int fd : {ends[0], file, quick, ends[1]}) CHECK(::close(fd) == 0);
  }
}

struct Deed {
  const char* name;
  void (*act)(Dice& dice);
};
constexpr Deed kDeeds[] = {{"plainly", plainly},
                           {"half closed", half_closed},
                           {"duplicated", duplicated},
                           {"through a child", through_a_child},
                           {"through a killed child", through_a_killed_child},
                           {"through another program", through_another_program},
                           {"passed", passed},
                           {"closed under a reader", closed_under_a_reader},
                           {"shut down under a reader", shut_down_under_a_reader},
                           {"in epoll", in_epoll},
                           {"churned", churned}};
std::array<std::atomic<uint64_t>, std::size(kDeeds)> deeds_done{};

void work(uint64_t seed) {
  const char* only = std::getenv("SHUNT_STRESS_DEEDS");  // to find out who is to blame: names, with anything between
  Dice dice(seed);
  while (!over) {
    const uint32_t which = dice.below(std::size(kDeeds));
    if (only != nullptr && std::strstr(only, kDeeds[which].name) == nullptr) continue;
    deed = kDeeds[which].name;
    kDeeds[which].act(dice);
    ++deeds_done[which];
  }
}

}  // namespace

int carry_on(int fd, const std::string& words) {
  deed = "carry on";
  std::istringstream in(words);
  Header header{};
  uint32_t begin = 0, end = 0;
  uint64_t seed = 0;
  in >> header.seed >> header.up >> header.turn >> begin >> end >> seed;
  Dice dice(seed);
  CHECK(ask_turns(fd, dice, header, begin, end));
  expect_end(fd);
  return 0;
}

int connect_and_ask(const Plan& plan) {
  path = plan.path;
  Dice dice(plan.seed);
  std::vector<std::thread> workers;
  for (int i = 0; i < kWorkers; ++i) workers.emplace_back(work, dice.next());
  std::this_thread::sleep_for(std::chrono::seconds(plan.seconds));
  over = true;
  for (std::thread& worker : workers) worker.join();
  for (size_t i = 0; i < std::size(kDeeds); ++i) std::printf("  %8lu %s\n", deeds_done[i].load(), kDeeds[i].name);
  return 0;
}

}  // namespace shunt::stress
