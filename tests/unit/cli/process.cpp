// fork, exec, wait, with the output in unnamed files so that no pipe can fill.
// Called by tests, from one thread.
// Must not return in the child.
#include "process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <stdexcept>

namespace shunt::cli {
namespace {

std::string content_and_close(FILE* file) {
  std::string text;
  char buffer[4096];
  rewind(file);
  while (const size_t bytes = fread(buffer, 1, sizeof buffer, file)) text.append(buffer, bytes);
  fclose(file);
  return text;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

[[noreturn]] void become(Start start, int output, int errors) {
  // A sanitized command is told that it may find a library loaded before its runtime.
  start.environment.push_back("ASAN_OPTIONS=verify_asan_link_order=0");
  start.environment.push_back("PATH=/usr/bin:/bin");
  dup2(output, STDOUT_FILENO);
  dup2(errors, STDERR_FILENO);
  if (start.before_exec) start.before_exec();
  if (chdir(start.directory.c_str()) == 0)
    execve(start.command.front().c_str(), pointers(start.command).data(), pointers(start.environment).data());
  _exit(99);
}

}  // namespace

Outcome run_process(const Start& start) {
  FILE* output = tmpfile();
  FILE* errors = tmpfile();
  if (!output || !errors) throw std::runtime_error("tmpfile");
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) become(start, fileno(output), fileno(errors));
  int status = 0;
  if (waitpid(child, &status, 0) != child) throw std::runtime_error("waitpid");
  return Outcome{WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                 content_and_close(output), content_and_close(errors)};
}

}  // namespace shunt::cli
