// Bytes past libc: one end reads or writes by instructions of its own, from its first message on or from a later one.
#include "past_libc.h"

#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

#include "behaviour.h"
#include "check.h"
#include "io.h"

namespace shunt::behaviour {
namespace {

ssize_t read_by_instruction(int fd, char* data, size_t size) { return by_instruction(SYS_read, fd, data, size); }

ssize_t write_by_instruction(int fd, const char* data, size_t size) {
  return by_instruction(SYS_write, fd, data, size);
}

// Two pieces, to have a vector.
ssize_t writev_by_instruction(int fd, const char* data, size_t size) {
  char* first = const_cast<char*>(data);
  const iovec pieces[2] = {{first, size / 2}, {first + size / 2, size - size / 2}};
  return by_instruction(SYS_writev, fd, pieces, 2);
}

ssize_t readv_by_instruction(int fd, char* data, size_t size) {
  const iovec pieces[2] = {{data, size / 2}, {data + size / 2, size - size / 2}};
  return by_instruction(SYS_readv, fd, pieces, 2);
}

ssize_t recvfrom_by_instruction(int fd, char* data, size_t size) {
  return by_instruction(SYS_recvfrom, fd, data, size, 0, nullptr, nullptr);
}

ssize_t sendto_by_instruction(int fd, const char* data, size_t size) {
  return by_instruction(SYS_sendto, fd, data, size, 0, nullptr, 0);
}

// Nothing was lost for want of room: what the other program sent had no control data.
ssize_t recvmsg_without_room(int fd, char* data, size_t size) {
  iovec piece{data, size};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  const ssize_t n = by_instruction(SYS_recvmsg, fd, &header, 0);
  if (n >= 0) CHECK_EQ(header.msg_flags & MSG_CTRUNC, 0);
  return n;
}

ssize_t recvmsg_with_room(int fd, char* data, size_t size) {
  alignas(cmsghdr) char control[256];
  iovec piece{data, size};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t n = by_instruction(SYS_recvmsg, fd, &header, 0);
  if (n >= 0) CHECK_EQ(header.msg_flags & MSG_CTRUNC, 0);
  if (n >= 0) CHECK_EQ(header.msg_controllen, 0U);  // not one item
  return n;
}

constexpr const char* kInPipe = "in a pipe";

ssize_t sendmsg_with_a_pipe(int fd, const char* data, size_t size) {
  int ends[2];
  CHECK_EQ(::pipe(ends), 0);
  write_all(ends[1], kInPipe);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec piece{const_cast<char*>(data), size};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  cmsghdr* item = CMSG_FIRSTHDR(&header);
  *item = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  std::memcpy(CMSG_DATA(item), &ends[0], sizeof(int));
  const ssize_t n = by_instruction(SYS_sendmsg, fd, &header, 0);
  const int error = errno;
  ::close(ends[0]), ::close(ends[1]);
  errno = error;
  return n;
}

int pipes_arrived = 0;

// Through libc: the other end of sendmsg_with_a_pipe.
ssize_t receive_pipes(int fd, char* data, size_t size) {
  alignas(cmsghdr) char control[256];
  iovec piece{data, size};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
  const int error = errno;
  if (n < 0) return n;
  CHECK_EQ(header.msg_flags & MSG_CTRUNC, 0);
  for (cmsghdr* item = CMSG_FIRSTHDR(&header); item != nullptr; item = CMSG_NXTHDR(&header, item)) {
    CHECK_EQ(item->cmsg_level, SOL_SOCKET);
    CHECK_EQ(item->cmsg_type, SCM_RIGHTS);
    CHECK_EQ(item->cmsg_len, CMSG_LEN(sizeof(int)));
    int arrived = -1;
    std::memcpy(&arrived, CMSG_DATA(item), sizeof arrived);
    CHECK_EQ(read_exactly(arrived, std::strlen(kInPipe)), kInPipe);
    ::close(arrived);
    ++pipes_arrived;
  }
  errno = error;
  return n;
}

Calls receiving(ssize_t (*receive)(int, char*, size_t)) {
  Calls calls = kThroughLibc;
  calls.receive = receive;
  return calls;
}

Calls sending(ssize_t (*send)(int, const char*, size_t)) {
  Calls calls = kThroughLibc;
  calls.send = send;
  return calls;
}

constexpr unsigned kFewModes = bit(Mode::blocking) | bit(Mode::level);

const Operation kBytes[] = {
    {.name = "read", .calls = receiving(read_by_instruction), .later_is_limit = true},
    {.name = "readv", .calls = receiving(readv_by_instruction), .modes = kFewModes, .later_is_limit = true},
    {.name = "recvfrom", .calls = receiving(recvfrom_by_instruction), .modes = kFewModes, .later_is_limit = true},
    {.name = "recvmsg_without_control_room", .calls = receiving(recvmsg_without_room), .later_is_limit = true},
    {.name = "recvmsg_with_control_room", .calls = receiving(recvmsg_with_room), .later_is_limit = true},
    {.name = "write", .calls = sending(write_by_instruction), .fences_are_limit = true},
    {.name = "writev", .calls = sending(writev_by_instruction), .fences_are_limit = true},
    {.name = "sendto", .calls = sending(sendto_by_instruction), .modes = kFewModes, .fences_are_limit = true},
    {.name = "sendmsg_of_a_descriptor",
     .calls = sending(sendmsg_with_a_pipe),
     .others = receiving(receive_pipes),
     .face = [](Talk&) { pipes_arrived = 0; },
     .each_facing = [](Talk&, int messages) { CHECK_EQ(pipes_arrived, messages); },
     .fences_are_limit = true},
};

[[maybe_unused]] const bool added = add_operations<kBytes>({SHUNT_FAMILY});

// All through libc: shows that the engine of this matrix is accelerated, in each of its modes.
template <Mode kMode>
void control(int) {
  run_control(kMode);
}

BEHAVIOUR{.name = "nothing_with_blocking_reads",
          .server = control<Mode::blocking>,
          .client = control<Mode::blocking>,
          .connects_itself = true};
BEHAVIOUR{
    .name = "nothing_with_poll", .server = control<Mode::poll>, .client = control<Mode::poll>, .connects_itself = true};
BEHAVIOUR{.name = "nothing_with_epoll",
          .server = control<Mode::level>,
          .client = control<Mode::level>,
          .connects_itself = true};
BEHAVIOUR{.name = "nothing_with_edges",
          .server = control<Mode::edge>,
          .client = control<Mode::edge>,
          .connects_itself = true};
BEHAVIOUR{.name = "nothing_with_one_shots",
          .server = control<Mode::one_shot>,
          .client = control<Mode::one_shot>,
          .connects_itself = true};

}  // namespace
}  // namespace shunt::behaviour
