// Reads "#!" as fs/binfmt_script.c does, and as much of env's argument as is certain.
// Called by program inspection and tests, from one thread.
// Must not read more than the kernel does: what it cuts off at 256 bytes is cut off here.
#include "cli/script_line.h"

#include <elf.h>

#include <fstream>

namespace shunt::cli {
namespace {

constexpr size_t kKernelReads = 256;
constexpr std::string_view kBlank = " \t";
constexpr std::string_view kSplit = "-S";
constexpr std::string_view kLongSplit = "--split-string=";

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlank);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

// Takes the first word off `text`.
std::string_view next_word(std::string_view& text) {
  text = trimmed(text);
  const std::string_view word = text.substr(0, text.find_first_of(kBlank));
  text.remove_prefix(word.size());
  return word;
}

bool starts_an_option_or_quote(std::string_view word) {
  return word.starts_with('-') || word.find_first_of("'\"\\$") != word.npos;
}

}  // namespace

bool ScriptLine::is_env() const { return std::filesystem::path(interpreter).filename() == "env"; }

std::optional<std::string> ScriptLine::env_program() const {
  if (!is_env() || argument.empty()) return std::nullopt;
  std::string_view words = argument;
  const bool split = words.starts_with(kSplit) || words.starts_with(kLongSplit);
  if (!split) {
    // One argument: "#!/usr/bin/env python3 -u" makes env look for a program named "python3 -u".
    if (words.starts_with('-') || words.find('=') != words.npos) return std::nullopt;
    return argument;
  }
  words.remove_prefix(words.starts_with(kSplit) ? kSplit.size() : kLongSplit.size());
  for (std::string_view word = next_word(words); !word.empty(); word = next_word(words)) {
    if (starts_an_option_or_quote(word)) return std::nullopt;
    if (word.find('=') == word.npos) return std::string(word);
  }
  return std::nullopt;
}

std::optional<ScriptLine> parse_script_line(std::string_view start) {
  start = start.substr(0, kKernelReads);
  if (!start.starts_with("#!")) return std::nullopt;
  const size_t newline = start.find('\n');
  std::string_view line = start.substr(2, newline == start.npos ? newline : newline - 2);
  line = line.substr(0, line.find('\0'));
  const std::string_view interpreter = next_word(line);
  // Without an end of line in sight, the name must at least end in what was read.
  const bool cut_off = newline == start.npos && start.size() == kKernelReads && line.empty();
  if (interpreter.empty() || cut_off) return std::nullopt;
  return ScriptLine{std::string(interpreter), std::string(trimmed(line))};
}

std::optional<ScriptLine> read_script_line(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::string start(kKernelReads, '\0');
  file.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(file.gcount()));
  if (start.starts_with(std::string_view(ELFMAG, SELFMAG))) return std::nullopt;
  if (auto line = parse_script_line(start)) return line;
  return ScriptLine{"/bin/sh", ""};
}

}  // namespace shunt::cli
