// Beginnings, duplicates and ends past libc: accept, connect, dup, shutdown, close, and what gets the number next.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "past_libc.h"

namespace shunt::behaviour {
namespace {

constexpr uint64_t kPiece = 20;
constexpr int kRoundsBeside = 24;

int socket_by_instruction() { return static_cast<int>(by_instruction(SYS_socket, AF_UNIX, SOCK_STREAM, 0)); }

int connected_by_instruction(int fd, const Address& address) {
  CHECK(fd >= 0);
  CHECK_EQ(by_instruction(SYS_connect, fd, &address.name, address.length), 0);
  return fd;
}

constexpr Meeting kAcceptPastLibc{
    .accept = [](int listener) { return static_cast<int>(by_instruction(SYS_accept, listener, nullptr, nullptr)); }};
constexpr Meeting kAccept4PastLibc{.accept = [](int listener) {
  return static_cast<int>(by_instruction(SYS_accept4, listener, nullptr, nullptr, SOCK_CLOEXEC));
}};
constexpr Meeting kConnectPastLibc{.connect = [](const Address& address) {
  return connected_by_instruction(::socket(AF_UNIX, SOCK_STREAM, 0), address);
}};
constexpr Meeting kSocketPastLibc{
    .connect = [](const Address& address) { return connected_by_instruction(socket_by_instruction(), address); }};

// A further connection, in the mode of the cell; the first one goes on afterwards.
void talk_beside(Talk& talk, int fd) {
  CHECK(fd >= 0);
  Talk other(fd, talk.mode, talk.lenient);
  for (int i = 0; i < kRoundsBeside; ++i) {
    other.round(i);
    if (i < 4) talk.round(i);
  }
  talk.tell();
  talk.hear();
}

template <const Meeting& kHow>
void accept_beside(Talk& talk) {
  talk_beside(talk, meet(true, kHow));
}
template <const Meeting& kHow>
void connect_beside(Talk& talk) {
  talk_beside(talk, meet(false, kHow));
}
void be_connected_to(Talk& talk) { talk_beside(talk, meet(true)); }
void be_accepted(Talk& talk) { talk_beside(talk, meet(false)); }

int duplicate_of(int fd) {
  const long duplicate = by_instruction(SYS_dup, fd);
  CHECK(duplicate >= 0);
  return static_cast<int>(duplicate);
}

void use_duplicate(Talk& talk) { talk.used = duplicate_of(talk.fd); }

void use_duplicate_past_libc(Talk& talk) {
  use_duplicate(talk);
  talk.calls.receive = [](int fd, char* data, size_t size) {
    return ssize_t{by_instruction(SYS_read, fd, data, size)};
  };
  talk.calls.send = [](int fd, const char* data, size_t size) {
    return ssize_t{by_instruction(SYS_write, fd, data, size)};
  };
}

void use_them_in_turn(Talk& talk, int messages) {
  static int duplicate = -1;
  if (messages == 0) duplicate = duplicate_of(talk.fd);
  talk.used = messages % 2 == 0 ? duplicate : talk.fd;
  if (messages % 2 != 0) talk.spare = duplicate;
}

// libc has closed the number that it knew.
void keep_the_duplicate(Talk& talk) {
  const int duplicate = duplicate_of(talk.fd);
  CHECK_EQ(::close(talk.fd), 0);
  talk.fd = talk.used = duplicate;
}

// Over the number of another file, which libc has opened.
void put_over_a_file(Talk& talk) {
  const int file = ::open("/dev/zero", O_RDWR | O_CLOEXEC);
  CHECK(file >= 0);
  CHECK_EQ(by_instruction(SYS_dup2, talk.fd, file), file);
  talk.used = file;
}

void shut(Talk& talk, int how) { CHECK_EQ(by_instruction(SYS_shutdown, talk.fd, how), 0); }

// The other direction goes on, until the peer closes.
void stop_writing(Talk& talk) {
  shut(talk, SHUT_WR);
  talk.tell();
  talk.take(kPiece);
  talk.expect_refusal();
  talk.tell();
  talk.expect_end();
}

void see_it_stop_writing(Talk& talk) {
  talk.hear();
  talk.expect_end();
  talk.put(kPiece);
  talk.hear();
}

void stop_reading(Talk& talk) {
  shut(talk, SHUT_RD);
  char byte = 0;
  if (const ssize_t n = ::read(talk.used, &byte, 1); n != 0) talk.ended(n);
  talk.tell();
  talk.put(kPiece);
  talk.hear();
}

void see_it_stop_reading(Talk& talk) {
  talk.hear();
  talk.expect_refusal();
  talk.take(kPiece);
  talk.tell();
}

// Through libc, a number that is closed is closed.
int close_past_libc(Talk& talk) {
  const int number = talk.fd;
  CHECK_EQ(by_instruction(SYS_close, number), 0);
  char byte = 0;
  CHECK_ERRNO(::read(number, &byte, 1), EBADF);
  CHECK_ERRNO(::write(number, &byte, 1), EBADF);
  CHECK_ERRNO(::fcntl(number, F_GETFD), EBADF);
  return number;
}

void go_on_with(Talk& talk, int number, int fd) {
  CHECK_EQ(fd, number);
  talk.replace(fd);
}

template <const Meeting& kHow>
void close_and_connect(Talk& talk) {
  const int number = close_past_libc(talk);
  go_on_with(talk, number, meet(false, kHow));
}

constexpr Meeting kThroughLibcToo{};

void close_and_accept(Talk& talk) {
  const int number = close_past_libc(talk);
  go_on_with(talk, number, meet(true));
}

void close_and_accept_past_libc(Talk& talk) {
  const int number = close_past_libc(talk);
  go_on_with(talk, number, meet(true, kAccept4PastLibc));
}

void use_the_file(int file) {
  CHECK_EQ(read_exactly(file, 5), std::string(5, '\0'));
  write_all(file, "nowhere");
  CHECK(is_readable(file, 0));
}

void close_and_open(Talk& talk) {
  const int number = close_past_libc(talk);
  const int file = ::open("/dev/zero", O_RDWR | O_CLOEXEC);
  CHECK_EQ(file, number);
  use_the_file(file);
  CHECK_EQ(::close(file), 0);
  go_on_with(talk, number, meet(false));
}

void close_and_open_past_libc(Talk& talk) {
  const int number = close_past_libc(talk);
  CHECK_EQ(by_instruction(SYS_openat, AT_FDCWD, "/dev/zero", O_RDWR | O_CLOEXEC), number);
  use_the_file(number);
  CHECK_EQ(::close(number), 0);
  go_on_with(talk, number, meet(false));
}

// The end of the old connection, then another one.
template <bool kAccepts>
void see_it_close(Talk& talk) {
  try {
    talk.expect_end();
    talk.expect_refusal();
  } catch (const Reset&) {
  }
  CHECK_EQ(::close(talk.fd), 0);
  talk.replace(meet(kAccepts));
}

constexpr unsigned kModesWithoutSets = bit(Mode::blocking) | bit(Mode::poll);
constexpr unsigned kSomeModes = bit(Mode::blocking) | bit(Mode::poll) | bit(Mode::level);

const Operation kEnds[] = {
    {.name = "accept", .act = accept_beside<kAcceptPastLibc>, .face = be_accepted, .modes = kSomeModes},
    {.name = "accept4", .act = accept_beside<kAccept4PastLibc>, .face = be_accepted, .modes = bit(Mode::edge)},
    {.name = "connect", .act = connect_beside<kConnectPastLibc>, .face = be_connected_to, .modes = kSomeModes},
    {.name = "socket_and_connect",
     .act = connect_beside<kSocketPastLibc>,
     .face = be_connected_to,
     .modes = bit(Mode::edge)},
    {.name = "dup_used_through_libc", .act = use_duplicate, .later_is_limit = true},
    {.name = "dup_used_past_libc", .act = use_duplicate_past_libc, .later_is_limit = true},
    {.name = "dup_used_in_turn", .each = use_them_in_turn, .later_is_limit = true},
    {.name = "dup_that_is_kept", .act = keep_the_duplicate, .modes = kModesWithoutSets, .later_is_limit = true},
    {.name = "dup2_over_a_file", .act = put_over_a_file, .later_is_limit = true},
    {.name = "shutdown_of_writing", .act = stop_writing, .face = see_it_stop_writing, .ends = true, .later_is_limit = true},
    {.name = "shutdown_of_reading", .act = stop_reading, .face = see_it_stop_reading, .ends = true, .later_is_limit = true},
    {.name = "close_then_socket", .act = close_and_connect<kThroughLibcToo>, .face = see_it_close<true>, .later_is_limit = true},
    {.name = "close_then_socket_past_libc", .act = close_and_connect<kSocketPastLibc>, .face = see_it_close<true>, .later_is_limit = true},
    {.name = "close_then_accept", .act = close_and_accept, .face = see_it_close<false>, .later_is_limit = true},
    {.name = "close_then_accept_past_libc", .act = close_and_accept_past_libc, .face = see_it_close<false>, .later_is_limit = true},
    {.name = "close_then_open", .act = close_and_open, .face = see_it_close<true>, .later_is_limit = true},
    {.name = "close_then_open_past_libc", .act = close_and_open_past_libc, .face = see_it_close<true>, .later_is_limit = true},
};

[[maybe_unused]] const bool added = add_operations<kEnds>({SHUNT_FAMILY});

}  // namespace
}  // namespace shunt::behaviour
