// Settings past libc: O_NONBLOCK by fcntl and ioctl, socket options. Every call through libc obeys them at once.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "past_libc.h"

namespace shunt::behaviour {
namespace {

constexpr uint64_t kPiece = 20;
constexpr uint64_t kMuch = 3 << 19;  // more than every buffer on the way
constexpr int kTimeoutMs = 5, kLongerMs = 15;
constexpr int kLowWater = 64, kBelow = 10, kAbove = 90;
constexpr int kPeekOffset = 5;
constexpr int kPassPidfd = 76, kPidfdItem = 4;  // SO_PASSPIDFD and SCM_PIDFD, Linux 6.5

uint32_t own_thread() { return static_cast<uint32_t>(::gettid()); }

void set_by_fcntl(int fd, bool on) {
  const long flags = by_instruction(SYS_fcntl, fd, F_GETFL);
  CHECK(flags >= 0);
  CHECK_EQ(by_instruction(SYS_fcntl, fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK), 0);
}

void set_by_ioctl(int fd, bool on) {
  const int value = on ? 1 : 0;
  CHECK_EQ(by_instruction(SYS_ioctl, fd, FIONBIO, &value), 0);
}

template <class Value>
void set_option(int fd, int option, const Value& value) {
  CHECK_EQ(by_instruction(SYS_setsockopt, fd, SOL_SOCKET, option, &value, sizeof value), 0);
}

template <void (*kSet)(int, bool)>
void stop_waiting(Talk& talk) {
  kSet(talk.fd, true);
  talk.mode = Mode::poll;
}

void expect_no_wait(Talk& talk) {
  char byte = 0;
  talk.expect_again(talk.calls.receive(talk.used, &byte, 1));
  talk.tell(static_cast<uint32_t>(talk.fill()));
  talk.hear();
}

void take_what_filled(Talk& talk) {
  talk.take(talk.hear());
  talk.tell();
}

// A read and a write that must wait.
void wait_in_calls(Talk& talk) {
  talk.tell(own_thread());
  talk.take_at_once(kPiece);
  talk.tell(own_thread());
  talk.put_at_once(kMuch);
}

template <int kLonger>
void find_it_waiting(Talk& talk) {
  await_sleeping(static_cast<int>(talk.hear()));
  sleep_ms(kLonger);
  talk.put(kPiece);
  await_sleeping(static_cast<int>(talk.hear()));
  sleep_ms(kLonger);
  talk.take(kMuch);
}

template <void (*kSet)(int, bool)>
void wait_again(Talk& talk) {
  kSet(talk.fd, false);
}

timeval span_of(int milliseconds) { return {.tv_sec = 0, .tv_usec = milliseconds * 1000}; }

void expect_timeout(double began_ms) {
  CHECK(now_ms() - began_ms >= kTimeoutMs - 2);  // the kernel counts in ticks
}

// The conversation does not depend on the clock.
template <int kOption>
void limit_waits(Talk& talk) {
  set_option(talk.fd, kOption, span_of(kTimeoutMs));
  talk.mode = Mode::poll;
}

void time_reads_out(Talk& talk) {
  const double began_ms = now_ms();
  char byte = 0;
  talk.expect_again(::read(talk.used, &byte, 1));
  expect_timeout(began_ms);
  set_option(talk.fd, SO_RCVTIMEO, span_of(0));
  wait_in_calls(talk);
}

void time_writes_out(Talk& talk) {
  const double began_ms = now_ms();
  talk.tell(static_cast<uint32_t>(talk.fill()));
  expect_timeout(began_ms);
  talk.hear();
  set_option(talk.fd, SO_SNDTIMEO, span_of(0));
  wait_in_calls(talk);
}

void face_timed_writes(Talk& talk) {
  take_what_filled(talk);
  find_it_waiting<kLongerMs>(talk);
}

struct Item {
  int type = 0;
  std::string data;
};

// `count` bytes through libc; each receive has at most one item of control data. Returns the first receive's.
Item take_with_item(Talk& talk, uint64_t count) {
  Item first;
  bool is_first = true;
  for (uint64_t done = 0; done < count; is_first = false) {
    alignas(cmsghdr) char control[256];
    std::string data(static_cast<size_t>(count - done), '\0');
    iovec piece{data.data(), data.size()};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t n = ::recvmsg(talk.used, &header, 0);
    if (n <= 0) talk.ended(n);
    data.resize(static_cast<size_t>(n));
    talk.expect_next(data);
    done += data.size();
    CHECK_EQ(header.msg_flags & MSG_CTRUNC, 0);
    const cmsghdr* item = CMSG_FIRSTHDR(&header);
    if (item == nullptr) continue;
    CHECK_EQ(item->cmsg_level, SOL_SOCKET);
    CHECK(CMSG_NXTHDR(&header, const_cast<cmsghdr*>(item)) == nullptr);
    if (!is_first) continue;
    first = {item->cmsg_type,
             std::string(reinterpret_cast<const char*>(CMSG_DATA(item)), item->cmsg_len - CMSG_LEN(0))};
  }
  return first;
}

pid_t pid_of_peer(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  CHECK_EQ(::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length), 0);
  return peer.pid;
}

void expect_credentials(const Talk& talk, const Item& item) {
  CHECK_EQ(item.type, SCM_CREDENTIALS);
  ucred sender{};
  CHECK_EQ(item.data.size(), sizeof sender);
  std::memcpy(&sender, item.data.data(), sizeof sender);
  CHECK_EQ(sender.pid, pid_of_peer(talk.fd));
  CHECK_EQ(sender.uid, ::getuid());
}

void expect_pidfd(const Talk& talk, const Item& item) {
  CHECK_EQ(item.type, kPidfdItem);
  int pidfd = -1;
  CHECK_EQ(item.data.size(), sizeof pidfd);
  std::memcpy(&pidfd, item.data.data(), sizeof pidfd);
  std::ifstream lines("/proc/self/fdinfo/" + std::to_string(pidfd));
  std::string found;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("Pid:")) found = line.substr(line.find_first_of("0123456789-"));
  }
  CHECK_EQ(found, std::to_string(pid_of_peer(talk.fd)));
  ::close(pidfd);
}

