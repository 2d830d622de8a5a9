// The calls behind the operations. An Answer holds all that a program could see of them.
#include "pair.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "descriptors.h"

namespace shunt::differential {
namespace {

constexpr int kWarmUpRounds = 6;
constexpr int kAmpleBuffer = 212'992;  // the kernel doubles it

constexpr char kUntouched = '\x5a';  // what a read leaves alone keeps this

volatile std::sig_atomic_t sigpipes = 0;
void count_one(int) { sigpipes = sigpipes + 1; }

[[noreturn]] void give_up(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

Answer answer_of(long result) { return {.result = result, .error = result < 0 ? errno : 0, .signals = 0, .data = {}}; }

template <class Call>
Answer reading(size_t bytes, const Call& call) {
  std::string buffer(bytes, kUntouched);
  iovec pieces[2] = {{buffer.data(), bytes / 2}, {buffer.data() + bytes / 2, bytes - bytes / 2}};
  Answer answer = answer_of(call(buffer.data(), pieces));
  if (answer.result > 0) answer.data = buffer.substr(0, static_cast<size_t>(answer.result));
  return answer;
}

template <class Call>
Answer writing(const std::string& data, const Call& call) {
  char* start = const_cast<char*>(data.data());
  iovec pieces[2] = {{start, data.size() / 3}, {start + data.size() / 3, data.size() - data.size() / 3}};
  return answer_of(call(pieces));
}

msghdr message_of(iovec* pieces) {
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = 2;
  return message;
}

Answer polled(int fd) {
  pollfd one{.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP | POLLPRI, .revents = 0};
  Answer answer = answer_of(::poll(&one, 1, 0));
  if (answer.result >= 0) answer.result = one.revents;
  return answer;
}

Answer waited(int set) {
  epoll_event event{};
  Answer answer = answer_of(::epoll_wait(set, &event, 1, 0));
  if (answer.result > 0) answer.result = event.events;
  return answer;
}

Answer asked(int fd, unsigned long request) {
  int value = -1;
  Answer answer = answer_of(::ioctl(fd, request, &value));
  if (answer.result == 0) answer.result = value;
  return answer;
}

Answer error_of(int fd) {
  int value = -1;
  socklen_t length = sizeof value;
  Answer answer = answer_of(::getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length));
  if (answer.result == 0) answer.result = value;
  return answer;
}

int epoll_of(int fd, uint32_t events) {
  const int set = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = events, .data = {.fd = fd}};
  if (set < 0 || ::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0) give_up("epoll");
  return set;
}

void echo(int from, int to) {
  char word[8] = "warm-up";
  if (::write(from, word, sizeof word) != sizeof word) give_up("warm-up: write");
  pollfd one{.fd = to, .events = POLLIN, .revents = 0};  // an end is upgraded once it was seen to wait
  if (::poll(&one, 1, -1) != 1) give_up("warm-up: poll");
  if (::recv(to, word, sizeof word, MSG_WAITALL) != sizeof word) give_up("warm-up: recv");
}

}  // namespace

void count_sigpipe() {
  struct sigaction action {};
  action.sa_handler = count_one;
  ::sigaction(SIGPIPE, &action, nullptr);
}

Pair Pair::connected(const std::string& directory, Room room, int first) {
  const Descriptors taken(first);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = directory + "/socket";
  if (path.size() >= sizeof address.sun_path) throw std::runtime_error("path too long");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  ::unlink(path.c_str());
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::bind(listener, name, sizeof address) != 0 || ::listen(listener, 1) != 0) give_up("listen");
  const int connector = ::socket(AF_UNIX, SOCK_STREAM, 0);
  if (::connect(connector, name, sizeof address) != 0) give_up("connect");
  const int acceptor = ::accept(listener, nullptr, nullptr);
  if (acceptor < 0) give_up("accept");
  ::close(listener);
  for (int i = 0; i < kWarmUpRounds; ++i) {
    echo(connector, acceptor);
    echo(acceptor, connector);
  }
  Pair pair;
  pair.adopt(connector, acceptor, room);
  return pair;
}

Pair Pair::reference(Room room) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) give_up("socketpair");
  Pair pair;
  pair.adopt(ends[0], ends[1], room);
  return pair;
}

