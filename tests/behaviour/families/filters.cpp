// A sandbox refuses calls that the library makes by itself: each of them, by an error or by a signal, before the first connection and in the middle of one that
// is on the ring. The program sees what it would see on the kernel, and its mask stays what it is. Each cell is a connection between two children.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "behaviour.h"
#include "check.h"
#include "filter.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

struct Call {
  const char* name;
  long number;
};
#define CALL(name) Call{#name, SYS_##name}
// tools/own_calls checks that none is missing.
constexpr Call kCalls[] = {
    CALL(bind),          CALL(clock_gettime), CALL(clone),           CALL(clone3),         CALL(close),
    CALL(close_range),   CALL(dup3),          CALL(epoll_ctl),       CALL(epoll_pwait),    CALL(epoll_pwait2),
    CALL(epoll_wait),    CALL(eventfd2),      CALL(exit), CALL(exit_group),      CALL(faccessat),      CALL(faccessat2),
    CALL(fcntl),         CALL(fork),          CALL(fstat),           CALL(fstatfs),        CALL(ftruncate),
    CALL(futex),         CALL(getegid),       CALL(geteuid),         CALL(getgid),         CALL(getpeername),
    CALL(getpid),        CALL(getrandom),     CALL(getsockopt),     CALL(gettid),
    CALL(getuid),        CALL(ioctl),         CALL(lseek),           CALL(madvise),        CALL(membarrier),
    CALL(memfd_create),  CALL(mmap),          CALL(munmap),          CALL(openat),         CALL(pidfd_getfd),
    CALL(pidfd_open),    CALL(poll),          CALL(ppoll),           CALL(prctl),          CALL(pread64),
    CALL(preadv),        CALL(preadv2),       CALL(prlimit64),     CALL(pselect6),        CALL(pwritev2),       CALL(read),
    CALL(readlink),      CALL(recvfrom),      CALL(recvmsg),         CALL(rt_sigaction),   CALL(rt_sigpending),
    CALL(rt_sigprocmask), CALL(rt_sigtimedwait), CALL(rt_tgsigqueueinfo), CALL(sched_getaffinity), CALL(sched_yield), CALL(select),
    CALL(sendmsg),       CALL(sendto),        CALL(setgroups),       CALL(setresgid),      CALL(setresuid),
    CALL(setsid),        CALL(setsockopt),    CALL(shutdown),        CALL(sigaltstack),
    CALL(socketpair),    CALL(tkill),         CALL(wait4),           CALL(write),
};
#undef CALL
constexpr Answer kAnswers[] = {Answer::eperm, Answer::enosys, Answer::trap};

enum class Moment { before, middle };

constexpr size_t kWord = 16;
constexpr uint64_t kBulk = 200'000;
constexpr int kTimeoutMs = 5;
constexpr unsigned kCellSeconds = 20;

