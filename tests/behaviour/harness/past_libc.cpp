// The conversation engine of the matrix of calls past libc, and its walk.
#include "past_libc.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <bitset>
#include <csignal>
#include <deque>

#include "check.h"
#include "io.h"

namespace shunt::behaviour {
namespace {

constexpr uint32_t kOver = ~0U;            // a word between the roles
constexpr uint64_t kAnswers = 1ULL << 40;  // where the server's bytes begin, so that an echo is no answer
constexpr uint64_t kWord = 0x5eed000000000000;
constexpr size_t kMost = 65536;  // of one call

constexpr int kMoments[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 30, 100};
constexpr int kFewMoments[] = {2, 5, 8, 12, 30, 100};
constexpr int kMessagesAfter = 8;
constexpr int kMessagesFromTheFirst = 60;
constexpr const char* kModeNames[] = {"blocking", "poll", "level", "edge", "one shot"};

int listener = -1;

uint64_t request_bytes(int number) {
  return number % 9 == 7 ? 40 * 1024 : 1 + static_cast<uint64_t>(number) * 37 % 200;
}
uint64_t answer_bytes(int number) { return number % 9 == 4 ? 40 * 1024 : 1 + static_cast<uint64_t>(number) * 53 % 200; }

bool is_client() { return current_end() == End::client; }

bool is_epoll(Mode mode) { return (bit(mode) & kEpollModes) != 0; }

// Numbers that are open, asked past the library.
using Numbers = std::bitset<64>;
Numbers open_numbers() {
  Numbers numbers;
  for (size_t fd = 0; fd < numbers.size(); ++fd) numbers[fd] = by_instruction(SYS_fcntl, fd, F_GETFD) >= 0;
  return numbers;
}

}  // namespace

constinit const Calls kThroughLibc{
    .receive = [](int fd, char* data, size_t size) { return ::read(fd, data, size); },
    .send = [](int fd, const char* data, size_t size) { return ::write(fd, data, size); },
    .poll = [](pollfd* one, int timeout_ms) { return ::poll(one, 1, timeout_ms); },
    .epoll_create = ::epoll_create1,
    .epoll_ctl = ::epoll_ctl,
    .epoll_wait = ::epoll_wait,
};

Talk::Talk(int connection, Mode how, bool may_be_reset)
    : fd(connection), used(connection), mode(Mode::blocking), lenient(may_be_reset) {
  wait_with(how);
}

Talk::~Talk() { close(); }

void Talk::close() {
  if (spare >= 0 && spare != used) CHECK_EQ(::close(spare), 0);
  if (used >= 0 && used != fd) CHECK_EQ(::close(used), 0);
  if (fd >= 0) CHECK_EQ(::close(fd), 0);
  if (set >= 0) CHECK_EQ(::close(set), 0);
  fd = used = spare = set = -1;
}

std::string Talk::wanted(size_t count, uint64_t ahead) const {
  return bytes_at((is_client() ? kAnswers : 0) + received + ahead, count);
}

void Talk::expect_next(const std::string& data) {
  const std::string next = wanted(data.size());
  const auto agrees = std::mismatch(data.begin(), data.end(), next.begin()).first - data.begin();
  if (data != next) CHECK_EQ("a wrong byte, number " + std::to_string(agrees), "as on the kernel");
  received += data.size();
}

void Talk::ended(ssize_t result) {
  const int error = errno;
  const std::string what = result < 0 ? "a call failed" : "the stream ended";
  if (!lenient) errno = error, CHECK_EQ(what, "as on the kernel");
  if (result < 0 && error != ECONNRESET && error != EPIPE) errno = error, CHECK_EQ(what, "a reset");
  // The end of a connection that was reset refuses bytes; that of an orderly stream does not.
  if (result >= 0) {
    CHECK_EQ(result, 0);
    CHECK(::send(used, "", 1, MSG_NOSIGNAL) < 0 && (errno == EPIPE || errno == ECONNRESET));
  }
  throw Reset{};
}

void Talk::expect_again(ssize_t result) {
  if (result >= 0 || errno != EAGAIN) ended(result);
}

void Talk::expect_refusal() {
  const ssize_t n = ::write(used, "", 1);
  if (n < 0 && errno == ECONNRESET) ended(n);
  CHECK_EQ(n, -1);
  CHECK_EQ(errno, EPIPE);
}

void Talk::wait_with(Mode how) {
  mode = how;
  if (how != Mode::blocking) set_blocking(fd, false);
  if (!is_epoll(how)) return;
  set = calls.epoll_create(EPOLL_CLOEXEC);
  CHECK(set >= 0);
  arm(EPOLL_CTL_ADD);
}

void Talk::arm(int operation) {
  const uint32_t how = mode == Mode::edge ? uint32_t{EPOLLET} : mode == Mode::one_shot ? uint32_t{EPOLLONESHOT} : 0U;
  epoll_event event{.events = EPOLLIN | how, .data = {.u64 = kWord + ++word_}};
  CHECK_EQ(calls.epoll_ctl(set, operation, fd, &event), 0);
  armed_ = true;
}

void Talk::disarm() {
  CHECK_EQ(calls.epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr), 0);
  CHECK(!is_told(0));
}

