// One checked byte stream over one descriptor, moved by whatever call the dice choose. Any thread; a child after fork may go on.
// The first thing that is wrong ends the process with a line on standard error.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace shunt::stress {

extern thread_local const char* deed;  // what this thread is at, for the message of a failure
[[noreturn]] void fail(const char* file, int line, const std::string& what);

// splitmix64: the same seed gives the same choices, as far as threads allow.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  uint64_t next();
  uint32_t below(uint32_t limit) { return static_cast<uint32_t>(next() % limit); }
  bool one_in(uint32_t count) { return below(count) == 0; }

 private:
  uint64_t state_;
};

// What the connecting end asks of the accepting one: the first bytes of each connection.
enum class Task : uint32_t {
  echo,     // read `up` bytes and write `down`, in turns of `turn`
  one_way,  // read to the end of the stream, then write `down` and close
  late,     // wait a moment, then write `down`
  forked,   // as echo, by a child of the accepting process
};
struct Header {
  uint64_t seed;
  uint64_t up, down;
  uint32_t turn;
  Task task;
  uint32_t may_be_cut;  // the connecting end may be killed at any byte
  uint32_t zero;
};

// Bytes of the stream `seed` from `position` on.
void put_stream(uint64_t seed, uint64_t position, char* data, size_t count);
bool is_stream(uint64_t seed, uint64_t position, const char* data, size_t count);

// Blocking or not, whole; false at the end of the stream (reads) or when the peer is gone (writes).
bool read_whole(int fd, Dice& dice, char* data, size_t count);
bool write_whole(int fd, Dice& dice, const char* data, size_t count);
bool read_stream(int fd, Dice& dice, uint64_t seed, uint64_t position, uint64_t count);
bool write_stream(int fd, Dice& dice, uint64_t seed, uint64_t position, uint64_t count);

void expect_end(int fd);

// Turns of an echo from turn `begin` to `end`, as either end. False: cut.
bool ask_turns(int fd, Dice& dice, const Header& header, uint32_t begin, uint32_t end);
bool answer_turns(int fd, Dice& dice, const Header& header, uint32_t begin, uint32_t end);
inline uint32_t turns_of(const Header& header) { return static_cast<uint32_t>(header.up / header.turn); }

}  // namespace shunt::stress

#define CHECK(condition) \
  ((condition) ? (void)0 : ::shunt::stress::fail(__FILE__, __LINE__, #condition ": errno " + std::to_string(errno)))