// By an instruction of this program's own, which is nobody's business.
long by_hand(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

// What the kernel itself has for a reader; a wake-up byte may be there.
int queued_in_kernel(int fd) {
  int bytes = 0;
  CHECK_EQ(by_hand(SYS_ioctl, fd, FIONREAD, reinterpret_cast<long>(&bytes)), 0);
  return bytes;
}

uint64_t mask_now() {
  uint64_t mask = 0;
  register long size __asm__("r10") = sizeof mask;
  long result = SYS_rt_sigprocmask;
  __asm__ volatile("syscall" : "+a"(result) : "D"(0L), "S"(0L), "d"(&mask), "r"(size) : "rcx", "r11", "memory");
  CHECK_EQ(result, 0);
  return mask;
}

constexpr uint64_t kSeen = 4;  // rounds in which each end is asleep when its word comes: it is seen to wait

std::string answer_to(uint64_t round) { return bytes_at(round * 31 + 7, kWord); }

// One word each way, by each kind of call in turn.
void ask(int fd, uint64_t round) {
  const std::string word = bytes_at(round, kWord);
  char got[kWord];
  iovec part{got, kWord};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (round < kSeen) sleep_ms(1);
  errno = EXDEV;
  switch (round % 4) {
    case 0:
      write_all(fd, word);
      CHECK_EQ(::recv(fd, got, kWord, MSG_WAITALL), kWord);
      break;
    case 1:
      CHECK_EQ(::send(fd, word.data(), kWord, 0), kWord);
      for (size_t done = 0; done < kWord;) {
        pollfd item{fd, POLLIN, 0};
        CHECK_EQ(::poll(&item, 1, -1), 1);
        CHECK_EQ(item.revents, POLLIN);
        const ssize_t bytes = ::recv(fd, got + done, kWord - done, MSG_DONTWAIT);
        CHECK(bytes > 0);
        done += static_cast<size_t>(bytes);
      }
      break;
    case 2:
      part.iov_base = const_cast<char*>(word.data());
      CHECK_EQ(::sendmsg(fd, &message, MSG_NOSIGNAL), kWord);
      part.iov_base = got;
      CHECK_EQ(::recvmsg(fd, &message, MSG_WAITALL), kWord);
      CHECK_EQ(message.msg_flags, 0);
      break;
    default:
      CHECK_EQ(::write(fd, word.data(), kWord), kWord);
      std::memcpy(got, read_exactly(fd, kWord).data(), kWord);
  }
  CHECK_EQ(errno, EXDEV);
  CHECK_EQ(std::string(got, kWord), answer_to(round));
}

void answer(int fd, uint64_t round) {
  CHECK_EQ(read_exactly(fd, kWord), bytes_at(round, kWord));
  if (round % 8 == 3 || round < kSeen) sleep_ms(1);  // who asked sleeps, and is seen to wait
  write_all(fd, answer_to(round));
}

constexpr uint64_t kRounds = 12;  // bring an eager pair to the ring

class Waiter {
 public:
  explicit Waiter(int fd) : set_(::epoll_create1(0)) {
    CHECK(set_ >= 0);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    CHECK_EQ(::epoll_ctl(set_, EPOLL_CTL_ADD, fd, &event), 0);
  }
  ~Waiter() { ::close(set_); }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  void wait(int fd) const {
    epoll_event event{};
    CHECK_EQ(::epoll_wait(set_, &event, 1, -1), 1);
    CHECK_EQ(event.events, static_cast<uint32_t>(EPOLLIN));
    CHECK_EQ(event.data.fd, fd);
  }

 private:
  int set_;
};

// The descriptor comes to other hands, with bytes unread.
void pass_to_self(int fd) {
  int pair[2];
  CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  send_descriptor(pair[0], fd);
  CHECK_EQ(::close(receive_descriptor(pair[1])), 0);
  ::close(pair[0]);
  ::close(pair[1]);
}

struct Cell {
  Moment moment;
  bool filtered;  // this end
  const Call* call;
  Answer answer;
  bool leaves;  // the ring, at the end
};

void begin_filter(const Cell& cell, Moment now) {
  if (cell.moment == now && cell.filtered) refuse_librarys(cell.call->number, cell.answer);
}

void expect_on_ring(const Cell& cell, int fd) {
  if (cell.moment != Moment::middle || current_way() != Way::both) return;
  CHECK(is_readable(fd, -1));
  CHECK(queued_in_kernel(fd) < static_cast<int>(kWord));
}

void serve(int fd, const Cell& cell) {
  for (uint64_t round = 0; round < kRounds; ++round) answer(fd, round);
  expect_on_ring(cell, fd);
  begin_filter(cell, Moment::middle);
  for (uint64_t round = kRounds; round < 3 * kRounds; ++round) answer(fd, round);
  {
    const Waiter waiter(fd);
    for (uint64_t round = 0; round < kRounds; ++round) {
      waiter.wait(fd);
      answer(fd, round);
    }
  }
  read_stream(fd, 0, kBulk, 65536);
  write_stream(fd, 0, kBulk, 65536);
  write_all(fd, bytes_at(5, 100));  // and wait until it was counted
  answer(fd, 3);
  if (cell.leaves) {
    CHECK_EQ(read_exactly(fd, 50), bytes_at(9, 100).substr(0, 50));
    pass_to_self(fd);
    CHECK_EQ(read_exactly(fd, 50), bytes_at(9, 100).substr(50));
  }
  for (uint64_t round = 0; round < kRounds; ++round) answer(fd, round);
  expect_end_of_stream(fd);
  write_all(fd, bytes_at(1, 10));
  CHECK_EQ(::close(fd), 0);
}

void request(int fd, const Cell& cell) {
  for (uint64_t round = 0; round < kRounds; ++round) ask(fd, round);
  begin_filter(cell, Moment::middle);
  for (uint64_t round = kRounds; round < 3 * kRounds; ++round) ask(fd, round);
  for (uint64_t round = 0; round < kRounds; ++round) {
    if (round % 4 == 0) sleep_ms(1);  // who waits sleeps
    ask(fd, round);
  }
  write_stream(fd, 0, kBulk, 65536);
  read_stream(fd, 0, kBulk, 65536);
  int bytes = 0;
  for (int tries = 0; bytes < 100 && tries < 2000; ++tries) {
    CHECK_EQ(::ioctl(fd, FIONREAD, &bytes), 0);
    if (bytes < 100) sleep_ms(1);
  }
  CHECK_EQ(bytes, 100);
  CHECK_EQ(read_exactly(fd, 100), bytes_at(5, 100));
  const timeval timeout{0, kTimeoutMs * 1000}, none{};
  CHECK_EQ(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout), 0);
  char byte;
  const double begin = now_ms();
  CHECK_ERRNO(::read(fd, &byte, 1), EAGAIN);
  CHECK(now_ms() - begin >= kTimeoutMs - 1);
  CHECK_EQ(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none), 0);
  ask(fd, 3);
  if (cell.leaves) write_all(fd, bytes_at(9, 100));
  for (uint64_t round = 0; round < kRounds; ++round) ask(fd, round);
  CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
  CHECK_EQ(read_exactly(fd, 10), bytes_at(1, 10));
  expect_end_of_stream(fd);
  CHECK_ERRNO(::send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
  CHECK_EQ(::close(fd), 0);
}

