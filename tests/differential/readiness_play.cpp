// The lock step of readiness, and what may differ in it: docs/limits.md has the reasons.
#include "readiness_play.h"

#include <sys/epoll.h>

#include <algorithm>
#include <set>
#include <utility>

#include "readiness_world.h"
#include "shrink.h"

namespace shunt::differential {
namespace {

constexpr size_t kMostInFlight = 10'000;  // so little that neither a ring nor the kernel's buffer calls itself full
constexpr int kMostWrites = 10;
constexpr int kLongestSleep_ms = 1000;    // of a wait that the reference saw end
constexpr int kReferenceSleep_ms = 3;

std::string shown_seen(const Seen& seen) {
  std::string text = std::to_string(seen.result) + (seen.error != 0 ? " errno " + std::to_string(seen.error) : "");
  for (const auto& [data, events] : seen.events)
    text += " [" + std::to_string(data) + "] " + shown_events(events);
  return text;
}

class Worlds {
 public:
  Worlds(const Plan& plan, const Setting& setting)
      : plan_(plan),
        tested_(plan, setting.directory, setting.first_descriptor),
        reference_(plan, "", 0) {}

  // False when the answers differ; `text` then says how.
  bool step(size_t number, Step step, std::string& text) {
    Flow& out = out_[step.slot % kConnections];
    Flow& in = in_[step.slot % kConnections];
    if (step.act == Act::peer_writes && !in.takes(step.size)) return true;
    if (step.act == Act::writes && !out.takes(step.size)) return true;
    if (leaves_ring(step) && (any_in_flight() || outlived_)) return true;
    if (step.act == Act::peer_reads && out.full) step.size = ~0U;  // what a full buffer holds is not compared
    const uint64_t data = number;
    const bool asks = step.act == Act::wait || step.act == Act::poll || step.act == Act::select;
    Seen tested = tested_.apply(step, data, 0);
    Seen reference = reference_.apply(step, data, 0);
    if (step.act == Act::peer_reads && out.full) tested.result = reference.result = 0, tested.error = reference.error = 0;
    if (!agree(step, tested, reference)) return differs(step, tested, reference, text);
    if (asks && step.late != Late::nothing && idle(step, reference)) {
      reference = reference_.apply(step, data, kReferenceSleep_ms);
      tested = tested_.apply(step, data, idle(step, reference) ? kReferenceSleep_ms : kLongestSleep_ms);
      if (step.late == Late::writes) in.add(1);
      if (!agree(step, tested, reference)) return text = "asleep: ", differs(step, tested, reference, text);
    }
    nested_ = nested_ || step.act == Act::nest;
    outlived_ = outlived_ || step.act == Act::duplicate;
    follow(step, reference, in, out);
    return true;
  }

 private:
  struct Flow {
    size_t bytes = 0;
    int writes = 0;
    bool full = false;
    bool takes(size_t size) const { return !full && writes < kMostWrites && bytes + size <= kMostInFlight; }
    void add(size_t size) { bytes += size, ++writes; }
    void take(size_t size) {
      bytes -= std::min(bytes, size);
      if (bytes == 0) *this = {};
    }
  };

  // An upgrade brings room to a connection whose kernel buffer is full.
  static uint32_t room_bits(bool full) { return full ? EPOLLOUT : 0U; }
  bool any_full() const {
    return std::any_of(std::begin(out_), std::end(out_), [](const Flow& out) { return out.full; });
  }

  // Unread bytes go back to the kernel with the peer's help, and here both ends are one thread; and of what the peer still
  // reads from the ring the kernel makes no edge.
  bool leaves_ring(const Step& step) const {
    return step.act == Act::nest ||
           (step.act == Act::add && ((step.events & EPOLLEXCLUSIVE) || (nested_ && step.set == 0)));
  }
  bool any_in_flight() const {
    const auto has_bytes = [](const Flow& flow) { return flow.bytes > 0; };
    return std::any_of(std::begin(in_), std::end(in_), has_bytes) || std::any_of(std::begin(out_), std::end(out_), has_bytes);
  }

