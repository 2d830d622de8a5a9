// Pointers to memory that cannot be touched: EFAULT wherever the kernel says so, on connections and on plain sockets.
// Not built with sanitizers, whose own wrappers look at the memory first.
#include <linux/sockios.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "behaviour.h"
#include "check.h"
#include "children.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

// Pages that nobody may touch, of the type that a call wants.
template <typename T>
T* nowhere() {
  static void* const page = ::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return static_cast<T*>(page);
}

void refuse_messages(int fd) {
  char byte = 'x';
  iovec part{&byte, 1};
  msghdr header{};
  header.msg_iov = nowhere<iovec>();
  header.msg_iovlen = 1;
  CHECK_ERRNO(::sendmsg(fd, nowhere<msghdr>(), 0), EFAULT);
  CHECK_ERRNO(::sendmsg(fd, &header, 0), EFAULT);
  CHECK_ERRNO(::recvmsg(fd, nowhere<msghdr>(), MSG_DONTWAIT), EFAULT);
  CHECK_ERRNO(::recvmsg(fd, &header, MSG_DONTWAIT), EFAULT);
  CHECK_ERRNO(::sendmmsg(fd, nowhere<mmsghdr>(), 1, 0), EFAULT);
  CHECK_ERRNO(::recvmmsg(fd, nowhere<mmsghdr>(), 1, MSG_DONTWAIT, nullptr), EFAULT);
  mmsghdr several{};
  several.msg_hdr.msg_iov = &part;
  several.msg_hdr.msg_iovlen = 1;
  CHECK_ERRNO(::recvmmsg(fd, &several, 1, MSG_DONTWAIT, nowhere<timespec>()), EFAULT);
  header.msg_iov = &part;
  header.msg_control = nowhere<char>();
  header.msg_controllen = 64;
  CHECK_ERRNO(::sendmsg(fd, &header, 0), EFAULT);
  header.msg_control = nullptr;
  header.msg_controllen = 0;
  header.msg_name = nowhere<char>();
  header.msg_namelen = 16;
  CHECK_ERRNO(::sendmsg(fd, &header, 0), EFAULT);
  CHECK_ERRNO(::sendto(fd, &byte, 1, 0, nowhere<sockaddr>(), 16), EFAULT);
  CHECK_ERRNO(::readv(fd, nowhere<iovec>(), 1), EFAULT);
  CHECK_ERRNO(::writev(fd, nowhere<iovec>(), 1), EFAULT);
  CHECK_ERRNO(::preadv2(fd, nowhere<iovec>(), 1, -1, 0), EFAULT);
  CHECK_ERRNO(::pwritev2(fd, nowhere<iovec>(), 1, -1, 0), EFAULT);
  CHECK_ERRNO(::write(fd, nowhere<char>(), 1), EFAULT);
  CHECK_ERRNO(::send(fd, nowhere<char>(), 1, 0), EFAULT);
}

void refuse_names_and_options(int fd) {
  socklen_t length = 16;
  sockaddr_un name{};
  CHECK_ERRNO(::getsockname(fd, nowhere<sockaddr>(), &length), EFAULT);
  CHECK_ERRNO(::getsockname(fd, reinterpret_cast<sockaddr*>(&name), nowhere<socklen_t>()), EFAULT);
  CHECK_ERRNO(::getpeername(fd, reinterpret_cast<sockaddr*>(&name), nowhere<socklen_t>()), EFAULT);
  CHECK_ERRNO(::connect(fd, nowhere<sockaddr>(), 16), EFAULT);
  CHECK_ERRNO(::bind(fd, nowhere<sockaddr>(), 16), EFAULT);
  length = sizeof(int);
  int value = 0;
  CHECK_ERRNO(::setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, nowhere<int>(), sizeof(int)), EFAULT);
  CHECK_ERRNO(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, nowhere<int>(), sizeof(timeval)), EFAULT);
  CHECK_ERRNO(::setsockopt(fd, SOL_SOCKET, SO_PASSCRED, nowhere<int>(), sizeof(int)), EFAULT);
  CHECK_ERRNO(::getsockopt(fd, SOL_SOCKET, SO_ERROR, nowhere<int>(), &length), EFAULT);
  CHECK_ERRNO(::getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, nowhere<socklen_t>()), EFAULT);
  CHECK_ERRNO(::ioctl(fd, FIONREAD, nowhere<int>()), EFAULT);
  CHECK_ERRNO(::ioctl(fd, SIOCOUTQ, nowhere<int>()), EFAULT);
  CHECK_ERRNO(::ioctl(fd, SIOCATMARK, nowhere<int>()), EFAULT);
  CHECK_ERRNO(::ioctl(fd, FIONBIO, nowhere<int>()), EFAULT);
  CHECK_ERRNO(::ioctl(fd, FIOASYNC, nowhere<int>()), EFAULT);
  CHECK_ERRNO(::ioctl(fd, FIOSETOWN, nowhere<int>()), EFAULT);
}

