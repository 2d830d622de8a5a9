// MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT, MSG_TRUNC, MSG_NOSIGNAL, and calls of no or impossible length.
#include <limits.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <vector>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

std::string receive(int fd, size_t most, int flags) {
  std::string data(most, '\0');
  const ssize_t n = ::recv(fd, data.data(), most, flags);
  CHECK(n >= 0);
  data.resize(static_cast<size_t>(n));
  return data;
}

void await_bytes(int fd, size_t count) {
  while (receive(fd, count, MSG_PEEK).size() < count) sleep_ms(1);
}

BEHAVIOUR{.name = "peek_takes_nothing",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 1000));
                read_exactly(fd, 1);
              },
          .client =
              [](int fd) {
                await_bytes(fd, 1000);
                for (const size_t size : {1U, 10U, 1000U, 5000U, 10U}) {
                  CHECK_EQ(receive(fd, size, MSG_PEEK), bytes_at(0, std::min<size_t>(size, 1000)));
                }
                CHECK_EQ(read_exactly(fd, 300), bytes_at(0, 300));
                CHECK_EQ(receive(fd, 5000, MSG_PEEK | MSG_DONTWAIT), bytes_at(300, 700));
                CHECK_EQ(read_exactly(fd, 700), bytes_at(300, 700));
                char byte = 0;
                CHECK_ERRNO(::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
                write_all(fd, "x");
              },
          .limit = kByFences};

BEHAVIOUR{.name = "peek_waits_for_data",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(20);
                write_all(fd, "abc");
                read_exactly(fd, 1);
              },
          .client =
              [](int fd) {
                tell_peer();
                CHECK_EQ(receive(fd, 10, MSG_PEEK), "abc");
                CHECK_EQ(read_exactly(fd, 3), "abc");
                write_all(fd, "x");
              }};

BEHAVIOUR{.name = "peek_at_the_end_of_the_stream",
          .server =
              [](int fd) {
                write_all(fd, "abc");
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                await_peer();
                CHECK_EQ(receive(fd, 10, MSG_PEEK), "abc");
                CHECK_EQ(read_exactly(fd, 3), "abc");
                CHECK_EQ(receive(fd, 10, MSG_PEEK), "");
                CHECK_EQ(receive(fd, 10, MSG_PEEK | MSG_DONTWAIT), "");
                expect_end_of_stream(fd);
              }};

BEHAVIOUR{.name = "waitall_waits_for_all",
          .server =
              [](int fd) {
                for (uint64_t i = 0; i < 10; ++i) {
                  write_all(fd, bytes_at(i * 5000, 5000));
                  sleep_ms(3);
                }
                write_stream(fd, 0, 3'000'000, 3'000'000);
              },
          .client =
              [](int fd) {
                CHECK_EQ(agreeing(receive(fd, 50'000, MSG_WAITALL), 0), 50'000U);
                CHECK_EQ(agreeing(receive(fd, 3'000'000, MSG_WAITALL), 0), 3'000'000U);
              }};

BEHAVIOUR{.name = "waitall_ends_with_the_stream",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 5000));
                await_peer();
                sleep_ms(20);
                ::shutdown(fd, SHUT_WR);
              },
          .client =
              [](int fd) {
                tell_peer();
                CHECK_EQ(receive(fd, 50'000, MSG_WAITALL), bytes_at(0, 5000));
                CHECK_EQ(receive(fd, 50'000, MSG_WAITALL), "");
              }};

// A non-blocking receive does not wait, whatever MSG_WAITALL says.
BEHAVIOUR{.name = "waitall_without_waiting",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 500));
                read_exactly(fd, 1);
              },
          .client =
              [](int fd) {
                await_bytes(fd, 500);
                CHECK_EQ(receive(fd, 1000, MSG_WAITALL | MSG_DONTWAIT), bytes_at(0, 500));
                char byte = 0;
                CHECK_ERRNO(::recv(fd, &byte, 1, MSG_WAITALL | MSG_DONTWAIT), EAGAIN);
                write_all(fd, "x");
              },
          .limit = kByFences};

BEHAVIOUR{.name = "dontwait_on_a_blocking_socket",
          .server =
              [](int fd) {
                const uint64_t sent = await_peer();
                read_stream(fd, 0, sent, 9999);
                tell_peer();
                CHECK_EQ(read_exactly(fd, 1), "x");
              },
          .client =
              [](int fd) {
                char byte = 0;
                CHECK_ERRNO(::recv(fd, &byte, 1, MSG_DONTWAIT), EAGAIN);
                uint64_t sent = 0;
                for (ssize_t n = 0; n >= 0; sent += static_cast<uint64_t>(n)) {
                  const std::string data = bytes_at(sent, 5000);
                  n = ::send(fd, data.data(), data.size(), MSG_DONTWAIT);
                  if (n < 0) break;
                }
                CHECK_EQ(errno, EAGAIN);
                tell_peer(static_cast<uint32_t>(sent));
                await_peer();
                CHECK_EQ(::send(fd, "x", 1, MSG_DONTWAIT), 1);
              }};

