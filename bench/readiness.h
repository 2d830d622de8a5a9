// The two processes of the readiness workload: one epoll set with many connections, of which few have traffic.
// One thread each. Must not share code with the library.
#pragma once

#include "workload.h"

namespace shunt::bench {

void serve_many(const Task& task, int listener);
void drive_hot(const Task& task);

}  // namespace shunt::bench
