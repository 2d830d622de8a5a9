// What a workload costs the machine beside time. One thread; an error ends the process with a message.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace shunt::bench {

// Raises the soft limit on descriptors, or ends with advice.
void allow_descriptors(uint64_t count);

// Bytes that processes and the kernel hold for them, on the whole machine: no page cache, no free memory.
double memory_in_use();

// User and system time of a process since its start.
double cpu_time_us(pid_t pid);

}  // namespace shunt::bench
