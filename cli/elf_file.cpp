// Reads ELF headers with pread: nothing is mapped, so a file that shrinks meanwhile is an error and no SIGBUS.
// Called by program inspection, library location and tests.
// Must not parse further than PT_INTERP, nor anything but the identity of a foreign class or byte order.
#include "cli/elf_file.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <unistd.h>

#include <bit>
#include <climits>
#include <cstring>

namespace shunt::cli {
namespace {

constexpr uint8_t kOwnClass = sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32;
constexpr uint8_t kOwnByteOrder = std::endian::native == std::endian::little ? ELFDATA2LSB : ELFDATA2MSB;
constexpr uint64_t kLargestOffset = INT64_MAX / 2;

class File {
 public:
  explicit File(const std::filesystem::path& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool is_open() const { return fd_ >= 0; }

  bool read_at(uint64_t offset, void* to, size_t bytes) const {
    if (offset > kLargestOffset) return false;
    return pread(fd_, to, bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
  }

 private:
  int fd_;
};

uint16_t half_word(const unsigned char* bytes, uint8_t byte_order) {
  const unsigned low = byte_order == ELFDATA2MSB ? bytes[1] : bytes[0];
  const unsigned high = byte_order == ELFDATA2MSB ? bytes[0] : bytes[1];
  return static_cast<uint16_t>(high << 8 | low);
}

ElfResult damaged() { return {std::nullopt, ElfError::damaged}; }

ElfResult read_own_class(const File& file, const ElfKind& kind) {
  ElfW(Ehdr) header;
  if (!file.read_at(0, &header, sizeof header) || header.e_phentsize != sizeof(ElfW(Phdr))) return damaged();
  ElfFile result{kind, header.e_type, std::nullopt};
  for (uint64_t i = 0; i < header.e_phnum; ++i) {
    ElfW(Phdr) segment;
    if (header.e_phoff > kLargestOffset || !file.read_at(header.e_phoff + i * sizeof segment, &segment, sizeof segment))
      return damaged();
    if (segment.p_type != PT_INTERP) continue;
    // The kernel's rule: 2 .. PATH_MAX bytes, and the last one is 0.
    if (segment.p_filesz < 2 || segment.p_filesz > PATH_MAX) return damaged();
    std::string loader(segment.p_filesz, '\0');
    if (!file.read_at(segment.p_offset, loader.data(), loader.size()) || loader.back() != '\0') return damaged();
    loader.resize(std::strlen(loader.c_str()));
    result.loader = std::move(loader);
    break;
  }
  return {std::move(result), ElfError::damaged};
}

}  // namespace

ElfResult read_elf(const std::filesystem::path& path) {
  const File file(path);
  unsigned char start[sizeof(Elf32_Ehdr::e_ident) + 4];  // e_type and e_machine follow at the same place in every class
  if (!file.is_open() || !file.read_at(0, start, 1)) return {std::nullopt, ElfError::unreadable};
  if (!file.read_at(0, start, SELFMAG) || std::memcmp(start, ELFMAG, SELFMAG) != 0)
    return {std::nullopt, ElfError::not_elf};
  if (!file.read_at(0, start, sizeof start)) return damaged();
  const ElfKind kind{start[EI_CLASS], start[EI_DATA], half_word(start + EI_NIDENT + 2, start[EI_DATA])};
  if (kind.elf_class != kOwnClass || kind.byte_order != kOwnByteOrder)
    return {ElfFile{kind, 0, std::nullopt}, ElfError::damaged};
  return read_own_class(file, kind);
}

std::string describe(const ElfKind& kind) {
  const auto machine = [&]() -> std::string {
    switch (kind.machine) {
      case EM_X86_64:
        return "x86-64";
      case EM_386:
        return "i386";
      case EM_AARCH64:
        return "aarch64";
      case EM_ARM:
        return "arm";
      case EM_RISCV:
        return "riscv";
      case EM_PPC64:
        return "ppc64";
      case EM_S390:
        return "s390";
      default:
        return fmt::format("machine {}", kind.machine);
    }
  }();
  return fmt::format("{}-bit {}{}", kind.elf_class == ELFCLASS64 ? 64 : 32, machine,
                     kind.byte_order == ELFDATA2MSB ? " big-endian" : "");
}

}  // namespace shunt::cli
