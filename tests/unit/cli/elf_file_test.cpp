// Reading ELF headers: what the loader needs, from whole, foreign and damaged files.
// Run by unit_cli.
// Must not rely on the build machine being x86-64, except where the recipe says so.
#include "cli/elf_file.h"

#include <gtest/gtest.h>

#include "support.h"

namespace shunt::cli {
namespace {

TEST(ElfFile, OwnExecutableNamesGlibcsLoader) {
  const ElfResult self = read_elf("/proc/self/exe");
  ASSERT_TRUE(self.file);
  ASSERT_TRUE(self.file->loader);
  EXPECT_NE(self.file->loader->find("/ld"), std::string::npos);
}

TEST(ElfFile, LoaderIsReadFromItsSegment) {
  const TemporaryDirectory directory;
  const ElfResult elf = read_elf(directory.write("p", make_elf({.loader = "/lib/ld-musl-x86_64.so.1"})));
  ASSERT_TRUE(elf.file);
  EXPECT_EQ(elf.file->loader, "/lib/ld-musl-x86_64.so.1");
  EXPECT_EQ(elf.file->type, ET_DYN);
  EXPECT_EQ(elf.file->kind, (ElfKind{ELFCLASS64, ELFDATA2LSB, EM_X86_64}));
}

TEST(ElfFile, StaticExecutableHasNoLoader) {
  const ElfResult elf = read_elf(WITNESS_STATIC);
  ASSERT_TRUE(elf.file);
  EXPECT_FALSE(elf.file->loader);
}

TEST(ElfFile, ForeignClassAndByteOrderAreIdentifiedOnly) {
  const TemporaryDirectory directory;
  const ElfResult small = read_elf(directory.write("s", make_elf({.machine = EM_386, .elf_class = ELFCLASS32})));
  ASSERT_TRUE(small.file);
  EXPECT_EQ(describe(small.file->kind), "32-bit i386");
  const ElfResult big = read_elf(directory.write("b", make_elf({.machine = EM_S390, .byte_order = ELFDATA2MSB})));
  ASSERT_TRUE(big.file);
  EXPECT_EQ(describe(big.file->kind), "64-bit s390 big-endian");
}

TEST(ElfFile, OtherFilesAreNotElf) {
  const TemporaryDirectory directory;
  EXPECT_EQ(read_elf(directory.write("t", "#!/bin/sh\n")).error, ElfError::not_elf);
  EXPECT_EQ(read_elf(directory.write("s", "x")).error, ElfError::not_elf);
  EXPECT_EQ(read_elf(directory.write("e", "")).error, ElfError::unreadable);
  EXPECT_EQ(read_elf(directory.path() / "none").error, ElfError::unreadable);
  EXPECT_EQ(read_elf(directory.path()).error, ElfError::unreadable);
}

TEST(ElfFile, EveryTruncationIsDamageAndNothingWorse) {
  const TemporaryDirectory directory;
  const std::string whole = make_elf({.loader = kGlibcLoader});
  for (size_t length = SELFMAG; length < whole.size(); ++length) {
    const ElfResult elf = read_elf(directory.write("p", whole.substr(0, length)));
    EXPECT_FALSE(elf.file) << length;
    EXPECT_EQ(elf.error, ElfError::damaged) << length;
  }
}

TEST(ElfFile, ImpossibleNumbersAreDamage) {
  const TemporaryDirectory directory;
  const auto read_changed = [&](auto change) {
    std::string file = make_elf({.loader = kGlibcLoader});
    Elf64_Ehdr header;
    Elf64_Phdr loader;
    const size_t at = sizeof header + sizeof loader;
    std::memcpy(&header, file.data(), sizeof header);
    std::memcpy(&loader, file.data() + at, sizeof loader);
    change(header, loader);
    std::memcpy(file.data(), &header, sizeof header);
    std::memcpy(file.data() + at, &loader, sizeof loader);
    return read_elf(directory.write("p", file));
  };
  EXPECT_TRUE(read_changed([](auto&, auto&) {}).file);
  EXPECT_FALSE(read_changed([](auto& header, auto&) { header.e_phoff = UINT64_MAX; }).file);
  EXPECT_FALSE(read_changed([](auto& header, auto&) { header.e_phentsize = 1; }).file);
  EXPECT_FALSE(read_changed([](auto&, auto& loader) { loader.p_filesz = UINT64_MAX; }).file);
  EXPECT_FALSE(read_changed([](auto&, auto& loader) { loader.p_filesz = 1; }).file);
  EXPECT_FALSE(read_changed([](auto&, auto& loader) { loader.p_offset = UINT64_MAX; }).file);
  EXPECT_FALSE(read_changed([](auto&, auto& loader) { loader.p_filesz -= 1; }).file);  // no final 0
}

}  // namespace
}  // namespace shunt::cli
