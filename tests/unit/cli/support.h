// What several tests of the command need: a directory that goes away, a variable that comes back, ELF files to order.
// Called by tests, from one thread.
// Must not assert: a fixture that fails throws.
#pragma once

#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace shunt::cli {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "shunt-cli-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = std::filesystem::canonical(name);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }

  std::filesystem::path write(const std::string& name, const std::string& content, mode_t mode = 0755) const {
    const auto file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << content;
    if (chmod(file.c_str(), mode) != 0) throw std::runtime_error("chmod");
    return file;
  }

 private:
  std::filesystem::path path_;
};

class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* before = getenv(name)) before_ = before;
    value ? setenv(name, value, 1) : unsetenv(name);
  }
  ~ScopedVariable() { before_ ? setenv(name_, before_->c_str(), 1) : unsetenv(name_); }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

struct ElfRecipe {
  std::optional<std::string> loader = std::nullopt;
  uint16_t machine = EM_X86_64;
  uint16_t type = ET_DYN;
  unsigned char elf_class = ELFCLASS64;
  unsigned char byte_order = ELFDATA2LSB;
};

// Headers only: enough to be looked at, not to run.
inline std::string make_elf(const ElfRecipe& recipe) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = recipe.elf_class;
  header.e_ident[EI_DATA] = recipe.byte_order;
  header.e_type = recipe.type;
  header.e_machine = recipe.byte_order == ELFDATA2MSB ? __builtin_bswap16(recipe.machine) : recipe.machine;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 2;
  Elf64_Phdr segments[2]{};
  segments[0].p_type = PT_LOAD;
  segments[1].p_type = recipe.loader ? PT_INTERP : PT_NOTE;
  segments[1].p_offset = sizeof header + sizeof segments;
  segments[1].p_filesz = recipe.loader ? recipe.loader->size() + 1 : 0;
  std::string file(reinterpret_cast<const char*>(&header), sizeof header);
  file.append(reinterpret_cast<const char*>(segments), sizeof segments);
  if (recipe.loader) file.append(*recipe.loader).push_back('\0');
  return file;
}

inline constexpr const char* kGlibcLoader = "/lib64/ld-linux-x86-64.so.2";

}  // namespace shunt::cli
