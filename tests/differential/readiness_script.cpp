// Makes readiness scripts: mostly interest, waiting and bytes, seldom an end.
#include "readiness_script.h"

#include <sys/epoll.h>

#include <random>
#include <utility>

namespace shunt::differential {
namespace {

struct Choice {
  Act act;
  int weight;
  const char* name;
};

constexpr Choice kChoices[] = {
    {Act::add, 90, "EPOLL_CTL_ADD"},
    {Act::modify, 60, "EPOLL_CTL_MOD"},
    {Act::remove, 35, "EPOLL_CTL_DEL"},
    {Act::wait, 160, "epoll_wait"},
    {Act::nest, 1, "the first set into another"},
    {Act::poll, 50, "poll"},
    {Act::select, 30, "select"},
    {Act::peer_writes, 90, "the peer writes"},
    {Act::peer_reads, 40, "the peer reads"},
    {Act::peer_shuts, 3, "the peer's shutdown"},
    {Act::peer_closes, 3, "the peer closes"},
    {Act::peer_sends_urgent, 1, "the peer sends MSG_OOB"},
    {Act::writes, 40, "write"},
    {Act::reads, 80, "read"},
    {Act::fills, 6, "write until EAGAIN"},
    {Act::shuts, 3, "shutdown"},
    {Act::duplicate, 8, "dup"},
    {Act::closes, 8, "close"},
    {Act::reopens, 8, "close and connect anew"},
    {Act::others, 12, "a pipe and an eventfd"},
};

const char* name_of(Act act) {
  for (const Choice& choice : kChoices)
    if (choice.act == act) return choice.name;
  return "";
}

using Random = std::mt19937_64;

uint32_t interest_from(Random& random) {
  uint32_t events = 0;
  if (random() % 4 != 0) events |= EPOLLIN;
  if (random() % 3 == 0) events |= EPOLLOUT;
  if (random() % 3 == 0) events |= EPOLLRDHUP;
  if (random() % 8 == 0) events |= EPOLLPRI;
  if (random() % 2 == 0) events |= EPOLLET;
  if (random() % 4 == 0) events |= EPOLLONESHOT;
  if (random() % 150 == 0) events |= EPOLLEXCLUSIVE;
  return events;
}

// Most interest is in connections.
int slot_from(Random& random) {
  return static_cast<int>(random() % 6 == 0 ? random() % kSlots : random() % kConnections);
}

Late late_from(Random& random) {
  switch (random() % 40) {
    case 0:
    case 1:
    case 2:
      return Late::writes;
    case 3:
      return random() % 4 == 0 ? Late::shuts : Late::nothing;
    case 4:
      return random() % 4 == 0 ? Late::closes : Late::nothing;
    default:
      return Late::nothing;
  }
}

}  // namespace

Plan plan_of(uint64_t seed) {
  Random random(seed);
  std::vector<int> weights;
  for (const Choice& choice : kChoices) weights.push_back(choice.weight);
  std::discrete_distribution<size_t> pick(weights.begin(), weights.end());
  Plan plan{.unaware = static_cast<uint32_t>(random() % 3 == 0 ? random() : 0),
            .accepted = static_cast<uint32_t>(random()),
            .warmed_up = static_cast<uint32_t>(random()),
            .steps = std::vector<Step>(20 + random() % 160)};
  for (Step& step : plan.steps) {
    step = {.act = kChoices[pick(random)].act,
            .set = static_cast<int>(random() % kSets),
            .slot = slot_from(random),
            .events = interest_from(random),
            .size = static_cast<uint32_t>(1 + random() % (random() % 2 == 0 ? 3 : 1500)),
            .manner = static_cast<uint32_t>(random()),
            .late = Late::nothing};
    if (step.act == Act::poll || step.act == Act::select) step.events = static_cast<uint32_t>(random());
    if (step.act == Act::wait) step.size = static_cast<uint32_t>(random() % 4 == 0 ? 1 + random() % 3 : 32);
    if (step.act == Act::wait || step.act == Act::poll || step.act == Act::select) step.late = late_from(random);
  }
  return plan;
}

std::string shown_events(uint32_t events) {
  constexpr std::pair<uint32_t, const char*> kNames[] = {
      {EPOLLIN, "IN"},         {EPOLLOUT, "OUT"}, {EPOLLRDHUP, "RDHUP"},     {EPOLLPRI, "PRI"},            {EPOLLERR, "ERR"},
      {EPOLLHUP, "HUP"},       {EPOLLET, "ET"},   {EPOLLONESHOT, "ONESHOT"}, {EPOLLEXCLUSIVE, "EXCLUSIVE"}};
  std::string text;
  for (const auto& [bit, name] : kNames) {
    if (events & bit) text += (text.empty() ? "" : "|") + std::string(name);
    events &= ~bit;
  }
  if (events != 0) text += "+" + std::to_string(events);
  return text.empty() ? "0" : text;
}

std::string shown(const Step& step) {
  std::string text = name_of(step.act);
  const std::string slot = " slot " + std::to_string(step.slot);
  const std::string set = " set " + std::to_string(step.set);
  switch (step.act) {
    case Act::add:
    case Act::modify:
      return text + set + slot + " " + shown_events(step.events);
    case Act::remove:
      return text + set + slot;
    case Act::wait:
      text += set + " room " + std::to_string(step.size);
      break;
    case Act::poll:
    case Act::select:
      text += " of " + std::to_string(step.events % (1U << kSlots));
      break;
    default:
      text += slot + " " + std::to_string(step.size);
  }
  constexpr const char* kLate[] = {"", ", meanwhile the peer writes", ", meanwhile the peer shuts",
                                   ", meanwhile the peer closes"};
  return text + kLate[static_cast<int>(step.late)] + (step.late == Late::nothing ? "" : slot);
}

}  // namespace shunt::differential
