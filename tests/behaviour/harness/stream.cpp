// Carries a stream to its end. Knows nothing of how the descriptor got here.
#include "stream.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr uint64_t kRound = 100;  // of the rounds that follow
constexpr int kFirstRounds = 2, kSecondRounds = 2;
constexpr size_t kWrite = 700, kRead = 1100;
constexpr size_t kBulk = 65536;  // of what filled a buffer

void await(int fd, short events) {
  pollfd one{.fd = fd, .events = events, .revents = 0};
  CHECK_EQ(::poll(&one, 1, -1), 1);
}

size_t step(uint64_t left, uint64_t count, size_t usual) {
  return static_cast<size_t>(std::min<uint64_t>(left, count > 10 * usual ? kBulk : usual));
}

void rounds(int fd, const Stream& s, uint64_t begin, int count, bool holder) {
  for (int i = 0; i < count; ++i, begin += kRound) {
    if (holder && s.sends) put(fd, s.sent + begin, kRound);
    if (s.receives) take(fd, s.peer_sent + begin, kRound);
    if (!holder && s.sends) put(fd, s.sent + begin, kRound);
  }
}

void expect_blocking(int fd, bool blocking) {
  const int flags = ::fcntl(fd, F_GETFL);
  CHECK(flags >= 0);
  CHECK_EQ((flags & O_NONBLOCK) == 0, blocking);
}

// Neither end has closed: what poll says is what shutdown(2) did, and no more.
void expect_open(int fd, const Stream& s) {
  pollfd one{.fd = fd, .events = POLLIN | POLLRDHUP, .revents = 0};
  CHECK(::poll(&one, 1, 0) >= 0);
  CHECK_EQ(one.revents, s.receives ? 0 : POLLIN | POLLRDHUP);
}

// All was read, at both ends.
void expect_empty(int fd) {
  int bytes = -1;
  CHECK_EQ(::ioctl(fd, SIOCOUTQ, &bytes), 0);
  CHECK_EQ(bytes, 0);
  CHECK_EQ(::ioctl(fd, FIONREAD, &bytes), 0);
  CHECK_EQ(bytes, 0);
}

void await_hang_up(int fd) {
  pollfd one{.fd = fd, .events = 0, .revents = 0};
  CHECK_EQ(::poll(&one, 1, -1), 1);
  CHECK_EQ(one.revents, POLLHUP);
}

}  // namespace

void put(int fd, uint64_t position, uint64_t count) {
  for (uint64_t done = 0; done < count;) {
    const std::string data = bytes_at(position + done, step(count - done, count, kWrite));
    const ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EAGAIN) {
      await(fd, POLLOUT);
      continue;
    }
    CHECK(n > 0);
    done += static_cast<uint64_t>(n);
  }
}

void take(int fd, uint64_t position, uint64_t count) {
  std::string data;
  for (uint64_t done = 0; done < count;) {
    data.resize(step(count - done, count, kRead));
    const ssize_t n = ::read(fd, data.data(), data.size());
    if (n < 0 && errno == EAGAIN) {
      await(fd, POLLIN);
      continue;
    }
    CHECK(n > 0);
    data.resize(static_cast<size_t>(n));
    CHECK_EQ(agreeing(data, position + done), data.size());
    done += data.size();
  }
}

void Stream::begin(int fd) const {
  expect_blocking(fd, blocking);
  take(fd, received, peer_sent - received);
  if (!receives) expect_end_of_stream(fd);
  if (!peer_waits) tell_peer();
}

void Stream::carry_on(int fd, Ahead done) const {
  if (sends) put(fd, sent + done.out, kPart - done.out);
  if (receives) take(fd, peer_sent + done.in, kPart - done.in);
  rounds(fd, *this, kPart, kFirstRounds, true);
}

void Stream::second(int fd) const { rounds(fd, *this, kPart + kFirstRounds * kRound, kSecondRounds, true); }

void Stream::last(int fd) const {
  expect_blocking(fd, blocking);
  tell_peer();
  await_peer();
  if (!urgent) expect_empty(fd);
}

void Stream::face(int fd, bool writes_first) const {
  if (!peer_waits) await_peer();
  if (sends && writes_first) put(fd, sent, kPart);
  take(fd, received, peer_sent - received + (receives ? kPart : 0));
  if (!receives) expect_end_of_stream(fd);
  if (sends && !writes_first) put(fd, sent, kPart);
  rounds(fd, *this, kPart, kFirstRounds + kSecondRounds, false);
  await_peer();
  if (!urgent) expect_empty(fd);
  expect_open(fd, *this);
  tell_peer();
  if (sends || receives) expect_end_of_stream(fd);
  await_hang_up(fd);
}

std::string Stream::packed() const {
  std::ostringstream text;
  text << sent << ' ' << received << ' ' << peer_sent << ' ' << sends << ' ' << receives << ' ' << blocking << ' '
       << peer_waits;
  return text.str();
}

Stream Stream::unpacked(const std::string& text) {
  Stream s;
  std::istringstream(text) >> s.sent >> s.received >> s.peer_sent >> s.sends >> s.receives >> s.blocking >>
      s.peer_waits;
  return s;
}

}  // namespace shunt::behaviour