template <int kOption, int kValue>
void switch_on(Talk& talk) {
  set_option(talk.fd, kOption, kValue);
}

// With each message while the option is on, and with none afterwards.
template <int kOption, void (*kExpect)(const Talk&, const Item&)>
void be_told_of_the_sender(Talk& talk) {
  talk.tell();
  talk.hear();
  kExpect(talk, take_with_item(talk, kPiece));
  set_option(talk.fd, kOption, 0);
  talk.tell();
  talk.hear();
  CHECK_EQ(take_with_item(talk, kPiece).type, 0);
}

void send_two_pieces(Talk& talk) {
  for (int i = 0; i < 2; ++i) {
    talk.hear();
    talk.put(kPiece);
    talk.tell();
  }
}

// Short messages do not wait for it, where reads do not wait.
void raise_low_water(Talk& talk) {
  set_option(talk.fd, SO_RCVLOWAT, kLowWater);
  set_blocking(talk.fd, false);
  talk.mode = Mode::poll;
}

// unix(7), socket(7): a read waits until there is as much, or as it has room for.
void wait_for_low_water(Talk& talk) {
  set_blocking(talk.fd, true);
  talk.tell(own_thread());
  char data[kBelow + kAbove];
  const ssize_t n = ::read(talk.used, data, sizeof data);
  if (n <= 0) talk.ended(n);
  talk.expect_next(std::string(data, static_cast<size_t>(n)));
  if (const bool splits = current_way() == Way::chaos; n < kLowWater || (n < kBelow + kAbove && !splits)) {
    char more = 0;
    if (const ssize_t next = ::read(talk.used, &more, 1); next <= 0) talk.ended(next);
    CHECK_EQ(n, kBelow + kAbove);
  }
  set_option(talk.fd, SO_RCVLOWAT, 1);
  talk.take(static_cast<uint64_t>(kBelow + kAbove - n));
}

