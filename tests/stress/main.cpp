// stress [--seconds N] [--seed S] [--way kernel|eager|auto|chaos]...: two processes and all that programs do to connections, for a while.
// Runs itself as the two ends, with the library preloaded; asserts from their reports that connections were accelerated.
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "ends.h"
#include "report.h"

namespace shunt::stress {
namespace {

constexpr int kGraceSeconds = 60;  // after the time is over: it only turns a hang into a failure
#if defined(__SANITIZE_THREAD__)
constexpr uint64_t kSlowness = 4;  // at least: it does less in the same time
#else
constexpr uint64_t kSlowness = 1;
#endif
constexpr uint64_t kLeastUpgraded = 20 / kSlowness;
constexpr uint64_t kLeastRingBytes = (1 << 20) / kSlowness;

struct Options {
  uint64_t seed = 1;
  int seconds = 5;
  std::vector<std::string> ways;
};

struct End {
  const char* flag;
  pid_t pid = -1;
  int input = -1, output = -1;
  std::string report;
};

std::string library() {
  const char* other = std::getenv("SHUNT_LIBRARY");
  return other != nullptr ? other : SHUNT_LIBRARY_FILE;
}

void set_environment(const std::string& way, const std::string& report) {
  ::unsetenv("LD_PRELOAD");
  if (way == "kernel") return;
  ::setenv("LD_PRELOAD", library().c_str(), 1);
  ::setenv("SHUNT_UPGRADE", way.c_str(), 1);
  ::setenv("SHUNT_REPORT", report.c_str(), 1);
}

void start(End& end, const std::string& way, const Options& options, const std::string& path) {
  int in[2], out[2];
  if (::pipe2(in, O_CLOEXEC) < 0 || ::pipe2(out, O_CLOEXEC) < 0) std::abort();
  end.pid = ::fork();
  if (end.pid == 0) {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::signal(SIGPIPE, SIG_IGN);
    ::dup2(in[0], STDIN_FILENO);
    ::dup2(out[1], STDOUT_FILENO);
    set_environment(way, end.report);
    const std::string seed = std::to_string(options.seed), seconds = std::to_string(options.seconds);
    ::execl("/proc/self/exe", "stress", end.flag, seed.c_str(), seconds.c_str(), path.c_str(), static_cast<char*>(nullptr));
    ::_exit(127);
  }
  ::setpgid(end.pid, end.pid);
  ::close(in[0]);
  ::close(out[1]);
  end.input = in[1];
  end.output = out[0];
}

// False, and the process is ended, if it does not end by itself.
bool ends_in(End& end, int seconds) {
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, end.pid, 0));
  pollfd one{.fd = pidfd, .events = POLLIN, .revents = 0};
  const bool hung = ::poll(&one, 1, seconds * 1000) == 0;
  if (hung) {
    std::printf("  %s hung: its process is %d\n", end.flag, end.pid);
    std::fflush(stdout);
    if (std::getenv("SHUNT_STRESS_KEEP") != nullptr) ::pause();  // for a debugger
    ::kill(-end.pid, SIGKILL);
  }
  ::close(pidfd);
  int status = -1;
  ::waitpid(end.pid, &status, 0);
  ::kill(-end.pid, SIGKILL);
  if (status != 0) std::printf("  %s ended with status 0x%x\n", end.flag, status);
  return !hung && status == 0;
}

bool accelerated(const End& end) {
  uint64_t upgraded = 0, bytes = 0;
  for (const behaviour::Report& report : behaviour::reports_in(end.report)) {
    upgraded += report.upgraded;
    bytes += report.ring_bytes;
  }
  std::printf("  %s: %lu upgraded, %lu bytes through rings\n", end.flag, upgraded, bytes);
  const bool enough = upgraded >= kLeastUpgraded && bytes >= kLeastRingBytes;
  if (!enough) std::printf("  %s: too few, at least %lu and %lu\n", end.flag, kLeastUpgraded, kLeastRingBytes);
  return enough;
}

bool run(const std::string& way, const Options& options, const std::string& directory) {
  std::printf("way %s, seed %lu, %d s\n", way.c_str(), options.seed, options.seconds);
  std::fflush(stdout);
  const std::string path = directory + "/" + way.substr(0, 4);
  End acceptor{.flag = "--accept", .report = path + ".acceptor"}, connector{.flag = "--connect", .report = path + ".connector"};
  start(acceptor, way, options, path);
  char byte = 0;
  if (::read(acceptor.output, &byte, 1) != 1) return ends_in(acceptor, 0), false;
  start(connector, way, options, path);
  bool well = ends_in(connector, options.seconds + kGraceSeconds);
  for (ssize_t n = 1; n > 0;) {
    char text[1000];
    n = ::read(connector.output, text, sizeof text);
    if (n > 0) (void)!::write(STDOUT_FILENO, text, static_cast<size_t>(n));
  }
  ::close(acceptor.input);
  well = ends_in(acceptor, kGraceSeconds) && well;
  for (const End& end : {connector, acceptor})
    if (way != "kernel" && !accelerated(end)) well = false;
  std::printf("  %s\n", well ? "passed" : "FAILED");
  std::fflush(stdout);
  return well;
}

Options options_of(int argc, char** argv) {
  Options options;
  if (const char* seconds = std::getenv("SHUNT_STRESS_SECONDS")) options.seconds = std::atoi(seconds);
  if (const char* seed = std::getenv("SHUNT_STRESS_SEED")) options.seed = std::strtoull(seed, nullptr, 10);
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i], value = argv[i + 1];
    if (key == "--seconds") options.seconds = std::atoi(value.c_str());
    if (key == "--seed") options.seed = std::strtoull(value.c_str(), nullptr, 10);
    if (key == "--way") options.ways.push_back(value);
  }
  if (options.ways.empty()) options.ways = {"kernel", "eager", "auto", "chaos"};
  for (std::string& way : options.ways)
    if (way == "chaos") way += ":" + std::to_string(options.seed);
  return options;
}

int run_all(const Options& options) {
  std::string directory = (std::filesystem::temp_directory_path() / "shunt-stress.XXXXXX").string();
  if (::mkdtemp(directory.data()) == nullptr) return 2;
  bool well = true;
  for (const std::string& way : options.ways) well = run(way, options, directory) && well;
  std::filesystem::remove_all(directory);
  return well ? 0 : 1;
}

}  // namespace
}  // namespace shunt::stress

int main(int argc, char** argv) {
  namespace stress = shunt::stress;
  const std::string role = argc > 1 ? argv[1] : "";
  if (role == "--carry-on" && argc == 4) return stress::carry_on(std::atoi(argv[2]), argv[3]);
  if ((role == "--accept" || role == "--connect") && argc == 5) {
    const stress::Plan plan{.seed = std::strtoull(argv[2], nullptr, 10), .seconds = std::atoi(argv[3]), .path = argv[4]};
    return role == "--accept" ? stress::accept_and_answer(plan) : stress::connect_and_ask(plan);
  }
  return stress::run_all(stress::options_of(argc, argv));
}
