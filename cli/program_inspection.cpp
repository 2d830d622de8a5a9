// Follows a program to the ELF file that runs in the end and applies the loader's rules to it.
// Called by the run command and tests, from one thread.
// Must not execute anything, nor fail: each doubt ends in Verdict::with_shunt.
#include "cli/program_inspection.h"

#include <fmt/format.h>

#include <optional>
#include <system_error>
#include <vector>

#include "cli/error.h"
#include "cli/program_search.h"
#include "cli/script_line.h"

namespace shunt::cli {
namespace {

constexpr int kMostInterpreters = 8;  // the kernel follows 5; env(1) may add its own

// Where the loader's name is the only trace of the libc: glibc's are ld-linux*.so.N, ld64.so.N and ld.so.N.
bool is_glibc_loader(const std::filesystem::path& loader) {
  const std::string name = loader.filename();
  return name.starts_with("ld-linux") || name.starts_with("ld64.so") || name.starts_with("ld.so");
}

// A script with DOS line ends names an interpreter that ends in a carriage return, which a terminal would hide.
std::string printable(std::string text) {
  if (text.ends_with('\r')) text.replace(text.size() - 1, 1, "\\r");
  return text;
}

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

std::string describe(Elevation elevation) {
  switch (elevation) {
    case Elevation::none:
      return "";
    case Elevation::set_user_id:
      return "is setuid, so the loader ignores LD_PRELOAD";
    case Elevation::set_group_id:
      return "is setgid, so the loader ignores LD_PRELOAD";
    case Elevation::file_capabilities:
      return "has file capabilities, so the loader ignores LD_PRELOAD";
    case Elevation::ids_differ_already:
      return "starts with an effective user or group other than the real one, so the loader ignores LD_PRELOAD";
  }
  return "";
}

struct Finding {
  Verdict verdict;
  std::string what;  // continues "it" or "its interpreter X"
};

Finding judge_elf(const std::filesystem::path& path, const ElfFile& elf, const Host& host) {
  if (elf.kind != host.kind)
    return {Verdict::other_machine,
            fmt::format("is a {} program, and Shunt is {}", describe(elf.kind), describe(host.kind))};
  if (!elf.loader) {
    // The loader itself, started as a program, is the one file without PT_INTERP that obeys LD_PRELOAD.
    if (is_glibc_loader(path)) return {Verdict::with_shunt, ""};
    return {Verdict::statically_linked, "is statically linked; programs that it starts can use Shunt"};
  }
  if (!is_there(*elf.loader))
    return {Verdict::cannot_start, fmt::format("needs {}, which does not exist", *elf.loader)};
  if (!is_glibc_loader(*elf.loader))
    return {Verdict::other_libc, fmt::format("uses a libc other than glibc (its loader is {})", *elf.loader)};
  return {Verdict::with_shunt, ""};
}

Finding judge(const std::filesystem::path& path, const Host& host) {
  if (!is_there(path)) return {Verdict::cannot_start, "does not exist"};
  if (const auto privileges = read_privileges(path)) {
    const Elevation found = elevation(*privileges, host.credentials);
    if (found != Elevation::none) return {Verdict::elevated, describe(found)};
  }
  const ElfResult elf = read_elf(path);
  return elf.file ? judge_elf(path, *elf.file, host) : Finding{Verdict::with_shunt, ""};
}

// The programs that the kernel starts one after the other in the same process: for a script its interpreter,
// for one that names env(1) first env, then what env finds. The last one stays.
std::vector<std::filesystem::path> programs_started(std::filesystem::path path) {
  std::vector<std::filesystem::path> programs;
  for (int depth = 0; depth < kMostInterpreters; ++depth) {
    const auto line = read_script_line(path);
    if (!line) break;
    path = line->interpreter;
    if (!line->is_env()) continue;
    const auto wanted = line->env_program();
    if (!wanted) break;
    programs.push_back(path);
    path = find_program(*wanted).file.value_or(*wanted);
  }
  programs.push_back(path);
  return programs;
}

}  // namespace

Host own_host() {
  const ElfResult self = read_elf("/proc/self/exe");
  if (!self.file) {
    throw Error(ExitStatus::own_failure,
                "cannot look at its own executable: /proc/self/exe cannot be read.\n  Mount /proc, then try again.");
  }
  return Host{self.file->kind, own_credentials()};
}

Inspection inspect_program(const std::filesystem::path& program, const Host& host) {
  Inspection result{Verdict::with_shunt, ""};
  for (const auto& started : programs_started(program)) {
    const Finding finding = judge(started, host);
    const std::string subject = started == program ? "it" : fmt::format("its interpreter {}", printable(started));
    result = {finding.verdict, finding.what.empty() ? "" : fmt::format("{} {}", subject, finding.what)};
    if (!preload_is_useful(finding.verdict)) break;
  }
  return result;
}

bool preload_is_useful(Verdict verdict) {
  switch (verdict) {
    case Verdict::with_shunt:
    case Verdict::statically_linked:
      return true;
    case Verdict::elevated:
    case Verdict::other_machine:
    case Verdict::other_libc:
    case Verdict::cannot_start:
      return false;
  }
  return false;
}

}  // namespace shunt::cli
