// How a stream ends: shutdown, close, what the other end reads, writes and is told.
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <thread>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

BEHAVIOUR{.name = "shutdown_of_writing",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 30'000));
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                count_signal(SIGPIPE, 0);
                CHECK_ERRNO(::write(fd, "x", 1), EPIPE);
                CHECK_EQ(signals_counted(), 1);
                read_stream(fd, 0, 100'000, 4096);  // the other direction lives
              },
          .client =
              [](int fd) {
                CHECK_EQ(read_stream_to_end(fd, 0, 7000), 30'000);
                expect_end_of_stream(fd);
                write_stream(fd, 0, 100'000, 100'000);
              }};

BEHAVIOUR{.name = "recvmsg_at_the_end_has_nothing_beside_it",
          .server = [](int fd) { CHECK_EQ(::shutdown(fd, SHUT_WR), 0); await_peer(); },
          .client =
              [](int fd) {
                char byte = 0, control[64];
                sockaddr_un name{};
                iovec part{&byte, 1};
                for (int i = 0; i < 2; ++i) {
                  msghdr message{};
                  message.msg_name = &name, message.msg_namelen = sizeof name;
                  message.msg_iov = &part, message.msg_iovlen = 1;
                  message.msg_control = control, message.msg_controllen = sizeof control;
                  message.msg_flags = MSG_CTRUNC;
                  CHECK_EQ(::recvmsg(fd, &message, 0), 0);
                  CHECK_EQ(message.msg_namelen, 0U);
                  CHECK_EQ(message.msg_controllen, 0U);
                  CHECK_EQ(message.msg_flags, 0);
                }
                tell_peer();
              }};

// Reading after one's own shutdown: what had arrived, then the end. The peer may not write any more.
BEHAVIOUR{.name = "shutdown_of_reading",
          .server =
              [](int fd) {
                await_peer();
                CHECK_EQ(::shutdown(fd, SHUT_RD), 0);
                CHECK_EQ(read_exactly(fd, 300), bytes_at(0, 300));
                expect_end_of_stream(fd);
                write_all(fd, "still");
                tell_peer();
                CHECK_EQ(await_peer(), 0);
              },
          .client =
              [](int fd) {
                write_all(fd, bytes_at(0, 300));
                tell_peer();
                await_peer();
                count_signal(SIGPIPE, 0);
                CHECK_ERRNO(::write(fd, "x", 1), EPIPE);
                CHECK_EQ(signals_counted(), 1);
                CHECK_EQ(read_exactly(fd, 5), "still");
                tell_peer();
              }};

BEHAVIOUR{.name = "shutdown_of_both",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 300));
                CHECK_EQ(::shutdown(fd, SHUT_RDWR), 0);
                CHECK_ERRNO(::send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
                expect_end_of_stream(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                await_peer();
                CHECK_ERRNO(::send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
                CHECK_EQ(read_stream_to_end(fd, 0, 1000), 300);
                expect_end_of_stream(fd);
              }};

BEHAVIOUR{.name = "shutdown_that_makes_no_sense",
          .server = [](int fd) { CHECK_EQ(read_exactly(fd, 3), "abc"); },
          .client =
              [](int fd) {
                CHECK_ERRNO(::shutdown(fd, 3), EINVAL);
                CHECK_ERRNO(::shutdown(fd, -1), EINVAL);
                write_all(fd, "abc");
              }};

BEHAVIOUR{.name = "half_closed_echo",
          .server =
              [](int fd) {
                std::string all;
                for (std::string some = read_some(fd, 9000); !some.empty(); some = read_some(fd, 9000)) all += some;
                write_all(fd, all);
                ::close(fd);
              },
          .client =
              [](int fd) {
                write_stream(fd, 0, 2 * kMiB, 50'000);
                CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                CHECK_EQ(read_stream_to_end(fd, 0, 8000), 2 * kMiB);
              }};

BEHAVIOUR{.name = "shutdown_wakes_the_reader_of_the_same_process",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                std::thread closer([fd] {
                  sleep_ms(30);
                  CHECK_EQ(::shutdown(fd, SHUT_RDWR), 0);
                });
                expect_end_of_stream(fd);
                closer.join();
                tell_peer();
              }};

BEHAVIOUR{.name = "shutdown_wakes_the_writer_of_the_same_process",
          .server = [](int) { await_peer(); },
          .client =
              [](int fd) {
                count_signal(SIGPIPE, SA_RESTART);
                const std::string data = bytes_at(0, 8 * kMiB);
                std::thread closer([fd, writer = ::gettid()] {
                  sleep_ms(20);
                  await_sleeping(writer);
                  CHECK_EQ(::shutdown(fd, SHUT_WR), 0);
                });
                const ssize_t n = ::write(fd, data.data(), data.size());
                CHECK(n > 0 && n < static_cast<ssize_t>(data.size()));
                CHECK_EQ(signals_counted(), 0);
                closer.join();
                tell_peer();
              }};

BEHAVIOUR{.name = "close_is_the_end_of_the_stream",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 100'000));
                ::close(fd);
              },
          .client =
              [](int fd) {
                CHECK_EQ(read_stream_to_end(fd, 0, 30'000), 100'000);
                expect_end_of_stream(fd);
              }};

BEHAVIOUR{.name = "close_wakes_a_blocked_reader",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(30);
                ::close(fd);
              },
          .client =
              [](int fd) {
                tell_peer();
                expect_end_of_stream(fd);
              }};

