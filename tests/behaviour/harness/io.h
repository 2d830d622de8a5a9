// Small helpers for the parts: a reproducible byte stream, whole reads and writes, time.
// Any thread. Each ends the process through CHECK when the kernel's answer is not the expected one.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>

namespace shunt::behaviour {

// The byte stream that every test uses: the bytes at [position, position + count) of one fixed sequence, so that a
// lost, doubled or reordered byte is seen where it happens.
std::string bytes_at(uint64_t position, size_t count);
// Says how far `data` agrees with the stream from `position` on.
size_t agreeing(const std::string& data, uint64_t position);

// Blocking descriptors. Partial results are continued; EINTR is a failure.
void write_all(int fd, const std::string& data);
std::string read_exactly(int fd, size_t count);
std::string read_some(int fd, size_t most);  // one read; empty at the end of the stream

// `count` bytes of the stream, in writes or reads of at most `chunk`.
void write_stream(int fd, uint64_t position, uint64_t count, size_t chunk);
void read_stream(int fd, uint64_t position, uint64_t count, size_t chunk);
uint64_t read_stream_to_end(int fd, uint64_t position, size_t chunk);  // returns the bytes read

void expect_end_of_stream(int fd);  // a read returns 0, twice

// Non-blocking descriptor: writes the stream until EAGAIN; returns the bytes that were accepted.
uint64_t fill(int fd, uint64_t position, size_t chunk);

// One descriptor, with one byte beside it, over a socket.
void send_descriptor(int socket, int passed);
int receive_descriptor(int socket);

void set_blocking(int fd, bool blocking);
bool is_readable(int fd, int timeout_ms);

void sleep_ms(int milliseconds);
double now_ms();                                  // monotonic
double cpu_ms();                                  // user and system time of this process
int in_child(const std::function<void()>& body);  // fork; returns the child's pid; the child ends after `body`
void join_child(int pid);                         // the child must have ended with 0
bool is_sleeping(int thread_id);                   // in the kernel
void await_sleeping(int thread_id);               // until that thread, of any process, sleeps in the kernel
// Two threads that are in calls on a connection, one after the other: a peek, a poll. Until the end of its life.
class CallsBeside {
 public:
  explicit CallsBeside(int fd);
  ~CallsBeside();
  CallsBeside(const CallsBeside&) = delete;
  CallsBeside& operator=(const CallsBeside&) = delete;

 private:
  std::atomic<bool> over_ = false;
  std::thread peeks_, polls_;
};

}  // namespace shunt::behaviour
