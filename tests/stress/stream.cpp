// Streams, and the calls that move them.
#include "stream.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace shunt::stress {
namespace {

constexpr size_t kMostAtOnce = 70'000;

uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

ssize_t read_some(int fd, Dice& dice, char* data, size_t count) {
  iovec parts[2] = {{data, count / 2}, {data + count / 2, count - count / 2}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  switch (dice.below(5)) {
    case 0:
      return ::recv(fd, data, count, 0);
    case 1:
      return ::readv(fd, parts, 2);
    case 2:
      return ::recvmsg(fd, &message, 0);
    case 3:
      return ::recv(fd, data, count, MSG_DONTWAIT);
    default:
      return ::read(fd, data, count);
  }
}

ssize_t write_some(int fd, Dice& dice, const char* data, size_t count) {
  char* part = const_cast<char*>(data);
  iovec parts[2] = {{part, count / 2}, {part + count / 2, count - count / 2}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  switch (dice.below(5)) {
    case 0:
      return ::send(fd, data, count, MSG_NOSIGNAL);
    case 1:
      return ::writev(fd, parts, 2);
    case 2:
      return ::sendmsg(fd, &message, 0);
    case 3:
      return ::send(fd, data, count, MSG_DONTWAIT);
    default:
      return ::write(fd, data, count);
  }
}

void wait_for(int fd, short events) {
  pollfd one{.fd = fd, .events = events, .revents = 0};
  CHECK(::poll(&one, 1, -1) >= 0 || errno == EINTR);
}

[[noreturn]] void tell_difference(uint64_t seed, uint64_t position, const char* data, size_t count) {
  std::vector<char> wanted(count);
  put_stream(seed, position, wanted.data(), count);
  const auto at = static_cast<size_t>(std::mismatch(wanted.begin(), wanted.end(), data).first - wanted.begin());
  std::string text = "a wrong byte at " + std::to_string(position + at) + ", " + std::to_string(at) + " in a part of " + std::to_string(count) + ":";
  for (size_t i = at; i < std::min(count, at + 8); ++i) text += " " + std::to_string(static_cast<unsigned char>(data[i]));
  // Where what came belongs.
  for (size_t i = at; i + 16 < count && i < at + 3; ++i)
    for (uint64_t p = position > 100'000 ? position - 100'000 : 0; p < position + 200'000; ++p)
      if (is_stream(seed, p, data + i, 16)) text += "; byte " + std::to_string(i) + " is from " + std::to_string(p);
  fail(__FILE__, __LINE__, text);
}

bool gone(int error) { return error == EPIPE || error == ECONNRESET; }

}  // namespace

thread_local const char* deed = "";

void fail(const char* file, int line, const std::string& what) {
  const std::string text = std::string(std::strrchr(file, '/') + 1) + ":" + std::to_string(line) + ": (" + deed + ") " + what + "\n";
  (void)!::write(STDERR_FILENO, text.data(), text.size());
  ::_exit(1);
}

uint64_t Dice::next() { return mixed(state_ += 0x9e3779b97f4a7c15U); }

void put_stream(uint64_t seed, uint64_t position, char* data, size_t count) {
  for (size_t done = 0; done < count;) {
    const uint64_t word = mixed(seed + (position + done) / 8 + 1);
    const size_t skip = (position + done) % 8;
    const size_t part = std::min(8 - skip, count - done);
    std::memcpy(data + done, reinterpret_cast<const char*>(&word) + skip, part);
    done += part;
  }
}

bool is_stream(uint64_t seed, uint64_t position, const char* data, size_t count) {
  std::vector<char> wanted(count);
  put_stream(seed, position, wanted.data(), count);
  return std::memcmp(wanted.data(), data, count) == 0;
}

bool read_whole(int fd, Dice& dice, char* data, size_t count) {
  for (size_t done = 0; done < count;) {
    const ssize_t n = read_some(fd, dice, data + done, count - done);
    if (n == 0 || (n < 0 && gone(errno))) return false;
    if (n < 0 && errno == EAGAIN) wait_for(fd, POLLIN);
    else CHECK(n > 0 || errno == EINTR);
    if (n > 0) done += static_cast<size_t>(n);
  }
  return true;
}

bool write_whole(int fd, Dice& dice, const char* data, size_t count) {
  for (size_t done = 0; done < count;) {
    const ssize_t n = write_some(fd, dice, data + done, count - done);
    if (n < 0 && gone(errno)) return false;
    if (n < 0 && errno == EAGAIN) wait_for(fd, POLLOUT);
    else CHECK(n > 0 || errno == EINTR);
    if (n > 0) done += static_cast<size_t>(n);
  }
  return true;
}

bool read_stream(int fd, Dice& dice, uint64_t seed, uint64_t position, uint64_t count) {
  std::vector<char> data(kMostAtOnce);
  for (uint64_t done = 0; done < count;) {
    const size_t part = static_cast<size_t>(std::min<uint64_t>(1 + dice.below(kMostAtOnce), count - done));
    if (!read_whole(fd, dice, data.data(), part)) return false;
    if (!is_stream(seed, position + done, data.data(), part)) tell_difference(seed, position + done, data.data(), part);
    done += part;
  }
  return true;
}

bool write_stream(int fd, Dice& dice, uint64_t seed, uint64_t position, uint64_t count) {
  std::vector<char> data(kMostAtOnce);
  for (uint64_t done = 0; done < count;) {
    const size_t part = static_cast<size_t>(std::min<uint64_t>(1 + dice.below(kMostAtOnce), count - done));
    put_stream(seed, position + done, data.data(), part);
    if (!write_whole(fd, dice, data.data(), part)) return false;
    done += part;
  }
  return true;
}

void expect_end(int fd) {
  char byte;
  ssize_t n = -1;
  while ((n = ::read(fd, &byte, 1)) < 0) {
    CHECK(errno == EAGAIN || errno == EINTR);
    if (errno == EAGAIN) wait_for(fd, POLLIN);
  }
  CHECK(n == 0);
}

bool ask_turns(int fd, Dice& dice, const Header& header, uint32_t begin, uint32_t end) {
  for (uint32_t turn = begin; turn < end; ++turn) {
    const uint64_t at = uint64_t{turn} * header.turn;
    if (!write_stream(fd, dice, header.seed, at, header.turn) || !read_stream(fd, dice, ~header.seed, at, header.turn)) return false;
  }
  return true;
}

bool answer_turns(int fd, Dice& dice, const Header& header, uint32_t begin, uint32_t end) {
  for (uint32_t turn = begin; turn < end; ++turn) {
    const uint64_t at = uint64_t{turn} * header.turn;
    if (!read_stream(fd, dice, header.seed, at, header.turn) || !write_stream(fd, dice, ~header.seed, at, header.turn)) return false;
  }
  return true;
}

}  // namespace shunt::stress
