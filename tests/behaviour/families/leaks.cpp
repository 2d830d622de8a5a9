// Connections come and go by the hundred: no descriptor and no memory stays behind.
#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr int kSettle = 400;  // connections until pools and slabs have their size, and their bytes have been all through a ring
constexpr int kMany = 500;
constexpr int64_t kAllowedGrowth_kb = 2048;

int open_descriptors() {
  int count = 0;
  DIR* directory = ::opendir("/proc/self/fd");
  CHECK(directory != nullptr);
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

// Memory in use, private and shared: channels are shared memory.
int64_t resident_kb() {
  int64_t pages = 0;
  int64_t resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * (::sysconf(_SC_PAGESIZE) / 1024);
}

int64_t mapped_kb() {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * (::sysconf(_SC_PAGESIZE) / 1024);
}

// Runs `once` until it has settled, then many times more; nothing may have grown with their number.
template <class Once>
void expect_no_growth(const Once& once) {
  for (int i = 0; i < kSettle; ++i) once();
  const int descriptors = open_descriptors();
  const int64_t resident = resident_kb();
  const int64_t mapped = mapped_kb();
  for (int i = 0; i < kMany; ++i) once();
  CHECK_EQ(open_descriptors(), descriptors);
  CHECK(resident_kb() - resident < kAllowedGrowth_kb);
  CHECK(mapped_kb() - mapped < 64 * 1024);  // a channel is 2.6 MiB of addresses
}

BEHAVIOUR{.name = "none_when_the_client_closes_first",
          .server =
              [](int) {
                expect_no_growth([] {
                  const int fd = accept_another();
                  write_all(fd, read_exactly(fd, 5000));
                  expect_end_of_stream(fd);
                  ::close(fd);
                });
              },
          .client =
              [](int) {
                expect_no_growth([] {
                  const int fd = connect_another();
                  write_all(fd, bytes_at(3, 5000));
                  CHECK_EQ(agreeing(read_exactly(fd, 5000), 3), 5000U);
                  ::close(fd);
                });
              }};

BEHAVIOUR{.name = "none_when_bytes_stay_unread",
          .server =
              [](int) {
                expect_no_growth([] {
                  const int fd = accept_another();
                  write_all(fd, bytes_at(0, 5000));
                  ::close(fd);
                });
              },
          .client =
              [](int) {
                expect_no_growth([] {
                  const int fd = connect_another();
                  CHECK(is_readable(fd, 10'000));
                  ::close(fd);
                });
              }};

BEHAVIOUR{.name = "none_when_children_serve",
          .server =
              [](int) {
                for (int i = 0; i < 60; ++i) {
                  const int fd = accept_another();
                  const int child = in_child([fd] { write_all(fd, read_exactly(fd, 5000)); });
                  ::close(fd);
                  join_child(child);
                  if (i == 20) tell_peer(static_cast<uint32_t>(resident_kb()));
                  if (i == 59) tell_peer(static_cast<uint32_t>(resident_kb()));
                }
              },
          .client =
              [](int) {
                for (int i = 0; i < 60; ++i) {
                  const int fd = connect_another();
                  write_all(fd, bytes_at(3, 5000));
                  CHECK_EQ(agreeing(read_exactly(fd, 5000), 3), 5000U);
                  ::close(fd);
                }
                const auto before = static_cast<int64_t>(await_peer());
                const auto after = static_cast<int64_t>(await_peer());
                CHECK(after - before < kAllowedGrowth_kb);
              }};

// Of all channels of this process.
int64_t resident_channels_kb() {
  std::ifstream maps("/proc/self/smaps");
  int64_t total = 0;
  bool channel = false;
  for (std::string line; std::getline(maps, line);) {
    int64_t kb = 0;
    if (line.find("/memfd:") != std::string::npos) channel = true;
    if (channel && std::sscanf(line.c_str(), "Rss: %" SCNd64, &kb) == 1) total += kb, channel = false;
  }
  return total;
}

// Short messages stay in the page of the header, however many they are.
constexpr int kQuiet = 50;

BEHAVIOUR{.name = "a_quiet_connection_takes_one_page",
          .server =
              [](int) {
                std::vector<int> all;
                for (int i = 0; i < kQuiet; ++i) {
                  all.push_back(accept_another());
                  for (int echo = 0; echo < 20; ++echo) write_all(all.back(), read_exactly(all.back(), 300));
                }
                CHECK(resident_channels_kb() <= 4 * (kQuiet + 1));
                tell_peer();
                await_peer();
              },
          .client =
              [](int) {
                std::vector<int> all;
                for (int i = 0; i < kQuiet; ++i) {
                  all.push_back(connect_another());
                  for (int echo = 0; echo < 20; ++echo) {
                    write_all(all.back(), bytes_at(7, 300));
                    CHECK_EQ(agreeing(read_exactly(all.back(), 300), 7), 300U);
                  }
                }
                CHECK(resident_channels_kb() <= 4 * (kQuiet + 1));
                await_peer();
                tell_peer();
              }};

}  // namespace
}  // namespace shunt::behaviour
