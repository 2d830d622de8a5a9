// Parent: starts this program again as a worker, with and without the library, and checks the worker's report.
// Worker: plays scripts. SHUNT_DIFF_SEED and SHUNT_DIFF_SCRIPTS choose which and how many.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "pair.h"
#include "play.h"
#include "readiness_play.h"
#include "table_play.h"

namespace shunt::differential {
namespace {

constexpr uint64_t kSeed = 1;
constexpr uint64_t kScripts = 400;
constexpr int kFirstDescriptor = 10;
constexpr uint64_t kFirstDescriptors = 101;  // as many places at which chaos may strike first
constexpr unsigned kWatchdog_s = 300;  // only turns a hang into a failure


// What a worker plays.
constexpr const char* kOperations = "--worker";
constexpr const char* kReadiness = "--readiness";
constexpr const char* kTable = "--table";

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

std::string library_path() {
  const char* asked = std::getenv("SHUNT_LIBRARY");
#ifdef SHUNT_LIBRARY_FILE
  const std::string path = asked != nullptr ? asked : SHUNT_LIBRARY_FILE;
#else
  const std::string path = asked != nullptr ? asked : "";
#endif
  return std::filesystem::exists(path) ? path : "";
}

// Of the table's cells in the rarer states one of so many is played.
unsigned table_every() { return static_cast<unsigned>(from_environment("SHUNT_DIFF_TABLE_EVERY", kRare)); }

// ---- worker

Fences fences() {
  const char* upgrade = std::getenv("SHUNT_UPGRADE");
  return upgrade != nullptr && std::string(upgrade).starts_with("chaos") ? Fences::anywhere : Fences::none;
}

void note(const std::string& directory, const std::string& text) { std::ofstream(directory + "/now") << text; }

// Prints the shortest form.
void show(uint64_t seed, const Difference& found, const Script& least, const Setting& setting) {
  std::printf("seed %lu: %s\nshortest, of %zu operations:\n", seed, found.text.c_str(), least.size());
  for (const Operation& operation : least) std::printf("  %s\n", shown(operation).c_str());
  const std::optional<Difference> again = difference(least, setting);
  std::printf("  => %s\n", again ? again->text.c_str() : "(not every time)");
  std::fflush(stdout);
}

// Of every kind of operation that is answered differently, the first script and its shortest form.
bool play_all(uint64_t first, uint64_t scripts, const std::string& directory) {
  std::set<Kind> shown_kinds;
  bool good = true;
  for (uint64_t seed = first; seed < first + scripts; ++seed) {
    note(directory, "the script of seed " + std::to_string(seed));
    const Script script = script_of(seed);
    const Setting setting{directory, fences(), kFirstDescriptor + static_cast<int>(seed % kFirstDescriptors)};
    const std::optional<Difference> found = difference(script, setting);
    if (found && shown_kinds.insert(found->kind).second) {
      show(seed, *found, shortest(script, found->kind, setting), setting);
      good = false;
    }
  }
  return good;
}

// The first readiness script that is answered differently, and its shortest form.
bool play_readiness(uint64_t first, uint64_t scripts, const std::string& directory) {
  for (uint64_t seed = first; seed < first + scripts; ++seed) {
    note(directory, "the readiness script of seed " + std::to_string(seed));
    const Plan plan = plan_of(seed);
    const Setting setting{directory, fences(), kFirstDescriptor + static_cast<int>(seed % kFirstDescriptors)};
    const std::optional<std::string> found = difference(plan, setting);
    if (!found) continue;
    std::printf("readiness, seed %lu: %s\n", seed, found->c_str());
    std::fflush(stdout);
    const Plan least = shortest(plan, setting);
    std::printf("shortest, of %zu steps (peers without the library: %u, accepted: %u, warmed up: %u):\n", least.steps.size(), least.unaware % 8, least.accepted % 8, least.warmed_up % 8);
    for (const Step& step : least.steps) std::printf("  %s\n", shown(step).c_str());
    std::printf("  => %s\n", difference(least, setting).value_or("(not every time)").c_str());
    return false;
  }
  return true;
}

bool fill_all(const std::string& directory) {
  const size_t least = from_environment("SHUNT_DIFF_LEAST_WRITE", 1);  // bytes
  bool good = true;
  for (const Room room : {Room::standard, Room::ample}) {
    note(directory, "the capacities");
    const std::optional<std::string> found = capacity_difference({directory, fences(), 0}, room, least);
    if (!found) continue;
    std::printf("capacity%s: %s\n", room == Room::ample ? " with a larger SO_SNDBUF" : "", found->c_str());
    good = false;
  }
  return good;
}

int work(const std::string& what, const std::string& directory) {
  ::alarm(kWatchdog_s);
  count_sigpipe();
  const uint64_t first = from_environment("SHUNT_DIFF_SEED", kSeed);
  if (what == kTable) {
    note(directory, "the table");
    return play_table(directory, fences(), first, table_every()) ? 0 : 1;
  }
  const uint64_t scripts = from_environment("SHUNT_DIFF_SCRIPTS", kScripts);
  std::printf("seeds %lu to %lu\n", first, first + scripts - 1);
  std::fflush(stdout);
  if (what == kReadiness) return play_readiness(first, scripts, directory) ? 0 : 1;
  const bool filled = fill_all(directory);
  return play_all(first, scripts, directory) && filled ? 0 : 1;
}

// ---- parent

class PrivateDirectory {
 public:
  PrivateDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "shunt-differential.XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~PrivateDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  PrivateDirectory(const PrivateDirectory&) = delete;
  PrivateDirectory& operator=(const PrivateDirectory&) = delete;
  std::string file(const char* name) const { return (path_ / name).string(); }
  std::string text(const char* name) const {
    std::ostringstream text;
    text << std::ifstream(path_ / name).rdbuf();
    return text.str();
  }

