// Blocking sockets for the workloads, written as any program would. One thread; an error ends the process with a
// message. Must not share code with the library.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace shunt::bench {

[[noreturn]] void die(const char* what);

// Owned by the caller, closed on exec.
int listening_socket(const std::string& path);
int connected_socket(const std::string& path);

void write_all(int fd, const std::vector<char>& data, size_t bytes);

// False at a clean end before the first byte.
bool read_all(int fd, std::vector<char>& data, size_t bytes);

}  // namespace shunt::bench
