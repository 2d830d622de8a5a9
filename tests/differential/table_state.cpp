// The calls behind the steps and the questions. The library at the end that is killed does not see it.
#include "table_state.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>

#include "descriptors.h"
#include "sys/raw.h"

namespace shunt::differential {
namespace {

constexpr size_t kIncomingBytes = 5;
constexpr size_t kOutgoingBytes = 7;
constexpr int kRoom = 4;
constexpr size_t kPiece = 4096;
// A peer that said nothing is believed to be there for 50 µs after the kernel last said so.
constexpr auto kBelief = std::chrono::microseconds(60);
constexpr timespec kArming{0, 1000};
constexpr short kAsked = POLLIN | POLLPRI | POLLOUT | POLLRDHUP | POLLRDNORM | POLLRDBAND | POLLWRNORM | POLLWRBAND;
constexpr uint32_t kEvents = static_cast<uint16_t>(kAsked);
constexpr uint32_t kInput = EPOLLIN | EPOLLRDHUP | EPOLLPRI;

[[noreturn]] void give_up(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

int checked(int result, const char* what) {
  if (result < 0) give_up(what);
  return result;
}

long answer_of(long result) { return result < 0 ? -errno : result; }

long send_bytes(int fd, size_t bytes) {
  const std::string data(bytes, 's');
  return answer_of(::send(fd, data.data(), bytes, MSG_NOSIGNAL));
}

// −EAGAIN, or what it ended with.
long fill(int fd) {
  long result = -EAGAIN;
  for (size_t piece = kPiece; piece > 0 && result == -EAGAIN; piece /= 2)
    while ((result = send_bytes(fd, piece)) > 0) {
    }
  return result;
}

long receive_byte(int fd) {
  char byte;
  return answer_of(::recv(fd, &byte, 1, 0));
}

long drain(int fd, long& bytes) {
  char piece[64];
  for (;;) {
    const long result = answer_of(::recv(fd, piece, sizeof piece, 0));
    if (result <= 0) return result;
    bytes += result;
  }
}

long pending_error(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  const long result = answer_of(::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size));
  return result < 0 ? result : error;
}

long unread(int fd) {
  int bytes = 0;
  const long result = answer_of(::ioctl(fd, FIONREAD, &bytes));
  return result < 0 ? result : bytes;
}

long polled(int fd, short events) {
  pollfd one{.fd = fd, .events = events, .revents = 0};
  const long result = answer_of(::poll(&one, 1, 0));
  return result < 0 ? result : one.revents;
}

long selected(int fd) {
  fd_set sets[3];
  for (fd_set& set : sets) {
    FD_ZERO(&set);
    FD_SET(fd, &set);
  }
  timeval now{0, 0};
  if (const long result = answer_of(::select(fd + 1, &sets[0], &sets[1], &sets[2], &now)); result < 0) return result;
  long bits = 0;
  for (int i = 0; i < 3; ++i)
    if (FD_ISSET(fd, &sets[i])) bits |= 1L << i;
  return bits;
}

// Of the registration of `fd`. Whatever else is in the set stays from no earlier cell: its descriptors are closed.
long waited(int set, int room = kRoom) {
  epoll_event events[kRoom];
  const long result = answer_of(::epoll_wait(set, events, room, 0));
  return result > 0 ? static_cast<long>(events[0].events) : result;
}

// A sleep: from then on the end has to be woken.
void arm(int fd) {
  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
  ::ppoll(&one, 1, &kArming, nullptr);
}

int room_of(Watch watch) { return watch == Watch::with_room_for_one ? 1 : kRoom; }

void pass_byte(int from, int to) {
  char byte = 'w';
  pollfd one{.fd = to, .events = POLLIN, .revents = 0};  // an end is upgraded once it was seen to wait
  if (::send(from, &byte, 1, MSG_NOSIGNAL) != 1 || ::poll(&one, 1, -1) != 1 || ::recv(to, &byte, 1, 0) != 1) give_up("half echo");
}

void shut(int fd, Own own, long& answer) {
  constexpr int kHow[] = {-1, SHUT_RD, SHUT_WR, SHUT_RDWR};
  if (own != Own::open) answer = answer_of(::shutdown(fd, kHow[static_cast<int>(own)]));
}

Own shutdown_of(Peer peer) {
  switch (peer) {
    case Peer::shut_writing:
    case Peer::shut_writing_closed:
    case Peer::shut_writing_killed:
      return Own::shut_writing;
    case Peer::shut_both:
    case Peer::shut_both_closed:
    case Peer::shut_both_killed:
      return Own::shut_both;
    case Peer::shut_reading:
      return Own::shut_reading;
    case Peer::open:
    case Peer::closed:
    case Peer::killed:
      return Own::open;
  }
  return Own::open;
}

void act_since(Since since, int fd, Answers& answers) {
  long& first = answers[Question::since];
  long& end = answers[Question::since_end];
  long& bytes = answers[Question::since_bytes];
  switch (since) {
    case Since::nothing:
      return;
    case Since::received:
      first = receive_byte(fd);
      return;
    case Since::sent:
      first = send_bytes(fd, 1);
      return;
    case Since::asked_error:
      first = pending_error(fd);
      return;
    case Since::drained:
      first = drain(fd, bytes);
      return;
    case Since::drained_twice:
      first = drain(fd, bytes);
      end = drain(fd, bytes);
      return;
    case Since::asked_error_drained:
      first = pending_error(fd);
      end = drain(fd, bytes);
      return;
  }
}

void wait_out_belief() {
  const auto end = std::chrono::steady_clock::now() + kBelief;
  while (std::chrono::steady_clock::now() < end) {
  }
}

// Linux gives readers that ask for more than one byte at least that many; the library then leaves the ring.
void leave_ring(int fd) {
  for (const int least : {2, 1})
    checked(::setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least), "SO_RCVLOWAT");
}

}  // namespace

