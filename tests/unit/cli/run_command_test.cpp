// The built command with real programs: what they get, what comes back, what is said.
// Run by unit_cli.
// Must not need the real library: a marker takes its place.
#include "cli/run_command.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "process.h"
#include "support.h"

namespace shunt::cli {
namespace {

using Words = std::vector<std::string>;

Outcome shunt(Words arguments, Words environment = {}, const std::filesystem::path& directory = "/") {
  arguments.insert(arguments.begin(), SHUNT_COMMAND);
  environment.push_back("SHUNT_LIBRARY=" PRELOAD_MARKER);
  return run_process({.command = std::move(arguments), .environment = std::move(environment), .directory = directory});
}

// `line` as a whole line of `text`.
bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(Command, LibraryIsLoadedIntoTheProgramAndNothingIsSaid) {
  const Outcome outcome = shunt({"run", "--", WITNESS, "-a", "--only"});
  EXPECT_TRUE(has_line(outcome.output, "PRELOAD_MARKER=loaded")) << outcome.output;
  EXPECT_TRUE(has_line(outcome.output, "LD_PRELOAD=" PRELOAD_MARKER)) << outcome.output;
  EXPECT_TRUE(has_line(outcome.output, "argument=" WITNESS "\nargument=-a\nargument=--only")) << outcome.output;
  EXPECT_EQ(outcome.errors, "");
  EXPECT_EQ(outcome.exit_status, 0);
}

TEST(Command, OptionsReachTheProgramAsVariables) {
  const TemporaryDirectory directory;
  const Outcome outcome =
      shunt({"run", "--set", "upgrade=eager", "--only", "w*", "--log", "info:l", "--report", "r", WITNESS}, {},
            directory.path());
  for (const std::string& line :
       {std::string("SHUNT_UPGRADE=eager"), std::string("SHUNT_ONLY=w*"),
        "SHUNT_LOG=info:" + (directory.path() / "l").string(), "SHUNT_REPORT=" + (directory.path() / "r").string()})
    EXPECT_TRUE(has_line(outcome.output, line)) << line << " in\n" << outcome.output;
}

TEST(Command, LastSettingWinsOverEarlierOnesAndTheEnvironment) {
  const Outcome outcome = shunt({"run", "--only", "a", "--set", "only=b", WITNESS}, {"SHUNT_ONLY=z", "SHUNT_SKIP=y"});
  EXPECT_TRUE(has_line(outcome.output, "SHUNT_ONLY=b")) << outcome.output;
  EXPECT_FALSE(has_line(outcome.output, "SHUNT_ONLY=z")) << outcome.output;
  EXPECT_TRUE(has_line(outcome.output, "SHUNT_SKIP=y")) << outcome.output;
}

TEST(Command, EarlierPreloadStaysBehind) {
  const TemporaryDirectory directory;
  const auto other = directory.path() / "other.so";
  std::filesystem::copy_file(PRELOAD_MARKER, other);
  const Outcome outcome = shunt({"run", WITNESS}, {"LD_PRELOAD=" + other.string() + " " PRELOAD_MARKER});
  EXPECT_TRUE(has_line(outcome.output, "LD_PRELOAD=" PRELOAD_MARKER ":" + other.string())) << outcome.output;
}

TEST(Command, ExitStatusAndSignalsAreTheProgramsOwn) {
  EXPECT_EQ(shunt({"run", WITNESS}, {"WITNESS_STATUS=43"}).exit_status, 43);
  EXPECT_EQ(shunt({"run", "sh", "-c", "kill -USR1 $$"}).signal, SIGUSR1);
}

TEST(Command, ProgramIsFoundInPathAndKeepsItsName) {
  const Outcome outcome = shunt({"run", "sh", "-c", "echo $0"});
  EXPECT_EQ(outcome.output, "sh\n");
}

TEST(Command, ScriptWithoutALineRunsInTheShell) {
  const TemporaryDirectory directory;
  const Outcome outcome = shunt({"run", directory.write("s", "echo $# $1\n"), "a b"});
  EXPECT_EQ(outcome.output, "1 a b\n");
  EXPECT_EQ(outcome.exit_status, 0);
}

TEST(Command, StaticProgramRunsAfterOneLine) {
  const Outcome outcome = shunt({"run", WITNESS_STATIC}, {"WITNESS_STATUS=3"});
  EXPECT_EQ(outcome.exit_status, 3);
  EXPECT_EQ(outcome.errors, "shunt: " WITNESS_STATIC
                            " runs without Shunt: it is statically linked; programs that it starts can use Shunt\n");
  EXPECT_TRUE(has_line(outcome.output, "LD_PRELOAD=" PRELOAD_MARKER)) << "its children get the library";
}

TEST(Command, ProgramOfAnotherLibcGetsNoPreload) {
  const TemporaryDirectory directory;
  // A static program passes for a loader, so this runs everywhere and shows its environment.
  const auto loader = directory.path() / "ld-musl-test.so.1";
  std::filesystem::copy_file(WITNESS_STATIC, loader);
  const auto script = directory.write("s", "#!" + (directory.path() / "p").string() + "\n");
  const ElfKind own = read_elf("/proc/self/exe").file->kind;
  directory.write("p", make_elf({.loader = loader.string(), .machine = own.machine}));
  const Outcome outcome = shunt({"run", "--dry-run", script}, {"LD_PRELOAD=" PRELOAD_MARKER});
  EXPECT_TRUE(has_line(outcome.output, "unset:   LD_PRELOAD")) << outcome.output;
  EXPECT_NE(outcome.output.find("verdict: runs without Shunt: its interpreter "), std::string::npos) << outcome.output;
  const Outcome clean = shunt({"run", "--dry-run", script});
  EXPECT_EQ(clean.output.find("LD_PRELOAD"), std::string::npos) << clean.output;
}

TEST(Command, ProgramThatIsNotThereIs127) {
  for (const char* name : {"no-such-program", "./no-such-program", ""}) {
    const Outcome outcome = shunt({"run", "--", name});
    EXPECT_EQ(outcome.exit_status, 127) << name;
    EXPECT_NE(outcome.errors.find("was not found"), std::string::npos) << outcome.errors;
  }
  const TemporaryDirectory directory;
  const Outcome outcome = shunt({"run", directory.write("s", "#!/none/sh\n")});
  EXPECT_EQ(outcome.exit_status, 127);
  EXPECT_NE(outcome.errors.find("its interpreter /none/sh does not exist"), std::string::npos) << outcome.errors;
}

TEST(Command, ProgramThatMayNotRunIs126) {
  const TemporaryDirectory directory;
  EXPECT_EQ(shunt({"run", directory.write("text", "echo", 0644)}).exit_status, 126);
  EXPECT_EQ(shunt({"run", directory.path()}).exit_status, 126);
}

TEST(Command, BinaryThatTheKernelRefusesIsNotGivenToTheShell) {
  const TemporaryDirectory directory;
  const Outcome outcome = shunt({"run", directory.write("p", make_elf({.machine = EM_SPARCV9}))});
  EXPECT_EQ(outcome.exit_status, 126);
  EXPECT_NE(outcome.errors.find("Exec format error"), std::string::npos) << outcome.errors;
}

TEST(Command, UsageErrorsAre2AndStartNothing) {
  for (const Words& arguments :
       {Words{"run"}, Words{"run", "--"}, Words{"run", "--set", "x=1", WITNESS}, Words{"run", "--log", "loud", WITNESS},
        Words{"run", "--set", "spin_us=1001", WITNESS}, Words{"run", "--unknown", WITNESS}, Words{"walk"}}) {
    const Outcome outcome = shunt(arguments);
    EXPECT_EQ(outcome.exit_status, 2);
    EXPECT_EQ(outcome.output, "");
    EXPECT_EQ(outcome.errors.rfind("shunt: ", 0), 0u) << outcome.errors;
  }
}

TEST(Command, DryRunPrintsThePlanAndStartsNothing) {
  const Outcome outcome = shunt({"run", "--dry-run", "--only", "it's", "--", "sh", "-c", "touch /none/x; exit 9"});
  EXPECT_EQ(outcome.exit_status, 0);
  EXPECT_EQ(outcome.errors, "");
  EXPECT_TRUE(has_line(outcome.output, "verdict: runs with Shunt")) << outcome.output;
  EXPECT_TRUE(has_line(outcome.output, "set:     LD_PRELOAD=" PRELOAD_MARKER)) << outcome.output;
  EXPECT_TRUE(has_line(outcome.output, "set:     SHUNT_ONLY='it'\\''s'")) << outcome.output;
  EXPECT_TRUE(has_line(outcome.output, "command: sh -c 'touch /none/x; exit 9'")) << outcome.output;
}

TEST(Command, DryRunShowsOnlyTheSettingThatWins) {
  const Outcome outcome = shunt({"run", "--dry-run", "--only", "a", "--set", "only=b", WITNESS});
  EXPECT_EQ(outcome.output.find("SHUNT_ONLY=a"), std::string::npos) << outcome.output;
  EXPECT_TRUE(has_line(outcome.output, "set:     SHUNT_ONLY=b")) << outcome.output;
}

TEST(Command, MissingLibraryIsExplained) {
  const Outcome outcome =
      run_process({.command = {SHUNT_COMMAND, "run", WITNESS}, .environment = {"SHUNT_LIBRARY=/none/l.so"}});
  EXPECT_EQ(outcome.exit_status, 125);
  EXPECT_EQ(outcome.output, "");
  EXPECT_NE(outcome.errors.find("/none/l.so cannot be preloaded: there is no such file"), std::string::npos);
}

TEST(Command, LibraryIsFoundBesideTheCommand) {
  const TemporaryDirectory directory;
  const auto command = directory.path() / "bin/shunt";
  std::filesystem::create_directories(directory.path() / "bin");
  std::filesystem::copy_file(SHUNT_COMMAND, command);
  const Outcome without = run_process({.command = {command, "run", WITNESS}});
  EXPECT_EQ(without.exit_status, 125);
  EXPECT_NE(without.errors.find((directory.path() / "lib/libshunt.so").string()), std::string::npos) << without.errors;
  // From the last place looked at to the first, each one hides those before.
  for (const char* place : {"bin/libshunt.so", "lib/shunt/libshunt.so", "lib/libshunt.so"}) {
    const auto library = directory.path() / place;
    std::filesystem::create_directories(library.parent_path());
    std::filesystem::copy_file(PRELOAD_MARKER, library);
    const Outcome outcome = run_process({.command = {command, "run", WITNESS}});
    EXPECT_TRUE(has_line(outcome.output, "LD_PRELOAD=" + library.string())) << outcome.output << outcome.errors;
  }
}

TEST(Command, HelpAndVersion) {
  const Outcome plain = shunt({});
  EXPECT_EQ(plain.exit_status, 0);
  EXPECT_NE(plain.output.find("run a program with Shunt"), std::string::npos);
  EXPECT_EQ(shunt({"--help"}).output, plain.output);
  EXPECT_EQ(shunt({"--version"}).output.rfind("shunt ", 0), 0u);
  const Outcome help = shunt({"run", "--help"});
  EXPECT_EQ(help.exit_status, 0);
  EXPECT_NE(help.output.find(option_table()), std::string::npos) << help.output;
}

}  // namespace
}  // namespace shunt::cli
