// A behaviour: what two programs do with one stream connection, written against the kernel's socket first.
// Families register theirs before main; the runner turns each into one test per way.
#pragma once

#include <string>
#include <vector>

namespace shunt::behaviour {

enum class End { neither, server, client };

// Who has the library, and how it moves connections.
enum class Way {
  kernel,       // nobody: defines what is right
  both,         // both, as early as it can (eager), after a warm-up that brings both directions to the ring
  server_only,  // mixed pairs must work as if the library were not there
  client_only,
  chaos,      // both, demoted at random: several seeds
  cold,       // both and eager, but without the warm-up: upgraded somewhere in the middle of the behaviour
  automatic,  // both, as users get it
};

// Built with a sanitizer a process costs ten times as much: large families try a part of their cells. All of them are tried without.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

constexpr unsigned bit(Way way) { return 1U << static_cast<unsigned>(way); }

// Fences fall anywhere: a read may end early, a full stream may have room again.
constexpr unsigned kByFences = bit(Way::chaos);
// An edge may be told once more than the kernel would, when a registration is switched.
constexpr unsigned kByUpgrades = bit(Way::cold) | bit(Way::automatic) | bit(Way::chaos);
// The client's socket carries a marker.
constexpr unsigned kByMarkers = bit(Way::both) | bit(Way::client_only) | kByUpgrades;

// The connection may be on the ring.
constexpr unsigned kByBothAware = bit(Way::both) | kByUpgrades;

struct Behaviour {
  const char* name;
  void (*server)(int fd);        // fd is the accepted connection; owned by the part
  void (*client)(int fd);        // fd is the connected socket
  bool connects_itself = false;  // both parts get -1, and use the functions of role.h
  bool warms_up = true;          // false: a registration, a fork or a name is to be there before the upgrade
  bool leaves_ring = false;      // demotes, or stays on the kernel, by design
  bool was_upgraded = false;     // with leaves_ring: it was on the ring before, which is asked in `both`
  unsigned limit = 0;            // ways in which what it expects is a documented limit (docs/limits.md): kBy...
  End killed = End::neither;     // ends by SIGKILL, so it leaves no report
  const char* family = nullptr;  // filled in by Family
};

// A family is the file it stands in: SHUNT_FAMILY is defined for each by CMake.
struct Family {
  const char* name;
  bool operator<<(Behaviour behaviour) const;  // adds it to the table
};

// BEHAVIOUR{.name = ..., .server = ..., .client = ...};  No function-like macro, so that CHECK knows its own line.
#define SHUNT_JOIN_(a, b) a##b
#define SHUNT_JOIN(a, b) SHUNT_JOIN_(a, b)
#define BEHAVIOUR                                                                                          \
  [[maybe_unused]] const bool SHUNT_JOIN(registered_, __LINE__) = ::shunt::behaviour::Family{SHUNT_FAMILY} \
                                                                  << ::shunt::behaviour::Behaviour

const std::vector<Behaviour>& all_behaviours();

const char* name_of(Way way);
bool has_library(Way way, End end);

}  // namespace shunt::behaviour