States::States(const std::string& directory) : path_(directory + "/table") {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
  listener_ = checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  checked(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address), "bind");
  checked(::listen(listener_, 1), "listen");
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // sleeps only to be armed
  nothing_ = checked(::open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null");
  for (int& set : watched_) set = checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  for (int& set : now_) set = checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
}

States::~States() {
  for (const int set : watched_) ::close(set);
  for (const int set : now_) ::close(set);
  ::close(nothing_);
  ::close(listener_);
}

States::Ends States::open(const Setup& setup, int first) {
  const Descriptors taken(first);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
  const int connector = checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
  checked(::connect(connector, reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
  const int acceptor = checked(::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK), "accept4");
  const Ends ends = setup.accepted ? Ends{acceptor, connector} : Ends{connector, acceptor};
  const auto half_echo = [&](int i) { i % 2 == 0 ? pass_byte(acceptor, connector) : pass_byte(connector, acceptor); };
  constexpr int kBeforeOffer = 4;  // then each end has been seen to read, write and wait, and the connector has shown its marker
  for (int i = 0; setup.half_echoes > 0 && i < kBeforeOffer; ++i) half_echo(i);
  for (int i = 0; i < setup.half_echoes; ++i) half_echo(i);
  if (setup.leaver != Leaver::nobody) leave_ring(setup.leaver == Leaver::own ? ends.own : ends.peer);
  for (int i = 0; i < setup.afterwards; ++i) half_echo(i);
  return ends;
}

void States::put(int set, int operation, int fd, uint32_t events) {
  epoll_event event{.events = events, .data = {.fd = fd}};
  checked(::epoll_ctl(set, operation, fd, &event), "epoll_ctl");
}

void States::watch(int fd, int room) {
  put(watched_[0], EPOLL_CTL_ADD, fd, kInput);
  put(watched_[1], EPOLL_CTL_ADD, fd, kInput | EPOLLOUT | EPOLLET);
  put(watched_[2], EPOLL_CTL_ADD, fd, kInput | EPOLLET);
  put(watched_[3], EPOLL_CTL_ADD, fd, kInput | EPOLLONESHOT);
  waited(watched_[1], room);  // that it is writable
  epoll_event event;
  for (const int set : watched_) ::epoll_pwait2(set, &event, 1, &kArming, nullptr);
}

void States::step(const Cell& cell, Ends ends, Answers& answers) {
  const auto bytes = [&] {
    if (cell.incoming == Incoming::unread) answers[Question::incoming] = send_bytes(ends.peer, kIncomingBytes);
    if (cell.outgoing == Outgoing::unread) answers[Question::outgoing] = send_bytes(ends.own, kOutgoingBytes);
    if (cell.outgoing == Outgoing::full) answers[Question::outgoing] = fill(ends.own);
  };
  const auto own = [&] { shut(ends.own, cell.own, answers[Question::own]); };
  const auto peer = [&] {
    shut(ends.peer, shutdown_of(cell.peer), answers[Question::peer]);
    // A number that the library thinks to be the peer's, until it is closed for good.
    if (is_killed(cell.peer)) sys::raw(SYS_dup3, nothing_, ends.peer, O_CLOEXEC);
    if (is_gone(cell.peer) && !is_killed(cell.peer)) ::close(ends.peer);
  };
  switch (cell.order) {
    case Order::bytes_own_peer:
      bytes(), own(), peer();
      break;
    case Order::bytes_peer_own:
      bytes(), peer(), own();
      break;
    case Order::own_bytes_peer:
      own(), bytes(), peer();
      break;
    case Order::peer_bytes_own:
      peer();
      if (is_killed(cell.peer)) wait_out_belief();
      if (is_gone(cell.peer)) ends.peer = -1;  // whose write fails with EBADF
      bytes(), own();
      break;
  }
  if (is_killed(cell.peer)) wait_out_belief();
}

void States::ask(int fd, Watch watch, Answers& answers) {
  if (watch != Watch::no) {
    const int room = room_of(watch);
    answers[Question::watched_level] = waited(watched_[0], room);
    answers[Question::watched_edge] = waited(watched_[1], room);
    answers[Question::watched_edge_again] = waited(watched_[1], room);
    answers[Question::watched_input] = waited(watched_[2], room);
    answers[Question::watched_input_again] = waited(watched_[2], room);
    answers[Question::watched_one_shot] = waited(watched_[3], room);
    answers[Question::watched_one_shot_again] = waited(watched_[3], room);
  }
  answers[Question::poll] = polled(fd, kAsked);
  answers[Question::poll_nothing] = polled(fd, 0);
  answers[Question::select] = selected(fd);
  put(now_[0], EPOLL_CTL_ADD, fd, kEvents);
  answers[Question::level] = waited(now_[0]);
  put(now_[1], EPOLL_CTL_ADD, fd, 0);
  answers[Question::level_nothing] = waited(now_[1]);
  put(now_[2], EPOLL_CTL_ADD, fd, kEvents | EPOLLET);
  answers[Question::edge] = waited(now_[2]);
  answers[Question::edge_again] = waited(now_[2]);
  put(now_[2], EPOLL_CTL_MOD, fd, kEvents | EPOLLET);
  answers[Question::edge_modified] = waited(now_[2]);
  put(now_[3], EPOLL_CTL_ADD, fd, kEvents | EPOLLONESHOT);
  answers[Question::one_shot] = waited(now_[3]);
  answers[Question::one_shot_again] = waited(now_[3]);
  put(now_[3], EPOLL_CTL_MOD, fd, kEvents | EPOLLONESHOT);
  answers[Question::one_shot_modified] = waited(now_[3]);
  answers[Question::unread] = unread(fd);
  answers[Question::recv] = receive_byte(fd);
  answers[Question::send] = send_bytes(fd, 1);
  answers[Question::error] = pending_error(fd);
  answers[Question::poll_after] = polled(fd, kAsked);
}

Answers States::answers(const Cell& cell, Ends ends, Watch watched) {
  Answers answers;
  if (watched != Watch::no) watch(ends.own, room_of(watched)), arm(ends.peer);
  step(cell, ends, answers);
  act_since(cell.since, ends.own, answers);
  ask(ends.own, watched, answers);
  ::close(ends.own);
  if (!is_gone(cell.peer) || is_killed(cell.peer)) ::close(ends.peer);
  return answers;
}

Answers States::connected(const Cell& cell, const Setup& setup, int first) {
  return answers(cell, open(setup, first), setup.watch);
}

Answers States::reference(const Cell& cell, Watch watch) {
  int ends[2];
  checked(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), "socketpair");
  return answers(cell, {ends[0], ends[1]}, watch);
}

int States::held_by_kernel(const Setup& setup, int bytes) {
  const Ends ends = open(setup, 0);
  send_bytes(ends.peer, static_cast<size_t>(bytes));
  int held = 0;
  sys::raw(SYS_ioctl, ends.own, FIONREAD, &held);
  ::close(ends.own);
  ::close(ends.peer);
  return held;
}

}  // namespace shunt::differential
