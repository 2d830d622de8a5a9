// The program's own call, wrapped for the connection floor: made with the same number and arguments as long as the bytes are the kernel's.
// On the stack of one call. Any thread.
#pragma once

#include "calls/kernel.h"
#include "connection/connection.h"

namespace shunt::calls {

// `make(fd)` is the call: ≥ 0 or −errno.
template <typename Make>
class Own final : public OwnCall {
 public:
  explicit Own(Make make) : OwnCall(run), make_(make) {}

 private:
  static long run(const OwnCall& self, int fd) { return static_cast<const Own&>(self).make_(fd); }
  Make make_;
};

}  // namespace shunt::calls
