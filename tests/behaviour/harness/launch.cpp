// Starts, watches and ends the two role processes. One thread.
#include "launch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "alarms.h"

namespace shunt::behaviour {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kWatchdog{60};  // never part of a behaviour: it only turns a hang into a failure
constexpr std::chrono::seconds kGrace{3};      // for the other role, once one has failed

class PrivateDirectory {
 public:
  PrivateDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "shunt-behaviour.XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::system_error(errno, std::generic_category(), "mkdtemp");
    path_ = name;
  }
  ~PrivateDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  PrivateDirectory(const PrivateDirectory&) = delete;
  PrivateDirectory& operator=(const PrivateDirectory&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::chrono::seconds watchdog() {
  const char* asked = std::getenv("SHUNT_TEST_WATCHDOG_S");  // to have time for a debugger
  return asked != nullptr ? std::chrono::seconds(std::atoi(asked)) : kWatchdog;
}

// Where each thread of a hung process stands.
std::string state_of(int pid) {
  std::string text;
  std::error_code ignored;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", ignored)) {
    const std::string stat = text_of(task.path() / "stat");
    const size_t name_end = stat.rfind(')');
    text += "\n    thread " + task.path().filename().string() + ": state " +
            (name_end == std::string::npos ? "?" : stat.substr(name_end + 2, 1)) + ", system call " +
            text_of(task.path() / "syscall");
    while (text.ends_with('\n')) text.pop_back();
  }
  return text;
}

struct Start {
  const Behaviour& behaviour;
  Way way;
  const std::string& upgrade;
  const PrivateDirectory& directory;
  End end;
  int from_peer;
  int to_peer;
};

const char* name_of(End end) { return end == End::server ? "server" : "client"; }

void set_environment(const Start& start) {
  ::unsetenv("LD_PRELOAD");
  if (!has_library(start.way, start.end)) return;
  ::setenv("LD_PRELOAD", library_path().c_str(), 1);
  ::setenv("SHUNT_UPGRADE", start.upgrade.c_str(), 1);
  ::setenv("SHUNT_REPORT", start.directory.file(std::string(name_of(start.end)) + ".report").c_str(), 1);
}

// Moves both out of the way first: either may stand where the other has to go.
void place_side_channel(const Start& start) {
  const int from = ::fcntl(start.from_peer, F_DUPFD_CLOEXEC, 10);
  const int to = ::fcntl(start.to_peer, F_DUPFD_CLOEXEC, 10);
  ::dup2(from, kFromPeerFd);
  ::dup2(to, kToPeerFd);
}

[[noreturn]] void become_role(const Start& start) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  const std::string log = start.directory.file(std::string(name_of(start.end)) + ".log");
  const int log_fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(log_fd, STDOUT_FILENO);
  ::dup2(log_fd, STDERR_FILENO);
  place_side_channel(start);
  set_environment(start);
  const std::string name = std::string(start.behaviour.family) + "/" + start.behaviour.name;
  const std::string way = std::to_string(static_cast<int>(start.way));
  ::execl("/proc/self/exe", "behaviour", kRoleFlag, name_of(start.end), name.c_str(), way.c_str(),
          start.directory.path().c_str(), static_cast<char*>(nullptr));
  std::perror("execl");
  ::_exit(127);
}

struct Running {
  EndOutcome& outcome;
  bool killed_by_design;
  int pidfd;
  bool running = true;
};

Running begin(const Start& start, EndOutcome& outcome) {
  outcome.pid = ::fork();
  if (outcome.pid < 0) throw std::system_error(errno, std::generic_category(), "fork");
  if (outcome.pid == 0) become_role(start);
  ::setpgid(outcome.pid, outcome.pid);
  return {.outcome = outcome,
          .killed_by_design = start.behaviour.killed == start.end,
          .pidfd = static_cast<int>(::syscall(SYS_pidfd_open, outcome.pid, 0))};
}

void reap(Running& role) {
  int status = 0;
  ::waitpid(role.outcome.pid, &status, 0);
  role.running = false;
  ::close(role.pidfd);
  ::kill(-role.outcome.pid, SIGKILL);     // children that it left behind
  if (!role.outcome.how.empty()) return;  // already known to hang
  if (WIFSIGNALED(status)) {
    role.outcome.how = std::string("was ended by ") + ::strsignal(WTERMSIG(status));
    role.outcome.ended_well = role.killed_by_design && WTERMSIG(status) == SIGKILL;
  } else {
    role.outcome.how = "exited with " + std::to_string(WEXITSTATUS(status));
    role.outcome.ended_well = status == 0 && !role.killed_by_design;
  }
}

void end(Running& role) {
  ::kill(-role.outcome.pid, SIGKILL);
  reap(role);
}

void watch(Running& server, Running& client, Alarms& alarms) {
  Clock::time_point deadline = Clock::now() + watchdog();
  std::string why = "hung:";
  while (server.running || client.running) {
    pollfd all[3] = {{.fd = server.running ? server.pidfd : -1, .events = POLLIN, .revents = 0},
                     {.fd = client.running ? client.pidfd : -1, .events = POLLIN, .revents = 0},
                     {.fd = alarms.fd(), .events = POLLIN, .revents = 0}};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) break;
    if (::poll(all, 3, alarms.look().value_or(static_cast<int>(left))) < 0 && errno != EINTR) break;
    for (Running* role : {&server, &client}) {
      if (!role->running || (all[role == &client ? 1 : 0].revents & POLLIN) == 0) continue;
      reap(*role);
      if (role->outcome.ended_well) continue;
      deadline = std::min(deadline, Clock::now() + kGrace);
      why = "was ended by the runner, because the other role had failed:";
    }
  }
  for (Running* role : {&server, &client}) {
    if (role->running) role->outcome.how = why + state_of(role->outcome.pid);
  }
  for (Running* role : {&server, &client}) {
    if (role->running) end(*role);
  }
}

void collect(const PrivateDirectory& directory, End end, EndOutcome& outcome) {
  const std::string name = name_of(end);
  outcome.log = text_of(directory.file(name + ".log"));
  outcome.reports = reports_in(directory.file(name + ".report"));
}

struct Pipe {
  Pipe() {
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "pipe2");
  }
  ~Pipe() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  int ends[2];
};

}  // namespace

const Report* EndOutcome::own_report() const {
  for (const Report& report : reports) {
    if (report.pid == pid) return &report;
  }
  return nullptr;
}

Outcome run_pair(const Behaviour& behaviour, Way way, const std::string& upgrade) {
  const PrivateDirectory directory;
  Alarms alarms(directory.path());
  Outcome outcome;
  std::optional<Running> server;
  std::optional<Running> client;
  {
    const Pipe to_client;
    const Pipe to_server;
    server.emplace(
        begin({behaviour, way, upgrade, directory, End::server, to_server.ends[0], to_client.ends[1]}, outcome.server));
    client.emplace(
        begin({behaviour, way, upgrade, directory, End::client, to_client.ends[0], to_server.ends[1]}, outcome.client));
  }
  watch(*server, *client, alarms);
  collect(directory, End::server, outcome.server);
  collect(directory, End::client, outcome.client);
  return outcome;
}

std::string library_path() {
  const char* asked = std::getenv("SHUNT_LIBRARY");
#ifdef SHUNT_LIBRARY_FILE
  const std::string path = asked != nullptr ? asked : SHUNT_LIBRARY_FILE;
#else
  const std::string path = asked != nullptr ? asked : "";
#endif
  return std::filesystem::exists(path) ? path : "";
}

}  // namespace shunt::behaviour
