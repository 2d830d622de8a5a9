// Where the options of `shunt run` end, and what they amount to.
// Run by unit_cli.
// Must not start anything.
#include "cli/run_arguments.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "cli/error.h"

namespace shunt::cli {
namespace {

using Words = std::vector<std::string>;

struct Parsed {
  Words command;
  Words settings;
  bool dry_run;
};

Parsed parse(const Words& words) {
  CLI::App app;
  CLI::App* run = app.add_subcommand("run");
  RunArguments arguments(*run);
  Words own = arguments.take_command(words);
  own.insert(own.begin(), "run");
  std::reverse(own.begin(), own.end());
  app.parse(own);
  Parsed parsed{arguments.command(), {}, arguments.dry_run()};
  for (const Setting& setting : arguments.settings()) parsed.settings.push_back(setting.variable + "=" + setting.value);
  return parsed;
}

TEST(RunArguments, OptionsEndAtTheProgram) {
  const Parsed parsed = parse({"--dry-run", "ls", "--only", "x", "--", "-h"});
  EXPECT_EQ(parsed.command, (Words{"ls", "--only", "x", "--", "-h"}));
  EXPECT_EQ(parsed.settings, Words{});
  EXPECT_TRUE(parsed.dry_run);
}

TEST(RunArguments, OptionsEndAtTwoDashes) {
  EXPECT_EQ(parse({"--", "--dry-run", "--"}).command, (Words{"--dry-run", "--"}));
  EXPECT_FALSE(parse({"--", "--dry-run"}).dry_run);
  EXPECT_EQ(parse({"--only", "x", "--", "-p"}).command, Words{"-p"});
}

TEST(RunArguments, ShortcutsAndSetAreTheSame) {
  const Words expected{"SHUNT_ONLY=a", "SHUNT_SKIP=b", "SHUNT_LOG=info:/l", "SHUNT_REPORT=/r"};
  EXPECT_EQ(parse({"--only", "a", "--skip", "b", "--log", "info:/l", "--report", "/r", "p"}).settings, expected);
  EXPECT_EQ(parse({"--set", "only=a", "--set", "skip=b", "--set", "log=info:/l", "--set=report=/r", "p"}).settings,
            expected);
}

TEST(RunArguments, SettingsKeepTheirOrderAcrossNames) {
  EXPECT_EQ(parse({"--set", "only=a", "--only", "b", "--set", "only=c", "--only=d", "p"}).settings,
            (Words{"SHUNT_ONLY=a", "SHUNT_ONLY=b", "SHUNT_ONLY=c", "SHUNT_ONLY=d"}));
}

TEST(RunArguments, ValuesAreTakenAsTheyAre) {
  EXPECT_EQ(parse({"--only=[a,b]", "--skip", "run", "p"}).settings, (Words{"SHUNT_ONLY=[a,b]", "SHUNT_SKIP=run"}));
  EXPECT_EQ(parse({"--only", "-x", "p"}).settings, Words{"SHUNT_ONLY=-x"});
}

TEST(RunArguments, EmptyValueDoesNotSwallowTheNextWord) {
  const Parsed parsed = parse({"--only=", "--dry-run", "p"});
  EXPECT_EQ(parsed.settings, Words{"SHUNT_ONLY="});
  EXPECT_TRUE(parsed.dry_run);
  EXPECT_EQ(parse({"--only", "", "p"}).settings, Words{"SHUNT_ONLY="});
}

TEST(RunArguments, MissingValueAndUnknownOptionAreErrors) {
  EXPECT_THROW(parse({"--only", "--", "p"}), CLI::ParseError);
  EXPECT_THROW(parse({"--only"}), CLI::ParseError);
  EXPECT_THROW(parse({"--olny", "x", "p"}), CLI::ParseError);
  EXPECT_THROW(parse({"-x", "p"}), CLI::ParseError);
}

}  // namespace
}  // namespace shunt::cli
