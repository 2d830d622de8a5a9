// Undoing.
#include "wait/duties.h"

namespace shunt {

void undo_duties_down_to(Duty* floor) {
  while (duties.innermost && duties.innermost != floor) {
    Duty* duty = duties.innermost;
    duty->undo_(*duty);
    duties.innermost = duty->outer_;
  }
}

}  // namespace shunt
