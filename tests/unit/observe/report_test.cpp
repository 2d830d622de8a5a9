// The report and the log: each line whole, each line readable, whatever the program is called and however many
// processes write.
#include "observe/report.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "observe/counters.h"

namespace shunt::testing {
namespace {

using Json = nlohmann::json;

class Report : public ::testing::Test {
 protected:
  Report() {
    char path[] = "/tmp/shunt-report-XXXXXX";
    const int fd = mkstemp(path);
    EXPECT_GE(fd, 0);
    close(fd);
    path_ = path;
    strcpy(options_.report_file, path);
    reset_totals();
  }
  ~Report() override {
    unlink(path_.c_str());
    reset_totals();
  }
  std::vector<std::string> lines() const {
    std::ifstream file(path_);
    std::vector<std::string> found;
    for (std::string line; std::getline(file, line);) found.push_back(line);
    return found;
  }
  Json only_line() const {
    const auto found = lines();
    EXPECT_EQ(found.size(), 1u);
    if (found.empty()) return {};
    Json parsed = Json::parse(found[0], nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << found[0].size() << " bytes, ending with "
                                        << found[0].substr(found[0].size() - 40);
    return parsed.is_discarded() ? Json::object() : parsed;
  }

  std::string path_;
  Options options_;
};

TEST_F(Report, SaysWhatTheProcessDid) {
  totals.upgraded = 3;
  totals.demoted = 2;
  totals.plain[static_cast<uint32_t>(Reason::peer_unaware)] = 7;
  totals.plain[static_cast<uint32_t>(Reason::stdio)] = 1;
  totals.demoted_by[static_cast<uint32_t>(Reason::chaos)] = 2;
  totals.ring_bytes_out = 10, totals.ring_bytes_in = 11, totals.ring_ops_out = 12, totals.ring_ops_in = 13;
  totals.kernel_bytes_out = 20, totals.kernel_bytes_in = 21, totals.kernel_ops_out = 22, totals.kernel_ops_in = 23;
  totals.bells = 30, totals.spin_hits = 31, totals.spin_misses = 32, totals.sleeps = 33;
  write_report(options_, "/usr/bin/program", "exit");
  const Json line = only_line();
  const Json expected = {{"program", "/usr/bin/program"},
                         {"pid", getpid()},
                         {"why", "exit"},
                         {"connections",
                          {{"upgraded", 3},
                           {"demoted", 2},
                           {"plain", {{"peer-unaware", 7}, {"stdio", 1}}},
                           {"demoted_by", {{"chaos", 2}}}}},
                         {"ring", {{"bytes_out", 10}, {"bytes_in", 11}, {"ops_out", 12}, {"ops_in", 13}}},
                         {"kernel", {{"bytes_out", 20}, {"bytes_in", 21}, {"ops_out", 22}, {"ops_in", 23}}},
                         {"bells", 30},
                         {"spins", {{"hit", 31}, {"missed", 32}}},
                         {"sleeps", 33}};
  EXPECT_EQ(line, expected);
}

TEST_F(Report, IsValidWithNothingAndWithEverythingCounted) {
  write_report(options_, "p", "exit");
  auto* counters = reinterpret_cast<std::atomic<uint64_t>*>(&totals);
  for (size_t i = 0; i < sizeof totals / sizeof *counters; ++i) counters[i] = ~uint64_t{0};
  write_report(options_, ("/" + std::string(254, 'p')).c_str(), "_exit");
  const auto found = lines();
  ASSERT_EQ(found.size(), 2u);
  for (const std::string& line : found) {
    const Json parsed = Json::parse(line, nullptr, false);
    ASSERT_FALSE(parsed.is_discarded()) << line;
    EXPECT_TRUE(parsed["connections"]["plain"].is_object());
  }
  const Json full = Json::parse(found[1], nullptr, false);
  EXPECT_EQ(full["connections"]["plain"].size(), kReasons);
  EXPECT_EQ(full["sleeps"], ~uint64_t{0});
}

TEST_F(Report, QuotesWhatJsonWouldMisread) {
  const std::string odd = "/a \"b\"\\c\n\t\x01\x1f\x7f";
  write_report(options_, odd.c_str(), "exit");
  EXPECT_EQ(only_line().value("program", ""), odd);
}

TEST_F(Report, KeepsNamesInUtf8) {
  write_report(options_, "/usr/bin/größe", "exit");
  EXPECT_EQ(only_line().value("program", ""), "/usr/bin/größe");
}

TEST_F(Report, IsValidForNamesThatAreNotUtf8) {
  write_report(options_, "/bin/\xff\xfe\x80name", "exit");
  EXPECT_TRUE(only_line().contains("program"));
}

TEST_F(Report, IsOneWholeLineForNamesOfAnyLength) {
  for (const size_t length :
       {size_t{255}, size_t{1000}, size_t{3500}, size_t{3900}, size_t{4000}, size_t{4095}, size_t{20000}}) {
    SCOPED_TRACE(length);
    unlink(path_.c_str());
    write_report(options_, std::string(length, 'n').c_str(), "exit");
    const Json line = only_line();
    EXPECT_EQ(line.value("why", ""), "exit");
    EXPECT_TRUE(line.contains("sleeps"));
  }
  unlink(path_.c_str());
  write_report(options_, std::string(1500, '\x01').c_str(), "exit");
  EXPECT_TRUE(only_line().contains("sleeps"));
}

TEST_F(Report, LeavesNoDescriptorAndErrnoAsItWas) {
  const int before = dup(0);
  close(before);
  errno = 4711;
  write_report(options_, "p", "exit");
  strcpy(options_.report_file, "/nonexistent/directory/report");
  write_report(options_, "p", "exit");
  EXPECT_EQ(errno, 4711);
  const int after = dup(0);
  close(after);
  EXPECT_EQ(after, before);
}

TEST_F(Report, NobodyAskedNothingWritten) {
  options_.report_file[0] = '\0';
  write_report(options_, "p", "exit");
  EXPECT_TRUE(lines().empty());
}

TEST_F(Report, ManyProcessesTearNoLine) {
  constexpr int kProcesses = 8, kLines = 200;
  for (int i = 0; i < kProcesses; ++i)
    if (fork() == 0) {
      const std::string name(static_cast<size_t>(100 + i * 150), static_cast<char>('a' + i));
      for (int n = 0; n < kLines; ++n) {
        totals.sleeps = static_cast<uint64_t>(n);
        write_report(options_, name.c_str(), "exit");
      }
      _exit(0);
    }
  while (wait(nullptr) > 0) {
  }
  std::vector<int> seen(kProcesses);
  for (const std::string& line : lines()) {
    const Json parsed = Json::parse(line, nullptr, false);
    ASSERT_FALSE(parsed.is_discarded()) << line;
    const int writer = parsed["program"].get<std::string>()[0] - 'a';
    EXPECT_EQ(parsed["sleeps"], seen[static_cast<size_t>(writer)]++);
  }
  for (const int count : seen) EXPECT_EQ(count, kLines);
}

// ---- the log

TEST_F(Report, LogLinesCarryTheProcessAndTheLevel) {
  strcpy(options_.log_file, path_.c_str());
  options_.log_level = LogLevel::info;
  set_log(options_);
  log_line(LogLevel::error, "bad %d", 1);
  log_line(LogLevel::info, "good");
  log_line(LogLevel::debug, "not asked for");
  options_.log_level = LogLevel::off;
  log_line(LogLevel::error, "off");
  const std::string begin = "shunt[" + std::to_string(getpid()) + "] ";
  EXPECT_EQ(lines(), (std::vector<std::string>{begin + "error: bad 1", begin + "info: good"}));
  static const Options silent;
  set_log(silent);
}

TEST_F(Report, LongLogLinesAreCutAndStillEnd) {
  strcpy(options_.log_file, path_.c_str());
  options_.log_level = LogLevel::info;
  set_log(options_);
  log_line(LogLevel::info, "%s", std::string(10000, 'x').c_str());
  log_line(LogLevel::info, "next");
  ASSERT_EQ(lines().size(), 2u);
  EXPECT_LE(lines()[0].size(), 560u);
  EXPECT_NE(lines()[1].find("info: next"), std::string::npos);
  static const Options silent;
  set_log(silent);
}

// ---- the counters

TEST_F(Report, TalliesFoldIntoTheTotals) {
  totals.ring_bytes_out = 5;
  fold({1, 2, 3, 4});
  EXPECT_EQ(totals.ring_bytes_out, 6u);
  EXPECT_EQ(totals.ring_bytes_in, 2u);
  EXPECT_EQ(totals.ring_ops_out, 3u);
  EXPECT_EQ(totals.ring_ops_in, 4u);
  reset_totals();
  const auto* counters = reinterpret_cast<const std::atomic<uint64_t>*>(&totals);
  for (size_t i = 0; i < sizeof totals / sizeof *counters; ++i) ASSERT_EQ(counters[i], 0u);
}

TEST_F(Report, ThreadsLoseNoCount) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([] {
      for (int n = 0; n < 10000; ++n) count(totals.bells), fold({1, 1, 1, 1});
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(totals.bells, 40000u);
  EXPECT_EQ(totals.ring_ops_in, 40000u);
}

TEST(Reasons, EachHasItsOwnCode) {
  for (uint32_t a = 0; a < kReasons; ++a) {
    EXPECT_GT(strlen(kReasonCodes[a]), 0u);
    for (uint32_t b = 0; b < a; ++b) EXPECT_STRNE(kReasonCodes[a], kReasonCodes[b]);
  }
}

}  // namespace
}  // namespace shunt::testing
