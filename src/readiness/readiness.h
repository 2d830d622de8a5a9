// poll, select and epoll over descriptors of which some are on the rings: three faces of look()
// (connection/connection.h). Any thread. Results ≥ 0 or −errno, as the system call's.
#pragma once

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

#include <csignal>
#include <ctime>

#include "sys/next.h"

namespace shunt {

// timeout null: for ever. The mask, if any, holds for the duration of the wait, as ppoll's. The call named is the program's: the kernel is asked by it.
long wait_poll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask, sys::PollCall call = sys::PollCall::ppoll);

// Updates the sets as select(2); writes the time that remained to `left` if not null.
long wait_select(int count, fd_set* read, fd_set* write, fd_set* except, const timespec* timeout, const sigset_t* mask,
                 timespec* left, sys::SelectCall call);

// After the kernel made `fd` (epoll_create*), so that registrations are remembered.
void note_epoll_created(int fd);
long control_epoll(int epoll_fd, int operation, int fd, epoll_event* event);
long wait_epoll(int epoll_fd, epoll_event* events, int room, const timespec* timeout, const sigset_t* mask, sys::EpollCall call);

// What connection/ and descriptors/ call through readiness_hooks.
struct Connection;
struct EpollSet;
void readiness_channel_appeared(Connection& connection);
bool readiness_may_upgrade(Connection& connection);
void readiness_demoted(Connection& connection);
void readiness_before_relay(Connection& connection);
void readiness_after_relay(Connection& connection);
void readiness_shut_down(Connection& connection);
void readiness_look_again(Connection& connection);
bool readiness_may_drain(Connection& connection);
void release_epoll_set(EpollSet* set);
void forget_registrations(Connection& connection, int fd);

// Fills readiness_hooks. Once, before main.
void install_readiness();

// From pthread_atfork: before_fork after that of descriptors/, the others before theirs.
void readiness_before_fork();
void readiness_after_fork_in_parent();
void readiness_after_fork_in_child(uint32_t parent);

}  // namespace shunt
