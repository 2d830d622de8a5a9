// Descriptors that are taken away from threads asleep on them. The kernel's rule: a call keeps the file that it began
// with; the number may be closed, or be something else, meanwhile.
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <functional>
#include <thread>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "life.h"
#include "role.h"
#include "signals.h"

namespace shunt::behaviour {
namespace {

// Runs a call that falls asleep.
class Sleeper {
 public:
  explicit Sleeper(std::function<void()> call)
      : thread_([this, call = std::move(call)] {
          id_ = static_cast<int>(::syscall(SYS_gettid));
          call();
          over_ = true;
        }) {
    while (id_ == 0) sleep_ms(1);
    while (!over_ && !is_sleeping(id_)) sleep_ms(1);  // under chaos a full stream may have room again
  }
  void join() { thread_.join(); }
  void kill(int signal) { ::pthread_kill(thread_.native_handle(), signal); }

 private:
  std::atomic<int> id_ = 0;
  std::atomic<bool> over_ = false;
  std::thread thread_;
};

// Another connection of the same pair, whose bytes nobody may touch.
int bystander = -1;
constexpr size_t kBystandersBytes = 4000;

enum class Strike { close, reuse_by_a_file, file_over, connection_over };

void strike(int fd, Strike how) {
  if (how == Strike::close) CHECK_EQ(::close(fd), 0);
  if (how == Strike::connection_over) CHECK_EQ(::dup2(bystander, fd), fd);
  if (how == Strike::reuse_by_a_file) {
    CHECK_EQ(::close(fd), 0);
    CHECK_EQ(::open("/dev/zero", O_RDWR), fd);
  }
  if (how == Strike::file_over) {
    const int file = ::open("/dev/zero", O_RDWR);
    CHECK_EQ(::dup2(file, fd), fd);
    ::close(file);
  }
}

void tidy(int fd, Strike how) {
  if (how != Strike::close) CHECK_EQ(::close(fd), 0);
}

template <Strike kHow>
void strike_reader(int fd, const Stream& rest) {
  const int other = ::dup(fd);
  std::string byte;
  Sleeper reader([&] { byte = read_some(fd, 1); });
  strike(fd, kHow);
  rest.begin(other);
  if (rest.sends) put(other, rest.sent, kPart);
  reader.join();
  CHECK_EQ(byte, bytes_at(rest.peer_sent, 1));
  rest.carry_on(other, {.out = kPart, .in = 1});
  rest.second(other), rest.last(other);
  CHECK_EQ(::close(other), 0);
  tidy(fd, kHow);
}

template <Strike kHow>
void strike_writer(int fd, const Stream& rest) {
  const int other = ::dup(fd);
  Sleeper writer([&] { CHECK_EQ(::write(fd, bytes_at(rest.sent, kPart).data(), kPart), kPart); });
  strike(fd, kHow);
  rest.begin(other);
  writer.join();
  rest.carry_on(other, {.out = kPart});
  rest.second(other), rest.last(other);
  CHECK_EQ(::close(other), 0);
  tidy(fd, kHow);
}

template <Strike kHow>
void strike_registered(int fd, const Stream& rest) {
  const int other = ::dup(fd);
  const int set = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN, .data = {.u32 = 7}};
  CHECK_EQ(::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  epoll_event ready{};
  Sleeper waiter([&] { CHECK_EQ(::epoll_wait(set, &ready, 1, -1), 1); });
  strike(fd, kHow);
  rest.begin(other);
  if (rest.sends) put(other, rest.sent, kPart);
  waiter.join();
  CHECK_EQ(ready.data.u32, 7);
  CHECK_EQ(ready.events, EPOLLIN);
  rest.carry_on(other, {.out = kPart});
  rest.second(other), rest.last(other);
  CHECK_EQ(::close(other), 0);
  tidy(fd, kHow);
  ::close(set);
}

bool sleeps_reading(const Cell& cell, bool at_client) { return cell.blocking && !has_input(cell, at_client); }
bool sleeps_writing(const Cell& cell, bool) { return cell.blocking && cell.state == State::full_out; }

constexpr Life kStruck[] = {
    {"close under a reader", strike_reader<Strike::close>, sleeps_reading},
    {"close and re-use under a reader", strike_reader<Strike::reuse_by_a_file>, sleeps_reading},
    {"dup2 of a file over a reader's", strike_reader<Strike::file_over>, sleeps_reading},
    {"dup2 of another connection over a reader's", strike_reader<Strike::connection_over>, sleeps_reading},
    {"close under a writer", strike_writer<Strike::close>, sleeps_writing},
    {"close and re-use under a writer", strike_writer<Strike::reuse_by_a_file>, sleeps_writing},
    {"dup2 of a file over a writer's", strike_writer<Strike::file_over>, sleeps_writing},
    {"dup2 of another connection over a writer's", strike_writer<Strike::connection_over>, sleeps_writing},
    {"close under epoll_wait", strike_registered<Strike::close>, sleeps_reading},
    {"dup2 of another connection over what epoll_wait has", strike_registered<Strike::connection_over>, sleeps_reading},
};

void hold_struck(int fd) {
  bystander = fd;
  hold_all(kStruck);
  about("the bystander");
  CHECK_EQ(read_exactly(fd, kBystandersBytes), bytes_at(0, kBystandersBytes));
}

void face_struck(int fd) {
  write_all(fd, bytes_at(0, kBystandersBytes));
  face_all(kStruck);
}

BEHAVIOUR{.name = "struck_at_the_server", .server = hold_struck, .client = face_struck};
BEHAVIOUR{.name = "struck_at_the_client", .server = face_struck, .client = hold_struck};

// The only descriptor is taken away: the stream ends when the call that sleeps on it does.
void evict_all(int) {
  count_signal(SIGUSR1, 0);
  for (const Strike how : {Strike::close, Strike::reuse_by_a_file, Strike::file_over}) {
    for (const int peer_ends : {0, 1}) {
      about("reader, way " + std::to_string(static_cast<int>(how)) +
            (peer_ends ? ", the peer closes" : ", the peer writes"));
      const int fd = accept_another();
      std::string got;
      Sleeper reader([&] { got = read_some(fd, 10); });
      strike(fd, how);
      tell_peer();
      reader.join();
      CHECK_EQ(got, peer_ends ? "" : "late");
      tidy(fd, how);
      await_peer();
    }
    about("reader, way " + std::to_string(static_cast<int>(how)) + ", by a signal");
    const int fd = accept_another();
    Sleeper reader([&] { CHECK_ERRNO(::read(fd, &bystander, 1), EINTR); });
    strike(fd, how);
    tell_peer();
    await_peer();
    reader.kill(SIGUSR1);
    reader.join();
    tidy(fd, how);
    await_peer();
    about("writer, way " + std::to_string(static_cast<int>(how)));
    const int full = accept_another();
    set_blocking(full, false);
    const uint64_t sent = fill(full, 0, 4000);
    set_blocking(full, true);
    Sleeper writer([&] { CHECK_EQ(::write(full, bytes_at(sent, kPart).data(), kPart), kPart); });
    strike(full, how);
    tell_peer(static_cast<uint32_t>(sent + kPart));
    writer.join();
    tidy(full, how);
    await_peer();
  }
}

void be_evicted(int) {
  for (int way = 0; way < 3; ++way) {
    for (const bool ends : {false, true}) {
      const int fd = connect_another();
      await_peer();
      if (!ends) write_all(fd, "late");
      if (!ends) expect_end_of_stream(fd);
      ::close(fd);
      tell_peer();
    }
    const int fd = connect_another();
    await_peer();
    CHECK(!is_readable(fd, 5));  // the call holds it
    tell_peer();
    expect_end_of_stream(fd);
    ::close(fd);
    tell_peer();
    const int full = connect_another();
    CHECK_EQ(read_stream_to_end(full, 0, 65536), await_peer());
    ::close(full);
    tell_peer();
  }
}

#if !defined(__SANITIZE_ADDRESS__)  // which takes the stack of a cancelled thread for one in use
// A thread that is gone keeps nothing open.
BEHAVIOUR{.name = "a_cancelled_reader_keeps_nothing",
          .server =
              [](int fd) {
                pthread_t thread{};
                std::atomic<int> id = 0;
                struct Call {
                  int fd;
                  std::atomic<int>* id;
                } call{fd, &id};
                const auto read_one = [](void* argument) -> void* {
                  const auto* one = static_cast<Call*>(argument);
                  *one->id = static_cast<int>(::syscall(SYS_gettid));
                  char byte = 0;
                  (void)!::read(one->fd, &byte, 1);
                  return nullptr;
                };
                CHECK_EQ(::pthread_create(&thread, nullptr, read_one, &call), 0);
                while (id == 0) sleep_ms(1);
                await_sleeping(id);
                CHECK_EQ(::pthread_cancel(thread), 0);
                CHECK_EQ(::pthread_join(thread, nullptr), 0);
                CHECK_EQ(::close(fd), 0);
                ::close(accept_another());
              },
          .client =
              [](int fd) {
                expect_end_of_stream(fd);
                expect_end_of_stream(connect_another());
              }};
#endif

BEHAVIOUR{.name = "the_only_descriptor_is_taken_away", .server = evict_all, .client = be_evicted};
BEHAVIOUR{.name = "the_only_descriptor_is_taken_away_before_any_upgrade",
          .server = evict_all,
          .client = be_evicted,
          .warms_up = false,
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
