// "#!" lines, as the kernel and env(1) read them.
// Run by unit_cli.
// Must not execute the scripts.
#include "cli/script_line.h"

#include <gtest/gtest.h>

#include "support.h"

namespace shunt::cli {
namespace {

std::string interpreter(std::string_view start) {
  const auto line = parse_script_line(start);
  return line ? line->interpreter + "|" + line->argument : "none";
}

TEST(ScriptLine, InterpreterAndOneArgument) {
  EXPECT_EQ(interpreter("#!/bin/sh\nrest"), "/bin/sh|");
  EXPECT_EQ(interpreter("#! \t/bin/sh  -e -u \t\nrest"), "/bin/sh|-e -u");
  EXPECT_EQ(interpreter("#!/bin/sh"), "/bin/sh|");
  EXPECT_EQ(interpreter("#!/bin/sh\r\n"), "/bin/sh\r|");
}

TEST(ScriptLine, NoInterpreterIsNoScript) {
  for (const char* start : {"", "#", "#!", "#!\n/bin/sh", "#!   \n", "echo", " #!/bin/sh"})
    EXPECT_EQ(interpreter(start), "none") << start;
}

TEST(ScriptLine, NameThatTheKernelCutsOffIsRefused) {
  EXPECT_EQ(interpreter("#!/" + std::string(300, 'a') + "\n"), "none");
  EXPECT_EQ(interpreter("#!/a " + std::string(300, 'b') + "\n"), "/a|" + std::string(251, 'b'));
}

std::optional<std::string> env_finds(const std::string& argument) {
  return ScriptLine{"/usr/bin/env", argument}.env_program();
}

TEST(ScriptLine, EnvLooksForItsArgument) {
  EXPECT_EQ(env_finds("python3"), "python3");
  EXPECT_EQ(env_finds("python3 -u"), "python3 -u");  // one argument: env finds no such program
  EXPECT_EQ(env_finds("-S python3 -u"), "python3");
  EXPECT_EQ(env_finds("-S A=1 B=2 python3 -u"), "python3");
  EXPECT_EQ(env_finds("--split-string=python3 -u"), "python3");
}

TEST(ScriptLine, EnvIsNotGuessedAt) {
  for (const char* argument : {"", "-i python3", "-S -i python3", "-S 'a b'", "-S ${X}", "A=1", "-S A=1"})
    EXPECT_EQ(env_finds(argument), std::nullopt) << argument;
  EXPECT_EQ((ScriptLine{"/bin/sh", "x"}.env_program()), std::nullopt);
}

TEST(ScriptLine, FileWithoutALineGoesToTheShell) {
  const TemporaryDirectory directory;
  EXPECT_EQ(read_script_line(directory.write("a", "echo hello\n"))->interpreter, "/bin/sh");
  EXPECT_EQ(read_script_line(directory.write("b", ""))->interpreter, "/bin/sh");
  EXPECT_EQ(read_script_line(directory.write("c", "#!/bin/cat\n"))->interpreter, "/bin/cat");
  EXPECT_FALSE(read_script_line(directory.write("d", make_elf({}))));
  EXPECT_FALSE(read_script_line(directory.path() / "none"));
}

}  // namespace
}  // namespace shunt::cli
