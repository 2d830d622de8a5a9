// The calls behind a readiness script's steps. The peer of a connection that is to be the kernel's works by system calls
// that no library sees.
#include "readiness_world.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <set>
#include <system_error>
#include <thread>

#include "descriptors.h"
#include "sys/raw.h"

namespace shunt::differential {
namespace {

constexpr int kNeverOpen = 200;  // a number that no descriptor gets
constexpr int kDuplicates = 210;  // and from here on the duplicates of the reference, then those of the other
constexpr int kWarmUpRounds = 6;
constexpr size_t kPiece = 4096;
constexpr uint32_t kAsked = POLLIN | POLLOUT | POLLRDHUP | POLLPRI;

[[noreturn]] void give_up(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

int checked(int result, const char* what) {
  if (result < 0) give_up(what);
  return result;
}

Seen seen_of(long result) { return {.result = result, .error = result < 0 ? errno : 0, .events = {}}; }

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

// As the call: −1 and errno.
long call(bool aware, long number, long a, long b, long c) {
  if (aware) return ::syscall(number, a, b, c);
  const long result = sys::raw(number, a, b, c);
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

int listen_at(const std::string& path, bool aware) {
  ::unlink(path.c_str());
  const sockaddr_un address = address_of(path);
  const long fd = call(aware, SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || call(aware, SYS_bind, fd, sys::word(&address), sizeof address) != 0 ||
      call(aware, SYS_listen, fd, 8, 0) != 0)
    give_up("listen");
  return static_cast<int>(fd);
}

int how_of(uint32_t choice) { return static_cast<int>(choice % 3); }  // SHUT_RD, SHUT_WR, SHUT_RDWR

timespec timespec_of(int ms) { return {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1'000'000L}; }

}  // namespace

bool idle(const Step& step, const Seen& seen) {
  return seen.result == 0 && (step.act != Act::wait || seen.events.empty());
}

World::World(const Plan& plan, const std::string& directory, int first)
    : plan_(plan),
      path_(directory.empty() ? "" : directory + "/readiness"),
      first_duplicate_(kDuplicates + (directory.empty() ? 0 : kConnections)) {
  const Descriptors taken(directory.empty() ? 0 : first);
  for (int& fd : fds_) fd = -1;
  // select() checks no number that the kernel's table of descriptors is too small for.
  ::close(checked(::fcntl(STDERR_FILENO, F_DUPFD, kNeverOpen), "F_DUPFD"));
  for (const bool aware : {true, false})
    if (!path_.empty()) listeners_[aware ? 0 : 1] = listen_at(path_ + (aware ? "" : ".plain"), aware);
  for (int& set : sets_) set = checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  for (int i = 0; i < kConnections; ++i) open(i);
  int ends[2];
  checked(::pipe2(ends, O_NONBLOCK), "pipe2");
  fds_[kPipe] = ends[0];
  pipe_writer_ = ends[1];
  fds_[kEventfd] = checked(::eventfd(0, EFD_NONBLOCK), "eventfd");
}

World::~World() {
  for (int i = 0; i < kConnections; ++i) close_peer(i);
  for (const int fd : fds_)
    if (fd >= 0) ::close(fd);
  for (const int set : sets_) ::close(set);
  ::close(pipe_writer_);
  for (const bool aware : {true, false})
    if (listeners_[aware ? 0 : 1] >= 0) call(aware, SYS_close, listeners_[aware ? 0 : 1], 0, 0);
}

void World::open(int connection) {
  const bool aware = !(plan_.unaware >> connection & 1);
  int own = -1;
  int other = -1;
  if (path_.empty()) {
    int ends[2];
    checked(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
    own = ends[0], other = ends[1];
  } else {
    const bool accepted = plan_.accepted >> connection & 1;  // by the program
    const bool aware_connector = accepted ? aware : true;
    const bool aware_acceptor = accepted ? true : aware;
    const int listener = listeners_[aware_acceptor ? 0 : 1];
    const sockaddr_un address = address_of(path_ + (aware_acceptor ? "" : ".plain"));
    const auto connector = static_cast<int>(call(aware_connector, SYS_socket, AF_UNIX, SOCK_STREAM, 0));
    if (call(aware_connector, SYS_connect, connector, sys::word(&address), sizeof address) != 0) give_up("connect");
    const auto acceptor = static_cast<int>(call(aware_acceptor, SYS_accept, listener, 0, 0));
    if (acceptor < 0) give_up("accept");
    own = accepted ? acceptor : connector;
    other = accepted ? connector : acceptor;
  }
  fds_[connection] = own;
  peers_[connection] = {.fd = other, .aware = aware};
  for (int i = 0; (plan_.warmed_up >> connection & 1) && i < kWarmUpRounds; ++i) {
    char word[8] = "warm-up";
    pollfd ours{.fd = own, .events = POLLIN, .revents = 0}, theirs{.fd = other, .events = POLLIN, .revents = 0};
    // An end is upgraded once it was seen to wait.
    if (peer_call(connection, SYS_write, sys::word(word), 8) != 8 || ::poll(&ours, 1, -1) != 1 || ::recv(own, word, 8, MSG_WAITALL) != 8 ||
        ::write(own, word, 8) != 8 || call(aware, SYS_poll, sys::word(&theirs), 1, -1) != 1 || peer_drains(connection, 8) != 8)
      give_up("warm-up");
  }
  ::fcntl(own, F_SETFL, O_RDWR | O_NONBLOCK);
  peer_call(connection, SYS_fcntl, F_SETFL, O_RDWR | O_NONBLOCK);
}

long World::peer_call(int connection, long number, long a, long b, long c) {
  const Peer& peer = peers_[connection];
  if (!peer.aware) {
    const long result = sys::raw(number, peer.fd, a, b, c);
    if (result >= 0) return result;
    errno = static_cast<int>(-result);
    return -1;
  }
  return ::syscall(number, peer.fd, a, b, c, 0, 0);
}

long World::peer_writes(int connection, size_t bytes) {
  const std::string data(bytes, 'p');
  return peer_call(connection, SYS_write, sys::word(data.data()), static_cast<long>(bytes));
}

// A read may end early at a fence.
long World::peer_drains(int connection, size_t most) {
  char piece[kPiece];
  size_t got = 0;
  while (got < most) {
    const long n = peer_call(connection, SYS_read, sys::word(piece), static_cast<long>(std::min(most - got, kPiece)));
    if (n <= 0) return got > 0 ? static_cast<long>(got) : n;
    got += static_cast<size_t>(n);
  }
  return static_cast<long>(got);
}

void World::close_slot(int slot) {
  if (fds_[slot] >= 0) ::close(fds_[slot]);
  fds_[slot] = -1;
}

void World::close_peer(int connection) {
  Peer& peer = peers_[connection];
  if (peer.fd >= 0) call(peer.aware, SYS_close, peer.fd, 0, 0);
  peer.fd = -1;
}

void World::act_late(const Step& step) {
  const int connection = step.slot % kConnections;
  if (step.late == Late::writes) peer_writes(connection, 1);
  if (step.late == Late::shuts) peer_call(connection, SYS_shutdown, SHUT_WR);
  if (step.late == Late::closes) close_peer(connection);
}

Seen World::wait(const Step& step, int timeout_ms) {
  std::vector<epoll_event> events(step.size);
  const int room = static_cast<int>(step.size);
  const int set = sets_[step.set];
  const timespec timeout = timespec_of(timeout_ms);
  const auto once = [&] {
    switch (step.manner % 3) {
      case 0:
        return ::epoll_wait(set, events.data(), room, timeout_ms);
      case 1:
        return ::epoll_pwait(set, events.data(), room, timeout_ms, nullptr);
      default:
        return ::epoll_pwait2(set, events.data(), room, &timeout, nullptr);
    }
  };
  Seen seen;
  // With little room everything must have come after some calls: nobody starves.
  for (int round = 0; round < (room < kSlots ? 2 * kSlots : 1); ++round) {
    const int found = once();
    if (found < 0) return seen_of(found);
    std::set<uint64_t> once_each;
    for (int i = 0; i < found; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      if (!once_each.insert(event.data.u64).second) seen.error = ENOTUNIQ;  // the kernel tells of a registration once in a call
      seen.events[event.data.u64] |= event.events;
    }
    timeout_ms = 0;
    if (found == 0) break;
  }
  return seen;
}

Seen World::ask_poll(const Step& step, int timeout_ms) {
  std::vector<pollfd> entries;
  for (int slot = 0; slot < kSlots; ++slot)
    if (step.events >> slot & 1)
      entries.push_back({.fd = fds_[slot] >= 0 ? fds_[slot] : kNeverOpen,
                         .events = static_cast<short>(step.manner >> slot & 1 ? kAsked : POLLIN),
                         .revents = 0x55});
  if (step.manner % 5 == 0) entries.push_back({.fd = -1, .events = POLLIN, .revents = 0x55});
  if (step.manner % 7 == 0) entries.insert(entries.end(), entries.begin(), entries.begin() + static_cast<long>(entries.size() / 2));
  const timespec timeout = timespec_of(timeout_ms);
  Seen seen = seen_of(step.manner % 2 ? ::poll(entries.data(), entries.size(), timeout_ms)
                                      : ::ppoll(entries.data(), entries.size(), &timeout, nullptr));
  for (size_t i = 0; i < entries.size(); ++i) seen.events[i] = static_cast<uint16_t>(entries[i].revents);
  return seen;
}

Seen World::ask_select(const Step& step, int timeout_ms) {
  fd_set sets[3];
  for (fd_set& set : sets) FD_ZERO(&set);
  int most = -1;
  const auto ask = [&](int fd, uint32_t which) {
    for (uint32_t i = 0; i < 3; ++i)
      if (which >> i & 1) FD_SET(fd, &sets[i]);
    most = std::max(most, fd);
  };
  for (int slot = 0; slot < kSlots; ++slot)
    if ((step.events >> slot & 1) && fds_[slot] >= 0) ask(fds_[slot], step.manner >> slot & 7);
  if (step.manner % 17 == 0) ask(kNeverOpen, 1);
  const timespec timeout = timespec_of(timeout_ms);
  timeval shorter{.tv_sec = timeout.tv_sec, .tv_usec = timeout.tv_nsec / 1000};
  Seen seen = seen_of(step.manner % 2 ? ::select(most + 1, &sets[0], &sets[1], &sets[2], &shorter)
                                      : ::pselect(most + 1, &sets[0], &sets[1], &sets[2], &timeout, nullptr));
  for (int slot = 0; slot < kSlots; ++slot)
    for (uint32_t i = 0; i < 3; ++i)
      if (fds_[slot] >= 0 && FD_ISSET(fds_[slot], &sets[i])) seen.events[static_cast<uint64_t>(slot)] |= 1U << i;
  return seen;
}

uint32_t World::truth(int slot) {
  const int twin = slot < kConnections ? slot + kConnections : slot - kConnections;
  const int fd = fds_[slot] >= 0 || slot >= kPipe ? fds_[slot] : fds_[twin];
  if (fd < 0) return 0;
  pollfd one{.fd = fd, .events = kAsked, .revents = 0};
  ::poll(&one, 1, 0);
  return static_cast<uint16_t>(one.revents);
}

void World::rearm(const Step& step, uint64_t data) {
  epoll_event event{.events = step.events, .data = {.u64 = data}};
  ::epoll_ctl(sets_[step.set], EPOLL_CTL_MOD, fds_[step.slot], &event);
}

Seen World::apply(const Step& step, uint64_t data, int sleep_ms) {
  const int connection = step.slot % kConnections;
  const int fd = fds_[step.slot];
  epoll_event event{.events = step.events, .data = {.u64 = data}};
  errno = 0;
  switch (step.act) {
    case Act::add:
      return seen_of(::epoll_ctl(sets_[step.set], EPOLL_CTL_ADD, fd, &event));
    case Act::modify:
      return seen_of(::epoll_ctl(sets_[step.set], EPOLL_CTL_MOD, fd, &event));
    case Act::remove:
      return seen_of(::epoll_ctl(sets_[step.set], EPOLL_CTL_DEL, fd, &event));
    case Act::nest:
      event.events = EPOLLIN;
      return seen_of(::epoll_ctl(sets_[1], EPOLL_CTL_ADD, sets_[0], &event));
    case Act::wait:
    case Act::poll:
    case Act::select: {
      std::thread late;
      if (sleep_ms > 0) {
        late = std::thread([&] {
          std::this_thread::sleep_for(std::chrono::microseconds(step.manner % 200));
          act_late(step);
        });
      }
      const auto ask = [&](int timeout_ms) {
        return step.act == Act::wait   ? wait(step, timeout_ms)
               : step.act == Act::poll ? ask_poll(step, timeout_ms)
                                       : ask_select(step, timeout_ms);
      };
      Seen seen = ask(sleep_ms);
      if (!late.joinable()) return seen;
      late.join();
      // It may have ended for less than all that there is to tell now.
      if (Seen more = ask(0); idle(step, seen) || step.act != Act::wait)
        seen = more;
      else
        for (const auto& [data, events] : more.events) seen.events[data] |= events;
      return seen;
    }
    case Act::peer_writes:
      return seen_of(peer_writes(connection, step.size));
    case Act::peer_reads:
      return seen_of(peer_drains(connection, step.size));
    case Act::peer_shuts:
      return seen_of(peer_call(connection, SYS_shutdown, how_of(step.size)));
    case Act::peer_closes:
      close_peer(connection);
      return {};
    case Act::peer_sends_urgent:
      return seen_of(peer_call(connection, SYS_sendto, sys::word("!"), 1, MSG_OOB | MSG_NOSIGNAL));
    case Act::writes: {
      const std::string bytes(step.size, 'o');
      return seen_of(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL));
    }
    case Act::reads: {
      char piece[kPiece];
      size_t got = 0;
      while (got < step.size) {
        const ssize_t n = ::read(fd, piece, std::min<size_t>(step.size - got, kPiece));
        if (n < 0 && got == 0) return seen_of(n);
        if (n <= 0) break;
        got += static_cast<size_t>(n);
      }
      return seen_of(static_cast<long>(got));
    }
    case Act::fills: {
      const std::string bytes(kPiece, 'f');
      ssize_t n;
      while ((n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL)) > 0) {
      }
      return seen_of(n);
    }
    case Act::shuts:
      return seen_of(::shutdown(fd, how_of(step.size)));
    case Act::duplicate:
      if (step.slot >= kConnections || fd < 0 || fds_[step.slot + kConnections] >= 0) return {};
      // Always the same number: a registration may have outlived the one that was there before.
      fds_[step.slot + kConnections] =
          checked(::fcntl(fd, F_DUPFD_CLOEXEC, first_duplicate_ + step.slot), "F_DUPFD_CLOEXEC");
      return {};
    case Act::closes:
      if (step.slot < kPipe) close_slot(step.slot);
      return {};
    case Act::reopens:
      close_slot(connection + kConnections);
      if (step.manner % 2) close_peer(connection);
      close_slot(connection);
      close_peer(connection);
      open(connection);
      return {};
    case Act::others: {
      const uint64_t value = 1;
      char bytes[8];
      if (step.manner % 4 == 0) return seen_of(::write(pipe_writer_, "x", 1));
      if (step.manner % 4 == 1) return seen_of(::read(fds_[kPipe], bytes, 1));
      if (step.manner % 4 == 2) return seen_of(::write(fds_[kEventfd], &value, sizeof value));
      return seen_of(::read(fds_[kEventfd], bytes, sizeof bytes));
    }
  }
  return {};
}

}  // namespace shunt::differential