// "Unread data at close: the peer gets ECONNRESET", once, then the end of the stream.
BEHAVIOUR{.name = "close_with_unread_data_resets",
          .server =
              [](int fd) {
                await_peer();
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                write_all(fd, bytes_at(0, 300));
                tell_peer();
                await_peer();
                char byte = 0;
                CHECK_ERRNO(::read(fd, &byte, 1), ECONNRESET);
                expect_end_of_stream(fd);
                CHECK_ERRNO(::send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
              }};

BEHAVIOUR{.name = "data_comes_before_the_reset",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 5000));
                await_peer();
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                write_all(fd, bytes_at(0, 300));
                tell_peer();
                await_peer();
                CHECK_EQ(read_exactly(fd, 5000), bytes_at(0, 5000));
                char byte = 0;
                CHECK_ERRNO(::recv(fd, &byte, 1, 0), ECONNRESET);
                expect_end_of_stream(fd);
              }};

BEHAVIOUR{.name = "a_write_to_a_reset_stream_is_epipe_at_once",
          .server =
              [](int fd) {
                await_peer();
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                write_all(fd, bytes_at(0, 300));
                tell_peer();
                await_peer();
                count_signal(SIGPIPE, 0);
                CHECK_ERRNO(::write(fd, "x", 1), EPIPE);
                CHECK_EQ(signals_counted(), 1);
                char byte = 0;
                CHECK_ERRNO(::read(fd, &byte, 1), ECONNRESET);  // the write did not use it up
                expect_end_of_stream(fd);
              }};

struct Bytes {
  Bytes() {
    for (size_t i = 0; i < 3; ++i) {
      parts[i] = {&data[i], 1};
      headers[i].msg_hdr.msg_iov = &parts[i];
      headers[i].msg_hdr.msg_iovlen = 1;
    }
  }
  int receive(int fd) { return ::recvmmsg(fd, headers, 3, 0, nullptr); }
  char data[3] = {};
  iovec parts[3] = {};
  mmsghdr headers[3] = {};
};

int pending_error(int fd) {
  int error = -1;
  socklen_t length = sizeof error;
  CHECK_EQ(::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length), 0);
  return error;
}

// net/socket.c, do_recvmmsg: "we record the error to return on the next call or if the app asks about it using getsockopt(SO_ERROR)".
BEHAVIOUR{.name = "recvmmsg_leaves_the_reset_behind_its_messages_to_the_next_call",
          .server =
              [](int) {
                for (int i = 0; i < 3; ++i) {
                  const int fd = accept_another();
                  await_peer();
                  write_all(fd, "a");
                  sleep_ms(20);
                  ::close(fd);
                }
              },
          .client =
              [](int) {
                for (int i = 0; i < 3; ++i) {
                  const int fd = connect_another();
                  write_all(fd, "x");
                  tell_peer();
                  Bytes bytes;
                  CHECK_EQ(bytes.receive(fd), 1);
                  if (i == 0) CHECK_ERRNO(::recv(fd, bytes.data, 3, 0), ECONNRESET);
                  if (i == 1) CHECK_ERRNO(bytes.receive(fd), ECONNRESET);
                  if (i == 2) CHECK_ERRNO(::send(fd, "y", 1, MSG_NOSIGNAL), EPIPE);
                  CHECK_EQ(pending_error(fd), i == 2 ? ECONNRESET : 0);
                  expect_end_of_stream(fd);
                  ::close(fd);
                }
              }};

