// Writes the filter's few instructions. The library's code is found in /proc/self/maps; on the kernel alone nothing is.
#include "filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "check.h"

namespace shunt::behaviour {
namespace {

struct Range {
  uint64_t begin = 0, end = 0;
};

Range code_of_library() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("libshunt") == std::string::npos || line.find(" r-xp ") == std::string::npos) continue;
    size_t dash = 0;
    const uint64_t begin = std::stoull(line, &dash, 16);
    return {begin, std::stoull(line.substr(dash + 1), nullptr, 16)};
  }
  return {};
}

constexpr uint32_t low(uint64_t value) { return static_cast<uint32_t>(value); }
constexpr uint32_t high(uint64_t value) { return static_cast<uint32_t>(value >> 32); }

class Program {
 public:
  void load(size_t offset) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }
  void add(int code, uint32_t value, uint8_t if_true = 0, uint8_t if_false = 0) {
    code_.push_back({static_cast<uint16_t>(code), if_true, if_false, value});
  }
  void allow_unless(int comparison, uint32_t value) {
    add(BPF_JMP | comparison | BPF_K, value, 1, 0);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  void allow_if(int comparison, uint32_t value) {
    add(BPF_JMP | comparison | BPF_K, value, 0, 1);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  void refuse_if(int comparison, uint32_t value) {
    add(BPF_JMP | comparison | BPF_K, value, 0, 1);
    add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  }
  void install() {
    sock_fprog program{static_cast<unsigned short>(code_.size()), code_.data()};
    CHECK_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
  }

 private:
  std::vector<sock_filter> code_;
};

void answer_with_eperm(int, siginfo_t* information, void* context) {
  constexpr int kByFilter = 1;  // SYS_SECCOMP of <linux/signal.h>
  if (information->si_code != kByFilter) return;
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RAX] = -EPERM;
  errno = EILSEQ;
}

uint32_t action_of(Answer answer) {
  switch (answer) {
    case Answer::eperm:
      return SECCOMP_RET_ERRNO | EPERM;
    case Answer::enosys:
      return SECCOMP_RET_ERRNO | ENOSYS;
    case Answer::trap:
      return SECCOMP_RET_TRAP;
  }
  return SECCOMP_RET_KILL_PROCESS;
}

}  // namespace

const char* name_of(Answer answer) {
  switch (answer) {
    case Answer::eperm:
      return "EPERM";
    case Answer::enosys:
      return "ENOSYS";
    case Answer::trap:
      return "TRAP";
  }
  return "";
}

void refuse_librarys(long number, Answer answer, long first) {
  if (answer == Answer::trap) {
    struct sigaction action {};
    action.sa_sigaction = answer_with_eperm;
    action.sa_flags = SA_SIGINFO;
    CHECK_EQ(::sigaction(SIGSYS, &action, nullptr), 0);
  }
  const Range code = code_of_library();
  CHECK_EQ(high(code.begin), high(code.end));
  Program program;
  program.load(offsetof(seccomp_data, arch));
  program.allow_unless(BPF_JEQ, AUDIT_ARCH_X86_64);
  program.load(offsetof(seccomp_data, nr));
  program.allow_unless(BPF_JEQ, static_cast<uint32_t>(number));
  if (first != kAnyOperation) {
    program.load(offsetof(seccomp_data, args));
    program.allow_unless(BPF_JEQ, static_cast<uint32_t>(first));
  }
  program.load(offsetof(seccomp_data, instruction_pointer) + 4);
  program.allow_unless(BPF_JEQ, high(code.begin));
  program.load(offsetof(seccomp_data, instruction_pointer));
  program.allow_unless(BPF_JGE, low(code.begin));
  program.allow_if(BPF_JGE, low(code.end));
  program.add(BPF_RET | BPF_K, action_of(answer));
  program.install();
}

void enter(Sandbox sandbox) {
  constexpr auto docker = static_cast<unsigned>(Sandbox::docker), service = static_cast<unsigned>(Sandbox::service);
  constexpr struct {
    uint32_t number;
    unsigned sandboxes;
  } kRefused[] = {
#define SHUNT_REFUSED(name, sandboxes) {SYS_##name, sandboxes},
#include "sandboxes.def"
#undef SHUNT_REFUSED
  };
  constexpr uint32_t kNewest = SYS_set_mempolicy_home_node;  // that the lists know
  Program program;
  program.load(offsetof(seccomp_data, arch));
  program.allow_unless(BPF_JEQ, AUDIT_ARCH_X86_64);
  program.load(offsetof(seccomp_data, nr));
  for (const auto& [number, sandboxes] : kRefused)
    if ((sandboxes & static_cast<unsigned>(sandbox)) != 0) program.refuse_if(BPF_JEQ, number);
  program.refuse_if(BPF_JGT, kNewest);
  program.add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  program.install();
}

}  // namespace shunt::behaviour
