// Undoing; and what a call that was copied by a fork goes on with.
#include "wait/duties.h"

namespace shunt {

void undo_duties_down_to(Duty* floor) {
  if (duties.shared) return;
  while (duties.innermost && duties.innermost != floor) {
    Duty* duty = duties.innermost;
    const bool is_copy = duty == duties.inherited;
    const auto undo = is_copy ? duty->fate_->undo_copy : duty->fate_->undo;
    if (undo) undo(*duty);
    duties.innermost = duty->outer_;
    if (is_copy) duties.inherited = duty->outer_;
  }
}

// From the outermost inwards, as they began: a lock comes before what it protects.
void continue_after_fork(Duty* floor) {
  Duty* next = floor;
  while (duties.innermost != next) {
    Duty* duty = duties.innermost;
    bool is_copy = duty == duties.inherited;
    for (; duty->outer_ != next; is_copy = is_copy || duty == duties.inherited) duty = duty->outer_;
    if (duty->fate_->go_on) duty->fate_->go_on(*duty, is_copy ? Duty::Whose::childs : Duty::Whose::parents);
    next = duty;
  }
  if (duties.inherited) duties.inherited = floor;
  duties.forked = floor != nullptr;
}

}  // namespace shunt