void rise_to_low_water(Talk& talk) {
  const int reader = static_cast<int>(talk.hear());
  await_sleeping(reader);
  talk.put(kBelow);
  sleep_ms(1);
  await_sleeping(reader);
  talk.put(kAbove);
}

// unix(7): a peek begins there, and moves it on; what is read moves it back.
void peek_at_an_offset(Talk& talk) {
  talk.tell();
  talk.hear();
  int set_to = -1;
  socklen_t length = sizeof set_to;
  CHECK_EQ(by_instruction(SYS_getsockopt, talk.fd, SOL_SOCKET, SO_PEEK_OFF, &set_to, &length), 0);
  uint64_t offset = static_cast<uint64_t>(set_to);
  for (int i = 0; i < 2; ++i) {
    char data[4];
    const ssize_t n = ::recv(talk.used, data, sizeof data, MSG_PEEK);
    if (n <= 0) talk.ended(n);
    CHECK_EQ(std::string(data, static_cast<size_t>(n)) == talk.wanted(static_cast<size_t>(n), offset), true);
    offset += static_cast<uint64_t>(n);
  }
  set_option(talk.fd, SO_PEEK_OFF, -1);
  talk.take(kPiece);
}

void send_a_piece(Talk& talk) {
  talk.hear();
  talk.put(kPiece);
  talk.tell();
}

constexpr unsigned kSomeModes = bit(Mode::blocking) | bit(Mode::level);

const Operation kSettings[] = {
    {.name = "fcntl_nonblock_on",
     .settle = stop_waiting<set_by_fcntl>,
     .act = expect_no_wait,
     .face = take_what_filled,
     .modes = bit(Mode::blocking),
     .slow = true},
    {.name = "fcntl_nonblock_off",
     .settle = wait_again<set_by_fcntl>,
     .act = wait_in_calls,
     .face = find_it_waiting<0>,
     .modes = bit(Mode::poll) | bit(Mode::level),
     .slow = true,
     .later_is_limit = true},
    {.name = "ioctl_nonblock_on",
     .settle = stop_waiting<set_by_ioctl>,
     .act = expect_no_wait,
     .face = take_what_filled,
     .modes = bit(Mode::blocking),
     .slow = true},
    {.name = "ioctl_nonblock_off",
     .settle = wait_again<set_by_ioctl>,
     .act = wait_in_calls,
     .face = find_it_waiting<0>,
     .modes = bit(Mode::poll) | bit(Mode::level),
     .slow = true,
     .later_is_limit = true},
    {.name = "setsockopt_receive_timeout",
     .settle = limit_waits<SO_RCVTIMEO>,
     .act = time_reads_out,
     .face = find_it_waiting<kLongerMs>,
     .modes = bit(Mode::blocking),
     .slow = true},
    {.name = "setsockopt_send_timeout",
     .settle = limit_waits<SO_SNDTIMEO>,
     .act = time_writes_out,
     .face = face_timed_writes,
     .modes = bit(Mode::blocking),
     .slow = true},
    {.name = "setsockopt_pass_credentials",
     .settle = switch_on<SO_PASSCRED, 1>,
     .act = be_told_of_the_sender<SO_PASSCRED, expect_credentials>,
     .face = send_two_pieces,
     .modes = kSomeModes,
     .later_is_limit = true},
    {.name = "setsockopt_pass_pidfd",
     .settle = switch_on<kPassPidfd, 1>,
     .act = be_told_of_the_sender<kPassPidfd, expect_pidfd>,
     .face = send_two_pieces,
     .modes = kSomeModes,
     .later_is_limit = true},
    {.name = "setsockopt_low_water",
     .settle = raise_low_water,
     .act = wait_for_low_water,
     .face = rise_to_low_water,
     .modes = bit(Mode::blocking),
     .later_is_limit = true},
    {.name = "setsockopt_peek_offset",
     .settle = switch_on<SO_PEEK_OFF, kPeekOffset>,
     .act = peek_at_an_offset,
     .face = send_a_piece,
     .modes = kSomeModes,
     .later_is_limit = true},
};

[[maybe_unused]] const bool added = add_operations<kSettings>({SHUNT_FAMILY});

}  // namespace
}  // namespace shunt::behaviour
