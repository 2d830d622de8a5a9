// The option table: each key, each shown value, and what is none.
// Run by unit_cli.
// Must not repeat the table: what it holds is taken from it.
#include "cli/options.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "cli/error.h"

namespace shunt::cli {
namespace {

std::string error_of(const std::string& assignment) {
  try {
    parse_setting(assignment);
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), 2);
    return error.what();
  }
  ADD_FAILURE() << assignment << " was accepted";
  return {};
}

TEST(Options, EveryGrammarInTheTableIsUnderstood) {
  ASSERT_FALSE(options().empty());
  for (const Option& option : options())
    EXPECT_NE(match_value(option.values, "no such value"), Match::grammar_unknown) << option.key;
}

TEST(Options, AGrammarThatNobodyImplementedIsNoticed) {
  EXPECT_EQ(match_value("auto | COLOUR", "auto"), Match::grammar_unknown);
  EXPECT_EQ(match_value("low .. high", "1"), Match::grammar_unknown);
}

TEST(Options, EveryDefaultIsAccepted) {
  for (const Option& option : options()) {
    const Setting setting = parse_setting(std::string(option.key) + "=" + std::string(option.fallback));
    EXPECT_EQ(setting.variable, option.variable);
    EXPECT_EQ(setting.value, option.fallback);
  }
}

TEST(Options, WordsMatchWhole) {
  EXPECT_EQ(match_value("auto | eager", "eager"), Match::yes);
  EXPECT_EQ(match_value("auto | eager", "eag"), Match::no);
  EXPECT_EQ(match_value("auto | eager", "eagerly"), Match::no);
  EXPECT_EQ(match_value("auto | eager", ""), Match::no);
}

TEST(Options, SeedIsANumberBehindItsWord) {
  EXPECT_EQ(match_value("never | chaos:SEED", "chaos:18446744073709551615"), Match::yes);
  for (const char* value : {"chaos", "chaos:", "chaos:x", "chaos:1x", "chaos:-1", "chaos:18446744073709551616", "7"})
    EXPECT_EQ(match_value("never | chaos:SEED", value), Match::no) << value;
}

TEST(Options, RangeIncludesItsEnds) {
  for (const char* value : {"auto", "0", "1000"})
    EXPECT_EQ(match_value("auto | 0 .. 1000", value), Match::yes) << value;
  for (const char* value : {"1001", "-1", "1.5", " 1", "", "99999999999999999999"})
    EXPECT_EQ(match_value("auto | 0 .. 1000", value), Match::no) << value;
}

TEST(Options, OptionalFileMayFollowAWord) {
  constexpr const char* kValues = "off | info, then optionally :FILE";
  for (const char* value : {"off", "info", "info:x", "info:/a:b"})
    EXPECT_EQ(match_value(kValues, value), Match::yes) << value;
  for (const char* value : {"info:", "loud", "loud:x", ":x", ""})
    EXPECT_EQ(match_value(kValues, value), Match::no) << value;
}

TEST(Options, FilesBecomeAbsolute) {
  const std::filesystem::path here = std::filesystem::current_path();
  EXPECT_EQ(parse_setting("report=a/../r.json").value, (here / "r.json").string());
  EXPECT_EQ(parse_setting("report=/r.json").value, "/r.json");
  EXPECT_EQ(parse_setting("log=info:l.txt").value, "info:" + (here / "l.txt").string());
  EXPECT_EQ(parse_setting("log=info").value, "info");
}

TEST(Options, ValueMayHoldEqualsSignsAndPatterns) { EXPECT_EQ(parse_setting("only=a=[b,c]*").value, "a=[b,c]*"); }

TEST(Options, UnknownKeyListsAllKeys) {
  const std::string message = error_of("upgrde=auto");
  EXPECT_NE(message.find("'upgrde'"), message.npos);
  for (const Option& option : options()) EXPECT_NE(message.find(option.key), message.npos) << option.key;
}

TEST(Options, BadValueListsTheValues) {
  for (const Option& option : options()) {
    if (match_value(option.values, "no such value") == Match::yes) continue;
    const std::string message = error_of(std::string(option.key) + "=no such value");
    EXPECT_NE(message.find(option.values), message.npos) << message;
  }
}

TEST(Options, MissingEqualsSignIsAnError) { EXPECT_NE(error_of("upgrade").find("KEY=VALUE"), std::string::npos); }

TEST(Options, TableForHelpShowsEveryField) {
  const std::string table = option_table();
  for (const Option& option : options())
    for (const auto field : {option.key, option.variable, option.values, option.help})
      EXPECT_NE(table.find(field), table.npos) << field;
}

}  // namespace
}  // namespace shunt::cli
