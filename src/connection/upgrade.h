// Offer and attach: how a connection gets its channel. Called by send and receive, under no lock of the connection.
// Takes the process-wide upgrade lock, which fork holds too: a child is born before or after, never in between.
#pragma once

#include "connection/connection.h"

namespace shunt {

extern FamilyLock upgrade_lock;

// Creates the channel and sends it with the first bytes of `request`. Returns the bytes sent, or −EAGAIN: not now, or never; write as before.
long offer(Connection& connection, int fd, const SendRequest& request);

// Connector: `item` of the control data that came with bytes may be an offer. True: it was; it is attached or refused, and its descriptor is closed.
bool take_offer(Connection& connection, int fd, const cmsghdr& item);

// Counts this thread's kernel call as in flight unless a channel exists or is being made.
class KernelCall : Duty {
 public:
  enum class Kind : uint8_t { read, write };
  KernelCall(Connection& connection, int fd, Kind kind);
  ~KernelCall();
  // A read ends under read_lock, where its bytes were counted.
  void end();
  explicit operator bool() const { return counted_ != 0; }

 private:
  static void undo(Duty& duty);
  static void go_on(Duty& duty, Whose whose);
  static constexpr Fate kFate{undo, nullptr, go_on};
  std::atomic<uint32_t>& calls() const;
  Connection& connection_;
  int fd_;
  Kind kind_;
  uint32_t counted_ = 0;
};

}  // namespace shunt
