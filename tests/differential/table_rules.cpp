// All that may differ in the table of readiness. Nothing else in the test knows of a difference.
#include <poll.h>

#include <cerrno>

#include "table_play.h"

namespace shunt::differential {
namespace {

constexpr long kRoom = POLLOUT | POLLWRNORM | POLLWRBAND;
constexpr long kSelectedRoom = 2;

bool is_of_watched_edge(Question question) {
  return question >= Question::watched_edge && question <= Question::watched_input_again;
}

bool is_edge_again(const Cell&, const Setup& setup, Question question, const Answers& ours, const Answers& kernels) {
  const bool settled = setup.is == Stand::on_rings || setup.is == Stand::in_kernel;
  if (!is_of_watched_edge(question) || settled) return false;
  return kernels[question] == 0 && (ours[question] & ~kernels[Question::poll]) == 0;
}

bool is_room_behind_fence(const Cell& cell, const Setup& setup, Question question, const Answers& ours,
                          const Answers& kernels) {
  if (setup.is != Stand::anywhere || cell.outgoing != Outgoing::full) return false;
  if (question == Question::send) return ours[question] == 1 && kernels[question] == -EAGAIN;
  if (question < Question::watched_level || question == Question::unread || question == Question::recv ||
      question == Question::error)
    return false;
  const long room = question == Question::select ? kSelectedRoom : kRoom;
  return (kernels[question] & room) == 0 && (ours[question] & ~room) == kernels[question];
}

}  // namespace

const std::vector<Rule>& rules() {
  static const std::vector<Rule> kRules = {
      {"an edge again", "which of the kernel's wake-ups were for bells alone is not known while a fence is ahead",
       is_edge_again},
      {"room behind a fence", "of what filled the buffer on one side nothing fills that of the other",
       is_room_behind_fence},
  };
  return kRules;
}

}  // namespace shunt::differential
