// The runner: one gtest per behaviour and way, named family/way.behaviour, each running two processes of this program.
// Also the entry of those processes. A filter that matches nothing is a failure, so no ctest entry can rot silently.
#include <gtest/gtest.h>

#include <cstdio>
#include <sstream>

#include "launch.h"
#include "life.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr Way kWays[] = {Way::kernel, Way::both, Way::server_only, Way::client_only,
                         Way::chaos,  Way::cold, Way::automatic};
constexpr const char* kChaosSeeds = kSanitized ? "1" : "1 22 333";  // SHUNT_CHAOS_SEEDS replaces them

std::vector<std::string> upgrades_of(Way way) {
  std::vector<std::string> upgrades;
  switch (way) {
    case Way::kernel:
    case Way::automatic:
      return {"auto"};
    case Way::both:
    case Way::server_only:
    case Way::client_only:
    case Way::cold:
      return {"eager"};
    case Way::chaos:
      break;
  }
  const char* asked = std::getenv("SHUNT_CHAOS_SEEDS");
  std::istringstream seeds(asked != nullptr ? asked : kChaosSeeds);
  for (std::string seed; seeds >> seed;) upgrades.push_back("chaos:" + seed);
  return upgrades;
}

std::string shown(const char* who, const EndOutcome& end) {
  std::string text = std::string("  ") + who + " (pid " + std::to_string(end.pid) + ") " + end.how + "\n" + end.log;
  for (const Report& report : end.reports) text += "    report: " + report.text + "\n";
  return text;
}

// An end that was to have the library says so itself; a preload that did nothing would make every way the kernel's.
void expect_report(const char* who, const EndOutcome& end) {
  EXPECT_NE(end.own_report(), nullptr) << "the " << who << " left no report";
}

void expect_upgraded(const char* who, const Behaviour& behaviour, const EndOutcome& end) {
  const Report* report = end.own_report();
  if (report == nullptr || (behaviour.leaves_ring && !behaviour.was_upgraded)) return;
  EXPECT_GE(report->upgraded, 1U) << who;
  EXPECT_GT(report->ring_bytes, 0U) << who;
  if (behaviour.leaves_ring) return;
  EXPECT_EQ(report->demoted, 0U) << who << " left the ring, which nothing in this behaviour asks for";
}

void expect_plain(const char* who, const EndOutcome& end) {
  const Report* report = end.own_report();
  if (report == nullptr) return;
  EXPECT_EQ(report->upgraded, 0U) << who;
  EXPECT_EQ(report->ring_bytes, 0U) << who;
}

void expect_reports(const Behaviour& behaviour, Way way, const Outcome& outcome) {
  const bool server_reports = behaviour.killed != End::server;
  const bool client_reports = behaviour.killed != End::client;
  if (server_reports && has_library(way, End::server)) expect_report("server", outcome.server);
  if (client_reports && has_library(way, End::client)) expect_report("client", outcome.client);
  switch (way) {
    case Way::both:
      if (server_reports) expect_upgraded("server", behaviour, outcome.server);
      if (client_reports) expect_upgraded("client", behaviour, outcome.client);
      break;
    case Way::server_only:
      expect_plain("server", outcome.server);
      if (const Report* report = outcome.server.own_report(); report != nullptr && !behaviour.leaves_ring) {
        // One that is not warmed up may end before either end has shown itself.
        const bool is_short = !behaviour.warms_up || behaviour.connects_itself;
        const bool named = report->plain.count("peer-unaware") > 0 ||
                           (is_short && report->plain.count("short-lived") + report->plain.count("unseen-use") > 0);
        EXPECT_TRUE(named) << "the reason must be that the client has no library";
      }
      break;
    case Way::client_only:
      expect_plain("client", outcome.client);
      break;
    case Way::kernel:
    case Way::chaos:
    case Way::cold:
    case Way::automatic:
      break;
  }
}

class BehaviourTest : public testing::Test {
 public:
  BehaviourTest(const Behaviour& behaviour, Way way) : behaviour_(behaviour), way_(way) {}

 private:
  void TestBody() override {
    if (way_ != Way::kernel && library_path().empty()) GTEST_SKIP() << "no library: set SHUNT_LIBRARY";
    for (const std::string& upgrade : upgrades_of(way_)) {
      const Outcome outcome = run_pair(behaviour_, way_, upgrade);
      SCOPED_TRACE("SHUNT_UPGRADE=" + upgrade + "\n" + shown("server", outcome.server) +
                   shown("client", outcome.client));
      EXPECT_TRUE(outcome.server.ended_well);
      EXPECT_TRUE(outcome.client.ended_well);
      if (!HasFailure()) expect_reports(behaviour_, way_, outcome);
    }
  }

  const Behaviour& behaviour_;
  const Way way_;
};

void register_tests() {
  for (const Behaviour& behaviour : all_behaviours()) {
    for (const Way way : kWays) {
      if ((behaviour.limit & bit(way)) != 0) continue;
      const std::string suite = std::string(behaviour.family) + "/" + name_of(way);
      testing::RegisterTest(suite.c_str(), behaviour.name, nullptr, nullptr, __FILE__, __LINE__,
                            [&behaviour, way]() -> testing::Test* { return new BehaviourTest(behaviour, way); });
    }
  }
}

int run_tests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  register_tests();
  std::printf("library: %s\n", library_path().empty() ? "none" : library_path().c_str());
  const int status = RUN_ALL_TESTS();
  if (testing::UnitTest::GetInstance()->test_to_run_count() > 0 || testing::GTEST_FLAG(list_tests)) return status;
  std::fprintf(stderr, "behaviour: the filter matches no test\n");
  return 2;
}

}  // namespace
}  // namespace shunt::behaviour

int main(int argc, char** argv) {
  if (const std::optional<int> status = shunt::behaviour::run_role(argc, argv)) return *status;
  if (const std::optional<int> status = shunt::behaviour::run_image(argc, argv)) return *status;
  return shunt::behaviour::run_tests(argc, argv);
}
