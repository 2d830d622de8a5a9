// See readiness.h. Runs with and without the preloaded library; calls nothing but sockets, epoll, clock and files.
#include "readiness.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <span>
#include <thread>
#include <vector>

#include "machine.h"
#include "sockets.h"

namespace shunt::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kEventsAtOnce = 128;
constexpr uint64_t kSpareDescriptors = 64;
constexpr size_t kBatch = 64;  // connections warmed up together
constexpr int kWarmUps = 10;   // echoes of each connection: more than the writes that an upgrade waits for
constexpr auto kSettle = std::chrono::milliseconds(500);

void watch(int set, int fd, uint32_t events) {
  epoll_event event{.events = events, .data = {.fd = fd}};
  if (::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
}

// False at the end of the stream. Level triggered: one read and back to epoll_wait, as most servers do.
bool echo_ready(int fd, std::vector<char>& message, bool edge) {
  do {
    const ssize_t n = ::read(fd, message.data(), message.size());
    if (n < 0 && errno == EAGAIN) return true;
    if (n < 0 && errno != ECONNRESET) die("read");
    if (n <= 0) return false;
    write_all(fd, message, static_cast<size_t>(n));
  } while (edge);
  return true;
}

// One message on each, then one answer from each.
void round_of(std::span<const int> connections, std::vector<char>& message) {
  for (const int fd : connections) write_all(fd, message, message.size());
  for (const int fd : connections) {
    if (!read_all(fd, message, message.size())) die("the server left");
  }
}

std::vector<int> connect_all(const Task& task, std::vector<char>& message) {
  std::vector<int> all;
  while (all.size() < task.idle + task.hot) {
    const size_t first = all.size();
    const size_t last = std::min<size_t>(first + kBatch, task.idle + task.hot);
    while (all.size() < last) all.push_back(connected_socket(task.socket_path));
    for (int i = 0; i < kWarmUps; ++i) round_of(std::span(all).subspan(first), message);
  }
  return all;
}

pid_t server_of(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) die("SO_PEERCRED");
  return peer.pid;
}

double idle_cpu_us_per_s(const Task& task, pid_t server) {
  if (task.idle_seconds <= 0) return 0;
  std::this_thread::sleep_for(kSettle);
  const double before = cpu_time_us(server) + cpu_time_us(::getpid());
  std::this_thread::sleep_for(std::chrono::duration<double>(task.idle_seconds));
  return (cpu_time_us(server) + cpu_time_us(::getpid()) - before) / task.idle_seconds;
}

}  // namespace

void serve_many(const Task& task, int listener) {
  const uint64_t connections = task.idle + task.hot;
  allow_descriptors(connections + kSpareDescriptors);
  const int set = ::epoll_create1(EPOLL_CLOEXEC);
  if (set < 0) die("epoll_create1");
  watch(set, listener, EPOLLIN);
  std::vector<char> message(task.size_bytes);
  std::array<epoll_event, kEventsAtOnce> events{};
  for (uint64_t ended = 0; ended < connections;) {
    const int count = ::epoll_wait(set, events.data(), kEventsAtOnce, -1);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd == listener) {
        const int accepted = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) die("accept4");
        watch(set, accepted, task.edge ? EPOLLIN | EPOLLET : EPOLLIN);
      } else if (!echo_ready(fd, message, task.edge)) {
        ::close(fd);
        ++ended;
      }
    }
  }
}

void drive_hot(const Task& task) {
  allow_descriptors(task.idle + task.hot + kSpareDescriptors);
  std::vector<char> message(task.size_bytes, 'x');
  const double memory_before = memory_in_use();
  const std::vector<int> all = connect_all(task, message);
  std::this_thread::sleep_for(kSettle);
  const double memory = (memory_in_use() - memory_before) / static_cast<double>(all.size());

  // The idle ones were connected first: they have been quiet for longest.
  const std::span<const int> hot = std::span(all).subspan(task.idle);
  std::vector<double> samples_ns;
  const auto drive_for = [&](double seconds) {
    samples_ns.clear();
    Clock::time_point before = Clock::now();
    for (const Clock::time_point end =
             before + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
         before < end;) {
      round_of(hot, message);
      const Clock::time_point after = Clock::now();
      samples_ns.push_back(std::chrono::duration<double, std::nano>(after - before).count() /
                           static_cast<double>(task.hot));
      before = after;
    }
  };
  // A wait learns from those before it: what it costs is known only after a while.
  drive_for(task.seconds / 4);
  const Clock::time_point start = Clock::now();
  drive_for(task.seconds);
  const double elapsed_s = std::chrono::duration<double>(Clock::now() - start).count();
  Result result = summary_of(samples_ns, elapsed_s / static_cast<double>(task.hot), task.size_bytes);
  result.memory_bytes = memory;
  result.idle_cpu_us_per_s = idle_cpu_us_per_s(task, server_of(all.front()));
  store(task, result);
}

}  // namespace shunt::bench
