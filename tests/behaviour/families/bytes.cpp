// Every byte arrives once, in order, whatever the sizes of messages, reads and writes.
#include <unistd.h>

#include <thread>

#include "behaviour.h"
#include "check.h"
#include "io.h"

namespace shunt::behaviour {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kLargestEcho = 70'000;
constexpr size_t kEchoStep = 977;  // odd, so that messages start and end at every alignment

void echo_messages(int fd, size_t message_bytes) { write_all(fd, read_exactly(fd, message_bytes)); }

void ask_for_echo(int fd, uint64_t position, size_t message_bytes) {
  write_all(fd, bytes_at(position, message_bytes));
  CHECK_EQ(agreeing(read_exactly(fd, message_bytes), position), message_bytes);
}

// Sends and receives at the same time, in two threads: neither direction may wait for the other.
void both_directions(int fd, uint64_t out, uint64_t in, uint64_t count, size_t chunk) {
  std::thread writer([&] { write_stream(fd, out, count, chunk); });
  read_stream(fd, in, count, chunk);
  writer.join();
}

BEHAVIOUR{.name = "echo_of_every_size",
          .server =
              [](int fd) {
                for (size_t size = 1; size <= kLargestEcho; size += kEchoStep) echo_messages(fd, size);
              },
          .client =
              [](int fd) {
                for (size_t size = 1; size <= kLargestEcho; size += kEchoStep) ask_for_echo(fd, size, size);
              }};

BEHAVIOUR{.name = "echo_of_small_sizes",
          .server =
              [](int fd) {
                for (size_t size = 1; size <= 300; ++size) echo_messages(fd, size);
              },
          .client =
              [](int fd) {
                for (size_t size = 1; size <= 300; ++size) ask_for_echo(fd, size, size);
              }};

BEHAVIOUR{.name = "messages_of_1_mib_there_and_back",
          .server =
              [](int fd) {
                for (int i = 0; i < 3; ++i) echo_messages(fd, kMiB);
              },
          .client =
              [](int fd) {
                for (int i = 0; i < 3; ++i) ask_for_echo(fd, static_cast<uint64_t>(i) * 5, kMiB);
              }};

BEHAVIOUR{.name = "messages_of_8_mib_there_and_back",
          .server = [](int fd) { echo_messages(fd, 8 * kMiB); },
          .client = [](int fd) { ask_for_echo(fd, 3, 8 * kMiB); }};

BEHAVIOUR{.name = "both_directions_at_once_in_large_chunks",
          .server = [](int fd) { both_directions(fd, 0, 7, 8 * kMiB, 65'537); },
          .client = [](int fd) { both_directions(fd, 7, 0, 8 * kMiB, 100'003); }};

BEHAVIOUR{.name = "both_directions_at_once_in_small_chunks",
          .server = [](int fd) { both_directions(fd, 0, 7, kMiB, 191); },
          .client = [](int fd) { both_directions(fd, 7, 0, kMiB, 313); }};

BEHAVIOUR{.name = "large_writes_small_reads",
          .server = [](int fd) { read_stream(fd, 0, 2 * kMiB, 1009); },
          .client = [](int fd) { write_stream(fd, 0, 2 * kMiB, 300'007); }};

BEHAVIOUR{.name = "small_writes_large_reads",
          .server = [](int fd) { read_stream(fd, 0, kMiB, kMiB); },
          .client = [](int fd) { write_stream(fd, 0, kMiB, 61); }};

BEHAVIOUR{.name = "byte_by_byte_reader_of_large_data",
          .server = [](int fd) { read_stream(fd, 0, 200'000, 1); },
          .client = [](int fd) { write_stream(fd, 0, 200'000, 200'000); }};

BEHAVIOUR{.name = "byte_by_byte_writer",
          .server = [](int fd) { CHECK_EQ(read_stream_to_end(fd, 0, 4096), 50'000); },
          .client =
              [](int fd) {
                write_stream(fd, 0, 50'000, 1);
                ::close(fd);
              }};

BEHAVIOUR{.name = "blocked_writer_and_a_reader_that_dawdles",
          .server =
              [](int fd) {
                uint64_t done = 0;
                for (int pause = 0; pause < 20; ++pause, done += 50'000) {
                  sleep_ms(5);
                  read_stream(fd, done, 50'000, 7001);
                }
                read_stream(fd, done, 4 * kMiB - done, 65'536);
              },
          .client = [](int fd) { write_stream(fd, 0, 4 * kMiB, 4 * kMiB); }};

BEHAVIOUR{.name = "writer_that_dawdles",
          .server =
              [](int fd) {
                for (uint64_t i = 0; i < 20; ++i) {
                  sleep_ms(static_cast<int>(i % 5));
                  write_stream(fd, i * 1000, 1000, 1000);
                }
              },
          .client = [](int fd) { read_stream(fd, 0, 20'000, 65'536); }};

BEHAVIOUR{.name = "reads_take_what_is_there",
          .server =
              [](int fd) {
                write_all(fd, bytes_at(0, 1000));
                read_exactly(fd, 1);
              },
          .client =
              [](int fd) {
                CHECK(is_readable(fd, 10'000));
                CHECK_EQ(read_some(fd, 1), bytes_at(0, 1));
                CHECK_EQ(read_some(fd, 500), bytes_at(1, 500));
                CHECK_EQ(read_some(fd, 5000), bytes_at(501, 499));
                write_all(fd, "x");
              },
          .limit = kByFences};

}  // namespace
}  // namespace shunt::behaviour
