// Evidence of use: a connection leaves the kernel only after each end was seen to read it, to write it and to wait for it through the library.
// Called by send and receive before there is a channel, under no lock of the connection. Makes no call of its own before an upgrade is near.
#pragma once

#include "connection/connection.h"

namespace shunt {

// This end was seen to use the connection, lately too. Looks at memory alone.
bool has_evidence(const Connection& connection);

// Connector: binds the marker once there is evidence. Costs two loads as long as there is none.
void show_evidence(Connection& connection, int fd);
// Acceptor, before a write: looks for the connector's marker, at distances that double. True: an offer is due.
bool finds_evidence(Connection& connection, int fd);
// At the end of a connection that never had a channel: what kept it.
Reason reason_without_offer(const Connection& connection);
// A read of `asked` bytes from the kernel gave `got`, before there was a channel.
void note_read(Connection& connection, long got, size_t asked);
// A blocking read is to ask first whether it has to wait: only then its sleep is evidence.
bool wants_probe(const Connection& connection);

// SO_RCVTIMEO or SO_SNDTIMEO as the kernel has it now; 0 ns: none. False: the question was refused.
bool kernel_timeout(int fd, int option, uint64_t& ns);
// Takes over from the kernel what the program may have set past the library: O_NONBLOCK and the timeouts. Not none: why the connection has to stay.
Reason refresh_description(Connection& connection, int fd);

}  // namespace shunt
