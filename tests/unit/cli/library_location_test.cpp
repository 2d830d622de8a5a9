// Where the library is looked for, what is refused, and how LD_PRELOAD is merged.
// Run by unit_cli.
// Must not need the real library.
#include "cli/library_location.h"

#include <gtest/gtest.h>

#include "cli/error.h"
#include "support.h"

namespace shunt::cli {
namespace {

const ElfKind kOwnKind = read_elf("/proc/self/exe").file->kind;

std::string refusal(const std::string& library) {
  const ScopedVariable variable("SHUNT_LIBRARY", library.c_str());
  try {
    find_library(kOwnKind);
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), 125);
    EXPECT_NE(std::string(error.what()).find("SHUNT_LIBRARY="), std::string::npos);
    return error.what();
  }
  return "accepted";
}

TEST(LibraryLocation, CandidatesAreRelativeToTheCommand) {
  const auto candidates = library_candidates("/opt/x/bin");
  ASSERT_GE(candidates.size(), 3u);
  EXPECT_EQ(candidates.front(), "/opt/x/lib/libshunt.so");
  EXPECT_EQ(candidates[candidates.size() - 2], "/opt/x/lib/shunt/libshunt.so");
  EXPECT_EQ(candidates.back(), "/opt/x/bin/libshunt.so");
}

TEST(LibraryLocation, NamedLibraryBecomesAbsolute) {
  const TemporaryDirectory directory;
  std::filesystem::copy_file(PRELOAD_MARKER, directory.path() / "l.so");
  const auto relative = std::filesystem::relative(directory.path() / "l.so");
  const ScopedVariable variable("SHUNT_LIBRARY", relative.c_str());
  EXPECT_EQ(find_library(kOwnKind), directory.path() / "l.so");
}

TEST(LibraryLocation, UnusableLibrariesAreRefusedWithTheReason) {
  const TemporaryDirectory directory;
  const auto refused = [&](const std::string& name, const std::string& content, const std::string& why) {
    EXPECT_NE(refusal(directory.write(name, content)).find(why), std::string::npos) << name;
  };
  EXPECT_NE(refusal(directory.path() / "none.so").find("there is no such file"), std::string::npos);
  refused("text.so", "INPUT(x)", "it is no ELF file");
  refused("foreign.so", make_elf({.machine = EM_SPARCV9}), "it is for 64-bit machine 43");
  refused("program", make_elf({.machine = kOwnKind.machine, .type = ET_EXEC}), "it is no shared library");
  refused("a b.so", make_elf({.machine = kOwnKind.machine}), "a blank, ':' or '$'");
  refused("a:b.so", make_elf({.machine = kOwnKind.machine}), "a blank, ':' or '$'");
  EXPECT_EQ(refusal(directory.write("good.so", make_elf({.machine = kOwnKind.machine}))), "accepted");
}

TEST(LibraryLocation, PreloadKeepsOthersBehindShunt) {
  EXPECT_EQ(preload_with_shunt("", "/l/libshunt.so"), "/l/libshunt.so");
  EXPECT_EQ(preload_with_shunt("/a.so b.so:/c.so", "/l/libshunt.so"), "/l/libshunt.so:/a.so:b.so:/c.so");
  EXPECT_EQ(preload_with_shunt(": /a.so :", "/l/libshunt.so"), "/l/libshunt.so:/a.so");
}

TEST(LibraryLocation, PreloadNeverHoldsShuntTwice) {
  EXPECT_EQ(preload_with_shunt("/a.so:/l/libshunt.so", "/l/libshunt.so"), "/l/libshunt.so:/a.so");
  EXPECT_EQ(preload_with_shunt("/other/libshunt.so libshunt.so", "/l/libshunt.so"), "/l/libshunt.so");
  EXPECT_EQ(preload_with_shunt("/l/libshunt.so.keep", "/l/libshunt.so"), "/l/libshunt.so:/l/libshunt.so.keep");
  EXPECT_EQ(preload_without_shunt("/l/libshunt.so:/a.so", "/l/libshunt.so"), "/a.so");
  EXPECT_EQ(preload_without_shunt("/l/libshunt.so", "/l/libshunt.so"), "");
}

TEST(LibraryLocation, AnotherNameOfTheSameFileIsTheSameLibrary) {
  const TemporaryDirectory directory;
  const auto library = directory.write("renamed.so", "x");
  std::filesystem::create_symlink(library, directory.path() / "link.so");
  EXPECT_EQ(preload_with_shunt((directory.path() / "link.so").string(), library), library);
}

}  // namespace
}  // namespace shunt::cli