// For a look at many cells: what fails is told, and the next one begins.
bool goes_on() { return std::getenv("SHUNT_TEST_EVERY_CELL") != nullptr; }

void live(const Cell& cell, const std::string& row, int listener) {
  about(row);
  ::alarm(goes_on() ? 3 : kCellSeconds);  // a call that hangs ends this child
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGRTMIN + 3);
  CHECK_EQ(::sigprocmask(SIG_SETMASK, &set, nullptr), 0);
  const uint64_t mask = mask_now();
  begin_filter(cell, Moment::before);
  if (current_end() == End::server) {
    serve(accept_at(listener), cell);
  } else {
    request(connect_to(path_address()), cell);
  }
  CHECK_EQ(mask_now(), mask);
}

// Elsewhere a third of them: what differs is when, and who.
bool is_left_out(size_t number, Answer answer) {
  const Way way = current_way();
  const bool all = way == Way::kernel || (way == Way::both && !kSanitized);
  return !all && (number + static_cast<size_t>(answer) + static_cast<size_t>(way)) % 3 != 0;
}

bool is_wanted(const std::string& row) {
  const char* only = std::getenv("SHUNT_TEST_CELL");
  return only == nullptr || row.find(only) != std::string::npos;
}

int cells_failed = 0;

void join_cell(int child, const std::string& row) {
  if (!goes_on()) return join_child(child);
  int status = 0;
  CHECK_EQ(::waitpid(child, &status, 0), child);
  if (status == 0) return;
  ++cells_failed;
  std::fprintf(stderr, "cell %s: %s: status %x\n", current_end() == End::server ? "server" : "client", row.c_str(), status);
}

template <Moment moment, bool at_server, bool at_client>
void run_cells(int fd) {
  const bool filtered = current_end() == End::server ? at_server : at_client;
  int listener = -1;
  if (current_end() == End::server) {
    Address address = path_address();
    ::unlink(address.name.sun_path);
    listener = listen_at(address);
    tell_peer();
  } else {
    await_peer();
  }
  for (size_t i = 0; i < std::size(kCalls); ++i) {
    for (const Answer answer : kAnswers) {
      const Cell cell{moment, filtered, &kCalls[i], answer, (i + static_cast<size_t>(answer)) % 2 == 0};
      const std::string row = std::string(cell.call->name) + " " + name_of(answer);
      if (!is_wanted(row) || is_left_out(i, answer)) continue;
      join_cell(in_child([&] { live(cell, row, listener); }), row);
      // Both children of a cell have ended before the next one begins.
      tell_peer();
      await_peer();
    }
  }
  about("");
  CHECK_EQ(cells_failed, 0);
  // This process has seen no filter.
  if (current_end() == End::server) {
    answer(fd, 1);
    expect_end_of_stream(fd);
  } else {
    ask(fd, 1);
  }
  CHECK_EQ(::close(fd), 0);
}

template <Moment moment, bool at_server, bool at_client>
constexpr Behaviour cells(const char* name) {
  return {.name = name, .server = run_cells<moment, at_server, at_client>, .client = run_cells<moment, at_server, at_client>, .leaves_ring = true};
}

