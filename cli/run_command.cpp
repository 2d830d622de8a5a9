// Plans a run, describes the plan, or executes it.
// Called by main() and tests, from one thread; execute() replaces the process.
// Must not change this process (signals, descriptors, directory): the program would inherit it.
#include "cli/run_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cli/error.h"
#include "cli/library_location.h"
#include "cli/program_search.h"

namespace shunt::cli {
namespace {

constexpr const char* kPreload = "LD_PRELOAD";

std::filesystem::path find_or_explain(const std::string& name) {
  const ProgramSearch found = find_program(name);
  if (found.file) return *found.file;
  if (found.error == ENOENT || found.error == ENOTDIR) {
    const bool is_path = name.find('/') != name.npos;
    throw Error(ExitStatus::not_found, fmt::format("'{}' was not found: {}.\n  Check the name{}.", name,
                                                   is_path ? "there is no such file" : "no directory in PATH has it",
                                                   is_path ? "" : ", or give its path"));
  }
  throw Error(ExitStatus::not_executable,
              fmt::format("'{}' cannot be run: {}.\n  Check what it is and its permissions.", name,
                          std::strerror(found.error)));
}

std::vector<EnvironmentChange> environment_changes(const RunRequest& request, const std::filesystem::path& library,
                                                   Verdict verdict) {
  std::vector<EnvironmentChange> changes;
  const char* now = getenv(kPreload);
  const std::string before = now ? now : "";
  const std::string preload =
      preload_is_useful(verdict) ? preload_with_shunt(before, library) : preload_without_shunt(before, library);
  if (!preload.empty()) {
    changes.push_back({kPreload, preload});
  } else if (now) {
    changes.push_back({kPreload, std::nullopt});
  }
  for (const Setting& setting : request.settings) {
    std::erase_if(changes, [&](const EnvironmentChange& change) { return change.variable == setting.variable; });
    changes.push_back({setting.variable, setting.value});
  }
  return changes;
}

// In single quotes unless it is plainly one word, so that a printed line can be pasted into a shell.
std::string quoted(const std::string& word) {
  const auto is_plain = [](unsigned char c) { return std::isalnum(c) || std::strchr("_-+=./:,@%^", c) != nullptr; };
  if (!word.empty() && std::all_of(word.begin(), word.end(), is_plain)) return word;
  std::string result = "'";
  for (const char c : word) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

std::string verdict_text(const RunPlan& plan) {
  switch (plan.inspection.verdict) {
    case Verdict::with_shunt:
      return "runs with Shunt";
    case Verdict::cannot_start:
      return fmt::format("cannot start: {}", plan.inspection.reason);
    case Verdict::statically_linked:
    case Verdict::elevated:
    case Verdict::other_machine:
    case Verdict::other_libc:
      return fmt::format("runs without Shunt: {}", plan.inspection.reason);
  }
  return "";
}

// execvp gives what the kernel does not recognise to /bin/sh; a binary for another machine would only confuse it.
bool shell_may_run(const std::filesystem::path& program) {
  const ElfResult elf = read_elf(program);
  return !elf.file && elf.error != ElfError::damaged;
}

[[noreturn]] void explain_refusal(const RunPlan& plan, int error) {
  const bool known = plan.inspection.verdict == Verdict::cannot_start;
  throw Error(error == ENOENT ? ExitStatus::not_found : ExitStatus::not_executable,
              fmt::format("'{}' cannot be run: {}.\n  It fails without shunt as well; check how it was installed.",
                          plan.command.front(), known ? plan.inspection.reason : std::strerror(error)));
}

}  // namespace

RunPlan plan_run(const RunRequest& request) {
  const Host host = own_host();
  const std::filesystem::path library = find_library(host.kind);
  RunPlan plan{find_or_explain(request.command.front()), request.command, {}, {}};
  plan.inspection = inspect_program(plan.program, host);
  plan.environment = environment_changes(request, library, plan.inspection.verdict);
  return plan;
}

std::string describe(const RunPlan& plan) {
  std::string text = fmt::format("program: {}\nverdict: {}\n", plan.program.string(), verdict_text(plan));
  for (const EnvironmentChange& change : plan.environment) {
    text += change.value ? fmt::format("set:     {}={}\n", change.variable, quoted(*change.value))
                         : fmt::format("unset:   {}\n", change.variable);
  }
  text += "command:";
  for (const std::string& word : plan.command) text += ' ' + quoted(word);
  return text + '\n';
}

void execute(const RunPlan& plan) {
  const Verdict verdict = plan.inspection.verdict;
  if (verdict != Verdict::with_shunt && verdict != Verdict::cannot_start)
    fmt::print(stderr, "shunt: {} {}\n", plan.command.front(), verdict_text(plan));
  for (const EnvironmentChange& change : plan.environment) {
    if (change.value) {
      setenv(change.variable.c_str(), change.value->c_str(), 1);
    } else {
      unsetenv(change.variable.c_str());
    }
  }
  std::vector<char*> arguments;
  for (const std::string& word : plan.command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execv(plan.program.c_str(), arguments.data());
  if (errno == ENOEXEC && shell_may_run(plan.program)) execvp(plan.program.c_str(), arguments.data());
  explain_refusal(plan, errno);
}

}  // namespace shunt::cli
