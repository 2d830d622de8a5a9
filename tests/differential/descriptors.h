// Takes the free descriptors below a number while it lives.
#pragma once

#include <unistd.h>

#include <vector>

namespace shunt::differential {

class Descriptors {
 public:
  explicit Descriptors(int below) {
    for (int fd = ::dup(STDERR_FILENO); fd >= 0; fd = ::dup(STDERR_FILENO)) {
      taken_.push_back(fd);
      if (fd >= below) break;
    }
  }
  ~Descriptors() {
    for (const int fd : taken_) ::close(fd);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

 private:
  std::vector<int> taken_;
};

}  // namespace shunt::differential