bool Talk::is_told(int timeout_ms) const {
  epoll_event event{};
  const int n = calls.epoll_wait(set, &event, 1, timeout_ms);
  CHECK(n >= 0);
  if (n == 1) CHECK_EQ(event.data.u64 - kWord, word_);
  return n == 1;
}

void Talk::replace(int connection) {
  fd = used = connection;
  readable_ = false;
  if (mode != Mode::blocking) set_blocking(fd, false);
  if (is_epoll(mode)) arm(EPOLL_CTL_ADD);
}

void Talk::check_event(uint32_t events, bool at_end) const {
  if (at_end || lenient) events &= ~static_cast<uint32_t>(EPOLLHUP | EPOLLERR);
  CHECK_EQ(events, EPOLLIN);
}

void Talk::await_input(bool at_end) {
  if (mode == Mode::poll) {
    pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
    CHECK_EQ(calls.poll(&one, -1), 1);
    return check_event(static_cast<uint32_t>(one.revents), at_end);
  }
  if (mode == Mode::one_shot && !armed_) arm(EPOLL_CTL_MOD);
  epoll_event events[4] = {};
  CHECK_EQ(calls.epoll_wait(set, events, 4, -1), 1);
  CHECK_EQ(events[0].data.u64 - kWord, word_);  // the program's word
  check_event(events[0].events, at_end);
  readable_ = true;
  if (mode != Mode::one_shot) return;
  armed_ = false;
  CHECK(!is_told(0));
}

void Talk::take(uint64_t count) {
  std::string data;
  for (uint64_t done = 0; done < count;) {
    const bool tries_first = mode == Mode::blocking || (mode == Mode::edge && readable_);
    if (!tries_first) await_input(false);
    data.resize(static_cast<size_t>(std::min<uint64_t>(count - done, kMost)));
    const ssize_t n = calls.receive(used, data.data(), data.size());
    // What is told of is there. But an edge may be told once more (docs/limits.md).
    if (n < 0 && errno == EAGAIN && mode == Mode::edge) {
      readable_ = false;
      continue;
    }
    if (n <= 0) ended(n);
    data.resize(static_cast<size_t>(n));
    expect_next(data);
    done += data.size();
  }
}

void Talk::put(uint64_t count) {
  for (uint64_t done = 0; done < count;) {
    const std::string data =
        bytes_at((is_client() ? 0 : kAnswers) + sent, static_cast<size_t>(std::min<uint64_t>(count - done, kMost)));
    const ssize_t n = calls.send(used, data.data(), data.size());
    if (n < 0 && errno == EAGAIN && mode != Mode::blocking) {
      pollfd one{.fd = used, .events = POLLOUT, .revents = 0};
      CHECK_EQ(::poll(&one, 1, -1), 1);
      continue;
    }
    if (n <= 0) ended(n);
    sent += static_cast<uint64_t>(n);
    done += static_cast<uint64_t>(n);
  }
}

void Talk::put_at_once(uint64_t count) {
  const Mode usual = std::exchange(mode, Mode::blocking);
  put(count);
  mode = usual;
}

void Talk::take_at_once(uint64_t count) {
  const Mode usual = std::exchange(mode, Mode::blocking);
  take(count);
  mode = usual;
}

uint64_t Talk::fill() {
  for (const uint64_t before = sent;;) {
    const std::string data = bytes_at((is_client() ? 0 : kAnswers) + sent, 4000);
    const ssize_t n = calls.send(used, data.data(), data.size());
    if (n <= 0) return expect_again(n), sent - before;
    sent += static_cast<uint64_t>(n);
  }
}

void Talk::expect_end() {
  char byte = 0;
  for (;;) {
    if (mode != Mode::blocking && !(mode == Mode::edge && readable_)) await_input(true);
    const ssize_t n = calls.receive(used, &byte, 1);
    if (n == 0) return;
    if (n > 0 || errno != EAGAIN || mode != Mode::edge) ended(n);
    readable_ = false;
  }
}

// An end is upgraded once it was seen to wait: the control lets the other one fall asleep in its first rounds.
bool lets_ends_wait = false;
constexpr int kSeenToWait = 12;

void Talk::round(int number) {
  if (lets_ends_wait && number < kSeenToWait && is_client()) let_reader_wait(fd);
  if (is_client()) {
    put(request_bytes(number));
    take(answer_bytes(number));
  } else {
    take(request_bytes(number));
    if (lets_ends_wait && number < kSeenToWait) let_reader_wait(fd);
    put(answer_bytes(number));
  }
}

