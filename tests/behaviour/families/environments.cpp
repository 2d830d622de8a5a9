// What a program that is started inherits: also in an environment that this one has built by itself.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr const char* kProgram = "/usr/bin/env";
char name[] = "env";
char* arguments[] = {name, nullptr};

using Start = void (*)(char** environment);

void start_by_spawn(int (*spawn)(pid_t*, const char*, const posix_spawn_file_actions_t*, const posix_spawnattr_t*, char* const*, char* const*),
                    const char* program, char** environment) {
  pid_t child = -1;
  CHECK_EQ(spawn(&child, program, nullptr, nullptr, arguments, environment), 0);
  int status = -1;
  CHECK_EQ(::waitpid(child, &status, 0), child);
  ::_exit(status == 0 ? 0 : 1);
}

const std::vector<Start> kStarts = {
    [](char** environment) { ::execve(kProgram, arguments, environment); },
    [](char** environment) { ::execle(kProgram, "env", nullptr, environment); },
    [](char** environment) { ::execvpe("env", arguments, environment); },
    [](char** environment) { ::fexecve(::open(kProgram, O_RDONLY | O_CLOEXEC), arguments, environment); },
    [](char** environment) { ::execveat(AT_FDCWD, kProgram, arguments, environment, 0); },
    [](char** environment) { start_by_spawn(::posix_spawn, kProgram, environment); },
    [](char** environment) { start_by_spawn(::posix_spawnp, "env", environment); },
    [](char** environment) { environ = environment, ::execv(kProgram, arguments); },
    [](char** environment) { environ = environment, ::execvp("env", arguments); },
    [](char** environment) { environ = environment, ::execl(kProgram, "env", nullptr); },
    [](char** environment) { environ = environment, ::execlp("env", "env", nullptr); },
};

// The lines that `env` prints, each with its end.
std::string printed_by(Start start, std::vector<std::string> environment) {
  std::vector<char*> entries;
  for (std::string& entry : environment) entries.push_back(entry.data());
  entries.push_back(nullptr);
  int ends[2];
  CHECK_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const int child = in_child([&] {
    ::dup2(ends[1], STDOUT_FILENO);
    start(entries.data());
    CHECK(false && "exec");
  });
  ::close(ends[1]);
  std::string text;
  char part[4096];
  for (ssize_t n; (n = ::read(ends[0], part, sizeof part)) > 0;) text.append(part, static_cast<size_t>(n));
  ::close(ends[0]);
  join_child(child);
  return text;
}

std::string own(const char* variable) {
  const char* value = std::getenv(variable);
  return value ? variable + std::string("=") + value + "\n" : "";
}

void expect_inherited() {
  const std::string library = own("LD_PRELOAD"), options = own("SHUNT_UPGRADE") + own("SHUNT_REPORT");
  for (const Start start : kStarts) {
    const std::string alone = printed_by(start, {"PATH=/usr/bin"});
    CHECK_EQ(alone, "PATH=/usr/bin\n" + library + options);
    CHECK_EQ(printed_by(start, {}), library + options);
    // What the program says itself stands.
    CHECK_EQ(printed_by(start, {"LD_PRELOAD=", "A=1"}), "LD_PRELOAD=\nA=1\n");
    const std::string chosen = printed_by(start, {"SHUNT_REPORT=", "PATH=/usr/bin"});
    CHECK_EQ(chosen, "SHUNT_REPORT=\nPATH=/usr/bin\n" + library + own("SHUNT_UPGRADE"));
  }
}

BEHAVIOUR{.name = "of_their_own_keep_the_library",
          .server =
              [](int) {
                expect_inherited();
                tell_peer();
              },
          .client = [](int) { await_peer(); },
          .leaves_ring = true};

}  // namespace
}  // namespace shunt::behaviour
