// Pointers to memory that cannot be touched: EFAULT wherever the kernel says so, on connections and on plain sockets.
// Not built with sanitizers, whose own wrappers look at the memory first.
#include <linux/sockios.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

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

// The program has a handler for faults, and a kernel call never runs it.
BEHAVIOUR{.name = "memory_that_was_good_before",
          .server =
              [](int fd) {
                echo_plainly(fd, 3);
                await_peer();
                write_all(fd, bytes_at(0, 20'000));
                tell_peer();
                CHECK_EQ(read_exactly(fd, 20'000), bytes_at(0, 20'000));
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                count_signal(SIGSEGV, 0);
                ask_plainly(fd, 3);
                constexpr size_t kBytes = 20'480;
                auto* memory = static_cast<char*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
                CHECK(memory != MAP_FAILED);
                tell_peer();
                await_peer();
                CHECK(::recv(fd, memory, 1000, MSG_PEEK) > 0);
                std::memcpy(memory, bytes_at(0, 1000).data(), 1000);
                CHECK_EQ(::write(fd, memory, 1000), 1000);  // so it is known to be good for both
                for (int i = 0; i < 3; ++i) {
                  CHECK_EQ(::mprotect(memory, kBytes, i == 0 ? PROT_READ : PROT_NONE), 0);
                  if (i == 2) CHECK_EQ(::munmap(memory, kBytes), 0);
                  CHECK_ERRNO(::read(fd, memory, 1000), EFAULT);
                  CHECK_ERRNO(::recv(fd, memory + 500, 10, MSG_PEEK), EFAULT);
                  if (i > 0) CHECK_ERRNO(::write(fd, memory, 1000), EFAULT);
                  if (i > 0) CHECK_ERRNO(::send(fd, memory + 3, 1, 0), EFAULT);
                }
                CHECK_EQ(signals_counted(), 0);
                CHECK_EQ(read_exactly(fd, 20'000), bytes_at(0, 20'000));
                write_all(fd, bytes_at(1000, 19'000));
                CHECK_EQ(::close(fd), 0);
              }};

}  // namespace
}  // namespace shunt::behaviour
