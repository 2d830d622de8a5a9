// Descriptors passed with SCM_RIGHTS: over the connection, and of the connection.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

void send_with(int fd, const std::string& data, int passed) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec piece{const_cast<char*>(data.data()), data.size()};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  cmsghdr* item = CMSG_FIRSTHDR(&header);
  item->cmsg_level = SOL_SOCKET;
  item->cmsg_type = SCM_RIGHTS;
  item->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(item), &passed, sizeof passed);
  CHECK_EQ(::sendmsg(fd, &header, 0), data.size());
}

// One receive; *passed is the descriptor that came with it, or -1.
std::string receive_with(int fd, size_t most, int* passed, int flags = 0) {
  alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {};
  std::string data(most, '\0');
  iovec piece{data.data(), data.size()};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(fd, &header, flags);
  CHECK(n >= 0);
  *passed = -1;
  for (cmsghdr* item = CMSG_FIRSTHDR(&header); item != nullptr; item = CMSG_NXTHDR(&header, item)) {
    CHECK_EQ(item->cmsg_level, SOL_SOCKET);
    CHECK_EQ(item->cmsg_type, SCM_RIGHTS);
    CHECK_EQ(item->cmsg_len, CMSG_LEN(sizeof(int)));
    CHECK_EQ(*passed, -1);
    std::memcpy(passed, CMSG_DATA(item), sizeof *passed);
  }
  data.resize(static_cast<size_t>(n));
  return data;
}

void expect_pipe(int fd) {
  CHECK(fd >= 0);
  CHECK_EQ(read_exactly(fd, 9), "in a pipe");
  ::close(fd);
}

int pipe_with_text() {
  int ends[2];
  CHECK_EQ(::pipe(ends), 0);
  write_all(ends[1], "in a pipe");
  ::close(ends[1]);
  return ends[0];
}