// unix(7) streams ignore MSG_TRUNC: the bytes are copied and no more is reported than was asked for.
BEHAVIOUR{.name = "trunc_means_nothing_to_a_stream",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 100));
                read_exactly(fd, 1);
              },
          .client =
              [](int fd) {
                await_bytes(fd, 100);
                CHECK_EQ(receive(fd, 10, MSG_TRUNC), bytes_at(0, 10));
                CHECK_EQ(receive(fd, 10, MSG_TRUNC | MSG_PEEK), bytes_at(10, 10));
                CHECK_EQ(receive(fd, 200, 0), bytes_at(10, 90));
                write_all(fd, "x");
              },
          .limit = kByFences};

BEHAVIOUR{.name = "one_sigpipe_for_each_write_to_a_closed_stream",
          .server =
              [](int fd) {
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                await_peer();
                count_signal(SIGPIPE, 0);
                CHECK_ERRNO(::write(fd, "x", 1), EPIPE);
                CHECK_EQ(signals_counted(), 1);
                CHECK_ERRNO(::send(fd, "x", 1, 0), EPIPE);
                CHECK_EQ(signals_counted(), 2);
                iovec piece{const_cast<char*>("x"), 1};
                CHECK_ERRNO(::writev(fd, &piece, 1), EPIPE);
                CHECK_EQ(signals_counted(), 3);
                msghdr header{};
                header.msg_iov = &piece;
                header.msg_iovlen = 1;
                CHECK_ERRNO(::sendmsg(fd, &header, 0), EPIPE);
                CHECK_EQ(signals_counted(), 4);
              }};

BEHAVIOUR{.name = "nosignal_means_no_sigpipe",
          .server =
              [](int fd) {
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                await_peer();
                count_signal(SIGPIPE, 0);
                CHECK_ERRNO(::send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
                CHECK_ERRNO(::sendto(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT, nullptr, 0), EPIPE);
                CHECK_EQ(signals_counted(), 0);
              }};

// read of 0 bytes never waits; recv of 0 bytes waits for a byte and leaves it.
BEHAVIOUR{.name = "calls_of_no_length",
          .server =
              [](int fd) {
                CHECK_EQ(::write(fd, "", 0), 0);
                CHECK_EQ(::send(fd, nullptr, 0, 0), 0);
                CHECK_EQ(::writev(fd, nullptr, 0), 0);
                await_peer();
                sleep_ms(10);
                write_all(fd, "abc");
                read_exactly(fd, 1);
              },
          .client =
              [](int fd) {
                char byte = 0;
                CHECK_EQ(::read(fd, &byte, 0), 0);
                CHECK_EQ(::readv(fd, nullptr, 0), 0);
                CHECK_ERRNO(::recv(fd, &byte, 0, MSG_DONTWAIT), EAGAIN);
                tell_peer();
                CHECK_EQ(::recv(fd, &byte, 0, 0), 0);
                CHECK_EQ(::recv(fd, nullptr, 0, MSG_PEEK), 0);
                CHECK_EQ(read_exactly(fd, 3), "abc");
                write_all(fd, "x");
              }};

BEHAVIOUR{.name = "a_write_of_nothing_to_a_closed_stream",
          .server =
              [](int fd) {
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                await_peer();
                count_signal(SIGPIPE, 0);
                CHECK_ERRNO(::write(fd, "", 0), EPIPE);
                CHECK_EQ(signals_counted(), 1);
                CHECK_ERRNO(::send(fd, "", 0, MSG_NOSIGNAL), EPIPE);
                CHECK_EQ(signals_counted(), 1);
              }};

BEHAVIOUR{.name = "too_many_pieces",
          .server = [](int fd) { CHECK_EQ(read_exactly(fd, 3), "abc"); },
          .client =
              [](int fd) {
                char byte = 0;
                std::vector<iovec> many(IOV_MAX + 1, iovec{&byte, 1});
                CHECK_ERRNO(::writev(fd, many.data(), IOV_MAX + 1), EINVAL);
                CHECK_ERRNO(::readv(fd, many.data(), IOV_MAX + 1), EINVAL);
                msghdr header{};
                header.msg_iov = many.data();
                header.msg_iovlen = many.size();
                CHECK_ERRNO(::sendmsg(fd, &header, 0), EMSGSIZE);
                CHECK_ERRNO(::recvmsg(fd, &header, MSG_DONTWAIT), EMSGSIZE);
                write_all(fd, "abc");
              }};

// A pointer that cannot be read or written is EFAULT, and costs the stream no byte.
BEHAVIOUR{.name = "pointers_to_nowhere",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 100));
                CHECK_EQ(read_exactly(fd, 3), "abc");
              },
          .client =
              [](int fd) {
                await_bytes(fd, 100);
                void* nowhere = ::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                CHECK(nowhere != MAP_FAILED);
                CHECK_ERRNO(::read(fd, nowhere, 50), EFAULT);
                CHECK_ERRNO(::recv(fd, nowhere, 50, MSG_PEEK), EFAULT);
                CHECK_ERRNO(::write(fd, nowhere, 50), EFAULT);
                CHECK_ERRNO(::send(fd, nowhere, 50, 0), EFAULT);
                CHECK_EQ(read_exactly(fd, 100), bytes_at(0, 100));
                write_all(fd, "abc");
              }};

}  // namespace
}  // namespace shunt::behaviour