void refuse_waits(int fd) {
  pollfd one{.fd = fd, .events = POLLOUT, .revents = 0};
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  CHECK_ERRNO(::poll(nowhere<pollfd>(), 1, 0), EFAULT);
  CHECK_ERRNO(::ppoll(nowhere<pollfd>(), 1, nullptr, nullptr), EFAULT);
  CHECK_ERRNO(::syscall(SYS_ppoll, &one, 1, nowhere<timespec>(), nullptr, 8), EFAULT);
  CHECK_ERRNO(::ppoll(&one, 1, nullptr, nowhere<sigset_t>()), EFAULT);
  CHECK_ERRNO(::select(fd + 1, nowhere<fd_set>(), nullptr, nullptr, nullptr), EFAULT);
  CHECK_ERRNO(::pselect(fd + 1, nullptr, &set, nullptr, nullptr, nowhere<sigset_t>()), EFAULT);
  const int epoll = ::epoll_create1(0);
  epoll_event wanted{};
  wanted.events = EPOLLOUT;
  CHECK_ERRNO(::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, nowhere<epoll_event>()), EFAULT);
  CHECK_EQ(::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted), 0);
  CHECK_ERRNO(::epoll_wait(epoll, nowhere<epoll_event>(), 1, 0), EFAULT);
  CHECK_EQ(::close(epoll), 0);
}

BEHAVIOUR{.name = "memory_that_cannot_be_touched",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 1000));
                tell_peer();
                CHECK_EQ(read_exactly(fd, 4), "done");
              },
          .client =
              [](int fd) {
                await_peer();
                int plain[2];
                CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, plain), 0);
                write_all(plain[1], "unread");
                for (const int one : {plain[0], fd}) {
                  about(one == fd ? "connection" : "plain");
                  refuse_messages(one);
                  refuse_names_and_options(one);
                  refuse_waits(one);
                }
                CHECK_EQ(read_exactly(fd, 1000), bytes_at(0, 1000));
                write_all(fd, "done");
              }};

// A kernel call never runs the program's handler for faults, and never ends a program without one.
constexpr size_t kKnown = 20'480;  // bytes

char* mapping(int file, size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, file, 0);
  CHECK(memory != MAP_FAILED);
  return static_cast<char*>(memory);
}