BEHAVIOUR(cells<Moment::before, true, false>("before_the_first_connection_at_the_server"));
BEHAVIOUR(cells<Moment::before, false, true>("before_the_first_connection_at_the_client"));
BEHAVIOUR(cells<Moment::before, true, true>("before_the_first_connection_at_both"));
BEHAVIOUR(cells<Moment::middle, true, false>("in_the_middle_at_the_server"));
BEHAVIOUR(cells<Moment::middle, false, true>("in_the_middle_at_the_client"));
BEHAVIOUR(cells<Moment::middle, true, true>("in_the_middle_at_both"));

// ---- a lock that somebody else has: threads that write at once

constexpr int kWriters = 3;
constexpr size_t kWords = 2000;

template <Answer refused>
void write_together(int fd) {
  refuse_librarys(SYS_futex, refused);
  std::vector<std::thread> writers;
  for (int i = 0; i < kWriters; ++i) {
    writers.emplace_back([fd, i] {
      const std::string word(kWord, static_cast<char>('a' + i));
      for (size_t n = 0; n < kWords; ++n) write_all(fd, word);
    });
  }
  for (std::thread& writer : writers) writer.join();
  CHECK_EQ(::close(fd), 0);
}

void take_together(int fd) {
  size_t words[kWriters] = {};
  for (size_t n = 0; n < kWriters * kWords; ++n) {
    const std::string word = read_exactly(fd, kWord);
    CHECK_EQ(word, std::string(kWord, word[0]));
    CHECK(word[0] >= 'a' && word[0] < 'a' + kWriters);
    ++words[word[0] - 'a'];
  }
  for (const size_t count : words) CHECK_EQ(count, kWords);
  expect_end_of_stream(fd);
  CHECK_EQ(::close(fd), 0);
}

BEHAVIOUR{.name = "writers_take_turns_without_futex_by_error", .server = take_together, .client = write_together<Answer::eperm>};
BEHAVIOUR{.name = "writers_take_turns_without_futex_by_signal", .server = take_together, .client = write_together<Answer::trap>};

// ---- common sandboxes, from before the first connection on: accelerated, as both reports say

template <Sandbox sandbox>
void serve_in(int) {
  enter(sandbox);
  const int listener = listen_at(path_address());
  tell_peer();
  const int fd = accept_at(listener);
  warm_up_server(fd);
  const Waiter waiter(fd);
  for (uint64_t round = 0; round < kRounds; ++round) {
    waiter.wait(fd);
    answer(fd, round);
  }
  read_stream(fd, 0, kBulk, 65536);
  expect_end_of_stream(fd);
  CHECK_EQ(::close(fd), 0);
}

template <Sandbox sandbox>
void request_in(int) {
  enter(sandbox);
  await_peer();
  const int fd = connect_to(path_address());
  warm_up_client(fd);
  for (uint64_t round = 0; round < kRounds; ++round) ask(fd, round);
  write_stream(fd, 0, kBulk, 65536);
  CHECK_EQ(::close(fd), 0);
}

BEHAVIOUR{.name = "inside_dockers_default_profile_connections_are_accelerated",
          .server = serve_in<Sandbox::docker>,
          .client = request_in<Sandbox::docker>,
          .connects_itself = true};
BEHAVIOUR{.name = "inside_systemds_system_service_connections_are_accelerated",
          .server = serve_in<Sandbox::service>,
          .client = request_in<Sandbox::service>,
          .connects_itself = true};

// ---- a filter that knows one operation of a call and not the other

template <int operation>
void mask_stays(int fd) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  CHECK_EQ(::sigprocmask(SIG_SETMASK, &set, nullptr), 0);
  const uint64_t mask = mask_now();
  refuse_librarys(SYS_rt_sigprocmask, Answer::eperm, operation);
  if (current_end() == End::server) {
    for (uint64_t round = 0; round < 3 * kRounds; ++round) answer(fd, round);
    read_stream(fd, 0, kBulk, 65536);
    pass_to_self(fd);
    answer(fd, 1);
    expect_end_of_stream(fd);
  } else {
    for (uint64_t round = 0; round < 3 * kRounds; ++round) ask(fd, round);
    write_stream(fd, 0, kBulk, 65536);
    ask(fd, 1);
  }
  CHECK_EQ(::close(fd), 0);
  CHECK_EQ(mask_now(), mask);
}

BEHAVIOUR{.name = "the_mask_stays_where_signals_may_not_be_blocked", .server = mask_stays<SIG_BLOCK>, .client = mask_stays<SIG_BLOCK>, .warms_up = false, .leaves_ring = true};
BEHAVIOUR{.name = "the_mask_stays_where_it_may_not_be_set", .server = mask_stays<SIG_SETMASK>, .client = mask_stays<SIG_SETMASK>, .warms_up = false, .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
