// What a part may ask of its own role process: connections, and a side channel of pipes to the other role.
// The side channel orders the two programs in time without touching the connection that is tested.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <optional>
#include <string>

#include "behaviour.h"

namespace shunt::behaviour {

// The part of main() for the processes that the runner starts; nullopt in the runner itself.
std::optional<int> run_role(int argc, char** argv);

Way current_way();
End current_end();
std::string scratch_file(const std::string& name);  // in the private directory of this pair

// One word to the other role; await_peer returns what the next tell_peer there said.
void tell_peer(uint32_t word = 0);
uint32_t await_peer();
// Before a write: until the other end, which reads next, is asleep, or for a moment at least. An end is upgraded only after it was seen to wait.
void let_reader_wait(int fd);

// Pieces of the connection's beginning, for parts that connect themselves.
struct Address {
  sockaddr_un name{};
  socklen_t length = 0;
};
Address path_address();      // a path in the private directory
Address abstract_address();  // an abstract name of this pair's own
int listen_at(const Address& address, int backlog = 16);
int connect_to(const Address& address);  // blocking
int accept_at(int listener);

// Echo rounds that bring both directions of an eager pair to the ring.
void warm_up_server(int fd);
void warm_up_client(int fd);

// A further connection of the same pair, warmed up; one role calls one, the other the other.
int accept_another();
int connect_another();

}  // namespace shunt::behaviour
