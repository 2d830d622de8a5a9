// The search along PATH, as execvp does it.
// Run by unit_cli.
// Must not depend on what is installed.
#include "cli/program_search.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "support.h"

namespace shunt::cli {
namespace {

class ProgramSearchTest : public testing::Test {
 protected:
  void set_path(const std::string& value) { path_.emplace("PATH", value.c_str()); }
  std::string in(const char* name) const { return (directory_.path() / name).string(); }

  TemporaryDirectory directory_;
  std::optional<ScopedVariable> path_;
};

TEST_F(ProgramSearchTest, FirstExecutableWins) {
  directory_.write("a/p", "", 0644);
  directory_.write("b/p", "", 0755);
  directory_.write("c/p", "", 0755);
  set_path(in("none") + ":" + in("a") + ":" + in("b") + ":" + in("c"));
  EXPECT_EQ(find_program("p").file, in("b/p"));
}

TEST_F(ProgramSearchTest, FileThatMayNotRunIsRemembered) {
  directory_.write("a/p", "", 0644);
  std::filesystem::create_directories(in("b/q"));
  set_path(in("a") + ":" + in("b"));
  EXPECT_EQ(find_program("p").error, EACCES);
  EXPECT_EQ(find_program("q").error, EACCES);
  EXPECT_EQ(find_program("r").error, ENOENT);
  EXPECT_FALSE(find_program("p").file);
}

TEST_F(ProgramSearchTest, EmptyEntryIsTheCurrentDirectory) {
  directory_.write("p", "");
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory_.path());
  for (const char* value : {"", ":", "/none:", ":/none", "/none::/none"}) {
    path_.reset();
    set_path(value);
    EXPECT_EQ(find_program("p").file, "./p") << value;
  }
  std::filesystem::current_path(before);
}

TEST_F(ProgramSearchTest, NameWithASlashIsAPath) {
  directory_.write("a/p", "");
  directory_.write("a/text", "", 0644);
  set_path(in("a"));
  EXPECT_EQ(find_program(in("a/p")).file, in("a/p"));
  EXPECT_EQ(find_program("./a/none").error, ENOENT);
  EXPECT_EQ(find_program(in("a/text")).error, EACCES);
  EXPECT_EQ(find_program(in("a")).error, EISDIR);
  EXPECT_EQ(find_program(in("a/p/q")).error, ENOTDIR);
  EXPECT_EQ(find_program("").error, ENOENT);
}

TEST_F(ProgramSearchTest, WithoutPathTheSystemsOwnIsSearched) {
  path_.emplace("PATH", nullptr);
  EXPECT_TRUE(find_program("sh").file);
}

}  // namespace
}  // namespace shunt::cli
