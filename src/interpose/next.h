// The next library's functions: what a wrapper calls when the library has nothing to add.
// Any thread, any context, also before main and before our own constructor. A pointer is never null: until it is
// resolved it leads to a stand-in that resolves all of them, or, within that, makes the raw system call.
#pragma once

#include <poll.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <wordexp.h>

#include <csignal>
#include <cstdarg>
#include <cstdio>

struct aiocb;
struct file_handle;
struct mq_attr;
struct termios;
struct winsize;

namespace shunt::interpose {

using Handler = void (*)(int);

template <typename T>
using Pointer = T*;

struct Next {
#define SHUNT_SYMBOL(name, number, words, ...) Pointer<__VA_ARGS__> name;
#include "interpose/symbols.def"
};
extern Next next;

// Once; returns at once when another thread, or this one further up, is at it.
void resolve();

}  // namespace shunt::interpose
