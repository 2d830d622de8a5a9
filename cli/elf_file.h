// What the loader would read from an executable's first pages: the machine it is for and the loader it asks for.
// Called by program inspection, library location and tests. Reads one file, keeps nothing open.
// Must not trust the file: sizes and offsets in it are checked before they are used.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace shunt::cli {

// Two files can live in one process only if these are equal.
struct ElfKind {
  uint8_t elf_class;   // ELFCLASS32, ELFCLASS64
  uint8_t byte_order;  // ELFDATA2LSB, ELFDATA2MSB
  uint16_t machine;    // EM_X86_64, ...
  bool operator==(const ElfKind&) const = default;
};

struct ElfFile {
  ElfKind kind;
  uint16_t type;                      // ET_EXEC, ET_DYN; 0 when `kind` has a foreign class or byte order
  std::optional<std::string> loader;  // PT_INTERP; none: statically linked, or a library
};

enum class ElfError { unreadable, not_elf, damaged };

struct ElfResult {
  std::optional<ElfFile> file;
  ElfError error;  // meaningless when there is a file
};

ElfResult read_elf(const std::filesystem::path& path);

// "64-bit x86-64", for messages.
std::string describe(const ElfKind& kind);

}  // namespace shunt::cli
