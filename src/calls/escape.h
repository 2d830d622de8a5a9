// The ways out of the library's sight: exec, spawned programs, stdio, splice. Connections go back to the kernel first.
// Any thread.
#pragma once

#include <cstdarg>

#include "calls/common.h"

namespace shunt::calls {

// Before exec: what stays open in the new program leaves the ring. after_failed_exec() if exec returned.
void before_exec();
void after_failed_exec();
// exec of `path` cannot succeed, so nothing needs to be prepared: shells try one directory after the other.
bool exec_must_fail(const char* path);

// Before the program starts another one and goes on itself: posix_spawn, system, popen.
void before_spawn();
// `fd` will be open in a program to be spawned, under another number.
void before_inheritance(int fd);

// `fd` gets a FILE: libc reads and writes it by itself.
void before_stdio(int fd);
void before_splice(int from, int to);

// vdprintf on a connection: written out in full, as libc does. The number of bytes, −errno, or kPassOn. `check`:
// __vdprintf_chk's flag.
long vdprintf(int fd, int check, const char* format, va_list arguments);

// At the end of the process: adds what the live connections did to the totals.
void fold_live_connections();

}  // namespace shunt::calls
