// The SHUNT_* environment: every value that is documented, and what is kept when one cannot be read.
#include "config/options.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace shunt::testing {
namespace {

Options read(std::vector<std::string> variables, const char* program = "/usr/bin/server") {
  std::vector<char*> environment;
  for (std::string& variable : variables) environment.push_back(variable.data());
  environment.push_back(nullptr);
  return read_options(environment.data(), program);
}

TEST(Options, NothingSaidMeansTheDefaults) {
  const Options options = read({"HOME=/root", "SHUNT_UPGRADE_NOT=never", "XSHUNT_UPGRADE=never", "SHUNT_UPGRADE"});
  EXPECT_EQ(options.upgrade, Upgrade::automatic);
  EXPECT_EQ(options.log_level, LogLevel::off);
  EXPECT_STREQ(options.log_file, "");
  EXPECT_STREQ(options.report_file, "");
  EXPECT_EQ(options.spin_us, -1);
  EXPECT_FALSE(options.excluded);
  const Options none = read_options(nullptr, "x");
  EXPECT_EQ(none.upgrade, Upgrade::automatic);
}

TEST(Options, UpgradeKnowsItsWords) {
  EXPECT_EQ(read({"SHUNT_UPGRADE=auto"}).upgrade, Upgrade::automatic);
  EXPECT_EQ(read({"SHUNT_UPGRADE=eager"}).upgrade, Upgrade::eager);
  EXPECT_EQ(read({"SHUNT_UPGRADE=never"}).upgrade, Upgrade::never);
  const Options chaos = read({"SHUNT_UPGRADE=chaos:18446744073709551615"});
  EXPECT_EQ(chaos.upgrade, Upgrade::chaos);
  EXPECT_EQ(chaos.chaos_seed, ~uint64_t{0});
}

TEST(Options, UnreadableUpgradesKeepTheDefault) {
  for (const char* text : {"", "Eager", "eager ", " never", "nevermore", "chaos", "1"}) {
    SCOPED_TRACE(text);
    EXPECT_EQ(read({std::string("SHUNT_UPGRADE=") + text}).upgrade, Upgrade::automatic);
  }
}

TEST(Options, ChaosNeedsANumber) {
  for (const char* text : {"chaos:", "chaos:x", "chaos:-1", "chaos:12x", "chaos: 1"}) {
    SCOPED_TRACE(text);
    EXPECT_EQ(read({std::string("SHUNT_UPGRADE=") + text}).upgrade, Upgrade::automatic);
  }
}

TEST(Options, TheFirstOfTwoEqualNamesCounts) {
  EXPECT_EQ(read({"SHUNT_UPGRADE=never", "SHUNT_UPGRADE=eager"}).upgrade, Upgrade::never);  // as getenv
}

TEST(Options, LogKnowsItsLevelsAndItsFile) {
  const struct {
    const char* text;
    LogLevel level;
    const char* file;
  } cases[] = {{"off", LogLevel::off, ""},    {"error", LogLevel::error, ""},
               {"info", LogLevel::info, ""},  {"debug", LogLevel::debug, ""},
               {"info:", LogLevel::info, ""}, {"debug:/tmp/a:b", LogLevel::debug, "/tmp/a:b"},
               {"", LogLevel::off, ""},       {"information", LogLevel::off, ""},
               {"debug,", LogLevel::off, ""}, {":file", LogLevel::off, ""},
               {"INFO", LogLevel::off, ""}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    const Options options = read({std::string("SHUNT_LOG=") + c.text});
    EXPECT_EQ(options.log_level, c.level);
    EXPECT_STREQ(options.log_file, c.file);
  }
}

TEST(Options, PathsThatDoNotFitAreLeftOutWhole) {
  const std::string fits(sizeof Options{}.report_file - 1, 'r'), too_long = fits + 'r';
  EXPECT_EQ(read({"SHUNT_REPORT=" + fits}).report_file, fits);
  EXPECT_STREQ(read({"SHUNT_REPORT=" + too_long}).report_file, "");
  const std::string log_fits(sizeof Options{}.log_file - 1, 'l');
  EXPECT_EQ(read({"SHUNT_LOG=info:" + log_fits}).log_file, log_fits);
  EXPECT_STREQ(read({"SHUNT_LOG=info:" + log_fits + "l"}).log_file, "");
}

TEST(Options, SpinIsANumberOfMicrosecondsUpToAThousand) {
  const struct {
    const char* text;
    int spin_us;
  } cases[] = {{"0", 0},     {"1", 1}, {"30", 30}, {"1000", 1000}, {"1001", 1000},
               {"auto", -1}, {"", -1}, {"-5", -1}, {" 5", -1},     {"x", -1}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    EXPECT_EQ(read({std::string("SHUNT_SPIN_US=") + c.text}).spin_us, c.spin_us);
  }
}

TEST(Options, SpinsTooLargeForAnIntegerAreTheLongest) {
  for (const char* text : {"2147483647", "2147483648", "4294967296", "99999999999999999999"}) {
    SCOPED_TRACE(text);
    EXPECT_EQ(read({std::string("SHUNT_SPIN_US=") + text}).spin_us, 1000);
  }
}

TEST(Options, OnlyAndSkipMatchTheFileName) {
  const auto excluded = [](std::vector<std::string> variables, const char* program) {
    return read(std::move(variables), program).excluded;
  };
  EXPECT_FALSE(excluded({"SHUNT_ONLY=post*"}, "/usr/lib/postgres"));
  EXPECT_TRUE(excluded({"SHUNT_ONLY=post*"}, "/usr/lib/post/redis"));
  EXPECT_TRUE(excluded({"SHUNT_SKIP=post*"}, "postgres"));
  EXPECT_FALSE(excluded({"SHUNT_SKIP=post*"}, "./redis"));
  EXPECT_TRUE(excluded({"SHUNT_ONLY=*", "SHUNT_SKIP=postgres"}, "postgres"));
  EXPECT_FALSE(excluded({"SHUNT_ONLY=", "SHUNT_SKIP="}, "postgres"));
  EXPECT_TRUE(excluded({"SHUNT_ONLY=p[ab]th?n"}, "/bin/python"));
  EXPECT_FALSE(excluded({"SHUNT_ONLY=p[xy]th?n"}, "/bin/python"));
  EXPECT_FALSE(excluded({"SHUNT_SKIP=x"}, "")) << "no name at all";
}

}  // namespace
}  // namespace shunt::testing