void Pair::adopt(int connector, int acceptor, Room room) {
  ends_[0].fd = connector;
  ends_[1].fd = acceptor;
  for (End& end : ends_) {
    if (room == Room::ample) ::setsockopt(end.fd, SOL_SOCKET, SO_SNDBUF, &kAmpleBuffer, sizeof kAmpleBuffer);
    ::fcntl(end.fd, F_SETFL, O_RDWR | O_NONBLOCK);
    open_sets(end);
  }
}

Pair::Pair(Pair&& other) noexcept {
  for (int i = 0; i < 2; ++i) ends_[i] = std::exchange(other.ends_[i], End{});
}

Pair::~Pair() {
  for (End& end : ends_) close_end(end);
}

void Pair::open_sets(End& end) {
  end.level = epoll_of(end.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
  end.edge = epoll_of(end.fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
}

void Pair::close_end(End& end) {
  for (int* fd : {&end.level, &end.edge, &end.fd}) {
    if (*fd >= 0) ::close(*fd);
    *fd = -1;
  }
}

Answer Pair::apply(const Operation& operation, const std::string& data) {
  End& end = ends_[operation.end];
  const int fd = end.fd;
  const size_t bytes = operation.bytes;
  const int before = sigpipes;
  Answer answer;
  errno = 0;
  switch (operation.kind) {
    case Kind::write:
      answer = writing(data, [&](iovec*) { return ::write(fd, data.data(), data.size()); });
      break;
    case Kind::send:
      answer = writing(data, [&](iovec*) { return ::send(fd, data.data(), data.size(), MSG_NOSIGNAL); });
      break;
    case Kind::writev:
      answer = writing(data, [&](iovec* pieces) { return ::writev(fd, pieces, 2); });
      break;
    case Kind::sendmsg:
      answer = writing(data, [&](iovec* pieces) {
        const msghdr message = message_of(pieces);
        return ::sendmsg(fd, &message, 0);
      });
      break;
    case Kind::read:
      answer = reading(bytes, [&](char* to, iovec*) { return ::read(fd, to, bytes); });
      break;
    case Kind::recv:
      answer = reading(bytes, [&](char* to, iovec*) { return ::recv(fd, to, bytes, 0); });
      break;
    case Kind::readv:
      answer = reading(bytes, [&](char*, iovec* pieces) { return ::readv(fd, pieces, 2); });
      break;
    case Kind::recvmsg:
      answer = reading(bytes, [&](char*, iovec* pieces) {
        msghdr message = message_of(pieces);
        return ::recvmsg(fd, &message, MSG_DONTWAIT);
      });
      break;
    case Kind::peek:
      answer = reading(bytes, [&](char* to, iovec*) { return ::recv(fd, to, bytes, MSG_PEEK); });
      break;
    case Kind::recv_all:
      answer = reading(bytes, [&](char* to, iovec*) { return ::recv(fd, to, bytes, MSG_WAITALL); });
      break;
    case Kind::poll:
      answer = polled(fd);
      break;
    case Kind::epoll_level:
      answer = waited(end.level);
      break;
    case Kind::epoll_edge:
      answer = waited(end.edge);
      break;
    case Kind::unread:
      answer = asked(fd, FIONREAD);
      break;
    case Kind::unsent:
      answer = asked(fd, SIOCOUTQ);
      answer.result =
          answer.result > 0 ? 1 : answer.result;  // it counts buffer memory: only none and some mean something
      break;
    case Kind::error:
      answer = error_of(fd);
      break;
    case Kind::duplicate: {
      End copy{.fd = ::dup(fd), .level = -1, .edge = -1};
      close_end(end);
      open_sets(copy);
      end = copy;
      break;
    }
    case Kind::shut_reading:
      answer = answer_of(::shutdown(fd, SHUT_RD));
      break;
    case Kind::shut_writing:
      answer = answer_of(::shutdown(fd, SHUT_WR));
      break;
    case Kind::shut_both:
      answer = answer_of(::shutdown(fd, SHUT_RDWR));
      break;
    case Kind::close:
      close_end(end);
      break;
  }
  answer.signals = sigpipes - before;
  return answer;
}

}  // namespace shunt::differential