 private:
  std::filesystem::path path_;
};

[[noreturn]] void become_worker(const PrivateDirectory& directory, const std::string& upgrade, const char* what) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int log = ::open(directory.file("log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  ::unsetenv("LD_PRELOAD");
  if (!upgrade.empty()) {
    ::setenv("LD_PRELOAD", library_path().c_str(), 1);
    ::setenv("SHUNT_UPGRADE", upgrade.c_str(), 1);
    ::setenv("SHUNT_REPORT", directory.file("report").c_str(), 1);
  }
  ::execl("/proc/self/exe", "differential", what, directory.file("").c_str(), static_cast<char*>(nullptr));
  ::_exit(127);
}

// Runs a worker; `upgrade` is SHUNT_UPGRADE, empty for no library. The counters of the report, or null.
nlohmann::json run_worker(const std::string& upgrade, const char* what = kOperations) {
  const PrivateDirectory directory;
  const pid_t pid = ::fork();
  if (pid == 0) become_worker(directory, upgrade, what);
  int status = 0;
  ::waitpid(pid, &status, 0);
  std::printf("%s", directory.text("log").c_str());
  EXPECT_FALSE(WIFSIGNALED(status)) << "ended by " << ::strsignal(WTERMSIG(status)) << " during "
                                    << directory.text("now");
  EXPECT_EQ(status, 0) << "SHUNT_UPGRADE=" << upgrade;
  const std::string report = directory.text("report");
  return report.empty() ? nlohmann::json() : nlohmann::json::parse(report.substr(0, report.find('\n')));
}

void expect_upgraded(const nlohmann::json& report) {
  ASSERT_TRUE(report.is_object()) << "the worker left no report";
  EXPECT_GT(report.at("connections").at("upgraded").get<uint64_t>(), 0U) << report;
  EXPECT_GT(report.at("ring").at("bytes_out").get<uint64_t>(), 0U) << report;
}

#define NEEDS_LIBRARY() \
  if (library_path().empty()) GTEST_SKIP() << "no library: set SHUNT_LIBRARY"

TEST(Differential, KernelAgainstItself) { run_worker(""); }

TEST(Differential, Eager) {
  NEEDS_LIBRARY();
  const nlohmann::json report = run_worker("eager");
  expect_upgraded(report);
  if (HasFailure()) return;
  EXPECT_EQ(report.at("connections").at("demoted").get<uint64_t>(), 0U) << report;
  EXPECT_GT(report.at("ring").at("bytes_out").get<uint64_t>(), report.at("kernel").at("bytes_out").get<uint64_t>())
      << report;
}

TEST(Differential, Automatic) {
  NEEDS_LIBRARY();
  run_worker("auto");
}

TEST(Differential, Never) {
  NEEDS_LIBRARY();
  run_worker("never");
}

TEST(Differential, Chaos) {
  NEEDS_LIBRARY();
  for (const char* seed : {"1", "22", "333"}) expect_upgraded(run_worker(std::string("chaos:") + seed));
}

TEST(Readiness, KernelAgainstItself) { run_worker("", kReadiness); }

TEST(Readiness, Eager) {
  NEEDS_LIBRARY();
  expect_upgraded(run_worker("eager", kReadiness));
}

TEST(Readiness, Automatic) {
  NEEDS_LIBRARY();
  run_worker("auto", kReadiness);
}

TEST(Readiness, Never) {
  NEEDS_LIBRARY();
  run_worker("never", kReadiness);
}

TEST(Readiness, Chaos) {
  NEEDS_LIBRARY();
  for (const char* seed : {"1", "22", "333"}) expect_upgraded(run_worker(std::string("chaos:") + seed, kReadiness));
}

TEST(Table, KernelAgainstItself) { run_worker("", kTable); }

TEST(Table, Eager) {
  NEEDS_LIBRARY();
  const nlohmann::json report = run_worker("eager", kTable);
  expect_upgraded(report);
  if (HasFailure()) return;
  const uint64_t upgraded = report.at("connections").at("upgraded").get<uint64_t>();
  const uint64_t demoted = report.at("connections").at("demoted").get<uint64_t>();
  // Both ends; watched or not; connected and accepted.
  EXPECT_GE(upgraded, 2 * 2 * 2 * (all_cells().size() / common_step(table_every()))) << report;
  EXPECT_GT(demoted, 0U) << report;
}

TEST(Table, Chaos) {
  NEEDS_LIBRARY();
  for (const char* seed : {"1", "22", "333"}) expect_upgraded(run_worker(std::string("chaos:") + seed, kTable));
}

// Another version of the kernel may say something else.
TEST(Table, Page) {
  std::ostringstream written;
  written << std::ifstream(SHUNT_TABLE_PAGE).rdbuf();
  ASSERT_FALSE(written.str().empty()) << SHUNT_TABLE_PAGE;
  if (written.str().find(asked_of()) == std::string::npos) {
    std::printf("the page is of another kernel: not compared\n");
    return;
  }
  const PrivateDirectory directory;
  EXPECT_TRUE(table_page(directory.file("")) == written.str())
      << SHUNT_TABLE_PAGE << " is stale: write it with differential --table-page FILE";
}

}  // namespace

int write_page(const char* file) {
  const PrivateDirectory directory;
  std::ofstream(file) << table_page(directory.file(""));
  return 0;
}

}  // namespace shunt::differential

int main(int argc, char** argv) {
  namespace differential = shunt::differential;
  for (const char* what : {differential::kOperations, differential::kReadiness, differential::kTable})
    if (argc == 3 && std::strcmp(argv[1], what) == 0) return differential::work(what, argv[2]);
  if (argc == 3 && std::strcmp(argv[1], "--table-page") == 0) return differential::write_page(argv[2]);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
