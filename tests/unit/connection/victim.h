// A member of a family that is killed in the middle of a call: a forked child, run instruction by instruction under
// ptrace, and killed where the memory that it shares has just changed, or a system call on the socket has just been
// made. Between two such places nothing can tell where it died.
#pragma once

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <functional>
#include <vector>

#include "bounded.h"
#include "stream_pair.h"

namespace shunt::testing {

class Victim {
 public:
  // `call` uses `pair`, in the child alone.
  Victim(const StreamPair& pair, const std::function<void()>& call) {
    cpu_set_t here;
    sched_getaffinity(0, sizeof all_, &all_);
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    sched_setaffinity(0, sizeof here, &here);  // a step costs two switches of process
    watch(pair.connector);
    watch(pair.acceptor);
    pid_ = fork_family();
    if (pid_ == 0) {
      ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      raise(SIGSTOP);
      call();
      syscall(SYS_exit_group, 0);
    }
    wait();
    before_ = seen();
  }
  ~Victim() {
    kill();
    sched_setaffinity(0, sizeof all_, &all_);
  }
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;

  // To the `places`-th place. False: the call was over before.
  bool run(int places) {
    for (int place = 0; alive_;) {
      const bool calls = is_at_call();
      step();
      if (!alive_) break;
      std::vector<uint8_t> now = seen();
      if (!calls && now == before_) continue;
      before_ = std::move(now);
      if (++place == places) return true;
    }
    return false;
  }
  void kill() {
    if (!alive_) return;
    ::kill(pid_, SIGKILL);
    while (alive_) wait();
  }

 private:
  void watch(int fd) {
    const Pin pin(fd);
    memory_.push_back({reinterpret_cast<const uint8_t*>(pin->side), sizeof(Side)});
    if (has_channel(*pin) && memory_.size() == 1) memory_.push_back({pin->channel.load(), kHeaderBytes});
  }
  std::vector<uint8_t> seen() const {
    std::vector<uint8_t> copy;
    for (const auto& [begin, bytes] : memory_) copy.insert(copy.end(), begin, begin + bytes);
    return copy;
  }
  // In front of a system call that moves bytes or changes the socket.
  bool is_at_call() const {
    user_regs_struct registers{};
    ptrace(PTRACE_GETREGS, pid_, nullptr, &registers);
    const long code = ptrace(PTRACE_PEEKTEXT, pid_, registers.rip, nullptr);
    if ((code & 0xffff) != 0x050f) return false;
    for (const long number : {SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_setsockopt, SYS_shutdown})
      if (static_cast<long>(registers.rax) == number) return true;
    return false;
  }
  void step() {
    ptrace(PTRACE_SINGLESTEP, pid_, nullptr, nullptr);
    wait();
  }
  void wait() {
    int status = 0;
    if (waitpid(pid_, &status, __WALL) == pid_ && (WIFEXITED(status) || WIFSIGNALED(status))) alive_ = false;
  }
  struct Watched {
    const uint8_t* begin;
    size_t bytes;
  };
  cpu_set_t all_;
  pid_t pid_;
  bool alive_ = true;
  std::vector<Watched> memory_;
  std::vector<uint8_t> before_;
};

}  // namespace shunt::testing
