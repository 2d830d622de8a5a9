// Several threads on one connection.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "behaviour.h"
#include "check.h"
#include "io.h"
#include "role.h"

namespace shunt::behaviour {
namespace {

constexpr uint64_t kBulk = 6'000'000;
constexpr int kWriters = 4;
constexpr int kRecords = 1500;
constexpr size_t kRecordBytes = 512;

void duplex(int fd, uint64_t out, uint64_t in, size_t write_chunk, size_t read_chunk) {
  std::thread writer([=] { write_stream(fd, out, kBulk, write_chunk); });
  std::thread reader([=] { read_stream(fd, in, kBulk, read_chunk); });
  writer.join();
  reader.join();
}

BEHAVIOUR{.name = "one_reads_and_one_writes",
          .server = [](int fd) { duplex(fd, 0, 3, 40'000, 50'000); },
          .client = [](int fd) { duplex(fd, 3, 0, 300'000, 1000); }};

// Both sleep on the connection at once; each is woken by what it waits for.
BEHAVIOUR{.name = "a_sleeping_reader_and_a_sleeping_writer",
          .server =
              [](int fd) {
                sleep_ms(40);
                for (int i = 0; i < 5; ++i) {
                  write_all(fd, "x");  // wakes the reader; the writer stays where it is
                  sleep_ms(5);
                }
                read_stream(fd, 0, 3'000'000, 65'536);
              },
          .client =
              [](int fd) {
                std::thread writer([fd] { write_stream(fd, 0, 3'000'000, 3'000'000); });
                CHECK_EQ(read_exactly(fd, 5), "xxxxx");
                writer.join();
              }};

// "Writes of stream sockets are not interleaved": a blocking write of a record goes out whole.
BEHAVIOUR{.name = "records_of_four_writers_do_not_mix",
          .server =
              [](int fd) {
                int next[kWriters] = {};
                for (int i = 0; i < kWriters * kRecords; ++i) {
                  const std::string record = read_exactly(fd, kRecordBytes);
                  const int writer = record[0] - 'a';
                  CHECK(writer >= 0 && writer < kWriters);
                  CHECK_EQ(record.find_first_not_of(record[0], 0), kRecordBytes - 8);
                  CHECK_EQ(std::stoi(record.substr(kRecordBytes - 8)), next[writer]++);
                }
              },
          .client =
              [](int fd) {
                std::vector<std::thread> writers;
                for (int writer = 0; writer < kWriters; ++writer) {
                  writers.emplace_back([fd, writer] {
                    for (int i = 0; i < kRecords; ++i) {
                      const std::string number = std::to_string(10'000'000 + i).substr(0, 8);
                      std::string record =
                          std::string(kRecordBytes - 8, static_cast<char>('a' + writer)) + "0" + number.substr(1);
                      CHECK_EQ(::write(fd, record.data(), record.size()), record.size());
                    }
                  });
                }
                for (std::thread& writer : writers) writer.join();
              }};

BEHAVIOUR{.name = "four_readers_share_the_bytes",
          .server =
              [](int fd) {
                write_all(fd, std::string(400'000, 'x'));
                ::close(fd);
              },
          .client =
              [](int fd) {
                std::atomic<uint64_t> total{0};
                std::vector<std::thread> readers;
                for (int i = 0; i < 4; ++i) {
                  readers.emplace_back([&] {
                    for (std::string some = read_some(fd, 700); !some.empty(); some = read_some(fd, 700))
                      total += some.size();
                  });
                }
                for (std::thread& reader : readers) reader.join();
                CHECK_EQ(total.load(), 400'000U);
              }};

BEHAVIOUR{.name = "two_sleeping_readers_get_a_byte_each",
          .server =
              [](int fd) {
                sleep_ms(40);
                write_all(fd, "x");
                await_peer();
                write_all(fd, "y");
              },
          .client =
              [](int fd) {
                std::atomic<int> sum{0};
                const auto read_one = [&] {
                  sum += read_exactly(fd, 1)[0];
                  if (sum.load() < 'x' + 'y') tell_peer();
                };
                std::thread one(read_one);
                std::thread two(read_one);
                one.join();
                two.join();
                CHECK_EQ(sum.load(), 'x' + 'y');
              }};

BEHAVIOUR{.name = "one_polls_while_another_reads",
          .server =
              [](int fd) {
                for (int i = 0; i < 500; ++i) {
                  write_all(fd, bytes_at(static_cast<uint64_t>(i), 40));
                  CHECK_EQ(read_exactly(fd, 1), "y");
                }
              },
          .client =
              [](int fd) {
                std::atomic<bool> done{false};
                std::thread poller([&] {
                  while (!done) {
                    pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
                    CHECK(::poll(&one, 1, 5) >= 0);
                    CHECK_EQ(one.revents & ~POLLIN, 0);
                  }
                });
                for (int i = 0; i < 500; ++i) {
                  CHECK_EQ(read_exactly(fd, 40), bytes_at(static_cast<uint64_t>(i), 40));
                  write_all(fd, "y");
                }
                done = true;
                poller.join();
              }};

// Threads that open, use and close connections of their own while others do the same.
BEHAVIOUR{.name = "each_with_connections_of_its_own",
          .server =
              [](int) {
                std::vector<std::thread> servers;
                for (int i = 0; i < 3 * 30; ++i) {
                  const int fd = accept_another();
                  servers.emplace_back([fd] {
                    write_all(fd, read_exactly(fd, 2000));
                    expect_end_of_stream(fd);
                    ::close(fd);
                  });
                }
                for (std::thread& server : servers) server.join();
              },
          .client =
              [](int) {
                std::vector<std::thread> clients;
                for (int i = 0; i < 3; ++i) {
                  clients.emplace_back([] {
                    for (uint64_t round = 0; round < 30; ++round) {
                      const int fd = connect_another();
                      write_all(fd, bytes_at(round, 2000));
                      CHECK_EQ(agreeing(read_exactly(fd, 2000), round), 2000U);
                      ::close(fd);
                    }
                  });
                }
                for (std::thread& client : clients) client.join();
              }};

// unix_stream_sendmsg queues up to 32 KiB as one buffer: such a write is not torn by others, whatever its size.
BEHAVIOUR{.name = "large_records_do_not_mix",
          .server =
              [](int fd) {
                for (int i = 0; i < 3 * 150; ++i) {
                  uint32_t head[2];
                  const std::string text = read_exactly(fd, sizeof head);
                  std::copy(text.begin(), text.end(), reinterpret_cast<char*>(head));
                  CHECK(head[0] < 3 && head[1] >= 8 && head[1] <= 32'768);
                  const std::string rest = read_exactly(fd, head[1] - sizeof head);
                  CHECK_EQ(rest.find_first_not_of(static_cast<char>('a' + head[0])), std::string::npos);
                }
                expect_end_of_stream(fd);
              },
          .client =
              [](int fd) {
                std::vector<std::thread> writers;
                for (uint32_t writer = 0; writer < 3; ++writer) {
                  writers.emplace_back([fd, writer] {
                    for (uint32_t i = 0; i < 150; ++i) {
                      const uint32_t head[2] = {writer, i % 5 == 0 ? 32'768 : 8 + (i * 7919 + writer * 131) % 32'760};
                      std::string record(head[1], static_cast<char>('a' + writer));
                      std::copy_n(reinterpret_cast<const char*>(head), sizeof head, record.begin());
                      CHECK_EQ(::write(fd, record.data(), record.size()), record.size());
                    }
                  });
                }
                for (std::thread& writer : writers) writer.join();
                ::close(fd);
              }};

// As long as only whole records are written, a read of one gets one.
BEHAVIOUR{.name = "three_readers_and_three_writers",
          .server =
              [](int fd) {
                std::atomic<uint64_t> sum{0}, count{0};
                std::vector<std::thread> readers;
                for (int i = 0; i < 3; ++i) {
                  readers.emplace_back([&] {
                    uint64_t record[8];
                    for (ssize_t n = 0; (n = ::read(fd, record, sizeof record)) != 0;) {
                      CHECK_EQ(n, sizeof record);
                      for (const uint64_t word : record) CHECK_EQ(word, record[0]);
                      sum += record[0], ++count;
                    }
                  });
                }
                for (std::thread& reader : readers) reader.join();
                CHECK_EQ(count.load(), 3 * 5000);
                CHECK_EQ(sum.load(), uint64_t{3} * 5000 * 4999 / 2);
              },
          .client =
              [](int fd) {
                std::vector<std::thread> writers;
                for (int i = 0; i < 3; ++i) {
                  writers.emplace_back([fd] {
                    for (uint64_t number = 0; number < 5000; ++number) {
                      uint64_t record[8];
                      std::fill(std::begin(record), std::end(record), number);
                      CHECK_EQ(::write(fd, record, sizeof record), sizeof record);
                      if (number % 500 == 3) sleep_ms(1);
                    }
                  });
                }
                for (std::thread& writer : writers) writer.join();
                ::close(fd);
              },
          .limit = kByFences};

}  // namespace
}  // namespace shunt::behaviour