void Talk::tell(uint32_t word) { tell_peer(word); }

uint32_t Talk::hear() {
  const uint32_t word = await_peer();
  if (word != kOver) return word;
  other_is_over_ = true;
  CHECK(lenient);
  throw Reset{};
}

void Talk::part() {
  tell_peer(kOver);
  while (!other_is_over_) other_is_over_ = await_peer() == kOver;
}

int meet(bool accepts, const Meeting& how) {
  if (accepts) return how.accept(listener);
  return how.connect(is_client() ? path_address() : abstract_address());
}

namespace {

struct Moment {
  Mode mode;
  int after;     // messages
  bool acts;     // this end
  bool lenient;  // may be reset
};

void converse(Talk& talk, const Operation& operation, const Moment& moment) {
  int number = 0;
  const auto rounds = [&](int count) {
    while (count-- > 0) talk.round(number++);
  };
  rounds(moment.after);
  if (operation.settle != nullptr) {
    if (moment.acts) operation.settle(talk);
    if (moment.after == 0) rounds(kMessagesFromTheFirst);
  }
  if (operation.act != nullptr) talk.tell(), talk.hear();  // nothing is under way
  talk.calls = moment.acts ? operation.calls : operation.others;
  if (const auto step = moment.acts ? operation.act : operation.face; step != nullptr) step(talk);
  if (operation.ends) return;
  const auto each = moment.acts ? operation.each : operation.each_facing;
  const int messages = moment.after > 0 ? kMessagesAfter : kMessagesFromTheFirst;
  for (int i = 0; i < messages; ++i) {
    if (each != nullptr) each(talk, i);
    rounds(1);
  }
  if (!moment.acts && each != nullptr) each(talk, messages);
}

void run_moment(const Operation& operation, const Moment& moment) {
  Talk talk(meet(!is_client()), operation.begins_blocking ? Mode::blocking : moment.mode, moment.lenient);
  talk.asked_mode = moment.mode;
  bool whole = false;
  try {
    converse(talk, operation, moment);
    whole = true;
  } catch (const Reset&) {
  }
  if (!whole || operation.ends) talk.close();
  talk.part();
  try {
    if (!is_client() && talk.fd >= 0) talk.expect_end();
  } catch (const Reset&) {
  }
}

constexpr Mode kModes[] = {Mode::blocking, Mode::poll, Mode::level, Mode::edge, Mode::one_shot};

constexpr int kModesAtOneMoment = 2;

// All modes at the first moment and at the last one, which is after any upgrade; between them some, in turn.
template <class Visit>
void visit_modes(unsigned modes, int moment, bool all, Visit visit) {
  const int count = std::popcount(modes);
  int index = 0;
  for (const Mode mode : kModes) {
    if ((modes & bit(mode)) == 0) continue;
    const int turn = (index++ + count - kModesAtOneMoment * moment % count) % count;
    if (all || turn < kModesAtOneMoment) visit(mode);
  }
}

// A reset is an answer only where the connection may have been on the ring before.
bool may_be_reset(When when) {
  const Way way = current_way();
  return when == When::later && has_library(way, End::server) && has_library(way, End::client);
}

void begin() {
  CHECK(::signal(SIGPIPE, SIG_IGN) != SIG_ERR);
  listener = listen_at(is_client() ? abstract_address() : path_address());
  tell_peer();
  await_peer();
}

}  // namespace

void run_cell(const Operation& operation, When when, End actor) {
  begin();
  const Numbers before = open_numbers();
  constexpr int kAtOnce[] = {0};
  std::span<const int> moments = kAtOnce;
  if (when == When::later) moments = operation.slow || kSanitized ? std::span<const int>{kFewMoments} : std::span{kMoments};
  int moment = 0;
  for (const int after : moments) {
    visit_modes(operation.modes, moment++, after == moments.back(), [&](Mode mode) {
      about(std::string(operation.name) + ", " + kModeNames[static_cast<int>(mode)] + ", after " +
            std::to_string(after) + " messages");
      run_moment(operation, {mode, after, current_end() == actor, may_be_reset(when)});
      CHECK_EQ(open_numbers().to_string(), before.to_string());
    });
  }
}

void run_control(Mode mode) {
  lets_ends_wait = true;
  begin();
  run_moment({.name = "all through libc"}, {mode, 0, false, false});
}

const char* cell_name(const Operation& operation, When when, End actor) {
  static std::deque<std::string> names;
  names.push_back(std::string(operation.name) + (when == When::first ? "_from_the_first" : "_later") +
                  (actor == End::server ? "_at_the_server" : "_at_the_client"));
  return names.back().c_str();
}

}  // namespace shunt::behaviour