void becomes_bad(int fd) {
  ask_plainly(fd, 3);
  char* memory = mapping(-1, kKnown);
  tell_peer();
  await_peer();
  CHECK(::recv(fd, memory, 1000, MSG_PEEK) > 0);
  std::memcpy(memory, bytes_at(0, 1000).data(), 1000);
  CHECK_EQ(::write(fd, memory, 1000), 1000);  // so it is known to be good for both
  for (int i = 0; i < 3; ++i) {
    CHECK_EQ(::mprotect(memory, kKnown, i == 0 ? PROT_READ : PROT_NONE), 0);
    if (i == 2) CHECK_EQ(::munmap(memory, kKnown), 0);
    CHECK_ERRNO(::read(fd, memory, 1000), EFAULT);
    CHECK_ERRNO(::recv(fd, memory + 500, 10, MSG_PEEK), EFAULT);
    if (i > 0) CHECK_ERRNO(::write(fd, memory, 1000), EFAULT);
    if (i > 0) CHECK_ERRNO(::send(fd, memory + 3, 1, 0), EFAULT);
  }
  CHECK_EQ(read_exactly(fd, 20'000), bytes_at(0, 20'000));
  write_all(fd, bytes_at(1000, 19'000));
  CHECK_EQ(::close(fd), 0);
}
void beside_bad_memory(int fd) {
  echo_plainly(fd, 3);
  await_peer();
  write_all(fd, bytes_at(0, 20'000));
  tell_peer();
  CHECK_EQ(read_exactly(fd, 20'000), bytes_at(0, 20'000));
  expect_end_of_stream(fd);
}

BEHAVIOUR{.name = "memory_that_was_good_before", .server = beside_bad_memory, .client = becomes_bad};
BEHAVIOUR{.name = "memory_that_was_good_before_a_handler_came", .server = beside_bad_memory, .client = [](int fd) {
            count_signal(SIGSEGV, 0);
            becomes_bad(fd);
            CHECK_EQ(signals_counted(), 0);
          }};
BEHAVIOUR{.name = "memory_that_was_good_before_a_handler_went", .server = beside_bad_memory, .client = [](int fd) {
            count_signal(SIGSEGV, 0);
            CHECK(::signal(SIGSEGV, SIG_DFL) != SIG_DFL);
            becomes_bad(fd);
          }};

// Programs write from mapped files by write() because it says EFAULT where a load would be SIGBUS.
BEHAVIOUR{.name = "a_mapped_file_becomes_shorter",
          .server = beside_bad_memory,
          .client =
              [](int fd) {
                ask_plainly(fd, 3);
                const int file = ::memfd_create("shorter", 0);
                CHECK_EQ(::ftruncate(file, kKnown), 0);
                char* memory = mapping(file, kKnown);
                std::memcpy(memory, bytes_at(0, 1000).data(), 1000);
                tell_peer();
                await_peer();
                CHECK_EQ(::write(fd, memory, 1000), 1000);
                CHECK_EQ(::ftruncate(file, 0), 0);
                CHECK_ERRNO(::write(fd, memory, 1000), EFAULT);
                CHECK_ERRNO(::write(fd, memory, 10), EFAULT);
                CHECK_ERRNO(::read(fd, memory, 1000), EFAULT);
                CHECK_EQ(read_exactly(fd, 20'000), bytes_at(0, 20'000));
                write_all(fd, bytes_at(1000, 19'000));
                CHECK_EQ(::close(fd), 0);
              }};

// ---- all other faults are the program's

void expect_ended_by(int signal, const Body& body) {
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    const rlimit no_core{};
    ::setrlimit(RLIMIT_CORE, &no_core);
    body();
    ::_exit(0);
  }
  int status = -1;
  CHECK_EQ(::waitpid(child, &status, 0), child);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), signal);
}

void touch() { *static_cast<volatile char*>(nowhere<char>()) = 1; }
void touch_beyond_the_end() {
  const int file = ::memfd_create("empty", 0);
  *static_cast<volatile char*>(mapping(file, 4096)) = 1;
}
void give_back_and_return(int signal) { ::signal(signal, SIG_DFL); }

void die_in_all_ways() {
  expect_ended_by(SIGSEGV, touch);
  expect_ended_by(SIGBUS, touch_beyond_the_end);
  for (const int signal : {SIGSEGV, SIGBUS}) {
    expect_ended_by(signal, [signal] { ::raise(signal); });
    expect_ended_by(signal, [signal] { ::kill(::getpid(), signal); });
    expect_ended_by(signal, [signal] {  // pending when it is let through
      sigset_t only;
      sigemptyset(&only);
      sigaddset(&only, signal);
      ::sigprocmask(SIG_BLOCK, &only, nullptr);
      ::raise(signal);
      ::sigprocmask(SIG_UNBLOCK, &only, nullptr);
    });
  }
  expect_ended_by(SIGSEGV, [] {  // as crash reporters do: the fault is repeated
    ::signal(SIGSEGV, give_back_and_return);
    touch();
  });
}

struct sigaction action_of(int signal) {
  struct sigaction action {};
  CHECK_EQ(::sigaction(signal, nullptr, &action), 0);
  return action;
}

BEHAVIOUR{.name = "other_faults_end_the_program",
          .server = [](int fd) { echo_plainly(fd, 3); },
          .client =
              [](int fd) {
                die_in_all_ways();
                ask_plainly(fd, 3);
                die_in_all_ways();
              }};

BEHAVIOUR{.name = "a_program_without_handlers_is_shown_none",
          .server = [](int fd) { echo_plainly(fd, 3); },
          .client =
              [](int fd) {
                ask_plainly(fd, 3);
                for (const int signal : {SIGSEGV, SIGBUS}) {
                  struct sigaction action = action_of(signal);
                  CHECK(action.sa_handler == SIG_DFL);
                  CHECK_EQ(action.sa_flags, 0);
                  action.sa_flags = SA_RESTART | SA_ONSTACK;
                  sigaddset(&action.sa_mask, SIGUSR1);
                  CHECK_EQ(::sigaction(signal, &action, nullptr), 0);
                  const struct sigaction shown = action_of(signal);
                  CHECK(shown.sa_handler == SIG_DFL);
                  constexpr int kRestorer = 0x04000000;  // libc's own
                  CHECK_EQ(shown.sa_flags, SA_RESTART | SA_ONSTACK | kRestorer);
                  CHECK(::sigismember(&shown.sa_mask, SIGUSR1) == 1 && ::sigismember(&shown.sa_mask, SIGUSR2) == 0);
                  CHECK(::signal(signal, SIG_IGN) == SIG_DFL);
                  CHECK_EQ(::raise(signal), 0);  // ignored
                  CHECK(::signal(signal, SIG_DFL) == SIG_IGN);
                  count_signal(signal, 0);
                  CHECK_EQ(::raise(signal), 0);
                  CHECK_EQ(signals_counted(), 1);
                  CHECK(::signal(signal, SIG_DFL) != SIG_DFL);
                }
                die_in_all_ways();
              }};

}  // namespace
}  // namespace shunt::behaviour