// It asks for the error first, before it looks for bytes.
BEHAVIOUR{.name = "recvmmsg_tells_the_reset_before_the_bytes",
          .server =
              [](int fd) {
                await_peer();
                write_all(fd, "ab");
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                write_all(fd, "x");
                tell_peer();
                await_peer();
                Bytes bytes;
                CHECK_ERRNO(bytes.receive(fd), ECONNRESET);
                CHECK_EQ(bytes.receive(fd), 3);  // the end counts as a message of nothing
                CHECK_EQ(pending_error(fd), 0);
                expect_end_of_stream(fd);
              }};

BEHAVIOUR{.name = "so_error_tells_of_the_reset_once",
          .server =
              [](int fd) {
                await_peer();
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                write_all(fd, bytes_at(0, 300));
                tell_peer();
                await_peer();
                int error = -1;
                socklen_t length = sizeof error;
                CHECK_EQ(::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length), 0);
                CHECK_EQ(error, ECONNRESET);
                CHECK_EQ(::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length), 0);
                CHECK_EQ(error, 0);
                expect_end_of_stream(fd);
              }};

// The last message was read by a program that had slept for it: whatever woke it must not count as unread data.
BEHAVIOUR{.name = "close_after_sleeping_and_reading_everything_is_no_reset",
          .server =
              [](int fd) {
                CHECK_EQ(read_exactly(fd, 5), "hello");
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                sleep_ms(30);
                write_all(fd, "hello");
                await_peer();
                expect_end_of_stream(fd);
              }};

BEHAVIOUR{.name = "close_after_both_have_slept_is_no_reset",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  CHECK_EQ(read_exactly(fd, 5), "hello");
                  sleep_ms(20);
                  write_all(fd, "world");
                }
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 3; ++i) {
                  sleep_ms(20);
                  write_all(fd, "hello");
                  CHECK_EQ(read_exactly(fd, 5), "world");
                }
                await_peer();
                expect_end_of_stream(fd);
                CHECK_ERRNO(::send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
              }};

BEHAVIOUR{.name = "close_after_poll_and_reading_everything_is_no_reset",
          .server =
              [](int fd) {
                CHECK(is_readable(fd, 10'000));
                CHECK_EQ(read_exactly(fd, 5), "hello");
                CHECK(!is_readable(fd, 10));
                ::close(fd);
                tell_peer();
              },
          .client =
              [](int fd) {
                sleep_ms(30);
                write_all(fd, "hello");
                await_peer();
                expect_end_of_stream(fd);
              }};

// A writer asleep on a full stream when the reader goes: the part that was taken is reported, without a signal.
BEHAVIOUR{.name = "close_wakes_a_blocked_writer",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(50);
                ::close(fd);
              },
          .client =
              [](int fd) {
                count_signal(SIGPIPE, SA_RESTART);
                const std::string data = bytes_at(0, 8 * kMiB);
                tell_peer();
                const ssize_t n = ::write(fd, data.data(), data.size());
                CHECK(n > 0 && n < static_cast<ssize_t>(data.size()));
                CHECK_EQ(signals_counted(), 0);
                CHECK_ERRNO(::write(fd, "x", 1), EPIPE);
                CHECK_EQ(signals_counted(), 1);
              }};

BEHAVIOUR{.name = "exit_is_a_close",
          .server =
              [](int fd) {
                join_child(in_child([fd] { write_all(fd, bytes_at(0, 1000)); }));
                ::close(fd);
              },
          .client = [](int fd) { CHECK_EQ(read_stream_to_end(fd, 0, 300), 1000); }};

BEHAVIOUR{.name = "close_of_nothing_in_flight_right_after_the_last_write",
          .server =
              [](int fd) {
                for (int i = 0; i < 50; ++i) {
                  const int one = accept_another();
                  write_all(one, bytes_at(0, 5000));
                  ::close(one);
                }
                ::close(fd);
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 50; ++i) {
                  const int one = connect_another();
                  CHECK_EQ(read_stream_to_end(one, 0, 800), 5000);
                  ::close(one);
                }
                expect_end_of_stream(fd);
              }};

}  // namespace
}  // namespace shunt::behaviour
