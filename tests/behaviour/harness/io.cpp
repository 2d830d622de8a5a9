// The helpers of io.h.
#include "io.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>

#include "check.h"

namespace shunt::behaviour {
namespace {

uint64_t word_at(uint64_t index) {  // splitmix64
  uint64_t z = (index + 1) * 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

double ms_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_usec) / 1e3;
}

}  // namespace

std::string bytes_at(uint64_t position, size_t count) {
  std::string data(count + 16, '\0');
  const uint64_t first = position / 8;
  const size_t skip = position % 8;
  for (size_t at = 0; at < skip + count; at += 8) {
    const uint64_t word = word_at(first + at / 8);
    std::memcpy(data.data() + at, &word, sizeof word);
  }
  return data.substr(skip, count);
}

size_t agreeing(const std::string& data, uint64_t position) {
  const std::string wanted = bytes_at(position, data.size());
  return static_cast<size_t>(std::mismatch(data.begin(), data.end(), wanted.begin()).first - data.begin());
}

void write_all(int fd, const std::string& data) {
  for (size_t done = 0; done < data.size();) {
    const ssize_t n = ::write(fd, data.data() + done, data.size() - done);
    CHECK(n > 0);
    done += static_cast<size_t>(n);
  }
}

std::string read_exactly(int fd, size_t count) {
  std::string data(count, '\0');
  for (size_t done = 0; done < count;) {
    const ssize_t n = ::read(fd, data.data() + done, count - done);
    CHECK(n > 0);
    done += static_cast<size_t>(n);
  }
  return data;
}

std::string read_some(int fd, size_t most) {
  std::string data(most, '\0');
  const ssize_t n = ::read(fd, data.data(), most);
  CHECK(n >= 0);
  data.resize(static_cast<size_t>(n));
  return data;
}

void write_stream(int fd, uint64_t position, uint64_t count, size_t chunk) {
  for (uint64_t done = 0; done < count;) {
    const std::string data = bytes_at(position + done, static_cast<size_t>(std::min<uint64_t>(chunk, count - done)));
    write_all(fd, data);
    done += data.size();
  }
}

void read_stream(int fd, uint64_t position, uint64_t count, size_t chunk) {
  for (uint64_t done = 0; done < count;) {
    const std::string data = read_some(fd, static_cast<size_t>(std::min<uint64_t>(chunk, count - done)));
    CHECK(!data.empty());
    CHECK_EQ(agreeing(data, position + done), data.size());
    done += data.size();
  }
}

uint64_t read_stream_to_end(int fd, uint64_t position, size_t chunk) {
  uint64_t done = 0;
  for (;;) {
    const std::string data = read_some(fd, chunk);
    if (data.empty()) return done;
    CHECK_EQ(agreeing(data, position + done), data.size());
    done += data.size();
  }
}

void expect_end_of_stream(int fd) {
  char byte = 0;
  CHECK_EQ(::read(fd, &byte, 1), 0);
  CHECK_EQ(::read(fd, &byte, 1), 0);
}

uint64_t fill(int fd, uint64_t position, size_t chunk) {
  uint64_t done = 0;
  for (;;) {
    const std::string data = bytes_at(position + done, chunk);
    const ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0) {
      CHECK_EQ(errno, EAGAIN);
      return done;
    }
    CHECK(n > 0);
    done += static_cast<uint64_t>(n);
  }
}

void send_descriptor(int socket, int passed) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  char byte = 'd';
  iovec piece{&byte, 1};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  cmsghdr* item = CMSG_FIRSTHDR(&header);
  *item = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  std::memcpy(CMSG_DATA(item), &passed, sizeof passed);
  CHECK_EQ(::sendmsg(socket, &header, 0), 1);
}

int receive_descriptor(int socket) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  char byte = 0;
  iovec piece{&byte, 1};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  CHECK_EQ(::recvmsg(socket, &header, 0), 1);
  const cmsghdr* item = CMSG_FIRSTHDR(&header);
  CHECK(item != nullptr && item->cmsg_type == SCM_RIGHTS && item->cmsg_len == CMSG_LEN(sizeof(int)));
  int passed = -1;
  std::memcpy(&passed, CMSG_DATA(item), sizeof passed);
  return passed;
}

void set_blocking(int fd, bool blocking) {
  const int flags = ::fcntl(fd, F_GETFL);
  CHECK(flags >= 0);
  CHECK_EQ(::fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK), 0);
}

bool is_readable(int fd, int timeout_ms) {
  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
  const int n = ::poll(&one, 1, timeout_ms);
  CHECK(n >= 0);
  return n == 1;
}

void sleep_ms(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double cpu_ms() {
  rusage usage{};
  CHECK_EQ(::getrusage(RUSAGE_SELF, &usage), 0);
  return ms_of(usage.ru_utime) + ms_of(usage.ru_stime);
}

int in_child(const std::function<void()>& body) {
  const pid_t pid = ::fork();
  CHECK(pid >= 0);
  if (pid > 0) return pid;
  body();
  ::_exit(0);
}

void join_child(int pid) {
  int status = -1;
  CHECK_EQ(::waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
}

bool is_sleeping(int thread_id) {
  std::string text;
  std::getline(std::ifstream("/proc/" + std::to_string(thread_id) + "/stat"), text);
  const size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text.compare(name_end, 3, ") S") == 0;
}

void await_sleeping(int thread_id) {
  for (int tries = 0; tries < 5000; ++tries) {
    if (is_sleeping(thread_id)) return;
    sleep_ms(1);
  }
  CHECK(false && "the thread did not fall asleep");
}

CallsBeside::CallsBeside(int fd)
    : peeks_([this, fd] {
        char byte = 0;
        while (!over_) (void)!::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      }),
      polls_([this, fd] {
        pollfd one{.fd = fd, .events = POLLOUT, .revents = 0};
        while (!over_) (void)!::poll(&one, 1, 1);
      }) {}

CallsBeside::~CallsBeside() {
  over_ = true;
  peeks_.join();
  polls_.join();
}

}  // namespace shunt::behaviour
