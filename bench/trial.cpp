// Starts the two processes of a trial by executing this program again, so that LD_PRELOAD takes effect in them alone.
// One thread. Must not leave processes or files behind.
#include "trial.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>
#include <system_error>

namespace shunt::bench {
namespace {

constexpr std::string_view kRoleFlag = "--as";
constexpr int kRoleArguments = 13;
constexpr int kReadyFd = 3;  // of the server
constexpr unsigned kSpinnerLife_s = 600;

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "shunt_bench.XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::system_error(errno, std::generic_category(), "mkdtemp");
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::string file(std::string_view name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

void pin_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0) std::perror("sched_setaffinity");
}

std::vector<std::string> arguments_of(const Task& task, std::string_view role) {
  return {"shunt_bench",
          std::string(kRoleFlag),
          std::string(role),
          std::to_string(static_cast<int>(task.workload)),
          std::to_string(task.size_bytes),
          std::to_string(task.count),
          std::to_string(task.seconds),
          std::to_string(task.idle),
          std::to_string(task.hot),
          std::to_string(task.idle_seconds),
          std::to_string(static_cast<int>(task.edge)),
          task.socket_path,
          task.result_path};
}

// In the child: never returns.
[[noreturn]] void become(const Setting& setting, Mode mode, std::string_view role, const std::string& report,
                         int ready_fd) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!setting.cpus.empty()) pin_to(role == "server" ? setting.cpus.front() : setting.cpus.back());
  ::unsetenv("LD_PRELOAD");
  if (mode == Mode::shunt) {
    ::setenv("LD_PRELOAD", setting.library.c_str(), 1);
    ::setenv("SHUNT_UPGRADE", setting.upgrade.c_str(), 1);
    ::setenv("SHUNT_REPORT", report.c_str(), 1);
  }
  if (ready_fd == kReadyFd) ::fcntl(ready_fd, F_SETFD, 0);
  if (ready_fd >= 0 && ready_fd != kReadyFd) ::dup2(ready_fd, kReadyFd);
  std::vector<std::string> words = arguments_of(setting.task, role);
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  ::execv("/proc/self/exe", pointers.data());
  std::perror("execv");
  ::_exit(127);
}

pid_t start(const Setting& setting, Mode mode, std::string_view role, const std::string& report, int ready_fd) {
  const pid_t pid = ::fork();
  if (pid < 0) throw std::system_error(errno, std::generic_category(), "fork");
  if (pid == 0) become(setting, mode, role, report, ready_fd);
  return pid;
}

// Waits for both; the first to fail takes the other down, which might wait for ever.
void finish(pid_t server, pid_t client) {
  std::string failure;
  for (int left = 2; left > 0; --left) {
    int status = 0;
    const pid_t pid = ::wait(&status);
    if (pid != server && pid != client) {
      ++left;
      if (pid < 0) break;
      continue;
    }
    if (status == 0 || !failure.empty()) continue;
    failure = fmt::format("the {} {} {}", pid == server ? "server" : "client",
                          WIFSIGNALED(status) ? "was ended by signal" : "exited with status",
                          WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    if (left == 2) ::kill(pid == server ? client : server, SIGKILL);
  }
  if (!failure.empty()) throw std::runtime_error(failure);
}

EndReport sum_of(const std::string& path) {
  EndReport sum;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json report = nlohmann::json::parse(line);
    const nlohmann::json& connections = report.at("connections");
    sum.upgraded += connections.at("upgraded").get<uint64_t>();
    sum.demoted += connections.at("demoted").get<uint64_t>();
    for (const auto& [reason, count] : connections.at("plain").items()) {
      sum.plain += fmt::format("{}{}: {}", sum.plain.empty() ? "" : ", ", reason, count.get<uint64_t>());
    }
    for (const char* key : {"bytes_out", "bytes_in"}) {
      sum.ring_bytes += report.at("ring").at(key).get<uint64_t>();
      sum.kernel_bytes += report.at("kernel").at(key).get<uint64_t>();
    }
    sum.sleeps += report.at("sleeps").get<uint64_t>();
  }
  return sum;
}

Result result_in(const std::string& path) {
  const nlohmann::json json = nlohmann::json::parse(std::ifstream(path));
  return {.median_ns = json.at("median_ns").get<double>(),
          .p99_ns = json.at("p99_ns").get<double>(),
          .messages_per_s = json.at("messages_per_s").get<double>(),
          .bytes_per_s = json.at("bytes_per_s").get<double>(),
          .idle_cpu_us_per_s = json.at("idle_cpu_us_per_s").get<double>(),
          .memory_bytes = json.at("memory_bytes").get<double>()};
}

}  // namespace

Trial run_trial(const Setting& asked, Mode mode) {
  const TemporaryDirectory directory;
  Setting setting = asked;
  setting.task.socket_path = directory.file("socket");
  setting.task.result_path = directory.file("result");
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "pipe2");
  const pid_t server = start(setting, mode, "server", directory.file("server.report"), ready[1]);
  ::close(ready[1]);
  char byte = 0;
  const bool listening = ::read(ready[0], &byte, 1) == 1;
  ::close(ready[0]);
  if (!listening) {
    ::waitpid(server, nullptr, 0);
    throw std::runtime_error("the server did not start");
  }
  finish(server, start(setting, mode, "client", directory.file("client.report"), -1));
  return {.result = result_in(setting.task.result_path),
          .server = sum_of(directory.file("server.report")),
          .client = sum_of(directory.file("client.report"))};
}

std::optional<int> run_role(int argc, char** argv) {
  if (argc != kRoleArguments || argv[1] != kRoleFlag) return std::nullopt;
  const Task task{.workload = static_cast<Workload>(std::atoi(argv[3])),
                  .size_bytes = std::strtoull(argv[4], nullptr, 10),
                  .count = std::strtoull(argv[5], nullptr, 10),
                  .seconds = std::atof(argv[6]),
                  .idle = std::strtoull(argv[7], nullptr, 10),
                  .hot = std::strtoull(argv[8], nullptr, 10),
                  .idle_seconds = std::atof(argv[9]),
                  .edge = std::atoi(argv[10]) != 0,
                  .socket_path = argv[11],
                  .result_path = argv[12]};
  return std::string_view(argv[2]) == "server" ? run_server(task, kReadyFd) : run_client(task);
}

Spinners::Spinners(int count) {
  for (int i = 0; i < count; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::alarm(kSpinnerLife_s);
      for (;;) asm volatile("");
    }
    if (pid > 0) pids_.push_back(pid);
  }
}

Spinners::~Spinners() {
  for (const pid_t pid : pids_) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
}

}  // namespace shunt::bench
