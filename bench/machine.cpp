// See machine.h.
#include "machine.h"

#include <fmt/core.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

#include "sockets.h"

namespace shunt::bench {

void allow_descriptors(uint64_t count) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) die("getrlimit");
  if (limit.rlim_cur >= count) return;
  limit.rlim_cur = count;
  limit.rlim_max = std::max<rlim_t>(limit.rlim_max, count);
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return;
  fmt::print(stderr, "needs {0} descriptors: run `ulimit -n {0}` as root in this shell, or ask for fewer connections\n",
             count);
  std::exit(1);
}

double memory_in_use() {
  constexpr std::array<std::string_view, 6> kFields = {
      "AnonPages:", "Shmem:", "PageTables:", "KernelStack:", "Slab:", "Percpu:"};
  std::ifstream file("/proc/meminfo");
  double kilobytes = 0;
  std::string name;
  for (double value = 0; file >> name >> value; file.ignore(80, '\n')) {
    if (std::find(kFields.begin(), kFields.end(), name) != kFields.end()) kilobytes += value;
  }
  return kilobytes * 1024;
}

double cpu_time_us(pid_t pid) {
  clockid_t clock{};
  timespec time{};
  if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &time) != 0) die("clock_gettime");
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

}  // namespace shunt::bench
