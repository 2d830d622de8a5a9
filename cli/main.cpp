// The command `shunt`: reads the command line, hands over to the subcommand, turns an Error into a message and a
// status. Called by the system. Must not decide anything about a run: that is run_command's.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "cli/error.h"
#include "cli/run_arguments.h"
#include "cli/run_command.h"

namespace shunt::cli {
namespace {

class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string name) const override {
    const bool is_run = app->get_parent() != nullptr;
    return fmt::format("Usage: {} {}\n", name, is_run ? "[OPTIONS] [--] PROGRAM [ARGS]..." : "[OPTIONS] COMMAND ...");
  }
};

void run(const RunArguments& arguments) {
  const RunRequest request{arguments.settings(), arguments.command()};
  if (request.command.empty()) {
    throw Error(ExitStatus::usage,
                "there is no PROGRAM to run.\n  Write: shunt run [OPTIONS] -- PROGRAM [ARGS]...\n"
                "  'shunt run --help' lists the options.");
  }
  if (!arguments.dry_run()) execute(plan_run(request));
  fmt::print("{}", describe(plan_run(request)));
}

int shunt_main(std::vector<std::string> words) {
  CLI::App app("Moves the bytes of local sockets through shared memory, for programs nobody recompiled.", "shunt");
  app.formatter(std::make_shared<HelpFormatter>());
  app.set_version_flag("--version", "shunt " SHUNT_VERSION, "print the version and exit");
  CLI::App* run_app = app.add_subcommand("run", "run a program with Shunt");
  RunArguments run_arguments(*run_app);

  const bool is_run = !words.empty() && words.front() == "run";
  if (is_run) {
    words = run_arguments.take_command({words.begin() + 1, words.end()});
    words.insert(words.begin(), "run");
  }
  try {
    std::reverse(words.begin(), words.end());  // App::parse takes them from the end
    app.parse(words);
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    throw Error(ExitStatus::usage,
                fmt::format("{}\n  'shunt{} --help' lists what is valid.", error.what(), is_run ? " run" : ""));
  }
  if (is_run) {
    run(run_arguments);
  } else {
    fmt::print("{}", app.help());
  }
  return 0;
}

}  // namespace
}  // namespace shunt::cli

int main(int argc, char** argv) {
  try {
    return shunt::cli::shunt_main({argv + std::min(argc, 1), argv + argc});
  } catch (const shunt::cli::Error& error) {
    fmt::print(stderr, "shunt: {}\n", error.what());
    return error.status();
  } catch (const std::exception& error) {
    fmt::print(stderr, "shunt: {}\n", error.what());
    return static_cast<int>(shunt::cli::ExitStatus::own_failure);
  }
}
