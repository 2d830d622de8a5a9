// Start-up order, fork, and the end. Must not allocate; runs before main, on one thread.
#include "interpose/start.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/auxv.h>

#include <csignal>
#include <cstring>

#include "calls/escape.h"
#include "calls/policy.h"
#include "config/options.h"
#include "interpose/handlers.h"
#include "interpose/inheritance.h"
#include "interpose/next.h"
#include "observe/report.h"
#include "readiness/readiness.h"
#include "sys/raw.h"
#include "sys/signal_mask.h"
#include "wait/held_back.h"
#include "wait/prepare.h"

namespace shunt::interpose {

constinit std::atomic<State> state{State::waiting};

namespace {

constinit Options options{};
constinit char program[4096] = {};
constinit std::atomic<bool> end_reported{false};
// Between before and after only one thread is here.
constexpr uint64_t kBlockedAtFork = ~sys::kForcedSignals;
constinit uint64_t mask_at_fork = 0;
constinit bool blocked_at_fork = false;  // else a filter refused

void set_program(const char* path) {
  for (size_t i = 0; i + 1 < sizeof program && path[i]; ++i) program[i] = path[i], program[i + 1] = '\0';
}

const char* file_name(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

// Who asked for nothing that names the program.
bool is_named(char** environment) {
  static constexpr const char* kNamed[] = {"SHUNT_ONLY=", "SHUNT_SKIP=", "SHUNT_REPORT=", "SHUNT_LOG="};
  for (; environment && *environment; ++environment)
    for (const char* option : kNamed)
      if (strncmp(*environment, option, strlen(option)) == 0) return true;
  return false;
}

// The whole path of the executable; but a program of several names (by symbolic links) goes by the one it was called
// by.
void read_program_path(char** environment) {
  const auto* called = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  if (!is_named(environment)) return set_program(called ? called : "");
  const long length = sys::raw(SYS_readlink, "/proc/self/exe", program, sizeof program - 1);
  program[length > 0 ? length : 0] = '\0';
  const bool is_name = called && strncmp(called, "/dev/fd/", 8) != 0 && strncmp(called, "/proc/", 6) != 0;
  if (is_name && strcmp(file_name(called), file_name(program)) != 0) set_program(called);
}

void set_behaviour() {
  switch (options.upgrade) {
    case Upgrade::automatic:
      return;
    case Upgrade::never:
      behaviour.offers = false;
      calls::refuse_from_now_on(Reason::never);
      return;
    case Upgrade::chaos:
      behaviour.chaos = true;
      behaviour.chaos_seed = options.chaos_seed;
      [[fallthrough]];
    case Upgrade::eager:
      behaviour.calls_before_evidence = 2;
      behaviour.waits_before_evidence = 1;
      behaviour.reads_before_probes = 0;
      behaviour.writes_before_offer = 0;
      return;
  }
}

// A library before us may have a clock of its own (faketime); this one is found by no name that it could have.
void find_clock() {
  void* vdso = dlopen("linux-vdso.so.1", RTLD_NOLOAD | RTLD_NOW);
  if (vdso) sys::vdso_clock = reinterpret_cast<int (*)(clockid_t, timespec*)>(dlsym(vdso, "__vdso_clock_gettime"));
  dlerror();
}

bool start(char** environment) {
  options = read_options(environment, program);
  if (options.excluded || getauxval(AT_SECURE) != 0) return false;
  set_log(options);
  set_behaviour();
  find_clock();
  patience.start(options.spin_us);
  note_process();
  install_readiness();
  pthread_atfork(before_any_fork, [] { after_any_fork_in_parent(Born::yes); }, after_any_fork_in_child);
  return true;
}

bool start_once(char** environment) {
  State waiting = State::waiting;
  if (!state.compare_exchange_strong(waiting, State::starting)) return waiting == State::active;
  const int saved = errno;
  resolve();
  read_program_path(environment);
  if (getauxval(AT_SECURE) == 0) note_inheritance(environment);
  const bool works = start(environment);
  protect_copies = install_handlers_of_faults;
  state.store(works ? State::active : State::inactive, std::memory_order_release);
  errno = saved;
  return works;
}

// The loader hands the environment to constructors; libc's own copy may not be there yet.
[[gnu::constructor(101)]] void load(int, char**, char** environment) { start_once(environment); }

[[gnu::destructor(101)]] void unload() { report_end("exit"); }

}  // namespace

bool start_early() { return environ ? start_once(environ) : false; }

void before_any_fork() {
  uint64_t mask = 0;
  const bool blocked = sys::block_signals(kBlockedAtFork, mask);
  note_fork();
  before_fork();  // the upgrade lock comes before readiness's registry lock, as in an upgrade
  readiness_before_fork();
  mask_at_fork = mask;
  blocked_at_fork = blocked;
}

void after_any_fork_in_parent(Born born) {
  const uint64_t mask = mask_at_fork;
  const bool blocked = blocked_at_fork;
  readiness_after_fork_in_parent();
  after_fork_in_parent(born);
  calls::spoil_all();
  if (blocked) sys::restore_mask(mask, kBlockedAtFork);
}

void after_any_fork_in_child() {
  const uint32_t parent = forget_thread_id();
  note_inherited_duties();
  readiness_after_fork_in_child(parent);
  after_fork_in_child(parent);
  calls::spoil_all();
  handlers_after_fork_in_child();
  end_reported.store(false);
  if (blocked_at_fork) sys::restore_mask(mask_at_fork, kBlockedAtFork);
  drop_held_back();
}

void report(const char* why) {
  if (state.load() != State::active || !options.report_file[0] || in_foreign_process()) return;
  calls::fold_live_connections();
  write_report(options, program, why);
  reset_totals();
}

void report_end(const char* why) {
  if (state.load() != State::active || !options.report_file[0] || in_foreign_process()) return;
  if (!end_reported.exchange(true)) report(why);
}

}  // namespace shunt::interpose