  static bool differs(const Step& step, const Seen& tested, const Seen& reference, std::string& text) {
    text += shown(step) + ": got " + shown_seen(tested) + ", the kernel says " + shown_seen(reference);
    return false;
  }

  void follow(const Step& step, const Seen& seen, Flow& in, Flow& out) {
    const int connection = step.slot % kConnections;
    const auto size = static_cast<size_t>(std::max(0L, seen.result));
    switch (step.act) {
      case Act::peer_sends_urgent:
        loses_edges_.insert(connection);
        return in.add(size);
      case Act::peer_writes:
        return in.add(size);
      case Act::reads:
        return in.take(size);
      case Act::writes:
        return out.add(size);
      case Act::peer_reads:
        return out.full ? void(out = {}) : out.take(size);
      case Act::fills:
        if (seen.error == EAGAIN) out.full = true;
        return;
      case Act::reopens:
        in = out = {};
        loses_edges_.erase(connection);
        return;
      case Act::peer_shuts:
        if (step.size % 3 != 1) loses_edges_.insert(connection);
        return;
      default:
        return;
    }
  }

  bool agree(const Step& step, Seen& tested, const Seen& reference) {
    if (step.act != Act::wait) return tested == reference || any_full();
    if (tested.result != reference.result || tested.error != reference.error) return false;
    // What happened before something that is told is told with it: here all of it did. Only where room is short may the rest be left to the next.
    const bool has_room = step.size >= kSlots;
    const bool all_told = std::all_of(reference.events.begin(), reference.events.end(),
                                      [&](const auto& event) { return tested.events.count(event.first) > 0; });
    if (!has_room && !tested.events.empty() && !all_told) {
      Step again = step;
      again.late = Late::nothing;
      tested.events.merge(tested_.apply(again, 0, 0).events);
    }
    std::set<uint64_t> registrations;
    for (const Seen* seen : {&std::as_const(tested), &reference})
      for (const auto& [data, events] : seen->events) registrations.insert(data);
    for (const uint64_t data : registrations) {
      const auto ours = tested.events.find(data);
      const auto kernels = reference.events.find(data);
      const Step& request = plan_.steps[data];
      const bool full = out_[request.slot % kConnections].full;
      if (ours != tested.events.end() && kernels != reference.events.end()) {
        if ((ours->second ^ kernels->second) & ~room_bits(full)) return false;
        continue;
      }
      if (full && (ours != tested.events.end() ? ours : kernels)->second == EPOLLOUT) {
        for (World* world : {&tested_, &reference_}) world->rearm(request, data);
        continue;
      }
      if (request.act == Act::nest && ours != tested.events.end()) continue;  // the members were registered anew
      const bool edge = request.act != Act::nest && (request.events & EPOLLET);
      // One edge more, as long as it is true; one less after the peer's SHUT_RD or MSG_OOB.
      const bool more =
          ours != tested.events.end() && (ours->second & ~(reference_.truth(request.slot) | room_bits(full))) == 0;
      const bool less = kernels != reference.events.end() && loses_edges_.count(request.slot % kConnections) > 0;
      if (!edge || !(more || less)) return false;
      for (World* world : {&tested_, &reference_}) world->rearm(request, data);
    }
    return true;
  }

  const Plan& plan_;
  World tested_;
  World reference_;
  Flow in_[kConnections];
  Flow out_[kConnections];
  bool nested_ = false;
  bool outlived_ = false;  // a registration may be known to the kernel by a number that is closed
  std::set<int> loses_edges_;  // connections after the peer's SHUT_RD or MSG_OOB
};

}  // namespace

std::optional<std::string> difference(const Plan& plan, const Setting& setting) {
  Worlds both(plan, setting);
  std::string text;
  for (size_t i = 0; i < plan.steps.size(); ++i)
    if (!both.step(i, plan.steps[i], text)) return "step " + std::to_string(i) + ", " + text;
  return std::nullopt;
}

Plan shortest(Plan plan, const Setting& setting) {
  plan.steps = shortest_of(std::move(plan.steps), [&](const std::vector<Step>& steps) {
    Plan candidate = plan;
    candidate.steps = steps;
    return difference(candidate, setting).has_value();
  });
  return plan;
}

}  // namespace shunt::differential