// The descriptor stands exactly where it was put: a receive never runs over it.
void receive_in_mid_stream(int fd) {
  read_stream(fd, 0, 50'000, 7000);
  std::string data;
  int passed = -1;
  while (data.size() < 300) {
    int one = -1;
    data += receive_with(fd, 300 - data.size(), &one);
    if (one >= 0) CHECK_EQ(passed, -1), passed = one;
  }
  CHECK_EQ(data, bytes_at(50'000, 300));
  expect_pipe(passed);
  read_stream(fd, 50'300, 50'000, 9000);
  write_all(fd, "thanks");
}

void send_in_mid_stream(int fd) {
  write_stream(fd, 0, 50'000, 4000);
  const int pipe_end = pipe_with_text();
  send_with(fd, bytes_at(50'000, 300), pipe_end);
  ::close(pipe_end);
  write_stream(fd, 50'300, 50'000, 6000);
  CHECK_EQ(read_exactly(fd, 6), "thanks");
}

BEHAVIOUR{.name = "of_a_pipe_from_the_client_in_mid_stream",
          .server = receive_in_mid_stream,
          .client = send_in_mid_stream,
          .leaves_ring = true};

BEHAVIOUR{.name = "of_a_pipe_from_the_server_in_mid_stream",
          .server = send_in_mid_stream,
          .client = receive_in_mid_stream,
          .leaves_ring = true};

// What came by a ring and what came with the descriptor are read in one go, as from one queue.
BEHAVIOUR{.name = "of_a_pipe_behind_other_bytes",
          .server =
              [](int fd) {
                await_peer();
                int passed = -1;
                CHECK_EQ(receive_with(fd, 100, &passed), "bytespipe");
                expect_pipe(passed);
              },
          .client =
              [](int fd) {
                write_all(fd, "bytes");
                send_with(fd, "pipe", pipe_with_text());
                tell_peer();
              },
          .leaves_ring = true,
          .was_upgraded = true};

BEHAVIOUR{.name = "of_a_pipe_as_the_first_thing",
          .server =
              [](int fd) {
                send_with(fd, "first", pipe_with_text());
                for (int i = 0; i < 10; ++i) write_all(fd, read_exactly(fd, 1000));
              },
          .client =
              [](int fd) {
                int passed = -1;
                CHECK_EQ(receive_with(fd, 100, &passed), "first");
                expect_pipe(passed);
                for (uint64_t i = 0; i < 10; ++i) {
                  write_all(fd, bytes_at(i, 1000));
                  CHECK_EQ(agreeing(read_exactly(fd, 1000), i), 1000U);
                }
              },
          .warms_up = false,
          .leaves_ring = true};

BEHAVIOUR{.name = "of_many_descriptors_in_both_directions",
          .server =
              [](int fd) {
                for (int i = 0; i < 20; ++i) {
                  int passed = -1;
                  CHECK_EQ(receive_with(fd, 10, &passed), "take");
                  expect_pipe(passed);
                  send_with(fd, "give", pipe_with_text());
                }
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 20; ++i) {
                  send_with(fd, "take", pipe_with_text());
                  int passed = -1;
                  CHECK_EQ(receive_with(fd, 10, &passed), "give");
                  expect_pipe(passed);
                }
              },
          .leaves_ring = true};

// "Control data that finds no room is lost, MSG_CTRUNC says so": a plain read drops the descriptor, not the bytes.
BEHAVIOUR{.name = "to_a_reader_that_does_not_want_it",
          .server =
              [](int fd) {
                int ends[2];
                CHECK_EQ(::pipe(ends), 0);
                send_with(fd, "take", ends[0]);
                ::close(ends[0]);
                await_peer();
                count_signal(SIGPIPE, 0);
                CHECK_ERRNO(::write(ends[1], "x", 1), EPIPE);  // nobody has the other end any more
                CHECK_EQ(read_exactly(fd, 1), "x");
              },
          .client =
              [](int fd) {
                CHECK_EQ(read_exactly(fd, 4), "take");
                tell_peer();
                write_all(fd, "x");
              },
          .leaves_ring = true};

// Nobody receives a descriptor that the other program did not send: a program that always has room for control data
// finds none with plain bytes, also while connections move to shared memory.
BEHAVIOUR{.name = "never_of_what_the_program_did_not_send",
          .server =
              [](int fd) {
                for (uint64_t i = 0; i < 30; ++i) {
                  sleep_ms(1);  // who reads is seen to wait
                  write_all(fd, bytes_at(i, 500));
                  int passed = -1;
                  CHECK_EQ(receive_with(fd, 1, &passed), "x");
                  CHECK_EQ(passed, -1);
                }
              },
          .client =
              [](int fd) {
                const int next = ::dup(0);
                ::close(next);
                for (uint64_t i = 0; i < 30; ++i) {
                  std::string data;
                  while (data.size() < 500) {
                    int passed = -1;
                    data += receive_with(fd, 500 - data.size(), &passed, i % 2 == 0 ? MSG_CMSG_CLOEXEC : 0);
                    CHECK_EQ(passed, -1);
                  }
                  CHECK_EQ(agreeing(data, i), 500U);
                  sleep_ms(1);
                  write_all(fd, "x");
                }
                CHECK_EQ(::dup(0), next);
              },
          .warms_up = false};

// The connection goes to another process, with bytes that nobody has read yet.
void hand_over(int fd, bool unread_first) {
  int pair[2];
  CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const int child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    ::close(pair[0]);
    ::close(fd);
    int received = -1;
    CHECK_EQ(receive_with(pair[1], 10, &received), "yours");
    CHECK(received >= 0);
    read_stream(received, 0, 30'000, 4000);
    write_stream(received, 0, 30'000, 5000);
    ::_exit(0);
  }
  ::close(pair[1]);
  if (unread_first) await_peer();
  send_with(pair[0], "yours", fd);
  ::close(fd);
  if (!unread_first) tell_peer();
  join_child(child);
}

BEHAVIOUR{.name = "of_the_servers_end_with_unread_bytes",
          .server = [](int fd) { hand_over(fd, true); },
          .client =
              [](int fd) {
                write_stream(fd, 0, 30'000, 30'000);
                tell_peer();
                read_stream(fd, 0, 30'000, 3000);
                expect_end_of_stream(fd);
              },
          .leaves_ring = true};

BEHAVIOUR{.name = "of_the_clients_end_with_unread_bytes",
          .server =
              [](int fd) {
                write_stream(fd, 0, 30'000, 30'000);
                tell_peer();
                read_stream(fd, 0, 30'000, 3000);
                expect_end_of_stream(fd);
              },
          .client = [](int fd) { hand_over(fd, true); },
          .leaves_ring = true};

BEHAVIOUR{.name = "of_the_servers_end_before_the_bytes",
          .server = [](int fd) { hand_over(fd, false); },
          .client =
              [](int fd) {
                await_peer();
                write_stream(fd, 0, 30'000, 30'000);
                read_stream(fd, 0, 30'000, 3000);
                expect_end_of_stream(fd);
              },
          .leaves_ring = true};

// The peer has gone to sleep in read or stopped reading altogether; it need not help for the bytes that it was sent.
BEHAVIOUR{.name = "of_the_servers_end_while_the_client_sleeps_in_read",
          .server =
              [](int fd) {
                await_peer();
                sleep_ms(30);
                hand_over(fd, true);
              },
          .client =
              [](int fd) {
                write_stream(fd, 0, 30'000, 30'000);
                tell_peer();
                tell_peer();
                read_stream(fd, 0, 30'000, 3000);
                expect_end_of_stream(fd);
              },
          .leaves_ring = true};

// Who has the connection from its peer, through SCM_RIGHTS, has the kernel's own answers: what the peer left in the
// other end's socket to say that it is the kernel's again must not be unread data when that end goes away.
void take_a_plain_copy(int fd, void (*then)(int plain)) {
  write_all(fd, "0123456789");
  CHECK_EQ(read_exactly(fd, 10), "0123456789");
  int ends[2];
  CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  send_with(ends[0], "x", fd);
  int plain = -1;
  receive_with(ends[1], 1, &plain);
  ::close(fd);
  tell_peer();
  await_peer();
  then(plain);
}

void echo_and_await(int fd) {
  write_all(fd, read_exactly(fd, 10));
  await_peer();
}

BEHAVIOUR{.name = "close_of_the_other_end_is_no_reset",
          .server =
              [](int fd) {
                echo_and_await(fd);
                CHECK_EQ(::close(fd), 0);
                tell_peer();
              },
          .client = [](int fd) { take_a_plain_copy(fd, expect_end_of_stream); },
          .leaves_ring = true};

BEHAVIOUR{.name = "dup2_over_the_other_end_is_no_reset",
          .server =
              [](int fd) {
                echo_and_await(fd);
                CHECK_EQ(::dup2(::open("/dev/null", O_RDWR), fd), fd);
                tell_peer();
              },
          .client = [](int fd) { take_a_plain_copy(fd, expect_end_of_stream); },
          .leaves_ring = true};

// A program may keep the descriptor that it passed on, and use both.
BEHAVIOUR{.name = "of_a_connection_to_oneself",
          .server =
              [](int fd) {
                for (int i = 0; i < 4; ++i) write_all(fd, read_exactly(fd, 1000));
              },
          .client =
              [](int fd) {
                int pair[2];
                CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
                send_with(pair[0], "yours", fd);
                int second = -1;
                CHECK_EQ(receive_with(pair[1], 10, &second), "yours");
                for (uint64_t i = 0; i < 4; ++i) {
                  const int one = i % 2 == 0 ? fd : second;
                  write_all(one, bytes_at(i, 1000));
                  CHECK_EQ(agreeing(read_exactly(i < 2 ? one : second, 1000), i), 1000U);
                }
              },
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
