// Lives of a descriptor within one process: duplicates, numbers, limits, streams around it.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "life.h"

namespace shunt::behaviour {
namespace {

constexpr int kHigh = 100;  // above all numbers that the harness uses

void carry_out(int fd, const Stream& rest) {
  CHECK(fd >= 0);
  rest.all(fd);
  CHECK_EQ(::close(fd), 0);
}

void by_duplicate(int fd, int duplicate, const Stream& rest) {
  CHECK(duplicate >= 0);
  CHECK_EQ(::close(fd), 0);
  CHECK_ERRNO(::fcntl(fd, F_GETFD), EBADF);
  carry_out(duplicate, rest);
}

int zeros_at(int fd) {
  const int file = ::open("/dev/zero", O_RDWR);
  CHECK_EQ(file, fd);
  return file;
}

void expect_zeros(int file) { CHECK_EQ(read_exactly(file, 5), std::string(5, '\0')); }

rlimit descriptor_limit(rlim_t soft) {
  rlimit before{};
  CHECK_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit lowered{.rlim_cur = soft, .rlim_max = before.rlim_max};
  CHECK_EQ(::setrlimit(RLIMIT_NOFILE, &lowered), 0);
  return before;
}

constexpr Life kInOneProcess[] = {
    {"dup", [](int fd, const Stream& rest) { by_duplicate(fd, ::dup(fd), rest); }},
    {"dup2", [](int fd, const Stream& rest) { by_duplicate(fd, ::dup2(fd, kHigh), rest); }},
    {"dup3", [](int fd, const Stream& rest) { by_duplicate(fd, ::dup3(fd, kHigh, O_CLOEXEC), rest); }},
    {"F_DUPFD", [](int fd, const Stream& rest) { by_duplicate(fd, ::fcntl(fd, F_DUPFD, kHigh), rest); }},
    {"F_DUPFD_CLOEXEC",
     [](int fd, const Stream& rest) { by_duplicate(fd, ::fcntl(fd, F_DUPFD_CLOEXEC, kHigh), rest); }},
    {"close of a duplicate",
     [](int fd, const Stream& rest) {
       const int other = ::dup(fd);
       rest.first(fd);
       CHECK_EQ(::close(other), 0);
       rest.second(fd);
       rest.last(fd);
       CHECK_EQ(::close(fd), 0);
     }},
    {"dup2 of a file over it",
     [](int fd, const Stream& rest) {
       const int other = ::dup(fd);
       const int file = ::open("/dev/zero", O_RDWR);
       CHECK_EQ(::dup2(file, fd), fd);
       rest.first(other);
       expect_zeros(fd);
       rest.second(other);
       rest.last(other);
       CHECK_EQ(::dup2(file, other), other);  // the last close
       ::close(other), ::close(file), ::close(fd);
     }},
    {"its number used again",
     [](int fd, const Stream& rest) {
       const int other = ::fcntl(fd, F_DUPFD, kHigh);
       CHECK_EQ(::close(fd), 0);
       const int file = zeros_at(fd);
       rest.first(other);
       expect_zeros(file);
       CHECK_EQ(::dup2(other, fd), fd);
       rest.second(fd);
       CHECK_EQ(::close(fd), 0);
       rest.last(other);
       CHECK_EQ(::close(other), 0);
     }},
    {"close_range over it",
     [](int fd, const Stream& rest) {
       const int other = ::fcntl(fd, F_DUPFD, kHigh);
       CHECK_EQ(::close_range(static_cast<unsigned>(fd), kHigh - 1, 0), 0);
       CHECK_ERRNO(::fcntl(fd, F_GETFD), EBADF);
       rest.all(other);
       CHECK_EQ(::close_range(kHigh, ~0U, 0), 0);
     }},
    {"closefrom over it",
     [](int fd, const Stream& rest) {
       CHECK_EQ(::fcntl(fd, F_DUPFD, kHigh), kHigh);
       ::closefrom(fd + 1);
       CHECK_ERRNO(::fcntl(kHigh, F_GETFD), EBADF);
       rest.all(fd);
       ::closefrom(fd);
     }},
    {"a limit below its number",
     [](int fd, const Stream& rest) {
       const int high = ::fcntl(fd, F_DUPFD, kHigh);
       CHECK_EQ(::close(fd), 0);
       const rlimit before = descriptor_limit(kHigh / 2);
       rest.first(high);
       CHECK_ERRNO(::dup2(high, high + 1), EBADF);
       const int low = ::dup(high);
       CHECK_EQ(low, fd);
       rest.second(low);
       CHECK_EQ(::close(low), 0);
       rest.last(high);
       CHECK_EQ(::close(high), 0);
       CHECK_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
     }},
    {"no descriptors left",
     [](int fd, const Stream& rest) {
       const int next = ::dup(fd);
       CHECK_EQ(::close(next), 0);
       const rlimit before = descriptor_limit(static_cast<rlim_t>(next));
       CHECK_ERRNO(::dup(fd), EMFILE);
       rest.first(fd);
       CHECK_ERRNO(::dup(fd), EMFILE);
       CHECK_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
       rest.second(fd);
       CHECK_EQ(::dup(fd), next);
       CHECK_EQ(::close(next), 0);
       rest.last(fd);
       CHECK_EQ(::close(fd), 0);
     }},
};

BEHAVIOUR{.name = "in_one_process_at_the_server",
          .server = holds<kInOneProcess>,
          .client = faces<kInOneProcess>,
          .warms_up = false};
BEHAVIOUR{.name = "in_one_process_at_the_client",
          .server = faces<kInOneProcess>,
          .client = holds<kInOneProcess>,
          .warms_up = false};

// Numbers and streams that libc reads by itself: the connection goes back to the kernel.
constexpr Life kInStreams[] = {
    {"as standard input",
     [](int fd, const Stream& rest) {
       const int before = ::dup(STDIN_FILENO);
       CHECK_EQ(::dup2(fd, STDIN_FILENO), STDIN_FILENO);
       CHECK_EQ(::close(fd), 0);
       rest.all(STDIN_FILENO);
       CHECK_EQ(::dup2(before, STDIN_FILENO), STDIN_FILENO);
       ::close(before);
     }},
    {"fdopen and fclose",
     [](int fd, const Stream& rest) {
       std::FILE* file = ::fdopen(fd, "r+");
       CHECK(file != nullptr);
       rest.all(::fileno(file));
       CHECK_EQ(std::fclose(file), 0);
     }},
};

BEHAVIOUR{.name = "in_streams_at_the_server",
          .server = holds<kInStreams>,
          .client = faces<kInStreams>,
          .warms_up = false,
          .leaves_ring = true};
BEHAVIOUR{.name = "in_streams_at_the_client",
          .server = faces<kInStreams>,
          .client = holds<kInStreams>,
          .warms_up = false,
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
