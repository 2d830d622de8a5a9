// The server and the client of each workload. One thread; errors end the process with a message.
// Runs with and without the preloaded library; calls nothing but sockets, clock and files.
#include "workload.h"

#include <fmt/core.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "readiness.h"
#include "sockets.h"

namespace shunt::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kRequestBytes = 64;               // of one cycle
constexpr size_t kReceiveBytes = size_t{1} << 18;  // oneway: what one read asks for, at least
constexpr uint64_t kMostWarmUps = 2000;
constexpr int kGreetings = 16;  // oneway: short messages both ways before it, as programs introduce themselves

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void echo_until_end(int fd, size_t size_bytes) {
  std::vector<char> message(size_bytes);
  while (read_all(fd, message, size_bytes)) write_all(fd, message, size_bytes);
}

void receive_until_end(const Task& task, int fd) {
  std::vector<char> buffer(std::max<size_t>(kReceiveBytes, task.size_bytes));
  for (int i = 0; i < kGreetings && read_all(fd, buffer, 1); ++i) write_all(fd, buffer, 1);
  Clock::time_point start{};
  uint64_t bytes = 0;
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno != EINTR) die("read");
    if (n == 0) break;
    if (bytes == 0) start = Clock::now();
    if (n > 0) bytes += static_cast<uint64_t>(n);
  }
  const double per_second = static_cast<double>(bytes) / seconds_since(start);
  store(task, {.messages_per_s = per_second / static_cast<double>(task.size_bytes), .bytes_per_s = per_second});
}

void pingpong(const Task& task) {
  const int fd = connected_socket(task.socket_path);
  std::vector<char> message(task.size_bytes, 'x');
  std::vector<double> samples_ns(task.count);
  const auto round = [&] {
    write_all(fd, message, message.size());
    if (!read_all(fd, message, message.size())) die("the server left");
  };
  for (uint64_t i = 0, warm_ups = std::clamp<uint64_t>(task.count / 10, 10, kMostWarmUps); i < warm_ups; ++i) round();
  const Clock::time_point start = Clock::now();
  Clock::time_point before = start;
  for (double& sample : samples_ns) {
    round();
    const Clock::time_point after = Clock::now();
    sample = std::chrono::duration<double, std::nano>(after - before).count();
    before = after;
  }
  store(task, summary_of(samples_ns, seconds_since(start), task.size_bytes));
  ::close(fd);
}

void oneway(const Task& task) {
  const int fd = connected_socket(task.socket_path);
  std::vector<char> message(task.size_bytes, 'x');
  for (int i = 0; i < kGreetings; ++i) {
    write_all(fd, message, 1);
    if (!read_all(fd, message, 1)) die("the server left");
  }
  // The clock is asked once in a while, so that it does not become part of small messages.
  const uint64_t between_looks = std::max<uint64_t>(1, 65536 / task.size_bytes);
  for (const Clock::time_point start = Clock::now(); seconds_since(start) < task.seconds;) {
    for (uint64_t i = 0; i < between_looks; ++i) write_all(fd, message, message.size());
  }
  ::close(fd);
}

void cycles(const Task& task) {
  std::vector<char> message(kRequestBytes, 'x');
  std::vector<double> samples_ns(task.count);
  const Clock::time_point start = Clock::now();
  for (double& sample : samples_ns) {
    const Clock::time_point before = Clock::now();
    const int fd = connected_socket(task.socket_path);
    write_all(fd, message, message.size());
    if (!read_all(fd, message, message.size())) die("the server left");
    ::close(fd);
    sample = std::chrono::duration<double, std::nano>(Clock::now() - before).count();
  }
  store(task, summary_of(samples_ns, seconds_since(start), kRequestBytes));
}

int accept_one(int listener) {
  const int fd = ::accept(listener, nullptr, nullptr);
  if (fd < 0) die("accept");
  return fd;
}

}  // namespace

Result summary_of(std::vector<double>& samples_ns, double elapsed_s, uint64_t size_bytes) {
  std::sort(samples_ns.begin(), samples_ns.end());
  const size_t last = samples_ns.size() - 1;
  const double per_second = static_cast<double>(samples_ns.size()) / elapsed_s;
  return {.median_ns = samples_ns[samples_ns.size() / 2],
          .p99_ns = samples_ns[std::min(last, samples_ns.size() * 99 / 100)],
          .messages_per_s = per_second,
          .bytes_per_s = per_second * static_cast<double>(size_bytes)};
}

void store(const Task& task, const Result& result) {
  std::ofstream(task.result_path) << nlohmann::json{{"median_ns", result.median_ns},
                                                    {"p99_ns", result.p99_ns},
                                                    {"messages_per_s", result.messages_per_s},
                                                    {"bytes_per_s", result.bytes_per_s},
                                                    {"idle_cpu_us_per_s", result.idle_cpu_us_per_s},
                                                    {"memory_bytes", result.memory_bytes}};
}

int run_server(const Task& task, int ready_fd) {
  const int listener = listening_socket(task.socket_path);
  if (::write(ready_fd, "r", 1) != 1) die("ready");
  ::close(ready_fd);
  if (task.workload == Workload::readiness) {
    serve_many(task, listener);
    return 0;
  }
  const uint64_t connections = task.workload == Workload::cycles ? task.count : 1;
  for (uint64_t i = 0; i < connections; ++i) {
    const int fd = accept_one(listener);
    switch (task.workload) {
      case Workload::pingpong:
        echo_until_end(fd, task.size_bytes);
        break;
      case Workload::oneway:
        receive_until_end(task, fd);
        break;
      case Workload::cycles:
        echo_until_end(fd, kRequestBytes);
        break;
      case Workload::readiness:
        break;
    }
    ::close(fd);
  }
  return 0;
}

int run_client(const Task& task) {
  switch (task.workload) {
    case Workload::pingpong:
      pingpong(task);
      break;
    case Workload::oneway:
      oneway(task);
      break;
    case Workload::cycles:
      cycles(task);
      break;
    case Workload::readiness:
      drive_hot(task);
      break;
  }
  return 0;
}

}  // namespace shunt::bench
