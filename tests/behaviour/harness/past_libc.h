// The matrix of single calls past libc: one end makes one kind of call by an instruction of its own, which no library
// sees; everything else goes through libc. One conversation engine, tables of operations in families/past_libc*.cpp.
// The roles' main thread only.
#pragma once

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "behaviour.h"
#include "role.h"

namespace shunt::behaviour {

// A system call made here. Returns and sets errno as libc does.
template <class... Arguments>
long by_instruction(long number, Arguments... arguments) {
  const auto word = [](auto argument) {
    if constexpr (std::is_null_pointer_v<decltype(argument)>) {
      return 0L;
    } else if constexpr (std::is_pointer_v<decltype(argument)>) {
      return reinterpret_cast<long>(argument);
    } else {
      return static_cast<long>(argument);
    }
  };
  const std::array<long, 6> words{word(arguments)...};
  long result = number;
  register long r10 asm("r10") = words[3];
  register long r8 asm("r8") = words[4];
  register long r9 asm("r9") = words[5];
  asm volatile("syscall"
               : "+a"(result)
               : "D"(words[0]), "S"(words[1]), "d"(words[2]), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

// The calls of a conversation. Each as libc's: -1 and errno.
struct Calls {
  ssize_t (*receive)(int fd, char* data, size_t size);
  ssize_t (*send)(int fd, const char* data, size_t size);
  int (*poll)(pollfd* one, int timeout_ms);
  int (*epoll_create)(int flags);
  int (*epoll_ctl)(int set, int operation, int fd, epoll_event* event);
  int (*epoll_wait)(int set, epoll_event* events, int most, int timeout_ms);
};
extern const Calls kThroughLibc;

// How an end waits for input. All but the first have O_NONBLOCK set, by libc.
enum class Mode { blocking, poll, level, edge, one_shot };
constexpr unsigned bit(Mode mode) { return 1U << static_cast<unsigned>(mode); }
constexpr unsigned kAllModes = 31;
constexpr unsigned kEpollModes = bit(Mode::level) | bit(Mode::edge) | bit(Mode::one_shot);

// The connection was reset, or the other role says that it was. Ends a cell, where a reset is allowed.
struct Reset {};

// One end's part of a conversation: numbered bytes both ways, whatever the calls that move them.
class Talk {
 public:
  Talk(int connection, Mode how, bool may_be_reset);
  ~Talk();
  Talk(const Talk&) = delete;
  Talk& operator=(const Talk&) = delete;

  void round(int number);  // one request and its answer; the client asks
  void put(uint64_t count);
  void take(uint64_t count);
  // The same, without waiting first: the calls themselves must wait.
  void put_at_once(uint64_t count);
  void take_at_once(uint64_t count);
  uint64_t fill();  // until EAGAIN
  void expect_end();
  void expect_next(const std::string& data);  // it has been received
  // `result` is that of a call that has just found nothing to do.
  void expect_again(ssize_t result);
  void expect_refusal();  // a write gives EPIPE
  // A call that failed, or found the end: fails unless it is a reset and may be one; else throws Reset.
  [[noreturn]] void ended(ssize_t result);

  void wait_with(Mode how);            // from now on
  void arm(int operation);             // EPOLL_CTL_ADD or _MOD, with a new data word
  void disarm();                       // EPOLL_CTL_DEL
  bool is_told(int timeout_ms) const;  // epoll_wait has an event
  void replace(int connection);        // goes on with another one; the old number was closed by the caller
  void close();

  // Order between the roles. hear() throws Reset when the other has given up.
  void tell(uint32_t word = 0);
  uint32_t hear();
  void part();  // both are done; called once

  int fd;
  int used;        // read and written: fd, or a duplicate
  int spare = -1;  // a duplicate that is not used at the moment
  Mode mode;
  Mode asked_mode = Mode::blocking;  // the cell's
  const bool lenient;
  Calls calls = kThroughLibc;
  int set = -1;
  uint64_t sent = 0, received = 0;  // positions

  std::string wanted(size_t count, uint64_t ahead = 0) const;  // what is to be received next

 private:
  void await_input(bool at_end);
  void check_event(uint32_t events, bool at_end) const;

  uint64_t word_ = 0;
  bool armed_ = false, readable_ = false, other_is_over_ = false;
};

// A further connection of the pair. Either role may accept; how is up to the caller.
struct Meeting {
  int (*connect)(const Address& address) = connect_to;
  int (*accept)(int listener) = accept_at;
};
int meet(bool accepts, const Meeting& how = {});

enum class When { first, later };

// What the actor does past libc. `settle` runs once: at the beginning, or right before `act`. `act` and `face` run
// once, before the message from which on the actor makes `calls` and the other end `others`; `each` before every
// further message at the actor, `each_facing` at the other, and once behind the last.
struct Operation {
  const char* name;
  Calls calls = kThroughLibc;
  Calls others = kThroughLibc;
  void (*settle)(Talk& talk) = nullptr;
  void (*act)(Talk& talk) = nullptr;
  void (*face)(Talk& talk) = nullptr;
  void (*each)(Talk& talk, int messages) = nullptr;
  void (*each_facing)(Talk& talk, int messages) = nullptr;
  unsigned modes = kAllModes;
  bool begins_blocking = false;  // the mode is entered by `act`
  bool ends = false;             // no message follows
  bool slow = false;             // waits for clocks, or moves much: fewer moments
  bool first_is_limit = false;   // it cannot be seen from the first moment either (docs/limits.md)
  bool later_is_limit = false;   // from the middle of an accelerated connection on it is a documented limit (docs/limits.md)
  bool fences_are_limit = false; // so it is only where the connection leaves the ring at that moment
};

// One cell of the matrix: every mode and, for `later`, every moment.
void run_cell(const Operation& operation, When when, End actor);
// All through libc: the engine itself must be accelerated.
void run_control(Mode mode);

template <const auto& kTable, size_t kIndex, When kWhen, End kActor>
void past_libc_part(int) {
  run_cell(kTable[kIndex], kWhen, kActor);
}

const char* cell_name(const Operation& operation, When when, End actor);

constexpr unsigned limit_of(const Operation& operation, When when) {
  if (when == When::later ? operation.later_is_limit : operation.first_is_limit) return kByBothAware;
  return when == When::later && operation.fences_are_limit ? kByFences : 0;
}

template <const auto& kTable, size_t kIndex, When kWhen, End kActor>
bool add_cell(Family family) {
  return family << Behaviour{.name = cell_name(kTable[kIndex], kWhen, kActor),
                             .server = past_libc_part<kTable, kIndex, kWhen, kActor>,
                             .client = past_libc_part<kTable, kIndex, kWhen, kActor>,
                             .connects_itself = true,
                             .leaves_ring = true,
                             .was_upgraded = kWhen == When::later,
                             .limit = limit_of(kTable[kIndex], kWhen)};
}

template <const auto& kTable, size_t kIndex>
bool add_operation(Family family) {
  return add_cell<kTable, kIndex, When::first, End::server>(family) &&
         add_cell<kTable, kIndex, When::first, End::client>(family) &&
         add_cell<kTable, kIndex, When::later, End::server>(family) &&
         add_cell<kTable, kIndex, When::later, End::client>(family);
}

template <const auto& kTable>
bool add_operations(Family family) {
  return [family]<size_t... kIndex>(std::index_sequence<kIndex...>) {
    return (add_operation<kTable, kIndex>(family) && ...);
  }
  (std::make_index_sequence<std::size(kTable)>());
}

}  // namespace shunt::behaviour
