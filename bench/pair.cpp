// shunt_bench: the same two programs on the kernel's socket and with the library preloaded, in turns, side by side.
// One thread. Exits with 3 when the preloaded runs did not use shared memory, so that no figure is taken for what it is
// not.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trial.h"

namespace shunt::bench {
namespace {

constexpr int kNotUpgraded = 3;

struct Plan {
  Setting setting;
  uint64_t connections = 10'000;  // of cycles
  int pairs = 3;
  int spinners = 0;
  bool json = false;
  bool kernel_only = false;
};

struct Figure {
  const char* name;
  const char* unit;
  double Result::*field;
  bool less_is_better;
};

std::vector<Figure> figures_of(const Task& task) {
  const Figure median{"median", "ns", &Result::median_ns, true};
  const Figure p99{"p99", "ns", &Result::p99_ns, true};
  const Figure rate{"messages", "/s", &Result::messages_per_s, false};
  const Figure bytes{"bytes", "MB/s", &Result::bytes_per_s, false};
  const Figure connections{"connections", "/s", &Result::messages_per_s, false};
  const Figure idle_cpu{"idle CPU", "us/s", &Result::idle_cpu_us_per_s, true};
  const Figure memory{"memory", "B each", &Result::memory_bytes, true};
  switch (task.workload) {
    case Workload::pingpong:
      return {median, p99};
    case Workload::oneway:
      return {rate, bytes};
    case Workload::cycles:
      return {median, p99, connections};
    case Workload::readiness:
      if (task.idle_seconds <= 0) return {median, p99, memory};
      return {median, p99, memory, idle_cpu};
  }
  return {};
}

double median_of(const std::vector<Trial>& trials, double Result::*field) {
  std::vector<double> values;
  for (const Trial& trial : trials) values.push_back(trial.result.*field);
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::string with_commas(double value) {
  std::string digits = fmt::format("{:.0f}", value);
  for (ptrdiff_t at = std::ssize(digits) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::string shown(const Figure& figure, double value) {
  const bool megabytes = figure.field == &Result::bytes_per_s;
  return with_commas(megabytes ? value / 1e6 : value) + " " + figure.unit;
}

std::string title(const Plan& plan) {
  const Task& task = plan.setting.task;
  std::string text;
  switch (task.workload) {
    case Workload::pingpong:
      text = fmt::format("round trip of {} bytes, {} times", task.size_bytes, task.count);
      break;
    case Workload::oneway:
      text = fmt::format("one way in writes of {} bytes, {:g} s", task.size_bytes, task.seconds);
      break;
    case Workload::cycles:
      text = fmt::format("connect, 64-byte request and reply, close, {} times", task.count);
      break;
    case Workload::readiness:
      text = fmt::format("echo of {} bytes on {} hot beside {} idle connections, {} triggered, {:g} s", task.size_bytes,
                         task.hot, task.idle, task.edge ? "edge" : "level", task.seconds);
      break;
  }
  const std::vector<int>& cpus = plan.setting.cpus;
  text +=
      cpus.empty() ? ", not pinned" : fmt::format(", server on CPU {}, client on CPU {}", cpus.front(), cpus.back());
  if (plan.spinners > 0) text += fmt::format(", beside {} busy loops", plan.spinners);
  return text + fmt::format("; medians of {} interleaved pairs", plan.pairs);
}

bool upgraded(const Task& task, const std::vector<Trial>& trials) {
  const uint64_t least = task.workload == Workload::readiness ? task.idle + task.hot : 1;
  return !trials.empty() && std::all_of(trials.begin(), trials.end(), [least](const Trial& trial) {
    return trial.server.upgraded >= least && trial.client.upgraded >= least && trial.server.ring_bytes > 0 &&
           trial.client.ring_bytes > 0;
  });
}

EndReport total_of(const std::vector<Trial>& trials, EndReport Trial::*end) {
  EndReport total;
  for (const Trial& trial : trials) {
    const EndReport& one = trial.*end;
    total.upgraded += one.upgraded;
    total.demoted += one.demoted;
    total.ring_bytes += one.ring_bytes;
    total.kernel_bytes += one.kernel_bytes;
    total.sleeps += one.sleeps;
    total.plain = one.plain;
  }
  return total;
}

void print_proof(const char* name, const EndReport& end, size_t runs) {
  fmt::print(
      "  {:<7} in {} runs: {} connections upgraded, {} demoted, {} bytes through rings, {} through the kernel, {} "
      "sleeps{}{}\n",
      name, runs, end.upgraded, end.demoted, with_commas(static_cast<double>(end.ring_bytes)),
      with_commas(static_cast<double>(end.kernel_bytes)), with_commas(static_cast<double>(end.sleeps)),
      end.plain.empty() ? "" : "; plain, last run: ", end.plain);
}

void print_table(const Plan& plan, const std::vector<Trial>& kernel, const std::vector<Trial>& shunt) {
  fmt::print("{}\n\n", title(plan));
  fmt::print("  {:<12} {:>18} {:>18} {:>12}\n", "", "kernel", "shunt", "gain");
  for (const Figure& figure : figures_of(plan.setting.task)) {
    const double before = median_of(kernel, figure.field);
    const double after = median_of(shunt, figure.field);
    const double gain = figure.less_is_better ? before / after : after / before;
    fmt::print("  {:<12} {:>18} {:>18} {:>12}\n", figure.name, shown(figure, before),
               shunt.empty() ? "-" : shown(figure, after), shunt.empty() ? "-" : fmt::format("{:.2f} x", gain));
  }
  if (shunt.empty()) return;
  if (plan.setting.task.workload == Workload::readiness) {
    fmt::print("  beyond the kernel's: {} bytes of memory per connection\n",
               with_commas(median_of(shunt, &Result::memory_bytes) - median_of(kernel, &Result::memory_bytes)));
  }
  fmt::print("\nproof, from what both ends reported at exit\n");
  print_proof("server", total_of(shunt, &Trial::server), shunt.size());
  print_proof("client", total_of(shunt, &Trial::client), shunt.size());
}

nlohmann::json json_of(const EndReport& end) {
  return {{"upgraded", end.upgraded},         {"demoted", end.demoted}, {"ring_bytes", end.ring_bytes},
          {"kernel_bytes", end.kernel_bytes}, {"sleeps", end.sleeps},   {"plain", end.plain}};
}

nlohmann::json json_of(const std::vector<Trial>& trials) {
  nlohmann::json runs = nlohmann::json::array();
  for (const Trial& trial : trials) {
    runs.push_back({{"median_ns", trial.result.median_ns},
                    {"p99_ns", trial.result.p99_ns},
                    {"messages_per_s", trial.result.messages_per_s},
                    {"bytes_per_s", trial.result.bytes_per_s},
                    {"idle_cpu_us_per_s", trial.result.idle_cpu_us_per_s},
                    {"memory_bytes", trial.result.memory_bytes},
                    {"server", json_of(trial.server)},
                    {"client", json_of(trial.client)}});
  }
  return {{"median_ns", median_of(trials, &Result::median_ns)},
          {"p99_ns", median_of(trials, &Result::p99_ns)},
          {"messages_per_s", median_of(trials, &Result::messages_per_s)},
          {"bytes_per_s", median_of(trials, &Result::bytes_per_s)},
          {"idle_cpu_us_per_s", median_of(trials, &Result::idle_cpu_us_per_s)},
          {"memory_bytes", median_of(trials, &Result::memory_bytes)},
          {"runs", runs}};
}

void print_json(const Plan& plan, const std::vector<Trial>& kernel, const std::vector<Trial>& shunt) {
  const Task& task = plan.setting.task;
  nlohmann::json out = {
      {"title", title(plan)},      {"size_bytes", task.size_bytes}, {"count", task.count}, {"cpus", plan.setting.cpus},
      {"spinners", plan.spinners}, {"pairs", plan.pairs},           {"idle", task.idle},   {"hot", task.hot},
      {"kernel", json_of(kernel)}};
  if (!shunt.empty()) {
    out["shunt"] = json_of(shunt);
    out["upgraded"] = upgraded(task, shunt);
    for (const Figure& figure : figures_of(task)) {
      const double before = median_of(kernel, figure.field);
      const double after = median_of(shunt, figure.field);
      out["gain"][figure.name] = figure.less_is_better ? before / after : after / before;
    }
  }
  fmt::print("{}\n", out.dump(2));
}

int measure(const Plan& plan) {
  const Spinners spinners(plan.spinners);
  std::vector<Trial> kernel;
  std::vector<Trial> shunt;
  for (int i = 0; i < plan.pairs; ++i) {
    kernel.push_back(run_trial(plan.setting, Mode::kernel));
    if (!plan.kernel_only) shunt.push_back(run_trial(plan.setting, Mode::shunt));
  }
  plan.json ? print_json(plan, kernel, shunt) : print_table(plan, kernel, shunt);
  // A connection that lives for one request is meant to stay on the kernel.
  if (plan.kernel_only || plan.setting.task.workload == Workload::cycles || upgraded(plan.setting.task, shunt))
    return 0;
  fmt::print(stderr, "shunt_bench: not every preloaded run was upgraded on both ends; its figures are not Shunt's\n");
  return kNotUpgraded;
}

std::string default_library() {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "../lib/libshunt.so")
      .lexically_normal()
      .string();
}

void add_options(CLI::App& app, Plan& plan) {
  Setting& setting = plan.setting;
  setting.library = default_library();
  app.add_option("--pairs", plan.pairs, "kernel and shunt runs, interleaved")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--cpus", setting.cpus, "CPUs of server and client, such as 0,1 or 0,0")
      ->delimiter(',')
      ->expected(1, 2);
  app.add_option("--spinners", plan.spinners, "busy loops beside the two processes")
      ->capture_default_str()
      ->check(CLI::Range(0, 64));
  app.add_option("--library", setting.library, "libshunt.so to preload")->capture_default_str();
  app.add_option("--upgrade", setting.upgrade, "SHUNT_UPGRADE of the preloaded runs")->capture_default_str();
  app.add_flag("--json", plan.json, "all figures as JSON");
  app.add_flag("--kernel-only", plan.kernel_only, "do not preload anything");

  Task& task = setting.task;
  CLI::App* pingpong = app.add_subcommand("pingpong", "one message there and back, over and over");
  pingpong->add_option("--size", task.size_bytes, "bytes of a message")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  pingpong->add_option("--count", task.count, "round trips")->capture_default_str()->check(CLI::PositiveNumber);
  pingpong->callback([&task] { task.workload = Workload::pingpong; });
  CLI::App* oneway = app.add_subcommand("oneway", "the client sends, the server receives");
  oneway->add_option("--size", task.size_bytes, "bytes of a write")->capture_default_str()->check(CLI::PositiveNumber);
  oneway->add_option("--seconds", task.seconds, "how long")->capture_default_str()->check(CLI::PositiveNumber);
  oneway->callback([&task] { task.workload = Workload::oneway; });
  CLI::App* cycles = app.add_subcommand("cycles", "a connection for every request");
  cycles->add_option("--count", plan.connections, "connections")->capture_default_str()->check(CLI::PositiveNumber);
  cycles->callback([&plan] {
    plan.setting.task.workload = Workload::cycles;
    plan.setting.task.count = plan.connections;
  });
  CLI::App* readiness =
      app.add_subcommand("readiness", "one epoll set with many connections, of which few have traffic");
  readiness->add_option("--idle", task.idle, "connections without traffic")->capture_default_str();
  readiness->add_option("--hot", task.hot, "connections with an echo on its way")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  readiness->add_option("--size", task.size_bytes, "bytes of an echo")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  readiness->add_option("--seconds", task.seconds, "how long to echo")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  readiness->add_option("--idle-seconds", task.idle_seconds, "rest, and measure the CPU time of it")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  readiness->add_flag("--edge", task.edge, "edge triggered");
  readiness->callback([&task] { task.workload = Workload::readiness; });
  for (CLI::App* one : {pingpong, oneway, cycles, readiness}) one->fallthrough();
  app.require_subcommand(1);
}

int command_line(int argc, char** argv) {
  CLI::App app("Measures local sockets on the kernel and with Shunt, side by side.");
  Plan plan;
  add_options(app, plan);
  CLI11_PARSE(app, argc, argv);
  if (!plan.kernel_only && !std::filesystem::exists(plan.setting.library)) {
    fmt::print(stderr, "shunt_bench: no library at {} (see --library)\n", plan.setting.library);
    return 2;
  }
  return measure(plan);
}

}  // namespace
}  // namespace shunt::bench

int main(int argc, char** argv) try {
  if (const std::optional<int> status = shunt::bench::run_role(argc, argv)) return *status;
  return shunt::bench::command_line(argc, argv);
} catch (const std::exception& error) {
  fmt::print(stderr, "shunt_bench: {}\n", error.what());
  return 1;
}
