// The table of behaviours. Filled by static constructors, one thread; read-only from main on.
#include "behaviour.h"

namespace shunt::behaviour {
namespace {

std::vector<Behaviour>& table() {
  static std::vector<Behaviour> behaviours;
  return behaviours;
}

}  // namespace

bool Family::operator<<(Behaviour behaviour) const {
  behaviour.family = name;
  table().push_back(behaviour);
  return true;
}

const std::vector<Behaviour>& all_behaviours() { return table(); }

const char* name_of(Way way) {
  switch (way) {
    case Way::kernel:
      return "kernel";
    case Way::both:
      return "both";
    case Way::server_only:
      return "server_only";
    case Way::client_only:
      return "client_only";
    case Way::chaos:
      return "chaos";
    case Way::cold:
      return "cold";
    case Way::automatic:
      return "auto";
  }
  return "";
}

bool has_library(Way way, End end) {
  switch (way) {
    case Way::kernel:
      return false;
    case Way::server_only:
      return end == End::server;
    case Way::client_only:
      return end == End::client;
    case Way::both:
    case Way::chaos:
    case Way::cold:
    case Way::automatic:
      return true;
  }
  return false;
}

}  // namespace shunt::behaviour
